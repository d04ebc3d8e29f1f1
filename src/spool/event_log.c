/*
 * event_log: the writer's side. Records are gathered by reference and written by one call, into room that was taken before; a thread beside may sync meanwhile.
 */
#include "spool/event_log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "spool/folder.h"
#include "spool/recovery.h"
#include "spool/segment.h"
#include "spool/segment_file.h"

struct staged {
    char head[EVENT_LOG_FRAME_HEAD];
    size_t piece; /* the head's place among the pieces */
};

/* A segment that was closed and is not synced yet. */
struct closed {
    int fd;
    uint64_t end, changed_us;
};

struct event_log {
    char *path;
    int folder, lock;

    /* The writer's. */
    uint64_t end; /* of the frames in the present segment */
    bool emptied; /* the present segment: it takes nothing more */
    struct segment_room room;
    struct staged *staged;
    size_t staged_count, staged_capacity;
    struct iovec *pieces;
    size_t piece_count, piece_capacity;
    uint64_t staged_bytes;
    _Atomic uint64_t last, next;

    atomic_bool given_up; /* a write or a sync failed */

    pthread_mutex_t removing; /* held to take segments off the list, across the removal of their files */
    struct log_limit making_log, removing_log, failing_log;

    pthread_mutex_t mutex; /* guards what is below */
    struct event_log_segment *segments;
    size_t count, capacity;
    int fd; /* of the present segment; changed by the writer, closed only when it was synced, or nobody syncs */
    struct closed *closed; /* the oldest first */
    size_t closed_count;
    bool folder_changed; /* since it was synced */
};

/* Segments ---------------------------------------------------------------------------------------------------------------------------------------------------------- */

/* Makes the file of the next segment. durable: the file itself; else the next sync sees to that. */
static enum event_log_result make_segment(struct event_log *log, uint64_t first, bool durable, int *fd)
{
    struct segment_room room = log->room;
    uint64_t suppressed;
    *fd = segment_make(log->folder, log->path, first, durable, &room);
    int code = errno;
    if (*fd < 0 && segment_disk_is_full(code))
        return EVENT_LOG_FULL;
    if (*fd < 0) {
        if (log_limit_pass(&log->making_log, &suppressed))
            log_error("cannot begin a segment", log_string("folder", log->path),
                      log_string("error", strerror(code)), log_suppressed(suppressed));
        errno = code;
        return code == EMFILE || code == ENFILE || code == ENOMEM ? EVENT_LOG_BUSY : EVENT_LOG_FAILED;
    }
    log->room = room;
    log->end = SEGMENT_HEADER_SIZE;
    log->emptied = false;
    log->last = first - 1;
    log->next = first;
    return EVENT_LOG_DONE;
}

/* It is the last one from now on. The mutex is held. */
static void append_segment(struct event_log *log, uint64_t first, int fd)
{
    if (log->count == log->capacity) {
        log->capacity = log->capacity * 2 + 16;
        log->segments = xrealloc(log->segments, log->capacity * sizeof *log->segments);
    }
    log->segments[log->count++] = (struct event_log_segment){
        .first = first, .last = first - 1, .bytes = log->room.size, .changed_us = clock_realtime_us()};
    log->fd = fd;
}

static void close_all(struct closed *closed, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(closed[i].fd);
    free(closed);
}

/* Opening and closing ---------------------------------------------------------------------------------------------------------------------------------------------- */

static void free_log(struct event_log *log)
{
    if (log->fd >= 0)
        close(log->fd);
    close_all(log->closed, log->closed_count);
    if (log->lock >= 0)
        close(log->lock);
    if (log->folder >= 0)
        close(log->folder);
    pthread_mutex_destroy(&log->removing);
    pthread_mutex_destroy(&log->mutex);
    free(log->segments);
    free(log->staged);
    free(log->pieces);
    free(log->path);
    free(log);
}

