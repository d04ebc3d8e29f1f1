/*
 * The threads that bring events to the disk. The writer alone changes the log; what it does next is a function of the state (next_step), and each step begins and ends with the mutex.
 *
 * A worker wakes the writer only when it sleeps without an end; while events come it wakes by itself, each half interval. The syncer runs beside it: a slow fdatasync delays no write, only the memory of what is
 * held grows, up to the queue's bound.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "bus/disk_state.h"

enum step { REST, WRITE, ROTATE, RETIRE, GIVE_UP, END };

bool disk_is_much(const struct disk_bus *bus)
{
    size_t queued = atomic_load_explicit(&bus->queued, memory_order_relaxed);
    return queued > bus->settings.queue_events / 2 || bus->queued_stored >= bus->gathered;
}

/* ---- writer ---- */

/* What the writer does now, or at *until at the latest if nothing happens before. */
static enum step next_step(struct disk_bus *bus, uint64_t now, uint64_t *until)
{
    *until = UINT64_MAX;
    bus->writer_sleep = WRITER_AWAKE;
    size_t queued = atomic_load_explicit(&bus->queued, memory_order_relaxed);
    bool waits = bus->unwritten > 0 || bus->last > bus->durable;
    if (bus->failed) {
        if (waits)
            return bus->syncing ? REST : GIVE_UP;
        return bus->stopping ? END : REST;
    }
    if (bus->stopping && !waits)
        return END;
    if (now < bus->retry_ns) {
        *until = bus->retry_ns;
        return REST;
    }
    if (bus->retire)
        return bus->syncing ? REST : RETIRE;
    if (bus->rotate)
        return ROTATE;
    if (bus->again.first != NULL)
        return WRITE;
    if (queued == 0) {
        if (now < bus->write_due_ns) {
            bus->writer_sleep = WRITER_DOZES;
            *until = bus->write_due_ns;
        } else {
            bus->writer_sleep = WRITER_IDLE;
            bus->write_due_ns = 0;
        }
        return REST;
    }
    if (bus->write_due_ns == 0)
        bus->write_due_ns = now + bus->half_interval_ns;
    if (now >= bus->write_due_ns || disk_is_much(bus) || bus->stopping || bus->flushing > 0)
        return WRITE;
    bus->writer_sleep = WRITER_DOZES;
    *until = bus->write_due_ns;
    return REST;
}

/* Takes the oldest events of the queue; at least one. */
static struct batch *take_from_queue(struct disk_bus *bus, struct batch *batch)
{
    size_t queued = atomic_load_explicit(&bus->queued, memory_order_relaxed);
    batch->count = batch->stored = 0;
    while (batch->count < queued && batch->count < DISK_BATCH_EVENTS) {
        struct pending *pending = &bus->queue[bus->queue_first];
        size_t stored = disk_stored_size(pending->event);
        if (batch->count > 0 && batch->stored + stored > DISK_BATCH_BYTES)
            break;
        batch->events[batch->count++] = *pending;
        batch->stored += stored;
        if (++bus->queue_first == bus->settings.queue_events)
            bus->queue_first = 0;
    }
    bus->queued_stored -= batch->stored;
    atomic_store_explicit(&bus->queued, queued - batch->count, memory_order_relaxed);
    return batch;
}

static struct batch *batch_new(size_t count)
{
    return xmalloc(sizeof(struct batch) + count * sizeof(struct pending));
}

/* Takes the events behind the first count out of the batch into one of their own. */
static struct batch *split(struct batch *batch, size_t count)
{
    if (count == batch->count)
        return NULL;
    struct batch *rest = batch_new(batch->count - count);
    rest->count = batch->count - count;
    memcpy(rest->events, batch->events + count, rest->count * sizeof rest->events[0]);
    rest->stored = 0;
    for (size_t i = 0; i < rest->count; i++)
        rest->stored += disk_stored_size(rest->events[i].event);
    batch->stored -= rest->stored;
    batch->count = count;
    return rest;
}

static bool add_event(struct event_log *log, const struct event_record *event)
{
    struct iovec some[64], *pieces = some;
    size_t count = event_pieces(event, some, 64);
    if (count > 64) {
        pieces = xcalloc(count, sizeof *pieces);
        event_pieces(event, pieces, count);
    }
    bool added = event_log_add(log, pieces, count);
    if (pieces != some)
        free(pieces);
    return added;
}

