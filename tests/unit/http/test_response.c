/*
 * response: what a response head means for the length of its body and for its connection.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/head.h"

#define OK "HTTP/1.1 200 OK\r\n"

static const struct http_limits limits = {
    .max_head_bytes = 65536, .max_headers = 8, .max_target_bytes = 1000};
static struct http_response response;
static struct http_problem problem;

static bool parse(const char *head, bool head_request)
{
    struct http_scan scan = {0};
    struct slice whole = slice_of(head);
    enum http_scan_result result = http_scan_head(&scan, whole, true, &limits, &problem);
    assert_int_not_equal(result, HTTP_SCAN_INCOMPLETE);
    if (result == HTTP_SCAN_COMPLETE) {
        return http_parse_response(whole, head_request, &limits, &response, &problem);
    }
    const char *reason = problem.reason;
    assert_false(http_parse_response(whole, head_request, &limits, &response, &problem));
    problem.reason = reason;
    return false;
}

static int free_response(void **state)
{
    (void)state;
    http_response_free(&response);
    return 0;
}

enum { GET, HEAD };

static const struct {
    const char *head;
    bool head_request;
    int status;
    enum http_body body;
    uint64_t content_length;
    bool has_content_length, keep_alive;
} accepted[] = {
    {OK "Content-Length: 5\r\n\r\n", GET, 200, HTTP_BODY_LENGTH, 5, true, true},
    {OK "Content-Length: 0\r\n\r\n", GET, 200, HTTP_BODY_LENGTH, 0, true, true},
    {OK "Transfer-Encoding: Chunked\r\n\r\n", GET, 200, HTTP_BODY_CHUNKED, 0, false, true},
    {OK "\r\n", GET, 200, HTTP_BODY_UNTIL_CLOSE, 0, false, false},
    {OK "Connection: close\r\nContent-Length: 5\r\n\r\n", GET, 200, HTTP_BODY_LENGTH, 5, true, false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", GET, 200, HTTP_BODY_LENGTH, 5, true, false},
    {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\n", GET, 200, HTTP_BODY_LENGTH, 5,
     true, true},
    {"HTTP/1.0 200 OK\r\n\r\n", GET, 200, HTTP_BODY_UNTIL_CLOSE, 0, false, false},
    {"HTTP/1.1 404 \r\nContent-Length: 1\r\n\r\n", GET, 404, HTTP_BODY_LENGTH, 1, true, true},
    /* No body, whatever is said about it. */
    {OK "Content-Length: 500\r\n\r\n", HEAD, 200, HTTP_BODY_NONE, 500, true, true},
    {OK "Transfer-Encoding: chunked\r\n\r\n", HEAD, 200, HTTP_BODY_NONE, 0, false, true},
    {OK "\r\n", HEAD, 200, HTTP_BODY_NONE, 0, false, true},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n", GET, 304, HTTP_BODY_NONE, 500, true, true},
    {"HTTP/1.1 204 No Content\r\n\r\n", GET, 204, HTTP_BODY_NONE, 0, false, true},
    {"HTTP/1.1 100 Continue\r\n\r\n", GET, 100, HTTP_BODY_NONE, 0, false, true},
    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", GET, 101, HTTP_BODY_NONE, 0, false, true},
    {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", GET, 103, HTTP_BODY_NONE, 0, false, true},
    /* Oddities that cost the connection. */
    {"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", GET, 200, HTTP_BODY_LENGTH, 5, true, false},
    {OK "Content-Length: 5\r\nContent-Length: 05\r\n\r\n", GET, 200, HTTP_BODY_LENGTH, 5, true, false},
    {OK "Content-Length: 5, 5\r\n\r\n", GET, 200, HTTP_BODY_LENGTH, 5, true, false},
    {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n", GET, 200,
     HTTP_BODY_CHUNKED, 0, false, false},
    {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", GET, 204, HTTP_BODY_NONE, 0, false, false},
    {"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", GET, 204, HTTP_BODY_NONE, 0, false,
     false},
    {"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", GET, 100, HTTP_BODY_NONE, 0, false, false},
};

static void body_and_connection_follow_from_status_method_and_fields(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
        if (!parse(accepted[i].head, accepted[i].head_request)) {
            fail_msg("refused (%s): %s", problem.reason, accepted[i].head);
        }
        if (response.status != accepted[i].status || response.body != accepted[i].body ||
            response.content_length != accepted[i].content_length ||
            response.has_content_length != accepted[i].has_content_length ||
            response.keep_alive != accepted[i].keep_alive) {
            fail_msg("misunderstood: %s", accepted[i].head);
        }
    }
}

