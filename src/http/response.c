/*
 * response: a complete response head taken apart. Upstreams are trusted more than clients, so what is merely untidy passes, at the price of
 * the connection; what leaves the length of the body in doubt does not.
 */
#include "http/octets.h"
#include "http/parse.h"

static bool invalid(struct http_problem *problem, const char *reason, const char *message)
{
    return http_refuse(problem, HTTP_UPSTREAM_INVALID_RESPONSE, reason, message);
}

bool http_parse_status_line(struct slice line, struct http_response *response, struct http_problem *problem)
{
    const char *p = line.data;

    if (line.size < 12 || memcmp(p, "HTTP/", 5) != 0 || !octet_is(p[5], OCTET_DIGIT) || p[6] != '.' ||
        !octet_is(p[7], OCTET_DIGIT) || p[8] != ' ' || !octet_is(p[9], OCTET_DIGIT) ||
        !octet_is(p[10], OCTET_DIGIT) || !octet_is(p[11], OCTET_DIGIT) || (line.size > 12 && p[12] != ' ')) {
        return invalid(problem, "malformed_status_line", "the status line is malformed");
    }
    if (p[5] != '1' || p[7] > '1') {
        return invalid(problem, "version_not_supported", "the response is neither HTTP/1.0 nor HTTP/1.1");
    }
    response->minor_version = p[7] - '0';
    response->status = (p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0');
    if (response->status < 100 || response->status > 599) {
        return invalid(problem, "malformed_status", "the status is not between 100 and 599");
    }
    response->reason =
        line.size > 13 ? (struct slice){p + 13, line.size - 13} : (struct slice){p + line.size, 0};
    if (!http_is_field_value(response->reason)) {
        return invalid(problem, "control_character", "control character in the status line");
    }
    return true;
}

/* One length, however often it is said. */
static bool take_length(struct http_response *response, struct slice value, bool *odd,
                        struct http_problem *problem)
{
    uint64_t length;
    struct slice rest = value, member;
    bool any = false;

    for (; http_list_next(&rest, &member); any = true) {
        if (!http_parse_content_length(member, &length)) {
            return invalid(problem, "malformed_content_length", "the Content-Length is not a number");
        }
        if (response->has_content_length) {
            if (length != response->content_length) {
                return invalid(problem, "content_lengths_differ",
                               "several Content-Length values that differ");
            }
            *odd = true;
        }
        response->has_content_length = true;
        response->content_length = length;
    }
    if (!any || memchr(value.data, ',', value.size) != NULL) {
        *odd = true;
    }
    return any || invalid(problem, "malformed_content_length", "the Content-Length is empty");
}

static bool take_fields(struct http_response *response, bool *chunked, bool *odd,
                        struct http_problem *problem)
{
    for (size_t i = 0; i < response->fields.count; i++) {
        struct slice name = response->fields.items[i].name, value = response->fields.items[i].value;
        if (name.size == 14 && slice_equal_nocase(name, SLICE("content-length"))) {
            if (!take_length(response, value, odd, problem)) {
                return false;
            }
        } else if (name.size == 17 && slice_equal_nocase(name, SLICE("transfer-encoding"))) {
            if (*chunked || !slice_equal_nocase(value, SLICE("chunked"))) {
                return invalid(problem, "unsupported_transfer_encoding",
                               "a transfer coding that is not just chunked");
            }
            *chunked = true;
        }
    }
    return true;
}

/* What follows the head (RFC 9112 6.3). */
static bool frame(struct http_response *response, bool head_request, bool chunked, bool *odd,
                  struct http_problem *problem)
{
    bool never_has_length = response->status < 200 || response->status == 204;

    if (never_has_length) {
        *odd |= chunked || response->content_length > 0;
        response->has_content_length = false;
        response->content_length = 0;
        return true;
    }
    if (chunked && response->has_content_length) {
        return invalid(problem, "content_length_and_transfer_encoding",
                       "both Content-Length and Transfer-Encoding are present");
    }
    *odd |= chunked && response->minor_version == 0;
    if (head_request || response->status == 304) {
        response->body = HTTP_BODY_NONE;
    } else if (chunked) {
        response->body = HTTP_BODY_CHUNKED;
    } else {
        response->body = response->has_content_length ? HTTP_BODY_LENGTH : HTTP_BODY_UNTIL_CLOSE;
    }
    return true;
}

static bool may_keep_alive(const struct http_response *response)
{
    if (response->body == HTTP_BODY_UNTIL_CLOSE ||
        http_fields_has_member(&response->fields, SLICE("connection"), SLICE("close"))) {
        return false;
    }
    return response->minor_version > 0 ||
           http_fields_has_member(&response->fields, SLICE("connection"), SLICE("keep-alive"));
}

bool http_parse_response(struct slice head, bool head_request, const struct http_limits *limits,
                         struct http_response *response, struct http_problem *problem)
{
    const char *cr = head.size > 0 ? memchr(head.data, '\r', head.size) : NULL;
    bool chunked = false, odd;

    *response = (struct http_response){.fields = {response->fields.items, 0, response->fields.capacity}};
    if (cr == NULL || head.data + head.size - cr < 2 || cr[1] != '\n') {
        return invalid(problem, "malformed_head", "the message head does not end where it should");
    }
    if (head.size > limits->max_head_bytes) {
        return http_refuse_head_size(problem, HTTP_UPSTREAM_INVALID_RESPONSE);
    }
    struct slice line = slice_range(head.data, cr);
    odd = line.size == 12;
    if (!http_parse_status_line(line, response, problem) ||
        !http_parse_field_lines(slice_range(cr + 2, head.data + head.size), HTTP_UPSTREAM_INVALID_RESPONSE,
                                limits, &response->fields, problem) ||
        !take_fields(response, &chunked, &odd, problem) ||
        !frame(response, head_request, chunked, &odd, problem)) {
        return false;
    }
    response->keep_alive = !odd && may_keep_alive(response);
    return true;
}

void http_response_free(struct http_response *response)
{
    http_fields_free(&response->fields);
    *response = (struct http_response){0};
}
