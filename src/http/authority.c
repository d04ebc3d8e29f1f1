/*
 * authority: host and port of a Host field or an absolute request target. Stricter than RFC 3986: names are of letters, digits, '.', '_' and
 * '-', which is what is ever used and what every reader takes the same way.
 */
#include <arpa/inet.h>

#include "http/octets.h"
#include "http/parse.h"

static bool is_ipv6(struct slice text)
{
    char copy[INET6_ADDRSTRLEN];
    unsigned char address[16];
    if (text.size == 0 || text.size >= sizeof(copy) || memchr(text.data, 0, text.size) != NULL) {
        return false;
    }
    memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    return inet_pton(AF_INET6, copy, address) == 1;
}

static bool is_name(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        char c = ascii_lower(text.data[i]);
        if (!((c >= 'a' && c <= 'z') || octet_is(c, OCTET_DIGIT) || c == '.' || c == '_' || c == '-')) {
            return false;
        }
    }
    return text.size > 0;
}

static bool parse_port(struct slice text, int *port)
{
    int number = 0;
    if (text.size > 5) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (!octet_is(text.data[i], OCTET_DIGIT)) {
            return false;
        }
        number = number * 10 + (text.data[i] - '0');
    }
    *port = text.size > 0 ? number : -1;
    return number <= 65535;
}

bool http_parse_authority(struct slice text, struct http_authority *authority)
{
    struct slice rest;
    *authority = (struct http_authority){.port = -1};
    if (text.size > 0 && text.data[0] == '[') {
        const char *bracket = memchr(text.data, ']', text.size);
        if (bracket == NULL || !is_ipv6(slice_range(text.data + 1, bracket))) {
            return false;
        }
        authority->host = slice_range(text.data, bracket + 1);
    } else {
        const char *colon = text.size > 0 ? memchr(text.data, ':', text.size) : NULL;
        authority->host = colon != NULL ? slice_range(text.data, colon) : text;
        if (!is_name(authority->host)) {
            return false;
        }
    }
    rest = slice_range(authority->host.data + authority->host.size, text.data + text.size);
    if (rest.size == 0) {
        return true;
    }
    return rest.data[0] == ':' && parse_port((struct slice){rest.data + 1, rest.size - 1}, &authority->port);
}

bool http_authority_equal(const struct http_authority *a, const struct http_authority *b, int default_port)
{
    return slice_equal_nocase(a->host, b->host) &&
           (a->port >= 0 ? a->port : default_port) == (b->port >= 0 ? b->port : default_port);
}
