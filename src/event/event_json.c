/* The canonical JSON of an event: one function in the order of the documented keys. */
#include <openssl/evp.h>

#include "base/clock.h"
#include "base/json_write.h"
#include "event/event_view.h"

#define BASE64_STEP (3u * 16384) /* bytes encoded at once; whole groups of three, so that the pieces join */

static void write_key(struct buffer *out, const char *name)
{
    if (buffer_data(out)[out->size - 1] != '{')
        buffer_append_char(out, ',');
    buffer_append_char(out, '"');
    buffer_append_string(out, name);
    buffer_append_string(out, "\":");
}

static void write_text(struct buffer *out, const char *name, struct slice text)
{
    write_key(out, name);
    if (text.data == NULL)
        buffer_append_string(out, "null");
    else
        json_write_latin1(out, text);
}

static void write_unsigned(struct buffer *out, const char *name, uint64_t number)
{
    write_key(out, name);
    buffer_append_uint64(out, number);
}

static void write_bool(struct buffer *out, const char *name, bool value)
{
    write_key(out, name);
    buffer_append_string(out, value ? "true" : "false");
}

static void write_milliseconds(struct buffer *out, const char *name, uint64_t time_us)
{
    write_key(out, name);
    if (time_us == EVENT_NO_TIME)
        buffer_append_string(out, "null");
    else
        json_write_number(out, (double)time_us / 1000.0);
}

/* { first, second }, or null when there is no first. */
static void write_pair(struct buffer *out, const char *name, const char *first_name, struct slice first,
                       const char *second_name, struct slice second)
{
    write_key(out, name);
    if (first.data == NULL) {
        buffer_append_string(out, "null");
        return;
    }
    buffer_append_char(out, '{');
    write_text(out, first_name, first);
    write_text(out, second_name, second);
    buffer_append_char(out, '}');
}

static void write_base64(struct buffer *out, struct slice bytes)
{
    buffer_append_char(out, '"');
    while (bytes.size > 0) {
        size_t size = bytes.size < BASE64_STEP ? bytes.size : BASE64_STEP;
        char *room = buffer_reserve(out, (size + 2) / 3 * 4 + 1);
        int written = EVP_EncodeBlock((unsigned char *)room, (const unsigned char *)bytes.data, (int)size);
        buffer_commit(out, (size_t)written);
        bytes = (struct slice){bytes.data + size, bytes.size - size};
    }
    buffer_append_char(out, '"');
}

static void write_body(struct buffer *out, const char *name, const struct event_body_view *body)
{
    write_key(out, name);
    if (!body->kept)
        buffer_append_string(out, "null");
    else if (body->text)
        json_write_string(out, body->bytes);
    else
        write_base64(out, body->bytes);
}

static struct slice encoding_name(const struct event_body_view *body)
{
    if (!body->kept)
        return (struct slice){NULL, 0};
    return body->text ? SLICE("utf8") : SLICE("base64");
}

static void write_header(void *argument, struct slice name, struct slice value)
{
    struct buffer *out = argument;
    if (buffer_data(out)[out->size - 1] != '{')
        buffer_append_char(out, ',');
    json_write_latin1(out, name);
    buffer_append_char(out, ':');
    json_write_latin1(out, value);
}

static void write_headers(struct buffer *out, const char *name, const struct name_value *headers,
                          size_t count)
{
    write_key(out, name);
    buffer_append_char(out, '{');
    event_headers_joined(headers, count, write_header, out);
    buffer_append_char(out, '}');
}

static struct slice withheld_name(enum event_withheld withheld)
{
    switch (withheld) {
    case EVENT_WITHHELD_OFF:
        return SLICE("off");
    case EVENT_WITHHELD_MEMORY:
        return SLICE("memory");
    case EVENT_KEPT:
        break;
    }
    return (struct slice){NULL, 0};
}

void event_view_write_json(const struct event_view *view, struct buffer *out)
{
    const struct event_fields *fields = view->fields;
    char time[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(fields->time_us, time);

    buffer_append_char(out, '{');
    write_text(out, "id", fields->id);
    write_text(out, "request_id", fields->request_id);
    write_text(out, "time", slice_of(time));
    write_text(out, "method", fields->method);
    write_text(out, "path", fields->path);
    write_text(out, "query", fields->query);
    write_unsigned(out, "status", (uint64_t)fields->status);
    write_milliseconds(out, "duration_ms", fields->duration_us);
    write_milliseconds(out, "ttfb_ms", fields->ttfb_us);
    write_text(out, "client", fields->client);
    write_text(out, "client_name", fields->client_name);
    write_text(out, "route", fields->route);
    write_text(out, "upstream", fields->upstream);
    write_pair(out, "credential", "kind", fields->credential_kind, "fingerprint",
               fields->credential_fingerprint);
    write_headers(out, "request_headers", fields->request_headers, fields->request_header_count);
    write_headers(out, "response_headers", fields->response_headers, fields->response_header_count);
    write_body(out, "request_body", &view->request);
    write_body(out, "response_body", &view->response);
    write_text(out, "request_body_encoding", encoding_name(&view->request));
    write_text(out, "response_body_encoding", encoding_name(&view->response));
    write_text(out, "request_content_coding", view->request.coding);
    write_text(out, "response_content_coding", view->response.coding);
    write_unsigned(out, "request_bytes", fields->request_bytes);
    write_unsigned(out, "response_bytes", fields->response_bytes);
    write_bool(out, "request_truncated", fields->request_truncated);
    write_bool(out, "response_truncated", fields->response_truncated);
    write_body(out, "response_tail", &view->tail);
    write_text(out, "bodies_withheld", withheld_name(fields->withheld));
    write_bool(out, "streamed", fields->streamed);
    write_unsigned(out, "chunks", fields->chunks);
    write_pair(out, "error", "kind", fields->error_kind, "message", fields->error_message);
    write_text(out, "trace_id", fields->trace_id);
    write_text(out, "span_id", fields->span_id);
    write_pair(out, "proxy", "version", fields->version, "instance", fields->instance);
    buffer_append_char(out, '}');
}

void event_write_json(const struct event_record *event, size_t max_decoded, struct buffer *out)
{
    struct event_view view;
    event_view_make(&view, event, max_decoded);
    event_view_write_json(&view, out);
    event_view_free(&view);
}
