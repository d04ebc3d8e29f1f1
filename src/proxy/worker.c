/*
 * worker: the thread, its listeners, and the housekeeping that is nobody's in particular: deferred freeing, the sweep over connections that are not being read, reload and drain.
 */
#include "proxy/worker.h"

#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "proxy/audit.h"
#include "proxy/clients.h"
#include "proxy/pool.h"

/* How often connections that are not read from are looked at: a client that left must cancel its upstream within 100 ms. */
#define SWEEP_INTERVAL_NS (50 * NANOSECONDS_PER_MILLISECOND)
#define REAP_INTERVAL_NS  (100 * NANOSECONDS_PER_MILLISECOND)

void worker_reap(struct worker *worker)
{
    while (worker->graves != NULL) {
        struct grave *grave = worker->graves;
        worker->graves = grave->next;
        grave->bury(grave);
    }
}

void worker_bury(struct worker *worker, struct grave *grave, void (*bury)(struct grave *grave))
{
    grave->bury = bury;
    grave->next = worker->graves;
    worker->graves = grave;
    loop_timer_set(&worker->reaper, REAP_INTERVAL_NS);
}

static void on_reap(void *argument)
{
    worker_reap(argument);
}

static void on_sweep(void *argument)
{
    struct worker *worker = argument;
    worker_reap(worker);
    clients_sweep(worker);
    loop_timer_set(&worker->sweep, SWEEP_INTERVAL_NS);
}

static void on_accepted(void *owner, int fd, const struct address *peer)
{
    struct worker *worker = owner;
    worker_reap(worker);
    clients_accept(worker, fd, peer);
}

static void close_oldest(void *argument)
{
    worker_reap(argument);
    pool_close_oldest(argument);
}

enum room worker_free_descriptor(struct worker *worker)
{
    if (pool_close_oldest(worker)) {
        return ROOM_NOW;
    }
    for (size_t i = 0; i < worker->shared->worker_count; i++) {
        struct worker *other = worker->shared->workers[i];
        if (other != worker) {
            loop_post(other->loop, close_oldest, other);
        }
    }
    return clients_make_room(worker);
}

static void on_exhausted(void *owner)
{
    struct worker *worker = owner;
    static struct log_limit limit;
    uint64_t suppressed;
    if (log_limit_pass(&limit, &suppressed)) {
        log_error(
            "no file descriptor left: accepting pauses; raise RLIMIT_NOFILE or lower limits.max_connections",
            log_suppressed(suppressed));
    }
    if (worker_free_descriptor(worker) == ROOM_NOW) {
        for (size_t i = 0; i < worker->listener_count; i++) {
            listener_resume(worker->listeners[i]);
        }
    }
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    loop_run(worker->loop);
    return NULL;
}

struct worker *worker_new(struct proxy_shared *shared, struct proxy_settings *settings, const int *fds,
                          size_t count)
{
    static const struct listener_callbacks callbacks = {.on_accepted = on_accepted,
                                                        .on_exhausted = on_exhausted};
    struct worker *worker = xcalloc(1, sizeof *worker);
    worker->shared = shared;
    worker->settings = proxy_settings_reference(settings);
    worker->pools = xcalloc(settings->route_count + 1, sizeof *worker->pools);
    worker->loop = loop_new();
    worker->audit = audit_new(worker->loop);
    loop_timer_init(&worker->sweep, worker->loop, on_sweep, worker);
    loop_timer_init(&worker->reaper, worker->loop, on_reap, worker);
    loop_timer_set(&worker->sweep, SWEEP_INTERVAL_NS);
    worker->listeners = xcalloc(count, sizeof(struct listener *));
    worker->listener_count = count;
    for (size_t i = 0; i < count; i++) {
        worker->listeners[i] = listener_new(worker->loop, fds[i], &callbacks, worker);
    }
    return worker;
}

void worker_start(struct worker *worker)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&worker->thread, NULL, run, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert(failed == 0);
}

/* Calls into the loop carry their arguments in a message that the callee frees. */
struct message {
    struct worker *worker;
    struct proxy_settings *settings;
    void (*on_idle)(void *argument);
    void *argument;
};

static void on_reload(void *argument)
{
    struct message *message = argument;
    struct worker *worker = message->worker;
    pool_close_idle(worker);
    free(worker->pools);
    proxy_settings_release(worker->settings);
    worker->settings = message->settings;
    worker->pools = xcalloc(worker->settings->route_count + 1, sizeof *worker->pools);
    free(message);
}

void worker_reload(struct worker *worker, struct proxy_settings *settings)
{
    struct message *message = xcalloc(1, sizeof *message);
    *message = (struct message){.worker = worker, .settings = proxy_settings_reference(settings)};
    loop_post(worker->loop, on_reload, message);
}

void worker_client_left(struct worker *worker)
{
    if (worker->draining && worker->client_count == 0 && worker->on_idle != NULL) {
        void (*on_idle)(void *argument) = worker->on_idle;
        worker->on_idle = NULL;
        on_idle(worker->on_idle_argument);
    }
}

static void on_drain(void *argument)
{
    struct message *message = argument;
    struct worker *worker = message->worker;
    size_t listener_count = worker->listener_count;
    worker->listener_count = 0; /* on_exhausted may come, and is not to touch those that are gone */
    for (size_t i = 0; i < listener_count; i++) {
        listener_drain_and_free(worker->listeners[i]);
    }
    worker->draining = true;
    worker->on_idle = message->on_idle;
    worker->on_idle_argument = message->argument;
    free(message);
    clients_close_idle(worker);
    pool_close_idle(worker);
    worker_client_left(worker);
}

void worker_drain(struct worker *worker, void (*on_idle)(void *argument), void *argument)
{
    struct message *message = xcalloc(1, sizeof *message);
    *message = (struct message){.worker = worker, .on_idle = on_idle, .argument = argument};
    loop_post(worker->loop, on_drain, message);
}

static void on_stop(void *argument)
{
    struct worker *worker = argument;
    worker->on_idle = NULL;
    clients_close_all(worker);
    pool_close_idle(worker);
    worker_reap(worker);
    loop_stop(worker->loop);
}

void worker_stop(struct worker *worker)
{
    loop_post(worker->loop, on_stop, worker);
    pthread_join(worker->thread, NULL);
}

void worker_free(struct worker *worker)
{
    for (size_t i = 0; i < worker->listener_count; i++) {
        listener_free(worker->listeners[i]);
    }
    loop_timer_release(&worker->sweep);
    loop_timer_release(&worker->reaper);
    audit_close(worker->audit);
    loop_free(worker->loop);
    proxy_settings_release(worker->settings);
    free(worker->listeners);
    free(worker->pools);
    free(worker);
}
