/*
 * chunked: the coding is undone to the byte, errors are found, limits hold, and the cuts between reads do not matter.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "http/chunked.h"

struct outcome {
    enum http_chunked_result result;
    const char *reason;
    bool tolerated;
    size_t left; /* bytes not used at the end */
    struct buffer body;
};

/* Decodes text handed over in pieces of at most step bytes, each in a heap block of its own size. */
static struct outcome decode(struct slice text, size_t step, bool tolerant)
{
    struct http_chunked decoder = {.tolerant = tolerant};
    struct outcome outcome = {.result = HTTP_CHUNKED_MORE, .reason = ""};
    size_t at = 0;

    while (at < text.size && outcome.result == HTTP_CHUNKED_MORE) {
        size_t size = text.size - at < step ? text.size - at : step;
        char *piece = malloc(size);
        memcpy(piece, text.data + at, size);
        struct slice input = {piece, size}, data;
        while ((outcome.result = http_chunked_next(&decoder, &input, &data, &outcome.reason)) ==
               HTTP_CHUNKED_DATA) {
            assert_true(data.size > 0);
            buffer_append_slice(&outcome.body, data);
        }
        if (outcome.result == HTTP_CHUNKED_MORE) {
            assert_int_equal(input.size, 0);
        }
        at += size - input.size;
        free(piece);
    }
    outcome.left = text.size - at;
    outcome.tolerated = decoder.tolerated;
    return outcome;
}

static void assert_decodes(const char *text, const char *body, size_t left)
{
    struct slice whole = slice_of(text);
    for (size_t step = 1; step <= whole.size; step++) {
        for (int tolerant = 0; tolerant < 2; tolerant++) {
            struct outcome outcome = decode(whole, step, tolerant);
            if (outcome.result != HTTP_CHUNKED_END || outcome.left != left || outcome.tolerated) {
                fail_msg("%s in pieces of %zu: %s", text, step, outcome.reason);
            }
            assert_true(slice_equal(buffer_slice(&outcome.body), slice_of(body)));
            buffer_free(&outcome.body);
        }
    }
}

static void bodies_are_decoded_however_they_are_cut(void **state)
{
    (void)state;
    assert_decodes("0\r\n\r\n", "", 0);
    assert_decodes("5\r\nhello\r\n0\r\n\r\n", "hello", 0);
    assert_decodes("5\r\nhello\r\nB\r\n\r\n0\r\n\r\n12\r\n\r\n000\r\n\r\nNEXT", "hello\r\n0\r\n\r\n12\r\n",
                   4);
    assert_decodes("0000000000000003\r\nabc\r\n0\r\n\r\n", "abc", 0);
    assert_decodes("5;name=value;flag\r\nhello\r\n0;last\r\n\r\n", "hello", 0);
    assert_decodes("5 ; n = v\t;\ta=\"q \\\" ;\xff\"\r\nhello\r\n0\r\n\r\n", "hello", 0);
    assert_decodes("3\r\nabc\r\n0\r\nX:POST / HTTP/1.1\r\nContent-Length: 99\r\nE:\r\n\r\nGET", "abc", 3);
}

static const struct {
    const char *text, *reason;
} malformed[] = {
    {"-5\r\n", "malformed_chunk_size"},
    {"+5\r\n", "malformed_chunk_size"},
    {"0x5\r\nhello\r\n", "malformed_chunk_size"},
    {"0_2e\r\n", "malformed_chunk_size"},
    {"g\r\n", "malformed_chunk_size"},
    {";x=y\r\n", "malformed_chunk_size"},
    {" 5\r\n", "malformed_chunk_size"},
    {"\r\nhello", "malformed_chunk_size"},
    {"\n", "malformed_chunk_size"},
    {"5\rX", "bare_cr"},
    {"5;a=b\r\rhello", "bare_cr"},
    {"10000000000000005\r\n", "chunk_size_too_large"},
    {"8000000000000000\r\n", "chunk_size_too_large"},
    {"ffffffffffffffff\r\n", "chunk_size_too_large"},
    {"00000000000000005\r\n", "chunk_size_too_large"},
    {"5;a=\"d\r\n", "malformed_chunk_extension"},
    {"5;a=\"d\\\r\n", "malformed_chunk_extension"},
    {"5;\nxxxx\r\n", "malformed_chunk_extension"},
    {"0;\r\n", "malformed_chunk_extension"},
    {"0;a=\r\n", "malformed_chunk_extension"},
    {"0;a b\r\n", "malformed_chunk_extension"},
    {"0 x\r\n", "malformed_chunk_extension"},
    {"0;a=\"b\"c\r\n", "malformed_chunk_extension"},
    {"5\r\nhelloXX0\r\n\r\n", "malformed_chunk_end"},
    {"5\r\nhello0\r\n\r\n", "malformed_chunk_end"},
    {"5\r\nhello\rX0\r\n\r\n", "malformed_chunk_end"},
    {"5\r\nhello\n0\r\n\r\n", "malformed_chunk_end"},
    {"5\r\nhell\r\n0\r\n\r\n", "malformed_chunk_end"},
    {"1\na\n5\r\nhell\r\n0\r\n\r\n", "malformed_chunk_size"},
    {"0\r\nGARBAGE\r\n\r\n", "malformed_trailer"},
    {"0\r\nX : a\r\n\r\n", "malformed_trailer"},
    {"0\r\n: a\r\n\r\n", "malformed_trailer"},
    {"0\r\nX: a\r\n b\r\n\r\n", "malformed_trailer"},
    {"0\r\nX: a\x01\r\n\r\n", "malformed_trailer"},
    {"0\r\nX: a\rb\r\n\r\n", "bare_cr"},
    {"0\r\n\rX", "bare_cr"},
};

