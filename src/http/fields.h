/*
 * fields: a list of header (or trailer) fields as received, and the questions HTTP asks of it. Order and repetition are kept, nothing is
 * merged. The slices point into the bytes that were parsed: the list lives as long as they do. No sockets, no allocation but the list's own
 * array, which only grows.
 */
#ifndef HTTP_FIELDS_H
#define HTTP_FIELDS_H

#include "base/slice.h"

struct http_fields {
    struct name_value *items;
    size_t count, capacity;
};

void http_fields_add(struct http_fields *fields, struct slice name, struct slice value);
void http_fields_free(struct http_fields *fields);
/* The first field of this name (any case), or NULL. */
const struct name_value *http_fields_find(const struct http_fields *fields, struct slice name);
/* How many fields have this name. */
size_t http_fields_count(const struct http_fields *fields, struct slice name);
/* Whether a comma-separated list field of this name, over all its lines, has this member (any case; parameters behind ';' ignored). */
bool http_fields_has_member(const struct http_fields *fields, struct slice name, struct slice member);
/* Next non-empty member of a comma-separated list value, trimmed; a comma inside a quoted string does not separate. False at the end. */
bool http_list_next(struct slice *rest, struct slice *member);

/*
 * Must this field stop at this hop (RFC 9110 7.6.1)? True for Connection, Keep-Alive, Proxy-Connection, TE, Trailer, Transfer-Encoding, Upgrade,
 * HTTP2-Settings, Proxy-Authenticate, Proxy-Authorization, Proxy-Authentication-Info, Close, and for every field that a Connection field of the same message names - but
 * for those no peer may have removed that way: Host, Content-Length, Authorization, Cookie, X-Request-Id, X-Api-Key, Api-Key, X-Goog-Api-Key, Via, X-Forwarded-*, Forwarded.
 */
bool http_fields_is_hop_by_hop(const struct http_fields *fields, struct slice name);

bool http_is_token(struct slice s);
/* A field value: no control characters but HTAB; bytes from 0x80 are allowed. */
bool http_is_field_value(struct slice s);

#endif
