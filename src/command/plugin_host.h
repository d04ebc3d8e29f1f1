/*
 * plugin_host: what the tools for plugins, `test` and `run-transform`, ask of C (lua/llmproxy/testing). One table of functions; plugins and specs do not see it. To config/host.h's functions it adds:
 *
 *     print(text)                 a line on the standard output
 *     place()                     "FILE:LINE" of the innermost code that is not of the runtime library; nil: there is none
 *     message(raised)             what was raised as a text, with the whole names of files
 *     relieve()                   collects what code that ran out of memory left behind
 *     trace()                     where the code that runs was called from, a line for each call, without calls of the runtime library
 *     spawn(work, value, failed)  runs work(value, false) as a task; each time it raises, failed(message), then anew as work(value, true)
 *     call_outside(function)      calls it where nothing can wait, as when plugins are loaded -> true | false, message
 *     intercept(answer)           what llmproxy.http is to send goes to answer(method, options, url), which returns a response, nil and a message, or false: it is really sent
 *     record(event)               the record of an event in canonical form
 *     event(record)               its table, as transforms get it
 *     encode(value, record)       its JSON; record: of the event that it was, so that it is written in canonical form -> text | nil, message
 */
#ifndef COMMAND_PLUGIN_HOST_H
#define COMMAND_PLUGIN_HOST_H

#include <lua.h>

/* Leaves the table on the stack; raises only when Lua's memory runs out. */
int plugin_host_push(lua_State *lua);

#endif
