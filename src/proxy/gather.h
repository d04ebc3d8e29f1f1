/*
 * gather: collects pieces of a body so that they leave in one write, with a chunk's frame around them where the next hop wants it. Holds no bytes: what was added must stay
 * until the write.
 */
#ifndef PROXY_GATHER_H
#define PROXY_GATHER_H

#include <sys/uio.h>

#include "base/slice.h"
#include "http/chunked.h"

#define GATHER_MAX_PIECES 60 /* of data; the frames around them come on top */

struct gather {
    struct slice head; /* goes first, unframed; may be empty */
    struct slice data[GATHER_MAX_PIECES];
    int count;
    size_t size; /* of all data */
    char chunk_header[HTTP_CHUNK_HEADER_SIZE];
    struct iovec pieces[GATHER_MAX_PIECES + 4];
};

static inline void gather_begin(struct gather *gather)
{
    gather->head = (struct slice){NULL, 0};
    gather->count = 0;
    gather->size = 0;
}

static inline bool gather_is_full(const struct gather *gather)
{
    return gather->count == GATHER_MAX_PIECES;
}

static inline void gather_add(struct gather *gather, struct slice data)
{
    gather->data[gather->count++] = data;
    gather->size += data.size;
}

static inline void gather_push(struct gather *gather, int *count, struct slice data)
{
    if (data.size > 0) {
        gather->pieces[(*count)++] =
            (struct iovec){.iov_base = (void *)(uintptr_t)data.data, .iov_len = data.size};
    }
}

/* Lays out what to write in gather->pieces, returns their number. chunked: the data as one chunk; last: and the end of the chunked body behind it. */
static inline int gather_finish(struct gather *gather, bool chunked, bool last)
{
    int count = 0;
    gather_push(gather, &count, gather->head);
    bool framed = chunked && gather->size > 0;
    if (framed) {
        size_t size = http_chunk_header(gather->chunk_header, gather->size);
        gather_push(gather, &count, (struct slice){gather->chunk_header, size});
    }
    for (int i = 0; i < gather->count; i++) {
        gather_push(gather, &count, gather->data[i]);
    }
    if (framed || (chunked && last)) {
        struct slice end = !last ? SLICE("\r\n") : framed ? SLICE("\r\n0\r\n\r\n") : SLICE("0\r\n\r\n");
        gather_push(gather, &count, end);
    }
    return count;
}

#endif
