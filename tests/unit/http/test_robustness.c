/*
 * robustness: hundreds of thousands of broken variants of valid messages, made from a fixed seed. No byte outside of the input is read (each
 * input lies in a heap block of its own size, for the sanitizers), nothing is read without end, and what is accepted keeps its promises.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/body.h"
#include "http/head.h"

#define ROUNDS 100000

static const struct http_limits limits = {.max_head_bytes = 1000, .max_headers = 6, .max_target_bytes = 60};

static const char *const requests[] = {
    "POST /v1/chat/completions?a=b&c HTTP/1.1\r\nHost: example.test:8080\r\nContent-Length: 12\r\nAccept: "
    "*/*\r\n\r\n",
    "\r\nGET http://[::1]:80/a%20b;c/..d HTTP/1.1\r\nHost: [::1]\r\nConnection: close, x\r\n\r\n",
    "PUT /x HTTP/1.1\r\nhost:a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nX_Y: \xff\"q\\\"\", "
    "b\r\n\r\n",
    "OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Bearer x\r\n\r\n",
};
static const char *const responses[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nConnection: keep-alive\r\n\r\n",
    "HTTP/1.0 404 Not Found\r\nTransfer-Encoding: chunked\r\nX:\r\n\r\n",
    "HTTP/1.1 204\r\nDate: x\r\n\r\n",
};
static const char *const chunked[] = {
    "5;a=\"b\\\"\";c\r\nhello\r\n1f ; n = v\r\n0123456789012345678901234567890\r\n0\r\nX: y\r\n\r\n",
    "5\nhello\n3zz\r\nabc\r\n00;x\r\n\r\n",
};
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static uint64_t random_state;

/* xorshift64*: the same sequence everywhere. */
static size_t random_below(size_t limit)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (size_t)((random_state * UINT64_C(0x2545f4914f6cdd1d)) >> 33) % limit;
}

/* A broken variant in a block of its own size; text must be shorter than 200 bytes. */
static char *mutate(const char *text, size_t *size)
{
    static const char *const pieces[] = {"\r\n", "\r", "\n", " ",  "\t", ":", ",",
                                         ";",    "\"", "0",  "\\", "%",  "/", ".."};
    char work[512];
    size_t length = strlen(text);
    memcpy(work, text, length);
    for (size_t changes = random_below(4); changes > 0 && length > 2 && length < 300; changes--) {
        size_t at = random_below(length - 1), end = at + 1 + random_below(length - at < 8 ? length - at : 8);
        struct slice piece = slice_of(pieces[random_below(COUNT(pieces))]);
        switch (random_below(5)) {
        case 0:
            work[at] = (char)random_below(256);
            break;
        case 1: /* take out */
            memmove(work + at, work + end, length - end);
            length -= end - at;
            break;
        case 2: /* say twice */
            memmove(work + end, work + at, length - at);
            length += end - at;
            break;
        case 3:
            memmove(work + at + piece.size, work + at, length - at);
            memcpy(work + at, piece.data, piece.size);
            length += piece.size;
            break;
        default: /* cut off */
            length = at;
        }
    }
    char *copy = malloc(length > 0 ? length : 1);
    memcpy(copy, work, length);
    *size = length;
    return copy;
}

static bool contains(struct slice outer, struct slice inner)
{
    return inner.size == 0 ||
           (inner.data >= outer.data && inner.data + inner.size <= outer.data + outer.size);
}

static void assert_clean(struct slice head, const struct http_fields *fields)
{
    assert_true(fields->count <= limits.max_headers);
    for (size_t i = 0; i < fields->count; i++) {
        assert_true(contains(head, fields->items[i].name) && contains(head, fields->items[i].value));
        assert_true(http_is_token(fields->items[i].name) && http_is_field_value(fields->items[i].value));
    }
}

