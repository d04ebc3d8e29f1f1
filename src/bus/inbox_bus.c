/*
 * Everything is used on the pipeline's thread but the two counts that whoever writes the metrics reads. The queue is a list: it is short, and what is in it was parsed a moment ago.
 */
#include "bus/inbox_bus.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/buffer.h"
#include "base/memory.h"

struct queued {
    STAILQ_ENTRY(queued) next;
    uint64_t sequence;
    struct event_record *event;
};

struct inbox {
    struct subscriber subscriber;
    struct subscriber_settings settings; /* with a name of its own */
    STAILQ_HEAD(, queued) queue;
    atomic_size_t count, owed;
    size_t bytes;
    uint64_t last_sequence;
    bool idle; /* the last fetch found nothing */
    size_t awaited;
    struct buffer acknowledged; /* sequences */
};

struct inbox_bus {
    struct bus bus;
    size_t subscribers;
};

static struct inbox *inbox_of(struct subscriber *subscriber)
{
    return container_of(subscriber, struct inbox, subscriber);
}

static const struct inbox *const_inbox_of(const struct subscriber *subscriber)
{
    return container_of(subscriber, const struct inbox, subscriber);
}

static struct inbox_bus *inbox_bus_of(struct bus *bus)
{
    return container_of(bus, struct inbox_bus, bus);
}

static size_t count_of(const struct inbox *inbox)
{
    return atomic_load_explicit(&inbox->count, memory_order_relaxed);
}

static bool is_enough(const struct inbox *inbox, size_t events)
{
    return count_of(inbox) >= events || inbox_room(&inbox->subscriber) == 0;
}

uint64_t inbox_put(struct subscriber *subscriber, struct event_record *event)
{
    struct inbox *inbox = inbox_of(subscriber);
    struct queued *queued = xcalloc(1, sizeof *queued);
    queued->event = event_record_reference(event);
    queued->sequence = ++inbox->last_sequence;
    STAILQ_INSERT_TAIL(&inbox->queue, queued, next);
    atomic_store_explicit(&inbox->count, count_of(inbox) + 1, memory_order_relaxed);
    inbox->bytes += event_memory(event);
    inbox_count_received(subscriber);
    if (inbox->idle && is_enough(inbox, inbox->awaited)) {
        inbox->idle = false;
        if (inbox->settings.wake != NULL)
            inbox->settings.wake(inbox->settings.wake_argument);
    }
    return queued->sequence;
}

size_t inbox_room(const struct subscriber *subscriber)
{
    const struct inbox *inbox = const_inbox_of(subscriber);
    size_t count = count_of(inbox);
    if (count >= inbox->settings.max_events || inbox->bytes >= inbox->settings.max_bytes)
        return 0;
    return inbox->settings.max_events - count;
}

void inbox_count_received(struct subscriber *subscriber)
{
    struct inbox *inbox = inbox_of(subscriber);
    size_t owed = atomic_load_explicit(&inbox->owed, memory_order_relaxed);
    while (owed > 0 && !atomic_compare_exchange_weak_explicit(&inbox->owed, &owed, owed - 1,
                                                              memory_order_relaxed, memory_order_relaxed))
        ;
    if (owed == 0 && inbox->settings.received != NULL)
        metric_add(inbox->settings.received, 1);
}

void inbox_owe(struct subscriber *subscriber, size_t events)
{
    atomic_fetch_add_explicit(&inbox_of(subscriber)->owed, events, memory_order_relaxed);
}

size_t inbox_owed(const struct subscriber *subscriber)
{
    return atomic_load_explicit(&const_inbox_of(subscriber)->owed, memory_order_relaxed);
}

size_t inbox_acknowledged_count(const struct subscriber *subscriber)
{
    return const_inbox_of(subscriber)->acknowledged.size / sizeof(uint64_t);
}

size_t inbox_acknowledged(struct subscriber *subscriber, uint64_t *sequences, size_t max)
{
    struct inbox *inbox = inbox_of(subscriber);
    size_t count = inbox_acknowledged_count(subscriber);
    if (count > max)
        count = max;
    if (count > 0)
        memcpy(sequences, buffer_data(&inbox->acknowledged), count * sizeof *sequences);
    buffer_consume(&inbox->acknowledged, count * sizeof *sequences);
    return count;
}

