/*
 * The memory bus. Each subscriber has a ring of events behind a mutex of its own, held for a few instructions only. The list of subscribers is read by every publisher at once and
 * changed when a pipeline comes or goes; wake is called under the read lock, so that nobody is woken after bus_unsubscribe or bus_close returned, and under no other. The lock prefers readers: a
 * publisher never waits for a change that waits for another publisher.
 */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/memory.h"
#include "bus/memory_bus.h"

#define SMALLEST_RING 16u

struct memory_subscriber {
    struct subscriber subscriber;
    struct memory_subscriber *next;
    struct subscriber_settings settings; /* with a name of its own */
    struct log_limit drop_log;

    pthread_mutex_t mutex;      /* for all below */
    struct event_record **ring; /* of capacity slots, the oldest at first */
    size_t capacity, first;
    atomic_size_t count; /* changed under the mutex, read by bus_depth without */
    size_t bytes;
    uint64_t next_sequence;
    bool idle;      /* the last fetch found nothing: the next event wakes, or */
    size_t awaited; /* the one that makes this many */
};

struct memory_bus {
    struct bus bus;
    pthread_rwlock_t lock;
    struct memory_subscriber *subscribers;
};

static struct memory_bus *memory_bus_of(struct bus *bus)
{
    return container_of(bus, struct memory_bus, bus);
}

static struct memory_subscriber *memory_subscriber_of(struct subscriber *subscriber)
{
    return container_of(subscriber, struct memory_subscriber, subscriber);
}

/* Called when the ring is full. */
static void grow(struct memory_subscriber *subscriber)
{
    size_t capacity = subscriber->capacity > 0 ? subscriber->capacity * 2 : SMALLEST_RING;
    if (capacity > subscriber->settings.max_events)
        capacity = subscriber->settings.max_events;
    struct event_record **ring = xcalloc(capacity, sizeof(struct event_record *));
    for (size_t i = 0; i < subscriber->capacity; i++)
        ring[i] = subscriber->ring[(subscriber->first + i) % subscriber->capacity];
    free(subscriber->ring);
    subscriber->ring = ring;
    subscriber->capacity = capacity;
    subscriber->first = 0;
}

/* Under the mutex. Half a queue is enough in any case: what comes meanwhile needs the other half. */
static bool is_enough(const struct memory_subscriber *subscriber, size_t events)
{
    size_t count = atomic_load_explicit(&subscriber->count, memory_order_relaxed);
    return count >= events || count > subscriber->settings.max_events / 2 ||
           subscriber->bytes > subscriber->settings.max_bytes / 2;
}

enum offer { QUEUED, TOO_MANY_EVENTS, TOO_MANY_BYTES };

static enum offer enqueue(struct memory_subscriber *subscriber, struct event_record *event, bool *wake)
{
    size_t memory = event_memory(event);
    enum offer offer = QUEUED;
    pthread_mutex_lock(&subscriber->mutex);
    size_t count = atomic_load_explicit(&subscriber->count, memory_order_relaxed);
    if (count >= subscriber->settings.max_events) {
        offer = TOO_MANY_EVENTS;
    } else if (subscriber->bytes >= subscriber->settings.max_bytes || /* by far, when the limit was lowered */
               memory > subscriber->settings.max_bytes - subscriber->bytes) {
        offer = TOO_MANY_BYTES;
    } else {
        if (count == subscriber->capacity)
            grow(subscriber);
        subscriber->ring[(subscriber->first + count) % subscriber->capacity] = event_record_reference(event);
        atomic_store_explicit(&subscriber->count, count + 1, memory_order_relaxed);
        subscriber->bytes += memory;
    }
    *wake = offer == QUEUED && subscriber->idle && is_enough(subscriber, subscriber->awaited);
    if (*wake)
        subscriber->idle = false;
    pthread_mutex_unlock(&subscriber->mutex);
    return offer;
}

static void report_drop(struct memory_subscriber *subscriber, enum offer offer)
{
    bus_count_drop(&subscriber->settings, BUS_DROP_BUFFER_FULL, 1);
    uint64_t suppressed;
    if (!log_limit_pass(&subscriber->drop_log, &suppressed))
        return;
    bool bytes = offer == TOO_MANY_BYTES;
    log_warn("event dropped: the pipeline's queue is full", log_string("pipeline", subscriber->settings.name),
             log_string("setting", bytes ? "observability.buffer_bytes" : "observability.buffer_size"),
             log_integer("limit",
                         (int64_t)(bytes ? subscriber->settings.max_bytes : subscriber->settings.max_events)),
             log_integer("dropped_since_last_line", (int64_t)suppressed + 1));
}

static void publish(struct bus *bus, struct event_record *event, bus_done done, void *argument)
{
    struct memory_bus *memory_bus = memory_bus_of(bus);
    bool stored = true;
    pthread_rwlock_rdlock(&memory_bus->lock);
    for (struct memory_subscriber *subscriber = memory_bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next) {
        if (subscriber->settings.received != NULL)
            metric_add(subscriber->settings.received, 1);
        bool wake;
        enum offer offer = enqueue(subscriber, event, &wake);
        if (wake && subscriber->settings.wake != NULL)
            subscriber->settings.wake(subscriber->settings.wake_argument);
        if (offer != QUEUED) {
            stored = false;
            report_drop(subscriber, offer);
        }
    }
    pthread_rwlock_unlock(&memory_bus->lock);
    if (done != NULL)
        done(argument, stored);
}

