/*
 * One pipeline takes the place of another of its name: nothing is lost, nothing is delivered twice, nobody waits for a destination that is down.
 */
#include "fixture.h"

/* In the place of the present pipeline, which becomes world.predecessor. */
static void succeed(struct world *world, const char *definition)
{
    struct error error;
    world->predecessor = world->pipeline;
    if (!world_try(world, definition, &error))
        fail_msg("%s", error.message);
}

static void end_predecessor(struct world *world)
{
    assert_int_equal(sem_wait(&world->drained), 0);
    world_assert_invariant(world);
    assert_int_equal(pipeline_free(world->predecessor), 0);
    world->predecessor = NULL;
}

static void what_is_queued_and_what_comes_is_the_successors(void **state)
{
    (void)state;
    struct world world = {.buffer_events = 3};
    world_start(
        &world,
        "return pipeline { batch = { max_events = 1 }, transforms = { function(event) record('took ' .. "
        "event.id) return event end },\n"
        "  deliver = function(batch) record('old ' .. ids(batch)) hold() record('done') end, "
        "close = function() record('closed') end }");
    world_publish(&world, "a", "");
    world_wait_for(&world, "old a");
    world_publish(&world, "b", "");
    world_wait_for(&world, "took b");
    world_publish(&world, "c", "");
    world.buffer_events = 10;
    succeed(&world,
            "return pipeline { transforms = { function(event) event.id = event.id .. '2' return event "
            "end }, deliver = function(batch) record('new ' .. ids(batch)) end }");
    assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
    for (const char *id = "defg"; *id != '\0'; id++)
        world_publish(&world, (char[]){*id, '\0'}, "");
    world_assert_invariant(&world);
    assert_int_equal(world_metric(&world, "llm_proxy_bus_depth{subscriber=\"test\"}"), 5);
    world.released = true;
    end_predecessor(&world);
    world_drain(&world);
    /* b was transformed already. */
    world_assert_recorded(&world, "took a\nold a\ntook b\ndone\nclosed\nnew b,c2,d2,e2,f2,g2\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 7);
    assert_int_equal(world_metric(&world, EVENTS("dropped")), 0);
    world_stop(&world);
}

static void what_waits_for_another_try_goes_to_the_successor_at_once(void **state)
{
    (void)state;
    static const char *const verdicts[] = {"verdict.retry { after = 3600 }", "verdict.pause('no')",
                                           "verdict.partial { retry = { 1, 2, 3 } }"};
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++) {
        struct world world = {0};
        char *definition =
            xprintf("return pipeline { concurrency = 2, batch = { max_events = 3 }, retry = { min_delay = "
                    "3600, max_delay = 3600 },\n"
                    "  deliver = function() record('tried') return %s end }",
                    verdicts[i]);
        world_start(&world, definition);
        free(definition);
        for (const char *id = "abc"; *id != '\0'; id++)
            world_publish(&world, (char[]){*id, '\0'}, *id == 'c' ? "answer \xff" : "");
        world_wait_for(&world, "tried");
        succeed(&world, "return pipeline { deliver = function(batch)\n"
                        "  local c = batch.events[3]\n"
                        "  record(ids(batch) .. ' ' .. batch.attempt .. ' ' .. c.response_body .. ' ' .. "
                        "tostring(c.query) .. ' ' .. #batch:json_lines())\n"
                        "end }");
        assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
        end_predecessor(&world);
        world_drain(&world);
        world_wait_for(&world, "tried\na,b,c 1 YW5zd2VyIP8= nil ");
        assert_int_equal(world_metric(&world, EVENTS("delivered")), 3);
        world_stop(&world);
    }
}

static void lines_reach_the_successor_byte_for_byte(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { retry = { min_delay = 3600, max_delay = 3600 }, deliver = "
                        "function(batch) record(batch:json_lines()) return false end }");
    world_publish(&world, "a", "answer \xff");
    world_wait_for(&world, "\n\n");
    char *once = slice_to_string(buffer_slice(&world.recorded)), *expected = xprintf("%s%s", once, once);
    succeed(&world, "return pipeline { deliver = function(batch) local _ = batch.events "
                    "record(batch:json_lines()) end }");
    assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
    end_predecessor(&world);
    world_drain(&world);
    world_assert_recorded(&world, expected);
    free(expected);
    free(once);
    world_stop(&world);
}

