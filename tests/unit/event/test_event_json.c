/* The canonical JSON, key by key, as the documentation promises it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "event/event_view.h"

static struct body body_of(struct slice bytes)
{
    struct body body;
    body_init(&body, NULL);
    assert_true(body_append(&body, bytes));
    return body;
}

static char *json_of(const struct event_fields *fields, struct slice request, struct slice response,
                     struct slice tail)
{
    struct body request_body = body_of(request), response_body = body_of(response),
                response_tail = body_of(tail);
    struct event_record *event = event_record_new(fields, &request_body, &response_body, &response_tail);
    struct buffer out = {0};
    event_write_json(event, 1 << 20, &out);
    event_record_release(event);
    return buffer_take_string(&out);
}

static void assert_contains(const struct event_fields *fields, struct slice response, const char *part)
{
    char *json = json_of(fields, SLICE(""), response, SLICE(""));
    if (strstr(json, part) == NULL)
        fail_msg("%s is not in %s", part, json);
    free(json);
}

static const struct name_value request_headers[] = {
    {{"Host", 4}, {"proxy:8080", 10}},
    {{"Accept", 6}, {"text/event-stream", 17}},
    {{"Authorization", 13}, {"[redacted]", 10}},
    {{"accept", 6}, {"application/json", 16}},
};
static const struct name_value response_headers[] = {{{"Content-Type", 12}, {"text/event-stream", 17}}};

static struct event_fields full_fields(void)
{
    return (struct event_fields){
        .id = SLICE("0199b8a2-1c00-7abc-8def-0123456789ab"),
        .request_id = SLICE("req-1"),
        .time_us = UINT64_C(1767323045678901),
        .method = SLICE("POST"),
        .path = SLICE("/v1/chat/completions"),
        .query = SLICE("key=[redacted]"),
        .status = 200,
        .duration_us = 1834567,
        .ttfb_us = 412000,
        .client = SLICE("127.0.0.1:50312"),
        .client_name = SLICE("team-a"),
        .route = SLICE("openai"),
        .upstream = SLICE("https://api.openai.com"),
        .credential_kind = SLICE("authorization"),
        .credential_fingerprint = SLICE("3f9a0c2b7d1e"),
        .request_headers = request_headers,
        .request_header_count = 4,
        .response_headers = response_headers,
        .response_header_count = 1,
        .request_bytes = 12,
        .response_bytes = 9000000000,
        .response_truncated = true,
        .streamed = true,
        .chunks = 7,
        .error_kind = SLICE("client_aborted"),
        .error_message = SLICE("the client closed the \"connection\""),
        .trace_id = SLICE("4bf92f3577b34da6a3ce929d0e0e4736"),
        .span_id = SLICE("00f067aa0ba902b7"),
        .version = SLICE("0.1.0"),
        .instance = SLICE("host-a"),
    };
}

static void a_full_event_has_every_key_in_the_documented_order(void **state)
{
    (void)state;
    struct event_fields fields = full_fields();
    char *json =
        json_of(&fields, SLICE("{\"n\":\"\xc3\xbc\"}\n"), SLICE("data: {}\n\n"), SLICE("data: [DONE]\n\n"));
    assert_string_equal(
        json,
        "{\"id\":\"0199b8a2-1c00-7abc-8def-0123456789ab\",\"request_id\":\"req-1\",\"time\":\"2026-01-02T03:"
        "04:05.678901Z\","
        "\"method\":\"POST\",\"path\":\"/v1/chat/completions\",\"query\":\"key=[redacted]\",\"status\":200,"
        "\"duration_ms\":1834.567,\"ttfb_ms\":412,\"client\":\"127.0.0.1:50312\",\"client_name\":\"team-a\","
        "\"route\":\"openai\",\"upstream\":\"https://api.openai.com\","
        "\"credential\":{\"kind\":\"authorization\",\"fingerprint\":\"3f9a0c2b7d1e\"},"
        "\"request_headers\":{\"host\":\"proxy:8080\",\"accept\":\"text/event-stream, application/json\","
        "\"authorization\":\"[redacted]\"},\"response_headers\":{\"content-type\":\"text/event-stream\"},"
        "\"request_body\":\"{\\\"n\\\":\\\"\xc3\xbc\\\"}\\n\",\"response_body\":\"data: {}\\n\\n\","
        "\"request_body_encoding\":\"utf8\",\"response_body_encoding\":\"utf8\","
        "\"request_content_coding\":null,\"response_content_coding\":null,"
        "\"request_bytes\":12,\"response_bytes\":9000000000,\"request_truncated\":false,\"response_"
        "truncated\":true,"
        "\"response_tail\":\"data: [DONE]\\n\\n\",\"bodies_withheld\":null,\"streamed\":true,\"chunks\":7,"
        "\"error\":{\"kind\":\"client_aborted\",\"message\":\"the client closed the \\\"connection\\\"\"},"
        "\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"span_id\":\"00f067aa0ba902b7\","
        "\"proxy\":{\"version\":\"0.1.0\",\"instance\":\"host-a\"}}");
    free(json);
}

static void what_is_not_known_is_null(void **state)
{
    (void)state;
    struct event_fields fields = {
        .id = SLICE("0199b8a2-1c00-7abc-8def-0123456789ab"),
        .request_id = SLICE("r"),
        .method = SLICE("GET"),
        .path = SLICE("/"),
        .ttfb_us = EVENT_NO_TIME,
        .client = SLICE("127.0.0.1:1"),
        .withheld = EVENT_WITHHELD_OFF,
        .version = SLICE("0.1.0"),
        .instance = SLICE("i"),
    };
    char *json = json_of(&fields, SLICE(""), SLICE(""), SLICE(""));
    assert_string_equal(
        json,
        "{\"id\":\"0199b8a2-1c00-7abc-8def-0123456789ab\",\"request_id\":\"r\",\"time\":\"1970-01-01T00:00:"
        "00.000000Z\","
        "\"method\":\"GET\",\"path\":\"/\",\"query\":null,\"status\":0,\"duration_ms\":0,\"ttfb_ms\":null,"
        "\"client\":\"127.0.0.1:1\",\"client_name\":null,\"route\":null,\"upstream\":null,\"credential\":"
        "null,"
        "\"request_headers\":{},\"response_headers\":{},\"request_body\":null,\"response_body\":null,"
        "\"request_body_encoding\":null,\"response_body_encoding\":null,\"request_content_coding\":null,"
        "\"response_content_coding\":null,\"request_bytes\":0,\"response_bytes\":0,\"request_truncated\":"
        "false,"
        "\"response_truncated\":false,\"response_tail\":null,\"bodies_withheld\":\"off\",\"streamed\":false,"
        "\"chunks\":0,\"error\":null,\"trace_id\":null,\"span_id\":null,"
        "\"proxy\":{\"version\":\"0.1.0\",\"instance\":\"i\"}}");
    free(json);
}

static void an_empty_body_that_was_kept_is_an_empty_string(void **state)
{
    (void)state;
    struct event_fields fields = full_fields();
    fields.request_kept = fields.response_kept = true;
    assert_contains(&fields, SLICE(""),
                    "\"request_body\":\"\",\"response_body\":\"\",\"request_body_encoding\":\"utf8\","
                    "\"response_body_encoding\":\"utf8\"");
}

static void bytes_are_base64_with_padding(void **state)
{
    (void)state;
    struct event_fields fields = full_fields();
    assert_contains(&fields, SLICE("\xff"), "\"response_body\":\"/w==\"");
    assert_contains(&fields, SLICE("\xff\xfe"), "\"response_body\":\"//4=\"");
    assert_contains(&fields, SLICE("\xff\xfe\x00"), "\"response_body\":\"//4A\"");
    assert_contains(&fields, SLICE("\xff\xfe"), "\"response_body_encoding\":\"base64\"");
}

/* Base64 of a large body is made in pieces: they must join without padding between them. */
static void base64_of_a_large_body_has_no_seams(void **state)
{
    (void)state;
    size_t size = 200000;
    char *bytes = malloc(size);
    assert_non_null(bytes);
    memset(bytes, 0xff, size);
    struct event_fields fields = full_fields();
    char *json = json_of(&fields, SLICE(""), (struct slice){bytes, size}, SLICE(""));
    const char *body = strstr(json, "\"response_body\":\"") + strlen("\"response_body\":\"");
    assert_int_equal(strcspn(body, "\""), (size + 2) / 3 * 4);
    assert_int_equal(strspn(body, "/"), size / 3 * 4 + 2);
    assert_memory_equal(body + size / 3 * 4, "//8=\"", 5);
    free(json);
    free(bytes);
}

