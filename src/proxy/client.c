/*
 * client: from bytes to request heads, and from the end of one exchange to the beginning of the next.
 */
#include "proxy/client.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "http/write.h"
#include "proxy/relay.h"

#define INPUT_MARK       16384 /* bytes waiting in input behind a request, above which nothing more is read */
#define LINGER_IDLE_NS   (5 * NANOSECONDS_PER_SECOND)
#define LINGER_TOTAL_NS  (30 * NANOSECONDS_PER_SECOND)
#define LINGER_MAX_BYTES 262144
#define DRAIN_NS         (2 * NANOSECONDS_PER_SECOND)

static const char left_message[] = "the client closed the connection";

static void advance(struct client *client);

/* Lists, timers, states ----------------------------------------------------------------------------------------------------------------------- */

static void count_idle(struct client *client, const struct client_list *list, int amount)
{
    if (list == &client->worker->idle) {
        atomic_fetch_add(&client->worker->idle_connections, amount);
    }
}

static void list_remove(struct client *client)
{
    struct client_list *list = client->list;
    *(client->previous != NULL ? &client->previous->next : &list->first) = client->next;
    *(client->next != NULL ? &client->next->previous : &list->last) = client->previous;
    client->list = NULL;
    count_idle(client, list, -1);
}

static void list_append(struct client *client, struct client_list *list)
{
    client->list = list;
    client->previous = list->last;
    client->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = client;
    list->last = client;
    count_idle(client, list, 1);
}

/* The one place where a client's state changes. */
static void enter(struct client *client, enum client_state state)
{
    static const unsigned allowed[] = {
        [CLIENT_WAITING] =
            1u << CLIENT_HEAD | 1u << CLIENT_EXCHANGE | 1u << CLIENT_LINGERING | 1u << CLIENT_CLOSED,
        [CLIENT_HEAD] = 1u << CLIENT_EXCHANGE | 1u << CLIENT_LINGERING | 1u << CLIENT_CLOSED,
        [CLIENT_EXCHANGE] =
            1u << CLIENT_WAITING | 1u << CLIENT_DRAINING | 1u << CLIENT_LINGERING | 1u << CLIENT_CLOSED,
        [CLIENT_DRAINING] = 1u << CLIENT_WAITING | 1u << CLIENT_LINGERING | 1u << CLIENT_CLOSED,
        [CLIENT_LINGERING] = 1u << CLIENT_CLOSED,
    };
    assert((allowed[client->state] & 1u << state) != 0);
    client->state = state;
    struct client_list *list = state == CLIENT_WAITING ? &client->worker->idle : &client->worker->busy;
    if (client->list != list) {
        list_remove(client);
        list_append(client, list);
    }
}

static void bury(struct grave *grave)
{
    struct client *client = container_of(grave, struct client, grave);
    loop_timer_release(&client->timer);
    buffer_free(&client->input);
    free(client);
}

void client_close(struct client *client, bool reset)
{
    struct worker *worker = client->worker;
    enter(client, CLIENT_CLOSED);
    list_remove(client);
    if (client->exchange != NULL) {
        exchange_discard(client->exchange);
        client->exchange = NULL;
    }
    if (reset) {
        transport_free_with_reset(client->transport);
    } else {
        transport_free(client->transport);
    }
    client->transport = NULL;
    loop_timer_clear(&client->timer);
    atomic_fetch_sub(&worker->shared->connections, 1);
    peers_leave(worker->shared->peers, client->counted);
    worker->client_count--;
    worker_bury(worker, &client->grave, bury);
    worker_client_left(worker);
}

void client_close_idle(struct client *client, const char *reason)
{
    metric_add(metrics_counter(client->worker->shared->metrics, "llm_proxy_idle_connections_closed_total",
                               "Connections of clients closed while they waited for a request.",
                               (struct metric_label[]){{"reason", reason}, {NULL, NULL}}),
               1);
    client_close(client, false);
}

