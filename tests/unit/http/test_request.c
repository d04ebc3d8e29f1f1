/*
 * request: what a request head means, and everything that is refused because two readers could disagree about it.
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

#define LINE "POST /t HTTP/1.1\r\n"
#define HOST "Host: example.test\r\n"
#define END  "\r\n"

static const struct http_limits limits = {
    .max_head_bytes = 65536, .max_headers = 8, .max_target_bytes = 1000};
static struct http_request request;
static struct http_problem problem;

static bool parse(struct slice head)
{
    struct http_scan scan = {0};
    problem = (struct http_problem){HTTP_OK, "", ""};
    switch (http_scan_head(&scan, head, false, &limits, &problem)) {
    case HTTP_SCAN_COMPLETE:
        assert_int_equal(scan.offset, head.size);
        return http_parse_request(head, &limits, &request, &problem);
    case HTTP_SCAN_REFUSED: {
        /* The parser alone is as strict as the scan: the same refusal. */
        const char *reason = problem.reason;
        assert_false(http_parse_request(head, &limits, &request, &problem));
        problem.reason = reason;
        return false;
    }
    default:
        fail_msg("incomplete head");
        return false;
    }
}

static void accept(const char *head)
{
    if (!parse(slice_of(head))) {
        fail_msg("refused (%s): %s", problem.reason, head);
    }
}

static void assert_slice(struct slice s, const char *text)
{
    if (!slice_equal(s, slice_of(text))) {
        fail_msg("%.*s is not %s", SLICE_ARGUMENTS(s), text);
    }
}

static int free_request(void **state)
{
    (void)state;
    http_request_free(&request);
    return 0;
}

static void parts_are_taken_as_received(void **state)
{
    (void)state;
    accept("\r\nGeT /v1/Chat%20x?a=1?b[]={}|%zz HTTP/1.1\r\nHOST: Example.test:8080\r\nX-A: \t b \xff c\t "
           "\r\nX-Empty:\r\nX-A:d\r\n\r\n");
    assert_slice(request.method, "GeT");
    assert_slice(request.target, "/v1/Chat%20x?a=1?b[]={}|%zz");
    assert_slice(request.path, "/v1/Chat%20x");
    assert_true(request.has_query);
    assert_slice(request.query, "a=1?b[]={}|%zz");
    assert_slice(request.authority, "Example.test:8080");
    assert_int_equal(request.minor_version, 1);
    assert_int_equal(request.fields.count, 4);
    assert_slice(request.fields.items[1].name, "X-A");
    assert_slice(request.fields.items[1].value, "b \xff c");
    assert_slice(request.fields.items[2].value, "");
    assert_slice(request.fields.items[3].value, "d");
    assert_int_equal(request.body, HTTP_BODY_NONE);

    accept("GET /? HTTP/1.1\r\n" HOST END);
    assert_true(request.has_query);
    assert_int_equal(request.query.size, 0);
    accept("GET /x HTTP/1.1\r\n" HOST END);
    assert_false(request.has_query);
    assert_int_equal(request.fields.count, 1);
}

static void framing_is_what_one_field_says(void **state)
{
    (void)state;
    accept(LINE HOST "Content-Length: 5\r\n" END);
    assert_int_equal(request.body, HTTP_BODY_LENGTH);
    assert_int_equal(request.content_length, 5);
    accept(LINE HOST "content-LENGTH: \t999999999999999999\t\r\n" END);
    assert_int_equal(request.content_length, UINT64_C(999999999999999999));
    accept(LINE HOST "Content-Length: 0\r\n" END);
    assert_int_equal(request.body, HTTP_BODY_LENGTH);
    accept(LINE HOST "tRANSFER-eNCODING:\t cHUNKED \t\r\n" END);
    assert_int_equal(request.body, HTTP_BODY_CHUNKED);
    accept("GET /t HTTP/1.1\r\n" HOST "Content-Length: 5\r\n" END);
    assert_int_equal(request.body, HTTP_BODY_LENGTH);
    accept(LINE HOST "Connection: Content-Length\r\nContent-Length: 5\r\n" END);
    assert_int_equal(request.content_length, 5);
    accept(LINE HOST END);
    assert_int_equal(request.body, HTTP_BODY_NONE);
    assert_int_equal(request.content_length, 0);
}

