/*
 * chunked: the chunked coding (RFC 9112 7.1), decoded in place: bytes in, slices of them out. It holds no bytes; lines may be split over any number
 * of calls. Strict: no bare LF, no leading or trailing space, at most 16 hexadecimal digits below 2^63, extensions checked by their grammar and dropped
 * (at most 1 KiB a line, 16 KiB a message), trailers checked like fields and dropped (at most 8 KiB, 32 fields).
 *
 * From upstreams two oddities may be tolerated, since what leaves the proxy is framed anew: a bare LF as line end (behind data only where the line with its size ended so, too: else
 * a CR of the data that was one byte short would be taken for the missing byte), and junk behind the size of a chunk that is not the last.
 */
#ifndef HTTP_CHUNKED_H
#define HTTP_CHUNKED_H

#include "base/slice.h"

struct http_chunked {
    int state;          /* private; all zero is a decoder before its first byte */
    uint64_t remaining; /* of the current chunk */
    uint32_t digits, line_bytes, extension_bytes, trailer_bytes, trailer_fields;
    bool bare_lf;   /* private: the line with the current chunk's size ended in one */
    bool tolerant;  /* set by the caller at the beginning: for responses */
    bool tolerated; /* an oddity was met: the connection must not be used again */
};

enum http_chunked_result {
    HTTP_CHUNKED_MORE, /* all input was used up */
    HTTP_CHUNKED_DATA, /* *data is the next piece of the body (never empty) */
    HTTP_CHUNKED_END,  /* the body is complete; what is left of the input belongs to the next message */
    HTTP_CHUNKED_ERROR /* malformed; *reason (static, snake_case) says how */
};

/* Takes what it used off the front of *input. Call until it returns something other than DATA. After END or ERROR only zeroing makes
 * it usable again. */
enum http_chunked_result http_chunked_next(struct http_chunked *decoder, struct slice *input,
                                           struct slice *data, const char **reason);

/* The line in front of a chunk of size bytes, "1f\r\n"; returns its length. Behind the chunk comes "\r\n", behind the last one
 * "0\r\n\r\n". */
#define HTTP_CHUNK_HEADER_SIZE 20
size_t http_chunk_header(char out[HTTP_CHUNK_HEADER_SIZE], uint64_t size);

#endif
