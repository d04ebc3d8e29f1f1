/*
 * event_log: the reader's side. What was read from the disk is believed as far as the caller said that records are final when it was read (`seen`); beyond that, the folder is looked at and the bytes are read again: a
 * batch may have been taken back, a segment given up, a next one begun.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "spool/event_log.h"
#include "spool/folder.h"
#include "spool/segment.h"

/* A folder that changed this shortly before it was listed may change again with the same time. */
#define SETTLED_AFTER_SECONDS 3

struct segment_list {
    uint64_t *firsts; /* ascending */
    size_t count, capacity;
};

struct event_log_reader {
    char *path;
    int folder;
    struct timespec changed; /* the folder, when it was listed */
    bool settled;            /* it was listed some time after that */
    struct segment_list list;

    uint64_t next; /* the sequence to be read; 0: the oldest there is */
    uint64_t seen; /* records up to this one were final at the last look */

    struct segment_scan scan; /* its fd is ours, -1: none is open */
    uint64_t first;           /* of the segment that is open, or was last */
    char name[SEGMENT_NAME_SIZE];
};

/* The folder -------------------------------------------------------------------------------------------------------------------------------------------------------- */

static void note_segment(void *argument, const char *name)
{
    struct segment_list *list = argument;
    uint64_t first;
    if (!segment_parse_name(name, &first))
        return;
    if (list->count == list->capacity) {
        list->capacity = list->capacity * 2 + 16;
        list->firsts = xrealloc(list->firsts, list->capacity * sizeof *list->firsts);
    }
    list->firsts[list->count++] = first;
}

static int compare(const void *a, const void *b)
{
    uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;
    return (first > second) - (first < second);
}

static bool list_segments(int folder, const char *path, struct segment_list *list, struct error *error)
{
    list->count = 0;
    if (!folder_list(folder, path, note_segment, list, error))
        return false;
    if (list->count > 1)
        qsort(list->firsts, list->count, sizeof *list->firsts, compare);
    return true;
}

/* The first of the next segment; UINT64_MAX: there is none. */
static uint64_t first_behind(const struct segment_list *list, uint64_t first)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->firsts[i] > first)
            return list->firsts[i];
    }
    return UINT64_MAX;
}

static void close_segment(struct event_log_reader *reader)
{
    if (reader->scan.fd >= 0)
        close(reader->scan.fd);
    reader->scan.fd = -1;
}

