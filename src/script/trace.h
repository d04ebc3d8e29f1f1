/*
 * trace: where code is and how it came there, as its author sees it: calls of the runtime library (lua/llmproxy) and of C are left out.
 */
#ifndef SCRIPT_TRACE_H
#define SCRIPT_TRACE_H

#include <lua.h>
#include <stdbool.h>

/* Pushes "FILE:LINE" of the innermost call that the author wrote; false: there is none, and nothing is pushed. */
bool trace_push_place(lua_State *lua);
/* Pushes onto lua one line for each call of coroutine, the innermost first: "FILE:LINE in function 'NAME'"; "" when there is none. */
void trace_push(lua_State *lua, lua_State *coroutine);

/* Lua shortens long names of files in messages to "...end/of/it.lua:7: …": puts the whole name into the message on top of lua's stack, if a call of coroutine has it. */
void trace_complete_name(lua_State *lua, lua_State *coroutine);

#endif
