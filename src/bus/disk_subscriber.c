/*
 * A subscriber of the disk bus: reads the log with a reader of its own, behind what is durable and ahead of its cursor.
 *
 * Reading goes on without a lock. The position is moved under the mutex afterwards, together with what was found: had the keeper moved the subscriber on meanwhile, what it skipped is counted already and not given
 * out. What lies between two events that were read is damaged: so the counts come out right whatever is on disk.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/clock.h"
#include "bus/disk_state.h"

/* How long closing waits for what is queued to become durable. */
#define FLUSH_LIMIT_NS NANOSECONDS_PER_SECOND

static struct disk_subscriber *find_subscriber(const struct disk_bus *bus, const char *name)
{
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next)
        if (strcmp(subscriber->name, name) == 0)
            return subscriber;
    return NULL;
}

/* ---- coming and going ---- */

/* Where a subscriber begins: its cursor, corrected to what is there. */
static uint64_t begin_at(struct disk_bus *bus, const struct subscriber_settings *settings, bool found,
                         bool known, uint64_t sequence)
{
    pthread_mutex_lock(&bus->mutex);
    uint64_t durable = bus->durable;
    pthread_mutex_unlock(&bus->mutex);
    uint64_t before_first = event_log_first(bus->log) - 1;
    if (before_first > durable)
        before_first = durable;
    if (!found)
        return settings->from_oldest || known ? before_first : durable; /* known: its cursor is damaged */
    if (sequence > durable) {
        log_warn("the log on disk ends before the pipeline's cursor: going on from its end",
                 log_string("pipeline", settings->name), log_integer("cursor", (int64_t)sequence),
                 log_integer("last", (int64_t)durable));
        return durable;
    }
    if (sequence < before_first) {
        log_info("events between the pipeline's cursor and the oldest on disk are not there any more",
                 log_string("pipeline", settings->name), log_integer("cursor", (int64_t)sequence),
                 log_integer("oldest", (int64_t)before_first + 1));
        return before_first;
    }
    return sequence;
}

static struct disk_subscriber *subscriber_new(struct disk_bus *bus,
                                              const struct subscriber_settings *settings, bool known,
                                              struct error *error)
{
    struct cursor cursor;
    bool found;
    struct cursor_file *file = cursor_file_open(bus->cursors, settings->name, &cursor, &found, error);
    if (file == NULL)
        return NULL;
    uint64_t position = begin_at(bus, settings, found, known, cursor.sequence);
    if (!found || cursor.sequence != position || cursor.removed_us != 0) {
        cursor = (struct cursor){.sequence = position};
        if (!cursor_file_write(file, &cursor, error)) {
            cursor_file_close(file);
            return NULL;
        }
    }
    struct disk_subscriber *subscriber = xcalloc(1, sizeof *subscriber);
    subscriber->subscriber.bus = &bus->bus;
    subscriber->settings = *settings;
    subscriber->name = xstrdup(settings->name);
    subscriber->reader = event_log_reader_new(bus->settings.path);
    subscriber->cursor = file;
    subscriber->position = subscriber->kept = position;
    subscriber->lowest = NOTHING_OUTSTANDING;
    subscriber->unreadable = UINT64_MAX;
    subscriber->idle = true;
    subscriber->awaited = 1;
    subscriber->read = UINT64_MAX; /* seeks first */
    return subscriber;
}

struct subscriber *disk_subscribe(struct bus *handle, const struct subscriber_settings *settings,
                                  struct error *error)
{
    struct disk_bus *bus = disk_bus_of(handle);
    struct disk_subscriber *subscriber = NULL;
    pthread_mutex_lock(&bus->keeping);
    if (find_subscriber(bus, settings->name) != NULL) {
        error_set(error,
                  "the bus on disk still has a subscriber %s: if the pipeline was removed shortly before, it "
                  "has not ended yet",
                  settings->name);
    } else {
        subscriber = subscriber_new(bus, settings, disk_is_absent(bus, settings->name), error);
    }
    if (subscriber != NULL) {
        disk_remove_absent(bus, settings->name);
        pthread_mutex_lock(&bus->waking);
        pthread_mutex_lock(&bus->mutex);
        subscriber->next = bus->subscribers;
        bus->subscribers = subscriber;
        if (bus->finished > subscriber->position)
            bus->finished = subscriber->position;
        if (settings->received != NULL)
            metric_add(settings->received,
                       (int64_t)(bus->unwritten + (size_t)(bus->last - subscriber->position)));
        pthread_mutex_unlock(&bus->mutex);
        pthread_mutex_unlock(&bus->waking);
    }
    pthread_mutex_unlock(&bus->keeping);
    return subscriber != NULL ? &subscriber->subscriber : NULL;
}

