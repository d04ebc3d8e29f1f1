/*
 * sandbox: what code finds in its globals. The pure parts of the standard library, minus what would reach the system, the interpreter or bytecode; and a `require` that knows only our places.
 *
 * It stops mistakes, not malice. What is left out is in script.h; here is the list of what is taken away after the libraries were opened.
 */
#include <lualib.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/id.h"
#include "base/memory.h"
#include "script/pattern.h"
#include "script/state.h"

#define MAX_SOURCE_BYTES (16 << 20)

static const char loaded_key,
    loading_mark; /* their addresses: the registry's table of loaded modules; the value of one that is being loaded */

static int print(lua_State *lua)
{
    int count = lua_gettop(lua);
    luaL_Buffer text; /* 8 KB of the thread's stack */
    if (script_is_deep(script_of(lua))) {
        return luaL_error(lua, "stack overflow");
    }
    luaL_buffinit(lua, &text);
    for (int i = 1; i <= count; i++) {
        if (i > 1) {
            luaL_addchar(&text, '\t');
        }
        lua_pushvalue(lua, lua_upvalueindex(1)); /* tostring */
        lua_pushvalue(lua, i);
        lua_call(lua, 1, 1);
        if (!lua_isstring(lua, -1)) {
            return luaL_error(lua, "print: tostring must return a string");
        }
        luaL_addvalue(&text);
    }
    luaL_pushresult(&text);
    lua_pushvalue(lua, lua_upvalueindex(2)); /* log.info, which bounds how many lines there are */
    lua_insert(lua, -2);
    lua_call(lua, 1, 0);
    return 0;
}

/* All strings share it. */
static void hide_string_metatable(lua_State *lua)
{
    lua_pushliteral(lua, "");
    if (lua_getmetatable(lua, -1) != 0) {
        lua_pushboolean(lua, 0);
        lua_setfield(lua, -2, "__metatable");
        lua_pop(lua, 1);
    }
    lua_pop(lua, 1);
}

/* A handler that looks first whether the run was stopped. It runs before the error goes on, where no hook comes: one that never ends would not be stopped, and is not even begun. */
static int handle_in_time(lua_State *lua)
{
    lua_settop(lua, 1);
    if (!watch_is_overdue(&script_of(lua)->watch)) {
        lua_pushvalue(lua, lua_upvalueindex(1));
        lua_insert(lua, 1);
        lua_call(lua, 1, 1);
    }
    return 1;
}

static int guard_handler(lua_State *lua)
{
    lua_settop(lua, 1);
    if (lua_isfunction(lua, 1)) { /* xpcall complains of anything else */
        lua_pushcclosure(lua, handle_in_time, 1);
    }
    return 1;
}

/* In Lua, for the function may wait: it cannot where C is between. */
static void open_xpcall(lua_State *lua)
{
    static const char code[] = "local xpcall, guard = ... "
                               "return function(f, handler, ...) return xpcall(f, guard(handler), ...) end";
    if (luaL_loadbuffer(lua, code, sizeof code - 1, "=xpcall") != 0) {
        lua_error(lua);
    }
    lua_getglobal(lua, "xpcall");
    lua_pushcfunction(lua, guard_handler);
    lua_call(lua, 2, 1);
    lua_setglobal(lua, "xpcall");
}

/* load(chunk, name, mode, environment): of text only, whatever mode says. */
static int load_text(lua_State *lua)
{
    int count = lua_gettop(lua);
    if (count < 3) {
        lua_settop(lua, 3);
        count = 3;
    }
    lua_pushliteral(lua, "t");
    lua_replace(lua, 3);
    lua_pushvalue(lua, lua_upvalueindex(1));
    lua_insert(lua, 1);
    lua_call(lua, count, LUA_MULTRET);
    return lua_gettop(lua);
}

static bool is_task(lua_State *lua)
{
    bool is_main = lua_pushthread(lua) == 1;
    lua_pop(lua, 1);
    return is_main || script_is_task(lua);
}

/* A task's coroutine belongs to the loop: to its code it looks like the main one. */
static int running(lua_State *lua)
{
    if (is_task(lua)) {
        lua_pushnil(lua);
    } else {
        lua_pushthread(lua);
    }
    return 1;
}

static int yield(lua_State *lua)
{
    if (is_task(lua)) {
        return luaL_error(lua, "coroutine.yield: not inside a coroutine of your own");
    }
    return lua_yield(lua, lua_gettop(lua));
}

static bool valid_module_name(struct slice name)
{
    for (size_t i = 0; i < name.size; i++) {
        char c = name.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
              c == '-' || c == '.')) {
            return false;
        }
    }
    return name.size > 0 && name.size < 200;
}

