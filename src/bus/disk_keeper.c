/*
 * The keeper: writes the cursors, and decides what may go. In each round, in this order: room for the writer, age, lag, cursors, names nobody uses, and the segments that no cursor on disk needs any more.
 *
 * Nothing goes, and nobody is moved past it, before it is durable: should its sync fail, its events are written again under the same sequences.
 *
 * A segment that all are through with goes only when every cursor on disk says so. What goes by age or for want of room goes at once: a cursor that points to what is gone goes on from the oldest there is.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "bus/disk_state.h"

#define CURSOR_INTERVAL_NS (100 * NANOSECONDS_PER_MILLISECOND)
#define CURSOR_EVENTS      1000u

/* The segments as they are at the beginning of a round. */
struct segments {
    struct event_log_segment *list;
    size_t count;
};

static struct segments segments_of(const struct event_log *log)
{
    struct segments segments = {0};
    for (size_t room = 16;; room = segments.count + 16) {
        segments.list = xrealloc(segments.list, room * sizeof *segments.list);
        segments.count = event_log_segments(log, segments.list, room);
        if (segments.count <= room)
            return segments;
    }
}

/* ---- cursors ---- */

bool disk_cursor_is_due(const struct disk_subscriber *subscriber, uint64_t now_ns)
{
    uint64_t finished = disk_finished(subscriber);
    return finished > subscriber->kept && (now_ns >= subscriber->kept_at_ns + CURSOR_INTERVAL_NS ||
                                           finished - subscriber->kept >= CURSOR_EVENTS);
}

bool disk_keep_cursor(struct disk_subscriber *subscriber)
{
    struct disk_bus *bus = disk_bus_of(subscriber->subscriber.bus);
    pthread_mutex_lock(&bus->mutex);
    struct cursor cursor = {.sequence = disk_finished(subscriber)};
    bool moved = cursor.sequence > subscriber->kept;
    subscriber->kept_at_ns = clock_monotonic_ns();
    pthread_mutex_unlock(&bus->mutex);
    if (!moved)
        return true;
    struct error error;
    if (!cursor_file_write(subscriber->cursor, &cursor, &error)) {
        uint64_t suppressed;
        if (log_limit_pass(&bus->cursor_log, &suppressed))
            log_error("the pipeline's cursor cannot be written: events will come again after a restart",
                      log_string("pipeline", subscriber->name), log_string("error", error.message),
                      log_suppressed(suppressed));
        return false;
    }
    pthread_mutex_lock(&bus->mutex);
    subscriber->kept = cursor.sequence;
    pthread_mutex_unlock(&bus->mutex);
    return true;
}

/* Writes the cursors that are due. Returns when the next one can be. */
static uint64_t keep_cursors(struct disk_bus *bus)
{
    uint64_t next = UINT64_MAX;
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next) {
        pthread_mutex_lock(&bus->mutex);
        bool due = disk_cursor_is_due(subscriber, clock_monotonic_ns());
        pthread_mutex_unlock(&bus->mutex);
        if (due)
            disk_keep_cursor(subscriber);
        uint64_t again = subscriber->kept_at_ns + CURSOR_INTERVAL_NS;
        if (again > clock_monotonic_ns() && again < next)
            next = again;
    }
    return next;
}

/* ---- names nobody uses ---- */

void disk_add_absent(struct disk_bus *bus, const char *name, const struct cursor *cursor)
{
    struct absent *absent = xcalloc(1, sizeof *absent);
    absent->name = xstrdup(name);
    absent->cursor = *cursor;
    absent->noticed_ns = clock_monotonic_ns();
    absent->next = bus->absent;
    bus->absent = absent;
}

static void free_absent(struct absent *absent)
{
    free(absent->name);
    free(absent);
}

bool disk_is_absent(const struct disk_bus *bus, const char *name)
{
    const struct absent *absent = bus->absent;
    while (absent != NULL && strcmp(absent->name, name) != 0)
        absent = absent->next;
    return absent != NULL;
}