void client_count_bad_request(struct worker *worker, const char *reason)
{
    metric_add(metrics_counter(worker->shared->metrics, "llm_proxy_bad_requests_total",
                               "Requests refused before they were understood.",
                               (struct metric_label[]){{"reason", reason}, {NULL, NULL}}),
               1);
}

static void linger(struct client *client)
{
    enter(client, CLIENT_LINGERING);
    buffer_clear(&client->input);
    client->linger_until_ns = clock_monotonic_ns() + LINGER_TOTAL_NS;
    if (!client->must_reset) {
        transport_shutdown_write(client->transport);
    }
    loop_timer_set(&client->timer, LINGER_IDLE_NS);
    if (client_pending(client) == 0 && (client->ended || client->must_reset)) {
        client_close(client, client->must_reset);
        return;
    }
    client_update_reading(client);
}

static void wait_for_request(struct client *client)
{
    const struct worker *worker = client->worker;
    client->scan = (struct http_scan){0};
    enter(client, CLIENT_WAITING);
    loop_timer_set(&client->timer, worker->draining ? 0 : worker->settings->timeouts.keep_alive);
}

/* Requests -------------------------------------------------------------------------------------------------------------------------------------- */

/* Whatever else is wrong with it, the answer to HEAD has no body. */
static bool is_head(struct slice request)
{
    while (slice_starts_with(request, SLICE("\r\n"))) {
        request = (struct slice){request.data + 2, request.size - 2};
    }
    return slice_starts_with(request, SLICE("HEAD "));
}

/* Answers what never became an exchange. */
static void refuse(struct client *client, enum http_fault fault, const char *reason, const char *message,
                   bool head_only)
{
    struct buffer answer = {0};
    client_count_bad_request(client->worker, reason);
    http_write_fault(&answer, fault, message, SLICE(""), true, head_only);
    bool written = client_write(client, &(struct iovec){buffer_data(&answer), answer.size}, 1);
    buffer_free(&answer);
    if (written) {
        linger(client);
    } else {
        client_close(client, true);
    }
}

/* A complete head stands at the beginning of input. */
static void begin_exchange(struct client *client)
{
    struct http_problem problem;
    struct exchange *exchange = exchange_new(client);
    struct slice head = {buffer_data(&client->input), client->scan.offset};
    buffer_append_slice(&exchange->request_head, head);
    buffer_consume(&client->input, head.size);
    client->exchange = exchange;
    bool accepted = http_parse_request(buffer_slice(&exchange->request_head), &client->worker->settings->http,
                                       &exchange->request, &problem);
    bool understood =
        accepted || problem.fault == HTTP_METHOD_NOT_ALLOWED || problem.fault == HTTP_EXPECTATION_FAILED;
    if (!understood) {
        bool head_only = is_head(buffer_slice(&exchange->request_head));
        exchange_discard(exchange);
        client->exchange = NULL;
        refuse(client, problem.fault, problem.reason, problem.message, head_only);
        return;
    }
    client->requests++;
    enter(client, CLIENT_EXCHANGE);
    if (accepted) {
        exchange_begin(exchange);
    } else {
        exchange_begin_refused(exchange, &problem);
    }
}

/* Looks for the next request in input, and for the one after it, until an exchange keeps the connection busy. */
static void advance(struct client *client)
{
    if (client->advancing || client->feeding) {
        return;
    }
    client->advancing = true;
    while ((client->state == CLIENT_WAITING || client->state == CLIENT_HEAD) && client->input.size > 0) {
        struct http_problem problem;
        const struct proxy_settings *settings = client->worker->settings;
        enum http_scan_result result =
            http_scan_head(&client->scan, buffer_slice(&client->input), false, &settings->http, &problem);
        if (result == HTTP_SCAN_COMPLETE) {
            begin_exchange(client);
        } else if (result == HTTP_SCAN_REFUSED) {
            refuse(client, problem.fault, problem.reason, problem.message,
                   is_head(buffer_slice(&client->input)));
        } else {
            if (client->state == CLIENT_WAITING) {
                enter(client, CLIENT_HEAD);
                loop_timer_set(&client->timer, settings->timeouts.request_head);
            }
            break;
        }
    }
    client->advancing = false;
    if (client->input.size == 0) {
        buffer_free(&client->input); /* most connections are idle most of the time */
    }
    if (client->state != CLIENT_CLOSED) {
        client_update_reading(client);
    }
}

