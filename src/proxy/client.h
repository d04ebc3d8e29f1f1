/*
 * client: one accepted connection: reads request heads, keeps the order of pipelined requests (the next one is looked at when the response before it is out), closes politely. Private to
 * proxy/; worker's thread only.
 *
 *     WAITING ──▶ HEAD ──▶ EXCHANGE ──▶ WAITING …            keep-alive
 *        │         │           ├──────▶ DRAINING ──▶ WAITING  the rest of a short request body is dropped
 *        │         └───────────┴──────▶ LINGERING ──▶ CLOSED  our side is shut, theirs is read until it ends, within bounds: no RST that eats the response
 *        └──────────────────────────────────────────▶ CLOSED
 */
#ifndef PROXY_CLIENT_H
#define PROXY_CLIENT_H

#include "net/transport.h"
#include "proxy/peers.h"
#include "proxy/redact.h"
#include "proxy/worker.h"

enum client_state {
    CLIENT_WAITING,
    CLIENT_HEAD,
    CLIENT_EXCHANGE,
    CLIENT_DRAINING,
    CLIENT_LINGERING,
    CLIENT_CLOSED
};

#define CREDENTIAL_CACHE_SIZE 256

struct client {
    struct worker *worker;
    struct transport *transport;
    struct client_list *list; /* the one it is in */
    struct client *next, *previous;
    enum client_state state;
    bool ended;     /* the client closed its side (half_close) */
    bool advancing; /* the search for the next request is on the stack */
    bool feeding;   /* the exchange is being given bytes: what is in input is not settled */
    bool
        must_reset; /* LINGERING until what was written is out: the response was cut, and only a reset shows it */
    struct buffer input; /* received, not used */
    struct http_scan scan;
    uint64_t input_us, input_ns; /* when the first byte in input came */
    struct loop_timer timer;     /* of the current state */
    uint64_t linger_until_ns;
    size_t lingered;
    struct exchange *exchange; /* in EXCHANGE and DRAINING */
    uint64_t requests;
    struct peer *counted; /* where it counts as a connection of its address */
    struct address peer;
    char address[ADDRESS_TEXT_SIZE]; /* of the peer */
    /* The last credential seen and its fingerprint: it rarely changes on one connection. */
    char credential[CREDENTIAL_CACHE_SIZE];
    size_t credential_size;
    char fingerprint[FINGERPRINT_SIZE];
    uint64_t fingerprint_generation; /* of the settings it was made with */
    struct grave grave;
};

/* An accepted connection, counted by the caller: also as one of its address, in counted. */
void client_new(struct worker *worker, int fd, const struct address *peer, struct peer *counted);
void client_close(struct client *client, bool reset);
/* WAITING: the same, counted. reason: static. */
void client_close_idle(struct client *client, const char *reason);
/* WAITING: it has waited long enough. But a request may be there already. */
void client_close_waiting(struct client *client);
/* What never became an exchange. reason: static. */
void client_count_bad_request(struct worker *worker, const char *reason);
/* EXCHANGE: does it go on when the client ends its side? */
bool client_may_half_close(const struct client *client);

/* For the exchange. All false when the connection is broken: the exchange is told by client_left as well. */
bool client_write(struct client *client, const struct iovec *pieces, int count);
size_t client_pending(const struct client *client);
uint64_t client_last_write_ns(const struct client *client);
/* Can take request bytes again, or cannot. */
void client_update_reading(struct client *client);
/* Feeds what stands in input to the exchange. */
void client_pump(struct client *client);
/* What becomes of the connection when the exchange is over (recorded, its upstream gone). */
enum client_after {
    CLIENT_KEEP,   /* the next request may come */
    CLIENT_DRAIN,  /* the same, once the rest of the request's body was read and dropped */
    CLIENT_LINGER, /* nothing more is said: close, the client's last bytes awaited */
    CLIENT_CUT,    /* what was written goes out, then a reset: the response had no other end to miss */
    CLIENT_RESET   /* at once */
};
void client_exchange_done(struct client *client, enum client_after after);

#endif
