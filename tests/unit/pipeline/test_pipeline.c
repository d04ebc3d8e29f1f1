/*
 * A pipeline's life, and what transforms do to events.
 */
#include "fixture.h"

static void transforms_run_in_order_and_what_they_made_is_delivered(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world,
                "return pipeline { deliver = function(batch) record(batch:json()) end, transforms = {\n"
                "  function(event) return { name = event.id .. '1', body = event.response_body } end,\n"
                "  function(event) event.name = event.name .. '2' return event end } }");
    world_publish(&world, "a", "hello");
    world_drain(&world);
    world_assert_recorded(&world, "[{\"body\":\"hello\",\"name\":\"a12\"}]\n");
    world_stop(&world);
}

/* Without transforms, with one that looks, and as part of a list: the same bytes; one that adds a key adds it at the end. */
static void an_event_that_stays_itself_is_written_in_canonical_form(void **state)
{
    (void)state;
    static const char *const transforms[] = {
        "function(event) return event end",
        "function(event) local _ = event.response_body return { event } end",
        "function(event) event.llm = 1 return event end, function(event) event.llm = nil return event end",
    };
    char *expected = NULL;
    for (size_t i = 0; i <= sizeof transforms / sizeof *transforms; i++) {
        struct world world = {0};
        char *definition = xprintf("return pipeline { deliver = function(batch) record(batch:json_lines()) "
                                   "end, transforms = { %s } }",
                                   i > 0 ? transforms[i - 1] : "");
        world_start(&world, definition);
        world_publish(&world, "a", "answer \xff");
        world_drain(&world);
        if (expected == NULL)
            expected = slice_to_string(buffer_slice(&world.recorded));
        world_assert_recorded(&world, expected);
        world_stop(&world);
        free(definition);
    }
    assert_non_null(strstr(expected, "\"response_body\":\"YW5zd2VyIP8=\""));
    free(expected);
}

static void nil_false_and_empty_tables_are_filtered(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "local answers = { b = {}, c = false, d = { {} } }\n"
                        "return pipeline { deliver = function(batch) record(ids(batch)) end,\n"
                        "  transforms = { function(event) if event.id == 'e' then return event end return "
                        "answers[event.id] end } }");
    for (const char *id = "abcde"; *id != '\0'; id++)
        world_publish(&world, (char[]){*id, '\0'}, "");
    world_drain(&world);
    world_assert_recorded(&world, "e\n");
    assert_int_equal(world_metric(&world, EVENTS("filtered")), 4);
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 1);
    world_stop(&world);
}

static void a_list_is_one_event_delivered_when_all_its_parts_are(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { batch = { max_events = 1 },\n"
                        "  deliver = function(batch)\n"
                        "    record(batch:json())\n"
                        "    if batch.events[1].n == 3 and batch.events[1].of == 'b' then return "
                        "verdict.reject('three') end\n"
                        "  end,\n"
                        "  transforms = { function(event) return { { n = 1, of = event.id }, { n = 2 }, { n "
                        "= 3, of = event.id } } end,\n"
                        "    function(part) if part.n ~= 2 then return part end end } }");
    world_publish(&world, "a", "");
    world_publish(&world, "b", "");
    world_drain(&world);
    world_assert_recorded(&world, "[{\"n\":1,\"of\":\"a\"}]\n[{\"n\":3,\"of\":\"a\"}]\n[{\"n\":1,\"of\":"
                                  "\"b\"}]\n[{\"n\":3,\"of\":\"b\"}]\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 1);
    assert_int_equal(world_metric(&world, DROPPED("rejected")), 1);
    world_stop(&world);
}

/* No part of it is delivered: a redaction that fails lets nothing through. */
static void a_transform_that_fails_drops_the_event(void **state)
{
    (void)state;
    struct world world = {.watchdog_seconds = 0.05};
    world_start(&world,
                "local fail = {\n"
                "  a = function() error('boom') end,\n"
                "  b = function() error(nil) end,\n"
                "  c = function() return 7 end,\n"
                "  d = function() return { {}, 'x' } end,\n"
                "  e = function() while true do local _ = {} end end,\n"
                "  f = function() local t = {} while true do pcall(function() t[#t + 1] = ('x'):rep(1048576) "
                ".. #t end) end end,\n"
                "  h = function() return { { id = 'x' }, nil, { id = 'y' } } end,\n"
                "  i = function() local list = { { id = 'x' } } list[4] = { id = 'y' } return list end,\n"
                "  g = function() local text = ('x'):rep(48 * 1048576) return { text .. '1' } end,\n"
                "}\n"
                "return pipeline { deliver = function(batch) record(ids(batch)) end, transforms = {\n"
                "  function(event) return { event, { id = 'part of ' .. event.id, of = event.id } } end,\n"
                "  function(event) return event.of and fail[event.of] and fail[event.of]() or event end } }");
    for (const char *id = "abcdefghij"; *id != '\0'; id++)
        world_publish(&world, (char[]){*id, '\0'}, "");
    world_drain(&world);
    world_assert_recorded(&world, "j,part of j\n");
    assert_int_equal(world_metric(&world, DROPPED("transform_error")), 9);
    world_stop(&world);
}

static void an_event_that_cannot_be_written_is_dropped_alone(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function(batch) record(ids(batch)) end, batch = { "
                        "max_events = 2, max_wait = 60 },\n"
                        "  transforms = { function(event)\n"
                        "    if event.id == 'b' then event.f = print end\n"
                        "    if event.id == 'c' then local loop = {} loop.loop = loop return loop end\n"
                        "    return event\n"
                        "  end } }");
    for (const char *id = "abcd"; *id != '\0'; id++)
        world_publish(&world, (char[]){*id, '\0'}, "");
    world_drain(&world);
    world_assert_recorded(&world, "a,d\n");
    assert_int_equal(world_metric(&world, DROPPED("rejected")), 2);
    world_stop(&world);
}

static void line_breaks_in_raw_json_do_not_break_lines(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world,
                "local raw = require('llmproxy.json').raw\n"
                "return pipeline { deliver = function(batch) record(batch:json_lines()) end,\n"
                "  transforms = { function() return { body = raw('{\\n\"a\": \"\\\\n\"\\n}') } end } }");
    world_publish(&world, "a", "");
    world_drain(&world);
    world_assert_recorded(&world, "{\"body\":{ \"a\": \"\\n\" }}\n\n");
    world_stop(&world);
}