static struct subscriber *subscribe(struct bus *bus, const struct subscriber_settings *settings,
                                    struct error *error)
{
    if (settings->max_events == 0) {
        error_set(error, "a subscriber of the bus needs room for at least one event");
        return NULL;
    }
    struct memory_bus *memory_bus = memory_bus_of(bus);
    struct memory_subscriber *subscriber = xcalloc(1, sizeof *subscriber);
    subscriber->subscriber.bus = bus;
    subscriber->settings = *settings;
    subscriber->settings.name = xstrdup(settings->name);
    subscriber->next_sequence = 1;
    subscriber->idle = true;
    subscriber->awaited = 1;
    pthread_mutex_init(&subscriber->mutex, NULL);
    pthread_rwlock_wrlock(&memory_bus->lock);
    subscriber->next = memory_bus->subscribers;
    memory_bus->subscribers = subscriber;
    pthread_rwlock_unlock(&memory_bus->lock);
    return &subscriber->subscriber;
}

static void renew(struct subscriber *handle, const struct subscriber_settings *settings)
{
    struct memory_subscriber *subscriber = memory_subscriber_of(handle);
    struct memory_bus *memory_bus = memory_bus_of(handle->bus);
    pthread_rwlock_wrlock(&memory_bus->lock); /* publishers read the settings */
    pthread_mutex_lock(&subscriber->mutex);   /* so does the one who awaits events */
    const char *name = subscriber->settings.name;
    subscriber->settings = *settings;
    subscriber->settings.name = name;
    pthread_mutex_unlock(&subscriber->mutex);
    pthread_rwlock_unlock(&memory_bus->lock);
}

static void close_subscriber(struct subscriber *handle)
{
    struct memory_subscriber *subscriber = memory_subscriber_of(handle);
    struct memory_bus *memory_bus = memory_bus_of(handle->bus);
    pthread_rwlock_wrlock(&memory_bus->lock);
    struct memory_subscriber **link = &memory_bus->subscribers;
    while (*link != NULL && *link != subscriber)
        link = &(*link)->next;
    if (*link != NULL)
        *link = subscriber->next;
    pthread_rwlock_unlock(&memory_bus->lock);
}

static size_t unsubscribe(struct subscriber *handle)
{
    struct memory_subscriber *subscriber = memory_subscriber_of(handle);
    close_subscriber(handle);
    size_t count = atomic_load_explicit(&subscriber->count, memory_order_relaxed);
    for (size_t i = 0; i < count; i++)
        event_record_release(subscriber->ring[(subscriber->first + i) % subscriber->capacity]);
    pthread_mutex_destroy(&subscriber->mutex);
    free(subscriber->ring);
    free((void *)(uintptr_t)subscriber->settings.name);
    free(subscriber);
    return count;
}

static size_t fetch(struct subscriber *handle, struct bus_entry *entries, size_t max, size_t max_bytes)
{
    struct memory_subscriber *subscriber = memory_subscriber_of(handle);
    size_t fetched = 0, bytes = 0;
    pthread_mutex_lock(&subscriber->mutex);
    size_t count = atomic_load_explicit(&subscriber->count, memory_order_relaxed);
    while (fetched < max && fetched < count) {
        struct event_record *event = subscriber->ring[subscriber->first];
        size_t memory = event_memory(event);
        if (fetched > 0 && bytes + memory > max_bytes)
            break;
        subscriber->first = (subscriber->first + 1) % subscriber->capacity;
        subscriber->bytes -= memory;
        bytes += memory;
        entries[fetched++] = (struct bus_entry){.sequence = subscriber->next_sequence++, .event = event};
    }
    atomic_store_explicit(&subscriber->count, count - fetched, memory_order_relaxed);
    subscriber->idle = count == 0;
    subscriber->awaited = 1;
    pthread_mutex_unlock(&subscriber->mutex);
    return fetched;
}

static bool await(struct subscriber *handle, size_t events)
{
    struct memory_subscriber *subscriber = memory_subscriber_of(handle);
    pthread_mutex_lock(&subscriber->mutex);
    subscriber->idle = !is_enough(subscriber, events);
    subscriber->awaited = events;
    bool waits = subscriber->idle;
    pthread_mutex_unlock(&subscriber->mutex);
    return waits;
}

/* What was fetched is not here any more. */
static void acknowledge(struct subscriber *handle, uint64_t sequence)
{
    (void)handle;
    (void)sequence;
}

static size_t depth(const struct subscriber *handle)
{
    const struct memory_subscriber *subscriber =
        container_of(handle, const struct memory_subscriber, subscriber);
    return atomic_load_explicit(&subscriber->count, memory_order_relaxed);
}

static bool is_healthy(struct bus *bus, const char **reason)
{
    (void)bus;
    (void)reason;
    return true;
}

/* A pipeline's queue that is full is its own matter. */
static bool has_room(struct bus *bus)
{
    (void)bus;
    return true;
}

static void free_bus(struct bus *bus)
{
    struct memory_bus *memory_bus = memory_bus_of(bus);
    assert(memory_bus->subscribers == NULL);
    pthread_rwlock_destroy(&memory_bus->lock);
    free(memory_bus);
}

struct bus *memory_bus_new(void)
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
    struct memory_bus *memory_bus = xcalloc(1, sizeof *memory_bus);
    memory_bus->bus.operations = &operations;
    pthread_rwlock_init(&memory_bus->lock, NULL);
    return &memory_bus->bus;
}
