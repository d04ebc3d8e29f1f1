/*
 * pattern: string.find, match, gmatch and gsub, with the same results and messages as LuaJIT's, but such that runaway patterns can be stopped.
 *
 * The interpreter's own are C code that nothing interrupts, and a pattern as ".-.-.-.-b" takes the fourth power of its text's length. Here every few thousand steps the watchdog's limit is looked at. Plain texts are
 * searched for in linear time.
 */
#ifndef SCRIPT_PATTERN_H
#define SCRIPT_PATTERN_H

#include <lua.h>

/* Replaces the four functions in the table (string) on top of the stack. */
void pattern_open(lua_State *lua);

#endif
