/*
 * http_client: HTTP requests for Lua, many at a time, on one loop: libcurl's multi interface driven by libevent. It knows no Lua.
 *
 * An answer is given whole, or in pieces as it comes (on_data): then its rest is in the body of the response that ends it.
 *
 * HTTP/1.1, and HTTP/2 where TLS negotiates it; connections are kept and used again; names are looked up by libcurl's helper threads, and neither a cancel nor a time-out waits for them. No redirect is followed, no
 * netrc and no cookie is read, nothing but http and https is spoken. TLS 1.2 or newer, verified against the same bundle as the proxy's upstreams. A proxy from the environment (https_proxy, no_proxy, …) is used.
 *
 * As with any HTTP client, a request whose reused connection turns out to be closed is sent again on a new one. SIGPIPE must be ignored in the process: libcurl leaves signals alone here.
 */
#ifndef SCRIPT_HTTP_CLIENT_H
#define SCRIPT_HTTP_CLIENT_H

#include "base/slice.h"
#include "net/loop.h"

struct http_client;
struct http_client_transfer;

struct http_client_request { /* strings end in NUL and are borrowed for the call */
    const char *method;
    const char *url;
    const struct name_value *headers; /* checked: names are tokens, values have no CR, LF or NUL */
    size_t header_count;
    struct slice body;
    bool has_body;
    double timeout_s; /* for all of it; 0: none */
    double connect_timeout_s;
    double idle_timeout_s; /* without a byte of the answer; 0: none */
    size_t max_response_bytes;
    const char *ca_file; /* NULL: SSL_CERT_FILE, else the system's bundle */
    bool insecure;
    const char *client_cert, *client_key; /* PEM; NULL: none, in client_cert */
    const char *proxy;                    /* NULL: as the environment says; "": none */
    /* NULL: the answer is kept until it is whole. Else called when its head is known and when there is more of its body, which waits to be taken; when nobody takes it the sender has to wait. Never within
     * http_client_start(), _take() and _cancel(). */
    void (*on_data)(void *owner);
};

struct http_client_response { /* valid during the call */
    const char
        *error; /* NULL: there is a response. Else why not, with the address but without its query and user */
    unsigned status;
    struct slice head; /* lines "name: value\n", names in lower case */
    struct slice body;
    bool truncated; /* there was more than max_response_bytes; the rest was not read */
};

struct http_client *http_client_new(struct loop *loop);
/* Cancels what is running. */
void http_client_free(struct http_client *client);

/* done is called exactly once, never before this returns, unless the transfer is cancelled. It may start others. */
struct http_client_transfer *
http_client_start(struct http_client *client, const struct http_client_request *request,
                  void (*done)(void *owner, const struct http_client_response *response), void *owner);
/* Of a transfer with on_data. Whether the head is known; it is borrowed. */
bool http_client_head(const struct http_client_transfer *transfer, unsigned *status, struct slice *head);
/* What there is of the body, borrowed until http_client_took(), which lets more come. */
struct slice http_client_pending(const struct http_client_transfer *transfer);
void http_client_took(struct http_client_transfer *transfer);
/* Will not call back. */
void http_client_cancel(struct http_client_transfer *transfer);

#endif
