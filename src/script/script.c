/*
 * The state itself: made, measured, called, freed. Tasks are in task.c, what code finds in its globals in sandbox.c.
 *
 * The allocator's argument is the script, which is how a lua_State leads back to it. Lua raises errors by longjmp: everything here that can raise runs inside a protected call, for an error outside one would
 * end the process.
 */
#include "script/script.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/memory.h"
#include "script/state.h"
#include "script/trace.h"

/* What is left for C functions that Lua calls at the greatest depth. */
#define STACK_RESERVE_BYTES (256u << 10)

/* Lua bounds its own stack, but not how much of the thread's its calls use: each coroutine that resumes another, each function that string.gsub calls, takes some. */
static uintptr_t lowest_stack(void)
{
    pthread_attr_t attributes;
    void *end;
    size_t size;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) {
        return 0;
    }
    uintptr_t lowest = 0;
    if (pthread_attr_getstack(&attributes, &end, &size) == 0) {
        lowest = (uintptr_t)end + STACK_RESERVE_BYTES;
    }
    pthread_attr_destroy(&attributes);
    return lowest;
}

bool script_is_deep(const struct script *script)
{
    return (uintptr_t)__builtin_frame_address(0) < script->lowest_stack;
}

static void *allocate(void *argument, void *block, size_t old_size, size_t new_size)
{
    struct script *script = argument;
    if (new_size == 0) {
        script->memory_used -= old_size;
        free(block);
        return NULL;
    }
    size_t after = script->memory_used - old_size + new_size;
    if (new_size > old_size && script->memory_limit != 0 && after > script->memory_limit) {
        script->memory_refused = true;
        return NULL;
    }
    if (new_size > old_size &&
        script_is_deep(script)) { /* ends the recursion: a coroutine is an allocation */
        return NULL;
    }
    void *moved = realloc(block, new_size);
    if (moved != NULL) {
        script->memory_used = after;
    }
    return moved;
}

/* Only a broken promise in our own C leads here. */
static int panic(lua_State *lua)
{
    const char *message = lua_tostring(lua, -1);
    log_error("Lua error outside a protected call", log_string("message", message != NULL ? message : "?"));
    abort();
}

void script_error_text(lua_State *lua)
{
    if (lua_type(lua, -1) != LUA_TSTRING) {
        if (!luaL_callmeta(lua, -1, "__tostring")) {
            lua_pushnil(lua);
        }
        if (lua_type(lua, -1) != LUA_TSTRING) {
            lua_pushfstring(lua, "raised a %s instead of a message", luaL_typename(lua, -2));
            lua_replace(lua, -2);
        }
        lua_replace(lua, -2);
    }
}

/* Message handler. */
static int describe_error(lua_State *lua)
{
    script_error_text(lua);
    trace_complete_name(lua, lua);
    if (log_enabled(LOG_DEBUG)) {
        trace_push(lua, lua);
        log_debug("Lua error", log_string("pipeline", script_of(lua)->name),
                  log_string("error", lua_tostring(lua, -2)),
                  log_string("called_from", lua_tostring(lua, -1)));
        lua_pop(lua, 1);
    }
    return 1;
}

static int set_up(lua_State *lua)
{
    struct script *script = lua_touserdata(lua, 1);
    lua_pushcfunction(lua, describe_error);
    script->describe_error = luaL_ref(lua, LUA_REGISTRYINDEX);
    /* Garbage counts against the limit too, and Lua does not collect when an allocation fails: collect earlier than by default. */
    lua_gc(lua, LUA_GCSETPAUSE, 150);
    sandbox_open(lua);
    return 0;
}

static char **copy_list(const char *const *list)
{
    size_t count = 0;
    while (list != NULL && list[count] != NULL) {
        count++;
    }
    char **copy = xcalloc(count + 1, sizeof *copy);
    for (size_t i = 0; i < count; i++) {
        copy[i] = xstrdup(list[i]);
    }
    return copy;
}

struct script *script_new(const struct script_settings *settings, struct error *error)
{
    struct script *script = xcalloc(1, sizeof *script);
    script->name = xstrdup(settings->name != NULL ? settings->name : "");
    script->memory_limit_name =
        xstrdup(settings->memory_limit_name != NULL ? settings->memory_limit_name : "the limit");
    script->lua_folder = xstrdup(settings->lua_folder);
    script->plugin_folders = copy_list(settings->plugin_folders);
    script->watchdog_seconds = settings->watchdog_seconds;
    script->metrics = settings->metrics;
    script->loop = settings->loop;
    task_setup(script);

    script->lua = lua_newstate(allocate, script);
    if (script->lua == NULL) {
        error_set(error, "cannot make a Lua state: LuaJIT was built without GC64, or memory ran out");
        goto failed;
    }
    script->watch.lua = script->lua;
    lua_atpanic(script->lua, panic);
    if (lua_cpcall(script->lua, set_up, script) != 0) {
        const char *message = lua_tostring(script->lua, -1);
        error_set(error, "cannot set up a Lua state: %s", message != NULL ? message : "?");
        goto failed;
    }
    script->lowest_stack = lowest_stack();
    /* Only now: LuaJIT crashes when an allocation fails while it makes a state. */
    script->memory_limit = settings->memory_limit;
    if (settings->memory_limit != 0 && script->memory_used > settings->memory_limit) {
        error_set(error, "cannot set up a Lua state: it needs more than %s of %zu bytes",
                  script->memory_limit_name, settings->memory_limit);
        goto failed;
    }
    return script;

failed:
    script_free(script);
    return NULL;
}

