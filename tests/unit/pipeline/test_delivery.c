/*
 * What becomes of a batch by what deliver answers.
 */
#include "fixture.h"

static void batches_hold_json_and_tables(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function(batch)\n"
                        "  local json, lines = batch:json(), batch:json_lines()\n"
                        "  local first, second = lines:match('^([^\\n]+)\\n([^\\n]+)\\n$')\n"
                        "  assert(json == '[' .. first .. ',' .. second .. ']')\n"
                        "  assert(batch.bytes == #first + #second)\n"
                        "  assert(require('llmproxy.json').decode(json)[2].response_body == 'two')\n"
                        "  assert(batch.events[2].response_body == 'two' and batch.events == batch.events)\n"
                        "  record(('%d %s'):format(batch.attempt, ids(batch)))\n"
                        "end, batch = { max_events = 2, max_wait = 60 } }");
    world_publish(&world, "a", "one");
    world_publish(&world, "b", "two");
    world_drain(&world);
    world_assert_recorded(&world, "1 a,b\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 2);
    assert_int_equal(world_metric(&world, "llm_proxy_delivery_seconds_count{pipeline=\"test\"}"), 1);
    assert_int_equal(world_stop(&world), 0);
}

static void batches_end_at_their_number_of_events(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function(batch) record(ids(batch)) end, batch = { "
                        "max_events = 2, max_wait = 60 } }");
    for (const char *id = "abcde"; *id != '\0'; id++)
        world_publish(&world, (char[]){*id, '\0'}, "");
    world_wait_for(&world, "c,d");
    world_drain(&world);
    world_assert_recorded(&world, "a,b\nc,d\ne\n");
    world_stop(&world);
}

static void batches_end_before_too_many_bytes_and_a_larger_event_goes_alone(void **state)
{
    (void)state;
    struct world world = {0};
    char large[5000];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    world_start(&world, "return pipeline { deliver = function(batch) record(ids(batch)) end, batch = { "
                        "max_bytes = 3000, max_wait = 60 } }");
    world_publish(&world, "a", "");
    world_publish(&world, "b", large);
    world_publish(&world, "c", "");
    world_publish(&world, "d", "");
    world_publish(&world, "e", large);
    world_drain(&world);
    world_assert_recorded(&world, "a\nb\nc,d\ne\n");
    world_stop(&world);
}

static void a_batch_waits_no_longer_than_max_wait(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(
        &world,
        "return pipeline { deliver = function(batch) record(ids(batch)) end, batch = { max_wait = 0.02 } }");
    world_publish(&world, "a", "");
    world_wait_for(&world, "a\n");
    world_publish(&world, "b", "");
    world_wait_for(&world, "b\n");
    world_drain(&world);
    world_stop(&world);
}

static void a_plain_return_and_true_are_ok(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "local answers = { a = true }\n"
                        "return pipeline { deliver = function(batch) record(ids(batch)) return "
                        "answers[ids(batch)] end, batch = { max_events = 1 } }");
    world_publish(&world, "a", "");
    world_publish(&world, "b", "");
    world_drain(&world);
    world_assert_recorded(&world, "a\nb\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 2);
    world_stop(&world);
}

static void a_list_with_holes_names_events_too(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world,
                "return pipeline { deliver = function(batch) record(ids(batch)) if batch.attempt == 1 "
                "then return verdict.partial { retry = { [1] = 1, [3] = 3 } } end end, batch = { "
                "max_events = 3, max_wait = 60 } }");
    world_publish(&world, "a", "");
    world_publish(&world, "b", "");
    world_publish(&world, "c", "");
    world_drain(&world);
    world_assert_recorded(&world, "a,b,c\na,c\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 3);
    world_stop(&world);
}

static void while_one_half_is_paused_the_other_gets_no_older(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world,
                "local pauses, failures = 1, 1\n"
                "return pipeline { deliver = function(batch) record(ids(batch))\n"
                "if #batch.events > 1 then return verdict.split() end\n"
                "if ids(batch) == 'a' and pauses > 0 then pauses = 0 return verdict.pause('key') end\n"
                "if ids(batch) == 'b' and failures > 0 then failures = 0 return verdict.retry() end\n"
                "record(ids(batch) .. ' arrived') end, batch = { max_events = 2, max_wait = 60 },\n"
                "retry = { min_delay = 0.001, max_delay = 0.5, max_age = 0.4 } }");
    world_publish(&world, "a", "");
    world_publish(&world, "b", "");
    world_wait_for(&world, "a arrived");
    world_drain(&world);
    world_assert_recorded(&world, "a,b\na\na\na arrived\nb\nb\nb arrived\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 2);
    world_stop(&world);
}

