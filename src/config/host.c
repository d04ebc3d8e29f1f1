/*
 * host: see host.h. Each function checks its arguments as any C function for Lua does, though only our own Lua calls them. Nothing is held across a call that may raise, but what a userdata owns.
 */
#include "config/host.h"

#include <dirent.h>
#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "net/network.h"
#include "proxy/redact.h"
#include "script/script.h"

#define MAX_FILE_BYTES (16 << 20)
#define TLS_TYPE       "llmproxy.config.tls"
#define BUFFER_TYPE    "llmproxy.config.buffer"

static int free_buffer(lua_State *lua)
{
    buffer_free(luaL_checkudata(lua, 1, BUFFER_TYPE));
    return 0;
}

/* A buffer that Lua frees, also when an error is raised. */
static struct buffer *new_buffer(lua_State *lua)
{
    struct buffer *buffer = lua_newuserdata(lua, sizeof *buffer);
    *buffer = (struct buffer){0};
    if (luaL_newmetatable(lua, BUFFER_TYPE)) {
        lua_pushcfunction(lua, free_buffer);
        lua_setfield(lua, -2, "__gc");
    }
    lua_setmetatable(lua, -2);
    return buffer;
}

static int host_read(lua_State *lua)
{
    struct error error;
    const char *path = luaL_checkstring(lua, 1);
    struct buffer *text = new_buffer(lua);
    if (!file_read(path, MAX_FILE_BYTES, text, &error)) {
        lua_pushnil(lua);
        lua_pushstring(lua, error.message);
        return 2;
    }
    lua_pushlstring(lua, text->size > 0 ? buffer_data(text) : "", text->size);
    buffer_free(text);
    return 1;
}

static int host_exists(lua_State *lua)
{
    lua_pushboolean(lua, access(luaL_checkstring(lua, 1), F_OK) == 0);
    return 1;
}

static int free_names(lua_State *lua)
{
    struct dirent ***names = lua_touserdata(lua, 1);
    for (struct dirent **name = *names; name != NULL && *name != NULL; name++) {
        free(*name);
    }
    free(*names);
    *names = NULL;
    return 0;
}

static int host_list(lua_State *lua)
{
    const char *folder = luaL_checkstring(lua, 1);
    struct dirent ***names = lua_newuserdata(lua, sizeof(struct dirent **));
    *names = NULL;
    lua_createtable(lua, 0, 1);
    lua_pushcfunction(lua, free_names);
    lua_setfield(lua, -2, "__gc");
    lua_setmetatable(lua, -2);
    int count = scandir(folder, names, NULL, alphasort);
    if (count < 0) {
        *names = NULL;
        if (errno == ENOENT || errno == ENOTDIR) {
            return 0;
        }
        lua_pushnil(lua);
        lua_pushstring(lua, strerror(errno));
        return 2;
    }
    *names = realloc(*names, ((size_t)count + 1) * sizeof(struct dirent *));
    if (*names == NULL) {
        return luaL_error(lua, "not enough memory");
    }
    (*names)[count] = NULL;
    lua_createtable(lua, count, 0);
    for (int i = 0; i < count; i++) {
        lua_pushstring(lua, (*names)[i]->d_name);
        lua_rawseti(lua, -2, i + 1);
    }
    return 1;
}

static int host_environment(lua_State *lua)
{
    lua_pushstring(lua, getenv(luaL_checkstring(lua, 1))); /* NULL: nil */
    return 1;
}

static int host_environment_names(lua_State *lua)
{
    lua_newtable(lua);
    int count = 0;
    for (char **variable = environ; *variable != NULL; variable++) {
        lua_pushlstring(lua, *variable, strcspn(*variable, "="));
        lua_rawseti(lua, -2, ++count);
    }
    return 1;
}

static int host_address(lua_State *lua)
{
    struct address address;
    struct error error;
    bool known = address_parse(luaL_checkstring(lua, 1), &address, &error);
    lua_pushboolean(lua, known);
    lua_pushboolean(lua, known && address_is_loopback(&address));
    return 2;
}

static int host_ip(lua_State *lua)
{
    struct address address;
    if (!address_from_ip(slice_of(luaL_checkstring(lua, 1)), 0, &address)) {
        return 0;
    }
    address_unmap(&address);
    if (address.socket.any.sa_family == AF_INET) {
        const struct in_addr *ip = &address.socket.ip4.sin_addr;
        lua_pushlstring(lua, (const char *)ip, sizeof *ip);
    } else {
        const struct in6_addr *ip = &address.socket.ip6.sin6_addr;
        lua_pushlstring(lua, (const char *)ip, sizeof *ip);
    }
    return 1;
}

static int host_network(lua_State *lua)
{
    struct network network;
    struct slice text;
    text.data = luaL_checklstring(lua, 1, &text.size);
    lua_pushboolean(lua, network_parse(text, &network));
    return 1;
}

