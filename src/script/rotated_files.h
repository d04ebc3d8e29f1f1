/*
 * rotated_files: what became of a file of lines when it was full or old: PATH-20251009T085322.678Z, or with .gz behind it. Names sort by time, and none is ever used twice, so that moving a file away is one rename.
 *
 * Tidying, which is compressing and deleting, happens on a thread of its own, for it may take long. It loses nothing wherever it is interrupted: the compressed file gets its name when it is whole and durable, the
 * other one goes after that, and what was left undone is done by the next tidying. Nothing is deleted but regular files with such a name; symbolic links are not followed.
 */
#ifndef SCRIPT_ROTATED_FILES_H
#define SCRIPT_ROTATED_FILES_H

#include <stdbool.h>
#include <stdint.h>

struct rotation {
    uint64_t max_bytes; /* 0: whatever its size */
    double max_age;     /* seconds; 0: whatever its age */
    unsigned keep;      /* rotated files; 0: all */
    bool compress;      /* gzip */
};

struct rotated_files;

struct rotated_files *rotated_files_new(const char *path, const struct rotation *rotation);
/* Ends a tidying under way between two of its steps. */
void rotated_files_free(struct rotated_files *files);
const struct rotation *rotated_files_rotation(const struct rotated_files *files);
/* A name that is free, for the path as it is now; a new string. */
char *rotated_files_next_name(struct rotated_files *files);
/* Compresses and deletes what there is too much of, in the background. */
void rotated_files_tidy(struct rotated_files *files);

#endif