static void the_events_of_a_batch_that_was_kept_are_gone(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "local kept\n"
                        "return pipeline { deliver = function(batch)\n"
                        "if kept then local fine, message = pcall(function() return kept.events end)\n"
                        "record(tostring(fine) .. message:gsub('^.-: ', ' ')) end\n"
                        "kept = batch end, batch = { max_events = 1 } }");
    world_publish(&world, "a", "");
    world_publish(&world, "b", "");
    world_drain(&world);
    world_assert_recorded(&world,
                          "false batch.events: this batch is delivered or dropped, its events are gone\n");
    world_stop(&world);
}

/* Each row's answer to the first attempt, none of which is a delivery. */
static void what_is_no_success_is_tried_again(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "error('boom')",
        "error({})",
        "error(setmetatable({}, { __tostring = function() error('no') end }))",
        "return verdict.retry()",
        "return verdict.retry { reason = 'busy', after = 0.001 }",
        "return nil, 'disk full'",
        "return false",
        "return 'ok'",
        "return 7",
        "return {}",
        "return { verdict = 'OK' }",
        "return { verdict = 'retry', after = 'soon' }",
        "return { verdict = 'retry', after = 0/0 }",
        "return { verdict = 'retry', after = -1 }",
        "return { verdict = 'partial', retry = { 2 } }",
        "return { verdict = 'partial', reject = { [0] = 'x' } }",
        "return { verdict = 'partial', retry = 1 }",
        "return { verdict = 'partial', retry = { 'a' } }",
        "return verdict.partial { retry = { 1 } }",
        "return verdict.pause('wrong key')",
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct world world = {0};
        char *definition = xprintf("return pipeline { deliver = function(batch)\n"
                                   "  record(('%%d %%s'):format(batch.attempt, ids(batch)))\n"
                                   "  if batch.attempt == 1 then %s end\n"
                                   "end }",
                                   answers[i]);
        world_start(&world, definition);
        world_publish(&world, "a", "");
        world_drain(&world);
        world_assert_recorded(&world, "1 a\n2 a\n");
        assert_int_equal(world_metric(&world, EVENTS("delivered")), 1);
        world_stop(&world);
        free(definition);
    }
}

static void a_retry_is_never_earlier_than_after(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world,
                "local first\n"
                "return pipeline { deliver = function(batch)\n"
                "  if not first then first = time.monotonic() return verdict.retry { after = 0.05 } end\n"
                "  record(time.monotonic() - first >= 0.05 and 'waited' or 'too early')\n"
                "end }");
    world_publish(&world, "a", "");
    world_drain(&world);
    world_assert_recorded(&world, "waited\n");
    world_stop(&world);
}

