/*
 * address: where to listen or connect to, from text: "host:port", ":port" (all addresses, IPv6 and IPv4), "[::1]:port", "unix:/path". A listening host is
 * an IP literal or "localhost".
 */
#ifndef NET_ADDRESS_H
#define NET_ADDRESS_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/error.h"
#include "base/slice.h"

struct address {
    socklen_t size;
    union {
        struct sockaddr any;
        struct sockaddr_in ip4;
        struct sockaddr_in6 ip6;
        struct sockaddr_un path;
    } socket;
};

#define ADDRESS_TEXT_SIZE 128 /* for address_format: "[…%scope]:65535" or "unix:…" and NUL */

/* A listening address. */
bool address_parse(const char *text, struct address *address, struct error *error);
/* "127.0.0.1:8080", "[::1]:8080", "unix:/path"; an unnamed unix peer is "unix:". */
void address_format(const struct address *address, char out[ADDRESS_TEXT_SIZE]);
/* Only the IP address, without port and brackets: "127.0.0.1", "::1". */
void address_format_ip(const struct address *address, char out[ADDRESS_TEXT_SIZE]);
bool address_is_loopback(const struct address *address); /* unix: counts as loopback */
/* Only an IP literal ("1.2.3.4", "::1", "[::1]"); port in host byte order. False when it is a name. */
bool address_from_ip(struct slice host, uint16_t port, struct address *address);

/* An IPv4 address in IPv6's clothes (::ffff:1.2.3.4: a client of a socket that listens for both) becomes IPv4. */
void address_unmap(struct address *address);

#endif
