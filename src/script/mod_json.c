/* llmproxy.json; the work is done by json.h, the words for users are in lua/llmproxy/meta/json.lua. */
#include "script/host.h"
#include "script/json.h"
#include "script/modules.h"

/* json.encode(value) -> text, or nil and a message */
static int encode(lua_State *lua)
{
    if (lua_isnone(lua, 1)) {
        script_argument_error(lua, 1, "value", "a value");
    }
    struct error error;
    struct buffer *out = script_scratch(lua, SCRIPT_SCRATCH_TEXT);
    if (!script_json_encode(lua, 1, out, &error)) {
        return script_fail(lua, "%s", error.message);
    }
    lua_pushlstring(lua, buffer_data(out), out->size);
    return 1;
}

/* json.decode(text) -> value, or nil and a message */
static int decode(lua_State *lua)
{
    struct error error;
    if (!script_json_decode(lua, script_check_string(lua, 1, "text"), &error)) {
        return script_fail(lua, "%s", error.message);
    }
    return 1;
}

/* json.array(table) -> the same table, marked; without one a new table */
static int array(lua_State *lua)
{
    lua_settop(lua, 1);
    if (lua_isnil(lua, 1)) {
        lua_newtable(lua);
        lua_replace(lua, 1);
    }
    script_check_table(lua, 1, "table");
    script_json_mark_array(lua, 1);
    return 1;
}

/* json.raw(text) -> a value that is written as it is, or nil and a message */
static int raw(lua_State *lua)
{
    struct error error;
    struct slice text = script_check_string(lua, 1, "text");
    if (!script_json_check(text, &error)) {
        return script_fail(lua, "%s", error.message);
    }
    script_json_push_raw(lua, text);
    return 1;
}

/* All light userdata share one metatable; code in the sandbox meets none but null. */
static int null_tostring(lua_State *lua)
{
    lua_pushstring(lua, script_json_is_null(lua, 1) ? "null" : "userdata");
    return 1;
}

int script_open_json(lua_State *lua)
{
    script_new_module(
        lua, "llmproxy.json",
        (const luaL_Reg[]){
            {"encode", encode}, {"decode", decode}, {"array", array}, {"raw", raw}, {NULL, NULL}});
    script_json_push_null(lua);
    lua_createtable(lua, 0, 2);
    lua_pushcfunction(lua, null_tostring);
    lua_setfield(lua, -2, "__tostring");
    lua_pushliteral(lua, "json.null");
    lua_setfield(lua, -2, "__metatable");
    lua_setmetatable(lua, -2);
    lua_setfield(lua, -2, "null");
    return 1;
}
