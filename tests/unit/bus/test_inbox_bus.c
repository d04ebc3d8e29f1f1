/* What is put into an inbox is fetched once, in order, and told when it is acknowledged; what is owed is not received twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/inbox_bus.h"

struct inbox_test {
    struct metrics *metrics;
    struct metric *received;
    struct bus *bus;
    struct subscriber *subscriber;
    unsigned woken;
};

static void count_wake(void *argument)
{
    ((struct inbox_test *)argument)->woken++;
}

static void start(struct inbox_test *test, size_t max_events)
{
    struct error error;
    *test = (struct inbox_test){.metrics = metrics_new(), .bus = inbox_bus_new()};
    test->received = metrics_counter(test->metrics, "received", "", (struct metric_label[]){{NULL, NULL}});
    const struct subscriber_settings settings = {.name = "a",
                                                 .max_events = max_events,
                                                 .max_bytes = 1 << 20,
                                                 .received = test->received,
                                                 .wake = count_wake,
                                                 .wake_argument = test};
    test->subscriber = bus_subscribe(test->bus, &settings, &error);
    assert_non_null(test->subscriber);
}

static void stop(struct inbox_test *test)
{
    assert_int_equal(bus_unsubscribe(test->subscriber), 0);
    bus_free(test->bus);
    metrics_free(test->metrics);
}

static uint64_t put(struct inbox_test *test)
{
    struct body request, response, tail;
    body_init(&request, NULL);
    body_init(&response, NULL);
    body_init(&tail, NULL);
    const struct event_fields fields = {.id = SLICE("x")};
    struct event_record *event = event_record_new(&fields, &request, &response, &tail);
    uint64_t sequence = inbox_put(test->subscriber, event);
    event_record_release(event);
    return sequence;
}

static void fetched_in_order_and_told_when_acknowledged(void **state)
{
    (void)state;
    struct inbox_test test;
    struct bus_entry entries[3];
    uint64_t told[3];
    start(&test, 10);
    for (uint64_t i = 1; i <= 3; i++)
        assert_int_equal(put(&test), i);
    assert_int_equal(test.woken, 1);
    assert_int_equal(bus_depth(test.subscriber), 3);
    assert_int_equal(bus_fetch(test.subscriber, entries, 2, SIZE_MAX), 2);
    assert_int_equal(entries[0].sequence, 1);
    assert_int_equal(entries[1].sequence, 2);
    assert_int_equal(bus_depth(test.subscriber), 1);
    bus_acknowledge(test.subscriber, 2);
    bus_acknowledge(test.subscriber, 1);
    assert_int_equal(inbox_acknowledged_count(test.subscriber), 2);
    assert_int_equal(inbox_acknowledged(test.subscriber, told, 1), 1);
    assert_int_equal(told[0], 2);
    assert_int_equal(inbox_acknowledged(test.subscriber, told, 3), 1);
    assert_int_equal(told[0], 1);
    assert_int_equal(inbox_acknowledged(test.subscriber, told, 3), 0);
    event_record_release(entries[0].event);
    event_record_release(entries[1].event);
    stop(&test);
}

static void room_is_what_the_limit_leaves(void **state)
{
    (void)state;
    struct inbox_test test;
    struct bus_entry entry;
    start(&test, 2);
    assert_int_equal(inbox_room(test.subscriber), 2);
    put(&test);
    assert_int_equal(inbox_room(test.subscriber), 1);
    put(&test);
    put(&test); /* it was fetched already */
    assert_int_equal(inbox_room(test.subscriber), 0);
    assert_false(bus_await(test.subscriber, 10));
    assert_int_equal(bus_fetch(test.subscriber, &entry, 1, 0), 1);
    event_record_release(entry.event);
    assert_int_equal(inbox_room(test.subscriber), 0);
    stop(&test);
}

static void what_is_owed_is_not_received_again(void **state)
{
    (void)state;
    struct inbox_test test;
    start(&test, 10);
    inbox_owe(test.subscriber, 2);
    put(&test);
    inbox_count_received(test.subscriber);
    assert_int_equal(inbox_owed(test.subscriber), 0);
    assert_int_equal(metric_value(test.received), 0);
    put(&test);
    assert_int_equal(metric_value(test.received), 1);
    stop(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fetched_in_order_and_told_when_acknowledged),
        cmocka_unit_test(room_is_what_the_limit_leaves),
        cmocka_unit_test(what_is_owed_is_not_received_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
