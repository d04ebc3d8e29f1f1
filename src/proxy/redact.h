/*
 * redact: what in an exchange is secret. Names decide, never values. Applied in the worker, before an event is built, so that no secret ever leaves it.
 */
#ifndef PROXY_REDACT_H
#define PROXY_REDACT_H

#include "base/buffer.h"
#include "http/fields.h"
#include "proxy/settings.h"

#define REDACTED SLICE("[redacted]")

/* Is the value of this field (request or response, any case) a secret? */
bool redact_is_secret_field(const struct proxy_settings *settings, struct slice name);

/* Appends the query with the values of secret parameters replaced. Names are compared percent-decoded and in any case. */
void redact_write_query(const struct proxy_settings *settings, struct slice query, struct buffer *out);

/* Appends a URL reference (Location) likewise: only its query is changed. */
void redact_write_reference(const struct proxy_settings *settings, struct slice reference,
                            struct buffer *out);

/* Does this field carry a client's key to a provider: Authorization, X-Api-Key, Api-Key, X-Goog-Api-Key? */
bool redact_is_credential_field(struct slice name);

/* The key a request carries. */
struct credential {
    struct slice
        kind; /* "authorization", "x-api-key", "api-key", "x-goog-api-key", "query"; data NULL: none */
    struct slice key; /* without the scheme "Bearer" */
};

/* The first credential field there is; else the query parameter key. */
struct credential redact_find_credential(const struct http_fields *fields, struct slice query);

#define FINGERPRINT_SIZE 13 /* 12 hexadecimal digits and NUL */

/* The first 12 hexadecimal digits of the key's HMAC-SHA-256. */
void redact_fingerprint(const unsigned char secret[32], struct slice key, char out[FINGERPRINT_SIZE]);

#endif
