/*
 * convert: from what lua/llmproxy/config.lua returns to C structs.
 *
 * The table was checked there, so a value of another type than expected cannot be. What is filled in so far belongs to the struct also when Lua raises an error in between (out of memory): the caller frees it.
 */
#ifndef CONFIG_CONVERT_H
#define CONFIG_CONVERT_H

#include "config/config.h"

/* The field key of the table on top of the stack. Strings are the caller's; NULL when there is none. */
char *convert_string(lua_State *lua, const char *key);
size_t convert_size(lua_State *lua, const char *key); /* 0 when there is none */
bool convert_boolean(lua_State *lua, const char *key);
/* A list of strings, NULL-terminated (also when there is none). */
char **convert_strings(lua_State *lua, const char *key, size_t *count);
void convert_free_strings(char **strings);

/* The table on top of the stack is the result's `settings`. */
void convert_settings(lua_State *lua, struct config *config);

#endif
