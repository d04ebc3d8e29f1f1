/*
 * convert: see convert.h. Every function leaves the stack as it found it.
 */
#include "config/convert.h"

#include <lauxlib.h>
#include <openssl/sha.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/memory.h"
#include "config/host.h"
#include "proxy/redact.h"

char *convert_string(lua_State *lua, const char *key)
{
    lua_getfield(lua, -1, key);
    const char *text = lua_tostring(lua, -1);
    char *copy = text != NULL ? xstrdup(text) : NULL;
    lua_pop(lua, 1);
    return copy;
}

static double number(lua_State *lua, const char *key)
{
    lua_getfield(lua, -1, key);
    double value = lua_tonumber(lua, -1);
    lua_pop(lua, 1);
    return value;
}

size_t convert_size(lua_State *lua, const char *key)
{
    return (size_t)number(lua, key);
}

bool convert_boolean(lua_State *lua, const char *key)
{
    lua_getfield(lua, -1, key);
    bool value = lua_toboolean(lua, -1);
    lua_pop(lua, 1);
    return value;
}

static uint64_t duration_ns(lua_State *lua, const char *key)
{
    return (uint64_t)(number(lua, key) * (double)NANOSECONDS_PER_SECOND + 0.5);
}

char **convert_strings(lua_State *lua, const char *key, size_t *count)
{
    lua_getfield(lua, -1, key);
    *count = lua_istable(lua, -1) ? lua_objlen(lua, -1) : 0;
    char **strings = xcalloc(*count + 1, sizeof *strings);
    for (size_t i = 0; i < *count; i++) {
        lua_rawgeti(lua, -1, (int)i + 1);
        strings[i] = xstrdup(lua_tostring(lua, -1));
        lua_pop(lua, 1);
    }
    lua_pop(lua, 1);
    return strings;
}

void convert_free_strings(char **strings)
{
    for (char **string = strings; string != NULL && *string != NULL; string++) {
        free(*string);
    }
    free(strings);
}

/* The field is a list of addresses, checked already. */
static struct address address_of(const char *text)
{
    struct address address = {0};
    struct error error;
    bool known = address_parse(text, &address, &error);
    assert(known);
    (void)known;
    return address;
}

static void convert_addresses(lua_State *lua, struct config *config)
{
    char **listen = convert_strings(lua, "listen", &config->listen_count);
    config->listen = xcalloc(config->listen_count, sizeof *config->listen);
    for (size_t i = 0; i < config->listen_count; i++) {
        config->listen[i] = address_of(listen[i]);
    }
    convert_free_strings(listen);

    char *admin = convert_string(lua, "admin"); /* NULL: false */
    config->has_admin = admin != NULL;
    if (admin != NULL) {
        config->admin = address_of(admin);
    }
    free(admin);
    size_t count;
    config->admin_token = convert_string(lua, "admin_token");
    config->admin_hosts = convert_strings(lua, "admin_hosts", &count);
}

static struct proxy_timeouts convert_timeouts(lua_State *lua)
{
    lua_getfield(lua, -1, "timeouts");
    struct proxy_timeouts timeouts = {
        .request_head = duration_ns(lua, "request_head"),
        .request_idle = duration_ns(lua, "request_idle"),
        .keep_alive = duration_ns(lua, "keep_alive"),
        .upstream_idle = duration_ns(lua, "upstream_idle"),
        .connect = duration_ns(lua, "connect"),
        .response = duration_ns(lua, "response"),
        .response_idle = duration_ns(lua, "response_idle"),
        .write = duration_ns(lua, "write"),
    };
    lua_pop(lua, 1);
    return timeouts;
}

static void convert_headers(lua_State *lua, struct route *route)
{
    lua_getfield(lua, -1, "headers");
    size_t count = lua_objlen(lua, -1);
    route->headers = xcalloc(count, sizeof *route->headers);
    for (; route->header_count < count; route->header_count++) {
        struct route_header *header = &route->headers[route->header_count];
        lua_rawgeti(lua, -1, (int)route->header_count + 1);
        header->name = convert_string(lua, "name");
        header->value = convert_string(lua, "value"); /* NULL: false, removes */
        lua_pop(lua, 1);
        if (header->value != NULL && redact_is_credential_field(slice_of(header->name))) {
            route->sets_credential = true;
        }
    }
    lua_pop(lua, 1);
}

