/*
 * resolver: names to addresses by getaddrinfo on helper threads, with a short cache (30 s; failures 1 s), one question at a time for each name. No loop
 * ever waits for a name server. One for the process.
 */
#ifndef NET_RESOLVER_H
#define NET_RESOLVER_H

#include "base/error.h"
#include "net/address.h"
#include "net/loop.h"

struct resolver;
struct resolver_query;

#define RESOLVER_MAX_ADDRESSES 8

struct resolver_result {
    size_t count; /* 0: failed, error tells */
    struct address addresses
        [RESOLVER_MAX_ADDRESSES]; /* in getaddrinfo's order, the families in turn (RFC 8305 4); ports set */
    struct error error;           /* "cannot resolve api.example: name or service not known" */
};

struct resolver *resolver_new(void);
/* No query may be open, or they must be cancelled. Does not wait for a name server: a thread still inside getaddrinfo is left to end by itself. */
void resolver_free(struct resolver *resolver);

/* From the cache (or an IP literal), at once: true, *result filled. */
bool resolver_cached(struct resolver *resolver, const char *host, uint16_t port,
                     struct resolver_result *result);
/* Calls back on the loop's thread, exactly once, never before returning - unless cancelled. result is valid during the call. */
struct resolver_query *resolver_start(struct resolver *resolver, struct loop *loop, const char *host,
                                      uint16_t port,
                                      void (*callback)(void *owner, const struct resolver_result *result),
                                      void *owner);
/* The loop's thread only. Will not call back. */
void resolver_cancel(struct resolver_query *query);

#endif