/* Chance is fixed, sleeps are recorded. The first batch fails five times, the second one three times. */
static void delays_grow_to_the_longest_are_left_to_chance_and_begin_anew(void **state)
{
    (void)state;
    static const char *const all[][2] = {
        {"1", "0.010\n0.020\n0.040\n0.050\n0.050\na\n0.010\n0.020\n0.040\nb\n"},
        {"0.5", "0.005\n0.010\n0.020\n0.025\n0.025\na\n0.005\n0.010\n0.020\nb\n"},
        {"0", "a\nb\n"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct world world = {0};
        char *definition = xprintf("local sleep, failures = time.sleep, { a = 5, b = 3 }\n"
                                   "math.random = function() return %s end\n"
                                   "time.sleep = function(seconds) if seconds > 0.002 then "
                                   "record(('%%.3f'):format(seconds)) end return sleep(seconds) end\n"
                                   "return pipeline { batch = { max_events = 1 }, retry = { min_delay = "
                                   "0.01, max_delay = 0.05 }, deliver = function(batch)\n"
                                   "  local id = ids(batch)\n"
                                   "  if batch.attempt <= failures[id] then return verdict.retry() end\n"
                                   "  record(id)\n"
                                   "end }",
                                   all[i][0]);
        world_start(&world, definition);
        world_publish(&world, "a", "");
        world_publish(&world, "b", "");
        world_wait_for(&world, "b\n");
        world_drain(&world);
        world_assert_recorded(&world, all[i][1]);
        world_stop(&world);
        free(definition);
    }
}

static void events_too_old_are_dropped_as_expired(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(
        &world,
        "local tries = 0\n"
        "return pipeline { deliver = function() tries = tries + 1 record('try') return verdict.retry() end,\n"
        "  retry = { min_delay = 0.001, max_delay = 0.002, max_age = 0.01 } }");
    world_publish(&world, "a", "");
    world_publish(&world, "b", "");
    world_drain(&world);
    assert_true(world.recorded.size >= 2 * strlen("try\n"));
    assert_int_equal(world_metric(&world, DROPPED("expired")), 2);
    world_stop(&world);
}

static void a_destination_that_wants_peace_beyond_max_age_is_not_tried_again(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(
        &world,
        "return pipeline { deliver = function() record('try') return verdict.retry { after = 3600 } end,\n"
        "  retry = { min_delay = 0.001, max_delay = 0.002, max_age = 60 } }");
    world_publish(&world, "a", "");
    world_drain(&world);
    world_assert_recorded(&world, "try\n");
    assert_int_equal(world_metric(&world, DROPPED("expired")), 1);
    world_stop(&world);
}

static void a_pause_makes_nothing_old(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function(batch)\n"
                        "  record(tostring(batch.attempt))\n"
                        "  if batch.attempt < 5 then return verdict.pause('answered 401') end\n"
                        "end, retry = { min_delay = 0.001, max_delay = 0.01, max_age = 0.005 } }");
    world_publish(&world, "a", "");
    world_drain(&world);
    world_assert_recorded(&world, "1\n2\n3\n4\n5\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 1);
    world_stop(&world);
}

static void rejected_events_are_dropped_and_counted(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function(batch) record(ids(batch)) return "
                        "verdict.reject('bad') end, batch = { max_events = 2, max_wait = 60 } }");
    world_publish(&world, "a", "");
    world_publish(&world, "b", "");
    world_drain(&world);
    world_assert_recorded(&world, "a,b\n");
    assert_int_equal(world_metric(&world, DROPPED("rejected")), 2);
    world_stop(&world);
}

static void split_halves_down_to_the_event_at_fault(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function(batch)\n"
                        "  record(ids(batch))\n"
                        "  if ids(batch):find('d') then return verdict.split('too large') end\n"
                        "end, batch = { max_events = 5, max_wait = 60 } }");
    for (const char *id = "abcde"; *id != '\0'; id++)
        world_publish(&world, (char[]){*id, '\0'}, "");
    world_drain(&world);
    world_assert_recorded(&world, "a,b,c,d,e\na,b,c\nd,e\nd\ne\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 4);
    assert_int_equal(world_metric(&world, DROPPED("rejected")), 1);
    world_stop(&world);
}

static void partial_settles_each_event_by_itself(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function(batch)\n"
                        "  record(('%d %s'):format(batch.attempt, ids(batch)))\n"
                        "  if batch.attempt == 1 then return verdict.partial { retry = { 2, 4 }, reject = { "
                        "[3] = 'no such field' } } end\n"
                        "end, batch = { max_events = 4, max_wait = 60 } }");
    for (const char *id = "abcd"; *id != '\0'; id++)
        world_publish(&world, (char[]){*id, '\0'}, "");
    world_drain(&world);
    world_assert_recorded(&world, "1 a,b,c,d\n2 b,d\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 3);
    assert_int_equal(world_metric(&world, DROPPED("rejected")), 1);
    world_stop(&world);
}

