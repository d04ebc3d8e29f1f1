/*
 * connect: from a host and a port to a connected transport: resolve, try the addresses in turn (the next after 250 ms or a failure, the first to answer wins), a
 * tunnel through a forward proxy where there is one, TLS handshake.
 */
#ifndef NET_CONNECT_H
#define NET_CONNECT_H

#include "net/resolver.h"
#include "net/tls.h"
#include "net/transport.h"
#include "net/tunnel.h"

struct connect_target {
    const char *host; /* name or IP literal, no brackets */
    uint16_t port;
    struct tls *tls;                  /* NULL: plain */
    const struct tunnel_proxy *proxy; /* NULL: direct */
};

struct connect_attempt;

enum connect_failure {
    CONNECT_UNREACHABLE,
    CONNECT_TIMED_OUT,
    CONNECT_EXHAUSTED /* no file descriptor was left */
};

/* Errors name the phase: "cannot resolve api.example: …", "connect to 127.0.0.1:9: connection refused", "TLS handshake with api.example: certificate has expired",
 * "forward proxy 127.0.0.1:3128: CONNECT api.example:443: refused with status 407". */
struct connect_callbacks {
    /* The transport is the callee's: reading off, callbacks of the owner that it sets. */
    void (*on_connected)(void *owner, struct transport *transport);
    void (*on_failed)(void *owner, enum connect_failure failure, const struct error *error);
};

/* Exactly one callback, never before this returns - unless cancelled. timeout_ns covers all of it, the name too; an error tells which phase it was. target's strings, proxy and
 * tls are borrowed until then. Loop thread only. */
struct connect_attempt *connect_start(struct loop *loop, struct resolver *resolver,
                                      const struct connect_target *target, uint64_t timeout_ns,
                                      const struct connect_callbacks *callbacks, void *owner);
void connect_cancel(struct connect_attempt *attempt);

#endif