void disk_renew(struct subscriber *handle, const struct subscriber_settings *settings)
{
    struct disk_subscriber *subscriber = disk_subscriber_of(handle);
    struct disk_bus *bus = disk_bus_of(handle->bus);
    pthread_mutex_lock(&bus->waking);
    pthread_mutex_lock(&bus->mutex);
    subscriber->settings = *settings;
    pthread_mutex_unlock(&bus->mutex);
    pthread_mutex_unlock(&bus->waking);
}

/* It gets no more than what is there now. Under waking and the mutex. */
static void shut(struct disk_bus *bus, struct disk_subscriber *subscriber)
{
    if (subscriber->closed)
        return;
    subscriber->closed = true;
    subscriber->end = bus->last;
    subscriber->coming = bus->unwritten;
}

/* What is still queued is made durable at once, so that a fetch finds it: whoever drains asks once. A disk that hangs is not waited for: what it keeps comes again after a restart. */
void disk_close(struct subscriber *handle)
{
    struct disk_subscriber *subscriber = disk_subscriber_of(handle);
    struct disk_bus *bus = disk_bus_of(handle->bus);
    pthread_mutex_lock(&bus->waking);
    pthread_mutex_lock(&bus->mutex);
    shut(bus, subscriber);
    pthread_mutex_unlock(&bus->waking);
    uint64_t limit = clock_monotonic_ns() + FLUSH_LIMIT_NS;
    bus->flushing++;
    pthread_cond_signal(&bus->writer_condition);
    pthread_cond_signal(&bus->syncer_condition);
    while ((subscriber->coming > 0 || subscriber->end > bus->durable) && clock_monotonic_ns() < limit &&
           !atomic_load_explicit(&bus->full, memory_order_relaxed))
        disk_wait(bus, &bus->settled, limit);
    bus->flushing--;
    pthread_mutex_unlock(&bus->mutex);
}

size_t disk_unsubscribe(struct subscriber *handle)
{
    struct disk_subscriber *subscriber = disk_subscriber_of(handle);
    struct disk_bus *bus = disk_bus_of(handle->bus);
    pthread_mutex_lock(&bus->keeping);
    disk_keep_cursor(subscriber);
    pthread_mutex_lock(&bus->waking);
    pthread_mutex_lock(&bus->mutex);
    struct disk_subscriber **link = &bus->subscribers;
    while (*link != subscriber)
        link = &(*link)->next;
    *link = subscriber->next;
    pthread_mutex_unlock(&bus->mutex);
    pthread_mutex_unlock(&bus->waking);
    disk_add_absent(bus, subscriber->name, &(struct cursor){.sequence = subscriber->kept});
    pthread_mutex_unlock(&bus->keeping);

    /* It was moved on over events that are in the caller's hands: they do not come again. */
    size_t lost = acknowledgements_count_below(&subscriber->outstanding, subscriber->kept + 1);
    cursor_file_close(subscriber->cursor);
    event_log_reader_free(subscriber->reader);
    event_record_release(subscriber->ahead);
    acknowledgements_free(&subscriber->outstanding);
    free(subscriber->name);
    free(subscriber);
    return lost;
}

/* ---- fetching ---- */

/* The next event up to the limit; its sequence is subscriber->read. NULL: there is none. */
static struct event_record *read_event(struct disk_subscriber *subscriber, uint64_t limit)
{
    struct disk_bus *bus = disk_bus_of(subscriber->subscriber.bus);
    if (subscriber->ahead != NULL) {
        struct event_record *event = subscriber->ahead;
        subscriber->ahead = NULL;
        return event;
    }
    struct event_log_record record;
    struct error error = {{0}};
    uint64_t suppressed;
    while (event_log_read(subscriber->reader, limit, &record, &error)) {
        subscriber->read = record.sequence;
        struct event_record *event = event_decode(record.payload, &error);
        if (event != NULL)
            return event;
        if (log_limit_pass(&bus->read_log, &suppressed))
            log_warn("an event on disk cannot be read", log_string("error", error.message),
                     log_string("segment", record.segment), log_integer("offset", (int64_t)record.offset),
                     log_suppressed(suppressed));
        error.message[0] = 0;
    }
    if (error.message[0] != 0 && log_limit_pass(&bus->read_log, &suppressed))
        log_warn("the log on disk cannot be read", log_string("error", error.message),
                 log_suppressed(suppressed));
    return NULL;
}