static void runaway_code_costs_the_event_at_fault_only(void **state)
{
    (void)state;
    struct world world = {.watchdog_seconds = 0.05};
    world_start(&world, "return pipeline { deliver = function(batch)\n"
                        "  while ids(batch):find('b') do pcall(ids, batch) end\n"
                        "  record(ids(batch))\n"
                        "end, batch = { max_events = 3, max_wait = 60 } }");
    for (const char *id = "abc"; *id != '\0'; id++)
        world_publish(&world, (char[]){*id, '\0'}, "");
    world_drain(&world);
    world_assert_recorded(&world, "a\nc\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 2);
    assert_int_equal(world_metric(&world, DROPPED("rejected")), 1);
    world_stop(&world);
}

static void draining_gives_what_waits_another_try(void **state)
{
    (void)state;
    static const char *const answers[] = {"verdict.retry()", "verdict.pause('wrong key')"};
    for (size_t i = 0; i < 2; i++) {
        struct world world = {0};
        char *definition = xprintf("return pipeline { deliver = function(batch)\n"
                                   "  record(('%%d %%s'):format(batch.attempt, ids(batch)))\n"
                                   "  if batch.attempt == 1 then return %s end\n"
                                   "end, retry = { min_delay = 1e9, max_delay = 1e9 } }",
                                   answers[i]);
        world_start(&world, definition);
        world_publish(&world, "a", "");
        world_wait_for(&world, "1 a");
        world_drain(&world);
        world_assert_recorded(&world, "1 a\n2 a\n");
        world_stop(&world);
        free(definition);
    }
}

/* One that is not acknowledged comes again: nothing is gained by waiting. */
static void draining_leaves_what_fails_on_a_bus_that_keeps_it(void **state)
{
    (void)state;
    static const char *const answers[] = {"verdict.retry()", "verdict.retry { after = 3600 }",
                                          "verdict.pause('wrong key')"};
    for (size_t i = 0; i < 3; i++) {
        struct world world = {0};
        struct error error;
        char *definition = xprintf(
            "return pipeline { concurrency = 2, batch = { max_events = 1 }, deliver = function(batch)\n"
            "  if ids(batch) == 'a' then hold() end\n"
            "  record(('%%d %%s'):format(batch.attempt, ids(batch))) return %s\n"
            "end, retry = { min_delay = 3600, max_delay = 3600 } }",
            answers[i]);
        world_setup(&world);
        world.bus->keeps_events = true;
        if (!world_try(&world, definition, &error))
            fail_msg("%s", error.message);
        for (const char *id = "abcde"; *id != '\0'; id++)
            world_publish(&world, (char[]){*id, '\0'}, "");
        world_wait_for(&world, "1 b");
        world.released = i == 0; /* else a is under way when draining begins */
        pipeline_drain(world.pipeline, world_on_drained, &world);
        world.released = true;
        assert_int_equal(sem_wait(&world.drained), 0);
        assert_int_equal(world_metric(&world, WAITING), 5);
        assert_null(memmem(buffer_data(&world.recorded), world.recorded.size, "3 ", 2));
        assert_null(memmem(buffer_data(&world.recorded), world.recorded.size, "1 e", 3));
        pipeline_free(world.pipeline);
        world.pipeline = NULL;
        world_stop(&world);
        free(definition);
    }
}

static void a_pause_ends_when_the_destination_accepts_something(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world,
                "return pipeline { concurrency = 2, batch = { max_events = 1 }, deliver = function(batch)\n"
                "  record(('%d %s'):format(batch.attempt, ids(batch)))\n"
                "  if ids(batch) == 'b' then hold() elseif batch.attempt == 1 then return "
                "verdict.pause('answered 401') end\n"
                "end, retry = { min_delay = 0.001, max_delay = 3600 } }");
    world_publish(&world, "a", "");
    world_publish(&world, "b", "");
    world_wait_for(&world, "1 a");
    world_wait_for(&world, "1 b");
    while (world_metric(&world, "llm_proxy_pipeline_state{pipeline=\"test\"}") != 2)
        usleep(1000);
    world.released = true;
    world_wait_for(&world, "2 a");
    world_drain(&world);
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 2);
    world_stop(&world);
}

/* The log goes to a file while these run. */
static char *log_of(const char *definition, size_t events)
{
    struct world world = {0};
    FILE *file = tmpfile();
    int real_stderr = dup(STDERR_FILENO);
    assert_non_null(file);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    world_start(&world, definition);
    log_configure(LOG_INFO, LOG_TEXT);
    for (size_t i = 0; i < events; i++)
        world_publish(&world, "some-id", "");
    world_drain(&world);
    world_stop(&world);
    assert_true(dup2(real_stderr, STDERR_FILENO) >= 0);
    close(real_stderr);
    char *text = xcalloc(1, 65536);
    rewind(file);
    size_t size = fread(text, 1, 65535, file);
    assert_true(size > 0);
    fclose(file);
    return text;
}

