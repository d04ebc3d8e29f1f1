/*
 * scan: finds the end of a head that arrives in pieces. Whatever cannot stand in any head is refused at the octet where it stands, and
 * every octet is looked at once, so the outcome does not depend on where the pieces were cut.
 */
#include "http/octets.h"
#include "http/parse.h"

#define MAX_METHOD_BYTES 32
#define VERSION_BYTES    8 /* "HTTP/1.1" */

enum { LINE_METHOD, LINE_TARGET, LINE_VERSION };

static bool refuse_line(struct http_problem *problem)
{
    return http_refuse(problem, HTTP_BAD_REQUEST, "malformed_request_line", "the request line is malformed");
}

static bool walk_method(struct http_request_line *line, struct slice data, size_t *offset,
                        struct http_problem *problem)
{
    while (*offset < data.size && octet_is(data.data[*offset], OCTET_TOKEN)) {
        if (line->part_size == MAX_METHOD_BYTES) {
            return http_refuse(problem, HTTP_UNSUPPORTED, "method_too_long",
                               "the method is longer than any known");
        }
        line->part_size++;
        (*offset)++;
    }
    if (*offset == data.size) {
        return true;
    }
    char octet = data.data[*offset];
    if (octet == '\r') {
        return refuse_line(problem);
    }
    if (octet != ' ' || line->part_size == 0) {
        return http_refuse_octet(problem, HTTP_BAD_REQUEST, octet, "malformed_request_line",
                                 "the request line is malformed");
    }
    line->method_size = line->part_size;
    line->part_size = 0;
    line->part = LINE_TARGET;
    (*offset)++;
    return true;
}

static bool walk_target(struct http_request_line *line, struct slice data, size_t *offset, size_t max_bytes,
                        struct http_problem *problem)
{
    while (*offset < data.size && octet_is(data.data[*offset], OCTET_TARGET)) {
        if (line->part_size == max_bytes) {
            return http_refuse(problem, HTTP_URI_TOO_LONG, "target_too_long",
                               "the request target is too long");
        }
        line->part_size++;
        (*offset)++;
    }
    if (*offset == data.size) {
        return true;
    }
    char octet = data.data[*offset];
    if (octet == '\r') {
        return http_refuse(problem, HTTP_BAD_REQUEST, "missing_version",
                           "the request line has no HTTP version");
    }
    if (octet == '#') {
        return http_refuse(problem, HTTP_BAD_REQUEST, "fragment", "the request target has a fragment");
    }
    if (octet != ' ' || line->part_size == 0) {
        return http_refuse_octet(problem, HTTP_BAD_REQUEST, octet, "malformed_target",
                                 "the request target has an invalid character");
    }
    line->target_size = line->part_size;
    line->part_size = 0;
    line->part = LINE_VERSION;
    (*offset)++;
    return true;
}

static bool walk_version(struct http_request_line *line, struct slice data, size_t *offset,
                         struct http_problem *problem)
{
    static const char pattern[] = "HTTP/0.0"; /* 0: any digit */
    for (; *offset < data.size; (*offset)++) {
        char octet = data.data[*offset];
        if (octet == '\r' && line->part_size == VERSION_BYTES) {
            break;
        }
        if (line->part_size == VERSION_BYTES) {
            return refuse_line(problem);
        }
        char expected = pattern[line->part_size];
        if (expected == '0' ? !octet_is(octet, OCTET_DIGIT) : octet != expected) {
            return http_refuse(problem, HTTP_BAD_REQUEST, "malformed_version",
                               "the HTTP version is malformed");
        }
        if (line->part_size == 5) {
            line->major_version = octet - '0';
        } else if (line->part_size == 7) {
            line->minor_version = octet - '0';
        }
        line->part_size++;
    }
    if (*offset < data.size && line->major_version != 1) {
        return http_refuse(problem, HTTP_VERSION_NOT_SUPPORTED, "version_not_supported",
                           "only HTTP/1.0 and HTTP/1.1 are supported");
    }
    return true;
}

bool http_request_line_walk(struct http_request_line *line, struct slice data, size_t *offset,
                            size_t max_target_bytes, struct http_problem *problem)
{
    if (line->part == LINE_METHOD && !walk_method(line, data, offset, problem)) {
        return false;
    }
    if (line->part == LINE_TARGET && !walk_target(line, data, offset, max_target_bytes, problem)) {
        return false;
    }
    return line->part != LINE_VERSION || walk_version(line, data, offset, problem);
}

