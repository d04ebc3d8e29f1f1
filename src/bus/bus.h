/*
 * bus: between the workers, which publish events, and the pipelines, which consume them. This is the interface; memory_bus.h makes one (a disk bus and brokers implement the same).
 *
 * Publishing never blocks and never fails loudly: each subscriber gets the event or counts a drop. A subscriber has a cursor of its own, fetches, and acknowledges each event when
 * it is through with it; events that were fetched but not acknowledged may come again after a restart where the bus survives one.
 *
 * Threads: bus_publish from any; one subscriber's functions from one thread at a time; wake is called on a publisher's thread and must not block, subscribe or unsubscribe; it is
 * never called after bus_unsubscribe() or bus_close() returned.
 */
#ifndef BUS_BUS_H
#define BUS_BUS_H

#include "base/metrics.h"
#include "event/event.h"

struct bus;
struct subscriber;

/* Called once for a published event, when it is as safe as this bus makes it (stored = true), or a subscriber lost it before that (false). Any thread, also within bus_publish. */
typedef void (*bus_done)(void *argument, bool stored);

/* Shares the event (takes a reference of its own for each subscriber that queues it). done may be NULL. */
void bus_publish(struct bus *bus, struct event_record *event, bus_done done, void *argument);

/* Why a bus drops an event for a subscriber. */
enum bus_drop {
    BUS_DROP_BUFFER_FULL, /* no room in the queue */
    BUS_DROP_TOO_LARGE,   /* for any queue or log */
    BUS_DROP_DISK_FULL,
    BUS_DROP_DISK_FAILED,
    BUS_DROP_DAMAGED, /* what was stored cannot be read */
    BUS_DROP_LAGGED,  /* the subscriber held too much */
    BUS_DROP_EXPIRED, /* too old */
    BUS_DROP_COUNT
};

/* As it is called in metrics and logs: "buffer_full". */
const char *bus_drop_name(enum bus_drop drop);

struct subscriber_settings {
    const char *name;  /* the pipeline's: keeps its cursor */
    size_t max_events; /* not yet fetched; memory bus */
    size_t max_bytes;  /* of event_memory; an event larger than this alone is dropped; memory bus */
    bool from_oldest;  /* a new name begins with what is stored, not with what comes */
    struct metric
        *received; /* every event offered, what was found waiting at the subscription included; may be NULL */
    struct metric *dropped;                    /* what was received and never given out; may be NULL */
    struct metric *dropped_by[BUS_DROP_COUNT]; /* the same by reason; each may be NULL */
    void (*wake)(void *argument); /* something can be fetched after a fetch found nothing; coalesced */
    void *wake_argument;
};

/* NULL: *error says why. Strings are copied. */
struct subscriber *bus_subscribe(struct bus *bus, const struct subscriber_settings *settings,
                                 struct error *error);
/* The same subscriber, with what is queued, under other settings (but the name): who fetched from it before does so no more. */
void bus_renew(struct subscriber *subscriber, const struct subscriber_settings *settings);
/* Gets no more events. What is queued can still be fetched. */
void bus_close(struct subscriber *subscriber);
/* Events that were not fetched are dropped, or stay where the bus keeps events. Returns how many were dropped, those included that were fetched and that the bus has given up since (age, room): they do not come again; references that were fetched stay the caller's. */
size_t bus_unsubscribe(struct subscriber *subscriber);

struct bus_entry {
    uint64_t sequence;          /* ascending for this subscriber */
    struct event_record *event; /* the caller's reference */
};

/* At most max entries, and no more when max_bytes (of event_memory) is reached (but at least one if there is any). Never waits; 0 when there is nothing: wake comes later. */
size_t bus_fetch(struct subscriber *subscriber, struct bus_entry *entries, size_t max, size_t max_bytes);
/* After a fetch that found nothing: wake is called when that many events can be fetched, or half of what the queue takes, and not at the first one. False: so many can be fetched already, and wake is not called. */
bool bus_await(struct subscriber *subscriber, size_t events);
/* Through with this one, in any order. */
void bus_acknowledge(struct subscriber *subscriber, uint64_t sequence);
/* Offered and not yet fetched. Any thread. */
size_t bus_depth(const struct subscriber *subscriber);

/* False: it will not take events any more, *reason (static) says why: not ready (/readyz). Any thread. */
bool bus_is_healthy(struct bus *bus, const char **reason);
/* Would an event published now be taken? Cheap; any thread. For those who would rather refuse a request than lose its event. */
bool bus_has_room(struct bus *bus);
/* Whether what is not acknowledged, fetched or not, comes again after a restart of the process, so that nothing is lost when it ends. */
bool bus_keeps_events(const struct bus *bus);
/* No subscriber may be left. */
void bus_free(struct bus *bus);

/* For implementations. */
struct bus_operations {
    void (*publish)(struct bus *bus, struct event_record *event, bus_done done, void *argument);
    struct subscriber *(*subscribe)(struct bus *bus, const struct subscriber_settings *settings,
                                    struct error *error);
    void (*renew)(struct subscriber *subscriber, const struct subscriber_settings *settings);
    void (*close)(struct subscriber *subscriber);
    size_t (*unsubscribe)(struct subscriber *subscriber);
    size_t (*fetch)(struct subscriber *subscriber, struct bus_entry *entries, size_t max, size_t max_bytes);
    bool (*await)(struct subscriber *subscriber, size_t events);
    void (*acknowledge)(struct subscriber *subscriber, uint64_t sequence);
    size_t (*depth)(const struct subscriber *subscriber);
    bool (*is_healthy)(struct bus *bus, const char **reason);
    bool (*has_room)(struct bus *bus);
    void (*free)(struct bus *bus);
};

/* Counts events that are dropped for a subscriber, in both of its counters. */
void bus_count_drop(const struct subscriber_settings *settings, enum bus_drop drop, size_t count);

struct bus {
    const struct bus_operations *operations;
    bool keeps_events;
};

struct subscriber {
    struct bus *bus;
};

#endif
