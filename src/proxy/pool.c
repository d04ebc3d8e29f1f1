/*
 * pool: a list for each route, newest first: the connection used last is the least likely to be closed by the other side.
 */
#include "proxy/pool.h"

#include <stdlib.h>

#include "base/memory.h"
#include "net/transport.h"

#define MAX_IDLE_CONNECTIONS 256 /* for each worker and route */

struct pooled_connection {
    struct pooled_connection *older, *newer;
    struct worker *worker;
    struct pool *pool;
    struct transport *transport;
    struct loop_timer idle;
    struct grave grave;
};

static atomic_size_t *connections_in_use(const struct route *route)
{
    return (atomic_size_t *)(uintptr_t)&route->connections;
}

bool pool_reserve(const struct route *route)
{
    size_t before = atomic_fetch_add(connections_in_use(route), 1);
    if (route->max_connections == 0 || before < route->max_connections) {
        return true;
    }
    pool_unreserve(route);
    return false;
}

void pool_unreserve(const struct route *route)
{
    atomic_fetch_sub(connections_in_use(route), 1);
}

static void bury(struct grave *grave)
{
    struct pooled_connection *connection = container_of(grave, struct pooled_connection, grave);
    loop_timer_release(&connection->idle);
    free(connection);
}

/* Out of the list; the transport is the caller's. */
static struct transport *leave(struct pooled_connection *connection)
{
    struct pool *pool = connection->pool;
    *(connection->newer != NULL ? &connection->newer->older : &pool->newest) = connection->older;
    *(connection->older != NULL ? &connection->older->newer : &pool->oldest) = connection->newer;
    pool->count--;
    loop_timer_clear(&connection->idle);
    worker_bury(connection->worker, &connection->grave, bury);
    return connection->transport;
}

static void close_idle(void *argument)
{
    transport_free(leave(argument));
}

/* TLS may have something to say that is none of HTTP's business. */
static void on_readable(void *owner)
{
    const struct pooled_connection *connection = owner;
    if (!transport_is_quiet(connection->transport)) {
        close_idle(owner);
    }
}

static void on_failed(void *owner, const struct error *error)
{
    (void)error;
    close_idle(owner);
}

struct transport *pool_take(struct worker *worker, const struct proxy_settings *settings,
                            const struct route *route)
{
    if (settings != worker->settings) {
        return NULL;
    }
    struct pool *pool = &worker->pools[route - settings->routes];
    while (pool->newest != NULL) {
        struct transport *transport = leave(pool->newest);
        if (transport_is_quiet(transport)) {
            return transport;
        }
        transport_free(transport);
    }
    return NULL;
}

void pool_put(struct worker *worker, struct proxy_settings *settings, const struct route *route,
              struct transport *transport, uint64_t idle_ns)
{
    static const struct transport_callbacks callbacks = {.on_readable = on_readable, .on_failed = on_failed};
    pool_unreserve(route);
    if (settings != worker->settings || worker->draining || idle_ns == 0 ||
        transport_pending(transport) > 0) {
        transport_free(transport);
        return;
    }
    struct pool *pool = &worker->pools[route - settings->routes];
    if (pool->count == MAX_IDLE_CONNECTIONS) {
        close_idle(pool->oldest);
    }
    struct pooled_connection *connection = xcalloc(1, sizeof *connection);
    connection->worker = worker;
    connection->pool = pool;
    connection->transport = transport;
    connection->older = pool->newest;
    *(pool->newest != NULL ? &pool->newest->newer : &pool->oldest) = connection;
    pool->newest = connection;
    pool->count++;
    transport_set_owner(transport, &callbacks, connection);
    transport_set_reading(transport, true);
    loop_timer_init(&connection->idle, worker->loop, close_idle, connection);
    loop_timer_set(&connection->idle, idle_ns);
}

bool pool_close_oldest(struct worker *worker)
{
    for (size_t i = 0; i < worker->settings->route_count; i++) {
        if (worker->pools[i].oldest != NULL) {
            close_idle(worker->pools[i].oldest);
            return true;
        }
    }
    return false;
}

void pool_close_idle(struct worker *worker)
{
    for (size_t i = 0; i <= worker->settings->route_count; i++) {
        while (worker->pools[i].newest != NULL) {
            close_idle(worker->pools[i].newest);
        }
    }
}
