/*
 * exchange: takes a request from the client to the upstream and the response back, piece by piece, and sees how it ends.
 */
#include "proxy/exchange.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "http/write.h"
#include "proxy/client.h"
#include "proxy/record.h"
#include "proxy/route.h"

#define HIGH_MARK                                                                                            \
    65536 /* bytes the kernel of one side has not taken, above which the other side is not read */
#define REPLAY_MAX         65536
#define DRAIN_MAX          65536 /* rest of a request body that is read and dropped for the sake of the connection */
#define MAX_SPARES         64
#define MAX_SPARE_CAPACITY 16384

/* The one place where the state changes. */
static void enter(struct exchange *exchange, enum exchange_state state)
{
    assert(state > exchange->state ||
           (state == EXCHANGE_CONNECTING && exchange->state <= EXCHANGE_REQUESTING));
    exchange->state = state;
}

static const struct proxy_timeouts *timeouts_of(const struct exchange *exchange)
{
    return exchange->route != NULL ? &exchange->route->timeouts : &exchange->settings->timeouts;
}

static void note_first_byte(struct exchange *exchange)
{
    if (exchange->upstream != NULL) {
        exchange->first_byte_ns = upstream_first_read_ns(exchange->upstream);
    }
}

static void drop_upstream(struct exchange *exchange)
{
    note_first_byte(exchange);
    if (exchange->upstream != NULL) {
        upstream_free(exchange->upstream);
        exchange->upstream = NULL;
    }
}

static void set_error(struct exchange *exchange, const char *kind, const char *message)
{
    if (exchange->error_kind == NULL) {
        exchange->error_kind = kind;
        snprintf(exchange->error_message, sizeof exchange->error_message, "%s", message);
    }
}

/* Endings ------------------------------------------------------------------------------------------------------------------------------------ */

static void done(struct exchange *exchange, enum client_after after)
{
    note_first_byte(exchange);
    record_exchange(exchange);
    exchange->recorded = true;
    drop_upstream(exchange);
    exchange->request_dropped = true;
    exchange->state = EXCHANGE_DONE;
    client_exchange_done(exchange->client, after);
}

/* Can the rest of the request's body be read and dropped in no time? Not if the client waits to be told to send it, since then it may leave it out. */
static bool rest_is_short(const struct exchange *exchange)
{
    const struct http_request *request = &exchange->request;
    return exchange->request_complete ||
           (request->body == HTTP_BODY_LENGTH && exchange->request_body.remaining <= DRAIN_MAX &&
            (!request->expect_continue || exchange->continue_sent));
}

static void finish_when_flushed(struct exchange *exchange)
{
    if (exchange->state < EXCHANGE_FLUSHING) {
        enter(exchange, EXCHANGE_FLUSHING);
    }
    if (client_pending(exchange->client) == 0) {
        done(exchange, exchange->close              ? CLIENT_LINGER
                       : exchange->request_complete ? CLIENT_KEEP
                                                    : CLIENT_DRAIN);
    }
}

void exchange_client_left(struct exchange *exchange, const char *message)
{
    set_error(exchange, "client_aborted", message);
    done(exchange, CLIENT_RESET);
}

static void client_broke(struct exchange *exchange)
{
    exchange_client_left(exchange, "the client's connection broke");
}

void exchange_shutdown(struct exchange *exchange)
{
    set_error(exchange, "shutdown", "the proxy was stopped before the exchange was over");
    done(exchange, CLIENT_RESET);
}

/* The response cannot be completed: its end is left out, so that the client sees that it is short. */
static void cut(struct exchange *exchange, const char *kind, const char *message)
{
    set_error(exchange, kind, message);
    done(exchange, exchange->framing == FORWARD_UNTIL_CLOSE ? CLIENT_CUT : CLIENT_LINGER);
}