/* NULL when there is none. */
static struct tunnel_proxy *convert_forward_proxy(lua_State *lua)
{
    struct tunnel_proxy *proxy = NULL;
    lua_getfield(lua, -1, "proxy");
    if (lua_istable(lua, -1)) {
        proxy = xcalloc(1, sizeof *proxy);
        proxy->host = convert_string(lua, "host");
        proxy->port = (uint16_t)number(lua, "port");
        proxy->request = convert_string(lua, "request");
    }
    lua_pop(lua, 1);
    return proxy;
}

static void convert_route(lua_State *lua, struct route *route)
{
    route->name = convert_string(lua, "name");
    route->prefix = convert_string(lua, "prefix");
    route->configured_prefix = convert_string(lua, "configured_prefix");
    route->upstream = convert_string(lua, "upstream");
    route->host = convert_string(lua, "host");
    route->port = (uint16_t)number(lua, "port");
    route->authority = convert_string(lua, "authority");
    route->base_path = convert_string(lua, "base_path");
    route->strip_prefix = convert_boolean(lua, "strip_prefix");
    convert_headers(lua, route);
    route->forwarded = convert_boolean(lua, "forwarded");
    route->timeouts = convert_timeouts(lua);
    lua_getfield(lua, -1, "tls");
    route->tls = config_take_tls(lua, -1);
    lua_pop(lua, 1);
    route->proxy = convert_forward_proxy(lua);
    route->capture = convert_boolean(lua, "capture");
    route->half_close = convert_boolean(lua, "half_close");
    route->retry_stale = convert_boolean(lua, "retry_stale");
    route->max_connections = convert_size(lua, "max_connections");
}

static void convert_routes(lua_State *lua, struct proxy_settings *proxy)
{
    lua_getfield(lua, -1, "routes");
    size_t count = lua_objlen(lua, -1);
    proxy->routes = xcalloc(count, sizeof *proxy->routes);
    for (; proxy->route_count < count; proxy->route_count++) {
        lua_rawgeti(lua, -1, (int)proxy->route_count + 1);
        convert_route(lua, &proxy->routes[proxy->route_count]);
        lua_pop(lua, 1);
    }
    lua_pop(lua, 1);
}

static struct network_list convert_networks(lua_State *lua, const char *key)
{
    struct network_list list;
    char **texts = convert_strings(lua, key, &list.count);
    list.items = xcalloc(list.count, sizeof *list.items);
    for (size_t i = 0; i < list.count; i++) {
        bool known = network_parse(slice_of(texts[i]), &list.items[i]);
        assert(known);
        (void)known;
    }
    convert_free_strings(texts);
    return list;
}

static void convert_tokens(lua_State *lua, struct proxy_settings *proxy)
{
    lua_getfield(lua, -1, "tokens");
    size_t count = lua_objlen(lua, -1);
    proxy->tokens = xcalloc(count, sizeof *proxy->tokens);
    for (; proxy->token_count < count; proxy->token_count++) {
        struct client_token *token = &proxy->tokens[proxy->token_count];
        lua_rawgeti(lua, -1, (int)proxy->token_count + 1);
        token->name = convert_string(lua, "name");
        lua_getfield(lua, -1, "secret");
        size_t size;
        const char *secret = lua_tolstring(lua, -1, &size);
        SHA256((const unsigned char *)secret, size, token->digest);
        lua_pop(lua, 2);
    }
    lua_pop(lua, 1);
}

static void convert_clients(lua_State *lua, struct proxy_settings *proxy)
{
    proxy->trusted_proxies = convert_networks(lua, "trusted_proxies");
    lua_getfield(lua, -1, "clients");
    proxy->networks = convert_networks(lua, "networks");
    convert_tokens(lua, proxy);
    lua_pop(lua, 1);
}

static void convert_limits(lua_State *lua, struct config *config)
{
    struct proxy_settings *proxy = config->proxy;
    lua_getfield(lua, -1, "limits");
    proxy->http = (struct http_limits){
        .max_head_bytes = convert_size(lua, "max_head_bytes"),
        .max_headers = convert_size(lua, "max_headers"),
        .max_target_bytes = convert_size(lua, "max_target_bytes"),
    };
    proxy->max_body_bytes = convert_size(lua, "max_body_bytes");
    proxy->max_connections = convert_size(lua, "max_connections");
    proxy->max_connections_per_client = convert_size(lua, "max_connections_per_client");
    config->default_max_connections = convert_boolean(lua, "default_max_connections");
    proxy->max_requests_per_connection = convert_size(lua, "max_requests_per_connection");
    lua_pop(lua, 1);
}

