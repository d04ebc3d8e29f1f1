/*
 * forward: what RFC 9110 and 9112 demand of an intermediary between reading a head and writing it again.
 */
#include "proxy/forward.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/id.h"
#include "http/write.h"
#include "proxy/access.h"
#include "proxy/redact.h"
#include "proxy/route.h"

/* Requests --------------------------------------------------------------------------------------------------------------------------------- */

static bool is_request_id(struct slice value)
{
    if (value.size == 0 || value.size >= FORWARD_REQUEST_ID_SIZE) {
        return false;
    }
    for (size_t i = 0; i < value.size; i++) {
        char c = value.data[i], lower = ascii_lower(c);
        if (!(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9') &&
            (c == 0 || strchr("._:/+=@-", c) == NULL)) {
            return false;
        }
    }
    return true;
}

void forward_request_id(const struct http_request *request, char out[FORWARD_REQUEST_ID_SIZE])
{
    const struct name_value *field = http_fields_find(&request->fields, SLICE("x-request-id"));
    if (field != NULL && is_request_id(field->value) &&
        http_fields_count(&request->fields, SLICE("x-request-id")) == 1) {
        memcpy(out, field->value.data, field->value.size);
        out[field->value.size] = 0;
    } else {
        uuid7(out);
    }
}

/* The name is so peculiar that it is looked for anywhere: a field that other proxies made of several, some of them odd, hides nothing. */
bool forward_is_loop(const struct http_request *request, struct slice via_name)
{
    for (size_t i = 0; i < request->fields.count; i++) {
        const struct name_value *field = &request->fields.items[i];
        if (slice_equal_nocase(field->name, SLICE("via")) && field->value.size > 0 &&
            memmem(field->value.data, field->value.size, via_name.data, via_name.size) != NULL) {
            return true;
        }
    }
    return false;
}

static bool route_replaces(const struct route *route, struct slice name)
{
    for (size_t i = 0; i < route->header_count; i++) {
        if (slice_equal_nocase(name, slice_of(route->headers[i].name))) {
            return true;
        }
    }
    return route->sets_credential && redact_is_credential_field(name);
}

/* Of the fields about earlier hops: is it written anew, or does it come from somebody who is not believed? */
static bool is_forwarded_field(struct slice name, bool trusted)
{
    static const struct slice prefix = {"x-forwarded-", 12};
    return slice_equal_nocase(name, SLICE("forwarded")) ||
           slice_equal_nocase(name, SLICE("x-forwarded-for")) ||
           slice_equal_nocase(name, SLICE("x-forwarded-proto")) ||
           slice_equal_nocase(name, SLICE("x-forwarded-host")) ||
           (!trusted && (slice_equal_nocase(name, SLICE("x-real-ip")) ||
                         (name.size > prefix.size &&
                          slice_equal_nocase((struct slice){name.data, prefix.size}, prefix))));
}

/* Fields that are written anew, or answered here. */
static bool is_ours(const struct forward_request *forward, struct slice name)
{
    static const char *const names[] = {"host", "content-length", "expect", "x-request-id"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (slice_equal_nocase(name, slice_of(names[i]))) {
            return true;
        }
    }
    return (forward->route->forwarded && is_forwarded_field(name, forward->trusted)) ||
           route_replaces(forward->route, name);
}

static void write_client_fields(const struct forward_request *forward, struct buffer *out)
{
    const struct http_fields *fields = &forward->request->fields;
    uint64_t hops;
    for (size_t i = 0; i < fields->count; i++) {
        struct name_value field = fields->items[i];
        if (is_ours(forward, field.name) || http_fields_is_hop_by_hop(fields, field.name) ||
            access_is_token(forward->settings, &field)) {
            continue;
        }
        if (slice_equal(forward->request->method, SLICE("OPTIONS")) &&
            slice_equal_nocase(field.name, SLICE("max-forwards")) && slice_to_uint64(field.value, &hops) &&
            hops > 0) {
            http_write_field_uint64(out, field.name, hops - 1);
            continue;
        }
        http_write_field(out, field.name, field.value);
    }
}

/* "127.0.0.1:4711" and "[::1]:4711" without port and brackets; "unknown" for a unix socket (RFC 7239 6.2). */
static struct slice ip_of(const char *client)
{
    struct slice ip = slice_of(client);
    const char *colon = strrchr(client, ':');
    if (slice_starts_with(ip, SLICE("unix:")) || colon == NULL) {
        return SLICE("unknown");
    }
    ip.size = (size_t)(colon - client);
    return ip.size > 2 && client[0] == '[' ? (struct slice){client + 1, ip.size - 2} : ip;
}

/* What a trusted proxy sent in fields of this name, as one list. */
static void write_received(const struct forward_request *forward, struct slice name, struct buffer *out)
{
    const struct http_fields *fields = &forward->request->fields;
    bool first = true;
    for (size_t i = 0; forward->trusted && i < fields->count; i++) {
        struct slice value = fields->items[i].value;
        if (value.size > 0 && slice_equal_nocase(fields->items[i].name, name)) {
            buffer_append_slice(out, first ? SLICE("") : SLICE(", "));
            buffer_append_slice(out, value);
            first = false;
        }
    }
}

/* One field: what was received, and own behind it. */
static void write_with_received(const struct forward_request *forward, struct slice name, struct slice own,
                                struct buffer *out)
{
    buffer_append_slice(out, name);
    buffer_append_slice(out, SLICE(": "));
    size_t begin = out->size;
    write_received(forward, name, out);
    buffer_append_slice(out, out->size > begin ? SLICE(", ") : SLICE(""));
    buffer_append_slice(out, own);
    buffer_append_slice(out, SLICE("\r\n"));
}

static void write_forwarded(const struct forward_request *forward, struct buffer *out)
{
    write_with_received(forward, SLICE("X-Forwarded-For"), ip_of(forward->client), out);
    write_with_received(forward, SLICE("X-Forwarded-Proto"), SLICE("http"), out);
    if (forward->request->authority.size > 0) {
        write_with_received(forward, SLICE("X-Forwarded-Host"), forward->request->authority, out);
    }
}

void forward_write_request(const struct forward_request *forward, struct buffer *out)
{
    const struct http_request *request = forward->request;
    const struct route *route = forward->route;
    buffer_append_slice(out, request->method);
    buffer_append_char(out, ' ');
    route_write_target(route, request, out);
    buffer_append_string(out, " HTTP/1.1\r\nHost: ");
    buffer_append_string(out, route->authority);
    buffer_append_string(out, "\r\n");
    write_client_fields(forward, out);
    buffer_append_string(out, request->minor_version == 0 ? "Via: 1.0 " : "Via: 1.1 ");
    buffer_append_string(out, forward->via_name);
    buffer_append_string(out, "\r\n");
    http_write_field(out, SLICE("X-Request-Id"), slice_of(forward->request_id));
    if (route->forwarded) {
        write_forwarded(forward, out);
    }
    for (size_t i = 0; i < route->header_count; i++) {
        if (route->headers[i].value != NULL) {
            http_write_field(out, slice_of(route->headers[i].name), slice_of(route->headers[i].value));
        }
    }
    if (request->body == HTTP_BODY_LENGTH) {
        http_write_field_uint64(out, SLICE("Content-Length"), request->content_length);
    } else if (request->body == HTTP_BODY_CHUNKED) {
        http_write_field(out, SLICE("Transfer-Encoding"), SLICE("chunked"));
    }
    http_write_end(out);
}

/* Responses -------------------------------------------------------------------------------------------------------------------------------- */

/* Appends to scratch, which has room (its bytes must not move), and adds the field. */
static void add_made(struct http_fields *sent, struct slice name, struct buffer *scratch, const char *text)
{
    char *place = buffer_reserve(scratch, 0);
    size_t size = strlen(text);
    buffer_append(scratch, text, size);
    http_fields_add(sent, name, (struct slice){place, size});
}

static void add_ours(const struct forward_response *forward, struct buffer *scratch, struct http_fields *sent)
{
    const struct http_response *response = forward->response;
    bool keeps_length = forward->framing == FORWARD_NONE && response->has_content_length &&
                        response->status != 204 && response->status != 205;
    buffer_clear(scratch);
    buffer_reserve(scratch, 32 + CLOCK_HTTP_DATE_SIZE + FORWARD_REQUEST_ID_SIZE);
    if (forward->framing == FORWARD_LENGTH || keeps_length) {
        char number[24];
        snprintf(number, sizeof number, "%" PRIu64, response->content_length);
        add_made(sent, SLICE("Content-Length"), scratch, number);
    } else if (response->status == 205) {
        http_fields_add(sent, SLICE("Content-Length"), SLICE("0"));
    } else if (forward->framing == FORWARD_CHUNKED) {
        http_fields_add(sent, SLICE("Transfer-Encoding"), SLICE("chunked"));
    }
    if (forward->close) {
        http_fields_add(sent, SLICE("Connection"), SLICE("close"));
    }
    if (http_fields_find(sent, SLICE("date")) == NULL) {
        char date[CLOCK_HTTP_DATE_SIZE];
        clock_format_http_date(clock_realtime_us(), date);
        add_made(sent, SLICE("Date"), scratch, date);
    }
    if (http_fields_find(sent, SLICE("x-request-id")) == NULL) {
        add_made(sent, SLICE("X-Request-Id"), scratch, forward->request_id);
    }
}

static bool passes(const struct http_response *response, struct slice name)
{
    return !slice_equal_nocase(name, SLICE("content-length")) &&
           !http_fields_is_hop_by_hop(&response->fields, name);
}

void forward_write_response(const struct forward_response *forward, struct buffer *scratch,
                            struct http_fields *sent, struct buffer *out)
{
    const struct http_response *response = forward->response;
    sent->count = 0;
    for (size_t i = 0; i < response->fields.count; i++) {
        if (passes(response, response->fields.items[i].name)) {
            http_fields_add(sent, response->fields.items[i].name, response->fields.items[i].value);
        }
    }
    add_ours(forward, scratch, sent);
    http_write_status_line(out, response->status);
    for (size_t i = 0; i < sent->count; i++) {
        http_write_field(out, sent->items[i].name, sent->items[i].value);
    }
    http_write_end(out);
}

void forward_write_interim(const struct http_response *response, struct buffer *out)
{
    http_write_status_line(out, response->status);
    for (size_t i = 0; i < response->fields.count; i++) {
        if (passes(response, response->fields.items[i].name)) {
            http_write_field(out, response->fields.items[i].name, response->fields.items[i].value);
        }
    }
    http_write_end(out);
}