/* The fields of a response that we wrote ourselves, for the record. */
static void note_sent(struct exchange *exchange)
{
    struct http_response response = {0};
    struct http_problem problem;
    static const struct http_limits limits = {
        .max_head_bytes = 65536, .max_headers = 100, .max_target_bytes = 65536};
    struct http_scan scan = {0};
    exchange->sent.count = 0;
    if (http_scan_head(&scan, buffer_slice(&exchange->fault), true, &limits, &problem) ==
            HTTP_SCAN_COMPLETE &&
        http_parse_response((struct slice){buffer_data(&exchange->fault), scan.offset}, exchange->head_only,
                            &limits, &response, &problem)) {
        for (size_t i = 0; i < response.fields.count; i++) {
            http_fields_add(&exchange->sent, response.fields.items[i].name, response.fields.items[i].value);
        }
    }
    http_response_free(&response);
}

static void send_own_response(struct exchange *exchange, int status, size_t body_size)
{
    drop_upstream(exchange);
    exchange->request_dropped = true;
    exchange->status = status;
    note_sent(exchange);
    struct slice answer = buffer_slice(&exchange->fault);
    if (body_size > 0) {
        capture_response(&exchange->capture,
                         (struct slice){answer.data + answer.size - body_size, body_size});
        exchange->capture.chunks = 1;
    }
    if (!client_write(exchange->client, &(struct iovec){buffer_data(&exchange->fault), answer.size}, 1)) {
        client_broke(exchange);
        return;
    }
    finish_when_flushed(exchange);
}

/*
 * Answers by ourselves. detail goes to the record; the client is told message (NULL: the fault's usual sentence). framing_lost: where the request ends is not known, or
 * will not be.
 */
static void fault(struct exchange *exchange, enum http_fault fault, const char *message, const char *detail,
                  bool framing_lost)
{
    set_error(exchange, http_fault_code(fault), detail);
    exchange->close = exchange->close || framing_lost || !rest_is_short(exchange);
    size_t body_size = http_write_fault(&exchange->fault, fault, message, slice_of(exchange->request_id),
                                        exchange->close, exchange->head_only);
    send_own_response(exchange, http_fault_status(fault), body_size);
}

/* The request is refused for what it is. */
static void refuse(struct exchange *exchange, enum http_fault reason, const char *message, bool framing_lost)
{
    fault(exchange, reason, message, message, framing_lost);
}

/* It is no longer the client's turn: the upstream, or time, has spoilt the exchange. */
static void fail(struct exchange *exchange, enum http_fault reason, const char *detail)
{
    if (exchange->state < EXCHANGE_RESPONDING) {
        fault(exchange, reason, NULL, detail, false);
    } else {
        cut(exchange, http_fault_code(reason), detail);
    }
}

/* The request ------------------------------------------------------------------------------------------------------------------------------ */

static void keep_for_replay(struct exchange *exchange, const struct gather *gather)
{
    if (!exchange->replay_is_whole) {
        return;
    }
    if (exchange->replay.size + gather->size > REPLAY_MAX) {
        exchange->replay_is_whole = false;
        buffer_clear(&exchange->replay);
        return;
    }
    for (int i = 0; i < gather->count; i++) {
        buffer_append_slice(&exchange->replay, gather->data[i]);
    }
}

/* Writes the head if it is still to go, and the pieces. */
static void write_upstream(struct exchange *exchange, struct gather *gather, bool last)
{
    if (last) {
        exchange->request_sent_ns = clock_monotonic_ns();
    }
    if (exchange->request_dropped) {
        return;
    }
    if (!exchange->upstream_head_sent) {
        gather->head = buffer_slice(&exchange->upstream_head);
        exchange->upstream_head_sent = true;
    }
    int count = gather_finish(gather, exchange->request.body == HTTP_BODY_CHUNKED, last);
    if (count > 0 && !upstream_send(exchange->upstream, gather->pieces, count)) {
        exchange->request_dropped = true; /* a response may be there all the same */
    }
}

static void too_large(struct exchange *exchange)
{
    const char *message = "the request body is larger than limits.max_body_bytes";
    if (exchange->state <= EXCHANGE_REQUESTING) {
        refuse(exchange, HTTP_REQUEST_TOO_LARGE, message, true);
    } else {
        cut(exchange, http_fault_code(HTTP_REQUEST_TOO_LARGE), message);
    }
}