static void convert_log(lua_State *lua, struct config *config)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"}; /* as enum log_level */
    lua_getfield(lua, -1, "log");
    char *level = convert_string(lua, "level");
    char *format = convert_string(lua, "format");
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (strcmp(level, levels[i]) == 0) {
            config->log_level = (enum log_level)i;
        }
    }
    config->log_format = strcmp(format, "json") == 0 ? LOG_JSON : LOG_TEXT;
    config->proxy->access_log = convert_boolean(lua, "access");
    free(level);
    free(format);
    lua_pop(lua, 1);
}

static void lower(char **names)
{
    for (; *names != NULL; names++) {
        for (char *c = *names; *c != '\0'; c++) {
            *c = ascii_lower(*c);
        }
    }
}

/* The fields of observability that the bus is made of. */
static void convert_bus(lua_State *lua, const char *name, struct config *config)
{
    struct config_bus *bus = &config->bus;
    bus->kind = strcmp(name, "disk") == 0 ? CONFIG_BUS_DISK : CONFIG_BUS_MEMORY;
    config->buffer_events = convert_size(lua, "buffer_size");
    config->buffer_bytes = convert_size(lua, "buffer_bytes");
    if (bus->kind != CONFIG_BUS_DISK) {
        return;
    }
    lua_getfield(lua, -1, "bus");
    if (bus->plugin != NULL) {
        lua_getfield(lua, -1, "queue");
        lua_remove(lua, -2);
    }
    bus->path = convert_string(lua, "path");
    bus->max_bytes = convert_size(lua, "max_bytes");
    bus->max_age_ns = duration_ns(lua, "max_age");
    bus->commit_interval_ns = duration_ns(lua, "commit_interval");
    char *overflow = convert_string(lua, "overflow");
    bus->drop_oldest = strcmp(overflow, "drop_oldest") == 0;
    free(overflow);
    config->proxy->audit = convert_boolean(lua, "audit");
    lua_pop(lua, 1);
}

static void convert_dead_letters(lua_State *lua, struct config_dead_letters *letters)
{
    lua_getfield(lua, -1, "dead_letters");
    letters->path = convert_string(lua, "path"); /* NULL: none */
    letters->without_bodies = !convert_boolean(lua, "bodies");
    letters->max_bytes = convert_size(lua, "max_bytes");
    letters->max_age_ns = duration_ns(lua, "max_age");
    lua_pop(lua, 1);
}

static void convert_observability(lua_State *lua, struct config *config)
{
    struct proxy_settings *proxy = config->proxy;
    char *bus = convert_string(lua, "bus");
    config->bus.plugin = convert_string(lua, "bus_plugin");
    lua_getfield(lua, -1, "observability");
    convert_bus(lua, bus, config);
    free(bus);
    convert_dead_letters(lua, &config->dead_letters);
    config->max_decoded_bytes = convert_size(lua, "max_decoded_bytes");
    proxy->observe = convert_boolean(lua, "enabled");
    proxy->max_request_body_bytes = convert_size(lua, "max_request_body_bytes");
    proxy->max_response_body_bytes = convert_size(lua, "max_response_body_bytes");
    proxy->capture_memory = convert_size(lua, "capture_memory");

    lua_getfield(lua, -1, "redact");
    proxy->redact_headers = convert_strings(lua, "headers", &proxy->redact_header_count);
    proxy->redact_query = convert_strings(lua, "query", &proxy->redact_query_count);
    lower(proxy->redact_headers);
    lower(proxy->redact_query);
    lua_pop(lua, 1);

    lua_getfield(lua, -1, "fingerprint_key");
    struct slice key;
    key.data = lua_tolstring(lua, -1, &key.size);
    config->random_fingerprint_key = key.data == NULL;
    if (key.data != NULL) {
        SHA256((const unsigned char *)key.data, key.size, proxy->fingerprint_key);
    } else {
        random_bytes(proxy->fingerprint_key, sizeof proxy->fingerprint_key);
    }
    lua_pop(lua, 2);
}

void convert_settings(lua_State *lua, struct config *config)
{
    config->proxy = xcalloc(1, sizeof *config->proxy);
    reference_init(&config->proxy->references);
    convert_addresses(lua, config);
    config->workers = convert_size(lua, "workers");
    config->shutdown_timeout_ns = duration_ns(lua, "shutdown_timeout");
    config->shutdown_delay_ns = duration_ns(lua, "shutdown_delay");
    config->proxy->timeouts = convert_timeouts(lua);
    convert_routes(lua, config->proxy);
    convert_clients(lua, config->proxy);
    convert_limits(lua, config);
    convert_log(lua, config);
    convert_observability(lua, config);
}
