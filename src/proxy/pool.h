/*
 * pool: the idle upstream connections of one worker, by route. A connection in the pool is watched: data or an end while it is idle close it. Worker's thread only.
 */
#ifndef PROXY_POOL_H
#define PROXY_POOL_H

#include "proxy/worker.h"

/* The most recently used connection of the route that is still quiet, now the caller's; NULL: none. Those that are not quiet are closed on the way. settings must be the worker's current ones, else NULL. */
struct transport *pool_take(struct worker *worker, const struct proxy_settings *settings,
                            const struct route *route);

/* Takes over a clean connection, or closes it (other settings by now, draining, too many). idle_ns: how long it may wait. */
void pool_put(struct worker *worker, struct proxy_settings *settings, const struct route *route,
              struct transport *transport, uint64_t idle_ns);

/* Closes a connection to a route's upstream that was not in the pool: keeps the count of open ones. */
void pool_close(const struct route *route, struct transport *transport);

/* Counts one more open connection to the route's upstream; false: its max_connections are in use. */
bool pool_reserve(const struct route *route) __attribute__((warn_unused_result));
/* For one that was reserved and never opened. */
void pool_unreserve(const struct route *route);

void pool_close_idle(struct worker *worker);

#endif
