/*
 * upstream: the response's way from the socket through the codec to the exchange, and what can go wrong on it.
 *
 *     CONNECTING ──▶ HEAD ──▶ BODY ──▶ COMPLETE ──▶ released to the pool or closed
 *          └──────────┴────────┴─────▶ FAILED         (DEAD: freed by its owner, waits for its burial)
 */
#include "proxy/upstream.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "http/body.h"
#include "proxy/pool.h"

#define MAX_INTERIM_RESPONSES 16
#define IDLE_MARGIN_NS        NANOSECONDS_PER_SECOND             /* before the upstream's own time-out */
#define ROOM_PAUSE_NS         (10 * NANOSECONDS_PER_MILLISECOND) /* until another worker has made room */

enum upstream_state { CONNECTING, HEAD, BODY, COMPLETE, FAILED, DEAD };

struct upstream {
    struct worker *worker;
    struct proxy_settings *settings;
    const struct route *route;
    const struct upstream_callbacks *callbacks;
    void *owner;
    enum upstream_state state;
    struct connect_attempt *attempt;
    struct loop_timer again; /* CONNECTING: to connect once more */
    struct transport *transport;
    bool reused;
    bool broken; /* the peer takes no more */
    bool head_request;
    bool has_written; /* known to have, once the transport is gone */
    bool surplus;     /* bytes came behind the response, or a clean end did: not for reuse */
    uint64_t written_before;
    uint64_t first_read_ns; /* 0: nothing came */
    uint64_t last_read_ns;
    struct http_scan scan;
    struct buffer head;
    struct http_response response;
    struct http_body_reader body;
    unsigned interim;
    struct grave grave;
};

static void bury(struct grave *grave)
{
    struct upstream *upstream = container_of(grave, struct upstream, grave);
    loop_timer_release(&upstream->again);
    http_response_free(&upstream->response);
    buffer_free(&upstream->head);
    proxy_settings_release(upstream->settings);
    free(upstream);
}

static void close_transport(struct upstream *upstream)
{
    if (upstream->transport != NULL) {
        transport_free(upstream->transport);
        upstream->transport = NULL;
        pool_unreserve(upstream->route);
    }
}

static void fail(struct upstream *upstream, enum upstream_failure failure, const char *message)
{
    upstream->state = FAILED;
    upstream->has_written = upstream_has_written(upstream);
    close_transport(upstream);
    upstream->callbacks->on_failed(upstream->owner, failure, message);
}

/* Receiving ------------------------------------------------------------------------------------------------------------------------------- */

static void begin_body(struct upstream *upstream)
{
    struct http_response *response = &upstream->response;
    http_body_begin(&upstream->body, response->body, response->content_length);
    http_body_be_tolerant(&upstream->body);
    upstream->state = BODY;
    upstream->callbacks->on_head(upstream->owner, response);
}

/* A complete head of head_size bytes stands in upstream->head. True: it was the final one. */
static bool take_response(struct upstream *upstream)
{
    struct http_problem problem;
    upstream->scan = (struct http_scan){0};
    if (!http_parse_response(buffer_slice(&upstream->head), upstream->head_request, &upstream->settings->http,
                             &upstream->response, &problem)) {
        fail(upstream, UPSTREAM_INVALID, problem.message);
        return false;
    }
    int status = upstream->response.status;
    if (status >= 200) {
        begin_body(upstream);
        return true;
    }
    if (status == 101 || ++upstream->interim > MAX_INTERIM_RESPONSES) {
        fail(upstream, UPSTREAM_INVALID,
             status == 101 ? "switched protocols without being asked" : "too many interim responses");
        return false;
    }
    if (status != 100) {
        upstream->callbacks->on_interim(upstream->owner, &upstream->response);
    }
    buffer_clear(&upstream->head);
    return false;
}

