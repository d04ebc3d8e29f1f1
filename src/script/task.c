/*
 * Tasks: coroutines that the loop runs. A task is in one of three places: in `ready` (not begun), in `waiting` (a host function suspended it and will resume it), or running (on the C stack, in no list).
 *
 *     script_spawn -> ready -> running <-> waiting
 *                                 |
 *                                 +--> done(argument, error), freed
 *
 * The coroutine is anchored in the registry as long as the task lives. Nothing that can raise is done outside a protected call: results are pushed on the main coroutine inside one and moved over.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/memory.h"
#include "script/state.h"
#include "script/trace.h"

struct script_wait {
    void (*cancel)(void *object);
    void *object;
    bool active;
};

struct task {
    TAILQ_ENTRY(task) entry;
    struct script *script;
    lua_State *coroutine; /* NULL: memory ran out before it was made */
    int anchor;           /* registry reference */
    int arguments;
    struct script_wait wait;
    void (*done)(void *argument, const char *error);
    void *done_argument;
};

static void finish(struct task *task, const char *error)
{
    void (*done)(void *, const char *) = task->done;
    void *argument = task->done_argument;
    luaL_unref(task->script->lua, LUA_REGISTRYINDEX, task->anchor);
    free(task);
    if (done != NULL) {
        done(argument, error);
    }
}

struct failure {
    lua_State *coroutine; /* its error object is on top */
    struct error error;
};

static int describe_failure(lua_State *lua)
{
    struct failure *failure = lua_touserdata(lua, 1);
    lua_State *coroutine = failure->coroutine;
    lua_xmove(coroutine, lua, 1);
    script_error_text(lua);
    trace_complete_name(lua, coroutine);
    error_set(&failure->error, "%s", lua_tostring(lua, -1));
    if (log_enabled(LOG_DEBUG)) {
        trace_push(lua, coroutine);
        log_debug("Lua error", log_string("pipeline", script_of(lua)->name),
                  log_string("error", failure->error.message),
                  log_string("called_from", lua_tostring(lua, -1)));
    }
    return 0;
}

static void finish_failed(struct task *task, int status)
{
    struct script *script = task->script;
    struct failure failure = {.coroutine = task->coroutine};
    script_memory_error(script, &failure.error);
    if (status != LUA_ERRMEM && script->watch.stopped) {
        error_set(&failure.error, "%s%sstopped: ran for more than %g s without a break", script->watch.place,
                  script->watch.place[0] != '\0' ? ": " : "", script->watchdog_seconds);
    } else if (status != LUA_ERRMEM) { /* an error object's __tostring is code too */
        struct watch_run before = watch_begin(&script->watch, script->watchdog_seconds);
        if (lua_cpcall(script->lua, describe_failure, &failure) != 0) {
            const char *message = lua_tostring(script->lua, -1);
            error_set(&failure.error, "%s", message != NULL ? message : "an error that is no text");
            lua_pop(script->lua, 1);
        }
        watch_end(&script->watch, &before);
    }
    luaL_unref(script->lua, LUA_REGISTRYINDEX,
               task->anchor); /* first: what the coroutine holds is garbage now */
    task->anchor = LUA_NOREF;
    script_after_failure(script, status);
    finish(task, failure.error.message);
}

/* Begins or goes on with the arguments on top of its coroutine. */
static void run(struct task *task, int arguments)
{
    struct script *script = task->script;
    struct task *before = script->current;
    script->current = task;
    script->running++;
    struct watch_run run_before = watch_begin(&script->watch, script->watchdog_seconds);
    int status = lua_resume(task->coroutine, arguments);
    watch_end(&script->watch, &run_before);
    script->running--;
    script->current = before;

    if (status == LUA_YIELD) {
        assert(task->wait.active);
        TAILQ_INSERT_TAIL(&script->waiting, task, entry);
    } else if (status == 0) {
        finish(task, NULL);
    } else {
        finish_failed(task, status);
    }
}

/* Those that are ready now; what they spawn is for the next turn. */
static void run_ready(void *argument)
{
    struct script *script = argument;
    struct task_list batch = TAILQ_HEAD_INITIALIZER(batch);
    TAILQ_CONCAT(&batch, &script->ready, entry);
    struct task *task;
    while ((task = TAILQ_FIRST(&batch)) != NULL) {
        TAILQ_REMOVE(&batch, task, entry);
        if (task->coroutine != NULL) {
            run(task, task->arguments);
        } else {
            finish(task, "not enough memory");
        }
    }
}