static void a_slow_destination_leaves_events_in_the_bounded_queue(void **state)
{
    (void)state;
    struct world world = {.buffer_events = 5};
    world_start(&world,
                "return pipeline { concurrency = 1, batch = { max_events = 1 }, deliver = function(batch)\n"
                "  record('blocked')\n  time.sleep(3600)\n"
                "end, transforms = { function(event) if event.id == 'full' then record('full') end return "
                "event end } }");
    world_publish(&world, "a", "");
    world_wait_for(&world, "blocked");
    world_publish(&world, "full", ""); /* the one that is being gathered */
    world_wait_for(&world, "full");
    for (int i = 0; i < 20; i++)
        world_publish(&world, "b", "");
    assert_int_equal(world_metric(&world, "llm_proxy_bus_depth{subscriber=\"test\"}"), 5);
    assert_int_equal(world_metric(&world, WAITING), 7);
    assert_int_equal(world_metric(&world, DROPPED("buffer_full")), 15);
    assert_int_equal(world_metric(&world, EVENTS("dropped")), 15);
    assert_int_equal(world_stop(&world), 7);
}

static void draining_does_not_wait_for_max_wait(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function(batch) record(ids(batch)) end, batch = { "
                        "max_wait = 3600 }, close = function() record('closed') end }");
    world_publish(&world, "a", "");
    world_drain(&world);
    world_assert_recorded(&world, "a\nclosed\n");
    assert_int_equal(world_stop(&world), 0);
}

static void draining_an_idle_pipeline_is_done_at_once(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function() end }");
    world_drain(&world);
    assert_int_equal(world_stop(&world), 0);
}

static void what_is_stopped_is_closed_and_counts_what_it_loses(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function() record('try') return verdict.retry { after = "
                        "3600 } end, batch = { max_events = 2 },\n"
                        "  close = function() time.sleep(0.001) record('closed') end }");
    world_publish(&world, "a", "");
    world_publish(&world, "b", "");
    world_wait_for(&world, "try");
    struct pipeline *pipeline = world.pipeline;
    assert_int_equal(pipeline_free(pipeline), 2);
    world_assert_recorded(&world, "try\nclosed\n");
    world.pipeline = NULL;
    assert_int_equal(world_metric(&world, DROPPED("shutdown")), 2);
    world_assert_invariant(&world);
    world_stop(&world);
}

static void a_dispatcher_that_does_not_close_stops_nobody(void **state)
{
    (void)state;
    static const char *const closes[] = {"error('no')", "time.sleep(3600)", "while true do local _ = {} end"};
    for (size_t i = 0; i < sizeof closes / sizeof *closes; i++) {
        struct world world = {.watchdog_seconds = 0.05};
        char *definition =
            xprintf("return pipeline { deliver = function() end, close = function() %s end }", closes[i]);
        world_start(&world, definition);
        world_stop(&world);
        free(definition);
    }
}

