/* The disk bus on a disk that fails, hangs or is full: what can be kept is, what cannot is counted, and nobody waits. */
#include "disk_bus_test.h"
#include "spool/event_log.h"

static atomic_int busy_renames; /* of new segments: that many find no room in a table of the system's */

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    if (take_one(&busy_renames)) {
        errno = ENFILE;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, 0);
}

static void assert_counts(struct subscriber *subscriber, const char *name, int64_t given)
{
    assert_int_equal(count_of("received", name),
                     given + count_of("dropped", name) + (int64_t)bus_depth(subscriber));
}

static void open_again(void)
{
    bus_free(bus);
    open_bus();
}

/* The numbers of all events in the log, whether durable or not. */
static uint64_t records_in_log(void)
{
    struct event_log_reader *reader = event_log_reader_new(bus_folder);
    struct event_log_record record;
    uint64_t count = 0;
    while (event_log_read(reader, UINT64_MAX - 1, &record, NULL))
        count++;
    event_log_reader_free(reader);
    return count;
}

static void what_a_failed_sync_may_have_lost_is_written_again(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s"), *holds = subscribe("holds");
    publish_durably(1, 5, 100);
    failing_syncs = 2;
    publish_durably(6, 10, 100);
    const char *reason;
    assert_true(bus_is_healthy(bus, &reason));
    publish_durably(16, 5, 100);
    assert_gets(subscriber, 1, 20);
    assert_gets_nothing(subscriber);
    assert_counts(subscriber, "s", 20);
    bus_unsubscribe(subscriber);
    bus_unsubscribe(holds);
    open_again();
    assert_int_equal(records_in_log(), 20);
    holds = subscribe("holds");
    assert_gets(holds, 1, 20);
    assert_gets_nothing(holds);
    bus_unsubscribe(holds);
}

static void a_failed_write_is_repeated(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    for (int i = 0; i < 5; i++) { /* successes between them: not in a row */
        failing_writes = 2;
        publish_durably((uint64_t)i * 3 + 1, 3, 100);
    }
    assert_gets(subscriber, 1, 15);
    assert_gets_nothing(subscriber);
    bus_unsubscribe(subscriber);
}

static void after_three_failures_the_bus_has_failed_and_counts(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 4, 100);
    const char *reason = NULL;
    failing_syncs = 3;
    stored_events = lost_events = 0;
    for (uint64_t i = 5; i <= 14; i++)
        publish(i);
    WAIT_FOR(lost_events == 10);
    assert_false(bus_is_healthy(bus, &reason));
    assert_non_null(reason);
    assert_false(bus_has_room(bus));
    publish(15);
    assert_int_equal(lost_events, 11);
    assert_int_equal(stored_events, 0);
    assert_int_equal(count_of("disk_failed", "s"), 11);
    assert_gets(subscriber, 1, 4);
    assert_gets_nothing(subscriber);
    assert_counts(subscriber, "s", 4);
    assert_int_equal(bus_depth(subscriber), 0);
    bus_unsubscribe(subscriber);
}

static void want_of_descriptors_says_nothing_about_the_disk(void **state)
{
    (void)state;
    bus_settings.max_bytes = 1 << 20; /* segments of 64 KiB */
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 5, 8000);
    busy_renames = 5;
    publish_durably(6, 15, 8000);
    assert_int_equal(busy_renames, 0);
    const char *reason;
    assert_true(bus_is_healthy(bus, &reason));
    assert_gets(subscriber, 1, 20);
    assert_counts(subscriber, "s", 20);
    bus_unsubscribe(subscriber);
}

static void a_closed_subscriber_loses_only_its_own_to_a_failure(void **state)
{
    (void)state;
    bus_settings.commit_interval_ns = 3600 * SECOND_NS;
    open_bus();
    struct subscriber *closed = subscribe("closed"), *open = subscribe("open");
    failing_syncs = 3;
    publish(1);
    publish(2);
    bus_close(closed); /* begins to write */
    publish(3);
    struct subscriber *flush = subscribe("flush");
    bus_close(flush);
    WAIT_FOR(!bus_has_room(bus));
    WAIT_FOR(bus_depth(open) == 0);
    assert_int_equal(count_of("disk_failed", "closed"), 2);
    assert_int_equal(count_of("disk_failed", "open"), 3);
    assert_counts(closed, "closed", 0);
    assert_counts(open, "open", 0);
    assert_counts(flush, "flush", 0);
    bus_unsubscribe(closed);
    bus_unsubscribe(open);
    bus_unsubscribe(flush);
}

