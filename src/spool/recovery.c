/*
 * recovery: see recovery.h. Only the last segment is scanned: those before were synced and closed; of them the headers are looked at.
 */
#include "spool/recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "spool/folder.h"
#include "spool/segment.h"
#include "spool/segment_file.h"

#define CORRUPT_SUFFIX        ".corrupt"
#define MAX_CORRUPT           8 /* more are not kept aside: they would fill the disk */
#define MICROS_PER_SECOND     UINT64_C(1000000)
#define NANOS_PER_MICROSECOND 1000

struct finding {
    int folder;
    const char *path;
    struct recovered_log *log;
    struct event_log_recovery *recovery;
    size_t capacity;
    uint64_t *corrupt; /* first sequences of those that have a .corrupt */
    size_t corrupt_count;
};

static void note_corrupt(struct finding *finding, uint64_t first)
{
    finding->corrupt = xrealloc(finding->corrupt, (finding->corrupt_count + 1) * sizeof *finding->corrupt);
    finding->corrupt[finding->corrupt_count++] = first;
}

static void note_name(void *argument, const char *name)
{
    struct finding *finding = argument;
    struct recovered_log *log = finding->log;
    uint64_t first;
    char stem[SEGMENT_NAME_SIZE];
    const char *suffix = strstr(name, ".log");
    if (suffix == NULL || (size_t)(suffix + 4 - name) >= sizeof stem)
        return;
    snprintf(stem, sizeof stem, "%.*s", (int)(suffix + 4 - name), name);
    if (!segment_parse_name(stem, &first))
        return;
    suffix += 4;
    if (*suffix == '\0') {
        if (log->count == finding->capacity) {
            finding->capacity = finding->capacity * 2 + 16;
            log->segments = xrealloc(log->segments, finding->capacity * sizeof *log->segments);
        }
        log->segments[log->count++] = (struct event_log_segment){.first = first, .last = first - 1};
    } else if (strcmp(suffix, CORRUPT_SUFFIX) == 0) {
        note_corrupt(finding, first);
    } else if (strcmp(suffix, SEGMENT_NEW_SUFFIX) == 0) {
        unlinkat(finding->folder, name, 0); /* was being made when the process ended */
    }
}

static int compare_segments(const void *a, const void *b)
{
    uint64_t first = ((const struct event_log_segment *)a)->first;
    uint64_t second = ((const struct event_log_segment *)b)->first;
    return (first > second) - (first < second);
}

/* Says it, and keeps the file aside under a second name. */
static void note_damage(struct finding *finding, uint64_t first, uint64_t offset, const char *what,
                        uint64_t lost)
{
    char name[SEGMENT_NAME_SIZE], aside[SEGMENT_NAME_SIZE + sizeof CORRUPT_SUFFIX];
    segment_name(first, name);
    snprintf(aside, sizeof aside, "%s%s", name, CORRUPT_SUFFIX);
    char *file = xprintf("%s/%s", finding->path, name);
    bool kept = false;
    for (size_t i = 0; i < finding->corrupt_count; i++)
        kept = kept || finding->corrupt[i] == first;
    if (!kept) {
        finding->recovery->damaged_segments++;
        if (finding->corrupt_count < MAX_CORRUPT)
            kept = linkat(finding->folder, name, finding->folder, aside, 0) == 0;
        if (kept)
            note_corrupt(finding, first);
    }
    log_error("a segment is damaged: what is good in it is still read", log_string("file", file),
              log_integer("offset", (int64_t)offset), log_string("reason", what),
              log_integer("records_lost", (int64_t)lost), log_string(kept ? "kept_aside_as" : NULL, aside));
    free(file);
}

/* Looks at its header and its file. -1: *error. */
static int open_segment(struct finding *finding, struct event_log_segment *segment, enum segment_state *state,
                        struct error *error)
{
    char name[SEGMENT_NAME_SIZE];
    struct stat status;
    uint32_t version;
    segment_name(segment->first, name);
    int fd = folder_open_file(finding->folder, finding->path, name, O_RDWR, error);
    if (fd < 0)
        return -1;
    *state = segment_check_header(fd, segment->first, &version);
    if (*state == SEGMENT_UNKNOWN) {
        segment_refuse(error, finding->path, name, version);
        close(fd);
        return -1;
    }
    if (fstat(fd, &status) == 0) {
        segment->bytes = (uint64_t)status.st_size;
        segment->changed_us = (uint64_t)status.st_mtim.tv_sec * MICROS_PER_SECOND +
                              (uint64_t)status.st_mtim.tv_nsec / NANOS_PER_MICROSECOND;
    }
    return fd;
}

static const char *describe(enum segment_state state)
{
    return state == SEGMENT_SHORT     ? "no whole header"
           : state == SEGMENT_DAMAGED ? "no header of this segment's"
                                      : "the header cannot be read";
}

