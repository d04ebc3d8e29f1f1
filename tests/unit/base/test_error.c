/*
 * error: a message survives being built from itself, and being too long.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"

static void a_message_may_be_made_of_itself(void **state)
{
    (void)state;
    struct error error;
    error_set(&error, "%s: %d", "port", 80);
    error_set(&error, "again %s", error.message);
    assert_string_equal(error.message, "again port: 80");
}

static void a_prefix_goes_in_front(void **state)
{
    (void)state;
    struct error error;
    error_set(&error, "address in use");
    error_prefix(&error, "%s: ", "listen");
    assert_string_equal(error.message, "listen: address in use");
}

static void long_messages_are_cut(void **state)
{
    (void)state;
    struct error error;
    char text[2 * sizeof error.message];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    error_set(&error, "%s", text);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    error_prefix(&error, "abc: ");
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    assert_memory_equal(error.message, "abc: xxx", 8);
    error_prefix(&error, "%s", text);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_may_be_made_of_itself),
        cmocka_unit_test(a_prefix_goes_in_front),
        cmocka_unit_test(long_messages_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