struct event_log *event_log_open(const struct event_log_settings *settings,
                                 struct event_log_recovery *recovery, struct error *error)
{
    struct recovered_log found;
    struct event_log *log = xcalloc(1, sizeof *log);
    *recovery = (struct event_log_recovery){0};
    log->path = xstrdup(settings->folder);
    log->room.limit = settings->segment_bytes; /* of a segment */
    log->fd = log->lock = -1;
    pthread_mutex_init(&log->removing, NULL);
    pthread_mutex_init(&log->mutex, NULL);
    log->folder = folder_open(log->path, true, error);
    if (log->folder < 0)
        goto fail;
    log->lock = folder_lock(log->folder, log->path, error);
    if (log->lock < 0 || !log_recover(log->folder, log->path, &found, recovery, error))
        goto fail;
    log->segments = found.segments;
    log->count = log->capacity = found.count;
    log->fd = found.fd;
    log->end = log->room.size = found.end;
    log->next = found.next;
    log->last = found.next - 1;
    if (!folder_sync(log->folder, log->path, error))
        goto fail;
    if (log->fd < 0 || found.next < settings->next_at_least) {
        uint64_t first = found.next < settings->next_at_least ? settings->next_at_least : found.next;
        int old = log->fd, fd;
        if (make_segment(log, first, true, &fd) != EVENT_LOG_DONE) {
            error_set(error, "%s: cannot begin a segment: %s", log->path, strerror(errno));
            goto fail;
        }
        if (old >= 0)
            close(old);
        if (log->count > 0 && log->segments[log->count - 1].first == first)
            log->count--; /* it had no header, and was replaced */
        append_segment(log, first, fd);
    }
    return log;
fail:
    free_log(log);
    return NULL;
}

void event_log_close(struct event_log *log)
{
    if (log == NULL)
        return;
    const struct event_log_segment *present = &log->segments[log->count - 1];
    if (!log->given_up && log->room.size > log->end)
        segment_cut(log->fd, log->end, present->changed_us);
    for (size_t i = 0; i < log->closed_count; i++)
        segment_cut(log->closed[i].fd, log->closed[i].end, log->closed[i].changed_us);
    free_log(log);
}

/* Writing ------------------------------------------------------------------------------------------------------------------------------------------------------------ */

static void *make_room(void *items, size_t needed, size_t *capacity, size_t size)
{
    if (needed <= *capacity)
        return items;
    *capacity = needed * 2;
    return xrealloc(items, *capacity * size);
}

bool event_log_add(struct event_log *log, const struct iovec *pieces, size_t count)
{
    size_t length = 0;
    for (size_t i = 0; i < count; i++)
        length += pieces[i].iov_len;
    assert(length > 0 && length <= EVENT_LOG_MAX_PAYLOAD);
    uint64_t begin = log->end + log->staged_bytes, size = EVENT_LOG_FRAME_HEAD + length;
    if (log->emptied || (begin > SEGMENT_HEADER_SIZE && begin + size > log->room.limit))
        return false;

    log->staged = make_room(log->staged, log->staged_count + 1, &log->staged_capacity, sizeof *log->staged);
    log->pieces =
        make_room(log->pieces, log->piece_count + 1 + count, &log->piece_capacity, sizeof *log->pieces);
    struct staged *staged = &log->staged[log->staged_count++];
    segment_write_head(staged->head, log->next, pieces, count, length);
    staged->piece = log->piece_count++; /* the head's address is known when no more are added */
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].iov_len > 0)
            log->pieces[log->piece_count++] = pieces[i];
    }
    log->staged_bytes += size;
    log->next++;
    return true;
}

static bool write_pieces(struct event_log *log)
{
    struct iovec *piece = log->pieces;
    size_t left = log->piece_count;
    uint64_t offset = log->end;
    while (left > 0) {
        ssize_t wrote = pwritev(log->fd, piece, left < IOV_MAX ? (int)left : IOV_MAX, (off_t)offset);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0) {
            errno = wrote == 0 ? EIO : errno;
            return false;
        }
        offset += (size_t)wrote;
        size_t rest = (size_t)wrote;
        for (; left > 0 && rest >= piece->iov_len; piece++, left--)
            rest -= piece->iov_len;
        if (left > 0) {
            piece->iov_base = (char *)piece->iov_base + rest;
            piece->iov_len -= rest;
        }
    }
    return true;
}

static enum event_log_result give_up(struct event_log *log, const char *what, int code)
{
    uint64_t suppressed;
    log->given_up = true;
    if (log_limit_pass(&log->failing_log, &suppressed))
        log_error(what, log_string("folder", log->path), log_string("error", strerror(code)),
                  log_suppressed(suppressed));
    return EVENT_LOG_FAILED;
}

/* Nothing of a batch that could not be written stays. */
static enum event_log_result undo_write(struct event_log *log, int code)
{
    if (segment_disk_is_full(code) && ftruncate(log->fd, (off_t)log->end) == 0) {
        log->room.size = log->end;
        return EVENT_LOG_FULL;
    }
    return give_up(log, "cannot write a segment", code);
}

