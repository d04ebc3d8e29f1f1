/*
 * Lua to JSON. Metamethods are not asked: no Lua code runs, so a table cannot change under our hands.
 *
 * The keys of an object are gathered and sorted in a scratch buffer that all levels share like a stack; the strings themselves are held by the table. The way to the present value is noted while descending, for the
 * error message alone.
 */
#include <lauxlib.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/json_write.h"
#include "script/host.h"
#include "script/json.h"

struct step {
    struct slice key; /* data NULL: an index */
    size_t index;
};

#define VALUES_BEFORE_LOOK 4096u

struct encoder {
    lua_State *lua;
    size_t most; /* bytes in out */
    unsigned values;
    int array_metatable, raw_metatable; /* stack indices */
    struct buffer *out, *keys;
    int depth;
    struct step path[SCRIPT_JSON_MAX_WRITTEN_DEPTH];
    struct error *error;
};

static bool encode_value(struct encoder *encoder);

static bool fail_at(struct encoder *encoder, int depth, const char *what)
{
    struct buffer path = {0};
    for (int i = 0; i < depth; i++) {
        const struct step *step = &encoder->path[i];
        if (step->key.data == NULL) {
            buffer_printf(&path, "[%zu]", step->index);
        } else {
            int size = step->key.size > 40 ? 40 : (int)step->key.size;
            buffer_printf(&path, "%s%.*s", path.size > 0 ? "." : "", size, step->key.data);
        }
        if (path.size > 200) {
            buffer_append_string(&path, "…");
            break;
        }
    }
    bool at_top = path.size == 0;
    char *text = buffer_take_string(&path);
    error_set(encoder->error, "%s%scannot be written as JSON: %s", text, at_top ? "" : ": ", what);
    free(text);
    return false;
}

static bool fail(struct encoder *encoder, const char *what)
{
    return fail_at(encoder, encoder->depth, what);
}

/* All levels are on the stack, one above the other. Where the table that is too deep is one of those that it is in, the way round the circle was gone many times: only the first is told. */
static bool fail_too_deep(struct encoder *encoder)
{
    lua_State *lua = encoder->lua;
    int depth = encoder->depth, bottom = lua_gettop(lua) - depth;
    for (int round = 1; round <= depth; round++) {
        if (lua_rawequal(lua, -1, -1 - round)) {
            int first = 0;
            while (!lua_rawequal(lua, bottom + first, bottom + first + round)) {
                first++;
            }
            return fail_at(encoder, first + round, "a table that contains itself");
        }
    }
    return fail(encoder, "nested deeper than 160 levels");
}

static bool encode_number(struct encoder *encoder, double number)
{
    if (isnan(number) || isinf(number)) {
        return fail(encoder, isnan(number) ? "NaN" : "an infinite number");
    }
    if (number == 0 && signbit(number)) {
        buffer_append(encoder->out, "-0", 2);
    } else if (fabs(number) <= 9007199254740992.0 && number == trunc(number)) {
        json_write_integer(encoder->out, (int64_t)number);
    } else {
        struct buffer *out = encoder->out;
        size_t before = out->size;
        json_write_number(out, number);
        /* An integer of that size would be read again as a raw value. */
        if (fabs(number) > 9007199254740992.0 &&
            memchr(buffer_data(out) + before, 'e', out->size - before) == NULL) {
            buffer_append(out, ".0", 2);
        }
    }
    return true;
}

static bool has_metatable(struct encoder *encoder, int metatable)
{
    if (!lua_getmetatable(encoder->lua, -1)) {
        return false;
    }
    bool equal = lua_rawequal(encoder->lua, -1, metatable);
    lua_pop(encoder->lua, 1);
    return equal;
}

/* The table's keys are exactly 1 to size. */
static bool is_sequence(struct encoder *encoder, size_t size)
{
    lua_State *lua = encoder->lua;
    size_t count = 0;
    lua_pushnil(lua);
    while (lua_next(lua, -2)) {
        lua_pop(lua, 1);
        double key = lua_type(lua, -1) == LUA_TNUMBER ? lua_tonumber(lua, -1) : 0;
        if (key < 1 || key > (double)size || key != floor(key)) {
            lua_pop(lua, 1);
            return false;
        }
        count++;
    }
    return count == size;
}

static bool encode_array(struct encoder *encoder, size_t size)
{
    if (!is_sequence(encoder, size)) {
        return fail(encoder, "a list with holes or with other keys than 1 to n");
    }
    buffer_append_char(encoder->out, '[');
    struct step *step = &encoder->path[encoder->depth++];
    step->key.data = NULL;
    for (size_t i = 1; i <= size; i++) {
        if (i > 1) {
            buffer_append_char(encoder->out, ',');
        }
        step->index = i;
        lua_rawgeti(encoder->lua, -1, (int)i);
        if (!encode_value(encoder)) {
            return false;
        }
        lua_pop(encoder->lua, 1);
    }
    encoder->depth--;
    buffer_append_char(encoder->out, ']');
    return true;
}

static int compare_keys(const void *a, const void *b)
{
    const struct slice *left = a, *right = b;
    size_t size = left->size < right->size ? left->size : right->size;
    int order = memcmp(left->data, right->data, size);
    return order != 0 ? order : (left->size > right->size) - (left->size < right->size);
}

static void sort_keys(struct slice *keys, size_t count)
{
    if (count > 16) {
        qsort(keys, count, sizeof *keys, compare_keys);
        return;
    }
    for (size_t i = 1; i < count; i++) {
        struct slice key = keys[i];
        size_t at = i;
        for (; at > 0 && compare_keys(&keys[at - 1], &key) > 0; at--) {
            keys[at] = keys[at - 1];
        }
        keys[at] = key;
    }
}

