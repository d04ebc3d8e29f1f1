/*
 * settings: what the proxy is told, checked and complete, as one immutable snapshot. Made by config/ on the main thread; an exchange holds a reference to the
 * snapshot it began with, so a reload never changes a running one. Any thread may read; the last one to release frees.
 */
#ifndef PROXY_SETTINGS_H
#define PROXY_SETTINGS_H

#include "base/reference.h"
#include "base/slice.h"
#include "http/head.h"
#include "net/network.h"
#include "net/tls.h"
#include "net/tunnel.h"

struct proxy_timeouts { /* nanoseconds */
    uint64_t request_head, request_idle, keep_alive, upstream_idle, connect, response, response_idle, write;
};

struct route_header {
    char *name;  /* as written to the upstream */
    char *value; /* NULL: removed */
};

struct route {
    char *name;
    char *prefix;            /* without the last '/', so that "/v1" and "/v1/" are alike; "" is the root */
    char *configured_prefix; /* for people; may be NULL */
    char *upstream;          /* as configured, for events: scheme://authority[/path] */
    char *host;              /* to connect to */
    uint16_t port;
    char *authority; /* for Host: host[:port] without a default port */
    char *base_path; /* path of the upstream URL without a last '/': "" or "/api" */
    bool strip_prefix;
    struct route_header *headers;
    size_t header_count;
    bool
        sets_credential; /* one of headers is a credential field (see redact.h): the client's credentials are removed */
    bool forwarded; /* adds X-Forwarded-For/-Proto/-Host */
    struct proxy_timeouts timeouts;
    struct tls *tls;            /* owned; NULL: http */
    struct tunnel_proxy *proxy; /* owned; the forward proxy on the way there; NULL: direct */
    bool capture, half_close, retry_stale;
    size_t max_connections; /* 0: none */
    _Atomic size_t
        connections; /* to this upstream, in use, of all workers: the one thing here that changes */
};

/* Somebody who may come in. */
struct client_token {
    char *name;
    unsigned char digest[32]; /* SHA-256 of the secret, which is not kept */
};

struct proxy_settings {
    struct reference references;
    uint64_t generation;  /* grows with each reload: pools of older ones are emptied */
    struct route *routes; /* longest prefix first */
    size_t route_count;
    struct http_limits http;
    uint64_t max_body_bytes;              /* 0: none */
    size_t max_connections;               /* for all workers together */
    size_t max_connections_per_client;    /* 0: none */
    uint64_t max_requests_per_connection; /* 0: none */
    struct client_token *tokens;          /* without any nobody is asked for one */
    size_t token_count;
    struct network_list networks;        /* clients come from there; without any from everywhere */
    struct network_list trusted_proxies; /* whose X-Forwarded-For is believed */
    struct proxy_timeouts
        timeouts; /* of the listener: request_head, keep_alive, write; the rest are the routes' defaults */
    bool access_log;

    bool observe; /* false: no event is built */
    bool audit;   /* the end of each response is held back until its event is stored (audit.h) */
    size_t max_request_body_bytes, max_response_body_bytes; /* kept */
    uint64_t capture_memory;
    char **redact_headers; /* lower-case names, added to the built-in ones */
    size_t redact_header_count;
    char **redact_query;
    size_t redact_query_count;
    unsigned char fingerprint_key[32]; /* SHA-256 of the configured key, or random */
};

struct proxy_settings *proxy_settings_reference(struct proxy_settings *settings);
/* Frees strings, routes and TLS contexts with the last reference. */
void proxy_settings_release(struct proxy_settings *settings);

#endif
