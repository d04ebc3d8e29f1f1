/*
 * modules: the host modules every script has. Each mod_X.c defines its script_open_X, which leaves the module's table on the stack; it runs at the first `require` of the module in a state.
 */
#ifndef SCRIPT_MODULES_H
#define SCRIPT_MODULES_H

#include <lua.h>

struct script_module {
    const char *name; /* as in require: "llmproxy.json" */
    lua_CFunction open;
};

/* Ends with a row whose name is NULL. */
extern const struct script_module script_modules[];

int script_open_json(lua_State *lua);
int script_open_log(lua_State *lua);
int script_open_time(lua_State *lua);
int script_open_file(lua_State *lua);
int script_open_http(lua_State *lua);
int script_open_crypto(lua_State *lua);
int script_open_codec(lua_State *lua);
int script_open_metrics_series(lua_State *lua);
int script_open_regex(lua_State *lua);

#endif