static int free_tls(lua_State *lua)
{
    struct tls **tls = luaL_checkudata(lua, 1, TLS_TYPE);
    if (*tls != NULL) {
        tls_free(*tls);
        *tls = NULL;
    }
    return 0;
}

static const char *optional_string(lua_State *lua, const char *key)
{
    lua_getfield(lua, 1, key);
    return lua_tostring(lua, -1); /* stays on the stack, and borrowed from there */
}

static int host_tls(lua_State *lua)
{
    luaL_checktype(lua, 1, LUA_TTABLE);
    const char *host = luaL_checkstring(lua, 2);
    struct error error;
    /* One after the other: an initialiser would do it in any order, and each moves the top of the stack. */
    struct tls_settings settings = {0};
    lua_getfield(lua, 1, "insecure");
    settings.insecure = lua_toboolean(lua, -1);
    settings.ca_file = optional_string(lua, "ca_file");
    settings.client_cert = optional_string(lua, "client_cert");
    settings.client_key = optional_string(lua, "client_key");
    settings.server_name = optional_string(lua, "server_name");
    struct tls **tls = lua_newuserdata(lua, sizeof(struct tls *));
    *tls = NULL;
    if (luaL_newmetatable(lua, TLS_TYPE)) {
        lua_pushcfunction(lua, free_tls);
        lua_setfield(lua, -2, "__gc");
    }
    lua_setmetatable(lua, -2);
    *tls = tls_new(&settings, host, &error);
    if (*tls == NULL) {
        lua_pushnil(lua);
        lua_pushstring(lua, error.message);
        return 2;
    }
    return 1;
}

struct tls *config_take_tls(lua_State *lua, int index)
{
    if (!lua_isuserdata(lua, index)) {
        return NULL;
    }
    struct tls **held = luaL_checkudata(lua, index, TLS_TYPE);
    struct tls *tls = *held;
    *held = NULL;
    return tls;
}

static int host_is_secret_field(lua_State *lua)
{
    static const struct proxy_settings nothing_added;
    struct slice name;
    name.data = luaL_checklstring(lua, 1, &name.size);
    lua_pushboolean(lua, redact_is_secret_field(&nothing_added, name));
    return 1;
}

/* Kept in the registry, where only this function finds it. */
static int host_ffi(lua_State *lua)
{
    static const char key;
    lua_pushlightuserdata(lua, (void *)(uintptr_t)&key);
    lua_rawget(lua, LUA_REGISTRYINDEX);
    if (lua_isnil(lua, -1)) {
        lua_pushcfunction(lua, luaopen_ffi);
        lua_pushliteral(lua, "ffi");
        lua_call(lua, 1, 1);
        lua_pushlightuserdata(lua, (void *)(uintptr_t)&key);
        lua_pushvalue(lua, -2);
        lua_rawset(lua, LUA_REGISTRYINDEX);
    }
    return 1;
}

static int host_origin(lua_State *lua)
{
    lua_Debug info;
    luaL_checktype(lua, 1, LUA_TFUNCTION);
    lua_pushvalue(lua, 1);
    lua_getinfo(lua, ">S", &info);
    if (info.source[0] != '@') {
        return 0;
    }
    lua_pushstring(lua, info.source + 1);
    lua_pushinteger(lua, info.linedefined);
    lua_pushinteger(lua, info.lastlinedefined);
    return 3;
}

static int host_run(lua_State *lua)
{
    struct error error;
    struct script *script = script_of(lua);
    lua_settop(lua, 2);
    if (lua != script_lua(script)) {
        return luaL_error(lua, "not in a coroutine");
    }
    luaL_checkstack(lua, 4, "to run a file");
    bool fine = script_call(script, 1, 1, lua_tonumber(lua, lua_upvalueindex(1)), &error);
    lua_pushboolean(lua, fine);
    lua_insert(lua, 1);
    if (!fine) {
        lua_pushstring(lua, error.message);
    }
    return 2;
}

void config_push_host(lua_State *lua, double run_seconds)
{
    static const luaL_Reg functions[] = {
        {"read", host_read},
        {"exists", host_exists},
        {"list", host_list},
        {"environment", host_environment},
        {"environment_names", host_environment_names},
        {"address", host_address},
        {"ip", host_ip},
        {"network", host_network},
        {"tls", host_tls},
        {"is_secret_field", host_is_secret_field},
        {"ffi", host_ffi},
        {"origin", host_origin},
        {NULL, NULL},
    };
    lua_newtable(lua);
    luaL_register(lua, NULL, functions);
    lua_pushnumber(lua, run_seconds);
    lua_pushcclosure(lua, host_run, 1);
    lua_setfield(lua, -2, "run");
}