/* Takes heads off *data until the final one is there. True: then *data is what follows it. */
static bool take_head(struct upstream *upstream, struct slice *data)
{
    while (upstream->state == HEAD && data->size > 0) {
        struct http_problem problem;
        size_t before = upstream->head.size;
        buffer_append_slice(&upstream->head, *data);
        switch (http_scan_head(&upstream->scan, buffer_slice(&upstream->head), true,
                               &upstream->settings->http, &problem)) {
        case HTTP_SCAN_INCOMPLETE:
            return false;
        case HTTP_SCAN_REFUSED:
            fail(upstream, UPSTREAM_INVALID, problem.message);
            return false;
        case HTTP_SCAN_COMPLETE:
            break;
        }
        size_t used = upstream->scan.offset - before;
        upstream->head.size = upstream->scan.offset;
        *data = (struct slice){data->data + used, data->size - used};
        if (take_response(upstream)) {
            return upstream->state == BODY;
        }
    }
    return false;
}

static void deliver(struct upstream *upstream, struct gather *gather, bool last)
{
    if (last) {
        upstream->state = COMPLETE;
    }
    upstream->callbacks->on_body(upstream->owner, gather, last);
    gather_begin(gather);
}

/* always: on_body is called even without data (behind a head). */
static void take_body(struct upstream *upstream, struct slice data, bool always)
{
    struct gather gather;
    gather_begin(&gather);
    while (upstream->state == BODY) {
        struct slice piece;
        const char *reason;
        switch (http_body_next(&upstream->body, &data, &piece, &reason)) {
        case HTTP_CHUNKED_DATA:
            gather_add(&gather, piece);
            if (gather_is_full(&gather)) {
                deliver(upstream, &gather, false);
                always = false;
            }
            break;
        case HTTP_CHUNKED_MORE:
            if (gather.count > 0 || always) {
                deliver(upstream, &gather, false);
            }
            return;
        case HTTP_CHUNKED_END:
            upstream->surplus = upstream->surplus || data.size > 0;
            deliver(upstream, &gather, true);
            return;
        case HTTP_CHUNKED_ERROR:
            if (gather.count > 0 || always) {
                deliver(upstream, &gather, false);
            }
            if (upstream->state == BODY) {
                char message[128];
                snprintf(message, sizeof message, "malformed response body: %s", reason);
                fail(upstream, UPSTREAM_INVALID, message);
            }
            return;
        }
    }
}

static void take(struct upstream *upstream, struct slice data)
{
    bool behind_head = false;
    if (upstream->state == HEAD) {
        if (!take_head(upstream, &data)) {
            return;
        }
        behind_head = true;
    }
    if (upstream->state == BODY) {
        take_body(upstream, data, behind_head);
    } else {
        upstream->surplus = true;
    }
}

static void closed(struct upstream *upstream, bool clean, const struct error *error)
{
    upstream->surplus = true;
    bool nothing_came = upstream->head.size == 0 && upstream->interim == 0;
    if (upstream->state == HEAD && nothing_came && upstream->reused) {
        fail(upstream, UPSTREAM_STALE, "closed a kept connection without a response");
    } else if (upstream->state == HEAD && nothing_came && !clean &&
               transport_was_alerted(upstream->transport)) {
        fail(upstream, UPSTREAM_UNREACHABLE, error->message);
    } else if (upstream->state == HEAD) {
        fail(upstream, UPSTREAM_INVALID,
             !clean         ? error->message
             : nothing_came ? "closed the connection without a response"
                            : "closed the connection within the response head");
    } else if (upstream->state == BODY && clean && http_body_at_close(&upstream->body)) {
        struct gather nothing;
        gather_begin(&nothing);
        deliver(upstream, &nothing, true);
    } else if (upstream->state == BODY) {
        fail(upstream, UPSTREAM_ABORTED,
             clean ? "closed the connection before the response was complete" : error->message);
    } else {
        close_transport(upstream); /* complete, not released yet */
    }
}