static void a_coding_that_stays_is_named(void **state)
{
    (void)state;
    struct name_value headers[] = {{SLICE("Content-Encoding"), SLICE("compress")}};
    struct event_fields fields = full_fields();
    fields.response_headers = headers;
    assert_contains(&fields, SLICE("abc"), "\"response_body\":\"YWJj\"");
    assert_contains(&fields, SLICE("abc"),
                    "\"request_content_coding\":null,\"response_content_coding\":\"compress\"");
}

static void paths_and_headers_that_are_not_utf8_are_read_as_latin1(void **state)
{
    (void)state;
    struct name_value headers[] = {{SLICE("X-Name"), SLICE("M\xfcller")}};
    struct event_fields fields = full_fields();
    fields.path = SLICE("/caf\xe9");
    fields.query = SLICE("q=\xc3\xa9");
    fields.response_headers = headers;
    assert_contains(&fields, SLICE(""), "\"path\":\"/caf\xc3\xa9\",\"query\":\"q=\xc3\xa9\"");
    assert_contains(&fields, SLICE(""), "\"response_headers\":{\"x-name\":\"M\xc3\xbcller\"}");
}

static void a_query_that_is_there_but_empty_is_not_null(void **state)
{
    (void)state;
    struct event_fields fields = full_fields();
    fields.query = SLICE("");
    assert_contains(&fields, SLICE(""), "\"query\":\"\",");
}

