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

static struct slice path_for_upstream(const struct route *route, struct slice path)
{
    size_t prefix = route->strip_prefix ? strlen(route->prefix) : 0;
    return (struct slice){path.data + prefix, path.size - prefix};
}

bool route_target_is_safe(const struct route *route, struct slice path)
{
    return !slice_starts_with(path_for_upstream(route, path), SLICE("//"));
}

void route_write_target(const struct route *route, const struct http_request *request, struct buffer *out)
{
    size_t before = out->size;
    buffer_append_string(out, route->base_path);
    buffer_append_slice(out, path_for_upstream(route, request->path));
    if (out->size == before) {
        buffer_append_char(out, '/');
    }
    if (request->has_query) {
        buffer_append_char(out, '?');
        buffer_append_slice(out, request->query);
    }
}
