/*
 * loopback: the server that specs of llmproxy.http talk to: it takes each request whole, keeps it, and answers with the very bytes it was given, so that broken answers can be tried as well. On the runner's loop.
 *
 * In Lua: server = testing_host.listen { tls = false, answers = { { text = "HTTP/1.1 200 OK\r\n…", delay = 0.1, close = true }, … } }. The n-th request gets the n-th answer, those after the last one the last.
 *
 *     server.port            server:requests() -> list of strings        server:connections() -> how many there were
 */
#ifndef TESTS_LOOPBACK_H
#define TESTS_LOOPBACK_H

#include <lua.h>

/* The host function `listen`. */
int loopback_listen(lua_State *lua);
/* The PEM file of the certificate that a server with tls shows; made at the first call, in folder. For the names localhost and 127.0.0.1. */
const char *loopback_certificate(const char *folder);

#endif
