/*
 * event_log: records in a folder, in order, that outlive the process and, once synced, the power. The disk bus and the dead letters are made of it.
 *
 *     FOLDER/00000000000000000001.log   a segment, named by the sequence of its first record
 *     FOLDER/….log.corrupt              a second name (hard link) of a segment in which damage was found; for people, never read again
 *     FOLDER/lock                       locked (flock) by the one process that writes, its process id inside
 *
 *     segment   header of 64 bytes: "LPLOG" and three NUL | u32 version 1 | u32 header size | u64 sequence of the first record | u64 time of creation, us since 1970 | zeros | u32 crc32c of the 60 bytes before;
 *               then frames, then zeros or the end of the file
 *     frame     u32 length of the payload | u32 crc32c of length, sequence and payload | u64 sequence | payload. A length of 0 or above EVENT_LOG_MAX_PAYLOAD is no frame. Never across segments
 *
 * Integers are little-endian. A later version may differ in all but the magic, the version's place and the checksum of the first 64 bytes. Sequences go up by one from frame to frame and from segment to segment. A segment that was given up after a failed sync may have records behind the first sequence of the
 * next segment: they do not count.
 *
 * Files are created 0600 in folders 0700, and never opened through a symbolic link. Whoever reads needs no lock and may read while another process writes.
 *
 * Threads: open, add, write, rotate, retire and close from one writer; sync from any one thread at a time, also beside the writer; the rest from any. All but the small questions block.
 */
#ifndef SPOOL_EVENT_LOG_H
#define SPOOL_EVENT_LOG_H

#include <sys/uio.h>

#include "base/error.h"
#include "base/slice.h"

#define EVENT_LOG_MAX_PAYLOAD (64u << 20)
#define EVENT_LOG_FRAME_HEAD  16u

/* Writing ------------------------------------------------------------------------------------------------------------------------------------------------------------ */

struct event_log;

struct event_log_settings {
    const char *folder; /* created if missing (its parent must be there) */
    uint64_t
        segment_bytes; /* a segment is closed before it becomes larger, unless one record alone makes it */
    uint64_t
        next_at_least; /* the next record's sequence is this one or above: what cursors are past is not given again, whatever became of the log. 0: as the log says */
};

/* What was found and done at the opening. */
struct event_log_recovery {
    uint64_t records;         /* there, in all segments */
    uint64_t torn_bytes;      /* cut off the end of the last segment: was being written */
    uint64_t damaged_records; /* lost between good ones of the last segment; the others are met by readers */
    size_t damaged_segments;  /* that have damage known by now, and a .corrupt beside them */
};

/* Locks the folder and mends the end of the last segment. NULL: *error says why: another process has it (with its process id), a format of another version, no permission, … */
struct event_log *event_log_open(const struct event_log_settings *settings,
                                 struct event_log_recovery *recovery, struct error *error);
/* What was written and not synced may or may not be there later. The last segment is shortened to what it holds; an empty one stays: it tells the next sequence. */
void event_log_close(struct event_log *log);

enum event_log_result {
    EVENT_LOG_DONE,
    EVENT_LOG_FULL,   /* ENOSPC, EDQUOT: nothing of it has happened; may be tried again */
    EVENT_LOG_BUSY,   /* no descriptor or memory for a new segment; logged. Likewise */
    EVENT_LOG_FAILED, /* another error of the disk's; logged. For write and sync: the segment is not to be touched again: event_log_retire() */
};

/* Stages a record of these bytes behind what is staged. The bytes are borrowed until event_log_write(). False: it has no place in this segment: write, sync, rotate. Records larger than EVENT_LOG_MAX_PAYLOAD are a
 * broken promise (assert). */
bool event_log_add(struct event_log *log, const struct iovec *pieces, size_t count);
/* Writes what is staged; readers can see it. Not DONE: what was staged is forgotten and has not been written (its sequences will be given again). */
enum event_log_result event_log_write(struct event_log *log);
/* What was written before the call is durable after it. Not DONE: it may never be: the kernel may have dropped it, and a later sync that succeeds proves nothing. */
enum event_log_result event_log_sync(struct event_log *log);
/* The next record begins a new segment. Nothing may be staged; what is not synced yet is so by the next sync. Waits for no sync. Not DONE: nothing has changed. */
enum event_log_result event_log_rotate(struct event_log *log);
/* Gives back the room of the present segment, whose records nobody needs any more. Nothing may be staged, everything is synced. There is no place for a record until the next rotation. False: nothing has changed. */
bool event_log_empty(struct event_log *log);
/* Nothing may be staged, no sync may run. Gives up the present segment, and those before with records behind `durable`: these do not count, the next one added gets the sequence durable + 1, in a new segment. Not DONE: to be called again. */
enum event_log_result event_log_retire(struct event_log *log, uint64_t durable);
/* Of the last record written, and what it will be for the next one added. 1 before the first. */
uint64_t event_log_last(const struct event_log *log);
uint64_t event_log_next(const struct event_log *log);

struct event_log_segment {
    uint64_t first, last; /* last < first: empty */
    uint64_t bytes;       /* on disk, what is allocated and not used yet included */
    uint64_t changed_us;  /* when the last record was written */
};

/* Of all segments. Any thread. */
uint64_t event_log_bytes(const struct event_log *log);
/* The sequence of the oldest record; event_log_last() + 1 when there is none. */
uint64_t event_log_first(const struct event_log *log);
/* The segments, the oldest first: at most max; returns how many there are. */
size_t event_log_segments(const struct event_log *log, struct event_log_segment *segments, size_t max);
/* Removes each segment, but the present one, whose records all have sequences below this one. Returns how many. Any thread. */
size_t event_log_unlink_before(struct event_log *log, uint64_t sequence);

/* Reading ------------------------------------------------------------------------------------------------------------------------------------------------------------ */

struct event_log_reader;

/* Of a folder, written by this process, another one or none. Begins at the oldest record. Nothing is opened yet: a folder that is not there is one without records. */
struct event_log_reader *event_log_reader_new(const char *folder);
void event_log_reader_free(struct event_log_reader *reader);
/* The next record read is the first one at or behind this sequence. */
void event_log_reader_seek(struct event_log_reader *reader, uint64_t sequence);

struct event_log_record {
    uint64_t sequence;
    struct slice payload; /* valid until the next call on the reader */
    const char *segment;  /* file's name; likewise */
    uint64_t offset;      /* of the frame in it */
    uint64_t
        missing; /* records between the one before (or what was sought) and this one that are damaged or gone */
};

/* The next record, if its sequence is at most `last`. False: there is none (yet): may be called again. *error (may be NULL) is set, else empty, when a segment cannot be read: its records will be missing,
 * unless it could not be opened for want of a right, of descriptors or of memory: then it is tried again by the next call. */
bool event_log_read(struct event_log_reader *reader, uint64_t last, struct event_log_record *record,
                    struct error *error);

/* For tools: each segment as it is now, by names, sizes and the heads of the last one's records: quick, and believing. Calls visit for each in order. False: *error says what cannot be read. */
bool event_log_list(const char *folder,
                    void (*visit)(void *argument, const char *file, const struct event_log_segment *segment),
                    void *argument, struct error *error);
/* For tools: each segment's file as it is now. Calls visit for each in order, with what is wrong with it (NULL: nothing). False: the folder cannot be read. */
bool event_log_verify(const char *folder,
                      void (*visit)(void *argument, const char *file, const struct event_log_segment *segment,
                                    uint64_t records, const char *fault),
                      void *argument, struct error *error);

#endif
