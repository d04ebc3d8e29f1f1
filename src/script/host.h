/*
 * host: what C functions that Lua calls have in common: their full names, the checks of their arguments, places to put bytes.
 *
 * A function made by script_new_module() or script_set_functions() knows its full name ("llmproxy.time.sleep"), and every complaint begins with it:
 *
 *     llmproxy.time.sleep: seconds: expected a number, got string
 *
 * All of these raise Lua errors, so nothing may be held that Lua does not free when they are called.
 */
#ifndef SCRIPT_HOST_H
#define SCRIPT_HOST_H

#include <lauxlib.h>
#include <lua.h>

#include "base/buffer.h"
#include "script/script.h"

/* Leaves a new table with the functions on the stack. */
void script_new_module(lua_State *lua, const char *name, const luaL_Reg *functions);
/* Adds functions named "PREFIX.NAME" (a prefix that ends in ":" gets no dot: "file:write") to the table on top of the stack. */
void script_set_functions(lua_State *lua, const char *prefix, const luaL_Reg *functions);
/* Gives the C function on top of the stack the name "PREFIX.NAME": for closures, which the two above do not make. */
void script_name_function(lua_State *lua, const char *prefix, const char *name);
/* The full name of the running C function; "?" when it has none. */
const char *script_function_name(lua_State *lua);

/* Raises "NAME: message", with the place in the Lua code that called. */
_Noreturn void script_raise(lua_State *lua, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Raises "NAME: argument: expected EXPECTED, got TYPE". */
_Noreturn void script_argument_error(lua_State *lua, int index, const char *argument, const char *expected);

double script_check_number(lua_State *lua, int index, const char *argument);
/* Of a string (or a number, as Lua would), borrowed while it stays on the stack. */
struct slice script_check_string(lua_State *lua, int index, const char *argument);
/* The same without NUL bytes inside: for paths and names given to C. */
const char *script_check_text(lua_State *lua, int index, const char *argument);
void script_check_table(lua_State *lua, int index, const char *argument);

/* Returns 2 with nil and the message on the stack: what a function that can fail returns. */
int script_fail(lua_State *lua, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Raises as script_wait() would, for functions that must allocate before they wait. */
void script_check_wait(lua_State *lua);
/* Raises when no task runs: for input and output that does not wait, but shall not happen while plugins are loaded. */
void script_check_task(lua_State *lua);

/* Around what may block the thread for as long as a disk or a reader takes: the watchdog does not count it, for the code that called is not at fault. Nothing may raise in between. */
uint64_t script_begin_blocking(lua_State *lua);
void script_end_blocking(lua_State *lua, uint64_t begun);

/* An empty buffer of the script's that survives an error: no leak when Lua raises. One for each use that does not nest: 0 the JSON text that is written or the string that is read, 1 the keys of its objects,
 * 2 any module, within one host function. */
enum script_scratch { SCRIPT_SCRATCH_TEXT, SCRIPT_SCRATCH_KEYS, SCRIPT_SCRATCH_MODULE, SCRIPT_SCRATCH_COUNT };
struct buffer *script_scratch(lua_State *lua, enum script_scratch which);

/* Raises when the watchdog would stop the code that called: for host functions that compute for long, which it cannot interrupt. */
void script_check_time(lua_State *lua);

/* How often script_reopen_files() was called. */
unsigned script_reopen_count(const struct script *script);

#endif
