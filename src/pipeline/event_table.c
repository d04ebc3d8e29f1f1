/* The table of an event; see event_table.h. */
#include "pipeline/event_table.h"

#include <lauxlib.h>

#include "base/clock.h"
#include "base/utf8.h"

void event_scratch_free(struct event_scratch *scratch)
{
    buffer_free(&scratch->text);
    buffer_free(&scratch->headers);
    buffer_free(&scratch->names);
}

static void append_latin1(struct buffer *out, struct slice text)
{
    if (utf8_valid(text)) {
        buffer_append_slice(out, text);
        return;
    }
    for (size_t i = 0; i < text.size; i++) {
        char utf8[4];
        buffer_append(out, utf8, utf8_encode((unsigned char)text.data[i], utf8));
    }
}

/* Two sizes, then the bytes of name and value. */
static void collect_header(void *argument, struct slice name, struct slice value)
{
    struct buffer *out = argument;
    size_t start = out->size, sizes[2];
    buffer_append(out, (size_t[2]){0}, sizeof sizes);
    append_latin1(out, name);
    sizes[0] = out->size - start - sizeof sizes;
    append_latin1(out, value);
    sizes[1] = out->size - start - sizeof sizes - sizes[0];
    memcpy(buffer_data(out) + start, sizes, sizeof sizes);
}

void event_table_collect_headers(const struct name_value *headers, size_t count,
                                 struct event_scratch *scratch)
{
    buffer_clear(&scratch->headers);
    event_headers_joined(headers, count, collect_header, &scratch->headers);
}

bool event_table_next_header(struct slice *rest, struct name_value *header)
{
    size_t sizes[2];
    if (rest->size == 0)
        return false;
    memcpy(sizes, rest->data, sizeof sizes);
    header->name = (struct slice){rest->data + sizeof sizes, sizes[0]};
    header->value = (struct slice){header->name.data + sizes[0], sizes[1]};
    *rest = slice_range(header->value.data + sizes[1], rest->data + rest->size);
    return true;
}

static void set_text(lua_State *lua, struct event_scratch *scratch, const char *name, struct slice text)
{
    if (text.data == NULL)
        return;
    buffer_clear(&scratch->text);
    append_latin1(&scratch->text, text);
    lua_pushlstring(lua, scratch->text.size > 0 ? buffer_data(&scratch->text) : "", scratch->text.size);
    lua_setfield(lua, -2, name);
}

static void set_string(lua_State *lua, const char *name, const char *string)
{
    lua_pushstring(lua, string);
    lua_setfield(lua, -2, name);
}

static void set_number(lua_State *lua, const char *name, double number)
{
    lua_pushnumber(lua, number);
    lua_setfield(lua, -2, name);
}

static void set_bool(lua_State *lua, const char *name, bool value)
{
    lua_pushboolean(lua, value);
    lua_setfield(lua, -2, name);
}

static void set_milliseconds(lua_State *lua, const char *name, uint64_t time_us)
{
    if (time_us != EVENT_NO_TIME)
        set_number(lua, name, (double)time_us / 1000.0);
}

static void set_pair(lua_State *lua, struct event_scratch *scratch, const char *name, const char *first_name,
                     struct slice first, const char *second_name, struct slice second)
{
    if (first.data == NULL)
        return;
    lua_createtable(lua, 0, 2);
    set_text(lua, scratch, first_name, first);
    set_text(lua, scratch, second_name, second);
    lua_setfield(lua, -2, name);
}

static void set_headers(lua_State *lua, struct event_scratch *scratch, const char *name,
                        const struct name_value *headers, size_t count)
{
    event_table_collect_headers(headers, count, scratch);
    lua_createtable(lua, 0, (int)count);
    struct slice rest = buffer_slice(&scratch->headers);
    struct name_value header;
    while (event_table_next_header(&rest, &header)) {
        lua_pushlstring(lua, header.name.data, header.name.size);
        lua_pushlstring(lua, header.value.data, header.value.size);
        lua_rawset(lua, -3);
    }
    lua_setfield(lua, -2, name);
}

static void set_body(lua_State *lua, const char *name, const char *encoding_name,
                     const struct event_body_view *body)
{
    if (!body->kept)
        return;
    lua_pushlstring(lua, body->bytes.data != NULL ? body->bytes.data : "", body->bytes.size);
    lua_setfield(lua, -2, name);
    if (encoding_name != NULL)
        set_string(lua, encoding_name, body->text ? "utf8" : "base64");
}

void event_table_push(lua_State *lua, const struct event_view *view, struct event_scratch *scratch)
{
    const struct event_fields *fields = view->fields;
    char time[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(fields->time_us, time);

    luaL_checkstack(lua, 8, NULL);
    lua_createtable(lua, 0, 36);
    set_text(lua, scratch, "id", fields->id);
    set_text(lua, scratch, "request_id", fields->request_id);
    set_string(lua, "time", time);
    set_text(lua, scratch, "method", fields->method);
    set_text(lua, scratch, "path", fields->path);
    set_text(lua, scratch, "query", fields->query);
    set_number(lua, "status", fields->status);
    set_milliseconds(lua, "duration_ms", fields->duration_us);
    set_milliseconds(lua, "ttfb_ms", fields->ttfb_us);
    set_text(lua, scratch, "client", fields->client);
    set_text(lua, scratch, "client_name", fields->client_name);
    set_text(lua, scratch, "route", fields->route);
    set_text(lua, scratch, "upstream", fields->upstream);
    set_pair(lua, scratch, "credential", "kind", fields->credential_kind, "fingerprint",
             fields->credential_fingerprint);
    set_headers(lua, scratch, "request_headers", fields->request_headers, fields->request_header_count);
    set_headers(lua, scratch, "response_headers", fields->response_headers, fields->response_header_count);
    set_body(lua, "request_body", "request_body_encoding", &view->request);
    set_body(lua, "response_body", "response_body_encoding", &view->response);
    set_text(lua, scratch, "request_content_coding", view->request.coding);
    set_text(lua, scratch, "response_content_coding", view->response.coding);
    set_number(lua, "request_bytes", (double)fields->request_bytes);
    set_number(lua, "response_bytes", (double)fields->response_bytes);
    set_bool(lua, "request_truncated", fields->request_truncated);
    set_bool(lua, "response_truncated", fields->response_truncated);
    set_body(lua, "response_tail", NULL, &view->tail);
    if (fields->withheld != EVENT_KEPT)
        set_string(lua, "bodies_withheld", fields->withheld == EVENT_WITHHELD_OFF ? "off" : "memory");
    set_bool(lua, "streamed", fields->streamed);
    set_number(lua, "chunks", (double)fields->chunks);
    set_pair(lua, scratch, "error", "kind", fields->error_kind, "message", fields->error_message);
    set_text(lua, scratch, "trace_id", fields->trace_id);
    set_text(lua, scratch, "span_id", fields->span_id);
    set_pair(lua, scratch, "proxy", "version", fields->version, "instance", fields->instance);
}
