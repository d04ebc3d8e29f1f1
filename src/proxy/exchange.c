/*
 * exchange: how it begins, how long it may take, and all the ways in which it ends. What passes in between is relay's.
 */
#include "proxy/exchange.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "http/write.h"
#include "proxy/audit.h"
#include "proxy/client.h"
#include "proxy/record.h"
#include "proxy/relay.h"
#include "proxy/route.h"

#define DRAIN_MAX          65536 /* rest of a request body that is read and dropped for the sake of the connection */
#define MAX_HOLD_NS        (5 * NANOSECONDS_PER_SECOND)
#define MAX_SPARES         64
#define MAX_SPARE_CAPACITY 16384

void exchange_enter(struct exchange *exchange, enum exchange_state state)
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

void exchange_drop_upstream(struct exchange *exchange)
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

static void record(struct exchange *exchange, bus_done answered, void *argument)
{
    note_first_byte(exchange);
    record_exchange(exchange, answered, argument);
    exchange->recorded = true;
}

static void done(struct exchange *exchange, enum client_after after)
{
    metric_add(exchange->client->worker->shared->inflight, -1);
    if (exchange->hold != NULL) {
        audit_hold_forget(exchange->hold);
        exchange->hold = NULL;
    }
    if (!exchange->recorded) {
        exchange->status = exchange->head.size > 0 ? 0 : exchange->status;
        record(exchange, NULL, NULL);
    }
    exchange_drop_upstream(exchange);
    exchange->request_dropped = true;
    exchange->state = EXCHANGE_DONE;
    client_exchange_done(exchange->client, after);
}

bool exchange_rest_is_short(const struct exchange *exchange)
{
    const struct http_request *request = &exchange->request;
    return exchange->request_complete ||
           (request->body == HTTP_BODY_LENGTH && exchange->request_body.remaining <= DRAIN_MAX &&
            (!request->expect_continue || exchange->continue_sent));
}

