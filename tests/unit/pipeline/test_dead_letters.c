/*
 * What cannot be delivered goes to the dead letters, as it entered the pipeline, and is acknowledged when it is durable there; who asks hears what became of each event.
 */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "fixture.h"
#include "spool/dead_letters.h"

#define LETTERS        EVENTS("dead_lettered")
#define STATE          "llm_proxy_pipeline_state{pipeline=\"test\"}"
#define IN_PIPELINE(x) x "{pipeline=\"test\"}"

static char root[64];
static struct world *syncing; /* set: each sync is recorded in it */
static atomic_bool syncs_fail, syncs_are_slow;

/* In the place of the C library's. */
int fdatasync(int fd)
{
    if (syncing != NULL)
        world_note(syncing, SLICE("sync"));
    if (syncs_are_slow)
        usleep(500000);
    if (syncs_fail) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static void start(struct world *world, const char *definition)
{
    struct error error;
    world_setup(world);
    snprintf(root, sizeof root, "/tmp/letters-XXXXXX");
    assert_non_null(mkdtemp(root));
    const struct dead_letters_settings settings = {
        .folder = root, .pipeline = "test", .max_bytes = 1 << 20, .max_age_ns = UINT64_C(86400000000000)};
    world->dead_letters = dead_letters_open(&settings, &error);
    assert_non_null(world->dead_letters);
    if (!world_try(world, definition, &error))
        fail_msg("%s", error.message);
}

static void stop(struct world *world)
{
    struct dead_letters *letters = world->dead_letters;
    world_stop(world);
    dead_letters_close(letters);
    char *command = xprintf("rm -rf '%s'", root);
    assert_int_equal(system(command), 0);
    free(command);
}

/* One line for each letter: id reason where tries error. */
static char *read_letters(void)
{
    struct error error;
    struct dead_letter letter;
    struct buffer lines = {0};
    struct dead_letters_reader *reader = dead_letters_reader_new(root, "test", &error);
    assert_non_null(reader);
    while (dead_letters_read(reader, &letter, NULL, &error)) {
        assert_true(letter.first_us > UINT64_C(1700000000000000) && letter.last_us >= letter.first_us);
        const struct event_fields *fields = event_get(letter.event);
        buffer_printf(&lines, "%.*s %.*s %.*s %u %.*s\n", SLICE_ARGUMENTS(fields->id),
                      SLICE_ARGUMENTS(letter.reason), SLICE_ARGUMENTS(letter.where), letter.tries,
                      SLICE_ARGUMENTS(letter.error));
        assert_true(slice_equal(fields->path, SLICE("/")));
        assert_int_equal(event_response_body(letter.event)->size, 8);
    }
    dead_letters_reader_free(reader);
    return buffer_take_string(&lines);
}

static void assert_letters(const char *expected)
{
    char *text = read_letters();
    assert_string_equal(text, expected);
    free(text);
}

static void publish(struct world *world, const char *ids)
{
    for (; *ids != '\0'; ids++)
        world_publish(world, (char[]){*ids, '\0'}, "original");
}

#define CHANGED                                                                                              \
    "transforms = { function(event) event.path = 'changed' event.response_body = '' return event end }"

struct failing {
    const char *pipeline, *letters;
    int64_t delivered;
};

/* Of the events a, b and c, in one batch, b cannot be delivered. */
static void what_cannot_be_delivered_is_kept_as_it_entered(void **state)
{
    (void)state;
    static const struct failing all[] = {
        {"batch = { max_events = 3, max_wait = 60 }, " CHANGED
         ", deliver = function(batch) return verdict.partial { reject = { [2] = 'no such field' } } end",
         "b rejected recorder 1 no such field\n", 2},
        {"batch = { max_events = 3, max_wait = 60 }, " CHANGED
         ", deliver = function(batch) if ids(batch):find 'b' then return verdict.split('answered 400') end "
         "end",
         "b rejected recorder 3 answered 400\n", 2},
        {"batch = { max_events = 1 }, " CHANGED ", deliver = function(batch)\n"
         "if ids(batch) == 'b' then return batch.attempt < 3 and verdict.retry() or verdict.reject('never') "
         "end end",
         "b rejected recorder 3 never\n", 2},
        {"batch = { max_events = 1 }, deliver = function(batch) if ids(batch) == 'b' then\n"
         "return verdict.retry { reason = 'busy', after = batch.attempt < 2 and 0 or 3600 } end end,\n"
         "retry = { min_delay = 0.001, max_delay = 0.002, max_age = 1800 }, " CHANGED,
         "b expired recorder 2 busy\n", 2},
        {"deliver = function() end, transforms = { function(event) event.path = '' return event end, "
         "function(event)\n"
         "if event.id == 'b' then error('no key', 0) end return event end }",
         "b transform_error number 2 0 no key\n", 2},
        {"deliver = function() end, transforms = { function(event) if event.id == 'b' then event.llm = print "
         "end return event end }",
         "b rejected number 1 0 llm: cannot be written as JSON: a function\n", 2},
        {"deliver = function(batch) return verdict.reject('no') end, batch = { max_events = 3, max_wait = 60 "
         "}",
         "a rejected recorder 1 no\nb rejected recorder 1 no\nc rejected recorder 1 no\n", 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct world world = {0};
        char *definition = xprintf("return pipeline { %s }", all[i].pipeline);
        start(&world, definition);
        publish(&world, "abc");
        world_drain(&world);
        assert_letters(all[i].letters);
        assert_int_equal(world_metric(&world, LETTERS), 3 - all[i].delivered);
        assert_int_equal(world_metric(&world, EVENTS("delivered")), all[i].delivered);
        assert_int_equal(world_metric(&world, EVENTS("dropped")), 0);
        stop(&world);
        free(definition);
    }
}

static void runaway_code_costs_the_event_at_fault_only(void **state)
{
    (void)state;
    static const char *const all[][2] = {
        {"deliver = function(batch) while ids(batch):find 'b' do pcall(ids, batch) end end, batch = { "
         "max_events "
         "= 3, max_wait = 60 }",
         "b rejected recorder 3 "},
        {"deliver = function() end, transforms = { function(event) while event.id == 'b' do pcall(error) end "
         "return event end }",
         "b transform_error number 1 0 "},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct world world = {.watchdog_seconds = 0.2};
        char *definition = xprintf("return pipeline { %s }", all[i][0]);
        start(&world, definition);
        publish(&world, "abc");
        world_drain(&world);
        char *letters = read_letters();
        assert_true(slice_starts_with(slice_of(letters), slice_of(all[i][1])));
        assert_non_null(strstr(letters, "stopped: ran for more than 0.2 s"));
        free(letters);
        assert_int_equal(world_metric(&world, LETTERS), 1);
        assert_int_equal(world_metric(&world, EVENTS("delivered")), 2);
        stop(&world);
        free(definition);
    }
}

static void an_event_of_which_one_part_fails_is_kept_once_and_whole(void **state)
{
    (void)state;
    struct world world = {0};
    start(&world, "return pipeline { batch = { max_events = 1 },\n"
                  "transforms = { function(event) return { { id = '1' }, { id = '2' }, { id = '3' }, { id = "
                  "'4' } } end },\n"
                  "deliver = function(batch) if ids(batch) == '2' or ids(batch) == '3' then return "
                  "verdict.reject('not ' .. ids(batch)) end record(ids(batch)) end }");
    publish(&world, "a");
    world_drain(&world);
    world_assert_recorded(&world, "1\n4\n");
    assert_letters("a rejected recorder 1 not 2\n");
    assert_int_equal(world_metric(&world, LETTERS), 1);
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 0);
    stop(&world);
}

static void end_predecessor(struct world *world)
{
    assert_int_equal(sem_wait(&world->drained), 0);
    assert_int_equal(pipeline_free(world->predecessor), 0);
    world->predecessor = NULL;
}

static void succeed(struct world *world, const char *definition)
{
    struct error error;
    world->predecessor = world->pipeline;
    if (!world_try(world, definition, &error))
        fail_msg("%s", error.message);
    assert_true(pipeline_succeed(world->pipeline, world->predecessor, world_on_drained, world));
    end_predecessor(world);
}

static void a_successor_keeps_what_its_predecessor_took(void **state)
{
    (void)state;
    struct world world = {0};
    start(&world, "return pipeline { " CHANGED ", retry = { min_delay = 3600, max_delay = 3600 }, deliver = "
                  "function() record('tried') return false end }");
    publish(&world, "a");
    world_wait_for(&world, "tried");
    succeed(&world,
            "return pipeline { " CHANGED ", retry = { min_delay = 3600, max_delay = 3600 }, deliver = "
            "function() record('again') return false end }");
    world_wait_for(&world, "again");
    succeed(&world, "return pipeline { deliver = function() return verdict.reject('no') end }");
    world_drain(&world);
    assert_letters("a rejected recorder 1 no\n");
    assert_int_equal(world_metric(&world, LETTERS), 1);
    stop(&world);
}

static void what_failed_of_an_event_is_known_to_the_successor(void **state)
{
    (void)state;
    struct world world = {0};
    start(&world,
          "return pipeline { retry = { min_delay = 3600, max_delay = 3600 },\n"
          "transforms = { function() return { { id = '1' }, { id = '2' } } end }, deliver = function()\n"
          "record('tried') return verdict.partial { retry = { 2 }, reject = { 'no' } } end }");
    publish(&world, "a");
    world_wait_for(&world, "tried");
    succeed(&world, "return pipeline { deliver = function(batch) record(ids(batch)) end }");
    world_drain(&world);
    world_assert_recorded(&world, "tried\n2\n");
    assert_letters("a rejected recorder 1 no\n");
    assert_int_equal(world_metric(&world, LETTERS), 1);
    stop(&world);
}

static void note_settled(void *argument, struct slice event_id, uint64_t sequence, const char *result,
                         const char *reason, const char *error)
{
    char *line = xprintf("%.*s %llu %s %s %s", SLICE_ARGUMENTS(event_id), (unsigned long long)sequence,
                         result, reason != NULL ? reason : "-", error != NULL ? error : "-");
    world_note(argument, slice_of(line));
    free(line);
}

#define ONE_OF_EACH                                                                                          \
    "return pipeline { batch = { max_events = 1 }, transforms = { function(event)\n"                         \
    "if event.id == 'b' then return nil end if event.id == 'c' then error('no', 0) end return event end "    \
    "},\n"                                                                                                   \
    "deliver = function(batch) if ids(batch) == 'd' then return verdict.reject('bad') end end }"

static void who_asks_hears_what_became_of_each_event(void **state)
{
    (void)state;
    struct world world = {.settled = note_settled};
    world_start(&world, ONE_OF_EACH);
    publish(&world, "abcd");
    world_drain(&world);
    world_wait_for(&world, "a 1 delivered - -\n");
    world_wait_for(&world, "b 2 filtered - -\n");
    world_wait_for(&world, "c 3 dropped transform_error no\n");
    world_wait_for(&world, "d 4 dropped rejected bad\n");
    world_stop(&world);
}

static void a_letter_is_durable_before_its_event_is_settled(void **state)
{
    (void)state;
    struct world world = {.settled = note_settled};
    start(&world, "return pipeline { deliver = function() return verdict.reject('bad') end }");
    syncing = &world;
    publish(&world, "a");
    world_drain(&world);
    syncing = NULL;
    world_assert_recorded(&world, "sync\na 1 dead_lettered rejected bad\n");
    stop(&world);
}

static void what_cannot_be_made_durable_is_dropped_with_its_reason(void **state)
{
    (void)state;
    struct world world = {.settled = note_settled};
    start(&world, "return pipeline { batch = { max_events = 1 }, deliver = function() return "
                  "verdict.reject('bad') end }");
    syncs_fail = true;
    publish(&world, "a");
    world_wait_for(&world, "a 1 dropped rejected bad\n");
    syncs_fail = false;
    publish(&world, "b");
    world_drain(&world);
    world_assert_recorded(&world, "a 1 dropped rejected bad\nb 2 dead_lettered rejected bad\n");
    assert_letters("b rejected recorder 1 bad\n");
    assert_int_equal(world_metric(&world, DROPPED("rejected")), 1);
    assert_int_equal(world_metric(&world, LETTERS), 1);
    stop(&world);
}

/* No file may grow: as on a disk that fails. */
static void what_cannot_be_written_is_dropped_with_its_reason(void **state)
{
    (void)state;
    struct world world = {.settled = note_settled};
    struct rlimit before, none;
    start(&world, "return pipeline { batch = { max_events = 1 }, transforms = { function() error('no', 0) "
                  "end }, deliver = function() end }");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    publish(&world, "a");
    world_wait_for(&world, "a 1 dropped transform_error no\n");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    publish(&world, "b");
    world_drain(&world);
    world_wait_for(&world, "b 2 dead_lettered transform_error no\n");
    assert_letters("b transform_error number 1 0 no\n");
    assert_int_equal(world_metric(&world, DROPPED("transform_error")), 1);
    stop(&world);
}

/* Each letter fills a segment, and the one before is synced. */
static void a_slow_disk_is_no_runaway_code(void **state)
{
    (void)state;
    struct world world = {.watchdog_seconds = 0.2};
    char *large = xcalloc(1, 60001);
    memset(large, 'x', 60000);
    start(&world, "return pipeline { batch = { max_events = 3, max_wait = 60 }, deliver = function(batch)\n"
                  "record(ids(batch)) if batch.events[3] then return verdict.partial { reject = { 'no', 'no' "
                  "} } end end }");
    syncs_are_slow = true;
    for (const char *id = "abc"; *id != '\0'; id++)
        world_publish(&world, (char[]){*id, '\0'}, large);
    world_drain(&world);
    syncs_are_slow = false;
    world_assert_recorded(&world, "a,b,c\n");
    assert_int_equal(world_metric(&world, EVENTS("delivered")), 1);
    assert_int_equal(world_metric(&world, LETTERS), 2);
    free(large);
    stop(&world);
}

static void a_dry_run_gives_the_dispatcher_nothing(void **state)
{
    (void)state;
    struct world world = {.no_delivery = true, .settled = note_settled};
    world_start(&world, "return pipeline { deliver = function() record('delivered') end, close = function() "
                        "record('closed') end }");
    publish(&world, "a");
    world_drain(&world);
    world_assert_recorded(&world, "a 1 delivered - -\nclosed\n");
    world_stop(&world);
}

/* Each answer to the first try; the second one is accepted. */
static void the_state_of_a_pipeline_can_be_seen(void **state)
{
    (void)state;
    static const char *const answers[] = {"verdict.retry { after = 0.001 }", "verdict.pause('answered 401')"};
    for (int i = 0; i < 2; i++) {
        struct world world = {0};
        char *definition =
            xprintf("local tries = 0\n"
                    "return pipeline { deliver = function(batch) tries = tries + 1 record('try ' .. tries)\n"
                    "if tries == 1 then return %s end if tries == 2 then hold() end end }",
                    answers[i]);
        start(&world, definition);
        assert_int_equal(world_metric(&world, STATE), 0);
        assert_int_equal(world_metric(&world, IN_PIPELINE("llm_proxy_oldest_waiting_seconds")), 0);
        publish(&world, "a");
        world_wait_for(&world, "try 2");
        assert_int_equal(world_metric(&world, STATE), i + 1);
        /* Its time is in the first days of 2026. */
        assert_true(world_metric(&world, IN_PIPELINE("llm_proxy_oldest_waiting_seconds")) > 0);
        world.released = true;
        world_drain(&world);
        assert_int_equal(world_metric(&world, STATE), 0);
        assert_int_equal(world_metric(&world, IN_PIPELINE("llm_proxy_oldest_waiting_seconds")), 0);
        assert_int_equal(world_metric(&world, IN_PIPELINE("llm_proxy_delivery_age_seconds_count")), 1);
        assert_int_equal(world_metric(&world, IN_PIPELINE("llm_proxy_batch_events_sum")), 2);
        assert_int_equal(world_metric(&world, IN_PIPELINE("llm_proxy_batch_bytes_count")), 2);
        stop(&world);
        free(definition);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_delivered_is_kept_as_it_entered),
        cmocka_unit_test(runaway_code_costs_the_event_at_fault_only),
        cmocka_unit_test(an_event_of_which_one_part_fails_is_kept_once_and_whole),
        cmocka_unit_test(a_successor_keeps_what_its_predecessor_took),
        cmocka_unit_test(what_failed_of_an_event_is_known_to_the_successor),
        cmocka_unit_test(who_asks_hears_what_became_of_each_event),
        cmocka_unit_test(a_letter_is_durable_before_its_event_is_settled),
        cmocka_unit_test(what_cannot_be_made_durable_is_dropped_with_its_reason),
        cmocka_unit_test(what_cannot_be_written_is_dropped_with_its_reason),
        cmocka_unit_test(a_slow_disk_is_no_runaway_code),
        cmocka_unit_test(a_dry_run_gives_the_dispatcher_nothing),
        cmocka_unit_test(the_state_of_a_pipeline_can_be_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
