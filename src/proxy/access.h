/*
 * access: who a request comes from, and whether they may come in: `clients` and `trusted_proxies` of the configuration. Bytes in, an answer out. Private to proxy/.
 */
#ifndef PROXY_ACCESS_H
#define PROXY_ACCESS_H

#include "http/fields.h"
#include "proxy/settings.h"

struct access {
    bool trusted; /* the peer is a trusted proxy */
    /* The address, without a port, that a trusted proxy named as the client's; "": none, the peer it is. */
    char client[ADDRESS_TEXT_SIZE];
    const char *client_name;     /* of its token, as long as the settings live; NULL: it has none */
    const char *refusal;         /* why it may not come in, for the record; NULL: it may. Static */
    const char *refusal_message; /* for the client; NULL: the usual one */
};

/* A request with these fields over a connection of peer. */
void access_check(const struct proxy_settings *settings, const struct address *peer,
                  const struct http_fields *fields, struct access *access);

/* Carries this field a token of ours, and so stays here? Also where it lets nobody in: behind a scheme that is not Bearer, or none. */
bool access_is_token(const struct proxy_settings *settings, const struct name_value *field);

#endif