static void a_sync_that_hangs_holds_up_no_write_and_bounded_memory(void **state)
{
    (void)state;
    struct event_record *event = event_with(0, 1000);
    size_t each = event_memory(event);
    event_record_release(event);
    bus_settings.queue_bytes = 50 * each;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    hanging_syncs = true;
    stored_events = lost_events = 0;
    for (uint64_t i = 1; i <= 200; i++)
        publish_sized(i, 1000);
    assert_false(bus_has_room(bus));
    assert_int_equal(lost_events, 150);
    assert_int_equal(count_of("buffer_full", "s"), 150);
    WAIT_FOR(records_in_log() == 50); /* written, not durable */
    assert_gets_nothing(subscriber);
    assert_int_equal(stored_events, 0);
    assert_int_equal(bus_depth(subscriber), 50);
    hanging_syncs = false;
    WAIT_FOR(stored_events == 50);
    assert_true(bus_has_room(bus));
    assert_gets(subscriber, 1, 50);
    assert_counts(subscriber, "s", 50);
    bus_unsubscribe(subscriber);
}

/* However long a sync takes: what was written survives the end of the process, so it must not wait for the next segment either. And when that sync fails, what is in the segments since is written again. */
static void a_sync_that_hangs_holds_up_no_new_segment(void **state)
{
    (void)state;
    bus_settings.max_bytes = 4 << 20; /* segments of 256 KiB */
    open_bus();
    struct subscriber *subscriber = subscribe("s"), *holder = subscribe("holder"); /* of all segments */
    stored_events = lost_events = 0;
    for (int fails = 0; fails < 2; fails++) {
        hanging_syncs = true;
        size_t before = records_in_log(), segments = count_segments();
        uint64_t first = (uint64_t)fails * 100 + 1;
        for (uint64_t i = 0; i < 100; i++)
            publish_sized(first + i, 10000);
        WAIT_FOR(records_in_log() == before + 100);
        assert_true(count_segments() >= segments + 3);
        assert_int_equal(stored_events, fails * 100);
        failing_syncs = fails;
        hanging_syncs = false;
        WAIT_FOR(stored_events == 100 * (fails + 1));
        assert_gets(subscriber, first, 100);
    }
    assert_int_equal(lost_events, 0);
    assert_counts(subscriber, "s", 200);
    bus_unsubscribe(subscriber);
    bus_unsubscribe(holder);
}

/* What a sync that fails takes back comes again: it must not have been dropped meanwhile. */
static void no_room_is_made_of_what_is_not_durable(void **state)
{
    (void)state;
    bus_settings.max_bytes = 1 << 20; /* segments of 64 KiB */
    bus_settings.drop_oldest = true;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 20, 8000);
    hanging_syncs = true;
    stored_events = lost_events = 0;
    for (uint64_t i = 21; i <= 420; i++)
        publish_sized(i, 8000);
    WAIT_FOR(records_in_log() >= 100);
    sleep_ms(300); /* the keeper is asked for room meanwhile */
    assert_true(count_of("disk_full", "s") <= 20);
    assert_true(cursor_on_disk("s").cursor.sequence <= 20);
    failing_syncs = 1;
    hanging_syncs = false;
    WAIT_FOR(stored_events == 400);
    uint64_t dropped = (uint64_t)count_of("disk_full", "s");
    assert_in_range(dropped, 1, 330);
    assert_gets(subscriber, dropped + 1, 420 - dropped);
    assert_int_equal(count_of("damaged", "s"), 0);
    assert_counts(subscriber, "s", 420 - (int64_t)dropped);
    bus_unsubscribe(subscriber);
}

static void a_full_disk_drops_the_newest_until_there_is_room(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 3, 100);
    disk_is_full = true;
    stored_events = lost_events = 0;
    publish(4); /* waits for room */
    WAIT_FOR(!bus_has_room(bus));
    publish(5);
    assert_int_equal(lost_events, 1);
    assert_int_equal(count_of("disk_full", "s"), 1);
    const char *reason;
    assert_true(bus_is_healthy(bus, &reason));
    assert_gets(subscriber, 1, 3);
    assert_gets_nothing(subscriber);
    disk_is_full = false;
    WAIT_FOR(stored_events == 1);
    WAIT_FOR(bus_has_room(bus));
    publish_durably(6, 1, 0);
    assert_gets(subscriber, 4, 1);
    assert_gets(subscriber, 6, 1);
    assert_counts(subscriber, "s", 5);
    bus_unsubscribe(subscriber);
}

/* What all were through with may be wanted by one who comes later. */
static void a_full_disk_keeps_what_a_new_subscriber_begins_with(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 5, 100);
    assert_gets(subscriber, 1, 5);
    WAIT_FOR(cursor_on_disk("s").cursor.sequence == 5);
    struct subscriber_settings settings = subscription("late");
    settings.from_oldest = true;
    sleep_ms(100); /* the keeper ends its round */
    struct subscriber *late = subscribe_with(&settings);
    disk_is_full = true;
    publish(6);
    WAIT_FOR(!bus_has_room(bus));
    assert_gets(late, 1, 5);
    disk_is_full = false;
    assert_gets(late, 6, 1);
    assert_int_equal(count_of("damaged", "late"), 0);
    assert_counts(late, "late", 6);
    bus_unsubscribe(subscriber);
    bus_unsubscribe(late);
}

