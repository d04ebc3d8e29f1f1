/*
 * letter: a dead letter as bytes (see dead_letters.h). Bytes in, bytes out.
 */
#ifndef SPOOL_LETTER_H
#define SPOOL_LETTER_H

#include "base/buffer.h"
#include "spool/dead_letters.h"

/* Appends the head; the event's pieces follow it in the log. */
void letter_encode_head(const struct dead_letter *letter, struct buffer *out);
/* Strings are views into stored; the event is the caller's. False: it is no letter. */
bool letter_decode(struct slice stored, struct dead_letter *letter);

#endif
