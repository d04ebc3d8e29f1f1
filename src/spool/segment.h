/*
 * segment: the bytes of one file of a log (event_log.h tells the format): its name, its header, and a scan over its frames. Private to the log.
 *
 * A scan goes from frame to frame and checks each. Where there is none it looks for the next one, byte by byte: a length that fits, a sequence that can be there, the right checksum, in this order. It tells the same
 * whatever the bytes are, in a time that grows with their number: what checksums may cost is bounded, so that bytes made to look like frames cannot hold it up (frames behind such a place may be missed then).
 */
#ifndef SPOOL_SEGMENT_H
#define SPOOL_SEGMENT_H

#include "base/error.h"
#include "base/slice.h"

#define SEGMENT_HEADER_SIZE 64u
#define SEGMENT_VERSION     1u
#define SEGMENT_NAME_SIZE   32 /* 20 digits, ".log", NUL, and some room */

void segment_name(uint64_t first, char name[SEGMENT_NAME_SIZE]);
/* False: no segment's name. */
bool segment_parse_name(const char *name, uint64_t *first);

enum segment_state {
    SEGMENT_GOOD,
    SEGMENT_SHORT,        /* no whole header */
    SEGMENT_DAMAGED,      /* no header, or another segment's */
    SEGMENT_UNKNOWN,      /* a good header of another version */
    SEGMENT_NOT_READABLE, /* errno */
};

void segment_write_header(char header[SEGMENT_HEADER_SIZE], uint64_t first, uint64_t created_us);
/* What the file begins with. *version: of an UNKNOWN one. */
enum segment_state segment_check_header(int fd, uint64_t first, uint32_t *version);
/* The refusal of an unknown version. */
void segment_refuse(struct error *error, const char *folder, const char *name, uint32_t version);

/* The head of the frame whose payload is in these pieces. */
struct iovec;
void segment_write_head(char *head, uint64_t sequence, const struct iovec *pieces, size_t count,
                        size_t length);

struct segment_frame {
    uint64_t sequence;
    uint64_t offset;
    struct slice payload; /* valid until the next call on the scan */
};

struct segment_scan {
    int fd;          /* borrowed */
    uint64_t offset; /* where the next frame should begin */
    uint64_t next;   /* the sequence it should have */
    uint64_t limit;  /* sequences from here on do not count */
    int error;       /* errno of the last read, 0: none */
    /* What was read of the file. */
    char *data;
    size_t capacity, size, step;
    uint64_t at;
};

/* All zero before the first time; may begin again. */
void segment_scan_begin(struct segment_scan *scan, int fd, uint64_t first, uint64_t limit);
void segment_scan_free(struct segment_scan *scan);
/* What was read may have changed since. */
void segment_scan_forget(struct segment_scan *scan);
/* Goes on to the next good frame. False: none before the end of the file, nothing has changed; or `error`. */
bool segment_scan_next(struct segment_scan *scan, struct segment_frame *frame);
/* Goes towards this sequence by the heads alone, as long as they follow each other. */
void segment_scan_hop(struct segment_scan *scan, uint64_t sequence);

#endif