/* Writes the batch's first events, those that have a place in the present segment: *count of them. */
static enum event_log_result write_batch(struct disk_bus *bus, const struct batch *batch, size_t *count)
{
    *count = 0;
    while (*count < batch->count && add_event(bus->log, batch->events[*count].event))
        ++*count;
    enum event_log_result result = *count > 0 ? event_log_write(bus->log) : EVENT_LOG_DONE;
    if (result != EVENT_LOG_DONE)
        *count = 0;
    return result;
}

/* The bytes of the present segment. */
static uint64_t present_bytes(const struct disk_bus *bus)
{
    struct event_log_segment *segments = NULL;
    size_t count = 0, room;
    do {
        room = count;
        segments = xrealloc(segments, (room + 1) * sizeof *segments);
        count = event_log_segments(bus->log, segments, room);
    } while (count > room);
    uint64_t bytes = count > 0 ? segments[count - 1].bytes : 0;
    free(segments);
    return bytes;
}

/* May the present segment, or one more, grow to its full size? An event that is larger makes one alone. */
static bool has_room(const struct disk_bus *bus, uint64_t size, bool another)
{
    uint64_t bytes = event_log_bytes(bus->log), most = bus->settings.max_bytes;
    if (bytes + size <= most)
        return true;
    return !another && bytes - present_bytes(bus) + size <= most;
}

/* What a segment takes that the event is in. */
static uint64_t room_for(const struct disk_bus *bus, const struct batch *batch)
{
    size_t stored = batch != NULL ? disk_stored_size(batch->events[0].event) : 0;
    return stored + DISK_SEGMENT_HEAD > bus->segment_bytes ? stored + DISK_SEGMENT_HEAD : bus->segment_bytes;
}

/* Gives up all that is unwritten. Takes the mutex away for a while. */
static void lose_unwritten(struct disk_bus *bus, enum bus_drop drop, const char *setting)
{
    struct batches lost;
    batches_init(&lost);
    while (bus->again.first != NULL) {
        struct batch *batch = bus->again.first;
        bus->again.first = batch->next;
        batches_append(&lost, batch);
    }
    batches_init(&bus->again);
    while (atomic_load_explicit(&bus->queued, memory_order_relaxed) > 0)
        batches_append(&lost, take_from_queue(bus, batch_new(DISK_BATCH_EVENTS)));
    size_t count = bus->unwritten;
    disk_count_lost(bus, count, drop);
    pthread_mutex_unlock(&bus->mutex);
    disk_report_drop(bus, drop, count, setting, NULL, 0);
    disk_release(bus, lost.first, false);
    pthread_mutex_lock(&bus->mutex);
    pthread_cond_broadcast(&bus->settled);
}

/* What is held goes in front of what is to be written. */
static void give_back_held(struct disk_bus *bus)
{
    disk_count_retired(bus);
    if (bus->held.first != NULL) {
        *bus->held.end = bus->again.first;
        if (bus->again.first == NULL)
            bus->again.end = bus->held.end;
        bus->again.first = bus->held.first;
        batches_init(&bus->held);
    }
    bus->sync_due_ns = 0;
    bus->unsynced = 0;
}

/* On a full disk the present segment may be all there is, and delivered: its room is the next one's. Takes the mutex away for a while. */
static bool take_own_room(struct disk_bus *bus)
{
    if (bus->retire || bus->held.first != NULL || bus->durable != bus->last || bus->finished < bus->last)
        return false;
    pthread_mutex_unlock(&bus->mutex);
    bool emptied = event_log_empty(bus->log);
    pthread_mutex_lock(&bus->mutex);
    bus->rotate = bus->rotate || emptied;
    return emptied;
}

/* There is no room for so many bytes: asks for some, and tries again. Takes the mutex away for a while. */
static void handle_full(struct disk_bus *bus, uint64_t size, bool by_limit)
{
    if (!by_limit && take_own_room(bus))
        return;
    bus->full_by_limit = by_limit;
    if (bus->stopping) {
        if (bus->retire)
            give_back_held(bus);
        bus->retire = bus->rotate = false;
        lose_unwritten(bus, BUS_DROP_DISK_FULL, disk_full_setting(bus));
        return;
    }
    bus->retry_ns = clock_monotonic_ns() + DISK_RETRY_NS;
    bus->room_bytes = size;
    if (bus->settings.drop_oldest) {
        bus->room_wanted = true;
        disk_call_keeper(bus);
    } else {
        disk_refuse(bus);
    }
}

