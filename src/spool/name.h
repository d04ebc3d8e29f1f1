/*
 * name: a pipeline's name as that of a file or folder: bytes outside of [A-Za-z0-9_-] as %XX.
 */
#ifndef SPOOL_NAME_H
#define SPOOL_NAME_H

#include "base/buffer.h"

/* Appends the name. */
void name_encode(struct slice name, struct buffer *out);
/* A new string, the caller's; NULL: no name is encoded like this. */
char *name_decode(struct slice encoded);

#endif