static void a_full_disk_drops_the_oldest_segments_if_told_so(void **state)
{
    (void)state;
    bus_settings.max_bytes = 16 << 20; /* segments of 1 MiB */
    bus_settings.drop_oldest = true;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    segments_fit = 3;
    publish_durably(1, 100, 60000);
    assert_true(count_segments() <= 4);
    int64_t dropped = count_of("disk_full", "s");
    assert_in_range(dropped, 17, 84); /* whole segments of 17 events */
    assert_int_equal(dropped % 17, 0);
    assert_gets(subscriber, (uint64_t)dropped + 1, 100 - (uint64_t)dropped);
    assert_counts(subscriber, "s", 100 - dropped);
    disk_is_full = true; /* and nothing can be removed any more */
    WAIT_FOR(cursor_on_disk("s").cursor.sequence == 100);
    publish(101);
    WAIT_FOR(!bus_has_room(bus));
    disk_is_full = false;
    WAIT_FOR(bus_has_room(bus));
    assert_gets(subscriber, 101, 1);
    bus_unsubscribe(subscriber);
}

static void an_end_on_a_full_disk_counts_what_it_loses(void **state)
{
    (void)state;
    open_bus();
    publish_durably(1, 2, 0);
    disk_is_full = true;
    stored_events = lost_events = 0;
    publish(3);
    publish(4);
    WAIT_FOR(!bus_has_room(bus));
    bus_free(bus);
    assert_int_equal(lost_events, 2);
    disk_is_full = false;
    open_bus();
}

static void an_end_waits_for_no_disk_that_has_failed(void **state)
{
    (void)state;
    bus_settings.commit_interval_ns = 3600 * SECOND_NS;
    open_bus();
    stored_events = lost_events = 0;
    for (uint64_t i = 1; i <= 300; i++)
        publish(i);
    failing_syncs = 3;
    bus_free(bus);
    assert_int_equal(lost_events, 300);
    open_bus();
}

static void damage_is_skipped_and_counted(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 9, 1000);
    bus_unsubscribe(subscriber);
    bus_free(bus);
    char *path = xprintf("%s/00000000000000000001.log", bus_folder);
    int fd = open(path, O_RDWR);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(pwrite(fd, "damage", 6, status.st_size / 2), 6);
    close(fd);
    free(path);
    open_bus();
    metric_add(counter("received", "s"), -count_of("received", "s"));
    subscriber = subscribe("s");
    struct bus_entry entries[20];
    size_t fetched = bus_fetch(subscriber, entries, 20, SIZE_MAX);
    assert_int_equal(fetched, 8);
    for (size_t i = 0; i < fetched; i++) {
        assert_int_equal(number_of(entries[i].event), i < 4 ? i + 1 : i + 2);
        event_record_release(entries[i].event);
        bus_acknowledge(subscriber, entries[i].sequence);
    }
    assert_int_equal(count_of("damaged", "s"), 1);
    assert_counts(subscriber, "s", 8);
    WAIT_FOR(cursor_on_disk("s").cursor.sequence == 9);
    bus_unsubscribe(subscriber);
}

static void a_damaged_cursor_begins_at_the_oldest(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 3, 0);
    bus_unsubscribe(subscriber);
    bus_free(bus);
    char *path = xprintf("%s/cursors/s.cursor", bus_folder);
    int fd = open(path, O_RDWR);
    char damage[1024];
    memset(damage, 'x', sizeof damage);
    assert_int_equal(pwrite(fd, damage, sizeof damage, 0), sizeof damage);
    close(fd);
    free(path);
    open_bus();
    subscriber = subscribe("s");
    assert_gets(subscriber, 1, 3);
    bus_unsubscribe(subscriber);
    open_again();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(what_a_failed_sync_may_have_lost_is_written_again),
        BUS_TEST(a_failed_write_is_repeated),
        BUS_TEST(after_three_failures_the_bus_has_failed_and_counts),
        BUS_TEST(want_of_descriptors_says_nothing_about_the_disk),
        BUS_TEST(a_closed_subscriber_loses_only_its_own_to_a_failure),
        BUS_TEST(a_sync_that_hangs_holds_up_no_write_and_bounded_memory),
        BUS_TEST(a_sync_that_hangs_holds_up_no_new_segment),
        BUS_TEST(no_room_is_made_of_what_is_not_durable),
        BUS_TEST(a_full_disk_drops_the_newest_until_there_is_room),
        BUS_TEST(a_full_disk_keeps_what_a_new_subscriber_begins_with),
        BUS_TEST(a_full_disk_drops_the_oldest_segments_if_told_so),
        BUS_TEST(an_end_on_a_full_disk_counts_what_it_loses),
        BUS_TEST(an_end_waits_for_no_disk_that_has_failed),
        BUS_TEST(damage_is_skipped_and_counted),
        BUS_TEST(a_damaged_cursor_begins_at_the_oldest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
