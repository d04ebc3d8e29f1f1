/* The functions of plugin_host.h. What Lua may leave by an error is owned by a userdata. */
#include "command/plugin_host.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "config/host.h"
#include "pipeline/event_read.h"
#include "pipeline/event_table.h"
#include "script/host.h"
#include "script/json.h"
#include "script/mod_http.h"
#include "script/trace.h"

#define MAX_DECODED_BYTES (64u << 20)

static const char scratch_key; /* its address is a key of the registry */

static int print(lua_State *lua)
{
    struct slice text = script_check_string(lua, 1, "text");
    fwrite(text.data, 1, text.size, stdout);
    fputc('\n', stdout);
    fflush(stdout);
    return 0;
}

static int place(lua_State *lua)
{
    return trace_push_place(lua) ? 1 : 0;
}

static int message(lua_State *lua)
{
    lua_settop(lua, 1);
    trace_complete_name(lua, lua);
    return 1;
}

static int relieve(lua_State *lua)
{
    script_relieve(script_of(lua));
    return 0;
}

static int trace(lua_State *lua)
{
    trace_push(lua, lua);
    return 1;
}

/* Tasks that are begun anew ------------------------------------------------------------------------------ */

/* Anchored with its functions and value as long as it runs. */
struct spawned {
    struct script *script;
    int anchor; /* of { userdata, work, value, failed } */
};

static void begin(struct spawned *spawned, bool again);

static void on_task_end(void *argument, const char *error)
{
    struct spawned *spawned = argument;
    lua_State *lua = script_lua(spawned->script);
    if (error == NULL) {
        luaL_unref(lua, LUA_REGISTRYINDEX, spawned->anchor);
        return;
    }
    struct error failure;
    lua_rawgeti(lua, LUA_REGISTRYINDEX, spawned->anchor);
    lua_rawgeti(lua, -1, 4);
    lua_remove(lua, -2);
    lua_pushstring(lua, error);
    if (!script_call(spawned->script, 1, 0, 0, &failure)) {
        fprintf(stderr, "%s\n", failure.message);
    }
    begin(spawned, true);
}

static void begin(struct spawned *spawned, bool again)
{
    lua_State *lua = script_lua(spawned->script);
    lua_rawgeti(lua, LUA_REGISTRYINDEX, spawned->anchor);
    lua_rawgeti(lua, -1, 2);
    lua_rawgeti(lua, -2, 3);
    lua_remove(lua, -3);
    lua_pushboolean(lua, again);
    script_spawn(spawned->script, 2, on_task_end, spawned);
}

static int spawn(lua_State *lua)
{
    lua_settop(lua, 3);
    lua_createtable(lua, 4, 0);
    struct spawned *spawned = lua_newuserdata(lua, sizeof *spawned);
    spawned->script = script_of(lua);
    lua_rawseti(lua, 4, 1);
    for (int i = 1; i <= 3; i++) {
        lua_pushvalue(lua, i);
        lua_rawseti(lua, 4, i + 1);
    }
    spawned->anchor = luaL_ref(lua, LUA_REGISTRYINDEX);
    begin(spawned, false);
    return 0;
}

static int call_outside(lua_State *lua)
{
    struct script *script = script_of(lua);
    lua_State *main_coroutine = script_lua(script);
    struct error error;
    lua_settop(lua, 1);
    if (main_coroutine != lua) {
        lua_xmove(lua, main_coroutine, 1);
    }
    bool done = script_call(script, 0, 0, 0, &error);
    lua_pushboolean(lua, done);
    if (done) {
        return 1;
    }
    lua_pushstring(lua, error.message);
    return 2;
}

static int intercept(lua_State *lua)
{
    luaL_checktype(lua, 1, LUA_TFUNCTION);
    lua_settop(lua, 1);
    http_intercept(lua);
    return 0;
}

/* Events ------------------------------------------------------------------------------------------------- */

static int free_record(lua_State *lua)
{
    struct event_record **record = lua_touserdata(lua, 1);
    if (*record != NULL) {
        event_record_release(*record);
        *record = NULL;
    }
    return 0;
}

static int free_scratch(lua_State *lua)
{
    event_scratch_free(lua_touserdata(lua, 1));
    return 0;
}

static void set_gc(lua_State *lua, lua_CFunction function)
{
    lua_createtable(lua, 0, 1);
    lua_pushcfunction(lua, function);
    lua_setfield(lua, -2, "__gc");
    lua_setmetatable(lua, -2);
}

static struct event_scratch *scratch_of(lua_State *lua)
{
    lua_pushlightuserdata(lua, (void *)(uintptr_t)&scratch_key);
    lua_rawget(lua, LUA_REGISTRYINDEX);
    struct event_scratch *scratch = lua_touserdata(lua, -1);
    lua_pop(lua, 1);
    if (scratch == NULL) {
        lua_pushlightuserdata(lua, (void *)(uintptr_t)&scratch_key);
        scratch = lua_newuserdata(lua, sizeof *scratch);
        *scratch = (struct event_scratch){0};
        set_gc(lua, free_scratch);
        lua_rawset(lua, LUA_REGISTRYINDEX);
    }
    return scratch;
}

static int record(lua_State *lua)
{
    struct error error;
    script_check_table(lua, 1, "event");
    struct event_record **made = lua_newuserdata(lua, sizeof *made);
    *made = NULL;
    set_gc(lua, free_record);
    *made = event_read(lua, 1, &error);
    return *made != NULL ? 1 : script_fail(lua, "%s", error.message);
}

static struct event_record *record_of(lua_State *lua, int index)
{
    if (!lua_isuserdata(lua, index)) {
        script_argument_error(lua, index, "record", "a record");
    }
    return *(struct event_record **)lua_touserdata(lua, index);
}

static int free_view(lua_State *lua)
{
    event_view_free(lua_touserdata(lua, 1));
    return 0;
}

static int event(lua_State *lua)
{
    struct event_record *from = record_of(lua, 1);
    struct event_scratch *scratch = scratch_of(lua);
    struct event_view *view = lua_newuserdata(lua, sizeof *view);
    *view = (struct event_view){0};
    set_gc(lua, free_view);
    event_view_make(view, from, MAX_DECODED_BYTES);
    event_table_push(lua, view, scratch);
    return 1;
}

static int encode(lua_State *lua)
{
    struct error error = {.message = "it cannot be written as JSON"};
    struct buffer *out = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    lua_settop(lua, 2);
    bool fine;
    if (lua_isnil(lua, 2)) {
        fine = script_json_encode(lua, 1, out, &error);
    } else {
        fine = event_table_encode(lua, 1, record_of(lua, 2), scratch_of(lua), out, &error);
    }
    if (!fine) {
        return script_fail(lua, "%s", error.message);
    }
    lua_pushlstring(lua, buffer_data(out), out->size);
    return 1;
}

int plugin_host_push(lua_State *lua)
{
    static const luaL_Reg functions[] = {{"print", print},
                                         {"place", place},
                                         {"message", message},
                                         {"relieve", relieve},
                                         {"trace", trace},
                                         {"spawn", spawn},
                                         {"call_outside", call_outside},
                                         {"intercept", intercept},
                                         {"record", record},
                                         {"event", event},
                                         {"encode", encode},
                                         {NULL, NULL}};
    config_push_host(lua, 0);
    script_set_functions(lua, "testing", functions);
    return 1;
}