/* The rest of the request's body has been read. */
static void end_of_drain(struct client *client)
{
    if (client->state == CLIENT_DRAINING && client->exchange->request_complete) {
        exchange_discard(client->exchange);
        client->exchange = NULL;
        wait_for_request(client);
    }
}

/* Gives data to the exchange; false when the connection takes nothing more. */
static bool feed(struct client *client, struct slice *data)
{
    client->feeding = true;
    relay_take(client->exchange, data);
    client->feeding = false;
    end_of_drain(client);
    return client->state != CLIENT_CLOSED && client->state != CLIENT_LINGERING;
}

void client_pump(struct client *client)
{
    if (client->feeding) {
        return;
    }
    bool progress = true;
    while (progress && client->exchange != NULL && client->input.size > 0 &&
           !client->exchange->request_complete) {
        struct slice data = buffer_slice(&client->input);
        size_t before = data.size;
        if (!feed(client, &data)) {
            return;
        }
        progress = data.size < before;
        buffer_consume(&client->input, before - data.size);
    }
    /* Behind the end of the client's side nothing follows. */
    if (client->ended && client->state == CLIENT_EXCHANGE && client->input.size == 0 &&
        !client->exchange->request_complete) {
        exchange_client_left(client->exchange, left_message);
        return;
    }
    advance(client);
}

static void lingered(struct client *client, size_t size)
{
    client->lingered += size;
    if (client->lingered > LINGER_MAX_BYTES || clock_monotonic_ns() > client->linger_until_ns) {
        client_close(client, true);
    } else {
        loop_timer_set(&client->timer, LINGER_IDLE_NS);
    }
}

static void received(struct client *client, struct slice data)
{
    if (client->state == CLIENT_LINGERING) {
        lingered(client, data.size);
        return;
    }
    bool direct = client->exchange != NULL && client->input.size == 0;
    if (direct && !feed(client, &data)) {
        return;
    }
    if (data.size > 0) {
        if (client->input.size == 0) {
            client->input_ns = clock_monotonic_ns();
            client->input_us = clock_realtime_us();
        }
        buffer_append_slice(&client->input, data);
    }
    client_pump(client);
}

bool client_may_half_close(const struct client *client)
{
    const struct route *route = client->exchange->route;
    return route != NULL && route->half_close;
}

/* The client closed its side, or the connection broke. */
static void ended(struct client *client, bool clean, const char *message)
{
    if (client->state == CLIENT_HEAD) {
        client_count_bad_request(client->worker, "closed_within_head");
    }
    if (client->state != CLIENT_EXCHANGE) {
        client->ended = true;
        if (client->state == CLIENT_LINGERING && clean && client_pending(client) > 0) {
            client_update_reading(client);
        } else {
            client_close(client, !clean);
        }
    } else if (clean && client_may_half_close(client)) {
        client->ended = true;
        client_pump(client);
    } else {
        exchange_client_left(client->exchange, message);
    }
}

static void read_once(struct client *client)
{
    struct worker *worker = client->worker;
    struct error error;
    ssize_t size = transport_read(client->transport, worker->scratch, sizeof worker->scratch, &error);
    if (size > 0) {
        received(client, (struct slice){worker->scratch, (size_t)size});
    } else if (size != TRANSPORT_AGAIN) {
        ended(client, size == TRANSPORT_END, size == TRANSPORT_END ? left_message : error.message);
    }
}

void client_close_waiting(struct client *client)
{
    read_once(client);
    if (client->state == CLIENT_WAITING) {
        /* The end goes out first: a request that crosses it finds that, not the reset which bytes left unread would cause. */
        struct worker *worker = client->worker;
        struct error error;
        transport_shutdown_write(client->transport);
        transport_read(client->transport, worker->scratch, sizeof worker->scratch, &error);
        client_close_idle(client, worker->draining ? "shutdown" : "timeout");
    }
}

