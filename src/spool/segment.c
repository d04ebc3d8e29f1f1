/*
 * segment: see segment.h.
 */
#include "spool/segment.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/little_endian.h"
#include "base/memory.h"
#include "spool/crc32c.h"
#include "spool/event_log.h"

#define NAME_DIGITS    20
#define SMALLEST_FRAME (EVENT_LOG_FRAME_HEAD + 1)
/* Read at a time: little at first, as at the end of a live log there is little to read. */
#define FIRST_STEP   ((size_t)16 << 10)
#define LARGEST_STEP ((size_t)256 << 10)
/* A search may check as many bytes as there are, this many times. */
#define SEARCH_EFFORT 16

static const char MAGIC[8] = "LPLOG";

/* The name and the header ---------------------------------------------------------------------------------------------------------------------------------------- */

void segment_name(uint64_t first, char name[SEGMENT_NAME_SIZE])
{
    snprintf(name, SEGMENT_NAME_SIZE, "%020" PRIu64 ".log", first);
}

bool segment_parse_name(const char *name, uint64_t *first)
{
    return strlen(name) == NAME_DIGITS + 4 && strcmp(name + NAME_DIGITS, ".log") == 0 &&
           slice_to_uint64((struct slice){name, NAME_DIGITS}, first) && *first > 0 && *first <= INT64_MAX;
}

void segment_write_header(char header[SEGMENT_HEADER_SIZE], uint64_t first, uint64_t created_us)
{
    memset(header, 0, SEGMENT_HEADER_SIZE);
    memcpy(header, MAGIC, sizeof MAGIC);
    little_endian_put32(header + 8, SEGMENT_VERSION);
    little_endian_put32(header + 12, SEGMENT_HEADER_SIZE);
    little_endian_put64(header + 16, first);
    little_endian_put64(header + 24, created_us);
    little_endian_put32(header + 60, crc32c(0, (struct slice){header, 60}));
}

/* As much as there is. -1: errno. */
static ssize_t read_at(int fd, char *data, size_t size, uint64_t offset)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, data + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

enum segment_state segment_check_header(int fd, uint64_t first, uint32_t *version)
{
    char header[SEGMENT_HEADER_SIZE];
    ssize_t got = read_at(fd, header, sizeof header, 0);
    if (got < 0)
        return SEGMENT_NOT_READABLE;
    if ((size_t)got < sizeof header)
        return SEGMENT_SHORT;
    if (memcmp(header, MAGIC, sizeof MAGIC) != 0 ||
        little_endian_get32(header + 60) != crc32c(0, (struct slice){header, 60}))
        return SEGMENT_DAMAGED;
    *version = little_endian_get32(header + 8);
    if (*version != SEGMENT_VERSION)
        return SEGMENT_UNKNOWN;
    return little_endian_get32(header + 12) == SEGMENT_HEADER_SIZE &&
                   little_endian_get64(header + 16) == first
               ? SEGMENT_GOOD
               : SEGMENT_DAMAGED;
}

void segment_refuse(struct error *error, const char *folder, const char *name, uint32_t version)
{
    error_set(error,
              "%s/%s has format version %" PRIu32 ", this program knows version %u only: use the version of "
              "the program that wrote it, or another folder",
              folder, name, version, SEGMENT_VERSION);
}

/* Frames ------------------------------------------------------------------------------------------------------------------------------------------------------------ */

static uint32_t start_crc(uint32_t length, uint64_t sequence)
{
    char bytes[12];
    little_endian_put32(bytes, length);
    little_endian_put64(bytes + 4, sequence);
    return crc32c(0, (struct slice){bytes, sizeof bytes});
}

void segment_write_head(char *head, uint64_t sequence, const struct iovec *pieces, size_t count,
                        size_t length)
{
    uint32_t crc = start_crc((uint32_t)length, sequence);
    for (size_t i = 0; i < count; i++)
        crc = crc32c(crc, (struct slice){pieces[i].iov_base, pieces[i].iov_len});
    little_endian_put32(head, (uint32_t)length);
    little_endian_put32(head + 4, crc);
    little_endian_put64(head + 8, sequence);
}

void segment_scan_begin(struct segment_scan *scan, int fd, uint64_t first, uint64_t limit)
{
    scan->fd = fd;
    scan->offset = SEGMENT_HEADER_SIZE;
    scan->next = first;
    scan->limit = limit;
    scan->error = 0;
    segment_scan_forget(scan);
}

void segment_scan_free(struct segment_scan *scan)
{
    free(scan->data);
    *scan = (struct segment_scan){.fd = -1};
}

void segment_scan_forget(struct segment_scan *scan)
{
    scan->size = 0;
    scan->at = 0;
    scan->step = FIRST_STEP;
}

static uint64_t file_size(struct segment_scan *scan)
{
    struct stat status;
    if (fstat(scan->fd, &status) == 0)
        return (uint64_t)status.st_size;
    scan->error = errno;
    return 0;
}