static void on_readable(void *owner)
{
    struct upstream *upstream = owner;
    struct worker *worker = upstream->worker;
    struct error error;
    worker_reap(worker);
    ssize_t size = transport_read(upstream->transport, worker->scratch, sizeof worker->scratch, &error);
    if (size == TRANSPORT_AGAIN) {
        return;
    }
    upstream->last_read_ns = clock_monotonic_ns();
    if (size > 0) {
        upstream->first_read_ns =
            upstream->first_read_ns == 0 ? upstream->last_read_ns : upstream->first_read_ns;
        take(upstream, (struct slice){worker->scratch, (size_t)size});
    } else {
        closed(upstream, size == TRANSPORT_END, &error);
    }
}

/* Sending --------------------------------------------------------------------------------------------------------------------------------- */

static void on_drained(void *owner)
{
    struct upstream *upstream = owner;
    worker_reap(upstream->worker);
    upstream->callbacks->on_drained(upstream->owner);
}

static void on_write_failed(void *owner, const struct error *error)
{
    struct upstream *upstream = owner;
    (void)error; /* reading tells what is left to know: a response that came before, or the same error */
    upstream->broken = true;
}

bool upstream_send(struct upstream *upstream, const struct iovec *pieces, int count)
{
    struct error error;
    if (upstream->transport == NULL || upstream->broken) {
        return false;
    }
    upstream->broken = !transport_write(upstream->transport, pieces, count, &error);
    return !upstream->broken;
}

/* Beginning and end ----------------------------------------------------------------------------------------------------------------------- */

static void take_transport(struct upstream *upstream, struct transport *transport)
{
    static const struct transport_callbacks callbacks = {
        .on_readable = on_readable, .on_drained = on_drained, .on_failed = on_write_failed};
    upstream->transport = transport;
    upstream->state = HEAD;
    upstream->written_before = transport_bytes_written(transport);
    upstream->last_read_ns = clock_monotonic_ns();
    transport_set_owner(transport, &callbacks, upstream);
    transport_set_reading(transport, true);
}

static void on_connected(void *owner, struct transport *transport)
{
    struct upstream *upstream = owner;
    worker_reap(upstream->worker);
    upstream->attempt = NULL;
    take_transport(upstream, transport);
    upstream->callbacks->on_ready(upstream->owner);
}

static void on_connect_failed(void *owner, enum connect_failure failure, const struct error *error);

static void connect_upstream(void *argument)
{
    struct upstream *upstream = argument;
    static const struct connect_callbacks callbacks = {.on_connected = on_connected,
                                                       .on_failed = on_connect_failed};
    const struct route *route = upstream->route;
    struct connect_target target = {
        .host = route->host, .port = route->port, .tls = route->tls, .proxy = route->proxy};
    upstream->attempt = connect_start(upstream->worker->loop, upstream->worker->shared->resolver, &target,
                                      route->timeouts.connect, &callbacks, upstream);
}

static void on_connect_failed(void *owner, enum connect_failure failure, const struct error *error)
{
    static const enum upstream_failure failures[] = {
        [CONNECT_UNREACHABLE] = UPSTREAM_UNREACHABLE,
        [CONNECT_TIMED_OUT] = UPSTREAM_CONNECT_TIMEOUT,
        [CONNECT_EXHAUSTED] = UPSTREAM_EXHAUSTED,
    };
    struct upstream *upstream = owner;
    worker_reap(upstream->worker);
    upstream->attempt = NULL;
    enum room room = failure == CONNECT_EXHAUSTED ? worker_free_descriptor(upstream->worker) : ROOM_NONE;
    if (room != ROOM_NONE) {
        loop_timer_set(&upstream->again, room == ROOM_NOW ? 0 : ROOM_PAUSE_NS);
        return;
    }
    pool_unreserve(upstream->route);
    fail(upstream, failures[failure], error->message);
}

