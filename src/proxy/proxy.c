/*
 * proxy: binds the addresses, starts the workers, and passes what the main thread says on to each of them.
 */
#include "proxy/proxy.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/id.h"
#include "base/memory.h"
#include "proxy/peers.h"
#include "proxy/worker.h"

struct proxy {
    struct proxy_shared shared;
    struct address *listen;
    size_t listen_count;
    bool unlinked;      /* the files of unix sockets */
    atomic_size_t busy; /* workers that have not drained yet */
    void (*idle)(void *argument);
    void *idle_argument;
};

static void describe_metrics(struct proxy_shared *shared)
{
    static const double bounds[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                    2.5,   5,    10,    30,   60,  120,  300, 600};
    static const struct metric_label none[] = {{NULL, NULL}};
    shared->inflight = metrics_gauge(shared->metrics, "llm_proxy_inflight_requests",
                                     "Exchanges that have begun and not ended.", none);
    shared->duration = metrics_histogram(shared->metrics, "llm_proxy_request_duration_seconds",
                                         "First request byte to last response byte.", none, bounds,
                                         sizeof bounds / sizeof bounds[0]);
}

/* As long as its file is there, clients come; and once nobody listens, the next process takes its name: the file is then no longer ours. */
static void unlink_sockets(struct proxy *proxy)
{
    for (size_t i = 0; i < proxy->listen_count && !proxy->unlinked; i++) {
        if (proxy->listen[i].socket.any.sa_family == AF_UNIX) {
            unlink(proxy->listen[i].socket.path.sun_path);
        }
    }
    proxy->unlinked = true;
}

struct proxy *proxy_new(const struct proxy_start *start, struct error *error)
{
    struct proxy *proxy = xcalloc(1, sizeof *proxy);
    size_t opened = 0;
    int *fds =
        xcalloc(start->listen_count * start->workers, sizeof *fds); /* of address a: fds[a * workers …] */
    proxy->listen = xcalloc(start->listen_count, sizeof *proxy->listen);
    proxy->listen_count = start->listen_count;
    for (; opened < start->listen_count; opened++) {
        proxy->listen[opened] = start->listen[opened];
        if (!listener_bind(&proxy->listen[opened], fds + opened * start->workers, start->workers, error)) {
            goto fail;
        }
    }
    struct proxy_shared *shared = &proxy->shared;
    shared->resolver = resolver_new();
    shared->peers = peers_new();
    shared->bus = start->bus;
    shared->metrics = start->metrics;
    shared->capture_budget = start->capture_budget;
    uuid4(shared->instance);
    snprintf(shared->via_name, sizeof shared->via_name, "llm-proxy-%.8s", shared->instance);
    describe_metrics(shared);

    shared->workers = xcalloc(start->workers, sizeof(struct worker *));
    shared->worker_count = start->workers;
    int *own = xcalloc(start->listen_count, sizeof *own);
    for (size_t i = 0; i < start->workers; i++) {
        for (size_t a = 0; a < start->listen_count; a++) {
            own[a] = fds[a * start->workers + i];
        }
        shared->workers[i] = worker_new(shared, start->settings, own, start->listen_count);
    }
    for (size_t i = 0; i < start->workers; i++) {
        worker_start(shared->workers[i]);
    }
    free(own);
    free(fds);
    return proxy;

fail:
    proxy->listen_count = opened;
    unlink_sockets(proxy);
    for (size_t i = 0; i < opened * start->workers; i++) {
        close(fds[i]);
    }
    free(fds);
    free(proxy->listen);
    free(proxy);
    return NULL;
}

const struct address *proxy_address(const struct proxy *proxy, size_t index)
{
    assert(index < proxy->listen_count);
    return &proxy->listen[index];
}

void proxy_reload(struct proxy *proxy, struct proxy_settings *settings)
{
    for (size_t i = 0; i < proxy->shared.worker_count; i++) {
        worker_reload(proxy->shared.workers[i], settings);
    }
}

static void on_worker_idle(void *argument)
{
    struct proxy *proxy = argument;
    if (atomic_fetch_sub(&proxy->busy, 1) == 1) {
        proxy->idle(proxy->idle_argument);
    }
}

void proxy_drain(struct proxy *proxy, void (*idle)(void *argument), void *argument)
{
    unlink_sockets(proxy);
    proxy->idle = idle;
    proxy->idle_argument = argument;
    atomic_store(&proxy->busy, proxy->shared.worker_count);
    for (size_t i = 0; i < proxy->shared.worker_count; i++) {
        worker_drain(proxy->shared.workers[i], on_worker_idle, proxy);
    }
}

void proxy_free(struct proxy *proxy)
{
    unlink_sockets(proxy);
    for (size_t i = 0; i < proxy->shared.worker_count; i++) {
        worker_stop(proxy->shared.workers[i]);
    }
    for (size_t i = 0; i < proxy->shared.worker_count; i++) {
        worker_free(proxy->shared.workers[i]);
    }
    resolver_free(proxy->shared.resolver);
    peers_free(proxy->shared.peers);
    free(proxy->shared.workers);
    free(proxy->listen);
    free(proxy);
}
