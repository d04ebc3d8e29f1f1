/*
 * The JSON of an event's table; see event_table.h. Values go through the encoder of script/; what is done here is the order of keys, and what bodies
 * need.
 */
#include <lauxlib.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "base/json_write.h"
#include "base/utf8.h"
#include "pipeline/event_table.h"
#include "script/json.h"

struct encoding {
    lua_State *lua;
    int table;
    const struct event_record *event;
    struct event_scratch *scratch;
    struct buffer *out;
    struct error *error;
    bool request_text, response_text;
};

struct key {
    struct slice name;
    bool (*write)(struct encoding *encoding, const struct key *key); /* of the value on top of the stack */
    struct slice first, second;                                      /* write_pair: its keys */
};

static bool write_value(struct encoding *encoding, const struct key *key);
static bool write_pair(struct encoding *encoding, const struct key *key);
static bool write_request_headers(struct encoding *encoding, const struct key *key);
static bool write_response_headers(struct encoding *encoding, const struct key *key);
static bool write_request_body(struct encoding *encoding, const struct key *key);
static bool write_response_body(struct encoding *encoding, const struct key *key);
static bool write_request_encoding(struct encoding *encoding, const struct key *key);
static bool write_response_encoding(struct encoding *encoding, const struct key *key);

/* SLICE() as a constant initialiser. */
#define TEXT(literal)                                                                                        \
    {                                                                                                        \
        literal, sizeof literal - 1                                                                          \
    }

static const struct key keys[] = {
    {.name = TEXT("id"), .write = write_value},
    {.name = TEXT("request_id"), .write = write_value},
    {.name = TEXT("time"), .write = write_value},
    {.name = TEXT("method"), .write = write_value},
    {.name = TEXT("path"), .write = write_value},
    {.name = TEXT("query"), .write = write_value},
    {.name = TEXT("status"), .write = write_value},
    {.name = TEXT("duration_ms"), .write = write_value},
    {.name = TEXT("ttfb_ms"), .write = write_value},
    {.name = TEXT("client"), .write = write_value},
    {.name = TEXT("client_name"), .write = write_value},
    {.name = TEXT("route"), .write = write_value},
    {.name = TEXT("upstream"), .write = write_value},
    {.name = TEXT("credential"), .write = write_pair, .first = TEXT("kind"), .second = TEXT("fingerprint")},
    {.name = TEXT("request_headers"), .write = write_request_headers},
    {.name = TEXT("response_headers"), .write = write_response_headers},
    {.name = TEXT("request_body"), .write = write_request_body},
    {.name = TEXT("response_body"), .write = write_response_body},
    {.name = TEXT("request_body_encoding"), .write = write_request_encoding},
    {.name = TEXT("response_body_encoding"), .write = write_response_encoding},
    {.name = TEXT("request_content_coding"), .write = write_value},
    {.name = TEXT("response_content_coding"), .write = write_value},
    {.name = TEXT("request_bytes"), .write = write_value},
    {.name = TEXT("response_bytes"), .write = write_value},
    {.name = TEXT("request_truncated"), .write = write_value},
    {.name = TEXT("response_truncated"), .write = write_value},
    {.name = TEXT("response_tail"), .write = write_response_body},
    {.name = TEXT("bodies_withheld"), .write = write_value},
    {.name = TEXT("streamed"), .write = write_value},
    {.name = TEXT("chunks"), .write = write_value},
    {.name = TEXT("error"), .write = write_pair, .first = TEXT("kind"), .second = TEXT("message")},
    {.name = TEXT("trace_id"), .write = write_value},
    {.name = TEXT("span_id"), .write = write_value},
    {.name = TEXT("proxy"), .write = write_pair, .first = TEXT("version"), .second = TEXT("instance")},
};

/* Far above what is captured; keeps the size of its base64 within an int. */
#define LARGEST_BODY (1 << 30)

#define KEY_COUNT (sizeof keys / sizeof *keys)

/* Pushes table[name], without metamethods. */
static void push_field(lua_State *lua, int table, struct slice name)
{
    lua_pushlstring(lua, name.data, name.size);
    lua_rawget(lua, table);
}

static void write_name(struct encoding *encoding, struct slice name)
{
    struct buffer *out = encoding->out;
    if (buffer_data(out)[out->size - 1] != '{')
        buffer_append_char(out, ',');
    json_write_string(out, name);
    buffer_append_char(out, ':');
}

static bool write_top(struct encoding *encoding, struct slice name)
{
    if (lua_isnil(encoding->lua, -1)) {
        buffer_append_string(encoding->out, "null");
        return true;
    }
    if (script_json_encode(encoding->lua, lua_gettop(encoding->lua), encoding->out, encoding->error))
        return true;
    error_prefix(encoding->error, "%.*s: ", SLICE_ARGUMENTS(name));
    return false;
}