static bool holds(const struct segment_scan *scan, uint64_t offset, size_t size)
{
    return offset >= scan->at && offset - scan->at <= scan->size &&
           size <= scan->size - (size_t)(offset - scan->at);
}

static const char *held(const struct segment_scan *scan, uint64_t offset)
{
    return scan->data + (offset - scan->at);
}

/* Reads on from there if need be. False: the file ends before, or cannot be read. */
static bool load(struct segment_scan *scan, uint64_t offset, size_t size)
{
    if (holds(scan, offset, size))
        return true;
    if (size > FIRST_STEP && file_size(scan) < offset + size)
        return false; /* no memory for what is not there */
    size_t want = size > scan->step ? size : scan->step;
    if (scan->capacity < want || scan->capacity > want + 4 * LARGEST_STEP) {
        free(scan->data);
        scan->data = xmalloc(want);
        scan->capacity = want;
    }
    ssize_t got = read_at(scan->fd, scan->data, want, offset);
    if (got < 0)
        scan->error = errno;
    scan->at = offset;
    scan->size = got > 0 ? (size_t)got : 0;
    scan->step = scan->step < LARGEST_STEP ? scan->step * 2 : LARGEST_STEP;
    return scan->size >= size;
}

static bool plausible_length(uint32_t length)
{
    return length > 0 && length <= EVENT_LOG_MAX_PAYLOAD;
}

/* The frame that begins there and has this sequence. */
static bool frame_at(struct segment_scan *scan, uint64_t offset, uint64_t sequence,
                     struct segment_frame *frame)
{
    if (!load(scan, offset, EVENT_LOG_FRAME_HEAD))
        return false;
    const char *head = held(scan, offset);
    uint32_t length = little_endian_get32(head);
    if (!plausible_length(length) || little_endian_get64(head + 8) != sequence ||
        !load(scan, offset, EVENT_LOG_FRAME_HEAD + length))
        return false;
    head = held(scan, offset);
    struct slice payload = {head + EVENT_LOG_FRAME_HEAD, length};
    if (little_endian_get32(head) != length ||
        crc32c(start_crc(length, sequence), payload) != little_endian_get32(head + 4))
        return false;
    *frame = (struct segment_frame){sequence, offset, payload};
    return true;
}

/* The first good frame behind the place where one should be. Between the two there is room for so many others at most. */
static bool search(struct segment_scan *scan, struct segment_frame *frame)
{
    uint64_t end = file_size(scan), from = scan->offset;
    uint64_t effort = end > from ? (end - from) * SEARCH_EFFORT : 0;
    for (uint64_t offset = from + 1; offset + EVENT_LOG_FRAME_HEAD < end; offset++) {
        if (!load(scan, offset, EVENT_LOG_FRAME_HEAD))
            return false;
        const char *head = held(scan, offset);
        uint64_t beyond = little_endian_get64(head + 8) - scan->next;
        if (beyond > (offset - from) / SMALLEST_FRAME || scan->next + beyond >= scan->limit)
            continue;
        uint32_t length = little_endian_get32(head);
        if (!plausible_length(length) || length > end - offset - EVENT_LOG_FRAME_HEAD)
            continue;
        uint64_t cost = length;
        if (!holds(scan, offset, EVENT_LOG_FRAME_HEAD + length))
            cost += LARGEST_STEP; /* to come back here */
        if (cost > effort)
            return false;
        effort -= cost;
        if (frame_at(scan, offset, scan->next + beyond, frame))
            return true;
    }
    return false;
}

bool segment_scan_next(struct segment_scan *scan, struct segment_frame *frame)
{
    scan->error = 0;
    if (scan->next >= scan->limit)
        return false;
    if (!frame_at(scan, scan->offset, scan->next, frame)) {
        /* Beside a writer the next frame, or a part of it, may not have been there when the bytes were read. If there is one behind it now, it must be there as well, or is damaged. */
        segment_scan_forget(scan);
        struct segment_frame found;
        if (!frame_at(scan, scan->offset, scan->next, frame)) {
            if (scan->error != 0 || !search(scan, &found))
                return false;
            segment_scan_forget(scan);
            if (!frame_at(scan, scan->offset, scan->next, frame) &&
                !frame_at(scan, found.offset, found.sequence, frame))
                return false;
        }
    }
    scan->offset = frame->offset + EVENT_LOG_FRAME_HEAD + frame->payload.size;
    scan->next = frame->sequence + 1;
    return true;
}

void segment_scan_hop(struct segment_scan *scan, uint64_t sequence)
{
    uint64_t offset = scan->offset;
    for (uint64_t at = scan->next; at <= sequence; at++) {
        scan->step = FIRST_STEP;
        if (!load(scan, offset, EVENT_LOG_FRAME_HEAD))
            break;
        uint32_t length = little_endian_get32(held(scan, offset));
        if (!plausible_length(length) || little_endian_get64(held(scan, offset) + 8) != at)
            break;
        /* This head is where the one before said. */
        scan->offset = offset;
        scan->next = at;
        offset += EVENT_LOG_FRAME_HEAD + length;
    }
    scan->error = 0;
    segment_scan_forget(scan);
}
