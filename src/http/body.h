/*
 * body: reads a message body of any framing: none, by length, chunked, until close. Bytes in, slices of content out. One for each
 * message being received.
 */
#ifndef HTTP_BODY_H
#define HTTP_BODY_H

#include "http/chunked.h"
#include "http/head.h"

struct http_body_reader {
    enum http_body kind;
    uint64_t remaining; /* by length */
    struct http_chunked chunked;
};

void http_body_begin(struct http_body_reader *reader, enum http_body kind, uint64_t content_length);
/* After http_body_begin, for the body of a response: chunked oddities of upstreams are tolerated (see chunked.h). */
void http_body_be_tolerant(struct http_body_reader *reader);
/* Whether one was met: then the connection must not be used again. */
bool http_body_was_odd(const struct http_body_reader *reader);

/* As http_chunked_next; END for a body without bytes at the first call. UNTIL_CLOSE never ends by itself: see http_body_at_close. */
enum http_chunked_result http_body_next(struct http_body_reader *reader, struct slice *input,
                                        struct slice *data, const char **reason);

/* The peer closed. True when the body is complete by that (UNTIL_CLOSE). */
bool http_body_at_close(const struct http_body_reader *reader);

#endif