static void publish(struct bus *bus, struct event_record *event, bus_done done, void *argument)
{
    (void)bus;
    (void)event;
    (void)done;
    (void)argument;
    assert(false); /* nobody publishes to an inbox */
}

static struct subscriber *subscribe(struct bus *bus, const struct subscriber_settings *settings,
                                    struct error *error)
{
    (void)error;
    struct inbox *inbox = xcalloc(1, sizeof *inbox);
    inbox->subscriber.bus = bus;
    inbox->settings = *settings;
    inbox->settings.name = xstrdup(settings->name);
    inbox->idle = true;
    inbox->awaited = 1;
    STAILQ_INIT(&inbox->queue);
    inbox_bus_of(bus)->subscribers++;
    return &inbox->subscriber;
}

/* What is in it can only be acknowledged by whoever fetched it. */
static void renew(struct subscriber *subscriber, const struct subscriber_settings *settings)
{
    (void)subscriber;
    (void)settings;
    assert(false); /* an inbox has one owner */
}

/* It is its owner who stops fetching. */
static void close_subscriber(struct subscriber *subscriber)
{
    (void)subscriber;
}

static struct queued *remove_first(struct inbox *inbox)
{
    struct queued *first = STAILQ_FIRST(&inbox->queue);
    STAILQ_REMOVE_HEAD(&inbox->queue, next);
    return first;
}

static size_t unsubscribe(struct subscriber *subscriber)
{
    struct inbox *inbox = inbox_of(subscriber);
    inbox_bus_of(subscriber->bus)->subscribers--;
    while (!STAILQ_EMPTY(&inbox->queue)) {
        struct queued *queued = remove_first(inbox);
        event_record_release(queued->event);
        free(queued);
    }
    buffer_free(&inbox->acknowledged);
    free((void *)(uintptr_t)inbox->settings.name);
    free(inbox);
    return 0;
}

static size_t fetch(struct subscriber *subscriber, struct bus_entry *entries, size_t max, size_t max_bytes)
{
    struct inbox *inbox = inbox_of(subscriber);
    size_t fetched = 0, bytes = 0;
    inbox->idle = STAILQ_EMPTY(&inbox->queue);
    inbox->awaited = 1;
    while (fetched < max && !STAILQ_EMPTY(&inbox->queue)) {
        size_t memory = event_memory(STAILQ_FIRST(&inbox->queue)->event);
        if (fetched > 0 && bytes + memory > max_bytes)
            break;
        struct queued *queued = remove_first(inbox);
        entries[fetched++] = (struct bus_entry){.sequence = queued->sequence, .event = queued->event};
        bytes += memory;
        free(queued);
    }
    inbox->bytes -= bytes;
    atomic_store_explicit(&inbox->count, count_of(inbox) - fetched, memory_order_relaxed);
    return fetched;
}

static bool await(struct subscriber *subscriber, size_t events)
{
    struct inbox *inbox = inbox_of(subscriber);
    inbox->idle = !is_enough(inbox, events);
    inbox->awaited = events;
    return inbox->idle;
}

static void acknowledge(struct subscriber *subscriber, uint64_t sequence)
{
    buffer_append(&inbox_of(subscriber)->acknowledged, &sequence, sizeof sequence);
}

static size_t depth(const struct subscriber *subscriber)
{
    return count_of(const_inbox_of(subscriber));
}

/* Whether what it comes from can be reached is no reason to take no requests. */
static bool is_healthy(struct bus *bus, const char **reason)
{
    (void)bus;
    (void)reason;
    return true;
}

static bool has_room(struct bus *bus)
{
    (void)bus;
    return true;
}

static void free_bus(struct bus *bus)
{
    struct inbox_bus *inbox_bus = inbox_bus_of(bus);
    assert(inbox_bus->subscribers == 0);
    free(inbox_bus);
}

struct bus *inbox_bus_new(void)
{
    static const struct bus_operations operations = {
        .publish = publish,
        .subscribe = subscribe,
        .renew = renew,
        .close = close_subscriber,
        .unsubscribe = unsubscribe,
        .fetch = fetch,
        .await = await,
        .acknowledge = acknowledge,
        .depth = depth,
        .is_healthy = is_healthy,
        .has_room = has_room,
        .free = free_bus,
    };
    struct inbox_bus *inbox_bus = xcalloc(1, sizeof *inbox_bus);
    inbox_bus->bus.operations = &operations;
    inbox_bus->bus.keeps_events = true;
    return &inbox_bus->bus;
}
