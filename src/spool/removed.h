/*
 * removed: which letters of a log of dead letters were replayed or purged, in a file beside it that is appended to by whoever removes some, and made anew without those that are gone for good by the process that writes the
 * log. Locked (flock) meanwhile, so both may run at once.
 *
 *     FOLDER/removed    frames of u64 sequence | u32 crc32c of it, little-endian; a torn or damaged one is as if it were not there
 *
 * One thread at a time; all of it blocks.
 */
#ifndef SPOOL_REMOVED_H
#define SPOOL_REMOVED_H

#include "base/error.h"
#include "base/slice.h"

/* All zero: none. */
struct removed {
    uint64_t *sequences; /* ascending, each once */
    size_t count;
    uint64_t inode, size; /* of the file when it was read */
};

/* Reads them if the file has changed. folder: a descriptor; path: its path, for messages. False: *error; nothing has changed. */
bool removed_read(struct removed *removed, int folder, const char *path, struct error *error);
/* Appends; durable when true. */
bool removed_append(int folder, const char *path, const uint64_t *sequences, size_t count,
                    struct error *error);
/* Reads them and forgets those outside of [first, last], in the file too. */
bool removed_forget(struct removed *removed, int folder, const char *path, uint64_t first, uint64_t last,
                    struct error *error);
bool removed_has(const struct removed *removed, uint64_t sequence);
/* How many of them are in [first, last]. */
uint64_t removed_between(const struct removed *removed, uint64_t first, uint64_t last);
void removed_release(struct removed *removed);

#endif