static void malformed_coding_is_refused_tolerant_or_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
        for (int tolerant = 0; tolerant < 2; tolerant++) {
            for (size_t step = 1; step < 30; step += 7) {
                struct outcome outcome = decode(slice_of(malformed[i].text), step, tolerant);
                if (outcome.result != HTTP_CHUNKED_ERROR ||
                    (!tolerant && strcmp(outcome.reason, malformed[i].reason) != 0)) {
                    fail_msg("%s: %s", malformed[i].text, outcome.reason);
                }
                buffer_free(&outcome.body);
            }
        }
    }
}

static const struct {
    const char *text, *body;
} odd[] = {
    {"5\nhello\n0\n\n", "hello"},
    {"5;a=b\nhello\r\n0\r\nX: a\n\n", "hello"},
    {"5zz\r\nhello\r\n0\r\n\r\n", "hello"},
    {"5 zz;=\"\nhello\r\n0\r\n\r\n", "hello"},
    {"5   \r\nhello\r\n0   \r\n\r\n", "hello"},
    {"5;\r\nhello\r\n0 \n\n", "hello"},
};

static void oddities_pass_only_where_tolerated_and_are_reported(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        for (size_t step = 1; step < 30; step++) {
            struct outcome strict = decode(slice_of(odd[i].text), step, false);
            struct outcome tolerant = decode(slice_of(odd[i].text), step, true);
            assert_int_equal(strict.result, HTTP_CHUNKED_ERROR);
            if (tolerant.result != HTTP_CHUNKED_END || !tolerant.tolerated || tolerant.left != 0) {
                fail_msg("%s: %s", odd[i].text, tolerant.reason);
            }
            assert_true(slice_equal(buffer_slice(&tolerant.body), slice_of(odd[i].body)));
            buffer_free(&strict.body);
            buffer_free(&tolerant.body);
        }
    }
}

static void no_prefix_is_a_complete_body(void **state)
{
    (void)state;
    struct slice whole = SLICE("5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\n");
    for (size_t size = 0; size < whole.size; size++) {
        struct outcome outcome = decode((struct slice){whole.data, size}, size > 0 ? size : 1, false);
        assert_int_equal(outcome.result, HTTP_CHUNKED_MORE);
        buffer_free(&outcome.body);
    }
}

static void the_largest_size_is_below_2_to_the_63(void **state)
{
    (void)state;
    struct http_chunked decoder = {0};
    struct slice input = SLICE("7fffffffffffffff\r\nabc"), data;
    const char *reason;
    assert_int_equal(http_chunked_next(&decoder, &input, &data, &reason), HTTP_CHUNKED_DATA);
    assert_int_equal(data.size, 3);
    assert_int_equal(decoder.remaining, INT64_MAX - 3);
}

static void repeat(struct buffer *out, const char *text, size_t count)
{
    while (count-- > 0) {
        buffer_append_string(out, text);
    }
}

/* Decodes prefix, count times piece, suffix. */
static void assert_repeated(const char *prefix, const char *piece, size_t count, const char *suffix,
                            const char *reason)
{
    struct buffer text = {0};
    repeat(&text, prefix, 1);
    repeat(&text, piece, count);
    repeat(&text, suffix, 1);
    for (int tolerant = 0; tolerant < 2; tolerant++) {
        struct outcome outcome = decode(buffer_slice(&text), 1000, tolerant);
        assert_string_equal(outcome.reason, reason != NULL ? reason : "");
        assert_int_equal(outcome.result, reason != NULL ? HTTP_CHUNKED_ERROR : HTTP_CHUNKED_END);
        buffer_free(&outcome.body);
    }
    buffer_free(&text);
}

static void what_is_thrown_away_is_bounded(void **state)
{
    (void)state;
    assert_repeated("0;", "a", 1020, "\r\n\r\n", NULL);
    assert_repeated("0;", "a", 1021, "\r\n\r\n", "chunk_line_too_long");
    assert_repeated("5", ";a", 600, "\r\nhello\r\n0\r\n\r\n", "chunk_line_too_long");
    assert_repeated("", "1;abcdefghijklm\r\nx\r\n", 1170, "0\r\n\r\n", NULL);
    assert_repeated("", "1;abcdefghijklm\r\nx\r\n", 1180, "0\r\n\r\n", "chunk_extensions_too_large");
    assert_repeated("0\r\n", "X: a\r\n", 32, "\r\n", NULL);
    assert_repeated("0\r\n", "X: a\r\n", 33, "\r\n", "too_many_trailers");
    assert_repeated("0\r\nX:", "a", 8187, "\r\n\r\n", "trailers_too_large");
    assert_repeated("0\r\nX:", "a", 8186, "\r\n\r\n", NULL);
}

static void chunk_header_is_what_the_decoder_reads(void **state)
{
    (void)state;
    static const struct {
        uint64_t size;
        const char *line;
    } cases[] = {{1, "1\r\n"},
                 {15, "f\r\n"},
                 {16, "10\r\n"},
                 {0x12ab, "12ab\r\n"},
                 {UINT64_MAX, "ffffffffffffffff\r\n"}};
    char out[HTTP_CHUNK_HEADER_SIZE];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t size = http_chunk_header(out, cases[i].size);
        assert_true(slice_equal((struct slice){out, size}, slice_of(cases[i].line)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_are_decoded_however_they_are_cut),
        cmocka_unit_test(malformed_coding_is_refused_tolerant_or_not),
        cmocka_unit_test(oddities_pass_only_where_tolerated_and_are_reported),
        cmocka_unit_test(no_prefix_is_a_complete_body),
        cmocka_unit_test(the_largest_size_is_below_2_to_the_63),
        cmocka_unit_test(what_is_thrown_away_is_bounded),
        cmocka_unit_test(chunk_header_is_what_the_decoder_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