static lua_CFunction find_host_module(const struct script *script, const char *name)
{
    for (size_t i = 0; i < script->module_count; i++) {
        if (strcmp(script->modules[i].name, name) == 0) {
            return script->modules[i].open;
        }
    }
    for (const struct script_module *module = script_modules; module->name != NULL; module++) {
        if (strcmp(module->name, name) == 0) {
            return module->open;
        }
    }
    return NULL;
}

/* Tries FOLDER/MIDDLE/a/b.lua, then …/a/b/init.lua, for the module a.b. Leaves the chunk on the stack, or appends what was tried to the string there. */
static bool load_from(lua_State *lua, const char *folder, const char *middle, const char *name)
{
    struct script *script = script_of(lua);
    static const char *const endings[] = {".lua", "/init.lua"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        struct buffer *path = &script->scratch[SCRIPT_SCRATCH_MODULE];
        buffer_clear(path);
        buffer_printf(path, "@%s/%s", folder, middle);
        for (const char *c = name; *c != '\0'; c++) {
            buffer_append_char(path, *c == '.' ? '/' : *c);
        }
        buffer_append_string(path, endings[i]);
        buffer_append_char(path, '\0');
        lua_pushstring(lua, buffer_data(path)); /* outlives what the error says */
        const char *chunk_name = lua_tostring(lua, -1);
        if (access(chunk_name + 1, F_OK) != 0) {
            lua_pushfstring(lua, ", no file '%s'", chunk_name + 1);
            lua_remove(lua, -2);
            lua_concat(lua, 2);
            continue;
        }
        struct error error;
        buffer_clear(path);
        if (!file_read(chunk_name + 1, MAX_SOURCE_BYTES, path, &error)) {
            luaL_error(lua, "module '%s': %s", name, error.message);
        }
        if (luaL_loadbufferx(lua, path->size > 0 ? buffer_data(path) : "", path->size, chunk_name, "t") !=
            0) {
            lua_error(lua);
        }
        buffer_free(path);
        return true;
    }
    return false;
}

#define OURS  "llmproxy."
#define WORDS "llmproxy.settings.words" /* knows which names are alike */

/* Adds what follows "llmproxy." in the name to the list on top of the stack. */
static void add_name(lua_State *lua, const char *name)
{
    if (strncmp(name, OURS, strlen(OURS)) == 0) {
        lua_pushstring(lua, name + strlen(OURS));
        lua_rawseti(lua, -2, (int)lua_objlen(lua, -2) + 1);
    }
}

/* Appends ", did you mean 'llmproxy.X'?" to the string on top of the stack when a module has a name like that. */
static void append_hint(lua_State *lua, const struct script *script, const char *name)
{
    static const char *const in_lua[] = {"llmproxy.llm", "llmproxy.settings", "llmproxy.sse",
                                         "llmproxy.verdict"};
    lua_getglobal(lua, "require");
    lua_pushliteral(lua, WORDS);
    if (lua_pcall(lua, 1, 1, 0) != 0) { /* a library without it */
        lua_pop(lua, 1);
        return;
    }
    lua_getfield(lua, -1, "nearest");
    lua_remove(lua, -2);
    lua_pushstring(lua, name + strlen(OURS));
    lua_newtable(lua);
    for (size_t i = 0; i < script->module_count; i++) {
        add_name(lua, script->modules[i].name);
    }
    for (const struct script_module *module = script_modules; module->name != NULL; module++) {
        add_name(lua, module->name);
    }
    for (size_t i = 0; i < sizeof in_lua / sizeof *in_lua; i++) {
        add_name(lua, in_lua[i]);
    }
    lua_call(lua, 2, 1);
    if (lua_isnil(lua, -1)) {
        lua_pop(lua, 1);
        return;
    }
    lua_pushfstring(lua, ", did you mean '" OURS "%s'?", lua_tostring(lua, -1));
    lua_remove(lua, -2);
    lua_concat(lua, 2);
}

/* Leaves the function that makes the module on the stack, or raises an error that names every place it is not in. */
static void find_module(lua_State *lua, const char *name)
{
    struct script *script = script_of(lua);
    lua_CFunction open = find_host_module(script, name);
    if (open != NULL) {
        lua_pushcfunction(lua, open);
        return;
    }
    lua_pushfstring(lua, "module '%s' not found: no host module of that name", name);
    if (strncmp(name, OURS, strlen(OURS)) == 0) {
        if (load_from(lua, script->lua_folder, "", name)) {
            return;
        }
        if (strcmp(name, WORDS) != 0) {
            append_hint(lua, script, name);
        }
    } else {
        for (char **folder = script->plugin_folders; *folder != NULL; folder++) {
            if (load_from(lua, *folder, "lib/", name)) {
                return;
            }
        }
    }
    luaL_where(lua, 1);
    lua_insert(lua, -2);
    lua_concat(lua, 2);
    lua_error(lua);
}

