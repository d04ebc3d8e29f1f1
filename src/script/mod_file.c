/* llmproxy.file: local files from a pipeline, which may block its own thread but no other; the words for users are in lua/llmproxy/meta/file.lua. */
#include "base/file.h"
#include "script/host.h"
#include "script/line_file.h"
#include "script/modules.h"

#define HANDLE         "llmproxy.file handle"
#define MAX_READ_BYTES (256 << 20)

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

/* file.append(path) -> handle, or nil and a message */
static int append(lua_State *lua)
{
    const char *path = script_check_text(lua, 1, "path");
    script_check_task(lua);
    push_handle(lua);
    struct error error;
    struct handle *handle = lua_touserdata(lua, -1);
    uint64_t begun = script_begin_blocking(lua);
    handle->file = line_file_open(path, &error);
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
