/*
 * json_write: the one place that writes JSON strings and numbers (RFC 8259), for events, logs, admin and Lua alike.
 */
#ifndef BASE_JSON_WRITE_H
#define BASE_JSON_WRITE_H

#include "base/buffer.h"

/* A quoted JSON string of valid UTF-8. Escaped are only quote, backslash and control characters (short forms where there are). Bytes that are not
 * UTF-8 become U+FFFD: callers that must not lose them check first. */
void json_write_string(struct buffer *out, struct slice text);
/* The same for bytes read as Latin-1 when they are not valid UTF-8: header values, paths. */
void json_write_latin1(struct buffer *out, struct slice text);
/* The shortest text that reads back as the same double; integral values without ".0" up to 1e15. NaN and infinity become null. */
void json_write_number(struct buffer *out, double number);
void json_write_integer(struct buffer *out, int64_t number);

#endif
