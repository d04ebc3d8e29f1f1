/* mod_http: what the parts of llmproxy.http need of each other, and the tools for testing plugins of it. */
#ifndef SCRIPT_MOD_HTTP_H
#define SCRIPT_MOD_HTTP_H

#include <lua.h>

#include "script/http_client.h"

/*
 * From now on what llmproxy.http of this state is to send goes to the function on top of the stack, which is taken: answer(method, options, url), the options having been checked as always, url with its query. It returns a response
 * ({ status, headers, body, truncated }), or nil and a message, as llmproxy.http returns them; or false: the request is really sent. It may raise, and may not wait.
 */
void http_intercept(lua_State *lua);

/* Reads the options at 1; raises. Leaves what the request borrows on the stack. method NULL: that of the options, else GET. */
void http_read_request(lua_State *lua, const char *method, struct http_client_request *request);
/* Whether somebody answers instead; then the two results are on the stack. */
bool http_is_intercepted(lua_State *lua, const struct http_client_request *request);
bool http_is_address(struct slice url);
/* The client of this state; freed with it. */
struct http_client *http_client_of(lua_State *lua);
/* Pushes a table with the headers: lines "name: value\n". */
void http_push_headers(lua_State *lua, struct slice head);

/* http.stream */
int http_stream(lua_State *lua);

#endif