void disk_remove_absent(struct disk_bus *bus, const char *name)
{
    for (struct absent **link = &bus->absent; *link != NULL; link = &(*link)->next) {
        struct absent *absent = *link;
        if (strcmp(absent->name, name) != 0)
            continue;
        *link = absent->next;
        free_absent(absent);
        return;
    }
}

/* Durable, or as it was. */
static void write_absent(struct disk_bus *bus, struct absent *absent, struct cursor cursor)
{
    uint64_t now = clock_monotonic_ns(), suppressed;
    if (now < absent->next_write_ns)
        return;
    struct error error;
    struct cursor before;
    bool found;
    struct cursor_file *file = cursor_file_open(bus->cursors, absent->name, &before, &found, &error);
    bool written = file != NULL && cursor_file_write(file, &cursor, &error);
    if (file != NULL)
        cursor_file_close(file);
    if (written) {
        absent->cursor = cursor;
        return;
    }
    absent->next_write_ns = now + NANOSECONDS_PER_SECOND;
    if (log_limit_pass(&bus->cursor_log, &suppressed))
        log_error("the cursor of a name that nobody uses cannot be written",
                  log_string("pipeline", absent->name), log_string("error", error.message),
                  log_suppressed(suppressed));
}

static void move_absent(struct disk_bus *bus, struct absent *absent, uint64_t sequence)
{
    if (sequence > absent->cursor.sequence)
        write_absent(bus, absent,
                     (struct cursor){.sequence = sequence, .removed_us = absent->cursor.removed_us});
}

/* True: it is no more. */
static bool forget_absent(struct disk_bus *bus, struct absent *absent)
{
    if (clock_monotonic_ns() - absent->noticed_ns < bus->settings.absent_after_ns)
        return false;
    uint64_t now_us = clock_realtime_us(), removed_us = absent->cursor.removed_us;
    if (removed_us == 0) {
        log_info("nobody subscribes to this name any more: what it has not delivered is kept for a while",
                 log_string("pipeline", absent->name),
                 log_integer("seconds", (int64_t)(bus->settings.absent_kept_us / 1000000)));
        write_absent(bus, absent, (struct cursor){.sequence = absent->cursor.sequence, .removed_us = now_us});
        return false;
    }
    if (now_us < removed_us || now_us - removed_us < bus->settings.absent_kept_us)
        return false;
    struct error error;
    if (!cursor_file_remove(bus->cursors, absent->name, &error)) {
        uint64_t suppressed;
        if (log_limit_pass(&bus->cursor_log, &suppressed))
            log_error("a cursor cannot be removed", log_string("error", error.message),
                      log_suppressed(suppressed));
        return false;
    }
    log_warn(
        "the cursor of a pipeline that is no more was removed, and what it had not delivered is released",
        log_string("pipeline", absent->name), log_integer("cursor", (int64_t)absent->cursor.sequence));
    return true;
}

static void forget_absents(struct disk_bus *bus)
{
    for (struct absent **link = &bus->absent; *link != NULL;) {
        struct absent *absent = *link;
        if (forget_absent(bus, absent)) {
            *link = absent->next;
            free_absent(absent);
        } else {
            link = &absent->next;
        }
    }
}

/* ---- moving on ---- */

/* There is more room than before. */
static void wake_writer(struct disk_bus *bus)
{
    pthread_mutex_lock(&bus->mutex);
    if (bus->room_bytes > 0) {
        bus->retry_ns = 0;
        pthread_cond_signal(&bus->writer_condition);
    }
    pthread_mutex_unlock(&bus->mutex);
}

static void move_subscriber(struct disk_bus *bus, struct disk_subscriber *subscriber, uint64_t sequence,
                            enum bus_drop drop, const char *setting)
{
    pthread_mutex_lock(&bus->mutex);
    uint64_t dropped = disk_move_subscriber(subscriber, sequence, drop);
    pthread_mutex_unlock(&bus->mutex);
    disk_report_drop(bus, drop, dropped, setting, subscriber->name, sequence);
}

