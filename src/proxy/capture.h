/*
 * capture: the tap on one exchange's two bodies. Copies what is to be kept, counts the rest. It can be off, full or out of memory: the bytes that pass
 * are never touched and never wait.
 */
#ifndef PROXY_CAPTURE_H
#define PROXY_CAPTURE_H

#include "event/event.h"

#define CAPTURE_TAIL_SIZE 32768

struct capture_body {
    struct body kept;
    size_t limit;
    uint64_t bytes; /* that passed */
    bool truncated;
};

struct capture {
    struct capture_body request, response;
    enum event_withheld withheld;
    bool keep_tail; /* of a truncated response: set when it has no content coding */
    char *tail;     /* a ring of CAPTURE_TAIL_SIZE bytes, from the moment of truncation on */
    size_t tail_size, tail_next;
    uint64_t chunks; /* pieces of the response */
    struct memory_budget *budget;
};

/* Is there memory for one more exchange to begin with? */
bool capture_has_room(const struct memory_budget *budget);

/* wanted: false when bodies are not to be kept for this exchange. budget may be NULL (then nothing is kept: observability is off). */
void capture_begin(struct capture *capture, bool wanted, size_t request_limit, size_t response_limit,
                   struct memory_budget *budget);
void capture_request(struct capture *capture, struct slice data);
void capture_response(struct capture *capture, struct slice data);
/* The tail as a body of its own; empty when there is none. */
void capture_take_tail(struct capture *capture, struct body *tail);
void capture_end(struct capture *capture);

#endif
