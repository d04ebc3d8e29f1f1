/*
 * host: what the Lua side of the configuration asks of C. One table of functions, handed to lua/llmproxy/config.lua only; neither the configuration file nor plugins see it.
 *
 *     read(path)                 -> text | nil, message
 *     exists(path)               -> boolean
 *     list(folder)               -> names in it, sorted | nil when it is no folder | nil, why it cannot be read
 *     environment(name)          -> value | nil
 *     environment_names()        -> names of all variables
 *     address(text)              -> true, whether only this machine reaches it | false
 *     ip(text)                   -> the bytes of an IP address, 4 or 16 | nil
 *     network(text)              -> whether it is a network in CIDR notation
 *     tls(settings, host)        -> a TLS context | nil, message
 *     is_secret_field(name)      -> whether a header of that name carries a secret
 *     ffi()                      -> LuaJIT's library of that name, for a plugin that the configuration trusts
 *     origin(function)           -> file, first line, last line | nil for one that is not from a file
 *     run(function, argument)    -> true, value | false, message: as pcall, but the message is a text that names the limit of memory; when plugins are described, for a limited time
 */
#ifndef CONFIG_HOST_H
#define CONFIG_HOST_H

#include <lua.h>

#include "net/tls.h"

/* Leaves the table on the stack. run_seconds: how long run() lets a function run; 0: as long as its caller may. */
void config_push_host(lua_State *lua, double run_seconds);
/* Takes over the TLS context at index, which host.tls() made; NULL when there is none. */
struct tls *config_take_tls(lua_State *lua, int index);

#endif