/* Gives up everything up to this sequence, the last one of a segment, for all. */
static void give_up(struct disk_bus *bus, uint64_t sequence, enum bus_drop drop, const char *setting)
{
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next)
        move_subscriber(bus, subscriber, sequence, drop, setting);
    if (event_log_unlink_before(bus->log, sequence + 1) > 0)
        wake_writer(bus);
    for (struct absent *absent = bus->absent; absent != NULL; absent = absent->next)
        move_absent(bus, absent, sequence);
}

static uint64_t durable(struct disk_bus *bus)
{
    pthread_mutex_lock(&bus->mutex);
    uint64_t sequence = bus->durable;
    pthread_mutex_unlock(&bus->mutex);
    return sequence;
}

/* drop_oldest: the oldest segments go, at least one. */
static void make_room(struct disk_bus *bus)
{
    pthread_mutex_lock(&bus->mutex);
    uint64_t wanted = bus->room_bytes, last = bus->durable;
    const char *setting = disk_full_setting(bus);
    pthread_mutex_unlock(&bus->mutex);
    struct segments segments = segments_of(bus->log);
    uint64_t bytes = event_log_bytes(bus->log);
    size_t gone = 0;
    while (gone + 1 < segments.count && segments.list[gone].last <= last &&
           (gone == 0 || bytes + wanted > bus->settings.max_bytes))
        bytes -= segments.list[gone++].bytes;
    if (gone > 0) {
        give_up(bus, segments.list[gone - 1].last, BUS_DROP_DISK_FULL, setting);
    } else if (segments.count == 1) { /* else the oldest is being synced: the writer asks again */
        pthread_mutex_lock(&bus->mutex);
        disk_refuse(bus);
        pthread_mutex_unlock(&bus->mutex);
    }
    free(segments.list);
}

/* max_age: whole segments, by their last record. */
static void expire(struct disk_bus *bus, const struct segments *segments)
{
    uint64_t now_us = clock_realtime_us(), max_age_us = bus->settings.max_age_ns / 1000;
    uint64_t bytes = event_log_bytes(bus->log), last = durable(bus);
    size_t old = 0;
    while (old < segments->count && segments->list[old].last <= last &&
           segments->list[old].changed_us + max_age_us < now_us)
        old++;
    if (old == 0)
        return;
    const struct event_log_segment *present = &segments->list[segments->count - 1];
    if (old == segments->count) {
        old--;
        pthread_mutex_lock(&bus->mutex);
        if (present->last >= present->first && bus->unwritten == 0 && bus->durable == bus->last &&
            bytes + bus->segment_bytes <= bus->settings.max_bytes) {
            bus->rotate = true; /* it is no longer the present one in the next round */
            pthread_cond_signal(&bus->writer_condition);
        }
        pthread_mutex_unlock(&bus->mutex);
    }
    if (old > 0)
        give_up(bus, segments->list[old - 1].last, BUS_DROP_EXPIRED, "observability.bus.max_age");
}

/* The bytes from the segment of the record behind this one on. */
static uint64_t bytes_behind(const struct segments *segments, uint64_t sequence)
{
    uint64_t bytes = 0;
    for (size_t i = segments->count; i > 0 && segments->list[i - 1].last > sequence; i--)
        bytes += segments->list[i - 1].bytes;
    return bytes;
}

/* Where one must go that is to hold no more than this: the last record of a segment. */
static uint64_t boundary(const struct segments *segments, uint64_t most)
{
    uint64_t bytes = 0;
    for (size_t i = segments->count; i > 0; i--) {
        bytes += segments->list[i - 1].bytes;
        if (bytes > most)
            return segments->list[i - 1].last;
    }
    return 0;
}

