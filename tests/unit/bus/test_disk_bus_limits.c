/* What the disk bus keeps, and for how long: bytes, age, those who lag, names nobody uses any more. */
#include "disk_bus_test.h"

static void assert_counts(struct subscriber *subscriber, const char *name, int64_t given)
{
    assert_int_equal(count_of("received", name),
                     given + count_of("dropped", name) + (int64_t)bus_depth(subscriber));
}

static uint64_t bytes_on_disk(void)
{
    DIR *names = opendir(bus_folder);
    struct dirent *entry;
    uint64_t bytes = 0;
    assert_non_null(names);
    while ((entry = readdir(names)) != NULL) {
        struct stat status;
        if (fstatat(dirfd(names), entry->d_name, &status, 0) == 0 && S_ISREG(status.st_mode))
            bytes += (uint64_t)status.st_size;
    }
    closedir(names);
    return bytes;
}

static void max_bytes_drops_the_newest_until_segments_go(void **state)
{
    (void)state;
    bus_settings.max_bytes = 1 << 20;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    stored_events = lost_events = 0;
    uint64_t published = 0;
    while (lost_events == 0) {
        publish_sized(++published, 8000);
        sleep_ms(1);
    }
    assert_true(bytes_on_disk() <= (1 << 20) + 64);
    assert_true(published > 100); /* nearly all of it was used */
    assert_false(bus_has_room(bus));
    assert_int_equal(count_of("disk_full", "s"), lost_events);
    uint64_t kept = published - (uint64_t)lost_events, waiting = kept - (uint64_t)stored_events;
    assert_gets(subscriber, 1, kept - waiting);
    WAIT_FOR(bus_has_room(bus)); /* the segments were removed */
    assert_gets(subscriber, kept - waiting + 1, waiting);
    publish_durably(1000, 20, 8000);
    assert_gets(subscriber, 1000, 20);
    assert_counts(subscriber, "s", (int64_t)kept + 20);
    bus_unsubscribe(subscriber);
}

static void max_bytes_drops_the_oldest_if_told_so(void **state)
{
    (void)state;
    bus_settings.max_bytes = 1 << 20;
    bus_settings.drop_oldest = true;
    open_bus();
    struct subscriber *never = subscribe("never");
    publish_durably(1, 400, 8000);
    assert_true(bytes_on_disk() <= (1 << 20) + 64);
    assert_true(bus_has_room(bus));
    uint64_t dropped = (uint64_t)count_of("disk_full", "never");
    assert_in_range(dropped, 270, 310);
    assert_int_equal(bus_depth(never), 400 - dropped);
    assert_gets(never, dropped + 1, 400 - dropped);
    assert_counts(never, "never", 400 - (int64_t)dropped);
    bus_unsubscribe(never);
}

/* What the subscriber has taken is its own, and it can deliver it; but after it has gone nobody gets it again. */
static void what_was_given_up_in_its_hands_is_told_at_the_end(void **state)
{
    (void)state;
    uint64_t sequence;
    bus_settings.max_bytes = 1 << 20;
    bus_settings.drop_oldest = true;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 3, 1000);
    for (uint64_t i = 1; i <= 3; i++)
        assert_int_equal(fetch_one(subscriber, &sequence), i);
    bus_acknowledge(subscriber, sequence - 1);
    publish_durably(4, 200, 10000);
    assert_true(count_of("disk_full", "s") > 0);
    assert_int_equal(bus_unsubscribe(subscriber), 2);
}

static void one_large_event_finds_a_place(void **state)
{
    (void)state;
    bus_settings.max_bytes = 1 << 20;
    bus_settings.drop_oldest = true;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 100, 8000);
    publish_durably(101, 3, 500000);
    publish_durably(104, 1, 10);
    assert_true(bytes_on_disk() <= (1 << 20) + 64);
    uint64_t dropped = (uint64_t)count_of("disk_full", "s");
    assert_true(dropped >= 101);
    assert_gets(subscriber, dropped + 1, 104 - dropped);
    bus_unsubscribe(subscriber);
}

