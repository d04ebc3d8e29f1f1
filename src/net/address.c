/*
 * address: socket addresses from text and back.
 */
#include "net/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>

#define IP_TEXT_SIZE 80 /* an IPv6 address, "%", an interface, NUL */

static void set_ip4(struct address *address, struct in_addr ip, uint16_t port)
{
    *address = (struct address){.size = sizeof(struct sockaddr_in)};
    address->socket.ip4 =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = ip};
}

static void set_ip6(struct address *address, struct in6_addr ip, uint32_t scope, uint16_t port)
{
    *address = (struct address){.size = sizeof(struct sockaddr_in6)};
    address->socket.ip6 = (struct sockaddr_in6){
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = ip, .sin6_scope_id = scope};
}

bool address_from_ip(struct slice host, uint16_t port, struct address *address)
{
    if (host.size >= 2 && host.data[0] == '[' && host.data[host.size - 1] == ']') {
        host = (struct slice){host.data + 1, host.size - 2};
    }
    char text[IP_TEXT_SIZE];
    if (host.size == 0 || host.size >= sizeof text || memchr(host.data, '\0', host.size) != NULL) {
        return false;
    }
    memcpy(text, host.data, host.size);
    text[host.size] = '\0';

    struct in_addr ip4;
    if (inet_pton(AF_INET, text, &ip4) == 1) {
        set_ip4(address, ip4, port);
        return true;
    }
    uint32_t scope = 0;
    char *percent = strchr(text, '%');
    if (percent != NULL) {
        uint64_t number;
        *percent = '\0';
        scope = if_nametoindex(percent + 1);
        if (scope == 0 && slice_to_uint64(slice_of(percent + 1), &number) && number <= UINT32_MAX) {
            scope = (uint32_t)number;
        }
        if (scope == 0) {
            return false;
        }
    }
    struct in6_addr ip6;
    if (inet_pton(AF_INET6, text, &ip6) != 1) {
        return false;
    }
    set_ip6(address, ip6, scope, port);
    return true;
}

static bool parse_unix(const char *text, const char *path, struct address *address, struct error *error)
{
    *address = (struct address){0};
    size_t size = strlen(path);
    if (size == 0) {
        error_set(error, "'%s' has no path behind unix:", text);
        return false;
    }
    if (size >= sizeof address->socket.path.sun_path) {
        error_set(error, "'%s': the path of a socket has at most %zu bytes", text,
                  sizeof address->socket.path.sun_path - 1);
        return false;
    }
    address->socket.path.sun_family = AF_UNIX;
    memcpy(address->socket.path.sun_path, path, size + 1);
    address->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + 1);
    return true;
}

bool address_parse(const char *text, struct address *address, struct error *error)
{
    if (strncmp(text, "unix:", 5) == 0) {
        return parse_unix(text, text + 5, address, error);
    }
    const char *colon = strrchr(text, ':');
    if (colon == NULL) {
        error_set(error, "'%s' is no address: expected host:port, :port, [::1]:port or unix:/path", text);
        return false;
    }
    uint64_t port;
    struct slice digits = slice_of(colon + 1);
    if (digits.size > 5 || !slice_to_uint64(digits, &port) || port > UINT16_MAX) {
        error_set(error, "'%s' is no address: '%s' is no port (0 to 65535)", text, colon + 1);
        return false;
    }
    struct slice host = slice_range(text, colon);
    if (host.size == 0) {
        set_ip6(address, in6addr_any, 0, (uint16_t)port);
        return true;
    }
    if (slice_equal_nocase(host, SLICE("localhost"))) {
        host = SLICE("127.0.0.1");
    }
    bool bracketed = host.data[0] == '[';
    bool has_colon = memchr(host.data, ':', host.size) != NULL;
    if (bracketed != has_colon) {
        error_set(
            error,
            "'%s' is no address: an IPv6 address stands in brackets, like [::1]:8080, and nothing else does",
            text);
        return false;
    }
    if (!address_from_ip(host, (uint16_t)port, address)) {
        error_set(error, "'%s' is no address: '%.*s' is neither an IP address nor localhost", text,
                  SLICE_ARGUMENTS(host));
        return false;
    }
    return true;
}

void address_format(const struct address *address, char out[ADDRESS_TEXT_SIZE])
{
    char ip[INET6_ADDRSTRLEN];
    switch (address->socket.any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &address->socket.ip4.sin_addr, ip, sizeof ip);
        snprintf(out, ADDRESS_TEXT_SIZE, "%s:%u", ip, ntohs(address->socket.ip4.sin_port));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &address->socket.ip6.sin6_addr, ip, sizeof ip);
        if (address->socket.ip6.sin6_scope_id != 0) {
            snprintf(out, ADDRESS_TEXT_SIZE, "[%s%%%u]:%u", ip, address->socket.ip6.sin6_scope_id,
                     ntohs(address->socket.ip6.sin6_port));
        } else {
            snprintf(out, ADDRESS_TEXT_SIZE, "[%s]:%u", ip, ntohs(address->socket.ip6.sin6_port));
        }
        break;
    case AF_UNIX: {
        size_t begin = offsetof(struct sockaddr_un, sun_path);
        size_t room = address->size > begin ? address->size - begin : 0;
        snprintf(out, ADDRESS_TEXT_SIZE, "unix:%.*s", (int)room, address->socket.path.sun_path);
        break;
    }
    default:
        snprintf(out, ADDRESS_TEXT_SIZE, "unknown");
        break;
    }
}

void address_format_ip(const struct address *address, char out[ADDRESS_TEXT_SIZE])
{
    const void *ip = &address->socket.ip4.sin_addr;
    if (address->socket.any.sa_family == AF_INET6) {
        ip = &address->socket.ip6.sin6_addr;
    }
    inet_ntop(address->socket.any.sa_family, ip, out, ADDRESS_TEXT_SIZE);
}

bool address_is_loopback(const struct address *address)
{
    switch (address->socket.any.sa_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return ntohl(address->socket.ip4.sin_addr.s_addr) >> 24 == 127;
    case AF_INET6: {
        const struct in6_addr *ip = &address->socket.ip6.sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(ip) || (IN6_IS_ADDR_V4MAPPED(ip) && ip->s6_addr[12] == 127);
    }
    default:
        return false;
    }
}

void address_unmap(struct address *address)
{
    if (address->socket.any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&address->socket.ip6.sin6_addr)) {
        struct in_addr ip;
        memcpy(&ip, &address->socket.ip6.sin6_addr.s6_addr[12], sizeof ip);
        set_ip4(address, ip, ntohs(address->socket.ip6.sin6_port));
    }
}
