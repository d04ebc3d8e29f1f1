/*
 * relay: see relay.h. What writes to the client or sends to the upstream may be the end of the exchange; then its struct may already serve the client's next request.
 */
#include "proxy/relay.h"

#include "base/clock.h"
#include "proxy/client.h"

#define HIGH_MARK                                                                                            \
    65536 /* bytes the kernel of one side has not taken, above which the other side is not read */
#define REPLAY_MAX 65536

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
        exchange_refuse(exchange, HTTP_REQUEST_TOO_LARGE, message, true);
    } else {
        exchange_cut(exchange, http_fault_code(HTTP_REQUEST_TOO_LARGE), message);
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

static bool is_blocked(const struct exchange *exchange)
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
        exchange_refuse(exchange, HTTP_BAD_REQUEST, message, true);
    } else if (exchange->state == EXCHANGE_RESPONDING) {
        exchange_cut(exchange, http_fault_code(HTTP_BAD_REQUEST), message);
    }
}

void relay_take(struct exchange *exchange, struct slice *data)
{
    struct gather gather;
    gather_begin(&gather);
    if (data->size == 0 || exchange->request_complete || is_blocked(exchange)) {
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
                (!send_request(exchange, &gather, false) || is_blocked(exchange))) {
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
        exchange_client_broke(exchange);
    }
}

static void on_ready(void *owner)
{
    struct exchange *exchange = owner;
    struct client *client = exchange->client;
    uint64_t number =
        client->requests; /* a shorter way to end may bring the next request, in this very struct */
    exchange_enter(exchange, EXCHANGE_REQUESTING);
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
    struct slice method = exchange->request.method;
    return !upstream_has_written(exchange->upstream) || slice_equal(method, SLICE("GET")) ||
           slice_equal(method, SLICE("HEAD")) ||
           (exchange->route->retry_stale && slice_equal(method, SLICE("POST")));
}

static void on_upstream_failed(void *owner, enum upstream_failure failure, const char *message)
{
    struct exchange *exchange = owner;
    switch (failure) {
    case UPSTREAM_STALE:
        if (may_replay(exchange)) {
            exchange_drop_upstream(exchange);
            exchange->request_dropped = false;
            relay_connect(exchange, true);
            break;
        }
        exchange_fail(exchange, HTTP_UPSTREAM_UNREACHABLE, message);
        break;
    case UPSTREAM_UNREACHABLE:
        exchange_fail(exchange, HTTP_UPSTREAM_UNREACHABLE, message);
        break;
    case UPSTREAM_EXHAUSTED:
        exchange_fail(exchange, HTTP_OVERLOADED, message);
        break;
    case UPSTREAM_CONNECT_TIMEOUT:
        exchange_fail(exchange, HTTP_UPSTREAM_TIMEOUT, message);
        break;
    case UPSTREAM_INVALID:
        exchange_fail(exchange, HTTP_UPSTREAM_INVALID_RESPONSE, message);
        break;
    case UPSTREAM_ABORTED:
        exchange_cut(exchange, "upstream_aborted", message);
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
        exchange_client_broke(exchange);
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
    exchange_enter(exchange, EXCHANGE_RESPONDING);
    exchange->status = response->status;
    exchange->streamed = type != NULL && is_stream(type->value);
    exchange->capture.keep_tail = http_fields_find(&response->fields, SLICE("content-encoding")) == NULL;
    exchange->framing = framing_of(exchange, response);
    exchange->close = exchange->close || exchange->framing == FORWARD_UNTIL_CLOSE ||
                      exchange->client->worker->draining || !exchange_rest_is_short(exchange);
    struct forward_response forward = {.response = response,
                                       .framing = exchange->framing,
                                       .close = exchange->close,
                                       .request_id = exchange->request_id};
    forward_write_response(&forward, &exchange->scratch, &exchange->sent, &exchange->head);
}

static bool write_response(struct exchange *exchange, struct gather *gather, bool last)
{
    gather->head = buffer_slice(&exchange->head);
    int count = gather_finish(gather, exchange->framing == FORWARD_CHUNKED, last);
    if (count > 0 && !client_write(exchange->client, gather->pieces, count)) {
        return false;
    }
    buffer_clear(&exchange->head);
    return true;
}

/* The same under audit: what would make the response complete stays in exchange->head. */
static bool write_all_but_end(struct exchange *exchange, struct gather *gather, bool last)
{
    bool by_length = exchange->framing == FORWARD_LENGTH;
    if (exchange->framing == FORWARD_NONE || (by_length && last && gather->size == 0)) {
        return true; /* the head is the end */
    }
    struct slice end = {NULL, 0}, *piece = last && by_length ? &gather->data[gather->count - 1] : NULL;
    if (piece != NULL) {
        piece->size--;
        end = (struct slice){piece->data + piece->size, 1};
    } else if (last && exchange->framing == FORWARD_CHUNKED) {
        end = SLICE("0\r\n\r\n");
    }
    bool written = write_response(exchange, gather, false);
    if (piece != NULL) {
        piece->size++;
    }
    if (written) {
        buffer_append_slice(&exchange->head, end);
    }
    return written;
}

static void on_body(void *owner, struct gather *gather, bool last)
{
    struct exchange *exchange = owner;
    if (exchange->framing == FORWARD_NONE) {
        gather_begin(gather);
    }
    if (last) { /* before the client can see the end: its next request may need this place of the route's max_connections */
        upstream_release(exchange->upstream, exchange->request_complete && !exchange->request_dropped &&
                                                 upstream_pending(exchange->upstream) == 0);
        exchange->request_dropped = true;
    }
    bool written = exchange->audited ? write_all_but_end(exchange, gather, last)
                                     : write_response(exchange, gather, last);
    if (!written) {
        exchange_client_broke(exchange);
        return;
    }
    for (int i = 0; i < gather->count; i++) {
        capture_response(&exchange->capture, gather->data[i]);
    }
    exchange->capture.chunks += gather->size > 0;
    if (last) {
        if (exchange->audited) {
            exchange_hold(exchange);
        } else {
            exchange_finish_when_flushed(exchange);
        }
    } else if (client_pending(exchange->client) > HIGH_MARK) {
        upstream_pause(exchange->upstream);
    }
}

void relay_client_drained(struct exchange *exchange)
{
    if (exchange->state == EXCHANGE_FLUSHING) {
        exchange_finish_when_flushed(exchange);
    } else if (exchange->upstream != NULL && upstream_is_paused(exchange->upstream)) {
        upstream_resume(exchange->upstream);
    }
}

/* Beginning ------------------------------------------------------------------------------------------------------------------------------------------ */

void relay_connect(struct exchange *exchange, bool fresh)
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
    exchange_enter(exchange, EXCHANGE_CONNECTING);
    exchange->upstream = upstream_start(exchange->client->worker, &request, &callbacks, exchange);
    if (exchange->upstream == NULL) {
        exchange_answer(exchange, HTTP_OVERLOADED, NULL,
                        "all connections that the route may have are in use (max_connections)", false);
        return;
    }
    exchange->replay_is_whole = exchange->replay_is_whole && upstream_is_reused(exchange->upstream);
    if (upstream_is_ready(exchange->upstream)) {
        on_ready(exchange);
    }
}
