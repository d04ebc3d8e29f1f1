/*
 * tunnel: the way through a forward proxy. On a socket that is connected to the proxy a CONNECT request is sent and the head of its answer read; from then on the
 * socket leads to the peer that was asked for. This is all of HTTP that net/ knows, and it is strict: an answer is a well-formed head of at most 16 KiB, with a status of 2xx, and
 * nothing behind it, for the peer on the other side has nothing to say yet.
 */
#ifndef NET_TUNNEL_H
#define NET_TUNNEL_H

#include <stdint.h>

#include "base/slice.h"

/* A forward proxy and what it is asked. */
struct tunnel_proxy {
    char *host; /* name or IP literal, no brackets */
    uint16_t port;
    char *
        request; /* the whole head: "CONNECT host:port HTTP/1.1", fields with the credentials, an empty line */
};

void tunnel_proxy_free(struct tunnel_proxy *proxy);

struct tunnel;

enum tunnel_outcome { TUNNEL_OPEN, TUNNEL_WANT_READ, TUNNEL_WANT_WRITE, TUNNEL_FAILED };

#define TUNNEL_TEXT_SIZE 128

/* request is borrowed. */
struct tunnel *tunnel_new(struct slice request);
void tunnel_free(struct tunnel *tunnel);
/* Goes on as far as the non-blocking socket allows. TUNNEL_FAILED: why has "refused with status 407", "closed the connection". */
enum tunnel_outcome tunnel_advance(struct tunnel *tunnel, int fd, char why[TUNNEL_TEXT_SIZE]);

#endif
