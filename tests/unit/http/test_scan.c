/*
 * scan: the end of a head is found, and what can stand in no head refused, wherever the bytes were cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "http/head.h"

#define HOST "Host: example.test\r\n"

static const struct http_limits limits = {.max_head_bytes = 400, .max_headers = 4, .max_target_bytes = 40};

static const char *const requests[] = {
    "GET / HTTP/1.1\r\n" HOST "\r\n",
    "\r\n\r\nGET /a?b HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.1\r\n" HOST "\r\nGET /next HTTP/1.1\r\n",
    "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n",
    "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n\r\n",
    "\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
    "GET / HTTP/1.1\r\nA: b\nc: d\r\n\r\n",
    "GET / HTTP/1.1\r\nA: b\x01\r\n\r\n",
    "GET / HTTP/1.1\r\n\rX\r\n\r\n",
    "GET / HTTP/1.1\r\n A: b\r\n\r\n",
    "GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n",
    "GET / HTTP/2.0\r\n\r\n",
    "GET / HTTP/1.10\r\n\r\n",
    "GET  / HTTP/1.1\r\n\r\n",
    "GET /a#b HTTP/1.1\r\n\r\n",
    "GET /01234567890123456789012345678901234567890 HTTP/1.1\r\n\r\n",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJ / HTTP/1.1\r\n\r\n",
    "GARBAGE\r\n\r\n",
    "\n",
    "GET / HTTP/1.1\n\n",
    "\x16\x03\x01",
};

static const char *const responses[] = {
    "HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody",
    "HTTP/1.0 404 \r\n\r\n",
    "HTTP/1.1 200\r\n\r\n",
    "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
    "hello world\r\n",
    "HTTP/3.0 200 OK\r\n\r\n",
    "HTTP/1.1 2x0 OK\r\n\r\n",
    "\r\nHTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\nA: b\n\n",
};

struct outcome {
    enum http_scan_result result;
    size_t offset;
    struct http_problem problem;
};

/* Scans text as it arrives in pieces that end at the two cuts; each piece is a heap block of its own size, so that reading on is noticed. */
static struct outcome scan_cut(struct slice text, bool response, size_t first, size_t second)
{
    const size_t ends[] = {first, second, text.size};
    struct http_scan scan = {0};
    struct outcome outcome = {HTTP_SCAN_INCOMPLETE, 0, {HTTP_OK, "", ""}};

    for (size_t i = 0; i < 3 && outcome.result == HTTP_SCAN_INCOMPLETE; i++) {
        char *copy = malloc(ends[i] > 0 ? ends[i] : 1);
        memcpy(copy, text.data, ends[i]);
        outcome.result =
            http_scan_head(&scan, (struct slice){copy, ends[i]}, response, &limits, &outcome.problem);
        free(copy);
    }
    outcome.offset = outcome.result == HTTP_SCAN_REFUSED ? 0 : scan.offset;
    return outcome;
}

static void assert_same_for_every_split(const char *text, bool response)
{
    struct slice whole = slice_of(text);
    struct outcome expected = scan_cut(whole, response, whole.size, whole.size);
    struct http_scan scan = {0};
    struct http_problem problem = {HTTP_OK, "", ""};
    enum http_scan_result result = HTTP_SCAN_INCOMPLETE;

    for (size_t first = 0; first <= whole.size; first++) {
        for (size_t second = first; second <= whole.size; second++) {
            struct outcome outcome = scan_cut(whole, response, first, second);
            assert_int_equal(outcome.result, expected.result);
            assert_int_equal(outcome.offset, expected.offset);
            assert_int_equal(outcome.problem.fault, expected.problem.fault);
            assert_string_equal(outcome.problem.reason, expected.problem.reason);
        }
    }
    for (size_t size = 1; size <= whole.size && result == HTTP_SCAN_INCOMPLETE; size++) {
        result = http_scan_head(&scan, (struct slice){whole.data, size}, response, &limits, &problem);
    }
    assert_int_equal(result, expected.result);
    assert_string_equal(problem.reason, expected.problem.reason);
}

static void outcome_is_the_same_for_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        assert_same_for_every_split(requests[i], false);
    }
    for (size_t i = 0; i < sizeof(responses) / sizeof(responses[0]); i++) {
        assert_same_for_every_split(responses[i], true);
    }
}

static struct outcome scan_whole(const char *text, bool response)
{
    size_t size = strlen(text);
    return scan_cut(slice_of(text), response, size, size);
}

static void head_ends_at_its_empty_line_and_not_behind_it(void **state)
{
    (void)state;
    assert_int_equal(scan_whole("GET / HTTP/1.1\r\n" HOST "\r\nGET", false).offset,
                     16 + sizeof(HOST) - 1 + 2);
    assert_int_equal(scan_whole("\r\nGET / HTTP/1.1\r\n\r\nxx", false).offset, 20);
    assert_int_equal(scan_whole("HTTP/1.1 200 OK\r\n\r\nxx", true).offset, 19);
    assert_int_equal(scan_whole("HTTP/1.1 200 OK\r\n\r\nxx", true).result, HTTP_SCAN_COMPLETE);
}

static void every_prefix_of_a_head_is_incomplete(void **state)
{
    (void)state;
    struct slice head = slice_of("\r\nPOST /v1/x HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n");
    for (size_t size = 0; size < head.size; size++) {
        struct outcome outcome = scan_cut((struct slice){head.data, size}, false, size, size);
        assert_int_equal(outcome.result, HTTP_SCAN_INCOMPLETE);
    }
    assert_int_equal(scan_cut(head, false, head.size, head.size).result, HTTP_SCAN_COMPLETE);
}

