/* The disk bus: what was published is given to every subscriber, in order, also after the bus was opened again. */
#include "disk_bus_test.h"

static void every_subscriber_gets_every_event_in_order(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *one = subscribe("one"), *two = subscribe("two");
    publish_durably(1, 300, 100);
    assert_int_equal(bus_depth(one), 300);
    assert_gets(one, 1, 300);
    assert_int_equal(bus_depth(one), 0);
    assert_int_equal(bus_depth(two), 300);
    assert_gets(two, 1, 300);
    assert_gets_nothing(two);
    assert_int_equal(count_of("received", "one"), 300);
    assert_int_equal(count_of("dropped", "one"), 0);
    assert_int_equal(bus_unsubscribe(one), 0);
    assert_int_equal(bus_unsubscribe(two), 0);
    assert_true(bus_keeps_events(bus));
}

static void what_is_not_acknowledged_comes_again_after_opening(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 10, 0);
    uint64_t sequences[6];
    for (uint64_t i = 0; i < 6; i++)
        assert_int_equal(fetch_one(subscriber, &sequences[i]), i + 1);
    bus_acknowledge(subscriber, sequences[1]);
    bus_acknowledge(subscriber, sequences[0]);
    bus_acknowledge(subscriber, sequences[4]); /* the one before is not */
    assert_int_equal(bus_unsubscribe(subscriber), 0);
    for (uint64_t i = 11; i <= 15; i++)
        publish(i);
    bus_free(bus);
    open_bus();
    metric_add(counter("received", "s"), -count_of("received", "s"));
    subscriber = subscribe("s");
    assert_int_equal(count_of("received", "s"), 13);
    assert_int_equal(bus_depth(subscriber), 13);
    assert_gets(subscriber, 3, 13);
    bus_unsubscribe(subscriber);
}

static void a_new_name_begins_at_the_end_or_at_the_oldest(void **state)
{
    (void)state;
    open_bus();
    publish_durably(1, 5, 0);
    struct subscriber *subscriber = subscribe("new");
    struct subscriber_settings settings = subscription("oldest");
    settings.from_oldest = true;
    struct subscriber *oldest = subscribe_with(&settings);
    assert_true(cursor_on_disk("new").found);
    assert_int_equal(cursor_on_disk("new").cursor.sequence, 5);
    assert_int_equal(cursor_on_disk("oldest").cursor.sequence, 0);
    publish_durably(6, 1, 0);
    assert_gets(subscriber, 6, 1);
    assert_gets(oldest, 1, 6);
    struct error error;
    settings = subscription("new");
    assert_null(bus_subscribe(bus, &settings, &error));
    bus_unsubscribe(subscriber);
    bus_unsubscribe(oldest);
}

static void cursors_follow_and_segments_go_when_all_cursors_are_past(void **state)
{
    (void)state;
    bus_settings.max_bytes = 2 << 20;
    open_bus();
    struct subscriber *one = subscribe("one"), *two = subscribe("two");
    publish_durably(1, 60, 8000);
    size_t segments = count_segments();
    assert_true(segments > 3);
    assert_gets(one, 1, 60);
    WAIT_FOR(cursor_on_disk("one").cursor.sequence == 60);
    assert_int_equal(count_segments(), segments);
    assert_gets(two, 1, 60);
    WAIT_FOR(count_segments() == 1);
    WAIT_FOR(cursor_on_disk("two").cursor.sequence == 60);
    assert_int_equal(count_of("dropped", "one") + count_of("dropped", "two"), 0);
    bus_unsubscribe(one);
    bus_unsubscribe(two);
}

static void what_is_queued_at_the_end_is_written(void **state)
{
    (void)state;
    bus_settings.commit_interval_ns = 3600 * SECOND_NS;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    stored_events = 0;
    for (uint64_t i = 1; i <= 20; i++)
        publish(i);
    assert_gets_nothing(subscriber);
    bus_unsubscribe(subscriber);
    bus_free(bus);
    assert_int_equal(stored_events, 20);
    open_bus();
    subscriber = subscribe("s");
    assert_gets(subscriber, 1, 20);
    bus_unsubscribe(subscriber);
}

static void a_closed_subscriber_gets_what_was_queued_and_nothing_later(void **state)
{
    (void)state;
    bus_settings.commit_interval_ns = 3600 * SECOND_NS;
    open_bus();
    struct subscriber *subscriber = subscribe("s"), *other = subscribe("o");
    publish(1);
    publish(2);
    bus_close(subscriber);
    publish(3);
    uint64_t sequence;
    assert_int_equal(fetch_one(subscriber, &sequence), 1); /* durable now: the close saw to it */
    assert_int_equal(fetch_one(subscriber, &sequence), 2);
    assert_int_equal(bus_depth(subscriber), 0);
    bus_close(other);
    assert_gets_nothing(subscriber);
    assert_int_equal(count_of("received", "s"), 2);
    assert_gets(other, 1, 3);
    bus_unsubscribe(subscriber);
    bus_unsubscribe(other);
}

