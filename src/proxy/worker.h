/*
 * worker: what one worker thread has: a loop, its listening sockets, its client connections, its pools of idle upstream connections. Everything here is used on that thread only, but the
 * members marked "shared". Private to proxy/.
 */
#ifndef PROXY_WORKER_H
#define PROXY_WORKER_H

#include <pthread.h>

#include "base/metrics.h"
#include "bus/bus.h"
#include "net/connect.h"
#include "net/listener.h"
#include "net/transport.h"
#include "proxy/settings.h"

#define WORKER_SCRATCH_SIZE 65536

struct audit;
struct client;
struct exchange;
struct peers;
struct pooled_connection;

/* What the workers share. Immutable after the start but for the atomics. */
struct proxy_shared {
    struct resolver *resolver;
    struct bus *bus; /* NULL: observability is off */
    struct metrics *metrics;
    struct metric *inflight, *duration;
    struct memory_budget *capture_budget;
    char via_name[32];          /* this process in Via */
    _Atomic size_t connections; /* of clients, all workers */
    struct peers *peers;        /* the same by address */
    struct worker **workers;
    size_t worker_count;
    char instance[40];
};

/* An object that is freed once no caller further up the stack can touch it any more: embedded, first come first served. */
struct grave {
    struct grave *next;
    void (*bury)(struct grave *grave);
};

/* Every client is in exactly one. */
struct client_list {
    struct client *first, *last;
};

/* Has something idle been closed to make room? */
enum room {
    ROOM_NONE, /* nothing is idle */
    ROOM_SOON, /* another worker was told to */
    ROOM_NOW
};

#define WORKER_MAX_STATUS 600

/* What a worker keeps for one route: its idle connections, and its counters by status, asked for when first needed. */
struct pool {
    struct pooled_connection *newest, *oldest;
    size_t count;
    struct metric *requests[WORKER_MAX_STATUS];
};

struct worker {
    struct proxy_shared *shared;
    struct proxy_settings *settings; /* a reference to the current snapshot */
    struct pool *pools; /* one for each route of settings, and one behind them for requests that have none */
    struct loop *loop;
    pthread_t thread;
    struct listener **listeners;
    size_t listener_count;
    struct client_list busy; /* clients with a request under way, or being closed */
    struct client_list idle; /* clients that wait for a request, the longest idle one first */
    size_t client_count;
    _Atomic long idle_connections;    /* shared: in idle, and not claimed by another worker */
    struct exchange *spare_exchanges; /* for the next requests: their buffers have the right size already */
    size_t spare_count;
    struct loop_timer sweep; /* looks at connections whose reading is off: has the client gone? */
    struct audit *audit;     /* answers of the bus */
    struct grave *graves;
    struct loop_timer reaper;
    bool draining;
    void (*on_idle)(void *argument); /* while draining: called once when no client is left */
    void *on_idle_argument;
    char scratch[WORKER_SCRATCH_SIZE]; /* what one read brings, used up before the next */
};

/* With the listening sockets fds (taken over). Main thread. */
struct worker *worker_new(struct proxy_shared *shared, struct proxy_settings *settings, const int *fds,
                          size_t count);
/* Starts the thread, once all workers are there. */
void worker_start(struct worker *worker);
/* Posted to the loop; any thread. */
void worker_reload(struct worker *worker, struct proxy_settings *settings);
void worker_drain(struct worker *worker, void (*on_idle)(void *argument), void *argument);
/* Ends everything and joins the thread. Main thread. */
void worker_stop(struct worker *worker);
/* After all workers have stopped. */
void worker_free(struct worker *worker);

/* Frees grave's object when the current callbacks have returned. */
void worker_bury(struct worker *worker, struct grave *grave, void (*bury)(struct grave *grave));
/* Frees what was buried; called at the beginning of each top-level callback. */
void worker_reap(struct worker *worker);
/* No file descriptor is left: closes the longest idle of the connections to upstreams, else of clients. */
enum room worker_free_descriptor(struct worker *worker);
/* The last client of a draining worker left. */
void worker_client_left(struct worker *worker);

#endif