static void on_readable(void *owner)
{
    struct client *client = owner;
    worker_reap(client->worker);
    read_once(client);
}

static void on_drained(void *owner)
{
    struct client *client = owner;
    worker_reap(client->worker);
    if (client->state == CLIENT_EXCHANGE) {
        relay_client_drained(client->exchange);
    } else if (client->state == CLIENT_LINGERING && (client->ended || client->must_reset)) {
        client_close(client, client->must_reset);
    }
}

static void on_write_failed(void *owner, const struct error *error)
{
    struct client *client = owner;
    worker_reap(client->worker);
    ended(client, false, error->message);
}

static void on_timer(void *argument)
{
    struct client *client = argument;
    worker_reap(client->worker);
    switch (client->state) {
    case CLIENT_EXCHANGE: {
        uint64_t number = client->requests, delay = exchange_tick(client->exchange);
        if (delay > 0 && client->requests == number) {
            loop_timer_set(&client->timer, delay);
        }
        break;
    }
    case CLIENT_HEAD:
        refuse(client, HTTP_REQUEST_TIMEOUT, "request_head_timeout",
               "the request head was not complete in time", is_head(buffer_slice(&client->input)));
        break;
    case CLIENT_LINGERING:
        if (client_pending(client) > 0 && clock_monotonic_ns() < client->linger_until_ns) {
            loop_timer_set(&client->timer, LINGER_IDLE_NS);
            break;
        }
        client_close(client, client_pending(client) > 0);
        break;
    case CLIENT_WAITING:
        client_close_waiting(client);
        break;
    case CLIENT_DRAINING:
        exchange_discard(client->exchange);
        client->exchange = NULL;
        linger(client);
        break;
    case CLIENT_CLOSED:
        break;
    }
}

/* For the exchange ------------------------------------------------------------------------------------------------------------------------------ */

bool client_write(struct client *client, const struct iovec *pieces, int count)
{
    struct error error;
    return transport_write(client->transport, pieces, count, &error);
}

size_t client_pending(const struct client *client)
{
    return transport_pending(client->transport);
}

uint64_t client_last_write_ns(const struct client *client)
{
    return transport_last_write_ns(client->transport);
}

void client_update_reading(struct client *client)
{
    bool takes_more = client->exchange == NULL || client->input.size < INPUT_MARK;
    transport_set_reading(client->transport, !client->ended && takes_more);
}

void client_exchange_done(struct client *client, enum client_after after)
{
    struct exchange *exchange = client->exchange;
    if (client->ended && (after == CLIENT_KEEP || after == CLIENT_DRAIN)) {
        after = CLIENT_LINGER;
    }
    if (after == CLIENT_DRAIN) {
        enter(client, CLIENT_DRAINING);
        loop_timer_set(&client->timer, DRAIN_NS);
        client_pump(client);
        return;
    }
    client->exchange = NULL;
    exchange_discard(exchange);
    switch (after) {
    case CLIENT_KEEP:
        wait_for_request(client);
        advance(client);
        break;
    case CLIENT_RESET:
        client_close(client, true);
        break;
    default:
        client->must_reset = after == CLIENT_CUT;
        linger(client);
    }
}

/* Beginning ------------------------------------------------------------------------------------------------------------------------------------- */

void client_new(struct worker *worker, int fd, const struct address *peer, struct peer *counted)
{
    static const struct transport_callbacks callbacks = {
        .on_readable = on_readable, .on_drained = on_drained, .on_failed = on_write_failed};
    struct client *client = xcalloc(1, sizeof *client);
    client->worker = worker;
    client->transport = transport_new(worker->loop, fd, NULL, &callbacks, client);
    client->counted = counted;
    client->peer = *peer;
    address_format(peer, client->address);
    loop_timer_init(&client->timer, worker->loop, on_timer, client);
    loop_timer_set(&client->timer, worker->settings->timeouts.request_head);
    worker->client_count++;
    list_append(client, &worker->idle);
    transport_set_reading(client->transport, true);
    read_once(client); /* most clients send with the handshake */
}