static void connection_is_kept_as_version_and_options_say(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        bool keep_alive;
    } cases[] = {
        {LINE HOST END, true},
        {LINE HOST "Connection: keep-alive\r\n" END, true},
        {LINE HOST "Connection: close\r\n" END, false},
        {LINE HOST "Connection: keep-alive, Close\r\n" END, false},
        {LINE HOST "Connection: x\r\nConnection: ,, CLOSE\r\n" END, false},
        {LINE HOST "Connection: closed\r\n" END, true},
        {"GET /t HTTP/1.0\r\n" END, false},
        {"GET /t HTTP/1.0\r\nConnection: Keep-Alive\r\n" END, true},
        {"GET /t HTTP/1.0\r\nConnection: keep-alive, close\r\n" END, false},
        {"GET /t HTTP/1.7\r\n" HOST END, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        accept(cases[i].head);
        assert_int_equal(request.keep_alive, cases[i].keep_alive);
    }
}

static void expectation_counts_only_where_a_body_follows(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        bool expect;
    } cases[] = {
        {LINE HOST "Expect: 100-Continue\r\nContent-Length: 5\r\n" END, true},
        {LINE HOST "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n" END, true},
        {LINE HOST "Expect: 100-continue\r\nContent-Length: 0\r\n" END, false},
        {LINE HOST "Expect: 100-continue\r\n" END, false},
        {LINE HOST "Content-Length: 5\r\n" END, false},
        {"POST /t HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n" END, false},
        {"POST /t HTTP/1.0\r\nExpect: magic\r\nContent-Length: 5\r\n" END, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        accept(cases[i].head);
        assert_int_equal(request.expect_continue, cases[i].expect);
    }
}

