/*
 * json_write: what is written reads back as the same text and the same number.
 */
#include <float.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/id.h"
#include "base/json_write.h"
#include "base/utf8.h"

static void assert_written(void (*write)(struct buffer *, struct slice), struct slice text,
                           const char *expected)
{
    struct buffer out = {0};
    write(&out, text);
    char *written = buffer_take_string(&out);
    assert_string_equal(written, expected);
    free(written);
}

static void strings_escape_only_what_they_must(void **state)
{
    (void)state;
    assert_written(json_write_string, SLICE(""), "\"\"");
    assert_written(json_write_string, SLICE("a\"b\\c/\x7f"), "\"a\\\"b\\\\c/\x7f\"");
    assert_written(json_write_string, SLICE("\b\f\n\r\t\v"), "\"\\b\\f\\n\\r\\t\\u000b\"");
    assert_written(json_write_string, SLICE("\0\x1f"), "\"\\u0000\\u001f\"");
    assert_written(json_write_string, SLICE("\xc3\xa9\xf0\x9f\x98\x80"), "\"\xc3\xa9\xf0\x9f\x98\x80\"");
}

static void what_is_escaped_is_found_at_every_place(void **state)
{
    (void)state;
    static const char special[] = "\"\\\n\xff";
    static const char *const written[] = {"\\\"", "\\\\", "\\n", "\xef\xbf\xbd"};
    for (size_t kind = 0; kind < 4; kind++) {
        for (size_t at = 0; at < 24; at++) {
            char text[24], expected[64];
            memset(text, '!', sizeof text); /* what differs from a quote by one */
            text[at] = special[kind];
            snprintf(expected, sizeof expected, "\"%.*s%s%.*s\"", (int)at, text, written[kind],
                     (int)(23 - at), text + at + 1);
            assert_written(json_write_string, (struct slice){text, sizeof text}, expected);
        }
    }
}

static void bytes_that_are_not_utf8_are_replaced(void **state)
{
    (void)state;
    assert_written(json_write_string, SLICE("a\xff\"b\xc3"), "\"a\xef\xbf\xbd\\\"b\xef\xbf\xbd\"");
}

static void latin1_is_read_only_where_utf8_fails(void **state)
{
    (void)state;
    assert_written(json_write_latin1, SLICE("caf\xc3\xa9"), "\"caf\xc3\xa9\"");
    assert_written(json_write_latin1, SLICE("caf\xe9\"\n"), "\"caf\xc3\xa9\\\"\\n\"");
}

static void assert_number(double number, const char *expected)
{
    struct buffer out = {0};
    json_write_number(&out, number);
    char *written = buffer_take_string(&out);
    assert_string_equal(written, expected);
    free(written);
}

static void numbers_are_short(void **state)
{
    (void)state;
    assert_number(0, "0");
    assert_number(-0.0, "-0");
    assert_number(1, "1");
    assert_number(-17, "-17");
    assert_number(0.7, "0.7");
    assert_number(0.001, "0.001");
    assert_number(-12.05, "-12.05");
    assert_number(1234567.125, "1234567.125");
    assert_number(0.0005, "0.0005");
    assert_number(999999999999.999, "999999999999.999");
    assert_number(0.1 + 0.2, "0.30000000000000004");
    assert_number(1e15, "1000000000000000");
    assert_number(1e21, "1e+21");
    assert_number(1e-7, "1e-07");
    assert_number(5e-324, "5e-324");
    assert_number(DBL_MAX, "1.7976931348623157e+308");
    assert_number((double)NAN, "null");
    assert_number((double)-INFINITY, "null");
}

static void integers_keep_all_digits(void **state)
{
    (void)state;
    struct buffer out = {0};
    json_write_integer(&out, INT64_MIN);
    json_write_integer(&out, INT64_MAX);
    assert_true(slice_equal(buffer_slice(&out), SLICE("-92233720368547758089223372036854775807")));
    buffer_free(&out);
}

static void every_double_reads_back(void **state)
{
    (void)state;
    for (int i = 0; i < 100000; i++) {
        double number, again;
        random_bytes(&number, sizeof number);
        if (!isfinite(number))
            continue;
        struct buffer out = {0};
        json_write_number(&out, number);
        char *text = buffer_take_string(&out);
        again = strtod(text, NULL);
        assert_memory_equal(&number, &again, sizeof number);
        free(text);
    }
}

static void numbers_do_not_follow_the_locale(void **state)
{
    (void)state;
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL)
        skip();
    assert_number(0.5, "0.5");
    assert_number(-1234567.25, "-1234567.25");
    setlocale(LC_NUMERIC, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_escape_only_what_they_must),
        cmocka_unit_test(what_is_escaped_is_found_at_every_place),
        cmocka_unit_test(bytes_that_are_not_utf8_are_replaced),
        cmocka_unit_test(latin1_is_read_only_where_utf8_fails),
        cmocka_unit_test(numbers_are_short),
        cmocka_unit_test(integers_keep_all_digits),
        cmocka_unit_test(every_double_reads_back),
        cmocka_unit_test(numbers_do_not_follow_the_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