/* False: the exchange ended by it. */
static bool send_request(struct exchange *exchange, struct gather *gather, bool last)
{
    uint64_t limit = exchange->settings->max_body_bytes;
    if (!exchange->recorded) {
        for (int i = 0; i < gather->count; i++) {
            capture_request(&exchange->capture, gather->data[i]);
        }
        if (limit > 0 && exchange->capture.request.bytes > limit && exchange->state <= EXCHANGE_RESPONDING) {
            too_large(exchange);
            return false;
        }
    }
    keep_for_replay(exchange, gather);
    write_upstream(exchange, gather, last);
    gather_begin(gather);
    return true;
}

bool exchange_is_blocked(const struct exchange *exchange)
{
    if (exchange->request_dropped) {
        return false;
    }
    return exchange->state == EXCHANGE_CONNECTING || upstream_pending(exchange->upstream) > HIGH_MARK;
}

static void broken_request(struct exchange *exchange, const char *reason)
{
    char message[128];
    snprintf(message, sizeof message, "malformed request body: %s", reason);
    exchange->close = true;
    if (exchange->state <= EXCHANGE_REQUESTING) {
        refuse(exchange, HTTP_BAD_REQUEST, message, true);
    } else if (exchange->state == EXCHANGE_RESPONDING) {
        cut(exchange, http_fault_code(HTTP_BAD_REQUEST), message);
    }
}

void exchange_take(struct exchange *exchange, struct slice *data)
{
    struct gather gather;
    gather_begin(&gather);
    if (data->size == 0 || exchange->request_complete || exchange_is_blocked(exchange)) {
        return;
    }
    exchange->request_ns = clock_monotonic_ns();
    for (;;) {
        struct slice piece;
        const char *reason;
        switch (http_body_next(&exchange->request_body, data, &piece, &reason)) {
        case HTTP_CHUNKED_DATA:
            gather_add(&gather, piece);
            if (gather_is_full(&gather) &&
                (!send_request(exchange, &gather, false) || exchange_is_blocked(exchange))) {
                return;
            }
            break;
        case HTTP_CHUNKED_MORE:
            if (gather.count > 0) {
                send_request(exchange, &gather, false);
            }
            return;
        case HTTP_CHUNKED_END:
            exchange->request_complete = true;
            send_request(exchange, &gather, true);
            return;
        case HTTP_CHUNKED_ERROR:
            broken_request(exchange, reason);
            return;
        }
    }
}

/* The upstream ------------------------------------------------------------------------------------------------------------------------------ */

static void send_continue(struct exchange *exchange)
{
    static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!client_write(exchange->client, &(struct iovec){(void *)(uintptr_t)interim, sizeof interim - 1}, 1)) {
        client_broke(exchange);
    }
}

static void on_ready(void *owner)
{
    struct exchange *exchange = owner;
    struct client *client = exchange->client;
    uint64_t number =
        client->requests; /* a shorter way to end may bring the next request, in this very struct */
    enter(exchange, EXCHANGE_REQUESTING);
    exchange->upstream_head_sent = false;
    if (exchange->replay.size > 0 || exchange->request_complete) {
        struct gather gather;
        gather_begin(&gather);
        if (exchange->replay.size > 0) {
            gather_add(&gather, buffer_slice(&exchange->replay));
        }
        write_upstream(exchange, &gather, exchange->request_complete);
    } else if (exchange->request.expect_continue && !exchange->continue_sent && client->input.size == 0) {
        exchange->continue_sent = true;
        send_continue(exchange);
    }
    client_pump(client);
    if (client->requests == number && client->exchange == exchange && !exchange->upstream_head_sent) {
        struct gather gather;
        gather_begin(&gather);
        write_upstream(exchange, &gather, false);
    }
}

static void on_upstream_drained(void *owner)
{
    struct exchange *exchange = owner;
    client_pump(exchange->client);
}