/* require(name): the module's value, made at the first call. */
static int require(lua_State *lua)
{
    struct slice name;
    name.data = luaL_checklstring(lua, 1, &name.size);
    if (!valid_module_name(name)) {
        return luaL_error(lua, "require: a module's name has letters, digits, '_', '-' and '.'");
    }
    lua_settop(lua, 1);
    lua_pushlightuserdata(lua, (void *)&loaded_key);
    lua_rawget(lua, LUA_REGISTRYINDEX); /* 2: loaded */
    lua_pushvalue(lua, 1);
    lua_rawget(lua, 2);
    if (lua_touserdata(lua, -1) == &loading_mark) {
        return luaL_error(lua, "module '%s' requires itself, directly or through others", name.data);
    }
    if (!lua_isnil(lua, -1)) {
        return 1;
    }
    find_module(lua, name.data);
    lua_pushvalue(lua, 1);
    lua_pushlightuserdata(lua, (void *)&loading_mark);
    lua_rawset(lua, 2);
    lua_pushvalue(lua, 1);
    int status = lua_pcall(lua, 1, 1, 0);
    if (status == 0 && lua_isnil(lua, -1)) {
        lua_pushboolean(lua, 1);
        lua_replace(lua, -2);
    }
    lua_pushvalue(lua, 1);
    if (status == 0) {
        lua_pushvalue(lua, -2);
    } else {
        lua_pushnil(lua); /* a module that failed may be tried again */
    }
    lua_rawset(lua, 2);
    return status == 0 ? 1 : lua_error(lua);
}

static void open_library(lua_State *lua, lua_CFunction open, const char *name)
{
    lua_pushcfunction(lua, open);
    lua_pushstring(lua, name);
    lua_call(lua, 1, 0);
}

static void remove_fields(lua_State *lua, const char *const *names)
{
    for (; *names != NULL; names++) {
        lua_pushnil(lua);
        lua_setfield(lua, -2, *names);
    }
    lua_pop(lua, 1);
}

/* The generator's start differs from process to process: samples and delays must not repeat. */
static void seed_random(lua_State *lua)
{
    uint32_t seed;
    random_bytes(&seed, sizeof seed);
    lua_getglobal(lua, "math");
    lua_getfield(lua, -1, "randomseed");
    lua_pushnumber(lua, seed);
    lua_call(lua, 1, 0);
    lua_pop(lua, 1);
}

void sandbox_open(lua_State *lua)
{
    open_library(lua, luaopen_base, "");
    open_library(lua, luaopen_table, LUA_TABLIBNAME);
    open_library(lua, luaopen_string, LUA_STRLIBNAME);
    open_library(lua, luaopen_math, LUA_MATHLIBNAME);
    open_library(lua, luaopen_bit, LUA_BITLIBNAME);
    seed_random(lua);

    lua_getglobal(lua, "tostring");
    script_open_log(lua);
    lua_getfield(lua, -1, "info");
    lua_remove(lua, -2);
    lua_pushcclosure(lua, print, 2);
    lua_setglobal(lua, "print");
    lua_getglobal(lua, "load");
    lua_pushcclosure(lua, load_text, 1);
    lua_setglobal(lua, "load");
    open_xpcall(lua);
    lua_pushvalue(lua, LUA_GLOBALSINDEX);
    remove_fields(lua,
                  (const char *const[]){"dofile", "loadfile", "loadstring", "getfenv", "setfenv", "newproxy",
                                        "collectgarbage", "gcinfo", "module", "package", NULL});
    lua_getglobal(lua, "string");
    pattern_open(lua);
    hide_string_metatable(lua);
    remove_fields(lua, (const char *const[]){"dump", NULL});

    lua_getglobal(lua, "coroutine");
    lua_pushcfunction(lua, running);
    lua_setfield(lua, -2, "running");
    lua_pushcfunction(lua, yield);
    lua_setfield(lua, -2, "yield");
    remove_fields(lua, (const char *const[]){"isyieldable", NULL});

    lua_pushlightuserdata(lua, (void *)&loaded_key);
    lua_newtable(lua);
    lua_rawset(lua, LUA_REGISTRYINDEX);
    lua_pushcfunction(lua, require);
    lua_setglobal(lua, "require");
}
