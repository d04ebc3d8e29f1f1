/*
 * slice: pieces of bytes, NUL bytes and empty ones included.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/slice.h"

static const struct slice none = {NULL, 0};

static void equality_looks_at_all_bytes(void **state)
{
    (void)state;
    assert_true(slice_equal(none, SLICE("")));
    assert_true(slice_equal(SLICE("a\0b"), SLICE("a\0b")));
    assert_false(slice_equal(SLICE("a\0b"), SLICE("a\0c")));
    assert_false(slice_equal(SLICE("a"), SLICE("ab")));
    assert_true(slice_equal_nocase(SLICE("Content-LENGTH"), SLICE("content-length")));
    assert_false(slice_equal_nocase(SLICE("K"), SLICE("\xe2\x84\xaa")));
    assert_false(slice_equal_nocase(SLICE("[@"), SLICE("{`")));
}

static void beginnings_and_ends_are_found(void **state)
{
    (void)state;
    assert_true(slice_starts_with(SLICE("/v1/x"), SLICE("/v1")));
    assert_true(slice_starts_with(none, none));
    assert_false(slice_starts_with(SLICE("/v"), SLICE("/v1")));
    assert_true(slice_ends_with_nocase(SLICE("X-Api-KEY"), SLICE("-key")));
    assert_true(slice_ends_with_nocase(none, none));
    assert_false(slice_ends_with_nocase(SLICE("key"), SLICE("-key")));
}

static void trimming_takes_blanks_only(void **state)
{
    (void)state;
    assert_true(slice_equal(slice_trim(SLICE(" \t a b\t ")), SLICE("a b")));
    assert_true(slice_equal(slice_trim(SLICE("\na\r")), SLICE("\na\r")));
    assert_int_equal(slice_trim(SLICE(" \t")).size, 0);
    assert_int_equal(slice_trim(none).size, 0);
}

static void splitting_gives_every_piece(void **state)
{
    (void)state;
    struct slice rest = SLICE("a,,b,"), piece;
    static const char *const expected[] = {"a", "", "b", ""};
    for (size_t i = 0; i < 4; i++) {
        assert_true(slice_split(&rest, ',', &piece));
        assert_true(slice_equal(piece, slice_of(expected[i])));
    }
    assert_false(slice_split(&rest, ',', &piece));
    rest = none;
    assert_false(slice_split(&rest, ',', &piece));
}

static void numbers_are_digits_that_fit(void **state)
{
    (void)state;
    uint64_t number = 7;
    static const char *const refused[] = {
        "", "-1", "+1", " 1", "1 ", "0x1", "18446744073709551616", "99999999999999999999"};
    assert_true(slice_to_uint64(SLICE("18446744073709551615"), &number));
    assert_int_equal(number, UINT64_MAX);
    assert_true(slice_to_uint64(SLICE("000"), &number));
    assert_int_equal(number, 0);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_false(slice_to_uint64(slice_of(refused[i]), &number));
    assert_int_equal(number, 0);
}

static void a_copy_ends_in_nul(void **state)
{
    (void)state;
    char *copy = slice_to_string((struct slice){"abcdef", 3});
    assert_string_equal(copy, "abc");
    free(copy);
    copy = slice_to_string(none);
    assert_string_equal(copy, "");
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equality_looks_at_all_bytes), cmocka_unit_test(beginnings_and_ends_are_found),
        cmocka_unit_test(trimming_takes_blanks_only),  cmocka_unit_test(splitting_gives_every_piece),
        cmocka_unit_test(numbers_are_digits_that_fit), cmocka_unit_test(a_copy_ends_in_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