static void assert_refused(const char *text, bool response, enum http_fault fault, const char *reason)
{
    struct outcome outcome = scan_whole(text, response);
    assert_int_equal(outcome.result, HTTP_SCAN_REFUSED);
    assert_string_equal(outcome.problem.reason, reason);
    assert_int_equal(outcome.problem.fault, fault);
    assert_true(strlen(outcome.problem.message) > 5);
}

static void junk_is_refused_before_its_line_ends(void **state)
{
    (void)state;
    assert_refused("\x16\x03\x01", false, HTTP_BAD_REQUEST, "control_character");
    assert_refused("\xffXY", false, HTTP_BAD_REQUEST, "malformed_request_line");
    assert_refused(" GET", false, HTTP_BAD_REQUEST, "folded_line");
    assert_refused("GET\t", false, HTTP_BAD_REQUEST, "control_character");
    assert_refused("GET:", false, HTTP_BAD_REQUEST, "malformed_request_line");
    assert_refused("GET  ", false, HTTP_BAD_REQUEST, "malformed_target");
    assert_refused("GET /a\xc3", false, HTTP_BAD_REQUEST, "malformed_target");
    assert_refused("GET / FTP", false, HTTP_BAD_REQUEST, "malformed_version");
    assert_refused("GET / http/1.1", false, HTTP_BAD_REQUEST, "malformed_version");
    assert_refused("GET / HTTP/1.1 ", false, HTTP_BAD_REQUEST, "malformed_request_line");
    assert_refused("\n", false, HTTP_BAD_REQUEST, "bare_lf");
    assert_refused("\rG", false, HTTP_BAD_REQUEST, "bare_cr");
    assert_refused("\r\n\r\n\r\n", false, HTTP_BAD_REQUEST, "empty_lines");
    assert_refused("GET /\r", false, HTTP_BAD_REQUEST, "missing_version");
    assert_refused("GET / HTTP/1.1\r\nA\r\r", false, HTTP_BAD_REQUEST, "bare_cr");
    assert_refused("GET / HTTP/1.1\r\nA: \x7f", false, HTTP_BAD_REQUEST, "control_character");
    assert_refused("SSH-2.0", true, HTTP_UPSTREAM_INVALID_RESPONSE, "not_http");
    assert_refused("HTTP/1.1 200 OK\r\nA: \x01", true, HTTP_UPSTREAM_INVALID_RESPONSE, "control_character");
}

static void other_major_versions_are_refused_at_the_request_line(void **state)
{
    (void)state;
    assert_refused("PRI * HTTP/2.0\r", false, HTTP_VERSION_NOT_SUPPORTED, "version_not_supported");
    assert_refused("GET / HTTP/0.9\r", false, HTTP_VERSION_NOT_SUPPORTED, "version_not_supported");
}

/* "GET " + target + line ends, as a new string. */
static char *with_target(size_t size)
{
    char *target = xmalloc(size + 1);
    memset(target, 'a', size);
    target[0] = '/';
    target[size] = 0;
    char *text = xprintf("GET %s HTTP/1.1\r\n\r\n", target);
    free(target);
    return text;
}

static void limits_hold_to_the_byte_and_before_the_end(void **state)
{
    (void)state;
    char *fits = with_target(limits.max_target_bytes), *too_long = with_target(limits.max_target_bytes + 1);
    char *filler = xmalloc(limits.max_head_bytes + 2);

    assert_int_equal(scan_whole(fits, false).result, HTTP_SCAN_COMPLETE);
    assert_refused(too_long, false, HTTP_URI_TOO_LONG, "target_too_long");
    too_long[4 + limits.max_target_bytes + 1] = 0;
    assert_refused(too_long, false, HTTP_URI_TOO_LONG, "target_too_long");
    assert_refused("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", false, HTTP_UNSUPPORTED, "method_too_long");
    assert_refused("GET / HTTP/1.1\r\nA:\r\nB:\r\nC:\r\nD:\r\nE:\r\n", false, HTTP_HEADERS_TOO_LARGE,
                   "too_many_headers");
    assert_refused("HTTP/1.1 200 OK\r\nA:\r\nB:\r\nC:\r\nD:\r\nE:\r\n", true, HTTP_UPSTREAM_INVALID_RESPONSE,
                   "too_many_headers");

    int used = snprintf(filler, limits.max_head_bytes, "GET / HTTP/1.1\r\nA: ");
    memset(filler + used, 'a', limits.max_head_bytes - (size_t)used);
    memcpy(filler + limits.max_head_bytes - 4, "\r\n\r\n", 5);
    assert_int_equal(scan_whole(filler, false).result, HTTP_SCAN_COMPLETE);
    memcpy(filler + limits.max_head_bytes - 4, "a\r\n\r\n", 6);
    assert_refused(filler, false, HTTP_HEADERS_TOO_LARGE, "head_too_large");
    filler[limits.max_head_bytes] = 0;
    assert_refused(filler, false, HTTP_HEADERS_TOO_LARGE, "head_too_large");

    free(fits);
    free(too_long);
    free(filler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_ends_at_its_empty_line_and_not_behind_it),
        cmocka_unit_test(every_prefix_of_a_head_is_incomplete),
        cmocka_unit_test(junk_is_refused_before_its_line_ends),
        cmocka_unit_test(other_major_versions_are_refused_at_the_request_line),
        cmocka_unit_test(limits_hold_to_the_byte_and_before_the_end),
        cmocka_unit_test(outcome_is_the_same_for_every_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
