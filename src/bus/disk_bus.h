/*
 * disk_bus: a bus whose events are in a log on disk (spool/event_log.h) until every subscriber is through with them. They survive kill -9 a moment after bus_publish(), and power loss once their commit was synced.
 *
 * bus_publish() puts an event into a bounded queue (an event that finds no room there is dropped for all subscribers: buffer_full). Three threads do the rest, so that no worker ever waits for the disk:
 *
 *     writer   takes the queue, writes it into the log, at most half a commit interval after the first event came
 *     syncer   one fdatasync for all that was written, at most one commit interval after, or when 1 MiB has gathered; then done(stored = true), and subscribers are woken: they are given durable events only
 *     keeper   writes the cursors, removes segments that all cursors are past, looks after age and lag
 *
 * A sync that fails gives up its segment: what is not durable is still in memory and goes to a new one. Three failures in a row, and the log has failed: bus_is_healthy() is false, and what comes is dropped (disk_failed).
 * A full disk and max_bytes are alike: drop_newest drops what comes (disk_full), drop_oldest the oldest segments (disk_full, counted for each subscriber that had not fetched them).
 *
 * A subscriber's cursor is kept under its name, at most 100 ms or 1,000 events behind: that much comes again after kill -9. The cursor of a name that nobody subscribes to any more holds its segments for
 * 24 hours. Where there are others, a subscriber that holds more than half of max_bytes is moved on (lagged).
 *
 *     PATH/….log, PATH/lock       the log
 *     PATH/cursors/NAME.cursor    the cursors
 */
#ifndef BUS_DISK_BUS_H
#define BUS_DISK_BUS_H

#include "base/metrics.h"
#include "bus/bus.h"

struct disk_bus_settings {
    const char *path; /* the folder; created if missing, with its parents */
    uint64_t max_bytes;
    uint64_t max_age_ns;
    uint64_t commit_interval_ns; /* 0: each batch at once */
    bool drop_oldest;            /* when there is no room: the oldest instead of the newest */
    size_t queue_events,
        queue_bytes;         /* not yet written; bytes of event_memory also what is not yet durable */
    struct metrics *metrics; /* NULL: none */
    uint64_t
        absent_after_ns; /* a cursor that nobody subscribed to for so long counts as one of a removed pipeline; 0: 60 s */
    uint64_t absent_kept_us; /* and is kept for so long from then on; 0: 24 h */
};

/* NULL: *error says why: another process has the folder, … Strings are copied. */
struct bus *disk_bus_new(const struct disk_bus_settings *settings, struct error *error);

#endif
