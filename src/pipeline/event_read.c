/*
 * Strings are looked at where they are: the table holds them until the record has its copy.
 */
#include "pipeline/event_read.h"

#include <assert.h>
#include <lauxlib.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "base/clock.h"
#include "script/json.h"

struct reading {
    lua_State *lua;
    int table;
    struct error *error;
    bool fine;
};

static void fail(struct reading *reading, const char *key, const char *expected)
{
    if (reading->fine)
        error_set(reading->error, "%s: expected %s", key, expected);
    reading->fine = false;
}

/* The value of key, null and absent alike, is left on the stack. False: nothing is. */
static bool get(struct reading *reading, int table, const char *key)
{
    lua_pushstring(reading->lua, key);
    lua_rawget(reading->lua, table);
    if (!lua_isnil(reading->lua, -1) && !script_json_is_null(reading->lua, -1))
        return true;
    lua_pop(reading->lua, 1);
    return false;
}

static struct slice text_below(struct reading *reading, int table, const char *key)
{
    struct slice text = {NULL, 0};
    if (!get(reading, table, key))
        return text;
    if (lua_type(reading->lua, -1) == LUA_TSTRING)
        text.data = lua_tolstring(reading->lua, -1, &text.size);
    else
        fail(reading, key, "text or null");
    lua_pop(reading->lua, 1);
    return text;
}

static struct slice text(struct reading *reading, const char *key)
{
    return text_below(reading, reading->table, key);
}

static void read_pair(struct reading *reading, const char *key, const char *first_key, struct slice *first,
                      const char *second_key, struct slice *second)
{
    if (!get(reading, reading->table, key))
        return;
    if (lua_istable(reading->lua, -1)) {
        int table = lua_gettop(reading->lua);
        *first = text_below(reading, table, first_key);
        *second = text_below(reading, table, second_key);
    } else {
        fail(reading, key, "an object or null");
    }
    lua_pop(reading->lua, 1);
}

/* absent: what null and a missing key mean. */
static double number(struct reading *reading, const char *key, double most, double absent)
{
    double value = absent;
    if (!get(reading, reading->table, key))
        return value;
    if (lua_type(reading->lua, -1) == LUA_TNUMBER)
        value = lua_tonumber(reading->lua, -1);
    if (lua_type(reading->lua, -1) != LUA_TNUMBER || !(value >= 0 && value <= most)) {
        fail(reading, key, "a number, not negative and not that large");
        value = absent;
    }
    lua_pop(reading->lua, 1);
    return value;
}

static bool boolean(struct reading *reading, const char *key)
{
    bool value = false;
    if (!get(reading, reading->table, key))
        return false;
    if (lua_isboolean(reading->lua, -1))
        value = lua_toboolean(reading->lua, -1);
    else
        fail(reading, key, "true or false");
    lua_pop(reading->lua, 1);
    return value;
}

#define LARGEST_COUNT 9007199254740992.0 /* 2^53 */

static uint64_t count(struct reading *reading, const char *key)
{
    return (uint64_t)number(reading, key, LARGEST_COUNT, 0);
}

static uint64_t microseconds(struct reading *reading, const char *key, uint64_t absent)
{
    double milliseconds = number(reading, key, LARGEST_COUNT / 1000, -1);
    return milliseconds < 0 ? absent : (uint64_t)llround(milliseconds * 1000);
}

static int compare_names(const void *left, const void *right)
{
    const struct name_value *a = left, *b = right;
    size_t common = a->name.size < b->name.size ? a->name.size : b->name.size;
    int order = memcmp(a->name.data, b->name.data, common);
    return order != 0 ? order : (a->name.size > b->name.size) - (a->name.size < b->name.size);
}

/* The caller's to free; NULL when there are none. */
static struct name_value *headers(struct reading *reading, const char *key, size_t *header_count)
{
    lua_State *lua = reading->lua;
    *header_count = 0;
    if (!get(reading, reading->table, key))
        return NULL;
    struct name_value *list = NULL;
    size_t capacity = 0;
    bool is_table = lua_istable(lua, -1);
    if (!is_table)
        fail(reading, key, "an object");
    lua_pushnil(lua);
    while (is_table && lua_next(lua, -2) != 0) {
        if (lua_type(lua, -2) != LUA_TSTRING || lua_type(lua, -1) != LUA_TSTRING) {
            fail(reading, key, "names with text as values");
            break;
        }
        if (*header_count == capacity) {
            capacity = capacity > 0 ? capacity * 2 : 16;
            list = xrealloc(list, capacity * sizeof *list);
        }
        struct name_value *header = &list[(*header_count)++];
        header->name.data = lua_tolstring(lua, -2, &header->name.size);
        header->value.data = lua_tolstring(lua, -1, &header->value.size);
        lua_pop(lua, 1);
    }
    lua_settop(lua, reading->table);
    if (*header_count > 1)
        qsort(list, *header_count, sizeof *list, compare_names);
    return list;
}