static uint64_t finished_by(struct disk_bus *bus, const struct disk_subscriber *subscriber)
{
    pthread_mutex_lock(&bus->mutex);
    uint64_t finished = disk_finished(subscriber);
    pthread_mutex_unlock(&bus->mutex);
    return finished;
}

/* One that holds more than half of the bus is moved on where another does not: it must not take the room of the others. */
static void move_laggards(struct disk_bus *bus, const struct segments *segments)
{
    uint64_t half = bus->settings.max_bytes / 2;
    if (event_log_bytes(bus->log) <= half)
        return;
    bool others = false;
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next)
        others = others || bytes_behind(segments, finished_by(bus, subscriber)) <= half;
    if (!others)
        return;
    uint64_t sequence = boundary(segments, half);
    if (sequence > durable(bus))
        return;
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next)
        if (bytes_behind(segments, finished_by(bus, subscriber)) > half)
            move_subscriber(bus, subscriber, sequence, BUS_DROP_LAGGED, "observability.bus.max_bytes");
    for (struct absent *absent = bus->absent; absent != NULL; absent = absent->next)
        if (bytes_behind(segments, absent->cursor.sequence) > half) {
            log_warn("a name that nobody uses holds more than half of the bus on disk: it is moved on",
                     log_string("pipeline", absent->name), log_integer("up_to_sequence", (int64_t)sequence));
            move_absent(bus, absent, sequence);
        }
}

/* Removes what every cursor on disk is past. */
static void unlink_finished(struct disk_bus *bus)
{
    uint64_t kept = UINT64_MAX;
    for (const struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next)
        if (subscriber->kept < kept)
            kept = subscriber->kept;
    for (const struct absent *absent = bus->absent; absent != NULL; absent = absent->next)
        if (absent->cursor.sequence < kept)
            kept = absent->cursor.sequence;
    if (kept == UINT64_MAX)
        return;
    pthread_mutex_lock(&bus->mutex);
    bus->finished = kept;
    pthread_mutex_unlock(&bus->mutex);
    if (event_log_unlink_before(bus->log, kept + 1) > 0)
        wake_writer(bus);
}

/* What could not be read may be readable now: those who wait for it try again. */
static void read_again(struct disk_bus *bus)
{
    bool again = false;
    pthread_mutex_lock(&bus->mutex);
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next) {
        again = again || subscriber->unreadable != UINT64_MAX;
        subscriber->unreadable = UINT64_MAX;
    }
    pthread_mutex_unlock(&bus->mutex);
    if (again)
        disk_wake_subscribers(bus);
}

/* Returns when the next round should be. */
static uint64_t keep_house(struct disk_bus *bus, bool room_wanted)
{
    pthread_mutex_lock(&bus->keeping);
    if (room_wanted)
        make_room(bus);
    struct segments segments = segments_of(bus->log);
    if (segments.count > 0) {
        expire(bus, &segments);
        move_laggards(bus, &segments);
    }
    free(segments.list);
    uint64_t next = keep_cursors(bus), round = clock_monotonic_ns() + bus->round_ns;
    forget_absents(bus);
    unlink_finished(bus);
    read_again(bus);
    pthread_mutex_unlock(&bus->keeping);
    return next < round ? next : round;
}

void *disk_keep(void *argument)
{
    struct disk_bus *bus = argument;
    uint64_t next = 0;
    pthread_mutex_lock(&bus->mutex);
    while (!bus->keeper_stops) {
        if (!bus->keeper_wanted && clock_monotonic_ns() < next) {
            disk_wait(bus, &bus->keeper_condition, next);
            continue;
        }
        bool room_wanted = bus->room_wanted;
        bus->keeper_wanted = bus->room_wanted = false;
        pthread_mutex_unlock(&bus->mutex);
        next = keep_house(bus, room_wanted);
        pthread_mutex_lock(&bus->mutex);
    }
    pthread_mutex_unlock(&bus->mutex);
    return NULL;
}
