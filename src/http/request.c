/*
 * request: a complete request head taken apart, and everything about it that two readers could understand differently refused.
 */
#include "http/octets.h"
#include "http/parse.h"

/* What framing and routing need of the fields, gathered in one pass over them. */
struct digest {
    size_t hosts, lengths, codings, authorizations;
    struct slice host, length, coding;
    bool connection, expect;
};

static bool bad(struct http_problem *problem, const char *reason, const char *message)
{
    return http_refuse(problem, HTTP_BAD_REQUEST, reason, message);
}

/* Some servers read '_' in a name as '-': does this name become one that steers framing, forwarding or credentials? */
static bool is_disguised(struct slice name)
{
    char plain[40];
    if (name.size > sizeof(plain) || memchr(name.data, '_', name.size) == NULL) {
        return false;
    }
    for (size_t i = 0; i < name.size; i++) {
        plain[i] = name.data[i] == '_' ? '-' : name.data[i];
    }
    struct slice s = {plain, name.size};
    return http_field_is_connection_bound(s) || http_field_is_protected(s) ||
           slice_equal_nocase(s, SLICE("x-real-ip"));
}

static bool digest_fields(const struct http_fields *fields, struct digest *digest,
                          struct http_problem *problem)
{
    for (size_t i = 0; i < fields->count; i++) {
        struct slice name = fields->items[i].name, value = fields->items[i].value;
        switch (name.size) {
        case 4:
            if (slice_equal_nocase(name, SLICE("host"))) {
                digest->hosts++;
                digest->host = value;
            }
            break;
        case 6:
            if (slice_equal_nocase(name, SLICE("expect"))) {
                digest->expect = true;
            }
            break;
        case 10:
            if (slice_equal_nocase(name, SLICE("connection"))) {
                digest->connection = true;
            }
            break;
        case 13:
            if (slice_equal_nocase(name, SLICE("authorization"))) {
                digest->authorizations++;
            }
            break;
        case 14:
            if (slice_equal_nocase(name, SLICE("content-length"))) {
                digest->lengths++;
                digest->length = value;
            }
            break;
        case 17:
            if (slice_equal_nocase(name, SLICE("transfer-encoding"))) {
                digest->codings++;
                digest->coding = value;
            }
            break;
        }
        if (is_disguised(name)) {
            return bad(problem, "disguised_field",
                       "a field name with '_' resembles one that controls the message");
        }
    }
    if (digest->authorizations > 1) {
        return bad(problem, "authorization_repeated", "more than one Authorization field");
    }
    return true;
}

/* Refuses a Transfer-Encoding that is not just chunked: a chain that ends in it could be understood, but is not by us. */
static bool refuse_coding(const struct http_fields *fields, struct http_problem *problem)
{
    size_t chunked = 0, others = 0;
    bool last_is_chunked = false;
    for (size_t i = 0; i < fields->count; i++) {
        struct slice rest = fields->items[i].value, member;
        if (!slice_equal_nocase(fields->items[i].name, SLICE("transfer-encoding"))) {
            continue;
        }
        while (http_list_next(&rest, &member)) {
            last_is_chunked = slice_equal_nocase(member, SLICE("chunked"));
            *(last_is_chunked ? &chunked : &others) += 1;
        }
    }
    if (last_is_chunked && chunked == 1 && others > 0) {
        return http_refuse(problem, HTTP_UNSUPPORTED, "unsupported_transfer_encoding",
                           "transfer codings other than chunked are not supported");
    }
    return bad(problem, "malformed_transfer_encoding", "the Transfer-Encoding is not chunked");
}

static bool frame(struct http_request *request, const struct digest *digest, struct http_problem *problem)
{
    if (digest->codings > 0) {
        if (request->minor_version == 0) {
            return bad(problem, "transfer_encoding_in_http_1_0", "HTTP/1.0 has no Transfer-Encoding");
        }
        if (digest->lengths > 0) {
            return bad(problem, "content_length_and_transfer_encoding",
                       "both Content-Length and Transfer-Encoding are present");
        }
        if (digest->codings > 1 || !slice_equal_nocase(digest->coding, SLICE("chunked"))) {
            return refuse_coding(&request->fields, problem);
        }
        request->body = HTTP_BODY_CHUNKED;
    } else if (digest->lengths > 0) {
        if (digest->lengths > 1) {
            return bad(problem, "content_length_repeated", "more than one Content-Length field");
        }
        if (!http_parse_content_length(digest->length, &request->content_length)) {
            return bad(problem, "malformed_content_length", "the Content-Length is not a number");
        }
        request->body = HTTP_BODY_LENGTH;
    }
    return true;
}

static void split_query(struct http_request *request, struct slice origin)
{
    const char *mark = memchr(origin.data, '?', origin.size);
    request->has_query = mark != NULL;
    request->path = mark != NULL ? slice_range(origin.data, mark) : origin;
    if (mark != NULL) {
        request->query = slice_range(mark + 1, origin.data + origin.size);
    }
}

/* "http://host[:port][/path][?query]"; host is the Host field's, or NULL when there was none. */
static bool take_absolute_target(struct http_request *request, const struct http_authority *host,
                                 struct http_problem *problem)
{
    static const struct slice schemes[] = {{"http://", 7}, {"https://", 8}};
    static const int default_ports[] = {80, 443};
    struct slice target = request->target;
    struct http_authority authority;