/* Is the request safe to send again, and do we have all of it? (RFC 9110 9.2.2) */
static bool may_replay(const struct exchange *exchange)
{
    if (!upstream_is_reused(exchange->upstream) || !exchange->replay_is_whole) {
        return false;
    }
    return !upstream_has_written(exchange->upstream) || slice_equal(exchange->request.method, SLICE("GET")) ||
           slice_equal(exchange->request.method, SLICE("HEAD")) || exchange->route->retry_stale;
}

static void connect_upstream(struct exchange *exchange, bool fresh);

static void on_upstream_failed(void *owner, enum upstream_failure failure, const char *message)
{
    struct exchange *exchange = owner;
    switch (failure) {
    case UPSTREAM_STALE:
        if (may_replay(exchange)) {
            drop_upstream(exchange);
            exchange->request_dropped = false;
            connect_upstream(exchange, true);
            break;
        }
        fail(exchange, HTTP_UPSTREAM_UNREACHABLE, message);
        break;
    case UPSTREAM_UNREACHABLE:
        fail(exchange, HTTP_UPSTREAM_UNREACHABLE, message);
        break;
    case UPSTREAM_CONNECT_TIMEOUT:
        fail(exchange, HTTP_UPSTREAM_TIMEOUT, message);
        break;
    case UPSTREAM_INVALID:
        fail(exchange, HTTP_UPSTREAM_INVALID_RESPONSE, message);
        break;
    case UPSTREAM_ABORTED:
        cut(exchange, "upstream_aborted", message);
        break;
    }
}

/* The response ------------------------------------------------------------------------------------------------------------------------------ */

static void on_interim(void *owner, const struct http_response *response)
{
    struct exchange *exchange = owner;
    if (exchange->request.minor_version == 0) {
        return;
    }
    struct buffer head = {0};
    forward_write_interim(response, &head);
    bool written = client_write(exchange->client, &(struct iovec){buffer_data(&head), head.size}, 1);
    buffer_free(&head);
    if (!written) {
        client_broke(exchange);
    }
}

static bool is_stream(struct slice content_type)
{
    static const char *const types[] = {
        "text/event-stream",       "application/x-ndjson",
        "application/ndjson",      "application/jsonl",
        "application/x-jsonlines", "application/json-seq",
        "application/stream+json", "application/vnd.amazon.eventstream",
    };
    struct slice type;
    slice_split(&content_type, ';', &type);
    type = slice_trim(type);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (slice_equal_nocase(type, slice_of(types[i]))) {
            return true;
        }
    }
    return false;
}

static enum forward_framing framing_of(const struct exchange *exchange, const struct http_response *response)
{
    if (response->status == 205) {
        return FORWARD_NONE; /* whatever the upstream announced (RFC 9110 15.3.6) */
    }
    switch (response->body) {
    case HTTP_BODY_NONE:
        return FORWARD_NONE;
    case HTTP_BODY_LENGTH:
        return FORWARD_LENGTH;
    default:
        return exchange->request.minor_version > 0 ? FORWARD_CHUNKED : FORWARD_UNTIL_CLOSE;
    }
}

static void on_head(void *owner, const struct http_response *response)
{
    struct exchange *exchange = owner;
    const struct name_value *type = http_fields_find(&response->fields, SLICE("content-type"));
    enter(exchange, EXCHANGE_RESPONDING);
    exchange->status = response->status;
    exchange->streamed = type != NULL && is_stream(type->value);
    exchange->capture.keep_tail = http_fields_find(&response->fields, SLICE("content-encoding")) == NULL;
    exchange->framing = framing_of(exchange, response);
    exchange->close = exchange->close || exchange->framing == FORWARD_UNTIL_CLOSE ||
                      exchange->client->worker->draining || !rest_is_short(exchange);
    struct forward_response forward = {.response = response,
                                       .framing = exchange->framing,
                                       .close = exchange->close,
                                       .request_id = exchange->request_id};
    forward_write_response(&forward, &exchange->scratch, &exchange->sent, &exchange->head);
}

