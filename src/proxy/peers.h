/*
 * peers: how many connections each address has, over all workers. One table behind a lock that is held for a few steps; an address is in it only while it has connections, so there are never more
 * entries than connections.
 */
#ifndef PROXY_PEERS_H
#define PROXY_PEERS_H

#include "net/address.h"

struct peers;
struct peer;

struct peers *peers_new(void);
void peers_free(struct peers *peers);

/* One more connection from this address, whatever its port; the /64 of an IPv6 address counts as one, for whoever has one of its addresses has them all. NULL: there are limit of them
 * already (0: no limit). */
struct peer *peers_enter(struct peers *peers, const struct address *address, size_t limit);
/* One less: it may be the last. */
void peers_leave(struct peers *peers, struct peer *peer);

#endif
