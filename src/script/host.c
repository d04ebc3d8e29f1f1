/* Names and argument checks of host functions; see host.h. The names are in a registry table, by function. */
#include "script/host.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const char names_key; /* its address: the registry's table of names */

static void push_names(lua_State *lua)
{
    lua_pushlightuserdata(lua, (void *)&names_key);
    lua_rawget(lua, LUA_REGISTRYINDEX);
    if (lua_isnil(lua, -1)) {
        lua_pop(lua, 1);
        lua_newtable(lua);
        lua_pushlightuserdata(lua, (void *)&names_key);
        lua_pushvalue(lua, -2);
        lua_rawset(lua, LUA_REGISTRYINDEX);
    }
}

void script_name_function(lua_State *lua, const char *prefix, const char *name)
{
    luaL_checkstack(lua, 5, NULL);
    const char *separator = prefix[0] != '\0' && prefix[strlen(prefix) - 1] == ':' ? "" : ".";
    push_names(lua);
    lua_pushvalue(lua, -2);
    lua_pushfstring(lua, "%s%s%s", prefix, separator, name);
    lua_rawset(lua, -3);
    lua_pop(lua, 1);
}

void script_set_functions(lua_State *lua, const char *prefix, const luaL_Reg *functions)
{
    for (; functions->name != NULL; functions++) {
        lua_pushcfunction(lua, functions->func);
        script_name_function(lua, prefix, functions->name);
        lua_setfield(lua, -2, functions->name);
    }
}

void script_new_module(lua_State *lua, const char *name, const luaL_Reg *functions)
{
    lua_newtable(lua);
    script_set_functions(lua, name, functions);
}

const char *script_function_name(lua_State *lua)
{
    lua_Debug activation;
    if (lua_getstack(lua, 0, &activation) == 0) {
        return "?";
    }
    luaL_checkstack(lua, 4, NULL);
    push_names(lua);
    lua_getinfo(lua, "f", &activation);
    lua_rawget(lua, -2);
    const char *name = lua_tostring(lua, -1); /* stays: the table of names holds it */
    lua_pop(lua, 2);
    return name != NULL ? name : "?";
}

void script_raise(lua_State *lua, const char *format, ...)
{
    struct error error;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error.message, sizeof error.message, format, arguments);
    va_end(arguments);
    luaL_error(lua, "%s: %s", script_function_name(lua), error.message);
    abort();
}

void script_argument_error(lua_State *lua, int index, const char *argument, const char *expected)
{
    script_raise(lua, "%s: expected %s, got %s", argument, expected,
                 lua_isnone(lua, index) ? "nothing" : luaL_typename(lua, index));
}

double script_check_number(lua_State *lua, int index, const char *argument)
{
    if (lua_type(lua, index) != LUA_TNUMBER) {
        script_argument_error(lua, index, argument, "a number");
    }
    return lua_tonumber(lua, index);
}

struct slice script_check_string(lua_State *lua, int index, const char *argument)
{
    if (!lua_isstring(lua, index)) {
        script_argument_error(lua, index, argument, "a string");
    }
    struct slice text;
    text.data = lua_tolstring(lua, index, &text.size);
    return text;
}

const char *script_check_text(lua_State *lua, int index, const char *argument)
{
    struct slice text = script_check_string(lua, index, argument);
    if (memchr(text.data, '\0', text.size) != NULL) {
        script_raise(lua, "%s: must not contain NUL", argument);
    }
    return text.data;
}

void script_check_table(lua_State *lua, int index, const char *argument)
{
    if (!lua_istable(lua, index)) {
        script_argument_error(lua, index, argument, "a table");
    }
}

int script_fail(lua_State *lua, const char *format, ...)
{
    struct error error;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error.message, sizeof error.message, format, arguments);
    va_end(arguments);
    lua_pushnil(lua);
    lua_pushstring(lua, error.message);
    return 2;
}
