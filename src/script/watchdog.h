/*
 * watchdog: stops Lua code that runs for too long, and costs two looks at the clock for each run that does not.
 *
 * A thread of its own looks every 50 ms at the deadlines of all states. To the thread of an overdue one it sends SIGURG (which is ignored by default, so a stray one is harmless); the signal's handler sets a count hook,
 * the one thing Lua allows in a handler, and the hook raises an error at the next instruction, again and again until the run is over: pcall cannot swallow it. C functions are not interrupted:
 * those that may take long look at the time themselves. Nor would be an xpcall handler that loops for ever over the very error that stops the run: the sandbox's xpcall begins none then. Compiled code would never look at the
 * hook: states here do not compile.
 */
#ifndef SCRIPT_WATCHDOG_H
#define SCRIPT_WATCHDOG_H

#include <lua.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

/* One for each state; all zero but lua to begin with. Used from the thread that runs the state. */
struct watch {
    lua_State *lua;
    double seconds;               /* of the present run, for the message */
    _Atomic uint64_t deadline_ns; /* 0: nothing runs, or without a limit */
    char place
        [512]; /* file and line where the last run with a limit was stopped; "" when it was not, or nobody knows */
    bool stopped; /* the last run with a limit */
    pthread_t thread;
    bool listed;
    LIST_ENTRY(watch) entry;
};

/* What was before a run, to be given back at its end: runs nest. */
struct watch_run {
    struct watch *watch;
    double seconds;
    uint64_t deadline_ns;
    bool limited;
};

/* Lua code is about to run; seconds 0: under the limit of the run around it, if there is one. */
struct watch_run watch_begin(struct watch *watch, double seconds);
void watch_end(struct watch *watch, const struct watch_run *before);
/* The code that runs waits for something that is not its fault, as a disk: until watch_resume(), which takes what this returns, no time passes for it. */
uint64_t watch_suspend(struct watch *watch);
void watch_resume(struct watch *watch, uint64_t left_ns);
/* Whether the code that runs should have ended. */
bool watch_is_overdue(struct watch *watch);
/* Raises the error that stops an overdue run: from C code that was called by it, where nothing can interrupt. */
_Noreturn void watch_stop(struct watch *watch, lua_State *lua);
/* Before the state is closed. */
void watch_remove(struct watch *watch);

#endif
