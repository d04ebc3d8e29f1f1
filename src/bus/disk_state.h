/*
 * disk_state: what the parts of the disk bus share: disk_bus.c (publishing, construction), disk_writer.c (the threads writer and syncer), disk_subscriber.c, disk_keeper.c (the thread keeper).
 *
 * An event on its way, with the counts under the mutex:
 *
 *     published ──▶ queue ──▶ batch being written ──▶ held: written, not durable ──▶ durable, in the log only
 *                   └───────────── unwritten ─┘ last ┘                   durable ┘
 *
 * For a subscriber `position` is the last sequence it fetched or was moved past: position <= durable <= last. It waits for unwritten + last - position events; one that is closed for those that were there at that time.
 * A retired segment takes what is held back to the unwritten ones.
 *
 * Locks, in the order in which they are taken:
 *
 *     keeping   the list of subscribers, absent cursors and cursor files; held across the file system's calls, so never by workers, writer or syncer
 *     waking    held while subscribers are woken, and to change which ones and how
 *     mutex     the queue and all state; for a few instructions, and across nothing that may block
 */
#ifndef BUS_DISK_STATE_H
#define BUS_DISK_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/log.h"
#include "bus/acknowledgements.h"
#include "bus/disk_bus.h"
#include "spool/cursor.h"
#include "spool/event_log.h"

/* What an operation of the disk's that failed waits for before it is tried again. */
#define DISK_RETRY_NS          (100 * NANOSECONDS_PER_MILLISECOND)
#define DISK_FAILURES_IN_A_ROW 3u
/* Written at once. */
#define DISK_BATCH_EVENTS 128u
#define DISK_BATCH_BYTES  (1u << 20)
/* Of a segment's bytes. */
#define DISK_SEGMENT_HEAD 64u

struct pending {
    struct event_record *event; /* a reference */
    bus_done done;
    void *argument;
};

struct batch {
    struct batch *next;
    uint64_t last; /* held: sequence of its last event */
    size_t count;
    size_t stored; /* bytes in the log */
    struct pending events[];
};

struct batches {
    struct batch *first, **end;
};

struct disk_subscriber {
    struct subscriber subscriber;
    struct disk_subscriber *next;
    char *name;
    struct subscriber_settings settings; /* but for the name; changed under waking and the mutex */

    /* The subscriber's thread's. */
    struct event_log_reader *reader;
    uint64_t read;              /* the last sequence the reader gave */
    struct event_record *ahead; /* was read and found no place in a fetch */
    struct acknowledgements outstanding;

    /* Under the mutex. */
    uint64_t position;   /* the last sequence that was fetched, or moved past */
    uint64_t floor;      /* moved past: no matter whether it is acknowledged */
    uint64_t lowest;     /* not acknowledged, of what was fetched; NOTHING_OUTSTANDING */
    uint64_t unreadable; /* nothing could be read up to here */
    bool closed;
    uint64_t end;  /* closed: the last sequence for it, and how many come behind that are not written yet */
    size_t coming; /* the same */
    bool idle;     /* the last fetch found nothing: is woken at this many */
    size_t awaited;
    uint64_t kept;       /* sequence of the cursor on disk */
    uint64_t kept_at_ns; /* when it was last written, or tried to be */

    /* Under keeping. */
    struct cursor_file *cursor;
};

/* A cursor on disk whose name nobody subscribes to. */
struct absent {
    struct absent *next;
    char *name;
    struct cursor cursor;   /* as it is on disk */
    uint64_t noticed_ns;    /* monotonic */
    uint64_t next_write_ns; /* one failed: not before */
};

enum writer_sleep { WRITER_AWAKE, WRITER_DOZES, WRITER_IDLE };

struct disk_bus {
    struct bus bus;
    struct disk_bus_settings settings; /* strings of its own */
    char *cursors;                     /* folder */
    struct event_log *log;
    uint64_t half_interval_ns;
    uint64_t segment_bytes;
    size_t largest_event;
    size_t gathered; /* so many bytes are written, and synced, without waiting for more */
    pthread_t writer, syncer, keeper;

    pthread_mutex_t keeping;
    struct absent *absent;
    uint64_t round_ns; /* of the keeper, at the longest */

    pthread_mutex_t waking;
    struct disk_subscriber *subscribers; /* changed under all three locks */

    pthread_mutex_t mutex;
    pthread_cond_t writer_condition, syncer_condition, keeper_condition;
    pthread_cond_t settled; /* something became durable or was lost */

    struct pending *queue; /* of settings.queue_events places */
    size_t queue_first;
    atomic_size_t queued;      /* changed under the mutex */
    size_t queued_stored;      /* bytes */
    atomic_size_t held_memory; /* event_memory of what is queued, being written and held */
    struct batches again;      /* to be written before the queue */
    struct batches held;
    size_t unwritten;
    uint64_t last, durable;

    enum writer_sleep writer_sleep;
    uint64_t write_due_ns; /* 0: the writer has nothing and expects nothing */
    uint64_t retry_ns;     /* the writer tries nothing before */
    bool rotate, retire;   /* the writer is to */
    uint64_t finished;     /* every cursor on disk is past it */
    bool rotated;          /* and the segment before is to be synced and shortened */
    bool syncing;
    uint64_t sync_due_ns; /* 0: nothing to sync */
    size_t unsynced;      /* bytes */
    size_t flushing;      /* how many wait for `settled` */
    unsigned failures;    /* of writing and syncing, in a row */
    atomic_bool failed;   /* for good */
    atomic_bool full;     /* what comes is dropped */
    bool full_by_limit;   /* max_bytes, not the disk */
    uint64_t room_bytes;  /* are what the writer waits for; 0: it does not */
    bool room_wanted, keeper_wanted;
    bool stopping, syncer_stops, keeper_stops;

