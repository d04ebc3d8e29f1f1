/*
 * cursor: how far one reader of a log has come, in a small file. Two slots of 512 bytes are written in turn, so that one whole value is always there; the newer valid one counts.
 *
 *     slot   "LPCUR" and three NUL | u64 generation | u64 sequence | u64 removed, us since 1970 | zeros | u32 crc32c of all before, at 508
 *
 * Files are FOLDER/NAME.cursor, the name's bytes outside of [A-Za-z0-9_-] as %XX. One thread at a time; all of it blocks.
 */
#ifndef SPOOL_CURSOR_H
#define SPOOL_CURSOR_H

#include "base/error.h"
#include "base/slice.h"

struct cursor {
    uint64_t sequence;   /* the reader is through with everything up to this one */
    uint64_t removed_us; /* when it was noticed that nobody uses the cursor any more; 0: in use */
};

struct cursor_file;

/* Opens or creates. *found: whether there was a valid value; else *value is zero (a file without a valid slot is one of its own, said in the log). NULL: *error. */
struct cursor_file *cursor_file_open(const char *folder, const char *name, struct cursor *value, bool *found,
                                     struct error *error);
/* Durable when true. */
bool cursor_file_write(struct cursor_file *file, const struct cursor *value, struct error *error);
void cursor_file_close(struct cursor_file *file);
bool cursor_file_remove(const char *folder, const char *name, struct error *error);
/* Calls visit with the name of each cursor of the folder and its value. False: the folder cannot be read. */
bool cursor_files_list(const char *folder,
                       void (*visit)(void *argument, const char *name, const struct cursor *value),
                       void *argument, struct error *error);

#endif
