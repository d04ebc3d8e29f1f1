/*
 * entry: an event that was taken, in Lua's hands until it is settled. See host.h for what the loop does with it.
 *
 * The record is given back as soon as the loop has no use for it; where there are dead letters it is kept, since the event goes there as it entered the pipeline.
 *
 * What a pipeline leaves to its successor are legacies: the lines that transforms made of an event and that are not delivered yet.
 */
#ifndef PIPELINE_ENTRY_H
#define PIPELINE_ENTRY_H

#include <lua.h>

#include "pipeline/host.h"

/* Makes their type known to the state. May raise. */
void entry_register(lua_State *lua);
/* Pushes the next one: of the legacies, else of the bus. False: there is none, nothing was pushed. May raise. */
bool entry_take(struct host *host, lua_State *lua);
void entry_free_legacies(struct legacy *legacy);

#endif