static void on_body(void *owner, struct gather *gather, bool last)
{
    struct exchange *exchange = owner;
    if (exchange->framing == FORWARD_NONE) {
        gather_begin(gather);
    }
    for (int i = 0; i < gather->count; i++) {
        capture_response(&exchange->capture, gather->data[i]);
    }
    exchange->capture.chunks += gather->size > 0;
    gather->head = buffer_slice(&exchange->head);
    int count = gather_finish(gather, exchange->framing == FORWARD_CHUNKED, last);
    if (count > 0 && !client_write(exchange->client, gather->pieces, count)) {
        client_broke(exchange);
        return;
    }
    buffer_clear(&exchange->head);
    if (last) {
        upstream_release(exchange->upstream, exchange->request_complete && !exchange->request_dropped &&
                                                 upstream_pending(exchange->upstream) == 0);
        exchange->request_dropped = true;
        finish_when_flushed(exchange);
    } else if (client_pending(exchange->client) > HIGH_MARK) {
        upstream_pause(exchange->upstream);
    }
}

void exchange_client_drained(struct exchange *exchange)
{
    if (exchange->state == EXCHANGE_FLUSHING) {
        finish_when_flushed(exchange);
    } else if (exchange->upstream != NULL && upstream_is_paused(exchange->upstream)) {
        upstream_resume(exchange->upstream);
    }
}

/* Time -------------------------------------------------------------------------------------------------------------------------------------- */

struct tick {
    uint64_t now, next; /* next: until the earliest deadline */
};

/* Is the time since over? If not, its end is one more deadline. */
static bool is_over(struct tick *tick, uint64_t since, uint64_t allowed)
{
    uint64_t deadline = since + allowed;
    if (deadline <= tick->now) {
        return true;
    }
    tick->next = deadline - tick->now < tick->next ? deadline - tick->now : tick->next;
    return false;
}

static uint64_t smallest(const struct proxy_timeouts *timeouts)
{
    uint64_t least =
        timeouts->request_idle < timeouts->response ? timeouts->request_idle : timeouts->response;
    least = timeouts->response_idle < least ? timeouts->response_idle : least;
    return timeouts->write < least ? timeouts->write : least;
}

static uint64_t latest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void tick_request(struct exchange *exchange, struct tick *tick)
{
    const struct proxy_timeouts *timeouts = timeouts_of(exchange);
    uint64_t written_ns = upstream_last_write_ns(exchange->upstream);
    if (upstream_pending(exchange->upstream) > 0) {
        if (is_over(tick, written_ns, timeouts->write)) {
            fail(exchange, HTTP_UPSTREAM_TIMEOUT,
                 "the upstream did not take the request in time (timeouts.write)");
        }
    } else if (!exchange->request_complete) {
        if (is_over(tick, latest(exchange->request_ns, written_ns), timeouts->request_idle)) {
            fault(exchange, HTTP_REQUEST_TIMEOUT, NULL, "the request body stalled (timeouts.request_idle)",
                  true);
        }
    } else if (is_over(tick, latest(exchange->request_sent_ns, written_ns), timeouts->response)) {
        fail(exchange, HTTP_UPSTREAM_TIMEOUT, "no response head came in time (timeouts.response)");
    }
}

static void tick_response(struct exchange *exchange, struct tick *tick)
{
    if (!upstream_is_paused(exchange->upstream) &&
        is_over(tick, upstream_last_read_ns(exchange->upstream), timeouts_of(exchange)->response_idle)) {
        cut(exchange, http_fault_code(HTTP_UPSTREAM_TIMEOUT),
            "the response stalled (timeouts.response_idle)");
    }
}