/* Another file has the open one's name now: it was given up before any of its records was durable. */
static bool was_replaced(const struct event_log_reader *reader)
{
    struct stat ours, now;
    return fstat(reader->scan.fd, &ours) == 0 &&
           fstatat(reader->folder, reader->name, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
           (ours.st_ino != now.st_ino || ours.st_dev != now.st_dev);
}

/* Lists the folder if it may have changed, and forgets what was read. False: it cannot be read (not: it is not there). */
static bool look(struct event_log_reader *reader, uint64_t last, struct error *error)
{
    struct stat status;
    if (reader->folder >= 0 && (fstat(reader->folder, &status) != 0 || status.st_nlink == 0)) {
        close(reader->folder);
        reader->folder = -1;
    }
    if (reader->folder < 0) {
        reader->settled = false;
        reader->folder = folder_open(reader->path, false, error);
        if (reader->folder < 0 && errno == ENOENT) {
            error->message[0] = '\0';
            reader->list.count = 0;
            return true;
        }
        if (reader->folder < 0 || fstat(reader->folder, &status) != 0)
            return false;
    }
    if (!reader->settled || status.st_mtim.tv_sec != reader->changed.tv_sec ||
        status.st_mtim.tv_nsec != reader->changed.tv_nsec) {
        time_t now = (time_t)(clock_realtime_us() / 1000000);
        reader->changed = status.st_mtim;
        reader->settled = now - status.st_mtim.tv_sec >= SETTLED_AFTER_SECONDS;
        if (!list_segments(reader->folder, reader->path, &reader->list, error)) {
            reader->settled = false;
            return false;
        }
        if (reader->scan.fd >= 0 && was_replaced(reader)) {
            close_segment(reader);
            reader->first--; /* to be opened once more */
        }
    }
    if (reader->scan.fd >= 0)
        reader->scan.limit = first_behind(&reader->list, reader->first);
    segment_scan_forget(&reader->scan);
    reader->seen = last;
    return true;
}

/* Reading ------------------------------------------------------------------------------------------------------------------------------------------------------------ */

struct event_log_reader *event_log_reader_new(const char *folder)
{
    struct event_log_reader *reader = xcalloc(1, sizeof *reader);
    reader->path = xstrdup(folder);
    reader->folder = -1;
    reader->scan.fd = -1;
    return reader;
}

void event_log_reader_free(struct event_log_reader *reader)
{
    if (reader == NULL)
        return;
    close_segment(reader);
    if (reader->folder >= 0)
        close(reader->folder);
    segment_scan_free(&reader->scan);
    free(reader->list.firsts);
    free(reader->path);
    free(reader);
}

void event_log_reader_seek(struct event_log_reader *reader, uint64_t sequence)
{
    close_segment(reader);
    reader->first = 0;
    reader->seen = 0;
    reader->next = sequence;
}

static int open_checked(int folder, const char *path, uint64_t first, char name[SEGMENT_NAME_SIZE],
                        enum segment_state *state, struct error *error)
{
    uint32_t version;
    segment_name(first, name);
    int fd = folder_open_file(folder, path, name, O_RDONLY, error);
    if (fd < 0)
        return -1;
    *state = segment_check_header(fd, first, &version);
    if (*state == SEGMENT_UNKNOWN || *state == SEGMENT_NOT_READABLE) {
        if (*state == SEGMENT_UNKNOWN)
            segment_refuse(error, path, name, version);
        else
            error_set(error, "%s/%s: %s", path, name, strerror(errno));
        close(fd);
        errno = EIO;
        return -1;
    }
    return fd;
}

/* What is missing is a right or a resource of ours: with the segment nothing is wrong, and it may be read later. */
static bool may_be_tried_again(int code)
{
    return code == EMFILE || code == ENFILE || code == ENOMEM || code == EACCES || code == EPERM;
}

/* Opens the segment in which the next record should be, of those behind the last one open. False: there is none, or none that can be read. */
static bool open_segment(struct event_log_reader *reader, struct error *error)
{
    for (;;) {
        const struct segment_list *list = &reader->list;
        uint64_t first = first_behind(list, reader->first);
        enum segment_state state;
        for (size_t i = 0; i < list->count; i++) {
            if (list->firsts[i] > first && list->firsts[i] <= reader->next)
                first = list->firsts[i];
        }
        if (first == UINT64_MAX)
            return false;
        uint64_t limit = first_behind(list, first);
        int fd = open_checked(reader->folder, reader->path, first, reader->name, &state, error);
        if (reader->next == 0)
            reader->next = first;
        if (fd >= 0) {
            reader->first = first;
            segment_scan_begin(&reader->scan, fd, first, limit);
            segment_scan_hop(&reader->scan, reader->next);
            return true;
        }
        if (errno == ENOENT)
            error->message[0] = '\0'; /* it was removed */
        else if (may_be_tried_again(errno))
            return false;
        if (limit == UINT64_MAX)
            return false;
        reader->first = first;
    }
}

bool event_log_read(struct event_log_reader *reader, uint64_t last, struct event_log_record *record,
                    struct error *error)
{
    struct error ignored;
    struct segment_frame frame;
    bool looked = false;
    if (error == NULL)
        error = &ignored;
    error->message[0] = '\0';
    if (reader->next > last)
        return false;
    for (;;) {
        if (reader->scan.fd < 0 || reader->next > reader->seen) {
            if (!looked && !look(reader, last, error))
                break;
            looked = true;
            if (reader->scan.fd < 0 && !open_segment(reader, error))
                break;
        }
        struct segment_scan *scan = &reader->scan;
        uint64_t offset = scan->offset, next = scan->next;
        if (segment_scan_next(scan, &frame)) {
            if (frame.sequence < reader->next)
                continue;
            if (frame.sequence <= last && (looked || frame.sequence <= reader->seen)) {
                *record = (struct event_log_record){.sequence = frame.sequence,
                                                    .payload = frame.payload,
                                                    .segment = reader->name,
                                                    .offset = frame.offset,
                                                    .missing = frame.sequence - reader->next};
                reader->next = frame.sequence + 1;
                return true;
            }
            scan->offset = offset;
            scan->next = next;
            if (looked)
                break;
        } else {
            if (scan->error != 0)
                error_set(error, "%s/%s: %s", reader->path, reader->name, strerror(scan->error));
            /* No more in this one. It was final if there was another one behind it before. */
            if (scan->limit != UINT64_MAX) {
                close_segment(reader);
                if (open_segment(reader, error))
                    continue;
            }
            if (looked)
                break;
        }
        reader->seen = 0; /* look, and once more */
    }
    reader->seen = 0;
    return false;
}

/* Listing and verifying ---------------------------------------------------------------------------------------------------------------------------------------- */

static void set_fault(struct error *fault, uint64_t offset, const char *what)
{
    if (fault->message[0] == '\0')
        error_set(fault, "offset %" PRIu64 ": %s", offset, what);
}

static bool has_bytes_behind(int fd, uint64_t offset)
{
    char bytes[4096];
    for (;;) {
        ssize_t got = pread(fd, bytes, sizeof bytes, (off_t)offset);
        if (got <= 0)
            return false;
        for (size_t i = 0; i < (size_t)got; i++) {
            if (bytes[i] != 0)
                return true;
        }
        offset += (size_t)got;
    }
}

static void describe_file(int fd, struct event_log_segment *segment)
{
    struct stat status;
    if (fstat(fd, &status) == 0) {
        segment->bytes = (uint64_t)status.st_size;
        segment->changed_us =
            (uint64_t)status.st_mtim.tv_sec * 1000000 + (uint64_t)status.st_mtim.tv_nsec / 1000;
    }
}

/* Counts the records; *fault is the first thing that is wrong. */
static uint64_t verify_segment(int fd, uint64_t limit, struct segment_scan *scan,
                               struct event_log_segment *segment, struct error *fault)
{
    struct segment_frame frame;
    uint64_t records = 0, offset = SEGMENT_HEADER_SIZE;
    describe_file(fd, segment);
    segment_scan_begin(scan, fd, segment->first, limit);
    while (segment_scan_next(scan, &frame)) {
        if (frame.offset != offset)
            set_fault(fault, offset, "bytes that are no record");
        offset = scan->offset;
        segment->last = frame.sequence;
        records++;
    }
    if (scan->error != 0)
        set_fault(fault, offset, strerror(scan->error));
    else if (scan->next < limit && has_bytes_behind(fd, offset))
        set_fault(fault, offset, "bytes that are no record: torn, or being written");
    if (limit != UINT64_MAX && segment->last + 1 < limit)
        set_fault(fault, offset, "records are missing before the next segment");
    return records;
}

/* The segments of a folder, one after the other. */
struct walk {
    int folder;
    struct segment_list list;
    struct segment_scan scan;
};

/* end_walk() in any case. False: *error. */
static bool begin_walk(struct walk *walk, const char *folder, struct error *error)
{
    *walk = (struct walk){.folder = folder_open(folder, false, error), .scan = {.fd = -1}};
    return walk->folder >= 0 && list_segments(walk->folder, folder, &walk->list, error);
}

static void end_walk(struct walk *walk)
{
    free(walk->list.firsts);
    segment_scan_free(&walk->scan);
    if (walk->folder >= 0)
        close(walk->folder);
}

/* The sequence of the last record in the last segment, by the heads of those before; first - 1 when there is none. */
static uint64_t find_last(struct segment_scan *scan, int fd, uint64_t first)
{
    struct segment_frame frame;
    segment_scan_begin(scan, fd, first, UINT64_MAX);
    segment_scan_hop(scan, UINT64_MAX);
    while (segment_scan_next(scan, &frame))
        ; /* a hop ends before the last one */
    return scan->next - 1;
}

bool event_log_list(const char *folder,
                    void (*visit)(void *argument, const char *file, const struct event_log_segment *segment),
                    void *argument, struct error *error)
{
    struct walk walk;
    bool done = begin_walk(&walk, folder, error);
    const struct segment_list *list = &walk.list;
    for (size_t i = 0; done && i < list->count; i++) {
        struct event_log_segment segment = {.first = list->firsts[i]};
        char name[SEGMENT_NAME_SIZE];
        enum segment_state state;
        int file = open_checked(walk.folder, folder, segment.first, name, &state, error);
        if (file < 0 && errno == ENOENT)
            continue; /* removed meanwhile */
        done = file >= 0;
        if (done) {
            describe_file(file, &segment);
            segment.last =
                i + 1 < list->count ? list->firsts[i + 1] - 1 : find_last(&walk.scan, file, segment.first);
            visit(argument, name, &segment);
            close(file);
        }
    }
    end_walk(&walk);
    return done;
}

bool event_log_verify(const char *folder,
                      void (*visit)(void *argument, const char *file, const struct event_log_segment *segment,
                                    uint64_t records, const char *fault),
                      void *argument, struct error *error)
{
    struct walk walk;
    bool done = begin_walk(&walk, folder, error);
    const struct segment_list *list = &walk.list;
    for (size_t i = 0; done && i < list->count; i++) {
        struct event_log_segment segment = {.first = list->firsts[i], .last = list->firsts[i] - 1};
        struct error fault = {.message = ""};
        char name[SEGMENT_NAME_SIZE];
        enum segment_state state;
        uint64_t records = 0;
        int file = open_checked(walk.folder, folder, segment.first, name, &state, &fault);
        if (file < 0 && errno == ENOENT)
            continue; /* removed meanwhile */
        if (file >= 0) {
            if (state != SEGMENT_GOOD)
                set_fault(&fault, 0,
                          state == SEGMENT_SHORT ? "no whole header" : "no header of this segment's");
            records = verify_segment(file, first_behind(list, segment.first), &walk.scan, &segment, &fault);
            close(file);
        }
        visit(argument, name, &segment, records, fault.message[0] != '\0' ? fault.message : NULL);
    }
    end_walk(&walk);
    return done;
}
