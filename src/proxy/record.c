/*
 * record: turns what an exchange knows into an event. Secrets are replaced here, on the way out of the exchange: behind this there are none.
 */
#include "proxy/record.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "base/memory.h"
#include "proxy/client.h"
#include "proxy/redact.h"

/* Values that had to be made, in one buffer: its bytes may move while it grows, so places in it are noted as offsets first. */
struct redaction {
    const struct proxy_settings *settings;
    struct buffer made;
};

struct made_slice {
    size_t offset, size;
};

static struct slice made(const struct redaction *redaction, struct made_slice place)
{
    return (struct slice){buffer_data(&redaction->made) + place.offset, place.size};
}

static bool is_location(struct slice name)
{
    return slice_equal_nocase(name, SLICE("location")) || slice_equal_nocase(name, SLICE("content-location"));
}

/* A copy of the fields with secrets replaced; the caller's to free. The one Location that may be rewritten has its place in *location. */
static struct name_value *redact_fields(struct redaction *redaction, const struct http_fields *fields,
                                        struct made_slice *places)
{
    struct name_value *copy = xcalloc(fields->count + 1, sizeof *copy);
    for (size_t i = 0; i < fields->count; i++) {
        copy[i] = fields->items[i];
        places[i] = (struct made_slice){0, SIZE_MAX};
        if (redact_is_secret_field(redaction->settings, copy[i].name)) {
            copy[i].value = REDACTED;
        } else if (is_location(copy[i].name)) {
            places[i].offset = redaction->made.size;
            redact_write_reference(redaction->settings, copy[i].value, &redaction->made);
            places[i].size = redaction->made.size - places[i].offset;
        }
    }
    return copy;
}

static void place_made(const struct redaction *redaction, struct name_value *fields, size_t count,
                       const struct made_slice *places)
{
    for (size_t i = 0; i < count; i++) {
        if (places[i].size != SIZE_MAX) {
            fields[i].value = made(redaction, places[i]);
        }
    }
}

/* traceparent: 00-<32 hex>-<16 hex>-<2 hex> (W3C Trace Context); later versions may have more behind. */
static bool is_lower_hex(struct slice text)
{
    bool zero = true;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) {
            return false;
        }
        zero = zero && c == '0';
    }
    return !zero || text.size == 2;
}

static void read_traceparent(const struct http_fields *fields, struct event_fields *event)
{
    const struct name_value *field = http_fields_find(fields, SLICE("traceparent"));
    if (field == NULL || http_fields_count(fields, SLICE("traceparent")) != 1) {
        return;
    }
    struct slice value = field->value;
    bool shape = value.size >= 55 && value.data[2] == '-' && value.data[35] == '-' && value.data[52] == '-';
    if (!shape ||
        (memcmp(value.data, "00", 2) == 0 ? value.size != 55 : value.size > 55 && value.data[55] != '-') ||
        memcmp(value.data, "ff", 2) == 0) {
        return;
    }
    struct slice trace = {value.data + 3, 32}, span = {value.data + 36, 16};
    if (is_lower_hex((struct slice){value.data, 2}) && is_lower_hex(trace) && is_lower_hex(span) &&
        is_lower_hex((struct slice){value.data + 53, 2})) {
        event->trace_id = trace;
        event->span_id = span;
    }
}

/* The fingerprint of the request's credential; it is computed again only when the credential is another than the connection's last one. */
static void note_credential(struct exchange *exchange, struct event_fields *event)
{
    struct client *client = exchange->client;
    struct credential credential = redact_find_credential(&exchange->request.fields, exchange->request.query);
    if (credential.kind.data == NULL) {
        return;
    }
    bool cached = client->fingerprint[0] != 0 &&
                  client->fingerprint_generation == exchange->settings->generation &&
                  slice_equal(credential.key, (struct slice){client->credential, client->credential_size});
    if (!cached) {
        redact_fingerprint(exchange->settings->fingerprint_key, credential.key, client->fingerprint);
        client->fingerprint_generation = exchange->settings->generation;
        client->credential_size = credential.key.size <= CREDENTIAL_CACHE_SIZE ? credential.key.size : 0;
        memcpy(client->credential, credential.key.data, client->credential_size);
    }
    event->credential_kind = credential.kind;
    event->credential_fingerprint = slice_of(client->fingerprint);
}

static const char *client_of(const struct exchange *exchange)
{
    return exchange->access.client[0] != 0 ? exchange->access.client : exchange->client->address;
}

static void describe(struct exchange *exchange, uint64_t now_ns, struct event_fields *event)
{
    const struct capture *capture = &exchange->capture;
    const struct worker *worker = exchange->client->worker;
    *event = (struct event_fields){
        .request_id = slice_of(exchange->request_id),
        .time_us = exchange->begun_us,
        .method = exchange->request.method,
        .path = exchange->request.path.size > 0 ? exchange->request.path : exchange->request.target,
        .status = exchange->status,
        .duration_us = (now_ns - exchange->begun_ns) / 1000,
        .ttfb_us = exchange->first_byte_ns > 0 ? (exchange->first_byte_ns - exchange->begun_ns) / 1000
                                               : EVENT_NO_TIME,
        .client = slice_of(client_of(exchange)),
        .client_name = slice_of(exchange->access.client_name),
        .request_bytes = capture->request.bytes,
        .response_bytes = capture->response.bytes,
        .request_kept = capture->withheld == EVENT_KEPT && capture->request.limit > 0,
        .response_kept =
            capture->withheld == EVENT_KEPT && capture->response.limit > 0 && exchange->status != 0,
        .withheld = capture->withheld,
        .streamed = exchange->streamed,
        .chunks = capture->chunks,
        .version = SLICE(LLM_PROXY_VERSION),
        .instance = slice_of(worker->shared->instance),
    };
    event->request_truncated = event->request_kept && capture->request.truncated;
    event->response_truncated = event->response_kept && capture->response.truncated;
    if (exchange->route != NULL) {
        event->route = slice_of(exchange->route->name);
        event->upstream = slice_of(exchange->route->upstream);
    }
    if (exchange->error_kind != NULL) {
        event->error_kind = slice_of(exchange->error_kind);
        event->error_message = slice_of(exchange->error_message);
    }
    read_traceparent(&exchange->request.fields, event);
    note_credential(exchange, event);
}