static bool write_value(struct encoding *encoding, const struct key *key)
{
    return write_top(encoding, key->name);
}

static int compare_names(const void *a, const void *b)
{
    const struct slice *first = a, *second = b;
    size_t shorter = first->size < second->size ? first->size : second->size;
    int order = memcmp(first->data, second->data, shorter);
    return order != 0 ? order : (first->size > second->size) - (first->size < second->size);
}

/* Writes the keys of the table at index that is_known() does not know, sorted. */
static bool write_others(struct encoding *encoding, int index,
                         bool (*is_known)(const void *argument, struct slice name), const void *argument)
{
    lua_State *lua = encoding->lua;
    struct buffer *names = &encoding->scratch->names; /* slices: the table holds the bytes */
    buffer_clear(names);
    lua_pushnil(lua);
    while (lua_next(lua, index) != 0) {
        lua_pop(lua, 1);
        if (lua_type(lua, -1) != LUA_TSTRING) {
            error_set(encoding->error, "cannot be written as JSON: a key that is no string (a %s)",
                      luaL_typename(lua, -1));
            lua_pop(lua, 1);
            return false;
        }
        struct slice name;
        name.data = lua_tolstring(lua, -1, &name.size);
        if (!is_known(argument, name))
            buffer_append(names, &name, sizeof name);
    }
    if (names->size > 0)
        qsort(buffer_data(names), names->size / sizeof(struct slice), sizeof(struct slice), compare_names);
    while (names->size > 0) {
        struct slice name;
        memcpy(&name, buffer_data(names), sizeof name);
        buffer_consume(names, sizeof name);
        write_name(encoding, name);
        push_field(lua, index, name);
        bool written = write_top(encoding, name);
        lua_pop(lua, 1);
        if (!written)
            return false;
    }
    return true;
}

static bool is_in_pair(const void *argument, struct slice name)
{
    const struct key *key = argument;
    return slice_equal(name, key->first) || slice_equal(name, key->second);
}

static bool write_pair(struct encoding *encoding, const struct key *key)
{
    lua_State *lua = encoding->lua;
    if (!lua_istable(lua, -1))
        return write_top(encoding, key->name);
    int pair = lua_gettop(lua);
    buffer_append_char(encoding->out, '{');
    for (int i = 0; i < 2; i++) {
        struct slice name = i == 0 ? key->first : key->second;
        write_name(encoding, name);
        push_field(lua, pair, name);
        bool written = write_top(encoding, name);
        lua_pop(lua, 1);
        if (!written)
            goto failed;
    }
    if (!write_others(encoding, pair, is_in_pair, key))
        goto failed;
    buffer_append_char(encoding->out, '}');
    return true;

failed:
    error_prefix(encoding->error, "%.*s.", SLICE_ARGUMENTS(key->name));
    return false;
}

static bool is_header(const void *argument, struct slice name)
{
    struct slice rest = *(const struct slice *)argument;
    struct name_value header;
    while (event_table_next_header(&rest, &header))
        if (slice_equal(header.name, name))
            return true;
    return false;
}

/* First those the record has, in its order, then what was added. */
static bool write_headers(struct encoding *encoding, const struct key *key, const struct name_value *headers,
                          size_t count)
{
    lua_State *lua = encoding->lua;
    if (!lua_istable(lua, -1))
        return write_top(encoding, key->name);
    int table = lua_gettop(lua);
    event_table_collect_headers(headers, count, encoding->scratch);
    struct slice all = buffer_slice(&encoding->scratch->headers), rest = all;
    struct name_value header;
    bool written = true;
    buffer_append_char(encoding->out, '{');
    while (written && event_table_next_header(&rest, &header)) {
        push_field(lua, table, header.name);
        if (!lua_isnil(lua, -1)) {
            write_name(encoding, header.name);
            written = write_top(encoding, header.name);
        }
        lua_pop(lua, 1);
    }
    if (!written || !write_others(encoding, table, is_header, &all)) {
        error_prefix(encoding->error, "%.*s.", SLICE_ARGUMENTS(key->name));
        return false;
    }
    buffer_append_char(encoding->out, '}');
    return true;
}

static bool write_request_headers(struct encoding *encoding, const struct key *key)
{
    if (encoding->event == NULL)
        return write_headers(encoding, key, NULL, 0);
    const struct event_fields *fields = event_get(encoding->event);
    return write_headers(encoding, key, fields->request_headers, fields->request_header_count);
}

