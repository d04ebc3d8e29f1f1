/*
 * upstream: one request to an LLM API and its response, streamed, over a connection from the worker's pool or a new one.
 *
 *     upstream_start()          a pooled connection that is still quiet: ready at once; else connects, and on_ready follows
 *     upstream_send()           any number of times
 *     on_interim()              any number of times: 102, 103, ... (100 is swallowed, 101 is a failure)
 *     on_head()                 once; on_body() follows in the same turn, so that both can leave in one write
 *     on_body()                 any number of times; the last time with last = true: the response is complete
 *     on_failed()               instead of anything still to come; nothing follows
 *     upstream_release()        after the end: gives the connection back, or closes it
 *     upstream_free()           at any time, also inside callbacks: closes what is open, calls nothing
 *
 * Used on its worker's thread only. The response's slices live until upstream_free().
 */
#ifndef PROXY_UPSTREAM_H
#define PROXY_UPSTREAM_H

#include "http/head.h"
#include "proxy/gather.h"
#include "proxy/worker.h"

struct upstream;

enum upstream_failure {
    UPSTREAM_UNREACHABLE,     /* no connection: name, connect, TLS */
    UPSTREAM_CONNECT_TIMEOUT, /* the same, by time */
    UPSTREAM_EXHAUSTED,       /* the same, for want of a file descriptor */
    UPSTREAM_STALE, /* a pooled connection ended before any byte of the response: the request may be sent again where that is allowed */
    UPSTREAM_INVALID, /* what came is no HTTP we accept, or nothing came at all */
    UPSTREAM_ABORTED  /* it ended within the response's body */
};

struct upstream_callbacks {
    void (*on_ready)(void *owner);
    /* What was sent has been taken by the kernel. */
    void (*on_drained)(void *owner);
    void (*on_interim)(void *owner, const struct http_response *response);
    void (*on_head)(void *owner, const struct http_response *response);
    /* gather may be empty; its slices are valid during the call. */
    void (*on_body)(void *owner, struct gather *gather, bool last);
    void (*on_failed)(void *owner, enum upstream_failure failure, const char *message);
};

struct upstream_request {
    struct proxy_settings *settings; /* referenced */
    const struct route *route;       /* of settings */
    bool head;                       /* the method is HEAD */
    bool fresh;                      /* not over a pooled connection */
};

/* Never calls back before it returns. NULL: all connections that the route may have are in use. */
struct upstream *upstream_start(struct worker *worker, const struct upstream_request *request,
                                const struct upstream_callbacks *callbacks, void *owner);
bool upstream_is_ready(const struct upstream *upstream);
/* Over a connection that served before. */
bool upstream_is_reused(const struct upstream *upstream);
/* Was any byte of this request given to the kernel? */
bool upstream_has_written(const struct upstream *upstream);

/* False: the peer takes no more; what follows is not to be sent, but its response may still come (else on_failed does). */
bool upstream_send(struct upstream *upstream, const struct iovec *pieces, int count);
/* Bytes sent that the kernel has not taken. */
size_t upstream_pending(const struct upstream *upstream);
/* Monotonic, ns: when the first bytes came (0: none did), when the last; when the kernel last took some, or began to let some wait. */
uint64_t upstream_first_read_ns(const struct upstream *upstream);
uint64_t upstream_last_read_ns(const struct upstream *upstream);
uint64_t upstream_last_write_ns(const struct upstream *upstream);

/* Stops reading the response until upstream_resume(). */
void upstream_pause(struct upstream *upstream);
void upstream_resume(struct upstream *upstream);
bool upstream_is_paused(const struct upstream *upstream);

/* The response is complete. request_complete: so was the request, all of it sent. */
void upstream_release(struct upstream *upstream, bool request_complete);
void upstream_free(struct upstream *upstream);

#endif
