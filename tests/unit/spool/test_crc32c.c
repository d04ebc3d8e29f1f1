/* The checksum against the published values (RFC 3720 B.4), and in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "spool/crc32c.h"

static void published_values_come_out(void **state)
{
    (void)state;
    char bytes[32];
    assert_int_equal(crc32c(0, SLICE("")), 0);
    assert_int_equal(crc32c(0, SLICE("123456789")), 0xe3069283);
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(crc32c(0, (struct slice){bytes, 32}), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(crc32c(0, (struct slice){bytes, 32}), 0x62a8ab43);
    for (int i = 0; i < 32; i++) {
        bytes[i] = (char)i;
    }
    assert_int_equal(crc32c(0, (struct slice){bytes, 32}), 0x46dd794e);
}

static void pieces_give_what_the_whole_gives(void **state)
{
    (void)state;
    char bytes[100];
    for (int i = 0; i < 100; i++) {
        bytes[i] = (char)(i * 37);
    }
    uint32_t whole = crc32c(0, (struct slice){bytes, 100});
    for (size_t cut = 0; cut <= 100; cut++) {
        uint32_t first = crc32c(0, (struct slice){bytes, cut});
        assert_int_equal(crc32c(first, (struct slice){bytes + cut, 100 - cut}), whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_values_come_out),
        cmocka_unit_test(pieces_give_what_the_whole_gives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
