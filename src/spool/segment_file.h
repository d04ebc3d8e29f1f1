/*
 * segment_file: making the file of a segment, and its room on the disk. A segment is made under another name, and renamed when its header is written. Room is
 * taken ahead in steps, so that a full disk is seen before anything is written, and that a sync need not write a new size each time. Private to the log.
 */
#ifndef SPOOL_SEGMENT_FILE_H
#define SPOOL_SEGMENT_FILE_H

#include "base/slice.h"
#include "spool/event_log.h"

#define SEGMENT_NEW_SUFFIX ".new" /* a segment in the making */

struct segment_room {
    uint64_t size;   /* of the file */
    uint64_t limit;  /* no room is taken ahead beyond it */
    bool impossible; /* the file system takes none ahead */
};

/* Of errno. */
bool segment_disk_is_full(int code);
/* Makes it so large at least. Not DONE: errno, and nothing has changed. */
enum event_log_result segment_take_room(int fd, struct segment_room *room, uint64_t size);
/* Makes the file of the segment that begins with this sequence; what has its name is gone then. Without `durable` its header and its name are yet to be synced. -1: errno. */
int segment_make(int folder, const char *path, uint64_t first, bool durable, struct segment_room *room);
/* Shortens a segment to what it holds; it keeps the time of its last record. */
bool segment_cut(int fd, uint64_t size, uint64_t changed_us);

#endif
