/*
 * proxy: the worker threads. Main thread only.
 */
#ifndef PROXY_PROXY_H
#define PROXY_PROXY_H

#include "base/metrics.h"
#include "bus/bus.h"
#include "net/address.h"
#include "proxy/settings.h"

struct proxy;

struct proxy_start {
    struct proxy_settings *settings; /* referenced */
    const struct address *listen;    /* borrowed for the call; ports of 0 are replaced by what was bound */
    size_t listen_count;
    size_t workers;
    struct bus *bus; /* NULL when observability is off; outlives the proxy */
    struct metrics *metrics;
    struct memory_budget *
        capture_budget; /* for bodies: the caller sets its limit, and keeps it until the last event is gone */
};

/* Binds, then starts the threads. NULL: *error says why (port in use, …). */
struct proxy *proxy_new(const struct proxy_start *start, struct error *error);
/* The i-th address listened on, after binding. */
const struct address *proxy_address(const struct proxy *proxy, size_t index);
/* New exchanges use the new settings (referenced); running ones keep theirs. */
void proxy_reload(struct proxy *proxy, struct proxy_settings *settings);
/* Stops accepting (serves what waits in the accept queue), closes idle connections, lets running exchanges end. idle(argument) is called once, on a worker's thread, when none is left. */
void proxy_drain(struct proxy *proxy, void (*idle)(void *argument), void *argument);
/* Ends what still runs (their events say "shutdown"), joins the threads, frees. */
void proxy_free(struct proxy *proxy);

#endif
