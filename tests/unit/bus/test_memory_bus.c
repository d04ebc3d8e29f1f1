/* The memory bus: every subscriber gets every event or counts a drop, and nobody waits. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "bus/memory_bus.h"

static struct metrics *metrics;
static struct bus *bus;

static int begin(void **state)
{
    (void)state;
    metrics = metrics_new();
    bus = memory_bus_new();
    return 0;
}

static int end(void **state)
{
    (void)state;
    bus_free(bus);
    metrics_free(metrics);
    return 0;
}

static struct metric *counter(const char *name, const char *subscriber)
{
    return metrics_counter(metrics, name, "help", (struct metric_label[]){{"pipeline", subscriber}, {0}});
}

static struct subscriber *subscribe(const char *name, size_t max_events, size_t max_bytes)
{
    struct subscriber_settings settings = {
        .name = name,
        .max_events = max_events,
        .max_bytes = max_bytes,
        .received = counter("received", name),
        .dropped_by[BUS_DROP_BUFFER_FULL] = counter("dropped", name),
    };
    struct error error;
    struct subscriber *subscriber = bus_subscribe(bus, &settings, &error);
    assert_non_null(subscriber);
    return subscriber;
}

/* The number is its status. */
static struct event_record *event_with(int number)
{
    struct event_fields fields = {.id = SLICE("id"), .status = number};
    return event_record_new(&fields, NULL, NULL, NULL);
}

static void publish(int number)
{
    struct event_record *event = event_with(number);
    bus_publish(bus, event, NULL, NULL);
    event_record_release(event);
}

/* Fetches all there is, releases it, checks the numbers. */
static void assert_gets(struct subscriber *subscriber, int first, int count)
{
    struct bus_entry entries[64];
    int got = 0;
    size_t fetched;
    while ((fetched = bus_fetch(subscriber, entries, 64, SIZE_MAX)) > 0)
        for (size_t i = 0; i < fetched; i++) {
            assert_int_equal(event_get(entries[i].event)->status, first + got++);
            event_record_release(entries[i].event);
            bus_acknowledge(subscriber, entries[i].sequence);
        }
    assert_int_equal(got, count);
}

static void every_subscriber_gets_every_event_in_order(void **state)
{
    (void)state;
    struct subscriber *one = subscribe("one", 1000, SIZE_MAX), *two = subscribe("two", 1000, SIZE_MAX);
    for (int i = 0; i < 300; i++)
        publish(i);
    assert_int_equal(bus_depth(one), 300);
    assert_gets(one, 0, 300);
    assert_int_equal(bus_depth(one), 0);
    assert_int_equal(bus_depth(two), 300);
    assert_gets(two, 0, 300);
    assert_int_equal(metric_value(counter("received", "one")), 300);
    assert_int_equal(metric_value(counter("dropped", "one")), 0);
    assert_int_equal(bus_unsubscribe(one), 0);
    assert_int_equal(bus_unsubscribe(two), 0);
}

static void order_is_kept_while_the_ring_wraps_and_grows(void **state)
{
    (void)state;
    struct subscriber *subscriber = subscribe("s", 100, SIZE_MAX);
    struct bus_entry entries[7];
    int published = 0, got = 0;
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 9; i++)
            publish(published++);
        assert_int_equal(bus_fetch(subscriber, entries, 7, SIZE_MAX), 7);
        for (int i = 0; i < 7; i++) {
            assert_int_equal(event_get(entries[i].event)->status, got++);
            assert_int_equal(entries[i].sequence, (uint64_t)got);
            event_record_release(entries[i].event);
            bus_acknowledge(subscriber, entries[i].sequence);
        }
    }
    assert_int_equal(bus_depth(subscriber), 80);
    assert_gets(subscriber, got, 80);
    bus_unsubscribe(subscriber);
}

static void the_newest_is_dropped_and_counted_when_a_queue_is_full(void **state)
{
    (void)state;
    struct subscriber *small = subscribe("small", 3, SIZE_MAX), *large = subscribe("large", 10, SIZE_MAX);
    for (int i = 0; i < 5; i++)
        publish(i);
    assert_int_equal(metric_value(counter("received", "small")), 5);
    assert_int_equal(metric_value(counter("dropped", "small")), 2);
    assert_gets(small, 0, 3);
    assert_gets(large, 0, 5);
    publish(5);
    assert_gets(small, 5, 1);
    bus_unsubscribe(small);
    bus_unsubscribe(large);
}

