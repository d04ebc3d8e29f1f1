/*
 * The whole disk bus against plain arrays that say what each event has gone through, under random interleavings of publishing, fetching, acknowledging in any order, failures of the disk, ends and crashes.
 *
 * An event's number is its sequence less one. A crash is a copy of the folder as it is at that moment, on which another bus begins. LLM_PROXY_LONG_TESTS=1 runs it longer.
 */
#include "disk_bus_test.h"

enum { EVENTS = 4000, ROUNDS = 400, LONGEST_BATCH = 30, HELD = 200 };

struct model {
    atomic_bool stored[EVENTS]; /* done(true) */
    bool acknowledged[EVENTS];
    bool given[EVENTS]; /* since the bus was opened */
    uint64_t published;
    struct held {
        uint64_t number, sequence;
    } held[HELD]; /* fetched and not acknowledged */
    size_t held_count;
    uint64_t last_number; /* fetched since the bus was opened */
    bool any;
    uint64_t kept; /* the cursor when the bus was opened */
    struct subscriber *subscriber;
};

static struct model model;
static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

static void note_stored(void *argument, bool stored)
{
    if (stored)
        atomic_store((atomic_bool *)argument, true);
}

static void publish_some(void)
{
    for (uint64_t count = 1 + random_below(LONGEST_BATCH); count > 0 && model.published < EVENTS; count--) {
        uint64_t number = model.published++;
        struct event_record *event = event_with(number, random_below(4) == 0 ? random_below(20000) : 10);
        bus_publish(bus, event, note_stored, &model.stored[number]);
        event_record_release(event);
    }
}

static void fetch_some(void)
{
    struct bus_entry entries[LONGEST_BATCH];
    size_t max = 1 + random_below(LONGEST_BATCH);
    if (max > HELD - model.held_count)
        max = HELD - model.held_count;
    size_t count = max > 0 ? bus_fetch(model.subscriber, entries, max, 1 + random_below(100000)) : 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t number = number_of(entries[i].event);
        assert_true(number < model.published && number >= model.kept);
        assert_int_equal(entries[i].sequence, number + 1);
        if (model.any)
            assert_int_equal(number, model.last_number + 1); /* none is left out */
        assert_false(model.given[number]);
        model.any = true;
        model.last_number = number;
        model.given[number] = true;
        model.held[model.held_count++] = (struct held){.number = number, .sequence = entries[i].sequence};
        event_record_release(entries[i].event);
    }
}

static void acknowledge_some(size_t count)
{
    for (; count > 0 && model.held_count > 0; count--) {
        size_t at = random_below(4) == 0 ? random_below(model.held_count) : 0;
        bus_acknowledge(model.subscriber, model.held[at].sequence);
        model.acknowledged[model.held[at].number] = true;
        memmove(&model.held[at], &model.held[at + 1], (--model.held_count - at) * sizeof model.held[0]);
    }
}

static void copy_file(const char *from, const char *to)
{
    static char bytes[1 << 16];
    int in = open(from, O_RDONLY);
    if (in < 0) {
        assert_int_equal(errno, ENOENT); /* removed meanwhile */
        return;
    }
    int out = open(to, O_WRONLY | O_CREAT, 0600);
    assert_true(out >= 0);
    ssize_t got;
    while ((got = read(in, bytes, sizeof bytes)) > 0)
        assert_int_equal(write(out, bytes, (size_t)got), got);
    close(in);
    close(out);
}

/* The newest segment first: that one grows and may have a successor soon, but those before it are whole. */
static void copy_files(const char *from, const char *to)
{
    assert_int_equal(mkdir(to, 0700), 0);
    struct dirent **names;
    int count = scandir(from, &names, NULL, alphasort);
    assert_true(count >= 0);
    while (count-- > 0) {
        const char *name = names[count]->d_name;
        size_t size = strlen(name);
        if ((size > 4 && strcmp(name + size - 4, ".log") == 0) || strstr(name, ".cursor") != NULL) {
            char *source = xprintf("%s/%s", from, name), *copy = xprintf("%s/%s", to, name);
            copy_file(source, copy);
            free(source);
            free(copy);
        }
        free(names[count]);
    }
    free(names);
}