static bool check_closed(struct finding *finding, size_t index, struct error *error)
{
    struct event_log_segment *segment = &finding->log->segments[index];
    enum segment_state state;
    int fd = open_segment(finding, segment, &state, error);
    if (fd < 0)
        return false;
    bool synced = fdatasync(fd) == 0; /* what is counted as there is durable from now on */
    if (!synced)
        error_set(error, "%s: a segment cannot be synced: %s", finding->path, strerror(errno));
    close(fd);
    if (!synced)
        return false;
    segment->last = segment[1].first - 1;
    finding->recovery->records += segment[1].first - segment->first;
    if (state != SEGMENT_GOOD)
        note_damage(finding, segment->first, 0, describe(state), 0);
    return true;
}

/* How many bytes there are from offset to the last one that is not zero. */
static uint64_t measure_tail(int fd, uint64_t offset)
{
    char bytes[16384];
    uint64_t tail = 0;
    for (uint64_t at = offset;;) {
        ssize_t got = pread(fd, bytes, sizeof bytes, (off_t)at);
        if (got <= 0)
            return tail;
        for (size_t i = 0; i < (size_t)got; i++) {
            if (bytes[i] != 0)
                tail = at + i + 1 - offset;
        }
        at += (size_t)got;
    }
}

/* Counts the good frames, and notes what is damaged between them. */
static bool scan_last(struct finding *finding, struct segment_scan *scan, struct event_log_segment *segment)
{
    struct segment_frame frame;
    uint64_t next = segment->first, offset = SEGMENT_HEADER_SIZE, lost = 0, place = 0;
    while (segment_scan_next(scan, &frame)) {
        if (frame.offset != offset && place == 0)
            place = offset;
        lost += frame.sequence - next;
        next = scan->next;
        offset = scan->offset;
        finding->recovery->records++;
    }
    segment->last = next - 1;
    finding->recovery->damaged_records += lost;
    if (place != 0)
        note_damage(finding, segment->first, place, "bytes between records", lost);
    else if (scan->error != 0)
        note_damage(finding, segment->first, offset, strerror(scan->error), 0);
    return place == 0 && scan->error == 0;
}

static bool mend_last(struct finding *finding, struct error *error)
{
    struct recovered_log *log = finding->log;
    struct event_log_segment *segment = &log->segments[log->count - 1];
    struct segment_scan scan = {.fd = -1};
    char name[SEGMENT_NAME_SIZE];
    enum segment_state state;
    bool whole = false;
    int fd = open_segment(finding, segment, &state, error);
    if (fd < 0)
        return false;
    segment_name(segment->first, name);
    if (state == SEGMENT_DAMAGED && measure_tail(fd, 0) == 0)
        state = SEGMENT_SHORT; /* its room was taken, and power was lost before its header was on the disk */
    if (state == SEGMENT_SHORT) {
        finding->recovery->torn_bytes += measure_tail(fd, 0);
    } else {
        if (state != SEGMENT_GOOD)
            note_damage(finding, segment->first, 0, describe(state), 0);
        segment_scan_begin(&scan, fd, segment->first, UINT64_MAX);
        whole = scan_last(finding, &scan, segment) && state == SEGMENT_GOOD;
    }
    log->next = segment->last + 1;
    if (whole && segment->bytes > scan.offset) {
        uint64_t torn = measure_tail(fd, scan.offset);
        finding->recovery->torn_bytes += torn;
        if (torn > 0)
            log_warn("cut off what was being written when the process ended",
                     log_string("folder", finding->path), log_string("file", name),
                     log_integer("offset", (int64_t)scan.offset), log_integer("bytes", (int64_t)torn));
        if (!segment_cut(fd, scan.offset, segment->changed_us))
            goto fail;
        segment->bytes = scan.offset;
    }
    /* What is counted as there is durable from now on. */
    if (fdatasync(fd) != 0)
        goto fail;
    if (whole) {
        log->fd = fd;
        log->end = scan.offset;
    } else {
        close(fd);
    }
    segment_scan_free(&scan);
    return true;
fail:
    error_set(error, "%s/%s: cannot be mended: %s", finding->path, name, strerror(errno));
    close(fd);
    segment_scan_free(&scan);
    return false;
}

bool log_recover(int folder, const char *path, struct recovered_log *found,
                 struct event_log_recovery *recovery, struct error *error)
{
    struct finding finding = {.folder = folder, .path = path, .log = found, .recovery = recovery};
    *found = (struct recovered_log){.fd = -1, .next = 1};
    bool done = folder_list(folder, path, note_name, &finding, error);
    if (done && found->count > 0) {
        qsort(found->segments, found->count, sizeof *found->segments, compare_segments);
        for (size_t i = 0; i < found->count; i++) {
            for (size_t j = 0; j < finding.corrupt_count; j++)
                recovery->damaged_segments += finding.corrupt[j] == found->segments[i].first;
        }
        for (size_t i = 0; done && i + 1 < found->count; i++)
            done = check_closed(&finding, i, error);
        done = done && mend_last(&finding, error);
    }
    free(finding.corrupt);
    if (!done) {
        free(found->segments);
        *found = (struct recovered_log){.fd = -1};
    }
    return done;
}
