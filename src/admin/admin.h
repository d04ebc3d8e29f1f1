/*
 * admin: the listener for operators: GET and HEAD of /healthz, /readyz, /metrics, /stats. Runs on the main thread's loop, on the same codec and transport as the proxy; small answers, one at a time for each connection.
 *
 * Rules: at most 64 connections (the longest idle one makes room); a head must come within 10 s; a Host that is neither an IP literal nor localhost nor allowed gets 421 (DNS
 * rebinding); no CORS; unknown paths 404; other methods 405; a request body is refused (413). With a token everything but /healthz, /readyz and /metrics needs it as "Authorization: Bearer", compared in constant time.
 */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include "base/metrics.h"
#include "net/address.h"
#include "net/loop.h"

struct admin;

struct admin_settings {
    struct loop *loop;
    struct address address;   /* a port of 0 is replaced by what was bound */
    const char *token;        /* NULL: none; copied */
    const char *const *hosts; /* further Host names, NULL-terminated; copied; may be NULL */
    struct metrics *metrics;
    bool (*is_ready)(void *argument, const char **reason);   /* reason: a short static text when not */
    void (*write_stats)(void *argument, struct buffer *out); /* appends the JSON of /stats */
    void *argument;                                          /* of both */
};

struct admin *admin_new(const struct admin_settings *settings, struct error *error);
const struct address *admin_address(const struct admin *admin);
/* Others than those it was made with. */
void admin_set_hosts(struct admin *admin, const char *const *hosts);
void admin_free(struct admin *admin);

#endif