static void times_keep_their_microseconds(void **state)
{
    (void)state;
    struct event_fields fields = full_fields();
    static const struct {
        uint64_t us;
        const char *text;
    } cases[] = {
        {0, "\"duration_ms\":0,"},
        {1, "\"duration_ms\":0.001,"},
        {999, "\"duration_ms\":0.999,"},
        {100500, "\"duration_ms\":100.5,"},
        {86400000001, "\"duration_ms\":86400000.001,"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fields.duration_us = cases[i].us;
        assert_contains(&fields, SLICE(""), cases[i].text);
    }
}

static void control_characters_of_a_body_are_escaped(void **state)
{
    (void)state;
    struct event_fields fields = full_fields();
    assert_contains(&fields, SLICE("a\0b\x1f\"\\"), "\"response_body\":\"a\\u0000b\\u001f\\\"\\\\\"");
}

static void memory_that_ran_out_is_said(void **state)
{
    (void)state;
    struct event_fields fields = full_fields();
    fields.withheld = EVENT_WITHHELD_MEMORY;
    assert_contains(&fields, SLICE(""), "\"bodies_withheld\":\"memory\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_event_has_every_key_in_the_documented_order),
        cmocka_unit_test(what_is_not_known_is_null),
        cmocka_unit_test(an_empty_body_that_was_kept_is_an_empty_string),
        cmocka_unit_test(bytes_are_base64_with_padding),
        cmocka_unit_test(base64_of_a_large_body_has_no_seams),
        cmocka_unit_test(a_coding_that_stays_is_named),
        cmocka_unit_test(paths_and_headers_that_are_not_utf8_are_read_as_latin1),
        cmocka_unit_test(a_query_that_is_there_but_empty_is_not_null),
        cmocka_unit_test(times_keep_their_microseconds),
        cmocka_unit_test(control_characters_of_a_body_are_escaped),
        cmocka_unit_test(memory_that_ran_out_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