/* Nothing but "HTTP/" can begin a response: known before its first line is complete. */
static bool begins_like_a_response(struct slice data, struct http_problem *problem)
{
    static const struct slice prefix = {"HTTP/", 5};
    size_t size = data.size < prefix.size ? data.size : prefix.size;
    if (memcmp(data.data, prefix.data, size) == 0) {
        return true;
    }
    return http_refuse(problem, HTTP_UPSTREAM_INVALID_RESPONSE, "not_http",
                       "the response does not begin like HTTP");
}

/* The line [line_start, end - 2) and its CRLF are complete. */
static enum http_scan_result end_line(struct http_scan *scan, struct slice data, size_t end, bool response,
                                      const struct http_limits *limits, struct http_problem *problem)
{
    enum http_fault fault = response ? HTTP_UPSTREAM_INVALID_RESPONSE : HTTP_BAD_REQUEST;
    bool empty = end - scan->line_start == 2;

    if (empty && scan->lines > 0) {
        return HTTP_SCAN_COMPLETE;
    }
    if (empty) {
        if (++scan->empty_lines > HTTP_MAX_EMPTY_LINES) {
            http_refuse(problem, fault, "empty_lines", "too many empty lines before the request");
            return HTTP_SCAN_REFUSED;
        }
    } else {
        struct http_response ignored;
        if (response && scan->lines == 0 &&
            !http_parse_status_line((struct slice){data.data, end - 2}, &ignored, problem)) {
            return HTTP_SCAN_REFUSED;
        }
        if (scan->lines++ > limits->max_headers) {
            http_refuse(problem, response ? fault : HTTP_HEADERS_TOO_LARGE, "too_many_headers",
                        "the message head has too many fields");
            return HTTP_SCAN_REFUSED;
        }
    }
    scan->line_start = end;
    return HTTP_SCAN_INCOMPLETE;
}

/* Walks on in the line from *offset to its CR or the end of what has arrived. */
static bool walk_line(struct http_scan *scan, struct slice data, size_t *offset, bool response,
                      const struct http_limits *limits, struct http_problem *problem)
{
    enum http_fault fault = response ? HTTP_UPSTREAM_INVALID_RESPONSE : HTTP_BAD_REQUEST;

    if (*offset == scan->line_start) {
        if (data.data[*offset] == '\r') {
            return true;
        }
        if (octet_is_blank(data.data[*offset])) {
            return http_refuse(problem, fault, "folded_line", "a header line begins with white space");
        }
    }
    if (scan->lines == 0 && !response) {
        return http_request_line_walk(&scan->request_line, data, offset, limits->max_target_bytes, problem);
    }
    *offset = (size_t)(octets_skip_field(data.data + *offset, data.data + data.size) - data.data);
    if (*offset < data.size && data.data[*offset] != '\r') {
        return http_refuse_octet(problem, fault, data.data[*offset], "malformed_head",
                                 "malformed message head");
    }
    return true;
}

enum http_scan_result http_scan_head(struct http_scan *scan, struct slice data, bool response,
                                     const struct http_limits *limits, struct http_problem *problem)
{
    size_t offset = scan->offset;

    if (data.size > limits->max_head_bytes) {
        data.size = limits->max_head_bytes;
    }
    if (response && data.size > 0 && scan->lines == 0 && !begins_like_a_response(data, problem)) {
        return HTTP_SCAN_REFUSED;
    }
    while (offset < data.size) {
        if (scan->cr) {
            if (data.data[offset] != '\n') {
                http_refuse_octet(problem, response ? HTTP_UPSTREAM_INVALID_RESPONSE : HTTP_BAD_REQUEST, '\r',
                                  "", "");
                return HTTP_SCAN_REFUSED;
            }
            scan->cr = false;
            offset++;
            enum http_scan_result result = end_line(scan, data, offset, response, limits, problem);
            if (result != HTTP_SCAN_INCOMPLETE) {
                scan->offset = offset;
                return result;
            }
        } else {
            if (!walk_line(scan, data, &offset, response, limits, problem)) {
                return HTTP_SCAN_REFUSED;
            }
            if (offset < data.size) {
                scan->cr = true;
                offset++;
            }
        }
    }
    scan->offset = offset;
    if (offset < limits->max_head_bytes) {
        return HTTP_SCAN_INCOMPLETE;
    }
    http_refuse_head_size(problem, response ? HTTP_UPSTREAM_INVALID_RESPONSE : HTTP_HEADERS_TOO_LARGE);
    return HTTP_SCAN_REFUSED;
}
