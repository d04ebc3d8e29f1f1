/*
 * content: undoes Content-Encoding: gzip (also x-gzip), deflate (zlib and raw), br, zstd; at most two codings, in any order. On the pipeline side only.
 */
#ifndef EVENT_CONTENT_H
#define EVENT_CONTENT_H

#include "base/buffer.h"
#include "event/event.h"

enum content_result {
    CONTENT_PLAIN, /* no coding, or identity: nothing was written to out, use the bytes as they are */
    CONTENT_DECODED, /* out has the content. A body that ends early gives what could be decoded (a truncated capture) */
    CONTENT_KEPT /* the coding is unknown, broken, one of more than two, or the content would be over limit: out is empty, use the bytes as they are and say
                        which coding they still have */
};

/* coding: the value of Content-Encoding (all lines joined by commas); may be empty. truncated: the body is a prefix, so an early end is no fault. limit: most bytes of content. */
enum content_result content_decode(const struct body *body, struct slice coding, bool truncated, size_t limit,
                                   struct buffer *out);

#endif
