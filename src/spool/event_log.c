/*
 * event_log: the writer's side. A segment is made under another name, and renamed when its header is durable; so every file with a segment's name has been one. Room is taken ahead in steps: a full disk is
 * seen before anything of a batch is written, and a sync has no new size to write each time. Records are gathered by reference and written by one call.
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
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "spool/folder.h"
#include "spool/recovery.h"
#include "spool/segment.h"

#define ALLOCATION_STEP ((uint64_t)4 << 20)
#define LOCK_NAME       "lock"

struct staged {
    char head[EVENT_LOG_FRAME_HEAD];
    size_t piece; /* the head's place among the pieces */
};

struct event_log {
    char *path;
    int folder, lock;
    uint64_t segment_bytes;

    /* The writer's. */
    uint64_t end;       /* of the frames in the present segment */
    uint64_t allocated; /* its size */
    bool cannot_allocate;
    struct staged *staged;
    size_t staged_count, staged_capacity;
    struct iovec *pieces;
    size_t piece_count, piece_capacity;
    uint64_t staged_bytes;
    _Atomic uint64_t last, next;

    pthread_mutex_t syncing; /* held while the present segment's descriptor is synced, or becomes another */
    int fd;
    atomic_bool given_up; /* a write or a sync of the present segment failed */

    pthread_mutex_t removing; /* one at a time */

    pthread_mutex_t mutex; /* guards what is below */
    struct event_log_segment *segments;
    size_t count, capacity;
};

static bool is_full(int code)
{
    return code == ENOSPC || code == EDQUOT;
}

/* The lock and the folder ------------------------------------------------------------------------------------------------------------------------------------------ */

static int lock_folder(int folder, const char *path, struct error *error)
{
    char pid[24] = "";
    int fd = folder_open_file(folder, path, LOCK_NAME, O_RDWR | O_CREAT, error);
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int code = errno;
        ssize_t got = pread(fd, pid, sizeof pid - 1, 0);
        pid[got > 0 ? strcspn(pid, "\n") : 0] = '\0';
        if (code == EWOULDBLOCK)
            error_set(error, "%s is used by another process (pid %s): stop it, or use another folder", path,
                      pid[0] != '\0' ? pid : "unknown");
        else
            error_set(error, "%s/%s: cannot be locked: %s", path, LOCK_NAME, strerror(code));
        close(fd);
        return -1;
    }
    int size = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)size, 0) != size)
        log_warn("the lock file does not tell our process id", log_string("folder", path),
                 log_string("error", strerror(errno)));
    return fd;
}

/* Segments ---------------------------------------------------------------------------------------------------------------------------------------------------------- */

/* Takes room up to `wanted`, and some ahead. */
static enum event_log_result allocate(struct event_log *log, int fd, uint64_t *allocated, uint64_t wanted)
{
    uint64_t ahead = *allocated + ALLOCATION_STEP;
    if (log->cannot_allocate || wanted <= *allocated)
        return EVENT_LOG_DONE;
    if (ahead > log->segment_bytes)
        ahead = log->segment_bytes;
    for (uint64_t size = ahead > wanted ? ahead : wanted;;) {
        if (fallocate(fd, 0, (off_t)*allocated, (off_t)(size - *allocated)) == 0) {
            *allocated = size;
            return EVENT_LOG_DONE;
        }
        if (errno == EINTR)
            continue;
        if (errno == EOPNOTSUPP || errno == ENOSYS) {
            log->cannot_allocate = true;
            return EVENT_LOG_DONE;
        }
        if (!is_full(errno))
            return EVENT_LOG_FAILED;
        if (size > wanted) {
            size = wanted;
            continue;
        }
        /* A part may have been had: it is given back. */
        if (ftruncate(fd, (off_t)*allocated) != 0)
            return EVENT_LOG_FAILED;
        errno = ENOSPC;
        return EVENT_LOG_FULL;
    }
}

static bool write_whole(int fd, const char *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t wrote = pwrite(fd, data + done, size - done, (off_t)done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return false;
        done += (size_t)wrote;
    }
    return true;
}