/* Part 1 was delivered, part 2 rejected: the event is dropped whatever becomes of part 3. */
static void an_event_of_which_parts_are_settled_keeps_its_outcome(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world,
                "return pipeline { retry = { min_delay = 3600, max_delay = 3600 },\n"
                "  transforms = { function() return { { id = '1' }, { id = '2' }, { id = '3' } } end },\n"
                "  deliver = function() record('tried') return verdict.partial { retry = { 3 }, "
                "reject = { [2] = 'no' } } end }");
    world_publish(&world, "a", "");
    world_wait_for(&world, "tried");
    succeed(&world, "return pipeline { deliver = function(batch) record(ids(batch)) end }");
    assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
    end_predecessor(&world);
    world_drain(&world);
    world_assert_recorded(&world, "tried\n3\n");
    assert_int_equal(world_metric(&world, DROPPED("rejected")), 1);
    world_stop(&world);
}

/* Its deliveries do not end: stopped, they are tried again, for nobody knows what became of them. */
static void a_predecessor_that_hangs_can_be_freed(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { concurrency = 2, batch = { max_events = 1 },\n"
                        "  transforms = { function(event) record('took ' .. event.id) return event.id == 'c' "
                        "and { event, { id = 'd' } } or event end },\n"
                        "  deliver = function(batch) time.sleep(3600) end }");
    for (const char *id = "abc"; *id != '\0'; id++)
        world_publish(&world, (char[]){*id, '\0'}, "");
    world_wait_for(&world, "took c");
    /* Whether c is left as it came or as its parts depends on how far it was: both come to the same here. */
    succeed(
        &world,
        "return pipeline { batch = { max_events = 4 }, transforms = { function(event) return event.id == 'c' "
        "and { event, { id = 'd' } } or event end }, deliver = function(batch) record(ids(batch)) end }");
    assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
    assert_int_equal(pipeline_free(world.predecessor), 0);
    world_drain(&world);
    world_assert_recorded(&world, "took a\ntook b\ntook c\na,b,c,d\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 3);
    world_stop(&world);
}

static void one_that_has_not_begun_is_replaced_at_once(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function() record('tried') time.sleep(3600) end }");
    world_publish(&world, "a", "");
    world_wait_for(&world, "tried");
    succeed(&world, "return pipeline { deliver = function() record('never') end }");
    assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
    world_publish(&world, "b", "");
    struct pipeline *first = world.predecessor;
    succeed(&world, "return pipeline { deliver = function(batch) record(ids(batch)) end }");
    assert_false(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
    assert_int_equal(pipeline_free(world.predecessor), 0);
    world_assert_invariant(&world);
    assert_int_equal(pipeline_free(first), 0);
    world_drain(&world);
    world_wait_for(&world, "tried\na,b\n");
    world_stop(&world);
}

#define THREE_THAT_FAIL                                                                                      \
    "return pipeline { concurrency = 3, batch = { max_events = 1 }, retry = { min_delay = 3600, max_delay "  \
    "= 3600 },\n"                                                                                            \
    "  deliver = function(batch) record('tried ' .. ids(batch)) return false end }"

/* Takes a and b, and leaves c where it is. */
#define ONE_THAT_HOLDS                                                                                       \
    "return pipeline { batch = { max_events = 1 }, deliver = function(batch) record('held ' .. ids(batch)) " \
    "hold() return false end }"

static void start_three(struct world *world)
{
    world_start(world, THREE_THAT_FAIL);
    for (const char *id = "abc"; *id != '\0'; id++) {
        char *tried = xprintf("tried %c", *id);
        world_publish(world, (char[]){*id, '\0'}, "");
        world_wait_for(world, tried);
        free(tried);
    }
}

static void what_is_left_is_left_again_in_order(void **state)
{
    (void)state;
    struct world world = {0};
    start_three(&world);
    succeed(&world, ONE_THAT_HOLDS);
    assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
    end_predecessor(&world);
    world_publish(&world, "d", "");
    world_wait_for(&world, "held a");
    succeed(&world, "return pipeline { deliver = function(batch) record(ids(batch)) end }");
    assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
    world.released = true;
    end_predecessor(&world);
    world_drain(&world);
    world_assert_recorded(&world, "tried a\ntried b\ntried c\nheld a\na,b,c,d\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 4);
    world_stop(&world);
}

static void what_is_left_to_one_that_is_stopped_is_lost_and_counted(void **state)
{
    (void)state;
    struct world world = {0};
    start_three(&world);
    succeed(&world, ONE_THAT_HOLDS);
    assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
    end_predecessor(&world);
    world_wait_for(&world, "held a");
    assert_int_equal(world_stop(&world), 3);
}

/* An end of the process while a successor waits. */
static void a_successor_that_is_drained_before_it_began_delivers_everything(void **state)
{
    (void)state;
    struct world world = {0};
    world_start(&world, "return pipeline { deliver = function() record('tried') hold() return false end }");
    world_publish(&world, "a", "");
    world_wait_for(&world, "tried");
    succeed(&world, "return pipeline { deliver = function(batch) record(ids(batch)) end }");
    assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
    world_publish(&world, "b", "");
    sem_t all;
    sem_init(&all, 0, 0);
    pipeline_drain(world.pipeline, (void (*)(void *))(void (*)(void))sem_post, &all);
    world.released = true;
    end_predecessor(&world);
    assert_int_equal(sem_wait(&all), 0);
    sem_destroy(&all);
    world_assert_recorded(&world, "tried\na,b\n");
    assert_int_equal(world_stop(&world), 0);
}

static void *publish_many(void *argument)
{
    for (int i = 0; i < 2000; i++)
        world_publish(argument, "x", "");
    return NULL;
}

static void generations_that_follow_each_other_under_load_deliver_everything_once(void **state)
{
    (void)state;
    struct world world = {.buffer_events = 100000};
    const char *definition =
        "local failing = true\n"
        "return pipeline { concurrency = 2, batch = { max_events = 7 }, deliver = function(batch)\n"
        "  failing = not failing\n  if failing then return verdict.retry('no') end\n"
        "  time.sleep(0.0001)\n  record(batch:json_lines())\nend }";
    world_start(&world, definition);
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, publish_many, &world), 0);
    for (int i = 0; i < 10; i++) {
        succeed(&world, definition);
        assert_true(pipeline_succeed(world.pipeline, world.predecessor, world_on_drained, &world));
        assert_int_equal(sem_wait(&world.drained), 0);
        assert_int_equal(pipeline_free(world.predecessor), 0);
    }
    world.predecessor = NULL;
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    world_drain(&world);
    size_t delivered = 0;
    struct slice rest = buffer_slice(&world.recorded), line;
    while (rest.size > 0 && slice_split(&rest, '\n', &line))
        delivered += line.size > 0;
    assert_int_equal(delivered, 4000);
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 4000);
    world_stop(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_queued_and_what_comes_is_the_successors),
        cmocka_unit_test(what_waits_for_another_try_goes_to_the_successor_at_once),
        cmocka_unit_test(lines_reach_the_successor_byte_for_byte),
        cmocka_unit_test(an_event_of_which_parts_are_settled_keeps_its_outcome),
        cmocka_unit_test(a_predecessor_that_hangs_can_be_freed),
        cmocka_unit_test(one_that_has_not_begun_is_replaced_at_once),
        cmocka_unit_test(what_is_left_is_left_again_in_order),
        cmocka_unit_test(what_is_left_to_one_that_is_stopped_is_lost_and_counted),
        cmocka_unit_test(a_successor_that_is_drained_before_it_began_delivers_everything),
        cmocka_unit_test(generations_that_follow_each_other_under_load_deliver_everything_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
