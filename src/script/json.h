/*
 * json: JSON to Lua values and back, without loss. Bytes in, values on the stack; values in, bytes out.
 *
 *     JSON                         Lua
 *     object                       table; of equal keys the last wins; written with sorted keys
 *     array                        table marked by a metatable, so that [] is not {}; a plain table with the keys 1 to n is written as an array too, an empty one as {}
 *     string                       string; \u0000 is a byte 0, a lone surrogate escape U+FFFD. Written: bytes that are not UTF-8 become U+FFFD
 *     number                       number; an integer beyond 2^53, and what a double cannot hold (1e999), is a raw value: tostring() gives its text, and it is written as it was read
 *     true, false                  boolean
 *     null                         the light userdata NULL ("json.null"), for nil cannot be kept in a table
 *
 * A raw value is a userdata that holds JSON text. Nothing deeper than 128 levels is read. Written are 32 levels more: what was read can be put into
 * something larger, as a transform does. Beyond that is also where a table that contains itself ends.
 *
 * Nothing larger than the state's memory limit is written. These raise only when Lua's memory runs out, and script_json_encode() when its time does.
 */
#ifndef SCRIPT_JSON_H
#define SCRIPT_JSON_H

#include <lua.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/slice.h"

#define SCRIPT_JSON_MAX_DEPTH         128 /* read */
#define SCRIPT_JSON_MAX_WRITTEN_DEPTH 160

/* Appends the value at index. False: nothing is appended, and *error names the key: "choices[2].delta: cannot be written as JSON: a function". */
bool script_json_encode(lua_State *lua, int index, struct buffer *out, struct error *error);

/* Pushes the value of one JSON text (RFC 8259, in UTF-8, any value at the top). False: nothing is pushed, and *error says what is wrong at which byte, counted from 1. */
bool script_json_decode(lua_State *lua, struct slice text, struct error *error);

/* Whether text is one JSON text, by the same rules. Needs no Lua. */
bool script_json_check(struct slice text, struct error *error);

void script_json_push_null(lua_State *lua);
bool script_json_is_null(lua_State *lua, int index);
/* Marks the table at index as an array. */
void script_json_mark_array(lua_State *lua, int index);
/* A value that is written as text, which must be valid JSON. */
void script_json_push_raw(lua_State *lua, struct slice text);

/* The metatables of arrays and of raw values. */
void script_json_push_array_metatable(lua_State *lua);
void script_json_push_raw_metatable(lua_State *lua);

#endif
