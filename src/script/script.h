/*
 * script: a sandboxed Lua state on a loop, and the host modules (`require "llmproxy.X"`) in it. It knows no events, no bus, no configuration: those give it more modules.
 *
 * One script belongs to one thread. Code runs in two ways:
 *
 *     script_call()   on the main coroutine: plain, may not yield (loading, checking, constructors). A host function that would have to wait raises "… cannot wait here".
 *     script_spawn()  a task: a coroutine that host functions may suspend (script_wait) and the loop resumes (script_resume). Needs a loop.
 *
 * The compiler of LuaJIT stays off: compiled loops ask nobody, so nothing short of killing the state could stop one. Interpreted code costs nothing for being watched (watchdog.h). Measured on the heaviest event, a stream of 300
 * pieces: 0.96 ms interpreted, 0.67 to 1.1 ms compiled; most of it is C in either case.
 *
 * The sandbox stops mistakes, not malice. Absent: io os ffi debug jit loadstring load of bytecode string.dump getfenv setfenv newproxy collectgarbage dofile loadfile package.loadlib. `require` finds host modules,
 * the runtime library (lua_folder: llmproxy.*) and, under plugin folders, lib/. Memory is bounded by an allocator that counts: over the limit Lua raises "not enough memory",
 * and what becomes of that as a message says which limit it was.
 */
#ifndef SCRIPT_SCRIPT_H
#define SCRIPT_SCRIPT_H

#include <lua.h>

#include "base/error.h"
#include "base/slice.h"
#include "net/loop.h"

struct metrics;
struct script;
struct script_wait;

struct script_settings {
    const char *lua_folder;            /* of the runtime library */
    const char *const *plugin_folders; /* NULL-terminated, in order of search; may be NULL */
    size_t memory_limit;               /* bytes; 0: none */
    const char *memory_limit_name;     /* for messages: "the pipeline's memory_limit"; NULL: "the limit" */
    struct loop *loop;                 /* NULL: no task can run */
    const char *name;                  /* for log lines: the pipeline's name */
    struct metrics *metrics;           /* where plugins count; NULL: nowhere */
    double
        watchdog_seconds; /* how long a task may run without waiting before an error stops it; 0: for ever */
};

struct script *script_new(const struct script_settings *settings, struct error *error);
/* Ends all tasks (what they wait for is cancelled), frees the state. */
void script_free(struct script *script);
lua_State *script_lua(struct script *script);
struct script *script_of(lua_State *lua);
struct loop *script_loop(struct script *script);
const char *script_name(const struct script *script);

/* Makes `require(name)` return what open(lua) leaves on the stack. */
void script_add_module(struct script *script, const char *name, lua_CFunction open);

/* Calls the function below its arguments on script_lua()'s stack, as lua_pcall with a traceback. False: the stack is as before the function, *error has the message (error objects of any kind are made text).
 * The traceback is logged at debug. seconds > 0: runaway code is stopped by an error after that time, which names the file and line that ran; 0: the limit of whoever is calling stays. */
bool script_call(struct script *script, int arguments, int results, double seconds, struct error *error);

/* Starts the function below its arguments on script_lua()'s stack as a task, in the loop's next turn. done (may be NULL) is called when it returned (error NULL) or raised; it must not free the script. Fewer than 20 arguments. */
void script_spawn(struct script *script, int arguments, void (*done)(void *argument, const char *error),
                  void *argument);

/*
 * For host functions that wait:
 *
 *     static int sleep(lua_State *lua) { struct script_wait *wait = script_wait(lua, cancel, object); …start…; return lua_yield(lua, 0); }
 *
 * script_wait raises when lua is not a task ("llmproxy.time.sleep cannot wait here"); script_check_wait() (host.h) does so before anything is allocated. Exactly once afterwards: script_resume, on the loop's thread and never within the host function; it pushes the results by push(lua, argument) and
 * goes on. cancel(object) is called instead when the script is freed: the operation must not resume any more.
 */
struct script_wait *script_wait(lua_State *lua, void (*cancel)(void *object), void *object);
/* When push raises (out of memory) the host function returns nil and the message instead. */
void script_resume(struct script_wait *wait, int (*push)(lua_State *lua, void *argument), void *argument);

/* Bytes the state holds now. */
size_t script_memory(const struct script *script);
size_t script_memory_limit(const struct script *script);
/* Lua does not collect garbage before it refuses an allocation: collects it when one was refused since the last call, and says whether. For between two pieces of work: what code that failed, or a pcall in it, left
 * behind is gone before the next begins. */
bool script_relieve(struct script *script);
/* "not enough memory", and which limit it was when that was the reason since the last script_relieve. */
void script_memory_error(const struct script *script, struct error *error);
/* SIGHUP: files opened by llmproxy.file are opened anew before the next write. */
void script_reopen_files(struct script *script);

#endif