static void publish(struct exchange *exchange, uint64_t now_ns, bus_done done, void *argument)
{
    struct event_fields event;
    struct redaction redaction = {.settings = exchange->settings};
    const struct http_fields *request = &exchange->request.fields, *response = &exchange->sent;
    struct made_slice *places = xcalloc(request->count + response->count + 1, sizeof *places);
    struct made_slice query = {0, 0};
    char id[UUID_TEXT_SIZE];
    uuid7(id);
    describe(exchange, now_ns, &event);
    event.id = slice_of(id);

    struct name_value *request_headers = redact_fields(&redaction, request, places);
    struct name_value *response_headers = redact_fields(&redaction, response, places + request->count);
    if (exchange->request.has_query) {
        query.offset = redaction.made.size;
        buffer_reserve(&redaction.made, 1); /* an empty query is one all the same: it needs a place */
        redact_write_query(exchange->settings, exchange->request.query, &redaction.made);
        query.size = redaction.made.size - query.offset;
        event.query = made(&redaction, query);
    }
    place_made(&redaction, request_headers, request->count, places);
    place_made(&redaction, response_headers, response->count, places + request->count);
    event.request_headers = request_headers;
    event.request_header_count = request->count;
    event.response_headers = response_headers;
    event.response_header_count = exchange->status != 0 ? response->count : 0;

    struct body tail;
    capture_take_tail(&exchange->capture, &tail);
    struct event_record *record =
        event_record_new(&event, &exchange->capture.request.kept, &exchange->capture.response.kept, &tail);
    body_free(&tail);
    free(request_headers);
    free(response_headers);
    free(places);
    buffer_free(&redaction.made);
    bus_publish(exchange->client->worker->shared->bus, record, done, argument);
    event_record_release(record);
}

static void count(struct exchange *exchange, uint64_t now_ns)
{
    struct worker *worker = exchange->client->worker;
    struct proxy_shared *shared = worker->shared;
    const struct proxy_settings *settings = exchange->settings;
    size_t index =
        exchange->route != NULL ? (size_t)(exchange->route - settings->routes) : settings->route_count;
    metric_observe(shared->duration, (double)(now_ns - exchange->begun_ns) / (double)NANOSECONDS_PER_SECOND);
    struct metric *cached = NULL;
    struct metric **place =
        settings == worker->settings ? &worker->pools[index].requests[exchange->status] : &cached;
    if (*place == NULL) {
        char code[8];
        snprintf(code, sizeof code, "%d", exchange->status);
        *place = metrics_counter(
            shared->metrics, "llm_proxy_requests_total", "Exchanges by route and status sent (0: none).",
            (struct metric_label[]){{"route", exchange->route != NULL ? exchange->route->name : ""},
                                    {"code", code},
                                    {NULL, NULL}});
    }
    metric_add(*place, 1);
}

/* Never a header's value, a query, or a body. */
static void log_access(const struct exchange *exchange, uint64_t now_ns)
{
    log_info("exchange", log_string("request_id", exchange->request_id),
             log_string("client", client_of(exchange)), log_slice("method", exchange->request.method),
             log_slice("path", exchange->request.path),
             log_string("route", exchange->route != NULL ? exchange->route->name : ""),
             log_integer("status", exchange->status),
             log_number("duration_ms",
                        (double)(now_ns - exchange->begun_ns) / (double)NANOSECONDS_PER_MILLISECOND),
             log_integer("request_bytes", (int64_t)exchange->capture.request.bytes),
             log_integer("response_bytes", (int64_t)exchange->capture.response.bytes),
             log_string("error", exchange->error_kind != NULL ? exchange->error_kind : ""));
}

static void log_failure(const struct exchange *exchange)
{
    static struct log_limit limit;
    uint64_t suppressed;
    if (log_limit_pass(&limit, &suppressed)) {
        log_warn("exchange failed", log_string("request_id", exchange->request_id),
                 log_string("route", exchange->route != NULL ? exchange->route->name : ""),
                 log_string("error", exchange->error_kind), log_string("reason", exchange->error_message),
                 log_suppressed(suppressed));
    }
}

/* The upstream's fault, or ours: what an operator wants to read about. */
static bool is_worth_a_warning(const struct exchange *exchange)
{
    return exchange->error_kind != NULL && strcmp(exchange->error_kind, "client_aborted") != 0 &&
           (exchange->status == 0 || exchange->status >= 500 || exchange->status < 400);
}

void record_exchange(struct exchange *exchange, bus_done done, void *argument)
{
    uint64_t now_ns = clock_monotonic_ns();
    assert(!exchange->recorded);
    count(exchange, now_ns);
    if (exchange->settings->access_log) {
        log_access(exchange, now_ns);
    }
    if (is_worth_a_warning(exchange)) {
        log_failure(exchange);
    }
    if (exchange->observed) {
        publish(exchange, now_ns, done, argument);
    }
    capture_end(&exchange->capture);
}
