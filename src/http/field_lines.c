/*
 * field_lines: the field section of a head, one pass, each octet looked up once in the table of where it may stand.
 */
#include "http/octets.h"
#include "http/parse.h"

bool http_refuse_octet(struct http_problem *problem, enum http_fault fault, char octet, const char *other,
                       const char *message)
{
    if (octet == '\n') {
        return http_refuse(problem, fault, "bare_lf", "bare LF in the message head");
    }
    if (octet == '\r') {
        return http_refuse(problem, fault, "bare_cr", "bare CR in the message head");
    }
    if ((unsigned char)octet < 0x20 || octet == 0x7f) {
        return http_refuse(problem, fault, "control_character", "control character in the message head");
    }
    return http_refuse(problem, fault, other, message);
}

static bool refuse_name(struct http_problem *problem, enum http_fault fault, char octet, bool empty)
{
    if (octet_is_blank(octet)) {
        return empty ? http_refuse(problem, fault, "folded_line", "a header line begins with white space")
                     : http_refuse(problem, fault, "space_in_field_name",
                                   "white space in or behind a field name");
    }
    if (octet == ':') {
        return http_refuse(problem, fault, "empty_field_name", "a header line has no field name");
    }
    return http_refuse_octet(problem, fault, octet, "malformed_field_name",
                             "a field name has a character that none may have");
}

bool http_parse_field_lines(struct slice lines, enum http_fault fault, const struct http_limits *limits,
                            struct http_fields *fields, struct http_problem *problem)
{
    const char *p = lines.data, *end = lines.data + lines.size;

    for (;;) {
        const char *name = p;
        while (p < end && octet_is(*p, OCTET_TOKEN)) {
            p++;
        }
        if (end - p < 2) {
            break;
        }
        if (*p == '\r' && p[1] == '\n') {
            if (p != name) {
                return http_refuse(problem, fault, "missing_colon", "a header line has no colon");
            }
            if (p + 2 != end) {
                break;
            }
            return true;
        }
        if (*p != ':' || p == name) {
            return refuse_name(problem, fault, *p, p == name);
        }
        struct slice field_name = slice_range(name, p);
        do {
            p++;
        } while (p < end && octet_is_blank(*p));
        const char *value = p;
        p = octets_skip_field(p, end);
        if (end - p < 2) {
            break;
        }
        if (p[0] != '\r' || p[1] != '\n') {
            return http_refuse_octet(problem, fault, *p, "malformed_field_value", "malformed field value");
        }
        const char *value_end = p;
        while (value_end > value && octet_is_blank(value_end[-1])) {
            value_end--;
        }
        if (fields->count == limits->max_headers) {
            return http_refuse(problem, fault == HTTP_BAD_REQUEST ? HTTP_HEADERS_TOO_LARGE : fault,
                               "too_many_headers", "the message head has too many fields");
        }
        http_fields_add(fields, field_name, slice_range(value, value_end));
        p += 2;
    }
    return http_refuse(problem, fault, "malformed_head", "the message head does not end where it should");
}

bool http_parse_content_length(struct slice value, uint64_t *length)
{
    uint64_t number = 0;
    if (value.size == 0 || value.size > 18) {
        return false;
    }
    for (size_t i = 0; i < value.size; i++) {
        if (!octet_is(value.data[i], OCTET_DIGIT)) {
            return false;
        }
        number = number * 10 + (uint64_t)(value.data[i] - '0');
    }
    *length = number;
    return true;
}
