/*
 * route: the list is short and ordered by length of the prefix, so the first match is the right one.
 */
#include "proxy/route.h"

static bool matches(const struct route *route, struct slice path)
{
    struct slice prefix = slice_of(route->prefix);
    return slice_starts_with(path, prefix) && (path.size == prefix.size || path.data[prefix.size] == '/');
}

const struct route *route_find(const struct proxy_settings *settings, struct slice path)
{
    for (size_t i = 0; i < settings->route_count; i++) {
        if (path.size > 0 && path.data[0] == '/' && matches(&settings->routes[i], path)) {
            return &settings->routes[i];
        }
    }
    return NULL;
}

void route_write_target(const struct route *route, const struct http_request *request, struct buffer *out)
{
    struct slice path = request->path;
    size_t before = out->size;
    if (route->strip_prefix) {
        size_t prefix = strlen(route->prefix);
        path = (struct slice){path.data + prefix, path.size - prefix};
    }
    buffer_append_string(out, route->base_path);
    buffer_append_slice(out, path);
    if (out->size == before) {
        buffer_append_char(out, '/');
    }
    if (request->has_query) {
        buffer_append_char(out, '?');
        buffer_append_slice(out, request->query);
    }
}
