/* What became of events, counted for each subscriber: so that received = given out + dropped + waiting holds whatever the disk does. */
#include <assert.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "bus/disk_state.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

void disk_count_written(struct disk_bus *bus, size_t count)
{
    assert(count <= bus->unwritten);
    bus->unwritten -= count;
    bus->last += count;
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next) {
        size_t own = smaller(count, subscriber->coming);
        subscriber->coming -= own;
        subscriber->end += own;
    }
}

void disk_count_retired(struct disk_bus *bus)
{
    bus->unwritten += (size_t)(bus->last - bus->durable);
    bus->last = bus->durable;
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next) {
        if (!subscriber->closed || subscriber->end <= bus->durable)
            continue;
        subscriber->coming += (size_t)(subscriber->end - bus->durable);
        subscriber->end = bus->durable;
    }
}

void disk_count_lost(struct disk_bus *bus, size_t count, enum bus_drop drop)
{
    assert(count <= bus->unwritten);
    bus->unwritten -= count;
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next) {
        size_t own = count;
        if (subscriber->closed) {
            own = smaller(count, subscriber->coming);
            subscriber->coming -= own;
        }
        bus_count_drop(&subscriber->settings, drop, own);
    }
}

uint64_t disk_move_subscriber(struct disk_subscriber *subscriber, uint64_t sequence, enum bus_drop drop)
{
    uint64_t limit = disk_fetch_limit(subscriber);
    if (sequence > limit)
        sequence = limit;
    if (sequence > subscriber->floor)
        subscriber->floor = sequence;
    if (sequence <= subscriber->position)
        return 0;
    uint64_t skipped = sequence - subscriber->position;
    subscriber->position = sequence;
    bus_count_drop(&subscriber->settings, drop, (size_t)skipped);
    return skipped;
}

uint64_t disk_fetch_limit(const struct disk_subscriber *subscriber)
{
    uint64_t durable = disk_bus_of(subscriber->subscriber.bus)->durable;
    return subscriber->closed && subscriber->end < durable ? subscriber->end : durable;
}

uint64_t disk_available(const struct disk_subscriber *subscriber)
{
    uint64_t limit = disk_fetch_limit(subscriber);
    if (limit <= subscriber->position || limit == subscriber->unreadable)
        return 0;
    return limit - subscriber->position;
}

uint64_t disk_finished(const struct disk_subscriber *subscriber)
{
    uint64_t finished = subscriber->position;
    if (subscriber->lowest != NOTHING_OUTSTANDING && subscriber->lowest <= finished)
        finished = subscriber->lowest - 1;
    return finished > subscriber->floor ? finished : subscriber->floor;
}

void disk_call_keeper(struct disk_bus *bus)
{
    bus->keeper_wanted = true;
    pthread_cond_signal(&bus->keeper_condition);
}

void disk_wait(struct disk_bus *bus, pthread_cond_t *condition, uint64_t until_ns)
{
    if (until_ns == UINT64_MAX) {
        pthread_cond_wait(condition, &bus->mutex);
        return;
    }
    struct timespec until = {.tv_sec = (time_t)(until_ns / NANOSECONDS_PER_SECOND),
                             .tv_nsec = (long)(until_ns % NANOSECONDS_PER_SECOND)};
    pthread_cond_timedwait(condition, &bus->mutex, &until);
}

void disk_refuse(struct disk_bus *bus)
{
    atomic_store_explicit(&bus->full, true, memory_order_relaxed);
    pthread_cond_broadcast(&bus->settled);
}

const char *disk_full_setting(const struct disk_bus *bus)
{
    return bus->full_by_limit ? "observability.bus.max_bytes" : "observability.bus.path";
}

void disk_report_drop(struct disk_bus *bus, enum bus_drop drop, uint64_t count, const char *setting,
                      const char *pipeline, uint64_t last_sequence)
{
    if (count == 0)
        return;
    struct drop_log *drop_log = &bus->drop_logs[drop];
    atomic_fetch_add_explicit(&drop_log->dropped, count, memory_order_relaxed);
    uint64_t suppressed;
    if (!log_limit_pass(&drop_log->limit, &suppressed))
        return;
    struct log_field fields[6];
    size_t used = 0;
    fields[used++] = log_string("reason", bus_drop_name(drop));
    if (pipeline != NULL)
        fields[used++] = log_string("pipeline", pipeline);
    if (last_sequence > 0)
        fields[used++] = log_integer("up_to_sequence", (int64_t)last_sequence);
    if (setting != NULL)
        fields[used++] = log_string("setting", setting);
    fields[used++] =
        log_integer("dropped_since_last_line",
                    (int64_t)atomic_exchange_explicit(&drop_log->dropped, 0, memory_order_relaxed));
    fields[used] = (struct log_field){.name = NULL};
    static const char *const messages[BUS_DROP_COUNT] = {
        [BUS_DROP_BUFFER_FULL] = "event dropped: the queue in front of the disk is full",
        [BUS_DROP_TOO_LARGE] = "event dropped: it is too large for the bus on disk",
        [BUS_DROP_DISK_FULL] = "events dropped: there is no room on disk",
        [BUS_DROP_DISK_FAILED] = "events dropped: the log on disk has failed",
        [BUS_DROP_DAMAGED] = "events dropped: what is on disk is damaged",
        [BUS_DROP_LAGGED] =
            "events dropped: the pipeline holds more than half of the bus while others do not",
        [BUS_DROP_EXPIRED] = "events dropped: they are too old",
    };
    log_write(LOG_WARN, slice_of(messages[drop]), fields);
}

void disk_release(struct disk_bus *bus, struct batch *batches, bool stored)
{
    while (batches != NULL) {
        struct batch *batch = batches;
        batches = batch->next;
        for (size_t i = 0; i < batch->count; i++) {
            struct pending *pending = &batch->events[i];
            atomic_fetch_sub_explicit(&bus->held_memory, event_memory(pending->event), memory_order_relaxed);
            event_record_release(pending->event);
            if (pending->done != NULL)
                pending->done(pending->argument, stored);
        }
        free(batch);
    }
}
