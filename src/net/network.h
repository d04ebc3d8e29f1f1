/*
 * network: a range of addresses in CIDR notation: "10.0.0.0/8", "2001:db8::/32", one address alone, or "unix:" for every peer of a unix socket. Bits behind the prefix are
 * ignored.
 */
#ifndef NET_NETWORK_H
#define NET_NETWORK_H

#include "net/address.h"

struct network {
    sa_family_t family;
    unsigned char ip[16]; /* as on the wire; IPv4: the first four */
    unsigned prefix;      /* how many bits of it count */
};

struct network_list {
    struct network *items;
    size_t count;
};

bool network_parse(struct slice text, struct network *network);
bool network_contains(const struct network *network, const struct address *address);
/* Does one of them contain it? */
bool network_list_contains(const struct network_list *list, const struct address *address);

#endif