/* The present segment never goes: an event that is alone in it must leave room for the next one like it. */
static void the_largest_events_follow_each_other(void **state)
{
    (void)state;
    bus_settings.max_bytes = 1 << 20;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    size_t size = (1 << 20) / 2;
    do {
        stored_events = lost_events = 0;
        publish_sized(1, size -= 16);
    } while (lost_events > 0);
    WAIT_FOR(stored_events == 1);
    assert_gets(subscriber, 1, 1);
    publish_durably(2, 1, size);
    assert_gets(subscriber, 2, 1);
    publish_durably(3, 1, size);
    assert_gets(subscriber, 3, 1);
    bus_unsubscribe(subscriber);
}

static void one_that_lags_is_moved_on_and_the_others_are_not(void **state)
{
    (void)state;
    bus_settings.max_bytes = 1 << 20;
    open_bus();
    struct subscriber *fast = subscribe("fast"), *dead = subscribe("dead");
    uint64_t sequence;
    assert_int_equal(count_of("lagged", "dead"), 0);
    for (uint64_t i = 0; i < 300; i += 10) {
        publish_durably(i, 10, 8000);
        assert_gets(fast, i, 10);
        if (i == 0)
            for (uint64_t held = 0; held < 3; held++) /* its destination is down */
                assert_int_equal(fetch_one(dead, &sequence), held);
    }
    assert_int_equal(count_of("dropped", "fast"), 0);
    WAIT_FOR(count_of("lagged", "dead") > 200);
    WAIT_FOR(bytes_on_disk() <= (1 << 20) * 5 / 8);
    assert_int_equal(count_of("lagged", "dead"), count_of("dropped", "dead"));
    assert_counts(dead, "dead", 3);
    uint64_t lagged = (uint64_t)count_of("lagged", "dead");
    assert_gets(dead, 3 + lagged, 300 - 3 - lagged);
    WAIT_FOR(cursor_on_disk("dead").cursor.sequence > 0);
    bus_acknowledge(dead, sequence); /* late, and no harm */
    bus_unsubscribe(fast);
    bus_unsubscribe(dead);
}

static void nobody_is_moved_on_when_all_are_behind(void **state)
{
    (void)state;
    bus_settings.max_bytes = 1 << 20;
    open_bus();
    struct subscriber *one = subscribe("one"), *two = subscribe("two");
    publish_durably(1, 100, 8000);
    sleep_ms(50);
    assert_gets(one, 1, 1);
    assert_int_equal(count_of("lagged", "one") + count_of("lagged", "two"), 0);
    assert_gets(one, 2, 1);
    assert_gets(two, 1, 2);
    bus_unsubscribe(one);
    bus_unsubscribe(two);
}

static void old_events_expire_for_whoever_has_not_fetched_them(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *done = subscribe("done"), *late = subscribe("late");
    publish_durably(1, 5, 100);
    assert_gets(done, 1, 5);
    assert_gets(late, 1, 2);
    bus_unsubscribe(late);
    bus_unsubscribe(done);
    bus_free(bus);
    bus_settings.max_age_ns = 100 * NANOSECONDS_PER_MILLISECOND;
    open_bus();
    done = subscribe("done"), late = subscribe("late");
    WAIT_FOR(count_of("expired", "late") == 3);
    assert_int_equal(count_of("dropped", "done"), 0);
    assert_int_equal(bus_depth(late), 0);
    assert_gets_nothing(late);
    WAIT_FOR(count_segments() == 1);
    bus_unsubscribe(late);
    bus_unsubscribe(done);
}

