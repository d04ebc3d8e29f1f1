/*
 * event_read: an event's canonical JSON, decoded by llmproxy.json, as a record again: for events that were stored as JSON lines and are to go through a pipeline once more.
 *
 * It gives the same JSON again, with two exceptions: keys that no event has (what a transform added) are left out, and headers are in the order of their names.
 */
#ifndef PIPELINE_EVENT_READ_H
#define PIPELINE_EVENT_READ_H

#include <lua.h>

#include "base/error.h"
#include "event/event.h"

/* The table at index. NULL: *error names the key. Raises only when Lua's memory runs out. */
struct event_record *event_read(lua_State *lua, int index, struct error *error);

#endif