static void a_definition_that_cannot_be_loaded_starts_nothing(void **state)
{
    (void)state;
    struct world world = {0};
    struct error error;
    world_setup(&world);
    assert_false(world_try(&world, "error('no such thing', 0)", &error));
    assert_string_equal(error.message, "no such thing");
    assert_null(world.pipeline);
    world_publish(&world, "a", ""); /* nobody subscribed */
    assert_int_equal(world_metric(&world, RECEIVED), 0);
    world_stop(&world);
}

static void a_second_pipeline_of_the_name_goes_on_counting(void **state)
{
    (void)state;
    struct world world = {.buffer_events = 1};
    struct error error;
    const char *definition =
        "return pipeline { batch = { max_events = 1 },\n"
        "  transforms = { function(event) record('took ' .. event.id) return event end },\n"
        "  deliver = function(batch) record('tried ' .. ids(batch)) time.sleep(3600) end }";
    world_start(&world, definition);
    world_publish(&world, "a", "");
    world_wait_for(&world, "tried a");
    world_publish(&world, "b", "");
    world_wait_for(&world, "took b");
    for (int i = 0; i < 3; i++)
        world_publish(&world, "c", ""); /* one in the queue, two too many */
    world_assert_invariant(&world);
    assert_int_equal(pipeline_free(world.pipeline), 3);
    assert_true(world_try(&world, definition, &error));
    world_publish(&world, "d", "");
    world_wait_for(&world, "tried d");
    assert_int_equal(world_metric(&world, RECEIVED), 6);
    assert_int_equal(world_metric(&world, EVENTS("dropped")), 5);
    assert_int_equal(world_stop(&world), 1);
}

struct publisher {
    struct world *world;
    pthread_t thread;
};

static void *publish_many(void *argument)
{
    struct publisher *publisher = argument;
    for (int i = 0; i < 500; i++)
        world_publish(publisher->world, "a", "some body");
    return NULL;
}

/* Every event has one outcome, whoever publishes and however it fails. */
static void nothing_is_lost_between_threads(void **state)
{
    (void)state;
    struct world world = {.buffer_events = 200};
    struct publisher publishers[3];
    world_start(&world, "return pipeline { concurrency = 3, batch = { max_events = 7 },\n"
                        "  transforms = { function(event) local n = math.random() if n < 0.1 then error('x') "
                        "elseif n > 0.2 then return event end end },\n"
                        "  deliver = function(batch)\n"
                        "    time.sleep(0)\n"
                        "    local n = math.random()\n"
                        "    if n < 0.1 then error('x') elseif n < 0.2 then return verdict.split() elseif n "
                        "< 0.3 then return verdict.retry()\n"
                        "    elseif n < 0.4 then return verdict.partial { retry = { 1 }, reject = { "
                        "[#batch.events] = 'last' } } end\n"
                        "  end }");
    for (size_t i = 0; i < 3; i++) {
        publishers[i].world = &world;
        assert_int_equal(pthread_create(&publishers[i].thread, NULL, publish_many, &publishers[i]), 0);
    }
    for (size_t i = 0; i < 3; i++)
        pthread_join(publishers[i].thread, NULL);
    world_drain(&world);
    assert_int_equal(world_metric(&world, RECEIVED), 1500);
    assert_int_equal(world_metric(&world, WAITING), 0);
    assert_true(world_metric(&world, EVENTS("delivered")) > 0);
    assert_int_equal(world_stop(&world), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transforms_run_in_order_and_what_they_made_is_delivered),
        cmocka_unit_test(an_event_that_stays_itself_is_written_in_canonical_form),
        cmocka_unit_test(nil_false_and_empty_tables_are_filtered),
        cmocka_unit_test(a_list_is_one_event_delivered_when_all_its_parts_are),
        cmocka_unit_test(a_transform_that_fails_drops_the_event),
        cmocka_unit_test(an_event_that_cannot_be_written_is_dropped_alone),
        cmocka_unit_test(line_breaks_in_raw_json_do_not_break_lines),
        cmocka_unit_test(a_slow_destination_leaves_events_in_the_bounded_queue),
        cmocka_unit_test(draining_does_not_wait_for_max_wait),
        cmocka_unit_test(draining_an_idle_pipeline_is_done_at_once),
        cmocka_unit_test(what_is_stopped_is_closed_and_counts_what_it_loses),
        cmocka_unit_test(a_dispatcher_that_does_not_close_stops_nobody),
        cmocka_unit_test(a_definition_that_cannot_be_loaded_starts_nothing),
        cmocka_unit_test(a_second_pipeline_of_the_name_goes_on_counting),
        cmocka_unit_test(nothing_is_lost_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