void exchange_finish_when_flushed(struct exchange *exchange)
{
    if (exchange->state < EXCHANGE_FLUSHING) {
        exchange_enter(exchange, EXCHANGE_FLUSHING);
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

void exchange_client_broke(struct exchange *exchange)
{
    exchange_client_left(exchange, "the client's connection broke");
}

void exchange_shutdown(struct exchange *exchange)
{
    set_error(exchange, "shutdown", "the proxy was stopped before the exchange was over");
    done(exchange, CLIENT_RESET);
}

void exchange_cut(struct exchange *exchange, const char *kind, const char *message)
{
    set_error(exchange, kind, message);
    done(exchange, exchange->framing == FORWARD_UNTIL_CLOSE ? CLIENT_CUT : CLIENT_LINGER);
}

/* The end is never sent. A reset, since without a body, or with one that ends by the close, nothing else shows that it is missing. reason: static. */
static void cut_held(struct exchange *exchange, const char *reason, const char *message)
{
    static struct log_limit limit;
    uint64_t suppressed;
    metric_add(metrics_counter(exchange->client->worker->shared->metrics, "llm_proxy_audit_cut_total",
                               "Responses cut because their event was not stored.",
                               (struct metric_label[]){{"reason", reason}, {NULL, NULL}}),
               1);
    if (log_limit_pass(&limit, &suppressed)) {
        log_error("response cut (audit)", log_string("request_id", exchange->request_id),
                  log_string("reason", message), log_suppressed(suppressed));
    }
    done(exchange, CLIENT_CUT);
}

static void on_answered(void *owner, bool stored)
{
    struct exchange *exchange = owner;
    struct client *client = exchange->client;
    worker_reap(client->worker);
    exchange->hold = NULL;
    if (!stored) {
        cut_held(exchange, "lost", "the bus could not store its event");
        return;
    }
    struct iovec end = {buffer_data(&exchange->head), exchange->head.size};
    if (end.iov_len > 0 && !client_write(client, &end, 1)) {
        exchange_client_broke(exchange);
        return;
    }
    exchange_finish_when_flushed(exchange);
}

void exchange_hold(struct exchange *exchange)
{
    struct client *client = exchange->client;
    exchange_enter(exchange, EXCHANGE_HELD);
    exchange->held_ns = clock_monotonic_ns();
    exchange->hold = audit_hold_new(client->worker->audit, on_answered, exchange);
    loop_timer_set(&client->timer, MAX_HOLD_NS);
    record(exchange, audit_done, exchange->hold);
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
    exchange_drop_upstream(exchange);
    exchange->request_dropped = true;
    struct slice answer = buffer_slice(&exchange->fault);
    if (!exchange->audited &&
        !client_write(exchange->client, &(struct iovec){buffer_data(&exchange->fault), answer.size}, 1)) {
        exchange_client_broke(exchange);
        return;
    }
    exchange->status = status;
    note_sent(exchange);
    if (body_size > 0) {
        capture_response(&exchange->capture,
                         (struct slice){answer.data + answer.size - body_size, body_size});
        exchange->capture.chunks = 1;
    }
    if (exchange->audited) {
        buffer_append_slice(&exchange->head, answer);
        exchange_hold(exchange);
    } else {
        exchange_finish_when_flushed(exchange);
    }
}

/* What has already come of the request's body goes nowhere, but belongs to the record. False: it was malformed, and the exchange ended by that. */
static bool take_what_came(struct exchange *exchange)
{
    struct client *client = exchange->client;
    exchange->request_dropped = true;
    client_pump(client);
    return client->exchange == exchange;
}

void exchange_answer(struct exchange *exchange, enum http_fault fault, const char *message,
                     const char *detail, bool framing_lost)
{
    if (!framing_lost && !take_what_came(exchange)) {
        return;
    }
    set_error(exchange, http_fault_code(fault), detail);
    exchange->close = exchange->close || framing_lost || !exchange_rest_is_short(exchange);
    size_t body_size = http_write_fault(&exchange->fault, fault, message, slice_of(exchange->request_id),
                                        exchange->close, exchange->head_only);
    send_own_response(exchange, http_fault_status(fault), body_size);
}

void exchange_refuse(struct exchange *exchange, enum http_fault reason, const char *message,
                     bool framing_lost)
{
    exchange_answer(exchange, reason, message, message, framing_lost);
}

void exchange_fail(struct exchange *exchange, enum http_fault reason, const char *detail)
{
    if (exchange->state < EXCHANGE_RESPONDING) {
        exchange_answer(exchange, reason, NULL, detail, false);
    } else {
        exchange_cut(exchange, http_fault_code(reason), detail);
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
            exchange_fail(exchange, HTTP_UPSTREAM_TIMEOUT,
                          "the upstream did not take the request in time (timeouts.write)");
        }
    } else if (!exchange->request_complete) {
        if (is_over(tick, latest(exchange->request_ns, written_ns), timeouts->request_idle)) {
            exchange_answer(exchange, HTTP_REQUEST_TIMEOUT, NULL,
                            "the request body stalled (timeouts.request_idle)", true);
        }
    } else if (is_over(tick, latest(exchange->request_sent_ns, written_ns), timeouts->response)) {
        exchange_fail(exchange, HTTP_UPSTREAM_TIMEOUT, "no response head came in time (timeouts.response)");
    }
}

static void tick_response(struct exchange *exchange, struct tick *tick)
{
    if (!upstream_is_paused(exchange->upstream) &&
        is_over(tick, upstream_last_read_ns(exchange->upstream), timeouts_of(exchange)->response_idle)) {
        exchange_cut(exchange, http_fault_code(HTTP_UPSTREAM_TIMEOUT),
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
    /* Also when a time-out has just been answered, and that answer is held. */
    if (client->exchange == exchange && exchange->state == EXCHANGE_HELD &&
        is_over(&tick, exchange->held_ns, MAX_HOLD_NS)) {
        cut_held(exchange, "timeout", "its event was not stored in time");
    }
    return client->exchange == exchange && exchange->state < EXCHANGE_DONE ? tick.next : 0;
}

/* Beginning --------------------------------------------------------------------------------------------------------------------------------- */

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
    exchange->close = exchange->close || !exchange_rest_is_short(exchange);
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
    exchange->audited = exchange->observed && settings->audit;
    http_body_begin(&exchange->request_body, request->body, request->content_length);
    forward_request_id(request, exchange->request_id);
    access_check(settings, &client->peer, &request->fields, &exchange->access);
    capture_begin(
        &exchange->capture, exchange->observed && (exchange->route == NULL || exchange->route->capture),
        settings->max_request_body_bytes, settings->max_response_body_bytes, worker->shared->capture_budget);
    metric_add(worker->shared->inflight, 1);
    loop_timer_set(&client->timer, smallest(timeouts_of(exchange)));
}

/* Under audit: why the exchange could not be recorded now; NULL: it could. */
static const char *lacks_room(const struct exchange *exchange)
{
    const struct proxy_shared *shared = exchange->client->worker->shared;
    if (!exchange->audited) {
        return NULL;
    }
    if (!bus_has_room(shared->bus)) {
        return "the bus takes no events (audit)";
    }
    return capture_has_room(shared->capture_budget) ? NULL
                                                    : "no memory is left to record the exchange (audit)";
}

/* What cannot be recorded is not begun. This answer alone does not wait for its event: it is there to say that events are not taken. */
static bool refuse_without_room(struct exchange *exchange, bool framing_lost)
{
    const char *reason = lacks_room(exchange);
    if (reason != NULL) {
        exchange->audited = false;
        exchange_answer(exchange, HTTP_OVERLOADED, NULL, reason, framing_lost);
    }
    return reason != NULL;
}

void exchange_begin_refused(struct exchange *exchange, const struct http_problem *problem)
{
    prepare(exchange);
    if (!refuse_without_room(exchange, true)) {
        exchange_refuse(exchange, problem->fault, problem->message, true);
    }
}

void exchange_begin(struct exchange *exchange)
{
    struct client *client = exchange->client;
    const struct http_request *request = &exchange->request;
    const char *via_name = client->worker->shared->via_name;
    uint64_t limit = exchange->settings->max_body_bytes;
    prepare(exchange);
    if (refuse_without_room(exchange, false)) {
        return;
    }
    if (exchange->access.refusal != NULL) {
        exchange_answer(exchange, HTTP_UNAUTHORIZED, exchange->access.refusal_message,
                        exchange->access.refusal, false);
    } else if (is_for_us(request)) {
        answer_options(exchange);
    } else if (forward_is_loop(request, slice_of(via_name))) {
        exchange_refuse(exchange, HTTP_LOOP_DETECTED,
                        "the request has been here before: a route leads back to this proxy", false);
    } else if (exchange->route == NULL) {
        exchange_refuse(exchange, HTTP_NO_ROUTE, "no route has a prefix that matches this path", false);
    } else if (!route_target_is_safe(exchange->route, request->path)) {
        exchange_refuse(exchange, HTTP_BAD_REQUEST,
                        "what follows the route's prefix begins with an empty segment", false);
    } else if (limit > 0 && request->body == HTTP_BODY_LENGTH && request->content_length > limit) {
        exchange_refuse(exchange, HTTP_REQUEST_TOO_LARGE,
                        "the request body is larger than limits.max_body_bytes", false);
    } else {
        struct forward_request forward = {.request = request,
                                          .route = exchange->route,
                                          .request_id = exchange->request_id,
                                          .via_name = via_name,
                                          .client = client->address,
                                          .settings = exchange->settings,
                                          .trusted = exchange->access.trusted};
        forward_write_request(&forward, &exchange->upstream_head);
        relay_connect(exchange, false);
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
    assert(exchange->hold == NULL);
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
