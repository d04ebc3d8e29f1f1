/*
 * file: small helpers over files and folders. Errors name the path. These block: never from a worker.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/buffer.h"
#include "base/error.h"

/* Appends the whole file to out. A folder, an unreadable file or one larger than limit bytes is an error. */
bool file_read(const char *path, size_t limit, struct buffer *out, struct error *error);
/* The folder in which the running binary lies, a new string; NULL when /proc does not tell. */
char *file_program_folder(void);
/* path as it is when absolute, else below folder. A new string. */
char *file_path_below(const char *folder, const char *path);

#endif