static struct slice *key_at(struct encoder *encoder, size_t index)
{
    return (struct slice *)(void *)buffer_data(encoder->keys) + index;
}

/* Puts the table's keys on the scratch stack; false when one is not a string. */
static bool gather_keys(struct encoder *encoder)
{
    lua_State *lua = encoder->lua;
    lua_pushnil(lua);
    while (lua_next(lua, -2)) {
        lua_pop(lua, 1);
        if (lua_type(lua, -1) != LUA_TSTRING) {
            return fail(encoder, lua_type(lua, -1) == LUA_TNUMBER
                                     ? "a table with numbers as keys that are not 1 to n"
                                     : "a table with a key that is not a string");
        }
        struct slice key;
        key.data = lua_tolstring(lua, -1, &key.size);
        buffer_append(encoder->keys, &key, sizeof key);
    }
    return true;
}

static bool encode_object(struct encoder *encoder)
{
    lua_State *lua = encoder->lua;
    size_t first = encoder->keys->size / sizeof(struct slice);
    if (!gather_keys(encoder)) {
        return false;
    }
    size_t last = encoder->keys->size / sizeof(struct slice);
    if (last > first) {
        sort_keys(key_at(encoder, first), last - first);
    }
    struct step *step = &encoder->path[encoder->depth++];
    buffer_append_char(encoder->out, '{');
    for (size_t i = first; i < last; i++) {
        if (i > first) {
            buffer_append_char(encoder->out, ',');
        }
        step->key = *key_at(encoder, i);
        json_write_string(encoder->out, step->key);
        buffer_append_char(encoder->out, ':');
        lua_pushlstring(lua, step->key.data, step->key.size);
        lua_rawget(lua, -2);
        if (!encode_value(encoder)) {
            return false;
        }
        lua_pop(lua, 1);
    }
    buffer_append_char(encoder->out, '}');
    encoder->depth--;
    encoder->keys->size = first * sizeof(struct slice);
    return true;
}

static bool encode_table(struct encoder *encoder)
{
    if (encoder->depth == SCRIPT_JSON_MAX_WRITTEN_DEPTH) {
        return fail_too_deep(encoder);
    }
    luaL_checkstack(encoder->lua, 6, NULL);
    size_t size = lua_objlen(encoder->lua, -1);
    if (size > 0 || has_metatable(encoder, encoder->array_metatable)) {
        return encode_array(encoder, size);
    }
    return encode_object(encoder);
}

static bool encode_userdata(struct encoder *encoder)
{
    if (!has_metatable(encoder, encoder->raw_metatable)) {
        return fail(encoder, "a userdata");
    }
    buffer_append(encoder->out, lua_touserdata(encoder->lua, -1), lua_objlen(encoder->lua, -1));
    return true;
}

/* A few tables that contain each other again and again make a text without end: time and size are bounded. */
static bool may_go_on(struct encoder *encoder)
{
    if (++encoder->values % VALUES_BEFORE_LOOK == 0) {
        script_check_time(encoder->lua);
    }
    return encoder->out->size <= encoder->most || fail(encoder, "the text is larger than the memory limit");
}

/* The value on top of the stack, which stays. After a failure the stack is the caller's to clean. */
static bool encode_value(struct encoder *encoder)
{
    lua_State *lua = encoder->lua;
    struct slice text;
    if (!may_go_on(encoder)) {
        return false;
    }
    switch (lua_type(lua, -1)) {
    case LUA_TSTRING:
        text.data = lua_tolstring(lua, -1, &text.size);
        json_write_string(encoder->out, text);
        return true;
    case LUA_TNUMBER:
        return encode_number(encoder, lua_tonumber(lua, -1));
    case LUA_TBOOLEAN:
        buffer_append_string(encoder->out, lua_toboolean(lua, -1) ? "true" : "false");
        return true;
    case LUA_TNIL:
        buffer_append(encoder->out, "null", 4);
        return true;
    case LUA_TTABLE:
        return encode_table(encoder);
    case LUA_TUSERDATA:
        return encode_userdata(encoder);
    case LUA_TLIGHTUSERDATA:
        if (script_json_is_null(lua, -1)) {
            buffer_append(encoder->out, "null", 4);
            return true;
        }
        return fail(encoder, "a userdata");
    default:
        return fail(encoder, lua_type(lua, -1) == LUA_TFUNCTION ? "a function" : "a value that is no data");
    }
}

bool script_json_encode(lua_State *lua, int index, struct buffer *out, struct error *error)
{
    luaL_checkstack(lua, 10, NULL);
    int top = lua_gettop(lua);
    struct encoder encoder; /* most of it is written on the way */
    size_t limit = script_memory_limit(script_of(lua));
    encoder.lua = lua;
    encoder.most = limit == 0 || limit > SIZE_MAX - out->size ? SIZE_MAX : out->size + limit;
    encoder.values = 0;
    encoder.array_metatable = top + 1;
    encoder.raw_metatable = top + 2;
    encoder.out = out;
    encoder.keys = script_scratch(lua, SCRIPT_SCRATCH_KEYS);
    encoder.depth = 0;
    encoder.error = error;
    script_json_push_array_metatable(lua);
    script_json_push_raw_metatable(lua);
    lua_pushvalue(lua, index < 0 && index > LUA_REGISTRYINDEX ? top + 1 + index : index);

    size_t before = out->size;
    bool encoded = encode_value(&encoder);
    lua_settop(lua, top);
    if (!encoded) {
        out->size = before;
    }
    return encoded;
}
