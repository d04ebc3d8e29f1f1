/*
 * line_file: a place where whole lines are appended: a file, a named pipe, a device, the standard output. The promises of llmproxy.file, without Lua.
 *
 * A regular file has one writer (a lock, which ends with the process), is made with 0600, and is never reached through a symbolic link (but below /dev/, where /dev/stdout is one). What is written is there as a
 * whole or not at all: after a failed write the file is cut back to where it was, and a last line without a newline, left by a crash, is cut off when the file is opened.
 *
 * With a rotation the file is moved away (rotated_files.h) before a write that would make it larger than max_bytes, or that finds it older than max_age, and the write goes to a new one; so lines are never split over
 * two files, and one write that is larger than max_bytes has a file of its own. Its age counts since it was made. When it cannot be moved the log says so, and the lines go where the others are.
 *
 * Pipes and devices cannot be cut back. There a line that was begun is finished before anything else is written, and a reader that takes nothing for 5 seconds makes the write fail.
 *
 * These block, for as long as the disk or the reader takes.
 */
#ifndef SCRIPT_LINE_FILE_H
#define SCRIPT_LINE_FILE_H

#include "base/error.h"
#include "base/slice.h"
#include "script/rotated_files.h"

struct line_file;

/* rotation NULL: it grows for ever. */
struct line_file *line_file_open(const char *path, const struct rotation *rotation, struct error *error);
/* The process's own, one for all threads. */
struct line_file *line_file_stdout(void);
/* False: the text was not written, or not completely (pipes, devices); write it again as a whole. */
bool line_file_write(struct line_file *file, struct slice text, struct error *error);
/* Opens the path anew before the next write: what lies there may have been renamed. */
void line_file_reopen(struct line_file *file);
/* Does nothing to the standard output. */
void line_file_close(struct line_file *file);

/* Puts text in the place of what path holds, at once and durably: a reader sees the old content or the new. */
bool line_file_replace(const char *path, struct slice text, struct error *error);

#endif