static void a_removed_name_holds_its_segments_for_a_while(void **state)
{
    (void)state;
    bus_settings.max_bytes = 4 << 20;
    bus_settings.absent_after_ns = 20 * NANOSECONDS_PER_MILLISECOND;
    open_bus();
    struct subscriber *stays = subscribe("stays"), *leaves = subscribe("leaves");
    publish_durably(1, 100, 8000);
    bus_unsubscribe(leaves);
    assert_gets(stays, 1, 100);
    WAIT_FOR(cursor_on_disk("leaves").cursor.removed_us != 0);
    WAIT_FOR(cursor_on_disk("stays").cursor.sequence == 100);
    assert_true(count_segments() > 2);
    leaves = subscribe("leaves"); /* it comes back, and gets all */
    assert_int_equal(cursor_on_disk("leaves").cursor.removed_us, 0);
    assert_gets(leaves, 1, 40);
    WAIT_FOR(cursor_on_disk("leaves").cursor.sequence == 40);
    bus_unsubscribe(leaves);
    WAIT_FOR(cursor_on_disk("leaves").cursor.removed_us != 0);
    uint64_t removed_us = cursor_on_disk("leaves").cursor.removed_us;
    bus_unsubscribe(stays);
    bus_free(bus);

    /* Nothing is removed before everybody had the time to come. */
    bus_settings.absent_after_ns = 0;
    bus_settings.absent_kept_us = 1;
    open_bus();
    stays = subscribe("stays");
    publish_durably(101, 1, 0);
    assert_gets(stays, 101, 1);
    WAIT_FOR(cursor_on_disk("stays").cursor.sequence == 101);
    assert_int_equal(cursor_on_disk("leaves").cursor.removed_us, removed_us);
    assert_true(count_segments() > 1);
    bus_unsubscribe(stays);
    bus_free(bus);

    bus_settings.absent_after_ns = 1;
    bus_settings.absent_kept_us = 1;
    open_bus();
    stays = subscribe("stays");
    WAIT_FOR(!cursor_on_disk("leaves").found);
    WAIT_FOR(count_segments() == 1);
    leaves = subscribe("leaves");
    publish_durably(102, 1, 0);
    assert_gets(leaves, 102, 1);
    bus_unsubscribe(stays);
    bus_unsubscribe(leaves);
}

static void the_end_of_a_process_removes_no_name(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 3, 0);
    bus_unsubscribe(subscriber);
    bus_free(bus);
    assert_int_equal(cursor_on_disk("s").cursor.removed_us, 0);
    open_bus();
}

static void remove_segments(void)
{
    DIR *names = opendir(bus_folder);
    struct dirent *entry;
    assert_non_null(names);
    while ((entry = readdir(names)) != NULL)
        if (strstr(entry->d_name, ".log") != NULL)
            assert_int_equal(unlinkat(dirfd(names), entry->d_name, 0), 0);
    closedir(names);
}

static void a_log_that_was_lost_takes_no_new_event_with_it(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 50, 0);
    assert_gets(subscriber, 1, 50);
    bus_unsubscribe(subscriber);
    bus_free(bus);
    remove_segments();
    open_bus();
    subscriber = subscribe("s");
    assert_int_equal(bus_depth(subscriber), 0);
    publish_durably(51, 5, 0);
    assert_gets(subscriber, 51, 5);
    assert_int_equal(count_of("dropped", "s"), 0);
    bus_unsubscribe(subscriber);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(max_bytes_drops_the_newest_until_segments_go),
        BUS_TEST(max_bytes_drops_the_oldest_if_told_so),
        BUS_TEST(what_was_given_up_in_its_hands_is_told_at_the_end),
        BUS_TEST(one_large_event_finds_a_place),
        BUS_TEST(the_largest_events_follow_each_other),
        BUS_TEST(one_that_lags_is_moved_on_and_the_others_are_not),
        BUS_TEST(nobody_is_moved_on_when_all_are_behind),
        BUS_TEST(old_events_expire_for_whoever_has_not_fetched_them),
        BUS_TEST(a_removed_name_holds_its_segments_for_a_while),
        BUS_TEST(the_end_of_a_process_removes_no_name),
        BUS_TEST(a_log_that_was_lost_takes_no_new_event_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