struct upstream *upstream_start(struct worker *worker, const struct upstream_request *request,
                                const struct upstream_callbacks *callbacks, void *owner)
{
    const struct route *route = request->route;
    if (!pool_reserve(route)) {
        return NULL;
    }
    struct transport *transport = request->fresh ? NULL : pool_take(worker, request->settings, route);
    struct upstream *upstream = xcalloc(1, sizeof *upstream);
    upstream->worker = worker;
    upstream->settings = proxy_settings_reference(request->settings);
    upstream->route = route;
    upstream->callbacks = callbacks;
    upstream->owner = owner;
    upstream->head_request = request->head;
    loop_timer_init(&upstream->again, worker->loop, connect_upstream, upstream);
    if (transport != NULL) {
        upstream->reused = true;
        take_transport(upstream, transport);
    } else {
        connect_upstream(upstream);
    }
    return upstream;
}

static uint64_t keep_alive_timeout_ns(const struct upstream *upstream)
{
    uint64_t idle = upstream->route->timeouts.upstream_idle;
    const struct name_value *field = http_fields_find(&upstream->response.fields, SLICE("keep-alive"));
    struct slice rest = field != NULL ? field->value : SLICE(""), member;
    uint64_t seconds;
    while (http_list_next(&rest, &member)) {
        struct slice name = SLICE("timeout=");
        if (member.size > name.size && slice_equal_nocase((struct slice){member.data, name.size}, name) &&
            slice_to_uint64((struct slice){member.data + name.size, member.size - name.size}, &seconds) &&
            seconds < 86400) {
            uint64_t theirs = seconds * NANOSECONDS_PER_SECOND;
            theirs = theirs > IDLE_MARGIN_NS ? theirs - IDLE_MARGIN_NS : 0;
            idle = theirs < idle ? theirs : idle;
        }
    }
    return idle;
}

void upstream_release(struct upstream *upstream, bool request_complete)
{
    assert(upstream->state == COMPLETE);
    if (upstream->transport == NULL) {
        return;
    }
    bool clean = request_complete && upstream->response.keep_alive && !upstream->surplus &&
                 !upstream->broken && !http_body_was_odd(&upstream->body);
    if (clean) {
        struct transport *transport = upstream->transport;
        upstream->transport = NULL;
        pool_put(upstream->worker, upstream->settings, upstream->route, transport,
                 keep_alive_timeout_ns(upstream));
    } else {
        close_transport(upstream);
    }
}

void upstream_free(struct upstream *upstream)
{
    if (upstream->state == CONNECTING) {
        connect_cancel(upstream->attempt);
        loop_timer_clear(&upstream->again);
        pool_unreserve(upstream->route);
    }
    close_transport(upstream);
    upstream->state = DEAD;
    worker_bury(upstream->worker, &upstream->grave, bury);
}

/* Looking --------------------------------------------------------------------------------------------------------------------------------- */

bool upstream_is_ready(const struct upstream *upstream)
{
    return upstream->transport != NULL;
}

bool upstream_is_reused(const struct upstream *upstream)
{
    return upstream->reused;
}

bool upstream_has_written(const struct upstream *upstream)
{
    return upstream->has_written || (upstream->transport != NULL &&
                                     transport_bytes_written(upstream->transport) > upstream->written_before);
}

size_t upstream_pending(const struct upstream *upstream)
{
    return upstream->transport != NULL && !upstream->broken ? transport_pending(upstream->transport) : 0;
}

uint64_t upstream_first_read_ns(const struct upstream *upstream)
{
    return upstream->first_read_ns;
}

uint64_t upstream_last_read_ns(const struct upstream *upstream)
{
    return upstream->last_read_ns;
}

uint64_t upstream_last_write_ns(const struct upstream *upstream)
{
    return upstream->transport != NULL ? transport_last_write_ns(upstream->transport) : 0;
}

void upstream_pause(struct upstream *upstream)
{
    if (upstream->transport != NULL) {
        transport_set_reading(upstream->transport, false);
    }
}

void upstream_resume(struct upstream *upstream)
{
    if (upstream->transport != NULL) {
        upstream->last_read_ns = clock_monotonic_ns();
        transport_set_reading(upstream->transport, true);
    }
}

bool upstream_is_paused(const struct upstream *upstream)
{
    return upstream->transport != NULL && !transport_is_reading(upstream->transport);
}
