/*
 * relay: the bytes of an exchange on their way: the request's to the upstream, the response's back, and what to do when the upstream fails. Private to proxy/; worker's thread only.
 *
 * The request's body is taken from the client only when it can go on at once, so that nothing but sockets hold bytes. While the response runs the request may still
 * be on its way; when the response is complete before the request, the rest of it is read and dropped (if short), or the connection closed.
 */
#ifndef PROXY_RELAY_H
#define PROXY_RELAY_H

#include "proxy/exchange.h"

/* Begins: the head for the upstream stands in exchange->upstream_head. fresh: not over a connection that served before. */
void relay_connect(struct exchange *exchange, bool fresh);
/* Bytes behind the head: takes what belongs to the body and can be used now off *data. */
void relay_take(struct exchange *exchange, struct slice *data);
/* The kernel took all that was written to the client. */
void relay_client_drained(struct exchange *exchange);

#endif
