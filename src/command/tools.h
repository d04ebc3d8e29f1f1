/*
 * tools: what the commands that look into stored events share.
 */
#ifndef COMMAND_TOOLS_H
#define COMMAND_TOOLS_H

#include "command/command.h"
#include "event/event.h"

#define TOOLS_MAX_DECODED_BYTES                                                                              \
    (16u << 20) /* where no configuration says so: the default of observability.max_decoded_bytes */

/* The configuration that the options name. NULL: its errors were said. */
struct config *tools_load_config(const struct options *options);

/* Since when events are wanted, from --since; 0 without it. False: an error was said. */
bool tools_parse_since(const struct options *options, uint64_t *since_us);

/* Appends "2026-01-31 10:00:00Z"; "-" for 0. */
void tools_append_time(struct buffer *out, uint64_t time_us);
/* Appends a JSON string of a moment; null for 0. */
void tools_append_json_time(struct buffer *out, uint64_t time_us);
/* Appends "1.5 MiB". */
void tools_append_size(struct buffer *out, uint64_t bytes);

/* Writes out to the standard output and empties it. False: an error was said. */
bool tools_flush(struct buffer *out);

/* Is it one of the events that the arguments from `first` on name, by number or id? All are when there are none. found (may be NULL): has a place for each argument, and is set for the one that matched. */
bool tools_is_chosen(const struct options *options, size_t first, uint64_t sequence, struct slice event_id,
                     bool *found);
/* Says an error for each argument that was not found. Returns whether all were. */
bool tools_all_found(const struct options *options, size_t first, const bool *found, const char *where);

#endif