static const struct {
    const char *head, *reason;
} refused[] = {
    {"hello world\r\n\r\n", "not_http"},
    {"HTTP/9x 200 OK\r\n\r\n", "malformed_status_line"},
    {"HTTP/1.1  200 OK\r\n\r\n", "malformed_status_line"},
    {"HTTP/1.1 99 OK\r\n\r\n", "malformed_status_line"},
    {"HTTP/1.1 1000 OK\r\n\r\n", "malformed_status_line"},
    {"HTTP/1.1 2x0 OK\r\n\r\n", "malformed_status_line"},
    {"HTTP/1.1\r\n\r\n", "malformed_status_line"},
    {"HTTP/1.1 000 OK\r\n\r\n", "malformed_status"},
    {"HTTP/1.1 099 OK\r\n\r\n", "malformed_status"},
    {"HTTP/1.1 600 OK\r\n\r\n", "malformed_status"},
    {"HTTP/1.2 200 OK\r\n\r\n", "version_not_supported"},
    {"HTTP/2.0 200 OK\r\n\r\n", "version_not_supported"},
    {"HTTP/0.9 200 OK\r\n\r\n", "version_not_supported"},
    {"HTTP/1.1 200 O\x01K\r\n\r\n", "control_character"},
    {OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "content_length_and_transfer_encoding"},
    {OK "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "content_length_and_transfer_encoding"},
    {OK "Content-Length: 5\r\nContent-Length: 3\r\n\r\n", "content_lengths_differ"},
    {OK "Content-Length: 5, 3\r\n\r\n", "content_lengths_differ"},
    {OK "Content-Length: +5\r\n\r\n", "malformed_content_length"},
    {OK "Content-Length: -5\r\n\r\n", "malformed_content_length"},
    {OK "Content-Length: 5abc\r\n\r\n", "malformed_content_length"},
    {OK "Content-Length:\r\n\r\n", "malformed_content_length"},
    {OK "Content-Length: ,\r\n\r\n", "malformed_content_length"},
    {OK "Content-Length: 99999999999999999999\r\n\r\n", "malformed_content_length"},
    {OK "Transfer-Encoding: gzip\r\n\r\n", "unsupported_transfer_encoding"},
    {OK "Transfer-Encoding: gzip, chunked\r\n\r\n", "unsupported_transfer_encoding"},
    {OK "Transfer-Encoding: chunked, chunked\r\n\r\n", "unsupported_transfer_encoding"},
    {OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "unsupported_transfer_encoding"},
    {OK "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n", "unsupported_transfer_encoding"},
    {OK "X-A: one\r\n two\r\n\r\n", "folded_line"},
    {OK " X-A: a\r\n\r\n", "folded_line"},
    {OK "X-A : one\r\n\r\n", "space_in_field_name"},
    {OK "GARBAGE\r\n\r\n", "missing_colon"},
    {OK ": a\r\n\r\n", "empty_field_name"},
    {OK "X-A: a\rb\r\n\r\n", "bare_cr"},
    {OK "X-A: a\nX-B: b\r\n\r\n", "bare_lf"},
    {OK "X-A: a\x7f\r\n\r\n", "control_character"},
    {OK "A:\r\nB:\r\nC:\r\nD:\r\nE:\r\nF:\r\nG:\r\nH:\r\nI:\r\n\r\n", "too_many_headers"},
};

static void invalid_responses_are_refused_with_their_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (parse(refused[i].head, false)) {
            fail_msg("accepted: %s", refused[i].head);
        }
        if (strcmp(problem.reason, refused[i].reason) != 0) {
            fail_msg("%s, not %s: %s", problem.reason, refused[i].reason, refused[i].head);
        }
        assert_int_equal(problem.fault, HTTP_UPSTREAM_INVALID_RESPONSE);
    }
}

static void reason_and_fields_are_taken_as_received(void **state)
{
    (void)state;
    assert_true(parse(
        "HTTP/1.1 299 So \xe9 it is\r\nSet-Cookie: a\r\nX:\r\nSet-Cookie:  b \r\nContent-Length: 0\r\n\r\n",
        false));
    assert_true(slice_equal(response.reason, slice_of("So \xe9 it is")));
    assert_int_equal(response.fields.count, 4);
    assert_true(slice_equal(response.fields.items[2].value, slice_of("b")));
    assert_int_equal(response.minor_version, 1);
    assert_true(parse("HTTP/1.0 200 \r\n\r\n", false));
    assert_int_equal(response.reason.size, 0);
    assert_int_equal(response.minor_version, 0);
}

/* The parser holds the limit by itself: the head may come from elsewhere than the scan. */
static void a_complete_head_over_its_limit_is_refused(void **state)
{
    (void)state;
    struct slice head = SLICE(OK "Content-Length: 5\r\n\r\n");
    struct http_limits small = limits;
    small.max_head_bytes = head.size;
    assert_true(http_parse_response(head, GET, &small, &response, &problem));
    small.max_head_bytes--;
    assert_false(http_parse_response(head, GET, &small, &response, &problem));
    assert_int_equal(problem.fault, HTTP_UPSTREAM_INVALID_RESPONSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(body_and_connection_follow_from_status_method_and_fields),
        cmocka_unit_test(invalid_responses_are_refused_with_their_reason),
        cmocka_unit_test(reason_and_fields_are_taken_as_received),
        cmocka_unit_test(a_complete_head_over_its_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, free_response);
}
