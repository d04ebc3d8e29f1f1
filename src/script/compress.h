/*
 * compress: gzip, zlib and zstd, whole strings at once, the output bounded. No Lua here: bytes in, bytes out, so nothing leaks when Lua raises.
 */
#ifndef SCRIPT_COMPRESS_H
#define SCRIPT_COMPRESS_H

#include "base/buffer.h"

/* Each appends to out. NULL when it did, else what is wrong; out is undefined then. */
const char *gzip_encode(struct slice text, int level, struct buffer *out);
/* Several members one after another are read as one text. */
const char *gzip_decode(struct slice text, size_t limit, struct buffer *out);
const char *zlib_encode(struct slice text, int level, struct buffer *out);
/* Raw deflate as well, which some call "deflate". */
const char *zlib_decode(struct slice text, size_t limit, struct buffer *out);
const char *zstd_encode(struct slice text, int level, struct buffer *out);
const char *zstd_decode(struct slice text, size_t limit, struct buffer *out);

#endif