static void bytes_are_a_bound_too(void **state)
{
    (void)state;
    struct event_record *event = event_with(0);
    size_t each = event_memory(event);
    event_record_release(event);
    struct subscriber *exact = subscribe("exact", 100, 3 * each),
                      *short_of = subscribe("short", 100, 3 * each - 1);
    struct subscriber *too_small = subscribe("too_small", 100, each - 1);
    for (int i = 0; i < 4; i++)
        publish(i);
    assert_int_equal(metric_value(counter("dropped", "too_small")), 4);
    assert_gets(exact, 0, 3);
    assert_gets(short_of, 0, 2);
    publish(4);
    assert_gets(exact, 4, 1);
    bus_unsubscribe(exact);
    bus_unsubscribe(short_of);
    bus_unsubscribe(too_small);
}

static void a_fetch_stops_at_its_bytes_but_gives_at_least_one(void **state)
{
    (void)state;
    struct event_record *event = event_with(0);
    size_t each = event_memory(event);
    event_record_release(event);
    struct subscriber *subscriber = subscribe("s", 100, SIZE_MAX);
    for (int i = 0; i < 5; i++)
        publish(i);
    struct bus_entry entries[5];
    size_t limits[] = {1, 2 * each, 2 * each - 1}, expected[] = {1, 2, 1};
    for (size_t i = 0; i < 3; i++) {
        size_t fetched = bus_fetch(subscriber, entries, 5, limits[i]);
        assert_int_equal(fetched, expected[i]);
        for (size_t j = 0; j < fetched; j++) {
            event_record_release(entries[j].event);
            bus_acknowledge(subscriber, entries[j].sequence);
        }
    }
    assert_gets(subscriber, 4, 1);
    bus_unsubscribe(subscriber);
}

static void count_wake(void *argument)
{
    atomic_fetch_add((atomic_int *)argument, 1);
}

static void a_burst_wakes_once_and_only_after_a_fetch_found_nothing(void **state)
{
    (void)state;
    atomic_int wakes = 0;
    struct subscriber_settings settings = {
        .name = "s", .max_events = 100, .max_bytes = SIZE_MAX, .wake = count_wake, .wake_argument = &wakes};
    struct error error;
    struct subscriber *subscriber = bus_subscribe(bus, &settings, &error);
    struct bus_entry entry;
    for (int i = 0; i < 5; i++)
        publish(i);
    assert_int_equal(wakes, 1);
    assert_int_equal(bus_fetch(subscriber, &entry, 1, SIZE_MAX), 1);
    event_record_release(entry.event);
    publish(5);
    assert_int_equal(wakes, 1);
    assert_gets(subscriber, 1, 5);
    publish(6);
    publish(7);
    assert_int_equal(wakes, 2);
    assert_gets(subscriber, 6, 2);
    assert_int_equal(bus_unsubscribe(subscriber), 0);
}

static void unsubscribing_releases_and_counts_what_was_not_fetched(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = 1 << 20};
    struct subscriber *subscriber = subscribe("s", 100, SIZE_MAX);
    for (int i = 0; i < 5; i++) {
        struct event_fields fields = {.id = SLICE("id")};
        struct body body;
        body_init(&body, &budget);
        assert_true(body_append(&body, SLICE("body")));
        struct event_record *event = event_record_new(&fields, &body, NULL, NULL);
        bus_publish(bus, event, NULL, NULL);
        event_record_release(event);
    }
    assert_int_equal(budget.used, 5 * 1024);
    struct bus_entry entries[2];
    assert_int_equal(bus_fetch(subscriber, entries, 2, SIZE_MAX), 2);
    bus_acknowledge(subscriber, entries[1].sequence);
    event_record_release(entries[0].event);
    event_record_release(entries[1].event);
    assert_int_equal(bus_unsubscribe(subscriber), 3);
    assert_int_equal(budget.used, 0);
    publish(1);
}

static void whoever_awaits_several_is_woken_when_they_are_there(void **state)
{
    (void)state;
    atomic_int wakes = 0;
    struct subscriber_settings settings = {
        .name = "s", .max_events = 20, .max_bytes = SIZE_MAX, .wake = count_wake, .wake_argument = &wakes};
    struct error error;
    struct subscriber *subscriber = bus_subscribe(bus, &settings, &error);
    assert_true(bus_await(subscriber, 3));
    publish(0);
    publish(1);
    assert_int_equal(wakes, 0);
    publish(2);
    publish(3);
    assert_int_equal(wakes, 1);
    assert_false(bus_await(subscriber, 4));
    publish(4);
    assert_int_equal(wakes, 1);
    assert_gets(subscriber, 0, 5);
    publish(0); /* a fetch that found nothing waits for one again */
    assert_int_equal(wakes, 2);
    assert_gets(subscriber, 0, 1);
    assert_true(bus_await(subscriber, 1000));
    for (int i = 0; i < 10; i++)
        publish(i);
    assert_int_equal(wakes, 2);
    publish(10); /* more than half of the queue */
    assert_int_equal(wakes, 3);
    assert_int_equal(bus_unsubscribe(subscriber), 11);
}

