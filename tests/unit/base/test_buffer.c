/*
 * buffer: bytes come out as they went in, however adding and taking alternate.
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

static void all_zero_is_an_empty_buffer(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    assert_int_equal(buffer_slice(&buffer).size, 0);
    buffer_append(&buffer, NULL, 0);
    buffer_consume(&buffer, 10);
    buffer_clear(&buffer);
    buffer_free(&buffer);
    char *text = buffer_take_string(&buffer);
    assert_string_equal(text, "");
    free(text);
}

static void alternating_keeps_order_and_bounds_memory(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    unsigned char next_in = 0, next_out = 0;
    for (size_t round = 0; round < 20000; round++) {
        for (size_t i = 0; i < round % 17; i++)
            buffer_append_char(&buffer, (char)next_in++);
        size_t take = round % 13;
        if (take > buffer.size)
            take = buffer.size;
        for (size_t i = 0; i < take; i++)
            assert_int_equal((unsigned char)buffer_data(&buffer)[i], next_out++);
        buffer_consume(&buffer, take);
        if (buffer.size > 500) {
            next_out = (unsigned char)(next_out + buffer.size);
            buffer_consume(&buffer, buffer.size);
        }
    }
    assert_true(buffer.capacity <= 2048);
    buffer_free(&buffer);
}

static void room_is_reserved_behind_the_data(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    buffer_append_string(&buffer, "abc");
    char *room = buffer_reserve(&buffer, 100000);
    memset(room, 'x', 100000);
    buffer_commit(&buffer, 2);
    assert_true(slice_equal(buffer_slice(&buffer), SLICE("abcxx")));
    buffer_free(&buffer);
}

static void text_and_numbers_are_appended(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    buffer_append_uint64(&buffer, 0);
    buffer_append_char(&buffer, ' ');
    buffer_append_uint64(&buffer, UINT64_MAX);
    buffer_append_slice(&buffer, SLICE(" and "));
    buffer_printf(&buffer, "%s=%d", "n", -5);
    buffer_consume(&buffer, 2);
    char *text = buffer_take_string(&buffer);
    assert_string_equal(text, "18446744073709551615 and n=-5");
    assert_int_equal(buffer.size, 0);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_zero_is_an_empty_buffer),
        cmocka_unit_test(alternating_keeps_order_and_bounds_memory),
        cmocka_unit_test(room_is_reserved_behind_the_data),
        cmocka_unit_test(text_and_numbers_are_appended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
