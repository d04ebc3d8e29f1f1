/*
 * forward: the heads that cross the proxy, rebuilt for the next hop. What was received is never copied as text: fields are taken apart, those of this hop are left
 * out, framing is our own. Bytes in, bytes out.
 */
#ifndef PROXY_FORWARD_H
#define PROXY_FORWARD_H

#include "base/buffer.h"
#include "http/head.h"
#include "proxy/settings.h"

#define FORWARD_REQUEST_ID_SIZE 129

/* The client's X-Request-Id when there is exactly one of [A-Za-z0-9._:/+=@-]{1,128}, else a new UUIDv7. Written to out as a string. */
void forward_request_id(const struct http_request *request, char out[FORWARD_REQUEST_ID_SIZE]);

/* Has a request passed this proxy before (its name is in Via)? via_name: the proxy's own. */
bool forward_is_loop(const struct http_request *request, struct slice via_name);

struct forward_request {
    const struct http_request *request;
    const struct route *route;
    const char *request_id;
    const char *via_name;
    const char *client;                    /* the peer's address with its port */
    const struct proxy_settings *settings; /* whose tokens stay here */
    bool trusted; /* the peer is a proxy whose X-Forwarded-* are believed, and added to */
};

/* Appends the whole head for the upstream: request line, Host, the client's fields in their order, Via, X-Request-Id, the route's fields, framing. A field that
 * carries a token of this proxy is left out. */
void forward_write_request(const struct forward_request *forward, struct buffer *out);

enum forward_framing { FORWARD_NONE, FORWARD_LENGTH, FORWARD_CHUNKED, FORWARD_UNTIL_CLOSE };

struct forward_response {
    const struct http_response *response;
    enum forward_framing framing;
    bool close;             /* the client's connection ends with this response */
    const char *request_id; /* sent when the response has none */
};

/* Appends the whole head for the client, and fills sent with the fields in it: slices of the response and of static text, and of scratch, which holds what was made here and must live as long as sent
 * (emptied first). */
void forward_write_response(const struct forward_response *forward, struct buffer *scratch,
                            struct http_fields *sent, struct buffer *out);

/* An interim response (102, 103, …): its fields but those of the hop. */
void forward_write_interim(const struct http_response *response, struct buffer *out);

#endif