/* Makes a segment's file durable under its name; one that has that name is gone then. -1: errno. */
static int make_file(struct event_log *log, uint64_t first, uint64_t *allocated)
{
    char header[SEGMENT_HEADER_SIZE], name[SEGMENT_NAME_SIZE];
    char making[SEGMENT_NAME_SIZE + sizeof SEGMENT_NEW_SUFFIX];
    struct error error;
    segment_name(first, name);
    snprintf(making, sizeof making, "%s%s", name, SEGMENT_NEW_SUFFIX);
    unlinkat(log->folder, making, 0);
    int fd = folder_open_file(log->folder, log->path, making, O_RDWR | O_CREAT | O_EXCL, &error);
    if (fd < 0)
        return -1;
    *allocated = 0;
    segment_write_header(header, first, clock_realtime_us());
    enum event_log_result room = allocate(log, fd, allocated, sizeof header);
    int code = errno;
    if (room == EVENT_LOG_DONE && write_whole(fd, header, sizeof header) && fdatasync(fd) == 0 &&
        renameat(log->folder, making, log->folder, name) == 0) {
        if (*allocated < sizeof header)
            *allocated = sizeof header;
        if (folder_sync(log->folder, log->path, &error))
            return fd;
        code = errno;
        unlinkat(log->folder, name, 0);
    } else {
        code = room == EVENT_LOG_DONE ? errno : code;
        unlinkat(log->folder, making, 0);
    }
    close(fd);
    errno = code;
    return -1;
}

/* The next record goes to a new segment, which begins with this sequence. */
static enum event_log_result begin_segment(struct event_log *log, uint64_t first)
{
    uint64_t allocated;
    int fd = make_file(log, first, &allocated);
    if (fd < 0 && is_full(errno))
        return EVENT_LOG_FULL;
    if (fd < 0) {
        log_error("cannot begin a segment", log_string("folder", log->path),
                  log_string("error", strerror(errno)));
        return EVENT_LOG_FAILED;
    }
    pthread_mutex_lock(&log->syncing);
    if (log->fd >= 0)
        close(log->fd);
    log->fd = fd;
    log->given_up = false;
    pthread_mutex_unlock(&log->syncing);

    pthread_mutex_lock(&log->mutex);
    if (log->count > 0 && log->segments[log->count - 1].first == first)
        log->count--;
    else if (log->count > 0 && log->segments[log->count - 1].last >= first)
        log->segments[log->count - 1].last = first - 1;
    if (log->count == log->capacity) {
        log->capacity = log->capacity * 2 + 16;
        log->segments = xrealloc(log->segments, log->capacity * sizeof *log->segments);
    }
    log->segments[log->count++] = (struct event_log_segment){
        .first = first, .last = first - 1, .bytes = allocated, .changed_us = clock_realtime_us()};
    pthread_mutex_unlock(&log->mutex);
    log->allocated = allocated;
    log->end = SEGMENT_HEADER_SIZE;
    log->last = first - 1;
    log->next = first;
    return EVENT_LOG_DONE;
}

/* Opening and closing ---------------------------------------------------------------------------------------------------------------------------------------------- */