/* Takes the mutex away for a while. */
static void handle_failure(struct disk_bus *bus)
{
    bus->retry_ns = clock_monotonic_ns() + DISK_RETRY_NS;
    if (++bus->failures != DISK_FAILURES_IN_A_ROW)
        return;
    atomic_store_explicit(&bus->failed, true, memory_order_relaxed);
    pthread_mutex_unlock(&bus->mutex);
    log_error("the log on disk has failed: events are dropped until the program is started again",
              log_string("path", bus->settings.path));
    pthread_mutex_lock(&bus->mutex);
}

/* The present segment is not to be touched any more. However many find that out, it is one failure. Takes the mutex away for a while. */
static void give_up_segment(struct disk_bus *bus)
{
    if (bus->retire)
        return;
    bus->retire = true;
    handle_failure(bus);
}

static void handle(struct disk_bus *bus, enum event_log_result result, uint64_t size, bool by_limit)
{
    bus->room_bytes = 0;
    if (result == EVENT_LOG_DONE)
        atomic_store_explicit(&bus->full, false, memory_order_relaxed);
    else if (result == EVENT_LOG_FULL)
        handle_full(bus, size, by_limit);
    else if (result == EVENT_LOG_BUSY && !bus->stopping) /* it says nothing about the disk */
        bus->retry_ns = clock_monotonic_ns() + DISK_RETRY_NS;
    else
        handle_failure(bus);
}

static void write_step(struct disk_bus *bus, uint64_t now)
{
    struct batch *batch = bus->again.first;
    if (batch != NULL) {
        bus->again.first = batch->next;
        if (bus->again.first == NULL)
            batches_init(&bus->again);
    } else {
        pthread_mutex_unlock(&bus->mutex);
        batch = batch_new(DISK_BATCH_EVENTS);
        pthread_mutex_lock(&bus->mutex);
        take_from_queue(bus, batch);
        if (atomic_load_explicit(&bus->queued, memory_order_relaxed) == 0)
            bus->write_due_ns = now + bus->half_interval_ns;
    }
    pthread_mutex_unlock(&bus->mutex);
    size_t count = 0;
    uint64_t size = room_for(bus, batch);
    bool room = has_room(bus, size, false);
    enum event_log_result result = room ? write_batch(bus, batch, &count) : EVENT_LOG_FULL;
    struct batch *rest = split(batch, count);
    if (count == 0) {
        free(batch);
        batch = NULL;
    }
    pthread_mutex_lock(&bus->mutex);
    if (batch != NULL) {
        disk_count_written(bus, count);
        assert(bus->last == event_log_last(bus->log));
        batch->last = bus->last;
        batches_append(&bus->held, batch);
        bus->unsynced += batch->stored;
        if (bus->sync_due_ns == 0)
            bus->sync_due_ns = now + bus->half_interval_ns;
    }
    if (rest != NULL)
        batches_prepend(&bus->again, rest);
    if (result == EVENT_LOG_DONE)
        bus->rotate = rest != NULL;
    if (result == EVENT_LOG_FAILED)
        give_up_segment(bus);
    else
        handle(bus, result, size, !room);
    pthread_cond_signal(&bus->syncer_condition);
}

static void rotate_step(struct disk_bus *bus)
{
    uint64_t size = room_for(bus, bus->again.first);
    pthread_mutex_unlock(&bus->mutex);
    bool room = has_room(bus, size, true);
    enum event_log_result result = room ? event_log_rotate(bus->log) : EVENT_LOG_FULL;
    pthread_mutex_lock(&bus->mutex);
    bus->rotate = bus->rotate && result != EVENT_LOG_DONE;
    bus->rotated = bus->rotated || result == EVENT_LOG_DONE;
    if (result == EVENT_LOG_FAILED)
        give_up_segment(bus);
    else
        handle(bus, result, size, !room);
    pthread_cond_signal(&bus->syncer_condition);
    disk_call_keeper(bus);
}

static void retire_step(struct disk_bus *bus)
{
    uint64_t durable = bus->durable;
    pthread_mutex_unlock(&bus->mutex);
    enum event_log_result result = event_log_retire(bus->log, durable);
    pthread_mutex_lock(&bus->mutex);
    if (result == EVENT_LOG_DONE) {
        bus->retire = bus->rotate = false;
        give_back_held(bus);
    }
    handle(bus, result, bus->segment_bytes, false);
}