static void a_renewed_subscriber_keeps_its_queue_and_has_the_new_limits_and_wake(void **state)
{
    (void)state;
    struct subscriber *subscriber = subscribe("s", 4, SIZE_MAX);
    for (int i = 0; i < 4; i++)
        publish(i);
    atomic_int wakes = 0;
    struct subscriber_settings settings = {.name = "s",
                                           .max_events = 20,
                                           .max_bytes = SIZE_MAX,
                                           .dropped_by[BUS_DROP_BUFFER_FULL] = counter("dropped", "s"),
                                           .dropped = counter("all", "s"),
                                           .wake = count_wake,
                                           .wake_argument = &wakes};
    bus_renew(subscriber, &settings);
    for (int i = 4; i < 20; i++)
        publish(i);
    settings.max_events = 2;
    settings.max_bytes = 1;
    bus_renew(subscriber, &settings);
    publish(99);
    settings.max_events = 100;
    bus_renew(subscriber, &settings);
    publish(99);
    assert_int_equal(metric_value(counter("dropped", "s")), 2);
    assert_int_equal(metric_value(counter("all", "s")), 2);
    assert_gets(subscriber, 0, 20);
    settings.max_bytes = SIZE_MAX;
    bus_renew(subscriber, &settings);
    wakes = 0;
    publish(20);
    assert_int_equal(wakes, 1);
    assert_gets(subscriber, 20, 1);
    bus_unsubscribe(subscriber);
}

static void a_closed_subscriber_gets_nothing_more_but_what_is_queued(void **state)
{
    (void)state;
    struct subscriber *subscriber = subscribe("s", 100, SIZE_MAX), *other = subscribe("o", 100, SIZE_MAX);
    publish(0);
    bus_close(subscriber);
    publish(1);
    assert_int_equal(metric_value(counter("received", "s")), 1);
    assert_gets(subscriber, 0, 1);
    assert_gets(other, 0, 2);
    assert_int_equal(bus_unsubscribe(subscriber), 0);
    bus_unsubscribe(other);
}

static void remember(void *argument, bool stored)
{
    *(int *)argument = stored;
}

static void done_tells_whether_everybody_got_it(void **state)
{
    (void)state;
    struct event_record *event = event_with(1);
    int stored = -1;
    bus_publish(bus, event, remember, &stored);
    assert_int_equal(stored, true);
    struct subscriber *subscriber = subscribe("s", 1, SIZE_MAX);
    stored = -1;
    bus_publish(bus, event, remember, &stored);
    assert_int_equal(stored, true);
    bus_publish(bus, event, remember, &stored);
    assert_int_equal(stored, false);
    assert_int_equal(bus_unsubscribe(subscriber), 1);
    event_record_release(event);
}

static void a_queue_without_room_is_refused(void **state)
{
    (void)state;
    struct subscriber_settings settings = {.name = "s", .max_bytes = 1};
    struct error error = {{0}};
    assert_null(bus_subscribe(bus, &settings, &error));
    assert_true(error.message[0] != 0);
    const char *reason;
    assert_true(bus_is_healthy(bus, &reason));
    assert_true(bus_has_room(bus));
    assert_false(bus_keeps_events(bus));
}

/* What is written to stderr while the function runs, NUL-terminated, in text. */
static void capture_stderr(void (*run)(void), char *text, size_t size)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    int saved = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    run();
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    text[fread(text, 1, size - 1, file)] = 0;
    fclose(file);
}

static void publish_many(void)
{
    for (int i = 0; i < 50; i++)
        publish(i);
}

static void the_first_drop_is_logged_with_the_setting_and_a_flood_is_one_line(void **state)
{
    (void)state;
    static char text[4096];
    struct subscriber *subscriber = subscribe("audit", 2, SIZE_MAX);
    capture_stderr(publish_many, text, sizeof text);
    assert_non_null(strstr(text, "pipeline=audit"));
    assert_non_null(strstr(text, "observability.buffer_size"));
    size_t lines = 0;
    for (const char *c = text; *c != 0; c++)
        lines += *c == '\n';
    assert_in_range(lines, 1, 2);
    assert_int_equal(bus_unsubscribe(subscriber), 2);

    subscriber = subscribe("bytes", 100, 1);
    capture_stderr(publish_many, text, sizeof text);
    assert_non_null(strstr(text, "observability.buffer_bytes"));
    bus_unsubscribe(subscriber);
}

enum { PUBLISHERS = 4, EVENTS_EACH = 4000 };

