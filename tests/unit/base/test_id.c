/*
 * id: well-formed, different, and for version 7 ascending within a thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/id.h"

static void assert_shape(const char *id, char version)
{
    assert_int_equal(strlen(id), 36);
    for (size_t i = 0; i < 36; i++) {
        if (i == 8 || i == 13 || i == 18 || i == 23)
            assert_int_equal(id[i], '-');
        else
            assert_non_null(strchr("0123456789abcdef", id[i]));
    }
    assert_int_equal(id[14], version);
    assert_non_null(strchr("89ab", id[19]));
}

static void version_7_ascends_and_tells_the_time(void **state)
{
    (void)state;
    char before[UUID_TEXT_SIZE] = "", id[UUID_TEXT_SIZE];
    uint64_t first_ms = clock_realtime_us() / 1000;
    for (int i = 0; i < 20000; i++) {
        uuid7(id);
        assert_shape(id, '7');
        assert_true(strcmp(before, id) < 0);
        memcpy(before, id, sizeof id);
        if (i == 0) {
            char hex[13];
            memcpy(hex, id, 8);
            memcpy(hex + 8, id + 9, 4);
            hex[12] = '\0';
            uint64_t time_ms = strtoull(hex, NULL, 16);
            assert_true(time_ms >= first_ms && time_ms <= clock_realtime_us() / 1000);
        }
    }
}

static void version_4_is_never_the_same(void **state)
{
    (void)state;
    char a[UUID_TEXT_SIZE], b[UUID_TEXT_SIZE];
    uuid4(a);
    for (int i = 0; i < 1000; i++) {
        uuid4(b);
        assert_shape(b, '4');
        assert_string_not_equal(a, b);
    }
}

/* Each size is drawn until every byte of it was non-zero once. */
static void random_fills_every_byte_of_every_size(void **state)
{
    (void)state;
    for (size_t size = 1; size < 700; size += 23) {
        unsigned char seen[700] = {0}, bytes[702] = {0};
        for (int round = 0; round < 40; round++) {
            random_bytes(bytes + 1, size);
            for (size_t i = 0; i < size; i++)
                seen[i] |= bytes[1 + i];
        }
        for (size_t i = 0; i < size; i++)
            assert_true(seen[i] != 0);
        assert_int_equal(bytes[0] | bytes[size + 1], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_7_ascends_and_tells_the_time),
        cmocka_unit_test(version_4_is_never_the_same),
        cmocka_unit_test(random_fills_every_byte_of_every_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
