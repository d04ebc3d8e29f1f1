/*
 * llmproxy.log: lines in the program's log, with the pipeline's name; the words for users are in lua/llmproxy/meta/log.lua.
 *
 * At most 100 lines a second and state, lest a line for each event drown everything else; what was held back is counted in a line of its own.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "script/host.h"
#include "script/json.h"
#include "script/modules.h"

#define MAX_FIELDS           32
#define MAX_LINES_PER_SECOND 100
#define MAX_VALUE_BYTES      4096

struct line_limit { /* a userdata, upvalue of each function */
    uint64_t second;
    uint64_t lines, held_back;
};

static bool may_write(lua_State *lua)
{
    struct line_limit *limit = lua_touserdata(lua, lua_upvalueindex(2));
    uint64_t second = clock_monotonic_ns() / NANOSECONDS_PER_SECOND;
    if (second != limit->second) {
        if (limit->held_back > 0) {
            log_warn("lines of a pipeline's log were held back",
                     log_string("pipeline", script_name(script_of(lua))),
                     log_integer("lines", (int64_t)limit->held_back));
        }
        *limit = (struct line_limit){.second = second};
    }
    if (limit->lines == MAX_LINES_PER_SECOND) {
        limit->held_back++;
        return false;
    }
    limit->lines++;
    return true;
}

/* Moves the string on top of the stack into the table at kept, which holds it until the line is written. */
static struct slice keep(lua_State *lua, int kept)
{
    struct slice text;
    text.data = lua_tolstring(lua, -1, &text.size);
    lua_rawseti(lua, kept, (int)lua_objlen(lua, kept) + 1);
    return text;
}

static struct log_field text_field(lua_State *lua, const char *name, struct slice text, int kept)
{
    if (text.size <= MAX_VALUE_BYTES || kept == 0) {
        return log_slice(name, text);
    }
    text.size = MAX_VALUE_BYTES;
    lua_pushlstring(lua, text.data, text.size - utf8_incomplete_tail(text));
    lua_pushliteral(lua, "…");
    lua_concat(lua, 2);
    return log_slice(name, keep(lua, kept));
}

/* What JSON cannot say, or says at length, is a string: no line is lost for its fields. */
static struct log_field table_field(lua_State *lua, const char *name, int index, int kept)
{
    struct error error;
    struct buffer *out = script_scratch(lua, SCRIPT_SCRATCH_TEXT);
    bool encoded = script_json_encode(lua, index, out, &error);
    struct slice text = encoded ? buffer_slice(out) : slice_of(error.message);
    lua_pushlstring(lua, text.data, text.size);
    text = keep(lua, kept);
    return encoded && text.size <= MAX_VALUE_BYTES ? log_json(name, text) : text_field(lua, name, text, kept);
}

/* kept 0: the line is not written. */
static struct log_field field_of(lua_State *lua, const char *name, int index, int kept)
{
    struct slice text;
    double number;
    switch (lua_type(lua, index)) {
    case LUA_TSTRING:
        text.data = lua_tolstring(lua, index, &text.size);
        return text_field(lua, name, text, kept);
    case LUA_TNUMBER:
        number = lua_tonumber(lua, index);
        return number >= -9e15 && number <= 9e15 && number == (double)(int64_t)number
                   ? log_integer(name, (int64_t)number)
                   : log_number(name, number);
    case LUA_TBOOLEAN:
        return log_json(name, slice_of(lua_toboolean(lua, index) ? "true" : "false"));
    case LUA_TTABLE:
        return kept != 0 ? table_field(lua, name, index, kept) : log_string(name, "");
    default:
        if (!script_json_is_null(lua, index)) {
            script_raise(lua, "fields.%s: expected a string, a number, a boolean or a table, got %s", name,
                         luaL_typename(lua, index));
        }
        return log_json(name, slice_of("null"));
    }
}

static int compare_fields(const void *a, const void *b)
{
    return strcmp(((const struct log_field *)a)->name, ((const struct log_field *)b)->name);
}

/* The table's values stay in the table, so their bytes may be borrowed. In the order of their names. */
static size_t read_fields(lua_State *lua, int index, struct log_field *fields, int kept)
{
    size_t count = 0;
    if (lua_isnoneornil(lua, index)) {
        return 0;
    }
    script_check_table(lua, index, "fields");
    lua_pushnil(lua);
    while (lua_next(lua, index)) {
        if (lua_type(lua, -2) != LUA_TSTRING) {
            script_raise(lua, "fields: a name is a %s", luaL_typename(lua, -2));
        }
        if (count == MAX_FIELDS) {
            script_raise(lua, "fields: more than %d", MAX_FIELDS);
        }
        fields[count++] = field_of(lua, lua_tostring(lua, -2), lua_gettop(lua), kept);
        lua_pop(lua, 1);
    }
    qsort(fields, count, sizeof *fields, compare_fields);
    return count;
}

/* log.LEVEL(message, fields) */
static int write_line(lua_State *lua)
{
    enum log_level level = (enum log_level)lua_tointeger(lua, lua_upvalueindex(1));
    struct log_field fields[MAX_FIELDS + 2];
    struct slice message = script_check_string(lua, 1, "message");
    bool writes = log_enabled(level) && may_write(lua);
    lua_settop(lua, 2);
    lua_newtable(lua);
    fields[0] = log_string("pipeline", script_name(script_of(lua)));
    size_t count = read_fields(lua, 2, fields + 1, writes ? lua_gettop(lua) : 0);
    fields[count + 1].name = NULL;
    if (writes) {
        log_write(level, message, fields);
    }
    return 0;
}

int script_open_log(lua_State *lua)
{
    static const char *const levels[] = {
        [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error"};
    lua_newtable(lua);
    *(struct line_limit *)lua_newuserdata(lua, sizeof(struct line_limit)) = (struct line_limit){0};
    for (int level = LOG_DEBUG; level <= LOG_ERROR; level++) {
        lua_pushinteger(lua, level);
        lua_pushvalue(lua, -2);
        lua_pushcclosure(lua, write_line, 2);
        script_name_function(lua, "llmproxy.log", levels[level]);
        lua_setfield(lua, -3, levels[level]);
    }
    lua_pop(lua, 1);
    return 1;
}