void script_free(struct script *script)
{
    if (script == NULL) {
        return;
    }
    assert(script->running == 0);
    task_cancel_all(script);
    watch_remove(&script->watch);
    if (script->lua != NULL) {
        lua_close(script->lua);
    }
    for (size_t i = 0; i < SCRIPT_SCRATCH_COUNT; i++) {
        buffer_free(&script->scratch[i]);
    }
    for (size_t i = 0; i < script->module_count; i++) {
        free((char *)script->modules[i].name);
    }
    free(script->modules);
    for (char **folder = script->plugin_folders; *folder != NULL; folder++) {
        free(*folder);
    }
    free(script->plugin_folders);
    free(script->lua_folder);
    free(script->memory_limit_name);
    free(script->name);
    free(script);
}

lua_State *script_lua(struct script *script)
{
    return script->lua;
}

struct script *script_of(lua_State *lua)
{
    void *argument;
    lua_getallocf(lua, &argument);
    return argument;
}

struct loop *script_loop(struct script *script)
{
    return script->loop;
}

const char *script_name(const struct script *script)
{
    return script->name;
}

size_t script_memory(const struct script *script)
{
    return script->memory_used;
}

size_t script_memory_limit(const struct script *script)
{
    return script->memory_limit;
}

bool script_relieve(struct script *script)
{
    if (!script->memory_refused) {
        return false;
    }
    script->memory_refused = false;
    lua_gc(script->lua, LUA_GCCOLLECT, 0);
    return true;
}

void script_memory_error(const struct script *script, struct error *error)
{
    size_t limit = script->memory_limit;
    bool even = limit % (1 << 20) == 0;
    if (!script->memory_refused) {
        error_set(error, "not enough memory");
        return;
    }
    error_set(error, "not enough memory: more than %s of %zu %s", script->memory_limit_name,
              even ? limit >> 20 : limit, even ? "MiB" : "bytes");
}

void script_reopen_files(struct script *script)
{
    script->reopen_count++;
}

unsigned script_reopen_count(const struct script *script)
{
    return script->reopen_count;
}

void script_add_module(struct script *script, const char *name, lua_CFunction open)
{
    script->modules = xrealloc(script->modules, (script->module_count + 1) * sizeof *script->modules);
    script->modules[script->module_count++] = (struct script_module){xstrdup(name), open};
}

static int collect_garbage(lua_State *lua)
{
    lua_gc(lua, LUA_GCCOLLECT, 0);
    return 0;
}

/* Lua 5.1 does not collect before it gives up: what the failed code left behind goes now. Even the call that collects needs a little memory. */
void script_after_failure(struct script *script, int status)
{
    if (status != LUA_ERRMEM && !script->memory_refused) {
        return; /* some code turns the one error into another */
    }
    script->memory_refused = false;
    size_t limit = script->memory_limit;
    script->memory_limit = 0;
    if (lua_cpcall(script->lua, collect_garbage, NULL) != 0) {
        lua_pop(script->lua, 1);
    }
    script->memory_limit = limit;
}

bool script_call(struct script *script, int arguments, int results, double seconds, struct error *error)
{
    lua_State *lua = script->lua;
    int function = lua_gettop(lua) - arguments;
    lua_rawgeti(lua, LUA_REGISTRYINDEX, script->describe_error);
    lua_insert(lua, function);

    struct task *current = script->current;
    script->current = NULL; /* the main coroutine cannot wait, even when a task's host function calls it */
    script->running++;
    struct watch_run before = watch_begin(&script->watch, seconds);
    int status = lua_pcall(lua, arguments, results, function);
    watch_end(&script->watch, &before);
    script->running--;
    script->current = current;

    if (status != 0) {
        const char *message = lua_tostring(lua, -1);
        if (status == LUA_ERRMEM) {
            script_memory_error(script, error);
        } else if (seconds > 0 && script->watch.stopped) {
            error_set(error, "%s%sstopped: ran for more than %g s without a break", script->watch.place,
                      script->watch.place[0] != '\0' ? ": " : "", seconds);
        } else {
            error_set(error, "%s", message != NULL ? message : "unknown error");
        }
        lua_settop(lua, function - 1);
        script_after_failure(script, status);
        return false;
    }
    lua_remove(lua, function);
    return true;
}

uint64_t script_begin_blocking(lua_State *lua)
{
    return watch_suspend(&script_of(lua)->watch);
}

void script_end_blocking(lua_State *lua, uint64_t begun)
{
    watch_resume(&script_of(lua)->watch, begun);
}

void script_check_time(lua_State *lua)
{
    if (watch_is_overdue(&script_of(lua)->watch)) {
        watch_stop(&script_of(lua)->watch, lua);
    }
}

struct buffer *script_scratch(lua_State *lua, enum script_scratch which)
{
    struct buffer *buffer = &script_of(lua)->scratch[which];
    if (buffer->capacity > (1 << 20)) {
        buffer_free(buffer); /* one large text does not hold its memory for ever */
    }
    buffer_clear(buffer);
    return buffer;
}
