/* What llmproxy.regex promises about time: the rest is in tests/lua/regex_spec.lua. */
#include "fixture.h"

static int set_up(void **state)
{
    struct fixture *fixture = xcalloc(1, sizeof *fixture);
    fixture_set_up(fixture, (struct script_settings){0});
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    fixture_tear_down(*state);
    free(*state);
    return 0;
}

static void expect_stopped(struct fixture *fixture, const char *code)
{
    struct error error = {.message = ""};
    fixture_load(fixture, code);
    assert_false(script_call(fixture->script, 0, 0, 0.05, &error));
    assert_non_null(strstr(error.message, "stopped"));
}

/* Without a look at the deadline it would take long: from each of a million places to the longest match's end. */
static void a_slow_pattern_is_stopped_between_two_windows(void **state)
{
    expect_stopped(
        *state, "local slow = require('llmproxy.regex').compile('(?=[a-z]*+[0-9])a', { longest = 65536 })\n"
                "slow:count(('a'):rep(1000000))");
}

static void a_pcall_around_the_search_does_not_help(void **state)
{
    skip_under_thread_sanitizer();
    expect_stopped(
        *state, "local slow = require('llmproxy.regex').compile('(?=[a-z]*+[0-9])a', { longest = 65536 })\n"
                "while true do pcall(slow.count, slow, ('a'):rep(1000000)) end");
}

static void a_script_goes_on_after_it(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    expect_stopped(
        fixture, "local slow = require('llmproxy.regex').compile('(?=[a-z]*+[0-9])a', { longest = 65536 })\n"
                 "slow:count(('a'):rep(1000000))");
    fixture_load(fixture, "assert(require('llmproxy.regex').compile('b+'):count('abba b') == 2)");
    assert_true(script_call(fixture->script, 0, 0, 60, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_slow_pattern_is_stopped_between_two_windows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_pcall_around_the_search_does_not_help, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_script_goes_on_after_it, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