void *disk_write_events(void *argument)
{
    struct disk_bus *bus = argument;
    pthread_mutex_lock(&bus->mutex);
    for (;;) {
        uint64_t now = clock_monotonic_ns(), until;
        switch (next_step(bus, now, &until)) {
        case REST:
            disk_wait(bus, &bus->writer_condition, until);
            break;
        case WRITE:
            write_step(bus, now);
            break;
        case ROTATE:
            rotate_step(bus);
            break;
        case RETIRE:
            retire_step(bus);
            break;
        case GIVE_UP:
            give_back_held(bus);
            lose_unwritten(bus, BUS_DROP_DISK_FAILED, NULL);
            break;
        case END:
            pthread_mutex_unlock(&bus->mutex);
            return NULL;
        }
    }
}

/* ---- syncer ---- */

static bool sync_is_due(const struct disk_bus *bus, uint64_t now)
{
    return now >= bus->sync_due_ns || bus->unsynced >= bus->gathered || bus->stopping || bus->flushing > 0 ||
           atomic_load_explicit(&bus->held_memory, memory_order_relaxed) > bus->settings.queue_bytes / 2;
}

void disk_wake_subscribers(struct disk_bus *bus)
{
    pthread_mutex_lock(&bus->waking);
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next) {
        pthread_mutex_lock(&bus->mutex);
        bool wake = subscriber->idle && !subscriber->closed &&
                    disk_available(subscriber) >= (uint64_t)subscriber->awaited;
        if (wake)
            subscriber->idle = false;
        pthread_mutex_unlock(&bus->mutex);
        if (wake && subscriber->settings.wake != NULL)
            subscriber->settings.wake(subscriber->settings.wake_argument);
    }
    pthread_mutex_unlock(&bus->waking);
}

/* Takes the batches that are durable. */
static struct batch *take_durable(struct disk_bus *bus)
{
    struct batch *durable = bus->held.first, **link = &bus->held.first;
    while (*link != NULL && (*link)->last <= bus->durable)
        link = &(*link)->next;
    if (link == &bus->held.first)
        return NULL;
    bus->held.first = *link;
    *link = NULL;
    if (bus->held.first == NULL)
        batches_init(&bus->held);
    return durable;
}

static void sync_step(struct disk_bus *bus)
{
    uint64_t target = bus->last;
    bus->syncing = true;
    bus->rotated = false;
    bus->sync_due_ns = 0;
    bus->unsynced = 0;
    pthread_mutex_unlock(&bus->mutex);
    uint64_t begin = clock_monotonic_ns();
    enum event_log_result result = event_log_sync(bus->log);
    uint64_t took = clock_monotonic_ns() - begin;
    if (bus->syncs != NULL) {
        metric_add(result == EVENT_LOG_DONE ? bus->syncs : bus->sync_failures, 1);
        metric_observe(bus->sync_seconds, (double)took / (double)NANOSECONDS_PER_SECOND);
    }
    struct batch *durable = NULL;
    pthread_mutex_lock(&bus->mutex);
    bus->syncing = false;
    if (result == EVENT_LOG_DONE) {
        bus->failures = 0;
        bus->durable = target;
        durable = take_durable(bus);
    } else {
        give_up_segment(bus);
    }
    bool writer_waits = bus->retire || bus->stopping || bus->failed;
    if (writer_waits)
        pthread_cond_signal(&bus->writer_condition);
    pthread_cond_broadcast(&bus->settled);
    pthread_mutex_unlock(&bus->mutex);
    disk_release(bus, durable, true);
    disk_wake_subscribers(bus);
    pthread_mutex_lock(&bus->mutex);
}

void *disk_sync_events(void *argument)
{
    struct disk_bus *bus = argument;
    pthread_mutex_lock(&bus->mutex);
    while (!bus->syncer_stops) {
        bool something = (bus->last > bus->durable || bus->rotated) && !bus->retire && !bus->failed;
        if (something && sync_is_due(bus, clock_monotonic_ns()))
            sync_step(bus);
        else
            disk_wait(bus, &bus->syncer_condition, something ? bus->sync_due_ns : UINT64_MAX);
    }
    pthread_mutex_unlock(&bus->mutex);
    return NULL;
}
