/*
 * utf8: judged against a decoder written the slow and obvious way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/id.h"
#include "base/utf8.h"

/* The size of the character at s, 0 when there is no whole valid one. */
static size_t slow_character(struct slice s)
{
    const unsigned char *b = (const unsigned char *)s.data;
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = b[0] < 0x80             ? 1
                  : (b[0] & 0xE0) == 0xC0 ? 2
                  : (b[0] & 0xF0) == 0xE0 ? 3
                  : (b[0] & 0xF8) == 0xF0 ? 4
                                          : 0;
    if (size == 0 || size > s.size)
        return 0;
    uint32_t code_point = size == 1 ? b[0] : b[0] & (0x7Fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((b[i] & 0xC0) != 0x80)
            return 0;
        code_point = code_point << 6 | (b[i] & 0x3F);
    }
    bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    return code_point < smallest[size] || code_point > 0x10FFFF || surrogate ? 0 : size;
}

static size_t slow_prefix(struct slice s)
{
    size_t at = 0, size;
    while (at < s.size && (size = slow_character((struct slice){s.data + at, s.size - at})) > 0)
        at += size;
    return at;
}

static void every_pair_of_first_bytes_is_judged_right(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        for (unsigned second = 0; second < 256; second++) {
            for (size_t rest = 0; rest <= 3; rest++) {
                char bytes[8] = {(char)first, (char)second, '\x80', '\xBF', 'a'};
                struct slice s = {bytes, 2 + rest};
                assert_int_equal(utf8_valid_prefix(s), slow_prefix(s));
            }
        }
    }
}

static void random_bytes_are_judged_right_at_every_offset(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "a", "bcdefghij", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\xa0\x80", "\xff", "\xe2\x82"};
    for (int round = 0; round < 5000; round++) {
        struct {
            char bytes[200];
            size_t size;
        } text = {.size = 0};
        unsigned char choice[16];
        random_bytes(choice, sizeof choice);
        for (size_t i = 0; i < sizeof choice; i++) {
            const char *piece = pieces[choice[i] % (i < 12 ? 5 : 8)];
            memcpy(text.bytes + text.size, piece, strlen(piece));
            text.size += strlen(piece);
        }
        struct slice s = {text.bytes, text.size};
        assert_int_equal(utf8_valid_prefix(s), slow_prefix(s));
    }
}

static void every_code_point_is_written_validly(void **state)
{
    (void)state;
    for (uint32_t code_point = 0; code_point <= 0x10FFFF; code_point++) {
        char bytes[4];
        if (code_point == 0xD800)
            code_point = 0xE000;
        size_t size = utf8_encode(code_point, bytes);
        assert_int_equal(slow_character((struct slice){bytes, size}), size);
    }
}

/* Whatever prefix of a text: what is left without its incomplete tail is valid, and the tail is shorter than a character. */
static void a_cut_is_found_at_both_ends(void **state)
{
    (void)state;
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
    for (size_t cut = 0; cut < sizeof text; cut++) {
        struct slice front = {text, cut}, back = {text + cut, sizeof text - 1 - cut};
        size_t tail = utf8_incomplete_tail(front), head = utf8_incomplete_head(back);
        assert_true(utf8_valid((struct slice){front.data, front.size - tail}));
        assert_true(utf8_valid((struct slice){back.data + head, back.size - head}));
        assert_int_equal(tail > 0, head > 0);
    }
}

static void junk_is_no_incomplete_character(void **state)
{
    (void)state;
    assert_int_equal(utf8_incomplete_tail(SLICE("")), 0);
    assert_int_equal(utf8_incomplete_tail(SLICE("a\xff")), 0);
    assert_int_equal(utf8_incomplete_tail(SLICE("a\x80\x80")), 0);
    assert_int_equal(utf8_incomplete_tail(SLICE("a\xed\xa0")), 0);
    assert_int_equal(utf8_incomplete_tail(SLICE("a\xe0\x80")), 0);
    assert_int_equal(utf8_incomplete_tail(SLICE("\xf0\x9f\x98")), 3);
    assert_int_equal(utf8_incomplete_head(SLICE("\x80\x80\x80\x80")), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_first_bytes_is_judged_right),
        cmocka_unit_test(random_bytes_are_judged_right_at_every_offset),
        cmocka_unit_test(every_code_point_is_written_validly),
        cmocka_unit_test(a_cut_is_found_at_both_ends),
        cmocka_unit_test(junk_is_no_incomplete_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