enum event_log_result event_log_write(struct event_log *log)
{
    enum event_log_result result = EVENT_LOG_DONE;
    uint64_t size = log->staged_bytes, last = log->next - 1;
    for (size_t i = 0; i < log->staged_count; i++)
        log->pieces[log->staged[i].piece] = (struct iovec){log->staged[i].head, EVENT_LOG_FRAME_HEAD};
    if (log->given_up) {
        result = EVENT_LOG_FAILED;
    } else if (size > 0) {
        result = segment_take_room(log->fd, &log->room, log->end + size);
        if (result == EVENT_LOG_FAILED)
            give_up(log, "cannot take room for a segment", errno);
        else if (result == EVENT_LOG_DONE && !write_pieces(log))
            result = undo_write(log, errno);
    }
    log->staged_count = log->piece_count = 0;
    log->staged_bytes = 0;
    if (result == EVENT_LOG_DONE && size > 0) {
        log->end += size;
        log->last = last;
    }
    log->next = log->last + 1;
    if (log->room.size < log->end)
        log->room.size = log->end;
    pthread_mutex_lock(&log->mutex);
    struct event_log_segment *present = &log->segments[log->count - 1];
    present->last = log->last;
    present->bytes = log->room.size;
    if (result == EVENT_LOG_DONE && size > 0)
        present->changed_us = clock_realtime_us();
    pthread_mutex_unlock(&log->mutex);
    return result;
}

/* Shortens it to what it holds, and makes that durable. */
static bool sync_closed(struct event_log *log, const struct closed *closed)
{
    if (!segment_cut(closed->fd, closed->end, closed->changed_us))
        log_warn("cannot shorten a segment", log_string("folder", log->path),
                 log_string("error", strerror(errno)));
    return fdatasync(closed->fd) == 0;
}

enum event_log_result event_log_sync(struct event_log *log)
{
    struct error error;
    if (log->given_up)
        return EVENT_LOG_FAILED;
    pthread_mutex_lock(&log->mutex);
    struct closed *closed = log->closed;
    size_t count = log->closed_count;
    bool folder_changed = log->folder_changed;
    int fd = log->fd;
    log->closed = NULL;
    log->closed_count = 0;
    log->folder_changed = false;
    pthread_mutex_unlock(&log->mutex);
    bool fine = true;
    for (size_t i = 0; fine && i < count; i++)
        fine = sync_closed(log, &closed[i]);
    fine = fine && fdatasync(fd) == 0;
    int code = errno;
    if (fine && folder_changed && !folder_sync(log->folder, log->path, &error)) {
        fine = false;
        code = errno;
    }
    close_all(closed, count);
    return fine ? EVENT_LOG_DONE : give_up(log, "cannot sync a segment", code);
}

enum event_log_result event_log_rotate(struct event_log *log)
{
    int fd;
    assert(log->staged_count == 0);
    if (log->given_up)
        return EVENT_LOG_FAILED;
    if (log->end == SEGMENT_HEADER_SIZE && !log->emptied)
        return EVENT_LOG_DONE;
    uint64_t end = log->end, first = log->next;
    enum event_log_result result = make_segment(log, first, false, &fd);
    if (result != EVENT_LOG_DONE)
        return result;
    pthread_mutex_lock(&log->mutex);
    struct event_log_segment *present = &log->segments[log->count - 1];
    log->closed = xrealloc(log->closed, (log->closed_count + 1) * sizeof *log->closed);
    log->closed[log->closed_count++] = (struct closed){log->fd, end, present->changed_us};
    present->bytes = end;
    append_segment(log, first, fd);
    log->folder_changed = true;
    pthread_mutex_unlock(&log->mutex);
    return EVENT_LOG_DONE;
}

bool event_log_empty(struct event_log *log)
{
    assert(log->staged_count == 0);
    if (log->given_up || log->end == SEGMENT_HEADER_SIZE ||
        ftruncate(log->fd, (off_t)SEGMENT_HEADER_SIZE) != 0)
        return false;
    log->end = log->room.size = SEGMENT_HEADER_SIZE;
    log->emptied = true;
    pthread_mutex_lock(&log->mutex);
    struct event_log_segment *present = &log->segments[log->count - 1];
    present->bytes = SEGMENT_HEADER_SIZE;
    present->last = present->first - 1;
    pthread_mutex_unlock(&log->mutex);
    return true;
}

/* Removes the files of the last segments that begin behind this sequence, the newest first. Removing is held. */
static bool unlink_behind(struct event_log *log, uint64_t sequence)
{
    char name[SEGMENT_NAME_SIZE];
    for (size_t i = log->count; i > 0 && log->segments[i - 1].first > sequence; i--) {
        segment_name(log->segments[i - 1].first, name);
        if (unlinkat(log->folder, name, 0) != 0 && errno != ENOENT) {
            log_error("cannot remove a segment that was given up", log_string("folder", log->path),
                      log_string("file", name), log_string("error", strerror(errno)));
            return false;
        }
    }
    return true;
}