static void an_interval_of_zero_commits_each_batch_at_once(void **state)
{
    (void)state;
    bus_settings.commit_interval_ns = 0;
    open_bus();
    for (uint64_t i = 0; i < 50; i++)
        publish_durably(i, 1, 0);
}

static void a_full_buffer_is_written_before_its_time(void **state)
{
    (void)state;
    bus_settings.commit_interval_ns = 3600 * SECOND_NS;
    bus_settings.queue_bytes = 8 << 20;
    open_bus();
    stored_events = 0;
    for (uint64_t i = 0; i < 40; i++)
        publish_sized(i, 60000); /* more than 1 MiB */
    WAIT_FOR(stored_events > 0);
}

static void a_full_queue_and_large_events_are_counted_for_all(void **state)
{
    (void)state;
    bus_settings.queue_events = 10;
    bus_settings.max_bytes = 1 << 20;
    open_bus();
    struct subscriber *one = subscribe("one"), *two = subscribe("two");
    hanging_syncs = true;
    stored_events = lost_events = 0;
    publish_sized(1, (512 << 10) + 1);
    assert_int_equal(lost_events, 1);
    assert_int_equal(count_of("too_large", "one"), 1);
    assert_int_equal(count_of("too_large", "two"), 1);
    hanging_syncs = false;
    publish_durably(2, 1, 400 << 10);
    assert_gets(one, 2, 1);
    assert_gets(two, 2, 1);
    bus_unsubscribe(one);
    bus_unsubscribe(two);
}

static void count_wake(void *argument)
{
    atomic_fetch_add((atomic_int *)argument, 1);
}

static void a_subscriber_is_woken_once_when_enough_is_durable(void **state)
{
    (void)state;
    open_bus();
    atomic_int wakes = 0;
    struct subscriber_settings settings = subscription("s");
    settings.wake = count_wake;
    settings.wake_argument = &wakes;
    struct subscriber *subscriber = subscribe_with(&settings), *other = subscribe("other");
    assert_gets_nothing(subscriber);
    publish_durably(1, 3, 0);
    WAIT_FOR(wakes == 1);
    publish_durably(4, 3, 0);
    assert_gets(subscriber, 1, 6);
    assert_int_equal(wakes, 1);
    assert_true(bus_await(subscriber, 3));
    publish_durably(7, 2, 0);
    assert_gets(other, 1, 8);
    assert_int_equal(wakes, 1);
    publish_durably(9, 1, 0);
    WAIT_FOR(wakes == 2);
    assert_false(bus_await(subscriber, 3));
    assert_gets(subscriber, 7, 3);
    assert_gets_nothing(subscriber);
    bus_close(subscriber);
    publish_durably(10, 2, 0);
    assert_int_equal(wakes, 2);
    bus_unsubscribe(subscriber);
    bus_unsubscribe(other);
}

static void a_renewed_subscriber_goes_on_under_new_settings(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 4, 0);
    uint64_t sequence, second;
    assert_int_equal(fetch_one(subscriber, &sequence), 1);
    struct subscriber_settings settings = subscription("s");
    atomic_int wakes = 0;
    settings.wake = count_wake;
    settings.wake_argument = &wakes;
    settings.received = counter("received", "renewed");
    bus_renew(subscriber, &settings);
    assert_int_equal(fetch_one(subscriber, &second), 2);
    bus_acknowledge(subscriber, sequence);
    bus_acknowledge(subscriber, second);
    assert_gets(subscriber, 3, 2);
    assert_gets_nothing(subscriber);
    publish_durably(5, 1, 0);
    WAIT_FOR(wakes == 1);
    assert_int_equal(count_of("received", "renewed"), 1);
    bus_unsubscribe(subscriber);
}

static void a_fetch_stops_at_its_bytes_and_gives_the_rest_later(void **state)
{
    (void)state;
    open_bus();
    struct subscriber *subscriber = subscribe("s");
    publish_durably(1, 5, 1000);
    struct bus_entry entries[5];
    uint64_t next = 1;
    size_t each = 0, expected[] = {1, 2, 1, 1};
    for (size_t i = 0; i < 4; i++) {
        size_t limits[] = {1, 2 * each, 2 * each - 1, SIZE_MAX};
        assert_int_equal(bus_fetch(subscriber, entries, 5, limits[i]), expected[i]);
        each = event_memory(entries[0].event);
        for (size_t j = 0; j < expected[i]; j++) {
            assert_int_equal(number_of(entries[j].event), next++);
            event_record_release(entries[j].event);
        }
        assert_int_equal(bus_depth(subscriber), 6 - next);
    }
    bus_unsubscribe(subscriber);
}

static void two_processes_cannot_have_one_folder(void **state)
{
    (void)state;
    open_bus();
    struct error error;
    assert_null(disk_bus_new(&bus_settings, &error));
    assert_non_null(strstr(error.message, bus_folder));
}