/* Cursors first: what they say must be true of the log that is copied later, too. */
static void copy_bus(const char *to)
{
    char *cursors = xprintf("%s/cursors", bus_folder), *copies = xprintf("%s-cursors", to);
    copy_files(cursors, copies);
    pthread_mutex_lock(&disk_moves);
    copy_files(bus_folder, to);
    pthread_mutex_unlock(&disk_moves);
    char *place = xprintf("%s/cursors", to);
    assert_int_equal(rename(copies, place), 0);
    free(cursors);
    free(copies);
    free(place);
}

static uint64_t count_missing(const bool *must_come)
{
    uint64_t count = 0;
    for (uint64_t number = 0; number < model.published; number++)
        count += must_come[number] && !model.given[number];
    return count;
}

/* All of these must come. */
static void begin_again(const bool *must_come)
{
    failing_syncs = 0;
    open_bus();
    model.subscriber = subscribe("model");
    model.kept = cursor_on_disk("model")
                     .cursor.sequence; /* moved on where segments went after the copy of the cursor */
    for (uint64_t number = 0; number < model.kept; number++)
        assert_true(model.acknowledged[number]);
    uint64_t there = model.kept + bus_depth(model.subscriber);
    for (uint64_t number = 0; number < EVENTS; number++) {
        assert_true(!must_come[number] || number < there);
        atomic_store(&model.stored[number], number < there);
        model.acknowledged[number] = number < model.kept; /* others come again */
    }
    model.published = there; /* what a crash has lost is published once more */
    memset(model.given, 0, sizeof model.given);
    model.held_count = 0;
    model.any = false;
    while (count_missing(must_come) > 0) {
        if (model.held_count + LONGEST_BATCH > HELD)
            acknowledge_some(HELD / 2);
        fetch_some();
    }
}

static void crash_or_end(bool crash, int round)
{
    static bool must_come[EVENTS];
    for (uint64_t number = 0; number < EVENTS; number++)
        must_come[number] = (crash ? atomic_load(&model.stored[number]) : number < model.published) &&
                            !model.acknowledged[number];
    char *copy = xprintf("%s/copy-%d", test_folder, round);
    if (crash)
        copy_bus(copy);
    bus_unsubscribe(model.subscriber);
    bus_free(bus);
    if (crash) {
        remove_folder(bus_folder);
        assert_int_equal(rename(copy, bus_folder), 0);
    }
    free(copy);
    begin_again(must_come);
}

/* The cursor on disk comes to be what a naive list says. */
static void assert_cursor_catches_up(void)
{
    uint64_t lowest = 0;
    while (lowest < model.published && model.acknowledged[lowest])
        lowest++;
    WAIT_FOR(cursor_on_disk("model").cursor.sequence == lowest);
}

static void run(uint64_t seed)
{
    memset(&model, 0, sizeof model);
    random_state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    open_bus();
    model.subscriber = subscribe("model");
    int syncs_before_failure = 0;
    for (int round = 0; round < ROUNDS; round++) {
        switch (random_below(40)) {
        case 0:
            crash_or_end(true, round);
            break;
        case 1:
            crash_or_end(false, round);
            break;
        case 2:
            if (syncs_of_segments > syncs_before_failure) { /* never three in a row */
                syncs_before_failure = syncs_of_segments;
                failing_syncs = 1;
            }
            break;
        case 3:
            if (random_below(4) == 0)
                assert_cursor_catches_up();
            break;
        default:
            if (random_below(3) == 0)
                publish_some();
            fetch_some();
            acknowledge_some(random_below(LONGEST_BATCH));
        }
    }
    while (model.published < EVENTS)
        publish_some();
    do {
        fetch_some();
        acknowledge_some(HELD);
    } while (model.last_number + 1 < EVENTS || model.held_count > 0);
    assert_cursor_catches_up();
    assert_int_equal(count_of("dropped", "model"), 0);
    assert_int_equal(bus_depth(model.subscriber), 0);
    bus_unsubscribe(model.subscriber);
    bus_free(bus);
    bus = NULL;
    remove_folder(bus_folder);
}

static void nothing_unacknowledged_is_missing_and_nothing_finished_comes_again(void **state)
{
    (void)state;
    bus_settings.commit_interval_ns = NANOSECONDS_PER_MILLISECOND;
    bus_settings.max_bytes = 16 << 20; /* some segments */
    uint64_t runs = getenv("LLM_PROXY_LONG_TESTS") != NULL ? 50 : 4;
    for (uint64_t seed = 1; seed <= runs; seed++)
        run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(nothing_unacknowledged_is_missing_and_nothing_finished_comes_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
