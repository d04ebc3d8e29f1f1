/*
 * letter: a dead letter as bytes (see dead_letters.h), and a pipeline's name as a folder's. Bytes in, bytes out.
 */
#ifndef SPOOL_LETTER_H
#define SPOOL_LETTER_H

#include "base/buffer.h"
#include "spool/dead_letters.h"

/* Appends the head; the event's pieces follow it in the log. */
void letter_encode_head(const struct dead_letter *letter, struct buffer *out);
/* Strings are views into stored; the event is the caller's. False: it is no letter. */
bool letter_decode(struct slice stored, struct dead_letter *letter);

/* Appends the name, bytes outside of [A-Za-z0-9_-] as %XX. */
void letter_encode_name(struct slice name, struct buffer *out);
/* A new string, the caller's; NULL: no name is encoded like this. */
char *letter_decode_name(struct slice encoded);

#endif