    for (size_t i = 0; i < 2; i++) {
        struct slice scheme = schemes[i];
        if (target.size < scheme.size ||
            !slice_equal_nocase((struct slice){target.data, scheme.size}, scheme)) {
            continue;
        }
        struct slice rest = {target.data + scheme.size, target.size - scheme.size};
        size_t size = 0;
        while (size < rest.size && rest.data[size] != '/' && rest.data[size] != '?') {
            size++;
        }
        request->authority = (struct slice){rest.data, size};
        if (!http_parse_authority(request->authority, &authority)) {
            return bad(problem, "malformed_target", "the authority of the request target is malformed");
        }
        if (host != NULL && !http_authority_equal(&authority, host, default_ports[i])) {
            return bad(problem, "target_and_host_differ",
                       "the request target and the Host field name different hosts");
        }
        split_query(request, (struct slice){rest.data + size, rest.size - size});
        if (request->path.size == 0) {
            request->path = !request->has_query && slice_equal(request->method, SLICE("OPTIONS"))
                                ? SLICE("*")
                                : SLICE("/");
        }
        return true;
    }
    return bad(problem, "malformed_target", "the request target has no form that is served here");
}

static bool take_target(struct http_request *request, const struct digest *digest,
                        struct http_problem *problem)
{
    struct slice target = request->target;
    struct http_authority host;

    if (digest->hosts > 1) {
        return bad(problem, "host_repeated", "more than one Host field");
    }
    if (digest->hosts == 0 && request->minor_version > 0) {
        return bad(problem, "host_missing", "the Host field is missing");
    }
    if (digest->hosts > 0 && !http_parse_authority(digest->host, &host)) {
        return bad(problem, "malformed_host", "the Host field is malformed");
    }
    request->authority = digest->host;

    if (slice_equal(request->method, SLICE("CONNECT"))) {
        struct http_authority authority;
        if (!http_parse_authority(target, &authority) || authority.port < 0) {
            return bad(problem, "malformed_target", "CONNECT needs host and port");
        }
        request->authority = target;
        return true;
    }
    if (target.data[0] == '/') {
        split_query(request, target);
    } else if (slice_equal(target, SLICE("*")) && slice_equal(request->method, SLICE("OPTIONS"))) {
        request->path = target;
    } else if (!take_absolute_target(request, digest->hosts > 0 ? &host : NULL, problem)) {
        return false;
    }
    if (!slice_equal(request->path, SLICE("*")) && !http_path_is_safe(request->path)) {
        return bad(problem, "unsafe_path", "the path could be understood in more than one way");
    }
    return true;
}

/* False for anything but 100-continue. */
static bool take_expectation(struct http_request *request)
{
    for (size_t i = 0; i < request->fields.count; i++) {
        struct slice rest = request->fields.items[i].value, member;
        if (!slice_equal_nocase(request->fields.items[i].name, SLICE("expect"))) {
            continue;
        }
        while (http_list_next(&rest, &member)) {
            if (!slice_equal_nocase(member, SLICE("100-continue"))) {
                return false;
            }
            request->expect_continue = request->body == HTTP_BODY_CHUNKED || request->content_length > 0;
        }
    }
    return true;
}

static bool split_line(struct slice head, const struct http_limits *limits, struct http_request *request,
                       struct slice *field_lines, struct http_problem *problem)
{
    struct http_request_line line = {0};
    size_t used = 0, size = head.size;

    for (int empty = 0; empty < HTTP_MAX_EMPTY_LINES && head.size >= 2 && memcmp(head.data, "\r\n", 2) == 0;
         empty++) {
        head = (struct slice){head.data + 2, head.size - 2};
    }
    if (size > limits->max_head_bytes) {
        return http_refuse_head_size(problem, HTTP_HEADERS_TOO_LARGE);
    }
    if (!http_request_line_walk(&line, head, &used, limits->max_target_bytes, problem)) {
        return false;
    }
    if (head.size - used < 2 || head.data[used + 1] != '\n') {
        return bad(problem, "malformed_head", "the message head does not end where it should");
    }
    request->method = (struct slice){head.data, line.method_size};
    request->target = (struct slice){head.data + line.method_size + 1, line.target_size};
    request->minor_version = line.minor_version > 0;
    *field_lines = (struct slice){head.data + used + 2, head.size - used - 2};
    return true;
}

bool http_parse_request(struct slice head, const struct http_limits *limits, struct http_request *request,
                        struct http_problem *problem)
{
    struct digest digest = {0};
    struct slice field_lines;

    *request = (struct http_request){.fields = {request->fields.items, 0, request->fields.capacity}};
    if (!split_line(head, limits, request, &field_lines, problem) ||
        !http_parse_field_lines(field_lines, HTTP_BAD_REQUEST, limits, &request->fields, problem) ||
        !digest_fields(&request->fields, &digest, problem) || !frame(request, &digest, problem) ||
        !take_target(request, &digest, problem)) {
        return false;
    }

    request->keep_alive = request->minor_version > 0;
    if (digest.connection) {
        if (request->minor_version == 0) {
            request->keep_alive =
                http_fields_has_member(&request->fields, SLICE("connection"), SLICE("keep-alive"));
        }
        if (http_fields_has_member(&request->fields, SLICE("connection"), SLICE("close"))) {
            request->keep_alive = false;
        }
    }
    if (slice_equal(request->method, SLICE("CONNECT")) || slice_equal(request->method, SLICE("TRACE"))) {
        return http_refuse(problem, HTTP_METHOD_NOT_ALLOWED, "method_not_allowed",
                           "CONNECT and TRACE are not served");
    }
    if (digest.expect && request->minor_version > 0 && !take_expectation(request)) {
        return http_refuse(problem, HTTP_EXPECTATION_FAILED, "unknown_expectation",
                           "no expectation but 100-continue can be met");
    }
    return true;
}

void http_request_free(struct http_request *request)
{
    http_fields_free(&request->fields);
    *request = (struct http_request){0};
}
