/*
 * parse: the pieces that the head parsers share. Only for src/http/.
 */
#ifndef HTTP_PARSE_H
#define HTTP_PARSE_H

#include "http/head.h"

/* CRLFs before a request line that are skipped. */
#define HTTP_MAX_EMPTY_LINES 2

static inline bool http_refuse(struct http_problem *problem, enum http_fault fault, const char *reason,
                               const char *message)
{
    *problem = (struct http_problem){fault, reason, message};
    return false;
}

static inline bool http_refuse_head_size(struct http_problem *problem, enum http_fault fault)
{
    return http_refuse(problem, fault, "head_too_large", "the message head is too large");
}

/* Refuses for an octet that may stand nowhere in a head, or for other if it is none of those. */
bool http_refuse_octet(struct http_problem *problem, enum http_fault fault, char octet, const char *other,
                       const char *message);

/* Walks a request line from *offset on to its CR (*offset is left there, and the line is valid), or to the end of what has arrived. */
bool http_request_line_walk(struct http_request_line *line, struct slice data, size_t *offset,
                            size_t max_target_bytes, struct http_problem *problem);

/* Status line without its CRLF. */
bool http_parse_status_line(struct slice line, struct http_response *response, struct http_problem *problem);

/* Field lines up to and with the empty line that ends the head; lines is all of them and nothing more. */
bool http_parse_field_lines(struct slice lines, enum http_fault fault, const struct http_limits *limits,
                            struct http_fields *fields, struct http_problem *problem);

/* 1 to 18 digits. */
bool http_parse_content_length(struct slice value, uint64_t *length);

/* Fields that never pass a hop, and those that a Connection field cannot take away. */
bool http_field_is_connection_bound(struct slice name);
bool http_field_is_protected(struct slice name);

struct http_authority {
    struct slice host; /* a name, an IPv4 address, or an IPv6 address in brackets */
    int port;          /* -1: not given */
};

/* host [ ":" port ], no user info, nothing percent-encoded. */
bool http_parse_authority(struct slice text, struct http_authority *authority);
bool http_authority_equal(const struct http_authority *a, const struct http_authority *b, int default_port);

#endif
