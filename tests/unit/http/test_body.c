/*
 * body: each framing ends where it should, and nothing of the next message is taken.
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

static struct slice data;
static const char *reason;

static void a_body_without_bytes_ends_at_once(void **state)
{
    (void)state;
    struct http_body_reader reader;
    struct slice input = SLICE("GET");
    http_body_begin(&reader, HTTP_BODY_NONE, 0);
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_END);
    http_body_begin(&reader, HTTP_BODY_LENGTH, 0);
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_END);
    assert_int_equal(input.size, 3);
    assert_false(http_body_at_close(&reader));
}

static void a_length_takes_exactly_its_bytes(void **state)
{
    (void)state;
    struct http_body_reader reader;
    struct slice input = SLICE("he");
    http_body_begin(&reader, HTTP_BODY_LENGTH, 5);
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_DATA);
    assert_true(slice_equal(data, SLICE("he")));
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_MORE);
    assert_false(http_body_at_close(&reader));
    input = SLICE("lloGET");
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_DATA);
    assert_true(slice_equal(data, SLICE("llo")));
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_END);
    assert_true(slice_equal(input, SLICE("GET")));
}

static void only_a_close_ends_a_body_until_close(void **state)
{
    (void)state;
    struct http_body_reader reader;
    struct slice input = SLICE("hello");
    http_body_begin(&reader, HTTP_BODY_UNTIL_CLOSE, 0);
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_DATA);
    assert_true(slice_equal(data, SLICE("hello")));
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_MORE);
    assert_true(http_body_at_close(&reader));
}

static void chunked_is_decoded_strictly_unless_told_otherwise(void **state)
{
    (void)state;
    struct http_body_reader reader;
    struct slice input = SLICE("2\nhi\n0\n\nX");
    http_body_begin(&reader, HTTP_BODY_CHUNKED, 0);
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_ERROR);
    assert_string_equal(reason, "malformed_chunk_size");

    input = SLICE("2\nhi\n0\n\nX");
    http_body_begin(&reader, HTTP_BODY_CHUNKED, 0);
    http_body_be_tolerant(&reader);
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_DATA);
    assert_true(slice_equal(data, SLICE("hi")));
    assert_int_equal(http_body_next(&reader, &input, &data, &reason), HTTP_CHUNKED_END);
    assert_int_equal(input.size, 1);
    assert_true(http_body_was_odd(&reader));
    assert_false(http_body_at_close(&reader));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_without_bytes_ends_at_once),
        cmocka_unit_test(a_length_takes_exactly_its_bytes),
        cmocka_unit_test(only_a_close_ends_a_body_until_close),
        cmocka_unit_test(chunked_is_decoded_strictly_unless_told_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
