/*
 * settings: the lifetime of a snapshot.
 */
#include "proxy/settings.h"

#include <stdlib.h>

struct proxy_settings *proxy_settings_reference(struct proxy_settings *settings)
{
    reference_take(&settings->references);
    return settings;
}

static void free_strings(char **strings, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(strings[i]);
    }
    free(strings);
}

static void route_free(struct route *route)
{
    free(route->name);
    free(route->prefix);
    free(route->configured_prefix);
    free(route->upstream);
    free(route->host);
    free(route->authority);
    free(route->base_path);
    for (size_t i = 0; i < route->header_count; i++) {
        free(route->headers[i].name);
        free(route->headers[i].value);
    }
    free(route->headers);
    if (route->tls != NULL) {
        tls_free(route->tls);
    }
    tunnel_proxy_free(route->proxy);
}

void proxy_settings_release(struct proxy_settings *settings)
{
    if (settings == NULL || !reference_release(&settings->references)) {
        return;
    }
    for (size_t i = 0; i < settings->route_count; i++) {
        route_free(&settings->routes[i]);
    }
    free(settings->routes);
    for (size_t i = 0; i < settings->token_count; i++) {
        free(settings->tokens[i].name);
    }
    free(settings->tokens);
    free(settings->networks.items);
    free(settings->trusted_proxies.items);
    free_strings(settings->redact_headers, settings->redact_header_count);
    free_strings(settings->redact_query, settings->redact_query_count);
    free(settings);
}
