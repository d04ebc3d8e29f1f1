/*
 * clients: the limit on connections is one for all workers, but each worker knows only its own. When it has no idle connection to close for a new one, it claims one of another
 * worker's: idle_connections is what is idle and not claimed, and the claimed one is closed on the other's thread.
 */
#include "proxy/clients.h"

#include <unistd.h>

#include "base/clock.h"
#include "http/write.h"
#include "proxy/exchange.h"
#include "proxy/peers.h"

/* For a connection accepted while the process stops to bring its request. */
#define GRACE_NS NANOSECONDS_PER_SECOND

/* Coming in --------------------------------------------------------------------------------------------------------------------------------------- */

static bool claim(struct worker *worker)
{
    long idle = atomic_load(&worker->idle_connections);
    while (idle > 0) {
        if (atomic_compare_exchange_weak(&worker->idle_connections, &idle, idle - 1)) {
            return true;
        }
    }
    return false;
}

static void close_claimed(struct worker *worker)
{
    atomic_fetch_add(&worker->idle_connections, 1);
    if (worker->idle.first != NULL) { /* if none is idle by now, there is one too many for a while */
        client_close_idle(worker->idle.first, "room");
    }
}

static void on_claimed(void *argument)
{
    worker_reap(argument);
    close_claimed(argument);
}

enum room clients_make_room(struct worker *worker)
{
    /* Its own are claimed like any: one that is promised to another worker makes no room a second time. */
    if (claim(worker)) {
        close_claimed(worker);
        return ROOM_NOW;
    }
    for (size_t i = 0; i < worker->shared->worker_count; i++) {
        struct worker *other = worker->shared->workers[i];
        if (other != worker && claim(other)) {
            loop_post(other->loop, on_claimed, other);
            return ROOM_SOON;
        }
    }
    return ROOM_NONE;
}

static void refuse(struct worker *worker, int fd, const char *reason, const char *message)
{
    struct buffer answer = {0};
    client_count_bad_request(worker, reason);
    http_write_fault(&answer, HTTP_OVERLOADED, message, SLICE(""), true, false);
    /* Best effort: it is closed all the same. A request left unread would make that a reset. */
    ssize_t got = read(fd, worker->scratch, sizeof worker->scratch);
    got = write(fd, buffer_data(&answer), answer.size);
    (void)got;
    buffer_free(&answer);
    close(fd);
}

/* A trusted proxy, and whatever speaks through a unix socket, stands for many clients. */
static size_t limit_for(const struct proxy_settings *settings, const struct address *peer)
{
    bool stands_for_many =
        peer->socket.any.sa_family == AF_UNIX || network_list_contains(&settings->trusted_proxies, peer);
    return stands_for_many ? 0 : settings->max_connections_per_client;
}

void clients_accept(struct worker *worker, int fd, const struct address *peer)
{
    struct proxy_shared *shared = worker->shared;
    struct peer *counted = peers_enter(shared->peers, peer, limit_for(worker->settings, peer));
    if (counted == NULL) {
        refuse(worker, fd, "max_connections_per_client",
               "this client has as many connections as it may have");
        return;
    }
    size_t before = atomic_fetch_add(&shared->connections, 1);
    if (before < worker->settings->max_connections || clients_make_room(worker) != ROOM_NONE) {
        client_new(worker, fd, peer, counted);
    } else {
        atomic_fetch_sub(&shared->connections, 1);
        peers_leave(shared->peers, counted);
        refuse(worker, fd, "max_connections", "the proxy has as many connections as it may have");
    }
}

/* Going ------------------------------------------------------------------------------------------------------------------------------------------- */

void clients_sweep(struct worker *worker)
{
    struct client *next;
    for (struct client *client = worker->busy.first; client != NULL; client = next) {
        next = client->next;
        if (client->state == CLIENT_EXCHANGE && !transport_is_reading(client->transport) &&
            (client_may_half_close(client) ? transport_is_reset(client->transport)
                                           : transport_peer_is_gone(client->transport))) {
            exchange_client_left(client->exchange, "the client closed the connection");
        }
    }
}

void clients_close_idle(struct worker *worker)
{
    struct client *next;
    for (struct client *client = worker->idle.first; client != NULL; client = next) {
        next = client->next;
        if (client->requests == 0) {
            loop_timer_set(&client->timer, GRACE_NS);
        } else {
            client_close_waiting(client);
        }
    }
}

void clients_close_all(struct worker *worker)
{
    while (worker->idle.first != NULL) {
        client_close(worker->idle.first, false);
    }
    while (worker->busy.first != NULL) {
        struct client *client = worker->busy.first;
        if (client->state == CLIENT_EXCHANGE) {
            exchange_shutdown(client->exchange);
        } else {
            client_close(client, false);
        }
    }
    exchange_free_spares(worker);
}