static void free_log(struct event_log *log)
{
    if (log->fd >= 0)
        close(log->fd);
    if (log->lock >= 0)
        close(log->lock);
    if (log->folder >= 0)
        close(log->folder);
    pthread_mutex_destroy(&log->syncing);
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
    log->segment_bytes = settings->segment_bytes;
    log->fd = log->lock = -1;
    pthread_mutex_init(&log->syncing, NULL);
    pthread_mutex_init(&log->removing, NULL);
    pthread_mutex_init(&log->mutex, NULL);
    log->folder = folder_open(log->path, true, error);
    if (log->folder < 0)
        goto fail;
    log->lock = lock_folder(log->folder, log->path, error);
    if (log->lock < 0 || !log_recover(log->folder, log->path, &found, recovery, error))
        goto fail;
    log->segments = found.segments;
    log->count = log->capacity = found.count;
    log->fd = found.fd;
    log->end = log->allocated = found.end;
    log->next = found.next;
    log->last = found.next - 1;
    if (!folder_sync(log->folder, log->path, error))
        goto fail;
    if (log->fd < 0 || found.next < settings->next_at_least) {
        uint64_t first = found.next < settings->next_at_least ? settings->next_at_least : found.next;
        if (begin_segment(log, first) != EVENT_LOG_DONE) {
            error_set(error, "%s: cannot begin a segment: %s", log->path, strerror(errno));
            goto fail;
        }
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
    if (!log->given_up && log->allocated > log->end)
        log_cut_segment(log->fd, log->end, present->changed_us);
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
    if (begin > SEGMENT_HEADER_SIZE && begin + size > log->segment_bytes)
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
    log->given_up = true;
    log_error(what, log_string("folder", log->path), log_string("error", strerror(code)));
    return EVENT_LOG_FAILED;
}

/* Nothing of a batch that could not be written stays. */
static enum event_log_result undo_write(struct event_log *log, int code)
{
    if (is_full(code) && ftruncate(log->fd, (off_t)log->end) == 0) {
        log->allocated = log->end;
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
        result = allocate(log, log->fd, &log->allocated, log->end + size);
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
    if (log->allocated < log->end)
        log->allocated = log->end;
    pthread_mutex_lock(&log->mutex);
    struct event_log_segment *present = &log->segments[log->count - 1];
    present->last = log->last;
    present->bytes = log->allocated;
    if (result == EVENT_LOG_DONE && size > 0)
        present->changed_us = clock_realtime_us();
    pthread_mutex_unlock(&log->mutex);
    return result;
}

enum event_log_result event_log_sync(struct event_log *log)
{
    enum event_log_result result = EVENT_LOG_DONE;
    pthread_mutex_lock(&log->syncing);
    if (log->given_up)
        result = EVENT_LOG_FAILED;
    else if (fdatasync(log->fd) != 0)
        result = give_up(log, "cannot sync a segment", errno);
    pthread_mutex_unlock(&log->syncing);
    return result;
}

/* The segment that ends with `last`, unless it was removed meanwhile. */
static void shorten_closed(struct event_log *log, int fd, uint64_t end, uint64_t last)
{
    uint64_t changed_us = 0;
    pthread_mutex_lock(&log->mutex);
    for (size_t i = 0; i < log->count; i++) {
        if (log->segments[i].last == last) {
            changed_us = log->segments[i].changed_us;
            log->segments[i].bytes = end;
            break;
        }
    }
    pthread_mutex_unlock(&log->mutex);
    if (changed_us != 0 && !log_cut_segment(fd, end, changed_us))
        log_warn("cannot shorten a segment", log_string("folder", log->path),
                 log_string("error", strerror(errno)));
}

enum event_log_result event_log_rotate(struct event_log *log)
{
    assert(log->staged_count == 0);
    if (log->given_up)
        return EVENT_LOG_FAILED;
    if (log->end == SEGMENT_HEADER_SIZE)
        return EVENT_LOG_DONE;
    int old = dup(log->fd); /* shortened when there is a next one */
    uint64_t end = log->end, closed = log->last;
    enum event_log_result result = begin_segment(log, log->next);
    if (result == EVENT_LOG_DONE && old >= 0)
        shorten_closed(log, old, end, closed);
    if (old >= 0)
        close(old);
    return result;
}

enum event_log_result event_log_retire(struct event_log *log, uint64_t durable)
{
    assert(log->staged_count == 0);
    pthread_mutex_lock(&log->mutex);
    uint64_t first = log->segments[log->count - 1].first;
    pthread_mutex_unlock(&log->mutex);
    assert(durable + 1 >= first && durable <= log->last);
    return begin_segment(log, durable + 1);
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
    size_t removed = 0;
    pthread_mutex_lock(&log->removing);
    while (oldest_below(log, sequence, name)) {
        if (unlinkat(log->folder, name, 0) != 0 && errno != ENOENT) {
            log_error("cannot remove a segment", log_string("folder", log->path), log_string("file", name),
                      log_string("error", strerror(errno)));
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
