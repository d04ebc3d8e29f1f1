/*
 * pipeline: one consumer of the bus: a thread with a loop and a Lua state of its own, in which the runtime library runs the transforms, makes batches and lets the dispatcher deliver them. One failure domain.
 *
 * Main thread only.
 */
#ifndef PIPELINE_PIPELINE_H
#define PIPELINE_PIPELINE_H

#include <lua.h>

#include "base/metrics.h"
#include "bus/bus.h"

struct pipeline;

struct pipeline_settings {
    const char *name;
    size_t index;         /* in the configuration's list of pipelines */
    size_t buffer_events; /* buffer_size */
    size_t buffer_bytes;
    size_t max_decoded_bytes;
    size_t memory_limit;
    double watchdog_seconds; /* of Lua without a break; 0: the default, 1 s */
    const char *lua_folder;
    const char *const *plugin_folders;
    /* Leaves the pipeline's checked definition on the stack of this state (a table { name, transforms, dispatcher, batch, concurrency, retry }, the chain as constructed by `new`): given by config/. False: *error. */
    bool (*load)(void *argument, lua_State *lua, size_t index, struct error *error);
    void *load_argument;
    struct metrics *metrics;
    struct bus *bus;
};

/* Subscribes and starts the thread. Strings are copied; load and plugin_folders are borrowed until it has loaded (this waits for that). NULL: *error says why. */
struct pipeline *pipeline_new(const struct pipeline_settings *settings, struct error *error);
/* No more events come: deliver what waits. done(argument) is called once on the pipeline's thread when nothing is left. */
void pipeline_drain(struct pipeline *pipeline, void (*done)(void *argument), void *argument);
/* Stops now, joins, frees. What was not delivered is counted as dropped with the reason "shutdown" (memory bus). Returns how many. */
size_t pipeline_free(struct pipeline *pipeline);
/* Reopen files (SIGHUP). Does not wait. */
void pipeline_reopen_files(struct pipeline *pipeline);

#endif