static void targets_have_the_forms_of_their_methods(void **state)
{
    (void)state;
    static const struct {
        const char *line, *host, *path, *query, *authority;
    } cases[] = {
        {"OPTIONS * HTTP/1.1\r\n", HOST, "*", NULL, "example.test"},
        {"OPTIONS http://example.test HTTP/1.1\r\n", HOST, "*", NULL, "example.test"},
        {"GET http://example.test HTTP/1.1\r\n", HOST, "/", NULL, "example.test"},
        {"GET http://example.test?q HTTP/1.1\r\n", HOST, "/", "q", "example.test"},
        {"GET HTTP://EXAMPLE.test:80/t?q HTTP/1.1\r\n", HOST, "/t", "q", "EXAMPLE.test:80"},
        {"GET https://example.test/t HTTP/1.1\r\n", "Host: example.test:443\r\n", "/t", NULL, "example.test"},
        {"GET http://example.test/http://evil.test/ HTTP/1.1\r\n", HOST, "/http://evil.test/", NULL,
         "example.test"},
        {"GET http://[::1]:8080/t HTTP/1.0\r\n", "", "/t", NULL, "[::1]:8080"},
        {"GET /t//x HTTP/1.0\r\n", "", "/t//x", NULL, ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char head[300];
        snprintf(head, sizeof(head), "%s%s\r\n", cases[i].line, cases[i].host);
        accept(head);
        assert_slice(request.path, cases[i].path);
        assert_int_equal(request.has_query, cases[i].query != NULL);
        if (cases[i].query != NULL) {
            assert_slice(request.query, cases[i].query);
        }
        assert_slice(request.authority, cases[i].authority);
    }
}

static void hosts_are_names_and_addresses(void **state)
{
    (void)state;
    static const char *const good[] = {
        "example.test",    "EXAMPLE.test:65535", "my_service-1:80",     "10.0.0.1",      "[::1]",
        "[2001:db8::a]:1", "example.test:",      "[::ffff:1.2.3.4]:80", "localhost:8080"};
    static const char *const bad[] = {"",
                                      "user@example.test",
                                      "example.test/x",
                                      "example.test?x",
                                      "example.test, evil.test",
                                      "example.test evil.test",
                                      "a\\b",
                                      "example.test:65536",
                                      "example.test:-1",
                                      "example.test:+1",
                                      "example.test:123456",
                                      "example.test:80:81",
                                      ":80",
                                      "[::1",
                                      "::1",
                                      "[::1]x",
                                      "[]",
                                      "[::1%25eth0]",
                                      "[v1.x]",
                                      "[1.2.3.4]",
                                      "http://example.test",
                                      "\xff.test",
                                      "%65xample.test"};
    char head[300];
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(head, sizeof(head), LINE "Host: %s\r\n\r\n", good[i]);
        accept(head);
        assert_slice(request.authority, good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(head, sizeof(head), LINE "Host: %s\r\n\r\n", bad[i]);
        assert_false(parse(slice_of(head)));
        assert_string_equal(problem.reason, "malformed_host");
        assert_int_equal(problem.fault, HTTP_BAD_REQUEST);
    }
}

static const struct {
    const char *head;
    enum http_fault fault;
    const char *reason;
} refused[] = {
    /* Framing. */
    {LINE HOST "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n" END, HTTP_BAD_REQUEST,
     "content_length_and_transfer_encoding"},
    {LINE HOST "Transfer-Encoding:\r\nContent-Length: x\r\n" END, HTTP_BAD_REQUEST,
     "content_length_and_transfer_encoding"},
    {"POST /t HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" END, HTTP_BAD_REQUEST,
     "transfer_encoding_in_http_1_0"},
    {"POST /t HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n" END, HTTP_BAD_REQUEST,
     "transfer_encoding_in_http_1_0"},
    {LINE HOST "Transfer-Encoding: gzip, chunked\r\n" END, HTTP_UNSUPPORTED, "unsupported_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" END, HTTP_UNSUPPORTED,
     "unsupported_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: chunked, chunked\r\n" END, HTTP_BAD_REQUEST,
     "malformed_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END, HTTP_BAD_REQUEST,
     "malformed_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n" END, HTTP_BAD_REQUEST,
     "malformed_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: chunked, gzip, chunked\r\n" END, HTTP_BAD_REQUEST,
     "malformed_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: chunked, identity\r\n" END, HTTP_BAD_REQUEST,
     "malformed_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: ,chunked\r\n" END, HTTP_BAD_REQUEST, "malformed_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: chunked;q=1\r\n" END, HTTP_BAD_REQUEST, "malformed_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: \"chunked\"\r\n" END, HTTP_BAD_REQUEST, "malformed_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: xchunked\r\n" END, HTTP_BAD_REQUEST, "malformed_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: chunked\xa0\r\n" END, HTTP_BAD_REQUEST, "malformed_transfer_encoding"},
    {LINE HOST "Transfer-Encoding: \x0b"
               "chunked\r\n" END,
     HTTP_BAD_REQUEST, "control_character"},
    {LINE HOST "Transfer-Encoding: chunked\r\r\n" END, HTTP_BAD_REQUEST, "bare_cr"},
    {LINE HOST "Transfer-Encoding:\r\n chunked\r\n" END, HTTP_BAD_REQUEST, "folded_line"},
    {LINE HOST "Transfer-Encoding : chunked\r\n" END, HTTP_BAD_REQUEST, "space_in_field_name"},
    {LINE HOST "Transfer-Encoding\x85: chunked\r\n" END, HTTP_BAD_REQUEST, "malformed_field_name"},
    {LINE HOST "Content-Length: 5\r\nContent-Length: 5\r\n" END, HTTP_BAD_REQUEST, "content_length_repeated"},
    {LINE HOST "Content-Length: 5, 5\r\n" END, HTTP_BAD_REQUEST, "malformed_content_length"},
    {LINE HOST "Content-Length:\r\n" END, HTTP_BAD_REQUEST, "malformed_content_length"},
    {LINE HOST "Content-Length: +5\r\n" END, HTTP_BAD_REQUEST, "malformed_content_length"},
    {LINE HOST "Content-Length: -5\r\n" END, HTTP_BAD_REQUEST, "malformed_content_length"},
    {LINE HOST "Content-Length: 0x5\r\n" END, HTTP_BAD_REQUEST, "malformed_content_length"},
    {LINE HOST "Content-Length: 5 0\r\n" END, HTTP_BAD_REQUEST, "malformed_content_length"},
    {LINE HOST "Content-Length: 5;\r\n" END, HTTP_BAD_REQUEST, "malformed_content_length"},
    {LINE HOST "Content-Length: 1000000000000000000\r\n" END, HTTP_BAD_REQUEST, "malformed_content_length"},
    {LINE HOST "Content-Length: 18446744073709551621\r\n" END, HTTP_BAD_REQUEST, "malformed_content_length"},
    /* Field lines. */
    {LINE HOST "X\r\n" END, HTTP_BAD_REQUEST, "missing_colon"},
    {LINE HOST ": b\r\n" END, HTTP_BAD_REQUEST, "empty_field_name"},
    {LINE HOST "Content Length: 5\r\n" END, HTTP_BAD_REQUEST, "space_in_field_name"},
    {LINE HOST "X\t: 5\r\n" END, HTTP_BAD_REQUEST, "space_in_field_name"},
    {LINE HOST "X@: 5\r\n" END, HTTP_BAD_REQUEST, "malformed_field_name"},
    {LINE HOST "X\x7f: 5\r\n" END, HTTP_BAD_REQUEST, "control_character"},
    {LINE HOST "X: a\r\n \r\n" END, HTTP_BAD_REQUEST, "folded_line"},
    {LINE " " HOST END, HTTP_BAD_REQUEST, "folded_line"},
    {LINE HOST "X: a\nY: b\r\n" END, HTTP_BAD_REQUEST, "bare_lf"},
    {LINE HOST "X: a\rY: b\r\n" END, HTTP_BAD_REQUEST, "bare_cr"},
    {LINE HOST "A:\r\nB:\r\nC:\r\nD:\r\nE:\r\nF:\r\nG:\r\nH:\r\n" END, HTTP_HEADERS_TOO_LARGE,
     "too_many_headers"},
    {LINE HOST "Authorization: a\r\nauthorization: a\r\n" END, HTTP_BAD_REQUEST, "authorization_repeated"},
    {LINE HOST "Content_Length: 5\r\n" END, HTTP_BAD_REQUEST, "disguised_field"},
    {LINE HOST "transfer_encoding: chunked\r\n" END, HTTP_BAD_REQUEST, "disguised_field"},
    {LINE HOST "X_Forwarded-For: 1.2.3.4\r\n" END, HTTP_BAD_REQUEST, "disguised_field"},
    {LINE HOST "x_api_key: k\r\n" END, HTTP_BAD_REQUEST, "disguised_field"},
    /* Host and target. */
    {LINE END, HTTP_BAD_REQUEST, "host_missing"},
    {LINE HOST HOST END, HTTP_BAD_REQUEST, "host_repeated"},
    {"GET /t HTTP/1.0\r\n" HOST HOST END, HTTP_BAD_REQUEST, "host_repeated"},
    {"GET t HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "malformed_target"},
    {"GET * HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "malformed_target"},
    {"OPTIONS *x HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "malformed_target"},
    {"GET example.test:80 HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "malformed_target"},
    {"GET ftp://example.test/t HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "malformed_target"},
    {"GET http:///t HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "malformed_target"},
    {"GET http://u:p@example.test/t HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "malformed_target"},
    {"GET http://evil.test/t HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "target_and_host_differ"},
    {"GET http://example.test:81/t HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "target_and_host_differ"},
    {"GET /t#x HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "fragment"},
    {"GET //evil.test/t HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "unsafe_path"},
    {"GET /t/../x HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "unsafe_path"},
    {"GET http://example.test/%2e%2E/x HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "unsafe_path"},
    {"CONNECT example.test HTTP/1.1\r\n" HOST END, HTTP_BAD_REQUEST, "malformed_target"},
    {"CONNECT example.test:80 HTTP/1.1\r\n" HOST END, HTTP_METHOD_NOT_ALLOWED, "method_not_allowed"},
    {"TRACE /t HTTP/1.1\r\n" HOST END, HTTP_METHOD_NOT_ALLOWED, "method_not_allowed"},
    {LINE HOST "Expect: 200-ok\r\n" END, HTTP_EXPECTATION_FAILED, "unknown_expectation"},
    {LINE HOST "Expect: 100-continue, x\r\n" END, HTTP_EXPECTATION_FAILED, "unknown_expectation"},
    {LINE HOST "Expect: y 100-continue\r\n" END, HTTP_EXPECTATION_FAILED, "unknown_expectation"},
};

static void ambiguous_requests_are_refused_with_their_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (parse(slice_of(refused[i].head))) {
            fail_msg("accepted: %s", refused[i].head);
        }
        if (strcmp(problem.reason, refused[i].reason) != 0 || problem.fault != refused[i].fault) {
            fail_msg("%s, not %s: %s", problem.reason, refused[i].reason, refused[i].head);
        }
    }
}

static void every_control_character_is_refused_everywhere(void **state)
{
    (void)state;
    static const char pattern[] = "POST /t HTTP/1.1\r\nHost: example.test\r\nX-A: b\r\n\r\n";
    for (size_t position = 0; position < sizeof(pattern) - 5; position++) {
        for (int octet = 0; octet < 256; octet++) {
            char head[sizeof(pattern)];
            if ((octet >= 0x20 && octet != 0x7f) || octet == pattern[position]) {
                continue;
            }
            if (octet == '\t' && position >= sizeof(LINE) - 1) { /* a blank may stand in a value */
                continue;
            }
            memcpy(head, pattern, sizeof(pattern));
            head[position] = (char)octet;
            struct http_scan scan = {0};
            struct slice whole = {head, sizeof(pattern) - 1};
            assert_int_equal(http_scan_head(&scan, whole, false, &limits, &problem), HTTP_SCAN_REFUSED);
            assert_false(http_parse_request(whole, &limits, &request, &problem));
        }
    }
}

static void refusals_that_are_no_misunderstanding_still_fill_the_request(void **state)
{
    (void)state;
    assert_false(parse(slice_of("TRACE /t?q HTTP/1.1\r\n" HOST "Connection: close\r\n" END)));
    assert_slice(request.path, "/t");
    assert_false(request.keep_alive);
    assert_false(parse(slice_of("PUT /t HTTP/1.1\r\n" HOST "Expect: magic\r\nContent-Length: 3\r\n" END)));
    assert_slice(request.method, "PUT");
    assert_int_equal(request.content_length, 3);
}

/* The parser holds the limit by itself: the head may come from elsewhere than the scan. */
static void a_complete_head_over_its_limit_is_refused(void **state)
{
    (void)state;
    struct slice head = SLICE(LINE HOST "\r\n");
    struct http_limits small = limits;
    small.max_head_bytes = head.size;
    assert_true(http_parse_request(head, &small, &request, &problem));
    small.max_head_bytes--;
    assert_false(http_parse_request(head, &small, &request, &problem));
    assert_int_equal(problem.fault, HTTP_HEADERS_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_taken_as_received),
        cmocka_unit_test(framing_is_what_one_field_says),
        cmocka_unit_test(connection_is_kept_as_version_and_options_say),
        cmocka_unit_test(expectation_counts_only_where_a_body_follows),
        cmocka_unit_test(targets_have_the_forms_of_their_methods),
        cmocka_unit_test(hosts_are_names_and_addresses),
        cmocka_unit_test(ambiguous_requests_are_refused_with_their_reason),
        cmocka_unit_test(every_control_character_is_refused_everywhere),
        cmocka_unit_test(refusals_that_are_no_misunderstanding_still_fill_the_request),
        cmocka_unit_test(a_complete_head_over_its_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, free_request);
}
