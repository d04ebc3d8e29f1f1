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
struct dead_letters;

struct pipeline_settings {
    const char *name;
    size_t index;         /* in the configuration's list of pipelines */
    size_t buffer_events; /* buffer_size */
    size_t buffer_bytes;
    bool from_oldest; /* a new name begins with what the bus has kept */
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
    /* The bus is an inbox (inbox_bus.h), which the pipeline fills itself: its definition has a bus, an object made by a bus plugin, to fetch from. */
    bool fetches;
    /* Take what cannot be delivered; NULL: it is dropped. Borrowed, shared by all generations of one name. */
    struct dead_letters *dead_letters;
    bool
        no_delivery; /* a dry run: the dispatcher is made, but not given anything; what would be is delivered */
    /* For tools that replay: what became of an event, when the pipeline is through with it, on its thread. NULL: nobody asks. sequence is the bus's, counted from 1 by a memory bus; result: delivered, filtered,
     * dropped or dead_lettered, the latter two with a reason (rejected, transform_error, expired) and, if known, an error, else NULL. */
    void (*settled)(void *argument, struct slice event_id, uint64_t sequence, const char *result,
                    const char *reason, const char *error);
    void *settled_argument;
};

/* Starts the thread and waits until it has loaded. No event comes yet. Strings are copied. NULL: *error says why. */
struct pipeline *pipeline_new(const struct pipeline_settings *settings, struct error *error);
const char *pipeline_name(const struct pipeline *pipeline);
/* Events that it has not taken yet. Any thread, between pipeline_start() and pipeline_free(). */
size_t pipeline_queued(const struct pipeline *pipeline);
/* Its plugins keep so much memory that it cannot work on: a new state would do. Any thread, until pipeline_free(). */
bool pipeline_is_worn(const struct pipeline *pipeline);
/* Subscribes, begins. False: *error says why. */
bool pipeline_start(struct pipeline *pipeline, struct error *error);
/*
 * Instead of pipeline_start(): takes the place of another one of the same name, a new generation. What is queued and what comes is its own at once; it begins when the predecessor is freed. The predecessor begins
 * nothing any more: deliveries that run come to their end, what cannot be delivered by that is left to the successor. done(argument) is called once on the predecessor's thread when nothing is left, and it
 * is to be freed, or earlier, if that takes too long: what is under way then is tried again by the successor.
 * Where pipelines fetch their events themselves, the predecessor gives back what it did not deliver, and the successor fetches for itself.
 * False: the predecessor had not begun itself, still waiting for its own; it can be freed, and done is not called.
 */
bool pipeline_succeed(struct pipeline *pipeline, struct pipeline *predecessor, void (*done)(void *argument),
                      void *argument);
/* No more events come, from here on: deliver what waits; on a bus that keeps events until the first try that fails, which leaves the rest there. done(argument) is called once on the pipeline's thread when nothing is left. */
void pipeline_drain(struct pipeline *pipeline, void (*done)(void *argument), void *argument);
/* Stops now, joins, frees. What was not delivered, and is not left to a successor, is counted as dropped with the reason "shutdown", unless the bus keeps it. Returns how many. */
size_t pipeline_free(struct pipeline *pipeline);
/* Reopen files (SIGHUP). Does not wait. */
void pipeline_reopen_files(struct pipeline *pipeline);

#endif
