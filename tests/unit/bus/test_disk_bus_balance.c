/*
 * What a subscriber was offered is given to it once and in order, dropped and counted, or waits, whatever happens: a disk that fails, hangs or is full, limits of bytes and age, subscribers that come, lag, close and
 * go, and buses that end and begin again, in random interleavings. And done is called once for each event.
 *
 * Nothing on the disk is damaged here, so nothing may be counted as damaged either. LLM_PROXY_LONG_TESTS=1 runs it longer; SEED and RUNS choose.
 */
#include "disk_bus_test.h"

enum { NAMES = 3, STEPS = 1500, HELD = 300, LONGEST_BATCH = 40, LONGEST_BURST = 60, LARGEST_EVENT = 600000 };

struct member {
    char name[16], label[32]; /* counters are its own each time it subscribes */
    struct subscriber *subscriber;
    bool closed;
    int64_t given;
    uint64_t last_number;
    uint64_t held[HELD]; /* sequences that were fetched and not acknowledged */
    size_t held_count;
};

static struct member members[NAMES];
static uint64_t random_state, published;
static unsigned subscriptions;
static atomic_int busy_renames; /* of new segments: that many find no free descriptor */

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    if (take_one(&busy_renames)) {
        errno = EMFILE;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, 0);
}

static uint64_t random_below(uint64_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

static bool one_in(uint64_t count)
{
    return random_below(count) == 0;
}

static void mend_disk(void)
{
    hanging_syncs = disk_is_full = false;
    failing_syncs = failing_writes = busy_renames = 0;
    segments_fit = 0;
}

/* Members ------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static void come(struct member *member)
{
    memset(member, 0, sizeof *member);
    snprintf(member->name, sizeof member->name, "name-%d", (int)(member - members));
    snprintf(member->label, sizeof member->label, "%s-%u", member->name, subscriptions++);
    struct subscriber_settings settings = subscription(member->label);
    settings.name = member->name;
    settings.from_oldest = one_in(2);
    member->subscriber = subscribe_with(&settings);
}

static void fetch_some(struct member *member)
{
    struct bus_entry entries[LONGEST_BATCH];
    size_t max = 1 + random_below(LONGEST_BATCH), room = HELD - member->held_count;
    max = max < room ? max : room;
    size_t count = max > 0 ? bus_fetch(member->subscriber, entries, max, 1 + random_below(400000)) : 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t number = number_of(entries[i].event);
        assert_true(number > member->last_number);
        member->last_number = number;
        member->given++;
        member->held[member->held_count++] = entries[i].sequence;
        event_record_release(entries[i].event);
    }
}

static void acknowledge_some(struct member *member, size_t count)
{
    for (; count > 0 && member->held_count > 0; count--) {
        size_t at = one_in(3) ? random_below(member->held_count) : 0;
        bus_acknowledge(member->subscriber, member->held[at]);
        memmove(&member->held[at], &member->held[at + 1],
                (--member->held_count - at) * sizeof member->held[0]);
    }
}

static void consume(void)
{
    for (struct member *member = members; member < members + NAMES; member++) {
        if (member->subscriber == NULL)
            continue;
        fetch_some(member);
        acknowledge_some(member, HELD);
    }
}

/* The counters are not read at one moment. */
static bool is_balanced(const struct member *member)
{
    int64_t waiting = (int64_t)bus_depth(member->subscriber);
    return count_of("received", member->label) ==
           member->given + count_of("dropped", member->label) + waiting;
}

static void leave(struct member *member, bool close)
{
    if (close && !member->closed) {
        bus_close(member->subscriber);
        fetch_some(member);
    }
    WAIT_FOR(is_balanced(member));
    assert_int_equal(count_of("damaged", member->label), 0);
    bus_unsubscribe(member->subscriber);
    member->subscriber = NULL;
}

static void all_leave(void)
{
    for (struct member *member = members; member < members + NAMES; member++)
        if (member->subscriber != NULL)
            leave(member, one_in(2));
}

/* Steps --------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static void publish_some(void)
{
    for (uint64_t count = 1 + random_below(LONGEST_BURST); count > 0; count--)
        publish_sized(++published, one_in(200) ? random_below(LARGEST_EVENT)
                                   : one_in(3) ? random_below(30000)
                                               : 10);
}

static void begin_again(void)
{
    all_leave();
    mend_disk();
    bus_free(bus);
    assert_int_equal(stored_events + lost_events, published);
    open_bus();
    for (int i = 0; i < NAMES; i++)
        come(&members[i]);
}

static void change_disk(void)
{
    switch (random_below(8)) {
    case 0:
        failing_syncs = one_in(6) ? 3 : 1;
        break;
    case 1:
        failing_writes = 1;
        break;
    case 2:
        busy_renames = 1 + (int)random_below(4);
        break;
    case 3:
        hanging_syncs = true;
        break;
    case 4:
        disk_is_full = true;
        break;
    case 5:
        segments_fit = 1 + random_below(5);
        break;
    default:
        hanging_syncs = disk_is_full = false;
        segments_fit = 0;
    }
}

static void change_member(struct member *member)
{
    if (member->subscriber == NULL) {
        come(member);
    } else if (one_in(4)) {
        hanging_syncs = false; /* or closing takes its time */
        leave(member, one_in(2));
    } else if (one_in(2)) {
        struct subscriber_settings settings = subscription(member->label);
        bus_renew(member->subscriber, &settings);
    }
}

