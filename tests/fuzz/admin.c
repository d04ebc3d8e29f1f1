/*
 * Requests to the admin listener: whatever is asked, the answer is one well-formed response of the length it says; pages come only to those who name the listener by an address or a name of its own, and statistics only
 * with the token.
 */
#include "admin/answer.h"
#include "heads.h"

#define TOKEN   "token-of-admin"
#define STATS   "{\"only\":\"with-the-token\"}"
#define METRICS "fuzz_seen_total"

static bool is_ready(void *argument, const char **reason)
{
    const bool *ready = argument;
    *reason = "starting";
    return *ready;
}

static void write_stats(void *argument, struct buffer *out)
{
    (void)argument;
    buffer_append_string(out, STATS);
}

static const struct admin_settings *settings(bool with_token)
{
    static const char *const hosts[] = {"proxy.internal", NULL};
    static struct admin_settings made[2];
    static bool ready[2] = {false, true};
    if (made[0].metrics == NULL) {
        struct metrics *metrics = metrics_new();
        metric_add(metrics_counter(metrics, METRICS, "Help.", (struct metric_label[]){{0}}), 1);
        for (int i = 0; i < 2; i++)
            made[i] = (struct admin_settings){.token = i > 0 ? TOKEN : NULL,
                                              .hosts = hosts,
                                              .metrics = metrics,
                                              .is_ready = is_ready,
                                              .write_stats = write_stats,
                                              .argument = &ready[i]};
    }
    return &made[with_token];
}

static bool contains(struct slice text, struct slice part)
{
    return text.size > 0 && memmem(text.data, text.size, part.data, part.size) != NULL;
}

static bool names_listener(struct slice authority)
{
    struct address ip;
    struct slice host = authority;
    if (authority.size == 0 || authority.data[0] == '[')
        return true;
    return slice_split(&authority, ':', &host) &&
           (slice_equal_nocase(host, SLICE("localhost")) ||
            slice_equal_nocase(host, SLICE("proxy.internal")) || address_from_ip(host, 0, &ip));
}

static bool has_token(const struct http_fields *fields)
{
    const struct name_value *field = http_fields_find(fields, SLICE("authorization"));
    struct slice scheme = SLICE("bearer ");
    if (field == NULL || field->value.size < scheme.size)
        return false;
    struct slice given = {field->value.data + scheme.size, field->value.size - scheme.size};
    return slice_equal_nocase((struct slice){field->value.data, scheme.size}, scheme) &&
           slice_equal(slice_trim(given), SLICE(TOKEN));
}

static void check_answer(const struct http_request *request, bool with_token)
{
    struct buffer out = {0};
    struct http_response response = {0};
    struct http_problem problem = {.reason = ""};
    bool head_request = slice_equal(request->method, SLICE("HEAD"));
    bool kept = admin_answer(settings(with_token), request, &out);
    struct scanned scanned = scan_cut(buffer_slice(&out), true, &fuzz_no_limits, FUZZ_WHOLE);
    REQUIRE_MESSAGE(scanned.result == HTTP_SCAN_COMPLETE, scanned.problem.reason);
    struct slice head = {buffer_data(&out), scanned.size};
    struct slice body = {head.data + head.size, out.size - head.size};
    REQUIRE_MESSAGE(http_parse_response(head, head_request, &fuzz_no_limits, &response, &problem),
                    problem.reason);
    REQUIRE(response.has_content_length && body.size == (head_request ? 0 : response.content_length));
    REQUIRE(response.keep_alive == kept && (!kept || request->keep_alive));
    REQUIRE(!kept || request->body == HTTP_BODY_NONE || request->content_length == 0);

    bool shown = contains(body, SLICE(STATS)), counted = contains(body, SLICE(METRICS));
    REQUIRE(response.status != 200 || names_listener(request->authority));
    REQUIRE((!shown && !counted) || (response.status == 200 && slice_equal(request->method, SLICE("GET"))));
    REQUIRE(!shown || !with_token || has_token(&request->fields));
    REQUIRE(with_token || response.status != 401);
    http_response_free(&response);
    buffer_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http_request request;
    struct http_problem problem = {.reason = ""};
    struct slice input = fuzz_copy((struct slice){(const char *)data, size});
    struct scanned scanned = scan_any_way(input, false, &fuzz_limits[1]);
    struct slice head = {input.data, scanned.size};
    if (scanned.result == HTTP_SCAN_COMPLETE &&
        http_parse_request(head, &fuzz_limits[1], &request, &problem)) {
        check_answer(&request, false);
        check_answer(&request, true);
    }
    free((char *)(uintptr_t)input.data);
    return 0;
}
