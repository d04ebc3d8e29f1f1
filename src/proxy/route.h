/*
 * route: which upstream a request goes to, and under which target. Bytes in, bytes out.
 */
#ifndef PROXY_ROUTE_H
#define PROXY_ROUTE_H

#include "base/buffer.h"
#include "http/head.h"
#include "proxy/settings.h"

/* The route with the longest prefix that matches path on segment boundaries ("/v1" takes "/v1" and "/v1/x", not "/v1x"). NULL: none, or path is "*". */
const struct route *route_find(const struct proxy_settings *settings, struct slice path);

/* Without its prefix a path can begin with "//", which is no path but the name of a host (RFC 3986 4.2): false. */
bool route_target_is_safe(const struct route *route, struct slice path);

/* Appends the request-target for the upstream: the route's base path, the path as received (without the prefix when it is to be stripped), the query as received. */
void route_write_target(const struct route *route, const struct http_request *request, struct buffer *out);

#endif