void task_setup(struct script *script)
{
    TAILQ_INIT(&script->ready);
    TAILQ_INIT(&script->waiting);
    if (script->loop != NULL) {
        loop_timer_init(&script->ready_timer, script->loop, run_ready, script);
    }
}

void task_cancel_all(struct script *script)
{
    struct task *task;
    while ((task = TAILQ_FIRST(&script->waiting)) != NULL) {
        TAILQ_REMOVE(&script->waiting, task, entry);
        task->wait.cancel(task->wait.object);
        free(task);
    }
    while ((task = TAILQ_FIRST(&script->ready)) != NULL) {
        TAILQ_REMOVE(&script->ready, task, entry);
        free(task);
    }
    if (script->loop != NULL) {
        loop_timer_release(&script->ready_timer);
    }
}

static int make_coroutine(lua_State *lua)
{
    struct task *task = lua_touserdata(lua, 1);
    task->coroutine = lua_newthread(lua);
    task->anchor = luaL_ref(lua, LUA_REGISTRYINDEX);
    return 0;
}

void script_spawn(struct script *script, int arguments, void (*done)(void *argument, const char *error),
                  void *argument)
{
    assert(script->loop != NULL && arguments < LUA_MINSTACK);
    lua_State *lua = script->lua;
    struct task *task = xcalloc(1, sizeof *task);
    task->script = script;
    task->arguments = arguments;
    task->anchor = LUA_NOREF;
    task->done = done;
    task->done_argument = argument;
    if (lua_cpcall(lua, make_coroutine, task) != 0) {
        lua_pop(lua, 1);
        task->coroutine = NULL;
        lua_pop(lua, arguments + 1);
    } else {
        lua_xmove(lua, task->coroutine, arguments + 1);
    }
    TAILQ_INSERT_TAIL(&script->ready, task, entry);
    loop_timer_set(&script->ready_timer, 0);
}

bool script_is_task(lua_State *lua)
{
    struct task *current = script_of(lua)->current;
    return current != NULL && current->coroutine == lua;
}

void script_check_task(lua_State *lua)
{
    if (script_of(lua)->current == NULL) {
        luaL_error(lua, "%s cannot be called here: only while a pipeline runs, not while plugins are loaded",
                   script_function_name(lua));
    }
}

void script_check_wait(lua_State *lua)
{
    struct task *current = script_of(lua)->current;
    if (current == NULL) {
        luaL_error(lua, "%s cannot wait here: only while a pipeline runs, not while plugins are loaded",
                   script_function_name(lua));
    } else if (current->coroutine != lua) {
        luaL_error(lua, "%s cannot wait inside a coroutine of your own", script_function_name(lua));
    } else if (!lua_isyieldable(lua)) {
        luaL_error(
            lua,
            "%s cannot wait inside a function called by C, as those given to table.sort and string.gsub are",
            script_function_name(lua));
    }
}

struct script_wait *script_wait(lua_State *lua, void (*cancel)(void *object), void *object)
{
    script_check_wait(lua);
    struct script_wait *wait = &script_of(lua)->current->wait;
    assert(!wait->active);
    *wait = (struct script_wait){cancel, object, true};
    return wait;
}

struct results {
    int (*push)(lua_State *lua, void *argument);
    void *argument;
    lua_State *coroutine;
    int count;
};

static int push_results(lua_State *lua)
{
    struct results *results = lua_touserdata(lua, 1);
    results->count = results->push(lua, results->argument);
    assert(results->count < LUA_MINSTACK);
    lua_xmove(lua, results->coroutine, results->count);
    return 0;
}

void script_resume(struct script_wait *wait, int (*push)(lua_State *lua, void *argument), void *argument)
{
    struct task *task = container_of(wait, struct task, wait);
    struct script *script = task->script;
    assert(wait->active && script->current != task);
    wait->active = false;
    TAILQ_REMOVE(&script->waiting, task, entry);

    struct results results = {push, argument, task->coroutine, 0};
    int status = lua_cpcall(script->lua, push_results, &results);
    if (status != 0) { /* the message is on the main coroutine */
        script_after_failure(script, status);
        lua_pushnil(task->coroutine);
        lua_xmove(script->lua, task->coroutine, 1);
        results.count = 2;
    }
    run(task, results.count);
}
