/* llmproxy.file: local files from a pipeline, which may block its own thread but no other; the words for users are in lua/llmproxy/meta/file.lua. */
#include "base/file.h"
#include "script/host.h"
#include "script/line_file.h"
#include "script/modules.h"

#define HANDLE         "llmproxy.file handle"
#define MAX_READ_BYTES (256 << 20)
#define MOST_BYTES     9e15
#define LEAST_AGE      0.001 /* seconds */
#define MOST_AGE       1e9
#define MOST_FILES     1000000

struct handle {
    struct line_file *file; /* NULL: closed */
    unsigned reopen_count;
};

static void push_handle(lua_State *lua)
{
    *(struct handle *)lua_newuserdata(lua, sizeof(struct handle)) =
        (struct handle){.reopen_count = script_reopen_count(script_of(lua))};
    luaL_getmetatable(lua, HANDLE);
    lua_setmetatable(lua, -2);
}

/* The whole number or time that is on top of the stack. */
static double check_option(lua_State *lua, const char *name, double least, double most)
{
    if (lua_type(lua, -1) != LUA_TNUMBER) {
        script_raise(lua, "%s: expected a number, got %s", name, luaL_typename(lua, -1));
    }
    double value = lua_tonumber(lua, -1);
    if (!(value >= least && value <= most)) {
        script_raise(lua, "%s: expected a number from %.15g to %.15g", name, least, most);
    }
    return value;
}

static void read_option(lua_State *lua, struct rotation *rotation, const char *name)
{
    if (strcmp(name, "max_bytes") == 0) {
        rotation->max_bytes = (uint64_t)check_option(lua, name, 1, MOST_BYTES);
    } else if (strcmp(name, "max_age") == 0) {
        rotation->max_age = check_option(lua, name, LEAST_AGE, MOST_AGE);
    } else if (strcmp(name, "keep") == 0) {
        rotation->keep = (unsigned)check_option(lua, name, 1, MOST_FILES);
    } else if (strcmp(name, "compress") == 0) {
        if (lua_type(lua, -1) != LUA_TSTRING || strcmp(lua_tostring(lua, -1), "gzip") != 0) {
            script_raise(lua, "compress: expected \"gzip\"");
        }
        rotation->compress = true;
    } else {
        script_raise(lua, "options: unknown '%s'; there are max_bytes, max_age, keep, compress", name);
    }
}

/* False: the file is not rotated. */
static bool read_rotation(lua_State *lua, int index, struct rotation *rotation)
{
    *rotation = (struct rotation){0};
    if (lua_isnoneornil(lua, index)) {
        return false;
    }
    script_check_table(lua, index, "options");
    for (lua_pushnil(lua); lua_next(lua, index); lua_pop(lua, 1)) {
        if (lua_type(lua, -2) != LUA_TSTRING) {
            script_raise(lua, "options: a name is a %s", luaL_typename(lua, -2));
        }
        read_option(lua, rotation, lua_tostring(lua, -2));
    }
    bool rotates = rotation->max_bytes > 0 || rotation->max_age > 0;
    if (!rotates && (rotation->keep > 0 || rotation->compress)) {
        script_raise(lua, "options: keep and compress need max_bytes or max_age");
    }
    return rotates;
}

/* file.append(path, options) -> handle, or nil and a message */
static int append(lua_State *lua)
{
    struct rotation rotation;
    const char *path = script_check_text(lua, 1, "path");
    bool rotates = read_rotation(lua, 2, &rotation);
    script_check_task(lua);
    push_handle(lua);
    struct error error;
    struct handle *handle = lua_touserdata(lua, -1);
    uint64_t begun = script_begin_blocking(lua);
    handle->file = line_file_open(path, rotates ? &rotation : NULL, &error);
    script_end_blocking(lua, begun);
    return handle->file != NULL ? 1 : script_fail(lua, "%s", error.message);
}

/* file.stdout() -> handle */
static int standard_output(lua_State *lua)
{
    push_handle(lua);
    ((struct handle *)lua_touserdata(lua, -1))->file = line_file_stdout();
    return 1;
}

/* file.read(path) -> text, or nil and a message */
static int read_all(lua_State *lua)
{
    const char *path = script_check_text(lua, 1, "path");
    script_check_task(lua);
    struct error error;
    struct buffer *text = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    uint64_t begun = script_begin_blocking(lua);
    bool read = file_read(path, MAX_READ_BYTES, text, &error);
    script_end_blocking(lua, begun);
    if (!read) {
        return script_fail(lua, "%s", error.message);
    }
    lua_pushlstring(lua, text->size > 0 ? buffer_data(text) : "", text->size);
    return 1;
}

/* file.replace(path, text) -> true, or nil and a message */
static int replace(lua_State *lua)
{
    const char *path = script_check_text(lua, 1, "path");
    struct slice text = script_check_string(lua, 2, "text");
    script_check_task(lua);
    struct error error;
    uint64_t begun = script_begin_blocking(lua);
    bool replaced = line_file_replace(path, text, &error);
    script_end_blocking(lua, begun);
    if (!replaced) {
        return script_fail(lua, "%s", error.message);
    }
    lua_pushboolean(lua, 1);
    return 1;
}

static struct handle *check_handle(lua_State *lua)
{
    struct handle *handle = luaL_testudata(lua, 1, HANDLE);
    if (handle == NULL) {
        script_raise(lua, "call it with a colon, as in handle:write(text)");
    }
    return handle;
}

/* handle:write(text) -> true, or nil and a message */
static int handle_write(lua_State *lua)
{
    struct handle *handle = check_handle(lua);
    struct slice text = script_check_string(lua, 2, "text");
    script_check_task(lua);
    if (handle->file == NULL) {
        script_raise(lua, "the file is closed");
    }
    unsigned reopen_count = script_reopen_count(script_of(lua));
    if (handle->reopen_count != reopen_count) {
        handle->reopen_count = reopen_count;
        line_file_reopen(handle->file);
    }
    struct error error;
    uint64_t begun = script_begin_blocking(lua);
    bool written = line_file_write(handle->file, text, &error);
    script_end_blocking(lua, begun);
    if (!written) {
        return script_fail(lua, "%s", error.message);
    }
    lua_pushboolean(lua, 1);
    return 1;
}

/* handle:close(); also what the collector calls */
static int handle_close(lua_State *lua)
{
    struct handle *handle = check_handle(lua);
    line_file_close(handle->file);
    handle->file = NULL;
    return 0;
}

int script_open_file(lua_State *lua)
{
    luaL_newmetatable(lua, HANDLE);
    lua_newtable(lua);
    script_set_functions(
        lua, "file:", (const luaL_Reg[]){{"write", handle_write}, {"close", handle_close}, {NULL, NULL}});
    lua_setfield(lua, -2, "__index");
    lua_pushcfunction(lua, handle_close);
    lua_setfield(lua, -2, "__gc");
    lua_pushliteral(lua, HANDLE);
    lua_setfield(lua, -2, "__metatable");
    lua_pop(lua, 1);
    script_new_module(lua, "llmproxy.file",
                      (const luaL_Reg[]){{"append", append},
                                         {"stdout", standard_output},
                                         {"read", read_all},
                                         {"replace", replace},
                                         {NULL, NULL}});
    return 1;
}