static void metrics_tell_of_bytes_and_commits(void **state)
{
    (void)state;
    open_bus();
    publish_durably(1, 10, 1000);
    struct buffer text = {0};
    metrics_write(metrics, &text);
    buffer_append(&text, "", 1);
    assert_non_null(strstr(buffer_data(&text), "llm_proxy_bus_healthy 1\n"));
    assert_non_null(strstr(buffer_data(&text), "llm_proxy_bus_segments 1\n"));
    assert_null(strstr(buffer_data(&text), "llm_proxy_bus_bytes 0\n"));
    assert_null(strstr(buffer_data(&text), "llm_proxy_bus_syncs_total 0\n"));
    assert_non_null(strstr(buffer_data(&text), "llm_proxy_bus_sync_failures_total 0\n"));
    assert_non_null(strstr(buffer_data(&text), "llm_proxy_bus_sync_seconds_count"));
    buffer_free(&text);
}

enum { PUBLISHERS = 4, EVENTS_EACH = 2000 };

struct consumer {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    bool woken;
    int got;
    struct subscriber *subscriber;
};

static void wake_consumer(void *argument)
{
    struct consumer *consumer = argument;
    pthread_mutex_lock(&consumer->mutex);
    consumer->woken = true;
    pthread_cond_signal(&consumer->condition);
    pthread_mutex_unlock(&consumer->mutex);
}

static void *publish_from_a_thread(void *argument)
{
    (void)argument;
    for (uint64_t i = 0; i < EVENTS_EACH; i++)
        publish(i);
    return NULL;
}

static void *consume(void *argument)
{
    struct consumer *consumer = argument;
    struct bus_entry entries[32];
    uint64_t last = 0;
    while (consumer->got < PUBLISHERS * EVENTS_EACH) {
        size_t fetched = bus_fetch(consumer->subscriber, entries, 32, SIZE_MAX);
        for (size_t i = 0; i < fetched; i++) {
            assert_true(entries[i].sequence > last);
            last = entries[i].sequence;
            event_record_release(entries[i].event);
            bus_acknowledge(consumer->subscriber, last);
        }
        consumer->got += (int)fetched;
        if (fetched > 0)
            continue;
        pthread_mutex_lock(&consumer->mutex);
        while (!consumer->woken)
            pthread_cond_wait(&consumer->condition, &consumer->mutex);
        consumer->woken = false;
        pthread_mutex_unlock(&consumer->mutex);
    }
    return NULL;
}

/* Ends only if no wake-up is lost. */
static void publishers_in_many_threads_lose_no_event_and_no_wake(void **state)
{
    (void)state;
    bus_settings.max_bytes = 4 << 20;
    open_bus();
    stored_events = lost_events = 0;
    struct consumer consumers[2] = {0};
    const char *const names[] = {"one", "two"};
    pthread_t threads[PUBLISHERS], readers[2];
    for (int i = 0; i < 2; i++) {
        pthread_mutex_init(&consumers[i].mutex, NULL);
        pthread_cond_init(&consumers[i].condition, NULL);
        struct subscriber_settings settings = subscription(names[i]);
        settings.wake = wake_consumer;
        settings.wake_argument = &consumers[i];
        consumers[i].subscriber = subscribe_with(&settings);
        pthread_create(&readers[i], NULL, consume, &consumers[i]);
    }
    for (int i = 0; i < PUBLISHERS; i++)
        pthread_create(&threads[i], NULL, publish_from_a_thread, NULL);
    for (int i = 0; i < 10; i++) { /* others come and go meanwhile */
        struct subscriber *other = subscribe("other");
        (void)bus_has_room(bus);
        bus_unsubscribe(other);
    }
    for (int i = 0; i < PUBLISHERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        pthread_join(readers[i], NULL);
        assert_int_equal(count_of("received", names[i]), PUBLISHERS * EVENTS_EACH);
        assert_int_equal(bus_depth(consumers[i].subscriber), 0);
        bus_unsubscribe(consumers[i].subscriber);
    }
    WAIT_FOR(stored_events == PUBLISHERS * EVENTS_EACH);
    assert_int_equal(lost_events, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(every_subscriber_gets_every_event_in_order),
        BUS_TEST(what_is_not_acknowledged_comes_again_after_opening),
        BUS_TEST(a_new_name_begins_at_the_end_or_at_the_oldest),
        BUS_TEST(cursors_follow_and_segments_go_when_all_cursors_are_past),
        BUS_TEST(what_is_queued_at_the_end_is_written),
        BUS_TEST(a_closed_subscriber_gets_what_was_queued_and_nothing_later),
        BUS_TEST(an_interval_of_zero_commits_each_batch_at_once),
        BUS_TEST(a_full_buffer_is_written_before_its_time),
        BUS_TEST(a_full_queue_and_large_events_are_counted_for_all),
        BUS_TEST(a_subscriber_is_woken_once_when_enough_is_durable),
        BUS_TEST(a_renewed_subscriber_goes_on_under_new_settings),
        BUS_TEST(a_fetch_stops_at_its_bytes_and_gives_the_rest_later),
        BUS_TEST(two_processes_cannot_have_one_folder),
        BUS_TEST(metrics_tell_of_bytes_and_commits),
        BUS_TEST(publishers_in_many_threads_lose_no_event_and_no_wake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