uint64_t exchange_tick(struct exchange *exchange)
{
    struct client *client = exchange->client;
    const struct proxy_timeouts *timeouts = timeouts_of(exchange);
    /* No deadline that begins from now on can be earlier than the smallest time-out, so that is when to look again at the latest. */
    struct tick tick = {.now = clock_monotonic_ns(), .next = smallest(timeouts)};
    if (client_pending(client) > 0 && is_over(&tick, client_last_write_ns(client), timeouts->write)) {
        exchange_client_left(exchange, "the client did not take the response in time (timeouts.write)");
    } else if (exchange->state == EXCHANGE_REQUESTING) {
        tick_request(exchange, &tick);
    } else if (exchange->state == EXCHANGE_RESPONDING) {
        tick_response(exchange, &tick);
    }
    return client->exchange == exchange && exchange->state < EXCHANGE_DONE ? tick.next : 0;
}

/* Beginning --------------------------------------------------------------------------------------------------------------------------------- */

static void connect_upstream(struct exchange *exchange, bool fresh)
{
    static const struct upstream_callbacks callbacks = {.on_ready = on_ready,
                                                        .on_drained = on_upstream_drained,
                                                        .on_interim = on_interim,
                                                        .on_head = on_head,
                                                        .on_body = on_body,
                                                        .on_failed = on_upstream_failed};
    struct upstream_request request = {.settings = exchange->settings,
                                       .route = exchange->route,
                                       .head = exchange->head_only,
                                       .fresh = fresh};
    enter(exchange, EXCHANGE_CONNECTING);
    exchange->upstream = upstream_start(exchange->client->worker, &request, &callbacks, exchange);
    if (exchange->upstream == NULL) {
        fault(exchange, HTTP_OVERLOADED, NULL,
              "all connections that the route may have are in use (max_connections)", false);
        return;
    }
    exchange->replay_is_whole = exchange->replay_is_whole && upstream_is_reused(exchange->upstream);
    if (upstream_is_ready(exchange->upstream)) {
        on_ready(exchange);
    }
}

/* OPTIONS for the proxy itself: the whole server ("*"), or no hops left (RFC 9110 7.6.2). */
static bool is_for_us(const struct http_request *request)
{
    if (!slice_equal(request->method, SLICE("OPTIONS"))) {
        return false;
    }
    const struct name_value *hops = http_fields_find(&request->fields, SLICE("max-forwards"));
    return slice_equal(request->path, SLICE("*")) || (hops != NULL && slice_equal(hops->value, SLICE("0")));
}

