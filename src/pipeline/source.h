/*
 * source: what the runtime library (llmproxy.pipeline.source) asks of C to fill a pipeline's inbox with what a bus plugin fetches, and to acknowledge there what the pipeline is through with. In the table of host.h:
 *
 *     host.consumer              a name for this pipeline of this process
 *     host.put(event)            an event (JSON text, or a table as llmproxy.json makes) comes in: its sequence, or nil and why it cannot be read
 *     host.unreadable()          counts an event that came in and cannot be read
 *     host.room()                how many more may come in now
 *     host.wait_for_room(seconds)      waits until there may be more room, or source_wake() otherwise had a reason, or (if given) the time is over
 *     host.settled()             a list of sequences of events that the pipeline is through with, each told once
 *     host.settled_count()       how many there are
 *     host.wait_for_settled(seconds)   likewise, until there may be some
 *     host.wake_source()         ends both waits
 *     host.keep_letters()        makes durable what was written as dead letters: their events are then settled. Blocks
 *     host.bus_error(operation)  counts a call of the plugin that failed
 *     host.lag(events)           how many wait for this pipeline where they are fetched from
 */
#ifndef PIPELINE_SOURCE_H
#define PIPELINE_SOURCE_H

#include <lua.h>

#include "pipeline/gate.h"

struct host;

struct source {
    struct gate room, settled;
};

void source_setup(struct source *source, struct loop *loop);
void source_release(struct source *source);
/* Something was taken or settled, or the pipeline is to end. */
void source_wake(struct source *source);
/* Adds the functions to the table on top of the stack; raises only when Lua's memory runs out. */
void source_push(lua_State *lua, struct host *host);

#endif