static void check_request(struct slice head, struct http_request *request)
{
    struct http_problem problem;
    struct http_scan scan = {0};
    enum http_scan_result result = http_scan_head(&scan, head, false, &limits, &problem);
    size_t size = result == HTTP_SCAN_COMPLETE ? scan.offset : head.size;
    struct slice taken = {head.data, size};

    if (!http_parse_request(taken, &limits, request, &problem)) {
        assert_true(problem.fault > HTTP_OK && problem.fault < HTTP_FAULT_COUNT && problem.reason[0] != 0);
        return;
    }
    assert_int_equal(result, HTTP_SCAN_COMPLETE);
    assert_true(http_is_token(request->method) && request->target.size <= limits.max_target_bytes);
    assert_true(slice_equal(request->path, SLICE("*")) || http_path_is_safe(request->path));
    assert_false(request->body == HTTP_BODY_UNTIL_CLOSE);
    assert_clean(taken, &request->fields);
}

static void mutated_requests_are_refused_or_sound(void **state)
{
    (void)state;
    struct http_request request = {0};
    random_state = 1;
    for (size_t i = 0; i < ROUNDS; i++) {
        size_t size;
        char *text = mutate(requests[i % COUNT(requests)], &size);
        check_request((struct slice){text, size}, &request);
        free(text);
    }
    http_request_free(&request);
}

static void mutated_responses_are_refused_or_sound(void **state)
{
    (void)state;
    struct http_response response = {0};
    random_state = 2;
    for (size_t i = 0; i < ROUNDS; i++) {
        size_t size;
        struct http_problem problem;
        char *text = mutate(responses[i % COUNT(responses)], &size);
        struct slice head = {text, size};
        struct http_scan scan = {0};
        if (http_scan_head(&scan, head, true, &limits, &problem) == HTTP_SCAN_COMPLETE) {
            head.size = scan.offset;
        }
        if (http_parse_response(head, i % 5 == 0, &limits, &response, &problem)) {
            assert_true(response.status >= 100 && response.status <= 599 && contains(head, response.reason));
            assert_clean(head, &response.fields);
        }
        free(text);
    }
    http_response_free(&response);
}

/* Everything that is decoded from text in pieces of random size, as a sum over its bytes and the outcome. */
static uint64_t decode(struct slice text, bool tolerant, size_t max_piece)
{
    struct http_chunked decoder = {.tolerant = tolerant};
    const char *reason = "";
    uint64_t sum = 0;
    size_t at = 0;
    enum http_chunked_result result = HTTP_CHUNKED_MORE;

    while (at < text.size && result == HTTP_CHUNKED_MORE) {
        size_t size = 1 + random_below(max_piece);
        struct slice input = {text.data + at, size < text.size - at ? size : text.size - at}, data;
        size_t before = input.size;
        while ((result = http_chunked_next(&decoder, &input, &data, &reason)) == HTTP_CHUNKED_DATA) {
            assert_true(data.size > 0 && contains(text, data));
            for (size_t i = 0; i < data.size; i++) {
                sum = sum * 31 + (unsigned char)data.data[i];
            }
        }
        at += before - input.size;
    }
    return (sum * 31 + result) * 31 + at;
}

static void mutated_chunks_decode_alike_however_they_are_cut(void **state)
{
    (void)state;
    random_state = 3;
    for (size_t i = 0; i < ROUNDS; i++) {
        size_t size;
        char *text = mutate(chunked[i % COUNT(chunked)], &size);
        struct slice whole = {text, size};
        bool tolerant = i % 3 == 0;
        assert_true(decode(whole, tolerant, 1000000) == decode(whole, tolerant, 9));
        free(text);
    }
}

static void random_bytes_are_survived(void **state)
{
    (void)state;
    struct http_request request = {0};
    random_state = 4;
    for (size_t i = 0; i < ROUNDS / 4; i++) {
        size_t size = random_below(40);
        char *text = malloc(size > 0 ? size : 1);
        for (size_t j = 0; j < size; j++) {
            text[j] = (char)random_below(256);
        }
        struct slice whole = {text, size}, rest = whole, member;
        check_request(whole, &request);
        decode(whole, true, 5);
        http_path_is_safe(whole);
        size_t members = 0;
        while (http_list_next(&rest, &member)) {
            assert_true(contains(whole, member) && ++members <= size);
        }
        free(text);
    }
    http_request_free(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutated_requests_are_refused_or_sound),
        cmocka_unit_test(mutated_responses_are_refused_or_sound),
        cmocka_unit_test(mutated_chunks_decode_alike_however_they_are_cut),
        cmocka_unit_test(random_bytes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