/* The new segment takes the place of those that begin with its first record, or behind it. */
static void put_in_place(struct event_log *log, uint64_t first, int fd)
{
    pthread_mutex_lock(&log->mutex);
    while (log->count > 0 && log->segments[log->count - 1].first >= first)
        log->count--;
    if (log->count > 0 && log->segments[log->count - 1].last >= first)
        log->segments[log->count - 1].last = first - 1;
    close(log->fd);
    close_all(log->closed, log->closed_count);
    log->closed = NULL;
    log->closed_count = 0;
    append_segment(log, first, fd);
    pthread_mutex_unlock(&log->mutex);
}

enum event_log_result event_log_retire(struct event_log *log, uint64_t durable)
{
    int fd;
    assert(log->staged_count == 0 && durable <= log->last);
    enum event_log_result result = EVENT_LOG_FAILED;
    pthread_mutex_lock(&log->removing);
    /* Before the new one is there: a file that stayed would seem to go on from it. One sync of the folder is about both. */
    if (unlink_behind(log, durable + 1))
        result = make_segment(log, durable + 1, true, &fd);
    if (result == EVENT_LOG_DONE) {
        put_in_place(log, durable + 1, fd);
        log->given_up = false;
    }
    pthread_mutex_unlock(&log->removing);
    return result;
}

/* Questions, and removal ------------------------------------------------------------------------------------------------------------------------------------------- */

uint64_t event_log_last(const struct event_log *log)
{
    return log->last;
}

uint64_t event_log_next(const struct event_log *log)
{
    return log->next;
}

/* The mutex is not part of what a log is. */
static pthread_mutex_t *mutex_of(const struct event_log *log)
{
    return &((struct event_log *)(uintptr_t)log)->mutex;
}

uint64_t event_log_bytes(const struct event_log *log)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(mutex_of(log));
    for (size_t i = 0; i < log->count; i++)
        bytes += log->segments[i].bytes;
    pthread_mutex_unlock(mutex_of(log));
    return bytes;
}

uint64_t event_log_first(const struct event_log *log)
{
    pthread_mutex_lock(mutex_of(log));
    uint64_t first = log->segments[log->count - 1].last + 1;
    for (size_t i = log->count; i-- > 0;) {
        if (log->segments[i].last >= log->segments[i].first)
            first = log->segments[i].first;
    }
    pthread_mutex_unlock(mutex_of(log));
    return first;
}

size_t event_log_segments(const struct event_log *log, struct event_log_segment *segments, size_t max)
{
    pthread_mutex_lock(mutex_of(log));
    size_t count = log->count;
    for (size_t i = 0; i < count && i < max; i++)
        segments[i] = log->segments[i];
    pthread_mutex_unlock(mutex_of(log));
    return count;
}

/* The oldest, if it is not the present one and all in it is below. */
static bool oldest_below(struct event_log *log, uint64_t sequence, char name[SEGMENT_NAME_SIZE])
{
    pthread_mutex_lock(&log->mutex);
    bool below = log->count > 1 && log->segments[0].last < sequence;
    if (below)
        segment_name(log->segments[0].first, name);
    pthread_mutex_unlock(&log->mutex);
    return below;
}

size_t event_log_unlink_before(struct event_log *log, uint64_t sequence)
{
    char name[SEGMENT_NAME_SIZE];
    struct error error;
    uint64_t suppressed;
    size_t removed = 0;
    pthread_mutex_lock(&log->removing);
    while (oldest_below(log, sequence, name)) {
        if (unlinkat(log->folder, name, 0) != 0 && errno != ENOENT) {
            int code = errno;
            if (log_limit_pass(&log->removing_log, &suppressed))
                log_error("cannot remove a segment", log_string("folder", log->path),
                          log_string("file", name), log_string("error", strerror(code)),
                          log_suppressed(suppressed));
            break;
        }
        pthread_mutex_lock(&log->mutex);
        memmove(log->segments, log->segments + 1, --log->count * sizeof *log->segments);
        pthread_mutex_unlock(&log->mutex);
        removed++;
    }
    if (removed > 0 && !folder_sync(log->folder, log->path, &error))
        log_error("cannot make the removal of segments durable", log_string("error", error.message));
    pthread_mutex_unlock(&log->removing);
    return removed;
}
