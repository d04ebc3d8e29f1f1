/* llmproxy.metrics: what a plugin counts is in the program's registry, under the pipeline's label. */
#include "fixture.h"

#include "base/metrics.h"

struct counting {
    struct fixture fixture;
    struct metrics *metrics;
};

static int set_up(void **state)
{
    static struct counting counting;
    counting.metrics = metrics_new();
    fixture_set_up(&counting.fixture, (struct script_settings){.metrics = counting.metrics});
    *state = &counting;
    return 0;
}

static int tear_down(void **state)
{
    struct counting *counting = *state;
    fixture_tear_down(&counting->fixture);
    metrics_free(counting->metrics);
    return 0;
}

static void run(struct counting *counting, const char *code)
{
    if (!fixture_call(&counting->fixture, code)) {
        fail_msg("%s", counting->fixture.message);
    }
}

static char *text_of(struct counting *counting)
{
    struct buffer out = {0};
    metrics_write(counting->metrics, &out);
    return buffer_take_string(&out);
}

static void assert_has(struct counting *counting, const char *line)
{
    char *text = text_of(counting);
    if (strstr(text, line) == NULL) {
        fail_msg("no '%s' in:\n%s", line, text);
    }
    free(text);
}

static void all_kinds_are_written(void **state)
{
    struct counting *counting = *state;
    run(counting, "local metrics = require 'llmproxy.metrics' "
                  "local calls = metrics.counter('calls_total', 'Calls.', { 'team', 'model' }) "
                  "calls:add(2, { model = 'm', team = 'a\"b\\nc' }) calls:add() "
                  "metrics.counter('spent', 'Money.'):add(0.25) metrics.counter('spent', 'Money.'):add(0.5) "
                  "metrics.counter('none_total', 'Nothing yet.') "
                  "local open = metrics.gauge('open', 'Open.') open:set(7) open:add(-2) "
                  "metrics.histogram('size', 'Sizes.', nil, { 1, 10 }):observe(5)");
    assert_has(counting, "# TYPE llm_proxy_plugin_calls_total counter\n"
                         "llm_proxy_plugin_calls_total{pipeline=\"test\",team=\"a\\\"b\\nc\",model=\"m\"} 2\n"
                         "llm_proxy_plugin_calls_total{pipeline=\"test\",team=\"\",model=\"\"} 1\n");
    assert_has(counting, "llm_proxy_plugin_spent{pipeline=\"test\"} 0.75\n");
    assert_has(counting, "llm_proxy_plugin_none_total{pipeline=\"test\"} 0\n");
    assert_has(counting, "llm_proxy_plugin_open{pipeline=\"test\"} 5\n");
    assert_has(counting, "llm_proxy_plugin_size_bucket{pipeline=\"test\",le=\"10\"} 1\n");
    assert_has(counting, "llm_proxy_plugin_size_sum{pipeline=\"test\"} 5\n");
}

static void labels_are_text_that_can_be_read(void **state)
{
    struct counting *counting = *state;
    run(counting, "local calls = require('llmproxy.metrics').counter('calls_total', 'Calls.', { 'team' }) "
                  "calls:add(1, { team = 'a\\255\\0b' }) calls:add(1, { team = ('x'):rep(1000) }) "
                  "calls:add(1, { team = 'x' .. ('ü'):rep(100) })");
    assert_has(counting, "üüü\"} 1\n");
    assert_has(counting, "{pipeline=\"test\",team=\"a??b\"} 1\n");
    char *text = text_of(counting);
    assert_null(
        strstr(text, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"));
    free(text);
}

static void labels_are_bounded(void **state)
{
    struct counting *counting = *state;
    run(counting, "local calls = require('llmproxy.metrics').counter('calls_total', 'Calls.', { 'team' }) "
                  "for i = 1, 2000 do calls:add(1, { team = 't' .. i }) end calls:add(1, { team = 't1' })");
    assert_has(counting, "team=\"t1\"} 2\n");
    assert_has(counting, "team=\"t500\"} 1\n");
    assert_has(counting, "team=\"other\"} 1500\n");
}

static size_t count_of(struct counting *counting, const char *part)
{
    size_t count = 0;
    char *text = text_of(counting);
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++) {
        count++;
    }
    free(text);
    return count;
}

static void a_state_that_is_made_anew_counts_on_within_the_same_bounds(void **state)
{
    struct counting *counting = *state;
    for (int round = 0; round < 3; round++) {
        char code[300];
        snprintf(code, sizeof code,
                 "local calls = require('llmproxy.metrics').counter('calls_total', 'Calls.', { 'team' }) "
                 "for i = 1, 400 do calls:add(1, { team = '%d-' .. i }) end calls:add(1, { team = '0-1' }) "
                 "require('llmproxy.metrics').counter('calls_total_too', 'Calls.'):add()",
                 round);
        run(counting, code);
        fixture_tear_down(&counting->fixture);
        fixture_set_up(&counting->fixture, (struct script_settings){.metrics = counting->metrics});
    }
    assert_has(counting, "team=\"0-1\"} 4\n");
    assert_has(counting, "team=\"1-100\"} 1\n");
    assert_has(counting, "team=\"other\"} 700\n");
    assert_has(counting, "llm_proxy_plugin_calls_total_too{pipeline=\"test\"} 3\n");
    assert_int_equal(count_of(counting, "\nllm_proxy_plugin_calls_total{"), 501);
}

static void metrics_without_end_are_refused(void **state)
{
    struct counting *counting = *state;
    run(counting, "local metrics = require 'llmproxy.metrics' for m = 1, 21 do "
                  "local calls = metrics.counter('m' .. m, 'M.', { 'team' }) "
                  "for i = 1, 500 do calls:add(1, { team = i }) end end");
    assert_false(fixture_call(&counting->fixture, "require('llmproxy.metrics').counter('more', 'More.')"));
    assert_non_null(strstr(counting->fixture.message, "llmproxy.metrics.counter: name: llm_proxy_plugin_more "
                                                      "cannot be added: the pipeline's plugins have 10000"));
    assert_int_equal(count_of(counting, "\nllm_proxy_plugin_"), 10000);
}

static void one_name_is_one_metric(void **state)
{
    struct counting *counting = *state;
    assert_false(fixture_call(&counting->fixture,
                              "local metrics = require 'llmproxy.metrics' metrics.counter('x', 'X.') "
                              "metrics.gauge('x', 'X.')"));
    assert_non_null(
        strstr(counting->fixture.message, "name: llm_proxy_plugin_x exists already, of another kind"));
    assert_false(
        fixture_call(&counting->fixture,
                     "local metrics = require 'llmproxy.metrics' "
                     "metrics.histogram('h', 'H.', nil, { 1 }) metrics.histogram('h', 'H.', nil, { 2 })"));
    assert_non_null(strstr(counting->fixture.message, "or with other buckets"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_kinds_are_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(labels_are_text_that_can_be_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(labels_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_state_that_is_made_anew_counts_on_within_the_same_bounds, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(metrics_without_end_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_name_is_one_metric, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
