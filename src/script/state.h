/* state: what script.c, task.c, sandbox.c and host.c know of a script together; nobody else looks in here. */
#ifndef SCRIPT_STATE_H
#define SCRIPT_STATE_H

#include <sys/queue.h>

#include "base/buffer.h"
#include "script/host.h"
#include "script/modules.h"
#include "script/script.h"
#include "script/watchdog.h"

struct task;
TAILQ_HEAD(task_list, task);

struct script {
    lua_State *lua;
    char *name, *lua_folder;
    struct metrics *metrics;
    char **plugin_folders; /* NULL-terminated */
    size_t memory_used, memory_limit;
    char *memory_limit_name;
    bool memory_refused;    /* since the last script_relieve */
    uintptr_t lowest_stack; /* code may not call deeper than to here */
    double watchdog_seconds;
    struct watch watch;

    struct script_module *modules; /* added by script_add_module */
    size_t module_count;

    struct loop *loop;
    struct loop_timer ready_timer;
    struct task_list ready, waiting; /* a task that runs is in neither */
    struct task *current;            /* whose code runs now */
    unsigned running;                /* calls and tasks on the C stack */

    int describe_error; /* registry reference to the message handler */
    unsigned reopen_count;
    struct buffer scratch[SCRIPT_SCRATCH_COUNT];
};

/* Fills the globals; raises. */
void sandbox_open(lua_State *lua);

/* Replaces the error object on top of the stack, of whatever kind, by a string. */
void script_error_text(lua_State *lua);

/* Whether so much of the thread's stack is used that no Lua code may be called from C any more. */
bool script_is_deep(const struct script *script);

/* After a failed call: collects when memory ran out. */
void script_after_failure(struct script *script, int status);

/* Whether lua is the coroutine of the task that runs. */
bool script_is_task(lua_State *lua);

void task_setup(struct script *script);
void task_cancel_all(struct script *script);

#endif