    struct drop_log {
        struct log_limit limit;
        atomic_uint_fast64_t dropped; /* since the last line */
    } drop_logs[BUS_DROP_COUNT];
    struct log_limit cursor_log, read_log;

    struct metric *syncs, *sync_failures, *sync_seconds;
    struct metric *bytes, *segments, *oldest_seconds, *healthy;
};

static inline struct disk_bus *disk_bus_of(struct bus *bus)
{
    return container_of(bus, struct disk_bus, bus);
}

static inline struct disk_subscriber *disk_subscriber_of(struct subscriber *subscriber)
{
    return container_of(subscriber, struct disk_subscriber, subscriber);
}

/* What an event takes in the log. */
static inline size_t disk_stored_size(const struct event_record *event)
{
    return event_stored_size(event) + EVENT_LOG_FRAME_HEAD;
}

/* disk_state.c: counting. All but reporting and releasing under the mutex. */

/* The first count of the unwritten events are in the log now, behind last. */
void disk_count_written(struct disk_bus *bus, size_t count);
/* What is held is unwritten again. */
void disk_count_retired(struct disk_bus *bus);
/* The first count of the unwritten events are lost to all subscribers. */
void disk_count_lost(struct disk_bus *bus, size_t count, enum bus_drop drop);
/* Moves a subscriber past this sequence; what it had not fetched is dropped. Returns how much that is. */
uint64_t disk_move_subscriber(struct disk_subscriber *subscriber, uint64_t sequence, enum bus_drop drop);
/* Of what the subscriber can be given. */
uint64_t disk_fetch_limit(const struct disk_subscriber *subscriber);
/* How many events a fetch finds. */
uint64_t disk_available(const struct disk_subscriber *subscriber);
/* It is through with everything up to this sequence. */
uint64_t disk_finished(const struct disk_subscriber *subscriber);
/* The keeper has something to do. */
void disk_call_keeper(struct disk_bus *bus);
/* Waits for the condition until that moment (UINT64_MAX: without limit). */
void disk_wait(struct disk_bus *bus, pthread_cond_t *condition, uint64_t until_ns);

/* From now on what comes is dropped (disk_full), until something could be written. */
void disk_refuse(struct disk_bus *bus);
/* The setting that would give room where there is none. */
const char *disk_full_setting(const struct disk_bus *bus);

/* Logs that events were dropped, at most once a second for each reason. pipeline may be NULL: all; and so may setting. Without locks. */
void disk_report_drop(struct disk_bus *bus, enum bus_drop drop, uint64_t count, const char *setting,
                      const char *pipeline, uint64_t last_sequence);
/* Calls done for each event and gives it up. Without locks. */
void disk_release(struct disk_bus *bus, struct batch *batches, bool stored);

static inline void batches_init(struct batches *batches)
{
    batches->first = NULL;
    batches->end = &batches->first;
}

static inline void batches_append(struct batches *batches, struct batch *batch)
{
    batch->next = NULL;
    *batches->end = batch;
    batches->end = &batch->next;
}

static inline void batches_prepend(struct batches *batches, struct batch *batch)
{
    batch->next = batches->first;
    batches->first = batch;
    if (batch->next == NULL)
        batches->end = &batch->next;
}

/* The threads: disk_writer.c and disk_keeper.c. */
void *disk_write_events(void *bus);
void *disk_sync_events(void *bus);
void *disk_keep(void *bus);
/* Is so much queued that the writer should not doze? Under the mutex. */
bool disk_is_much(const struct disk_bus *bus);

/* Is it time to write the cursor? Under the mutex. */
bool disk_cursor_is_due(const struct disk_subscriber *subscriber, uint64_t now_ns);
/* Wakes those that wait for events and have some. Without locks. */
void disk_wake_subscribers(struct disk_bus *bus);

/* disk_keeper.c. Under keeping. */

/* Writes the cursor where the subscriber is now, if it has moved. False: said in the log. */
bool disk_keep_cursor(struct disk_subscriber *subscriber);
/* Takes note of a name that nobody subscribes to. */
void disk_add_absent(struct disk_bus *bus, const char *name, const struct cursor *cursor);
void disk_remove_absent(struct disk_bus *bus, const char *name);
bool disk_is_absent(const struct disk_bus *bus, const char *name);

/* disk_subscriber.c: the operations. */
struct subscriber *disk_subscribe(struct bus *bus, const struct subscriber_settings *settings,
                                  struct error *error);
void disk_renew(struct subscriber *subscriber, const struct subscriber_settings *settings);
void disk_close(struct subscriber *subscriber);
size_t disk_unsubscribe(struct subscriber *subscriber);
size_t disk_fetch(struct subscriber *subscriber, struct bus_entry *entries, size_t max, size_t max_bytes);
bool disk_await(struct subscriber *subscriber, size_t events);
void disk_acknowledge(struct subscriber *subscriber, uint64_t sequence);
size_t disk_depth(const struct subscriber *subscriber);

#endif
