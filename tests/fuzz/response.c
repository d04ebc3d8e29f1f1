/*
 * Response heads: any bytes are refused, or understood the same way however they arrive; and what is understood means the same to the client when the proxy has written
 * it anew.
 */
#include "heads.h"
#include "proxy/forward.h"

static void require_same_fields(const struct http_response *response, const struct http_fields *again)
{
    size_t next = 0;
    for (size_t i = 0; i < response->fields.count; i++) {
        struct name_value field = response->fields.items[i];
        if (slice_equal_nocase(field.name, SLICE("content-length")) ||
            http_fields_is_hop_by_hop(&response->fields, field.name))
            continue;
        REQUIRE(field_equals(again, next, field.name, field.value));
        next++;
    }
}

static void parse_written(struct slice written, bool head_request, struct http_response *again)
{
    struct http_problem problem = {.reason = ""};
    struct scanned scanned = scan_cut(written, true, &fuzz_no_limits, FUZZ_WHOLE);
    REQUIRE(scanned.result == HTTP_SCAN_COMPLETE && scanned.size == written.size);
    REQUIRE_MESSAGE(http_parse_response(written, head_request, &fuzz_no_limits, again, &problem),
                    problem.reason);
}

static void forward_interim(const struct http_response *response)
{
    struct buffer out = {0};
    struct http_response again = {0};
    forward_write_interim(response, &out);
    parse_written(buffer_slice(&out), false, &again);
    REQUIRE(again.status == response->status && again.body == HTTP_BODY_NONE);
    require_same_fields(response, &again.fields);
    http_response_free(&again);
    buffer_free(&out);
}

static void forward_as(const struct http_response *response, bool head_request, enum forward_framing framing,
                       bool close)
{
    struct buffer out = {0}, scratch = {0};
    struct http_fields sent = {0};
    struct http_response again = {0};
    forward_write_response(
        &(struct forward_response){
            .response = response, .framing = framing, .close = close, .request_id = "id-of-the-proxy"},
        &scratch, &sent, &out);
    parse_written(buffer_slice(&out), head_request, &again);
    REQUIRE(again.status == response->status && again.keep_alive == !close);
    if (response->status == 205)
        REQUIRE(head_request || (again.body == HTTP_BODY_LENGTH && again.content_length == 0));
    else if (framing == FORWARD_UNTIL_CLOSE)
        REQUIRE(again.body == HTTP_BODY_UNTIL_CLOSE);
    else if (framing == FORWARD_CHUNKED)
        REQUIRE(again.body == HTTP_BODY_CHUNKED);
    else
        REQUIRE(again.body == response->body && again.content_length == response->content_length);
    REQUIRE(sent.count == again.fields.count);
    for (size_t i = 0; i < sent.count; i++)
        REQUIRE(field_equals(&again.fields, i, sent.items[i].name, sent.items[i].value));
    REQUIRE(http_fields_count(&sent, SLICE("date")) >= 1 &&
            http_fields_count(&sent, SLICE("x-request-id")) >= 1);
    require_same_fields(response, &again.fields);
    http_response_free(&again);
    http_fields_free(&sent);
    buffer_free(&scratch);
    buffer_free(&out);
}

static void forward(const struct http_response *response, bool head_request)
{
    if (response->status < 200) {
        forward_interim(response);
    } else if (response->body == HTTP_BODY_NONE || response->status == 205) {
        forward_as(response, head_request, FORWARD_NONE, false);
        forward_as(response, head_request, FORWARD_NONE, true);
    } else if (response->body == HTTP_BODY_LENGTH) {
        forward_as(response, head_request, FORWARD_LENGTH, false);
    } else {
        forward_as(response, head_request, FORWARD_CHUNKED, false);
        forward_as(response, head_request, FORWARD_UNTIL_CLOSE, true);
    }
}

static void check(struct slice data, const struct http_limits *limits, bool head_request)
{
    static struct http_response response;
    struct http_problem problem = {.reason = "", .message = ""};
    struct scanned scanned = scan_any_way(data, true, limits);
    if (scanned.result != HTTP_SCAN_COMPLETE) {
        REQUIRE(!http_parse_response(data, head_request, limits, &response, &problem));
        require_problem(&problem);
        return;
    }
    struct slice head = fuzz_copy((struct slice){data.data, scanned.size});
    if (http_parse_response(head, head_request, limits, &response, &problem)) {
        REQUIRE(response.status >= 100 && response.status <= 599 && http_is_field_value(response.reason));
        REQUIRE(!(head_request && response.body != HTTP_BODY_NONE));
        REQUIRE(!(response.body == HTTP_BODY_UNTIL_CLOSE && response.keep_alive));
        require_fields(&response.fields, limits);
        forward(&response, head_request);
    } else {
        require_problem(&problem);
        REQUIRE(problem.fault == HTTP_UPSTREAM_INVALID_RESPONSE);
    }
    free((char *)(uintptr_t)head.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = {(const char *)data, size};
    for (size_t i = 0; i < FUZZ_LIMITS; i++) {
        check(input, &fuzz_limits[i], false);
        check(input, &fuzz_limits[i], true);
    }
    return 0;
}