/* A consumer that sleeps until it is woken. */
struct consumer {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    bool woken;
    int64_t got;
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
    for (int i = 0; i < EVENTS_EACH; i++)
        publish(i % 1000);
    return NULL;
}

static void *consume(void *argument)
{
    struct consumer *consumer = argument;
    struct bus_entry entries[32];
    uint64_t last = 0;
    for (;;) {
        size_t fetched = bus_fetch(consumer->subscriber, entries, 32, SIZE_MAX);
        for (size_t i = 0; i < fetched; i++) {
            assert_true(entries[i].sequence > last);
            last = entries[i].sequence;
            event_record_release(entries[i].event);
            bus_acknowledge(consumer->subscriber, last);
        }
        consumer->got += (int64_t)fetched;
        if (fetched > 0)
            continue;
        if (consumer->got == PUBLISHERS * EVENTS_EACH)
            return NULL;
        pthread_mutex_lock(&consumer->mutex);
        while (!consumer->woken)
            pthread_cond_wait(&consumer->condition, &consumer->mutex);
        consumer->woken = false;
        pthread_mutex_unlock(&consumer->mutex);
    }
}

/* Ends only if no wake-up is lost. The queue has room for everything. */
static void publishers_in_many_threads_lose_no_event_and_no_wake(void **state)
{
    (void)state;
    struct consumer consumer = {.mutex = PTHREAD_MUTEX_INITIALIZER, .condition = PTHREAD_COND_INITIALIZER};
    struct subscriber_settings settings = {
        .name = "threads",
        .max_events = PUBLISHERS * EVENTS_EACH,
        .max_bytes = SIZE_MAX,
        .received = counter("received", "threads"),
        .dropped_by[BUS_DROP_BUFFER_FULL] = counter("dropped", "threads"),
        .wake = wake_consumer,
        .wake_argument = &consumer,
    };
    struct error error;
    consumer.subscriber = bus_subscribe(bus, &settings, &error);
    pthread_t threads[PUBLISHERS], reader;
    pthread_create(&reader, NULL, consume, &consumer);
    for (int i = 0; i < PUBLISHERS; i++)
        pthread_create(&threads[i], NULL, publish_from_a_thread, NULL);
    /* Others come and go meanwhile. */
    for (int i = 0; i < 20; i++) {
        struct subscriber *other = subscribe("other", 1000000, SIZE_MAX);
        bus_unsubscribe(other);
    }
    for (int i = 0; i < PUBLISHERS; i++)
        pthread_join(threads[i], NULL);
    pthread_join(reader, NULL);
    assert_int_equal(consumer.got, PUBLISHERS * EVENTS_EACH);
    assert_int_equal(metric_value(counter("received", "threads")), PUBLISHERS * EVENTS_EACH);
    assert_int_equal(bus_unsubscribe(consumer.subscriber), 0);
}

static void full_queues_under_many_threads_count_every_event_once(void **state)
{
    (void)state;
    struct subscriber *subscriber = subscribe("full", 100, SIZE_MAX);
    pthread_t threads[PUBLISHERS];
    for (int i = 0; i < PUBLISHERS; i++)
        pthread_create(&threads[i], NULL, publish_from_a_thread, NULL);
    for (int i = 0; i < PUBLISHERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(bus_depth(subscriber), 100);
    assert_int_equal(metric_value(counter("dropped", "full")), PUBLISHERS * EVENTS_EACH - 100);
    assert_int_equal(bus_unsubscribe(subscriber), 100);
}

#define BUS_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(every_subscriber_gets_every_event_in_order),
        BUS_TEST(order_is_kept_while_the_ring_wraps_and_grows),
        BUS_TEST(the_newest_is_dropped_and_counted_when_a_queue_is_full),
        BUS_TEST(bytes_are_a_bound_too),
        BUS_TEST(a_fetch_stops_at_its_bytes_but_gives_at_least_one),
        BUS_TEST(a_burst_wakes_once_and_only_after_a_fetch_found_nothing),
        BUS_TEST(unsubscribing_releases_and_counts_what_was_not_fetched),
        BUS_TEST(whoever_awaits_several_is_woken_when_they_are_there),
        BUS_TEST(a_renewed_subscriber_keeps_its_queue_and_has_the_new_limits_and_wake),
        BUS_TEST(a_closed_subscriber_gets_nothing_more_but_what_is_queued),
        BUS_TEST(done_tells_whether_everybody_got_it),
        BUS_TEST(a_queue_without_room_is_refused),
        BUS_TEST(the_first_drop_is_logged_with_the_setting_and_a_flood_is_one_line),
        BUS_TEST(publishers_in_many_threads_lose_no_event_and_no_wake),
        BUS_TEST(full_queues_under_many_threads_count_every_event_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