/* Reads entries behind the position, up to the limit. Returns the last sequence that was looked at. */
static uint64_t read_entries(struct disk_subscriber *subscriber, uint64_t position, uint64_t limit,
                             struct bus_entry *entries, size_t max, size_t max_bytes, size_t *count)
{
    if (subscriber->read < position || subscriber->read == UINT64_MAX) {
        event_record_release(subscriber->ahead);
        subscriber->ahead = NULL;
        event_log_reader_seek(subscriber->reader, position + 1);
        subscriber->read = position;
    }
    size_t bytes = 0;
    *count = 0;
    while (*count < max) {
        struct event_record *event = read_event(subscriber, limit);
        if (event == NULL)
            break;
        size_t memory = event_memory(event);
        if (*count > 0 && bytes + memory > max_bytes) {
            subscriber->ahead = event;
            return subscriber->read - 1;
        }
        bytes += memory;
        entries[(*count)++] = (struct bus_entry){.sequence = subscriber->read, .event = event};
    }
    return subscriber->read;
}

/* Under the mutex: moves the position over what was read. Returns how many are damaged; *skipped: how many of the first entries the keeper has moved it past. */
static uint64_t take_entries(struct disk_subscriber *subscriber, uint64_t reached,
                             const struct bus_entry *entries, size_t count, size_t *skipped)
{
    *skipped = 0;
    while (*skipped < count && entries[*skipped].sequence <= subscriber->position)
        ++*skipped;
    if (reached <= subscriber->position)
        return 0;
    uint64_t damaged = reached - subscriber->position - (count - *skipped);
    subscriber->position = reached;
    if (*skipped < count && subscriber->lowest == NOTHING_OUTSTANDING)
        subscriber->lowest = entries[*skipped].sequence;
    if (damaged > 0)
        bus_count_drop(&subscriber->settings, BUS_DROP_DAMAGED, (size_t)damaged);
    return damaged;
}

size_t disk_fetch(struct subscriber *handle, struct bus_entry *entries, size_t max, size_t max_bytes)
{
    struct disk_subscriber *subscriber = disk_subscriber_of(handle);
    struct disk_bus *bus = disk_bus_of(handle->bus);
    for (;;) {
        pthread_mutex_lock(&bus->mutex);
        uint64_t position = subscriber->position, limit = disk_fetch_limit(subscriber);
        bool nothing = disk_available(subscriber) == 0;
        if (nothing) {
            subscriber->idle = true;
            subscriber->awaited = 1;
        }
        pthread_mutex_unlock(&bus->mutex);
        if (nothing)
            return 0;
        size_t count, skipped;
        uint64_t reached = read_entries(subscriber, position, limit, entries, max, max_bytes, &count);
        pthread_mutex_lock(&bus->mutex);
        uint64_t damaged = take_entries(subscriber, reached, entries, count, &skipped);
        if (count == 0 && damaged == 0 && limit > subscriber->position)
            subscriber->unreadable = limit;
        pthread_mutex_unlock(&bus->mutex);
        disk_report_drop(bus, BUS_DROP_DAMAGED, damaged, NULL, subscriber->name, reached);
        for (size_t i = 0; i < count; i++) {
            if (i < skipped) {
                event_record_release(entries[i].event);
                continue;
            }
            acknowledgements_add(&subscriber->outstanding, entries[i].sequence);
            entries[i - skipped] = entries[i];
        }
        if (count > skipped)
            return count - skipped;
    }
}

bool disk_await(struct subscriber *handle, size_t events)
{
    struct disk_subscriber *subscriber = disk_subscriber_of(handle);
    struct disk_bus *bus = disk_bus_of(handle->bus);
    pthread_mutex_lock(&bus->mutex);
    subscriber->idle = disk_available(subscriber) < (uint64_t)events;
    subscriber->awaited = events;
    bool waits = subscriber->idle;
    pthread_mutex_unlock(&bus->mutex);
    return waits;
}

void disk_acknowledge(struct subscriber *handle, uint64_t sequence)
{
    struct disk_subscriber *subscriber = disk_subscriber_of(handle);
    struct disk_bus *bus = disk_bus_of(handle->bus);
    if (!acknowledgements_remove(&subscriber->outstanding, sequence))
        return;
    uint64_t lowest = acknowledgements_lowest(&subscriber->outstanding);
    pthread_mutex_lock(&bus->mutex);
    if (lowest != subscriber->lowest) {
        subscriber->lowest = lowest;
        if (disk_cursor_is_due(subscriber, clock_monotonic_ns()))
            disk_call_keeper(bus);
    }
    pthread_mutex_unlock(&bus->mutex);
}

size_t disk_depth(const struct subscriber *handle)
{
    const struct disk_subscriber *subscriber = container_of(handle, const struct disk_subscriber, subscriber);
    struct disk_bus *bus = disk_bus_of(handle->bus);
    pthread_mutex_lock(&bus->mutex);
    uint64_t end = subscriber->closed ? subscriber->end : bus->last;
    size_t coming = subscriber->closed ? subscriber->coming : bus->unwritten;
    size_t depth = coming + (size_t)(end - subscriber->position);
    pthread_mutex_unlock(&bus->mutex);
    return depth;
}