/* Appends what the base64 stands for; false when it is none. */
static bool decode_base64(struct slice encoded, struct body *body)
{
    if (encoded.size % 4 != 0 || encoded.size > (size_t)INT32_MAX)
        return false;
    if (encoded.size == 0)
        return true;
    struct buffer bytes = {0};
    int size = EVP_DecodeBlock((unsigned char *)buffer_reserve(&bytes, encoded.size / 4 * 3),
                               (const unsigned char *)encoded.data, (int)encoded.size);
    bool fine = size >= 0;
    if (fine) {
        size -= encoded.data[encoded.size - 1] == '=';
        size -= encoded.data[encoded.size - 2] == '=';
        fine = body_append(body, (struct slice){buffer_data(&bytes), (size_t)size});
    }
    buffer_free(&bytes);
    return fine;
}

/* Returns whether it was kept. */
static bool read_body(struct reading *reading, const char *key, struct slice encoding, struct body *body)
{
    struct slice bytes = text(reading, key);
    if (bytes.data == NULL)
        return false;
    if (encoding.data == NULL || slice_equal(encoding, SLICE("utf8"))) {
        bool fine = bytes.size == 0 || body_append(body, bytes);
        assert(fine); /* there is no budget */
        (void)fine;
    } else if (!slice_equal(encoding, SLICE("base64")) || !decode_base64(bytes, body)) {
        fail(reading, key, "text, or base64 where its encoding says so");
    }
    return true;
}

static enum event_withheld read_withheld(struct reading *reading)
{
    struct slice value = text(reading, "bodies_withheld");
    if (value.data == NULL)
        return EVENT_KEPT;
    if (slice_equal(value, SLICE("memory")))
        return EVENT_WITHHELD_MEMORY;
    if (!slice_equal(value, SLICE("off")))
        fail(reading, "bodies_withheld", "\"off\", \"memory\" or null");
    return EVENT_WITHHELD_OFF;
}

static void read_fields(struct reading *reading, struct event_fields *fields)
{
    *fields = (struct event_fields){
        .id = text(reading, "id"),
        .request_id = text(reading, "request_id"),
        .method = text(reading, "method"),
        .path = text(reading, "path"),
        .query = text(reading, "query"),
        .status = (int)number(reading, "status", 999, 0),
        .duration_us = microseconds(reading, "duration_ms", 0),
        .ttfb_us = microseconds(reading, "ttfb_ms", EVENT_NO_TIME),
        .client = text(reading, "client"),
        .client_name = text(reading, "client_name"),
        .route = text(reading, "route"),
        .upstream = text(reading, "upstream"),
        .request_bytes = count(reading, "request_bytes"),
        .response_bytes = count(reading, "response_bytes"),
        .request_truncated = boolean(reading, "request_truncated"),
        .response_truncated = boolean(reading, "response_truncated"),
        .withheld = read_withheld(reading),
        .streamed = boolean(reading, "streamed"),
        .chunks = count(reading, "chunks"),
        .trace_id = text(reading, "trace_id"),
        .span_id = text(reading, "span_id"),
    };
    read_pair(reading, "credential", "kind", &fields->credential_kind, "fingerprint",
              &fields->credential_fingerprint);
    read_pair(reading, "error", "kind", &fields->error_kind, "message", &fields->error_message);
    read_pair(reading, "proxy", "version", &fields->version, "instance", &fields->instance);
    if (fields->id.size == 0)
        fail(reading, "id", "the id of an event");
    struct slice time = text(reading, "time");
    if (time.data == NULL || !clock_parse_rfc3339(time, &fields->time_us))
        fail(reading, "time", "a moment, as \"2026-01-31T10:00:00Z\"");
}

struct event_record *event_read(lua_State *lua, int index, struct error *error)
{
    if (!lua_istable(lua, index)) {
        error_set(error, "expected an event, an object");
        return NULL;
    }
    luaL_checkstack(lua, 8, NULL);
    lua_pushvalue(lua, index);
    struct reading reading = {.lua = lua, .table = lua_gettop(lua), .error = error, .fine = true};
    struct event_fields fields;
    struct body request, response, tail;
    body_init(&request, NULL);
    body_init(&response, NULL);
    body_init(&tail, NULL);

    read_fields(&reading, &fields);
    struct name_value *request_headers = headers(&reading, "request_headers", &fields.request_header_count);
    struct name_value *response_headers =
        headers(&reading, "response_headers", &fields.response_header_count);
    fields.request_headers = request_headers;
    fields.response_headers = response_headers;
    struct slice request_encoding = text(&reading, "request_body_encoding");
    struct slice response_encoding = text(&reading, "response_body_encoding");
    fields.request_kept = read_body(&reading, "request_body", request_encoding, &request);
    fields.response_kept = read_body(&reading, "response_body", response_encoding, &response);
    read_body(&reading, "response_tail", response_encoding, &tail);
    fields.request_decoded = text(&reading, "request_content_coding").data == NULL;
    fields.response_decoded = text(&reading, "response_content_coding").data == NULL;

    struct event_record *record = NULL;
    if (reading.fine)
        record = event_record_new(&fields, &request, &response, &tail);
    body_free(&request);
    body_free(&response);
    body_free(&tail);
    free(request_headers);
    free(response_headers);
    lua_settop(lua, reading.table - 1);
    return record;
}
