/* mod_http: what the tools for testing plugins need of llmproxy.http. */
#ifndef SCRIPT_MOD_HTTP_H
#define SCRIPT_MOD_HTTP_H

#include <lua.h>

/*
 * From now on what llmproxy.http of this state is to send goes to the function on top of the stack, which is taken: answer(method, options, url), the options having been checked as always, url with its query. It returns a response
 * ({ status, headers, body, truncated }), or nil and a message, as llmproxy.http returns them; or false: the request is really sent. It may raise, and may not wait.
 */
void http_intercept(lua_State *lua);

#endif
