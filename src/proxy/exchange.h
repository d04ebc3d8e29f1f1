/*
 * exchange: one request of a client and its response, from the complete request head to the one event it yields. Private to proxy/; worker's thread only.
 *
 *     CONNECTING ──▶ REQUESTING ──▶ RESPONDING ──▶ (HELD) ──▶ FLUSHING ──▶ done
 *          └──────────────┴─────▶ fault answered ──▶ (HELD) ──▶ FLUSHING ──▶ done
 *
 *     CONNECTING   waits for a connection to the upstream; nothing of the request's body is taken
 *     REQUESTING   the request is being sent, or was; no response head yet
 *     RESPONDING   the response's head was written to the client
 *     HELD         under audit: the event was published, and the end of the response waits until it is stored
 *     FLUSHING     everything was written; the client's kernel has not taken it all
 */
#ifndef PROXY_EXCHANGE_H
#define PROXY_EXCHANGE_H

#include "http/body.h"
#include "http/head.h"
#include "proxy/access.h"
#include "proxy/capture.h"
#include "proxy/forward.h"
#include "proxy/upstream.h"

enum exchange_state {
    EXCHANGE_CONNECTING,
    EXCHANGE_REQUESTING,
    EXCHANGE_RESPONDING,
    EXCHANGE_HELD,
    EXCHANGE_FLUSHING,
    EXCHANGE_DONE
};

struct exchange {
    struct exchange *next_spare;
    struct client *client;
    struct proxy_settings *settings; /* referenced: what it began with */
    const struct route *route;       /* NULL: none */
    enum exchange_state state;

    uint64_t begun_us, begun_ns; /* the request's first byte: real time, monotonic */
    uint64_t first_byte_ns;      /* from the upstream; 0: none came */
    uint64_t request_ns;         /* when request bytes last came */
    uint64_t request_sent_ns;    /* when the request was complete */

    struct buffer request_head; /* as received; request points into it */
    struct http_request request;
    struct http_body_reader request_body;
    bool request_complete; /* all of it was read */
    bool request_dropped;  /* what still comes of it goes nowhere */
    bool continue_sent;    /* 100 Continue was */
    bool head_only;        /* the method is HEAD: no body in the response */
    char request_id[FORWARD_REQUEST_ID_SIZE];
    struct access access; /* who it comes from */

    struct upstream *upstream;
    struct buffer upstream_head; /* the request's head as sent; goes before the first body bytes */
    bool upstream_head_sent;
    struct buffer replay; /* body bytes sent over a connection from the pool, to send them again */
    bool replay_is_whole; /* replay has all that was sent */

    int status;              /* sent to the client; 0: none yet */
    struct buffer scratch;   /* values of sent that were made here */
    struct http_fields sent; /* the response's fields as sent */
    struct buffer fault;     /* a response of our own; sent points into it */
    enum forward_framing framing;
    struct buffer head; /* to the client: leaves with the first piece of the body; HELD: the response's end */
    bool close;         /* the client's connection ends with this response */
    bool streamed;

    const char *error_kind; /* NULL: none; static */
    char error_message[256];

    bool observed;           /* an event is wanted */
    bool audited;            /* the response's end waits for it */
    bool recorded;           /* it is over for the record */
    struct audit_hold *hold; /* HELD */
    uint64_t held_ns;        /* since when */
    struct capture capture;
};

/* A complete head of client, in exchange->request_head, parsed into exchange->request. */
struct exchange *exchange_new(struct client *client);
void exchange_begin(struct exchange *exchange);
/* A request that was understood, but is refused by its own words (method, expectation). */
void exchange_begin_refused(struct exchange *exchange, const struct http_problem *problem);
/* The client closed or reset before the response was complete: cancels the upstream, publishes the event, lets go of the client's connection. */
void exchange_client_left(struct exchange *exchange, const char *message);
/* Looks for a time-out that is over; returns how long until it must be called again, ns; 0: the exchange is over. */
uint64_t exchange_tick(struct exchange *exchange);
/* Ends it now: the process stops. */
void exchange_shutdown(struct exchange *exchange);
/* For relay.c, which moves the bytes. What ends the exchange may free it, and begin the client's next request in its place. */

/* The one place where the state changes. */
void exchange_enter(struct exchange *exchange, enum exchange_state state);
void exchange_drop_upstream(struct exchange *exchange);
/* Can the rest of the request's body be read and dropped in no time? Not if the client waits to be told to send it, since then it may leave it out. */
bool exchange_rest_is_short(const struct exchange *exchange);
/* Audit: all was written to the client but what stands in exchange->head. Publishes the event, and lets the rest follow when it is stored. */
void exchange_hold(struct exchange *exchange);
/* All was written to the client: it ends when the kernel has taken it. */
void exchange_finish_when_flushed(struct exchange *exchange);
/* Ends it with an answer of our own. detail goes to the record; the client is told message (NULL: the fault's usual sentence). framing_lost: where the request ends is not
 * known, or will not be. */
void exchange_answer(struct exchange *exchange, enum http_fault fault, const char *message,
                     const char *detail, bool framing_lost);
/* The same for a request that is refused for what it is. */
void exchange_refuse(struct exchange *exchange, enum http_fault reason, const char *message,
                     bool framing_lost);
/* The response cannot be completed: its end is left out, so that the client sees that it is short. kind: static. */
void exchange_cut(struct exchange *exchange, const char *kind, const char *message);
/* The upstream, or time, has spoilt it: answers, or cuts a response that has begun. */
void exchange_fail(struct exchange *exchange, enum http_fault reason, const char *detail);
/* Writing to the client failed. */
void exchange_client_broke(struct exchange *exchange);

/* The client is through with it (recorded, or never begun): kept for the next request, or freed. */
void exchange_discard(struct exchange *exchange);
/* Frees for good those kept for reuse. */
void exchange_free_spares(struct worker *worker);

#endif
