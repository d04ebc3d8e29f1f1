/*
 * pool: the idle upstream connections of one worker, by route. A connection in the pool is watched: data or an end while it is idle close it. Worker's thread only.
 */
#ifndef PROXY_POOL_H
#define PROXY_POOL_H

#include "proxy/worker.h"

/* Counts one more connection to the route's upstream that is in use (an idle one is not); false: its max_connections are. */
bool pool_reserve(const struct route *route) __attribute__((warn_unused_result));
void pool_unreserve(const struct route *route);

/* The most recently used connection of the route that is still quiet, now the caller's; NULL: none. Those that are not quiet are closed on the way. settings must be the worker's current ones, else NULL. */
struct transport *pool_take(struct worker *worker, const struct proxy_settings *settings,
                            const struct route *route);

/* Takes over a clean connection, or closes it (other settings by now, draining, too many); it is no longer in use. idle_ns: how long it may wait. */
void pool_put(struct worker *worker, struct proxy_settings *settings, const struct route *route,
              struct transport *transport, uint64_t idle_ns);

/* False: it has none. */
bool pool_close_oldest(struct worker *worker);
void pool_close_idle(struct worker *worker);

#endif
