/*
 * log: one line an entry, whatever is in it. Standard error is a pipe here, read back after each call.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"

static int pipe_ends[2], real_stderr;

static int catch_stderr(void **state)
{
    (void)state;
    real_stderr = dup(STDERR_FILENO);
    return real_stderr >= 0 && pipe(pipe_ends) == 0 && dup2(pipe_ends[1], STDERR_FILENO) >= 0 ? 0 : -1;
}

static int give_stderr_back(void **state)
{
    (void)state;
    return dup2(real_stderr, STDERR_FILENO) >= 0 ? 0 : -1;
}

/* What was written, without the time: it must be there, and valid. A byte of ours behind it makes read() return when nothing was written. */
static const char *written_line(void)
{
    static char line[4096];
    ssize_t size = write(pipe_ends[1], "$", 1) == 1 ? read(pipe_ends[0], line, sizeof line - 1) : 0;
    assert_true(size > 0);
    line[size - 1] = '\0';
    char *time = strstr(line, "20");
    if (time == NULL)
        return line;
    uint64_t time_us;
    assert_true(clock_parse_rfc3339((struct slice){time, 24}, &time_us));
    memmove(time, time + 24, strlen(time + 24) + 1);
    return line;
}

static void text_lines_name_level_message_and_fields(void **state)
{
    (void)state;
    log_configure(LOG_INFO, LOG_TEXT);
    log_info("listening", log_string("address", "127.0.0.1:8080"), log_integer("n", -3),
             log_number("x", 0.5));
    assert_string_equal(written_line(), " info  listening address=127.0.0.1:8080 n=-3 x=0.5\n");
    log_error("plain");
    assert_string_equal(written_line(), " error plain\n");
}

static void text_values_are_quoted_where_they_would_mislead(void **state)
{
    (void)state;
    log_configure(LOG_INFO, LOG_TEXT);
    log_warn("m", log_string("a", "two words"), log_string("b", ""), log_string("c", "x=\"y\\"));
    assert_string_equal(written_line(), " warn  m a=\"two words\" b=\"\" c=\"x=\\\"y\\\\\"\n");
}

static void an_entry_is_one_printable_line(void **state)
{
    (void)state;
    log_configure(LOG_INFO, LOG_TEXT);
    log_info("a\nb\x1b[2J\xff\xc2\x9bm\xc3\xa9", log_slice("z", SLICE("\0\t\x7f")));
    assert_string_equal(written_line(), " info  a\\nb\\x1b[2J\\xff\\xc2\\x9bm\xc3\xa9 z=\\x00\\t\\x7f\n");
}

static void json_escapes_once_what_cannot_be_printed(void **state)
{
    (void)state;
    log_configure(LOG_INFO, LOG_JSON);
    log_info("a\n\xff\"\\n", log_slice("v", SLICE("\0\x1b\x7f\xc2\x9bm\xc2\xa0\xc3\xa9")));
    assert_string_equal(written_line(),
                        "{\"time\":\"\",\"level\":\"info\",\"message\":\"a\\n\xef\xbf\xbd\\\"\\\\n\","
                        "\"v\":\"\\u0000\\u001b\\u007f\\u009bm\xc2\xa0\xc3\xa9\"}\n");
}

static void json_values_stand_as_they_are_in_json_and_as_strings_in_text(void **state)
{
    (void)state;
    static const char value[] = "{\"a\":[1,\"\x7f\xc2\x9b\"]}";
    log_configure(LOG_INFO, LOG_JSON);
    log_info("m", log_json("v", slice_of(value)), log_json("w", SLICE("null")));
    assert_string_equal(written_line(), "{\"time\":\"\",\"level\":\"info\",\"message\":\"m\","
                                        "\"v\":{\"a\":[1,\"\\u007f\\u009b\"]},\"w\":null}\n");
    log_configure(LOG_INFO, LOG_TEXT);
    log_info("m", log_json("v", slice_of(value)), log_json("w", SLICE("null")));
    assert_string_equal(written_line(), " info  m v=\"{\\\"a\\\":[1,\\\"\\x7f\\xc2\\x9b\\\"]}\" w=null\n");
}

static void levels_below_are_silent(void **state)
{
    (void)state;
    log_configure(LOG_WARN, LOG_TEXT);
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_WARN));
    log_debug("no");
    log_info("no");
    assert_string_equal(written_line(), "");
    log_configure(LOG_DEBUG, LOG_TEXT);
    log_debug("yes");
    assert_string_equal(written_line(), " debug yes\n");
}

static void logging_leaves_errno_alone(void **state)
{
    (void)state;
    int nowhere = dup(pipe_ends[0]); /* the end that cannot be written */
    log_configure(LOG_INFO, LOG_TEXT);
    assert_true(dup2(nowhere, STDERR_FILENO) >= 0);
    errno = ENOENT;
    log_info("lost");
    assert_int_equal(errno, ENOENT);
    assert_true(dup2(pipe_ends[1], STDERR_FILENO) >= 0);
    close(nowhere);
}

static void a_limit_lets_one_through_and_counts_the_rest(void **state)
{
    (void)state;
    struct log_limit limit = {0};
    uint64_t suppressed = 99;
    assert_true(log_limit_pass(&limit, &suppressed));
    assert_int_equal(suppressed, 0);
    assert_null(log_suppressed(suppressed).name); /* ends the list of fields: there is nothing to tell */
    assert_false(log_limit_pass(&limit, &suppressed));
    assert_false(log_limit_pass(&limit, &suppressed));
    limit.next_ns = clock_monotonic_ns(); /* the second is over */
    assert_true(log_limit_pass(&limit, &suppressed));
    assert_int_equal(suppressed, 2);
    assert_string_equal(log_suppressed(suppressed).name, "suppressed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_lines_name_level_message_and_fields),
        cmocka_unit_test(text_values_are_quoted_where_they_would_mislead),
        cmocka_unit_test(an_entry_is_one_printable_line),
        cmocka_unit_test(json_escapes_once_what_cannot_be_printed),
        cmocka_unit_test(json_values_stand_as_they_are_in_json_and_as_strings_in_text),
        cmocka_unit_test(levels_below_are_silent),
        cmocka_unit_test(logging_leaves_errno_alone),
        cmocka_unit_test(a_limit_lets_one_through_and_counts_the_rest),
    };
    return cmocka_run_group_tests(tests, catch_stderr, give_stderr_back);
}