static void step(void)
{
    struct member *member = &members[random_below(NAMES)];
    uint64_t what = random_below(60);
    if (what < 12)
        change_disk();
    else if (what < 15)
        change_member(member);
    else if (what == 15 && one_in(8))
        begin_again();
    else if (what == 16)
        sleep_ms((long)random_below(60));
    if (one_in(3))
        publish_some();
    if (member->subscriber != NULL && one_in((uint64_t)(member - members) + 1)) { /* the last one lags */
        fetch_some(member);
        acknowledge_some(member, random_below(50));
    }
}

static bool all_is_settled(void)
{
    const char *reason;
    consume();
    return stored_events + lost_events == (int)published &&
           (bus_has_room(bus) || !bus_is_healthy(bus, &reason));
}

static void run(uint64_t seed)
{
    const uint64_t ages[] = {3600 * SECOND_NS, SECOND_NS, SECOND_NS / 5};
    random_state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    published = 0;
    stored_events = lost_events = 0;
    bus_settings.max_bytes = UINT64_C(1) << (20 + random_below(3));
    bus_settings.max_age_ns = ages[random_below(3)];
    bus_settings.drop_oldest = one_in(2);
    bus_settings.commit_interval_ns = random_below(3) * 4 * NANOSECONDS_PER_MILLISECOND;
    bus_settings.queue_events = 300;
    bus_settings.queue_bytes = 3 << 20;
    bus_settings.absent_after_ns = 20 * NANOSECONDS_PER_MILLISECOND;
    bus_settings.absent_kept_us = 200000;
    open_bus();
    for (int i = 0; i < NAMES; i++)
        come(&members[i]);
    for (int i = 0; i < STEPS; i++)
        step();
    mend_disk();
    WAIT_FOR(all_is_settled());
    all_leave();
    bus_free(bus);
    bus = NULL;
    remove_folder(bus_folder);
}

static uint64_t number_in(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void what_is_offered_is_given_dropped_or_waits(void **state)
{
    (void)state;
    uint64_t first = number_in("SEED", 1);
    uint64_t runs = number_in("RUNS", getenv("LLM_PROXY_LONG_TESTS") != NULL ? 100 : 4);
    for (uint64_t seed = first; seed < first + runs; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        run(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(what_is_offered_is_given_dropped_or_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