static void answer_options(struct exchange *exchange)
{
    struct buffer *out = &exchange->fault;
    exchange->close = exchange->close || !rest_is_short(exchange);
    http_write_status_line(out, 204);
    http_write_date(out);
    http_write_field(out, SLICE("Allow"), SLICE("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    http_write_field(out, SLICE("X-Request-Id"), slice_of(exchange->request_id));
    if (exchange->close) {
        http_write_field(out, SLICE("Connection"), SLICE("close"));
    }
    http_write_end(out);
    send_own_response(exchange, 204, 0);
}

static void prepare(struct exchange *exchange)
{
    struct client *client = exchange->client;
    struct worker *worker = client->worker;
    const struct http_request *request = &exchange->request;
    const struct proxy_settings *settings = exchange->settings;
    exchange->route = route_find(settings, request->path);
    exchange->head_only = slice_equal(request->method, SLICE("HEAD"));
    exchange->request_complete = request->body == HTTP_BODY_NONE ||
                                 (request->body == HTTP_BODY_LENGTH && request->content_length == 0);
    exchange->replay_is_whole = true;
    exchange->close = !request->keep_alive || request->minor_version == 0 || worker->draining ||
                      (settings->max_requests_per_connection > 0 &&
                       client->requests >= settings->max_requests_per_connection);
    exchange->observed = worker->shared->bus != NULL && settings->observe;
    http_body_begin(&exchange->request_body, request->body, request->content_length);
    forward_request_id(request, exchange->request_id);
    capture_begin(
        &exchange->capture, exchange->observed && (exchange->route == NULL || exchange->route->capture),
        settings->max_request_body_bytes, settings->max_response_body_bytes, worker->shared->capture_budget);
    metric_add(worker->shared->inflight, 1);
    loop_timer_set(&client->timer, smallest(timeouts_of(exchange)));
}

void exchange_begin_refused(struct exchange *exchange, const struct http_problem *problem)
{
    prepare(exchange);
    refuse(exchange, problem->fault, problem->message, true);
}

void exchange_begin(struct exchange *exchange)
{
    struct client *client = exchange->client;
    const struct http_request *request = &exchange->request;
    const char *via_name = client->worker->shared->via_name;
    uint64_t limit = exchange->settings->max_body_bytes;
    prepare(exchange);
    if (is_for_us(request)) {
        answer_options(exchange);
    } else if (forward_is_loop(request, slice_of(via_name))) {
        refuse(exchange, HTTP_LOOP_DETECTED,
               "the request has been here before: a route leads back to this proxy", false);
    } else if (exchange->route == NULL) {
        refuse(exchange, HTTP_NO_ROUTE, "no route has a prefix that matches this path", false);
    } else if (!route_target_is_safe(exchange->route, request->path)) {
        refuse(exchange, HTTP_BAD_REQUEST, "what follows the route's prefix begins with an empty segment",
               false);
    } else if (limit > 0 && request->body == HTTP_BODY_LENGTH && request->content_length > limit) {
        refuse(exchange, HTTP_REQUEST_TOO_LARGE, "the request body is larger than limits.max_body_bytes",
               false);
    } else {
        struct forward_request forward = {.request = request,
                                          .route = exchange->route,
                                          .request_id = exchange->request_id,
                                          .via_name = via_name,
                                          .client = client->address};
        forward_write_request(&forward, &exchange->upstream_head);
        connect_upstream(exchange, false);
    }
}

/* Reuse ------------------------------------------------------------------------------------------------------------------------------------- */

struct exchange *exchange_new(struct client *client)
{
    struct worker *worker = client->worker;
    struct exchange *exchange = worker->spare_exchanges;
    if (exchange != NULL) {
        worker->spare_exchanges = exchange->next_spare;
        worker->spare_count--;
    } else {
        exchange = xcalloc(1, sizeof *exchange);
    }
    exchange->client = client;
    exchange->settings = proxy_settings_reference(worker->settings);
    exchange->begun_us = client->input_us;
    exchange->begun_ns = client->input_ns;
    exchange->request_ns = client->input_ns;
    exchange->request_sent_ns = client->input_ns;
    return exchange;
}

static void free_exchange(struct exchange *exchange)
{
    struct buffer *buffers[] = {&exchange->request_head, &exchange->upstream_head, &exchange->replay,
                                &exchange->scratch,      &exchange->fault,         &exchange->head};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        buffer_free(buffers[i]);
    }
    http_request_free(&exchange->request);
    http_fields_free(&exchange->sent);
    free(exchange);
}

static struct buffer keep_small(struct buffer *buffer)
{
    if (buffer->capacity > MAX_SPARE_CAPACITY) {
        buffer_free(buffer);
    }
    buffer_clear(buffer);
    return *buffer;
}

void exchange_discard(struct exchange *exchange)
{
    struct worker *worker = exchange->client->worker;
    proxy_settings_release(exchange->settings);
    if (worker->spare_count >= MAX_SPARES) {
        free_exchange(exchange);
        return;
    }
    struct exchange kept = {
        .next_spare = worker->spare_exchanges,
        .request_head = keep_small(&exchange->request_head),
        .request = {.fields = {exchange->request.fields.items, 0, exchange->request.fields.capacity}},
        .upstream_head = keep_small(&exchange->upstream_head),
        .replay = keep_small(&exchange->replay),
        .scratch = keep_small(&exchange->scratch),
        .sent = {exchange->sent.items, 0, exchange->sent.capacity},
        .fault = keep_small(&exchange->fault),
        .head = keep_small(&exchange->head),
    };
    *exchange = kept;
    worker->spare_exchanges = exchange;
    worker->spare_count++;
}

void exchange_free_spares(struct worker *worker)
{
    while (worker->spare_exchanges != NULL) {
        struct exchange *exchange = worker->spare_exchanges;
        worker->spare_exchanges = exchange->next_spare;
        free_exchange(exchange);
    }
    worker->spare_count = 0;
}
