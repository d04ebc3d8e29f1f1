/*
 * network: compares the leading bits.
 */
#include "net/network.h"

/* The bytes of an IP address; of anything else NULL. */
static const unsigned char *ip_of(const struct address *address)
{
    switch (address->socket.any.sa_family) {
    case AF_INET:
        return (const unsigned char *)&address->socket.ip4.sin_addr;
    case AF_INET6:
        return (const unsigned char *)&address->socket.ip6.sin6_addr;
    default:
        return NULL;
    }
}

bool network_parse(struct slice text, struct network *network)
{
    *network = (struct network){.family = AF_UNIX};
    if (slice_equal(text, SLICE("unix:"))) {
        return true;
    }
    struct slice ip;
    struct address address;
    if (!slice_split(&text, '/', &ip) ||
        (ip.size > 0 && (ip.data[0] == '[' || memchr(ip.data, '%', ip.size) != NULL)) ||
        !address_from_ip(ip, 0, &address)) {
        return false;
    }
    /* Peers are never seen as ::ffff:1.2.3.4: such a network would match nobody. */
    struct address unmapped = address;
    address_unmap(&unmapped);
    network->family = address.socket.any.sa_family;
    if (unmapped.socket.any.sa_family != network->family) {
        return false;
    }
    unsigned bits = network->family == AF_INET ? 32 : 128;
    uint64_t prefix = bits;
    if (text.data != NULL && (!slice_to_uint64(text, &prefix) || prefix > bits)) {
        return false;
    }
    network->prefix = (unsigned)prefix;
    memcpy(network->ip, ip_of(&address), bits / 8);
    return true;
}

bool network_contains(const struct network *network, const struct address *address)
{
    if (address->socket.any.sa_family != network->family) {
        return false;
    }
    unsigned whole = network->prefix / 8, rest = network->prefix % 8;
    const unsigned char *ip = ip_of(address);
    return (whole == 0 || memcmp(network->ip, ip, whole) == 0) &&
           (rest == 0 || (network->ip[whole] ^ ip[whole]) >> (8 - rest) == 0);
}

bool network_list_contains(const struct network_list *list, const struct address *address)
{
    for (size_t i = 0; i < list->count; i++) {
        if (network_contains(&list->items[i], address)) {
            return true;
        }
    }
    return false;
}
