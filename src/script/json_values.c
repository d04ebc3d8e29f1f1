/* The values of JSON that Lua has no type for: null, arrays, raw text. See json.h. */
#include <lauxlib.h>

#include "script/json.h"

static const char array_key, raw_key; /* their addresses: the metatables' keys in the registry */

static int raw_tostring(lua_State *lua)
{
    if (lua_touserdata(lua, 1) == NULL) {
        return luaL_error(lua, "expected a raw JSON value");
    }
    lua_pushlstring(lua, lua_touserdata(lua, 1), lua_objlen(lua, 1));
    return 1;
}

/* Lua calls this for two raw values only. */
static int raw_equal(lua_State *lua)
{
    size_t size = lua_objlen(lua, 1);
    bool equal = size == lua_objlen(lua, 2) && lua_touserdata(lua, 1) != NULL &&
                 lua_touserdata(lua, 2) != NULL &&
                 memcmp(lua_touserdata(lua, 1), lua_touserdata(lua, 2), size) == 0;
    lua_pushboolean(lua, equal);
    return 1;
}

/* Pushes the table of that key; true when it was just made. */
static bool push_metatable(lua_State *lua, const char *key)
{
    lua_pushlightuserdata(lua, (void *)key);
    lua_rawget(lua, LUA_REGISTRYINDEX);
    if (!lua_isnil(lua, -1)) {
        return false;
    }
    lua_pop(lua, 1);
    lua_newtable(lua);
    lua_pushlightuserdata(lua, (void *)key);
    lua_pushvalue(lua, -2);
    lua_rawset(lua, LUA_REGISTRYINDEX);
    return true;
}

void script_json_push_array_metatable(lua_State *lua)
{
    push_metatable(lua, &array_key);
}

void script_json_push_raw_metatable(lua_State *lua)
{
    if (push_metatable(lua, &raw_key)) {
        lua_pushcfunction(lua, raw_tostring);
        lua_setfield(lua, -2, "__tostring");
        lua_pushcfunction(lua, raw_equal);
        lua_setfield(lua, -2, "__eq");
        lua_pushliteral(lua, "json.raw"); /* hides the metatable */
        lua_setfield(lua, -2, "__metatable");
    }
}

void script_json_push_null(lua_State *lua)
{
    lua_pushlightuserdata(lua, NULL);
}

bool script_json_is_null(lua_State *lua, int index)
{
    return lua_islightuserdata(lua, index) && lua_touserdata(lua, index) == NULL;
}

void script_json_mark_array(lua_State *lua, int index)
{
    lua_pushvalue(lua, index);
    script_json_push_array_metatable(lua);
    lua_setmetatable(lua, -2);
    lua_pop(lua, 1);
}

void script_json_push_raw(lua_State *lua, struct slice text)
{
    void *copy = lua_newuserdata(lua, text.size);
    if (text.size > 0) {
        memcpy(copy, text.data, text.size);
    }
    script_json_push_raw_metatable(lua);
    lua_setmetatable(lua, -2);
}