static void drops_are_logged_once_with_the_setting_that_would_have_helped(void **state)
{
    (void)state;
    char *text = log_of("return pipeline { deliver = function() return verdict.retry { reason = 'busy' } "
                        "end, batch = { max_events = 1 },\n"
                        "  retry = { min_delay = 0.001, max_delay = 0.001, max_age = 0.0001 } }",
                        20);
    const char *line = strstr(text, "event dropped");
    assert_non_null(line);
    assert_null(strstr(line + 1, "event dropped"));
    assert_non_null(strstr(line, "event=some-id"));
    assert_non_null(strstr(line, "setting=retry.max_age"));
    assert_non_null(strstr(line, "error=busy"));
    free(text);
}

static void a_pause_is_said_once_and_so_is_its_end(void **state)
{
    (void)state;
    char *text = log_of("local tries = 0\n"
                        "return pipeline { deliver = function() tries = tries + 1 if tries < 9 then return "
                        "verdict.pause('answered 401') end end }",
                        1);
    const char *line = strstr(text, "error the pipeline is paused");
    assert_non_null(line);
    assert_null(strstr(line + 1, "error the pipeline is paused"));
    assert_non_null(strstr(line, "reason=\"answered 401\""));
    assert_non_null(strstr(line, "delivers again"));
    free(text);
}

static void the_end_of_an_outage_is_said_too(void **state)
{
    (void)state;
    char *text = log_of("local tries = 0\n"
                        "return pipeline { deliver = function() tries = tries + 1 if tries < 3 then return "
                        "verdict.retry { reason = 'busy' } end end,\n"
                        "  batch = { max_events = 1 }, retry = { min_delay = 0.001, max_delay = 0.001 } }",
                        9);
    const char *line = strstr(text, "another try follows");
    assert_non_null(line);
    line = strstr(line, "the pipeline delivers again");
    assert_non_null(line);
    assert_null(strstr(line + 1, "the pipeline delivers again"));
    free(text);
}

/* Deliveries wait for each other here: none could end were there fewer at a time. */
static void as_many_deliveries_run_as_allowed_and_no_more(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world,
                "local running, most = 0, 0\n"
                "return pipeline { concurrency = 3, batch = { max_events = 1 }, deliver = function()\n"
                "  running = running + 1\n"
                "  most = math.max(most, running)\n"
                "  while most < 3 do time.sleep(0) end\n"
                "  for _ = 1, 10 do time.sleep(0) end\n"
                "  running = running - 1\n"
                "  record(tostring(most))\n"
                "end }");
    for (int i = 0; i < 6; i++)
        world_publish(&world, "a", "");
    world_drain(&world);
    world_assert_recorded(&world, "3\n3\n3\n3\n3\n3\n");
    world_stop(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_hold_json_and_tables),
        cmocka_unit_test(batches_end_at_their_number_of_events),
        cmocka_unit_test(batches_end_before_too_many_bytes_and_a_larger_event_goes_alone),
        cmocka_unit_test(a_batch_waits_no_longer_than_max_wait),
        cmocka_unit_test(a_plain_return_and_true_are_ok),
        cmocka_unit_test(a_list_with_holes_names_events_too),
        cmocka_unit_test(while_one_half_is_paused_the_other_gets_no_older),
        cmocka_unit_test(the_events_of_a_batch_that_was_kept_are_gone),
        cmocka_unit_test(what_is_no_success_is_tried_again),
        cmocka_unit_test(a_retry_is_never_earlier_than_after),
        cmocka_unit_test(delays_grow_to_the_longest_are_left_to_chance_and_begin_anew),
        cmocka_unit_test(events_too_old_are_dropped_as_expired),
        cmocka_unit_test(a_destination_that_wants_peace_beyond_max_age_is_not_tried_again),
        cmocka_unit_test(a_pause_makes_nothing_old),
        cmocka_unit_test(rejected_events_are_dropped_and_counted),
        cmocka_unit_test(split_halves_down_to_the_event_at_fault),
        cmocka_unit_test(partial_settles_each_event_by_itself),
        cmocka_unit_test(runaway_code_costs_the_event_at_fault_only),
        cmocka_unit_test(draining_gives_what_waits_another_try),
        cmocka_unit_test(draining_leaves_what_fails_on_a_bus_that_keeps_it),
        cmocka_unit_test(a_pause_ends_when_the_destination_accepts_something),
        cmocka_unit_test(drops_are_logged_once_with_the_setting_that_would_have_helped),
        cmocka_unit_test(a_pause_is_said_once_and_so_is_its_end),
        cmocka_unit_test(the_end_of_an_outage_is_said_too),
        cmocka_unit_test(as_many_deliveries_run_as_allowed_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