static bool write_response_headers(struct encoding *encoding, const struct key *key)
{
    if (encoding->event == NULL)
        return write_headers(encoding, key, NULL, 0);
    const struct event_fields *fields = event_get(encoding->event);
    return write_headers(encoding, key, fields->response_headers, fields->response_header_count);
}

static void write_base64(struct buffer *out, struct slice bytes)
{
    char *room = buffer_reserve(out, (bytes.size + 2) / 3 * 4 + 3);
    *room = '"';
    int size = EVP_EncodeBlock((unsigned char *)room + 1, (const unsigned char *)bytes.data, (int)bytes.size);
    room[1 + size] = '"';
    buffer_commit(out, (size_t)size + 2);
}

static bool write_body(struct encoding *encoding, const struct key *key, bool text)
{
    if (lua_type(encoding->lua, -1) != LUA_TSTRING)
        return write_top(encoding, key->name);
    struct slice bytes;
    bytes.data = lua_tolstring(encoding->lua, -1, &bytes.size);
    if (bytes.size > LARGEST_BODY) {
        error_set(encoding->error, "%.*s: is larger than %d bytes", SLICE_ARGUMENTS(key->name), LARGEST_BODY);
        return false;
    }
    if (text)
        json_write_string(encoding->out, bytes);
    else
        write_base64(encoding->out, bytes);
    return true;
}

static bool write_request_body(struct encoding *encoding, const struct key *key)
{
    return write_body(encoding, key, encoding->request_text);
}

static bool write_response_body(struct encoding *encoding, const struct key *key)
{
    return write_body(encoding, key, encoding->response_text);
}

/* Whether the field can be written as text: no string at all, or UTF-8. */
static bool is_text(struct encoding *encoding, struct slice name)
{
    lua_State *lua = encoding->lua;
    bool text = true;
    push_field(lua, encoding->table, name);
    if (lua_type(lua, -1) == LUA_TSTRING) {
        struct slice bytes;
        bytes.data = lua_tolstring(lua, -1, &bytes.size);
        text = utf8_valid(bytes);
    }
    lua_pop(lua, 1);
    return text;
}

static bool is_there(struct encoding *encoding, struct slice name)
{
    push_field(encoding->lua, encoding->table, name);
    bool there = !lua_isnil(encoding->lua, -1);
    lua_pop(encoding->lua, 1);
    return there;
}

static bool write_encoding(struct encoding *encoding, struct slice body, bool text)
{
    push_field(encoding->lua, encoding->table, body);
    const char *name = lua_type(encoding->lua, -1) != LUA_TSTRING ? "null" : text ? "\"utf8\"" : "\"base64\"";
    lua_pop(encoding->lua, 1);
    buffer_append_string(encoding->out, name);
    return true;
}

static bool write_request_encoding(struct encoding *encoding, const struct key *key)
{
    (void)key;
    return write_encoding(encoding, SLICE("request_body"), encoding->request_text);
}

static bool write_response_encoding(struct encoding *encoding, const struct key *key)
{
    (void)key;
    return write_encoding(encoding, SLICE("response_body"), encoding->response_text);
}

static bool is_documented(const void *argument, struct slice name)
{
    (void)argument;
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (slice_equal(keys[i].name, name))
            return true;
    return false;
}

static bool write_event(struct encoding *encoding)
{
    lua_State *lua = encoding->lua;
    buffer_append_char(encoding->out, '{');
    for (const struct key *key = keys; key < keys + KEY_COUNT; key++) {
        write_name(encoding, key->name);
        push_field(lua, encoding->table, key->name);
        bool written = key->write(encoding, key);
        lua_pop(lua, 1);
        if (!written)
            return false;
    }
    if (!write_others(encoding, encoding->table, is_documented, NULL))
        return false;
    buffer_append_char(encoding->out, '}');
    return true;
}

bool event_table_encode(lua_State *lua, int index, const struct event_record *event,
                        struct event_scratch *scratch, struct buffer *out, struct error *error)
{
    struct encoding encoding = {lua, index, event, scratch, out, error, false, false};
    size_t before = out->size;
    int top = lua_gettop(lua);
    luaL_checkstack(lua, 12, NULL);
    /* Bytes that still have their coding are no text, whatever they look like; a tail is encoded like its body. */
    encoding.request_text =
        !is_there(&encoding, SLICE("request_content_coding")) && is_text(&encoding, SLICE("request_body"));
    encoding.response_text = !is_there(&encoding, SLICE("response_content_coding")) &&
                             is_text(&encoding, SLICE("response_body")) &&
                             is_text(&encoding, SLICE("response_tail"));
    bool written = write_event(&encoding);
    lua_settop(lua, top);
    if (!written)
        out->size = before;
    return written;
}
