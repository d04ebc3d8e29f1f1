/*
 * peers: a hash table with chains. Its hash is seeded: nobody can choose addresses that all end in one chain.
 */
#include "proxy/peers.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/id.h"
#include "base/memory.h"

#define BUCKET_BITS 12
#define OTHER_KEY                                                                                            \
    UINT64_MAX /* no address: unix sockets. As an IPv6 prefix it is multicast, which no peer has */

struct peer {
    struct peer *next;
    uint64_t key;
    size_t connections;
};

struct peers {
    pthread_mutex_t lock;
    uint64_t seed[2];
    struct peer *buckets[1 << BUCKET_BITS];
};

struct peers *peers_new(void)
{
    struct peers *peers = xcalloc(1, sizeof *peers);
    pthread_mutex_init(&peers->lock, NULL);
    random_bytes((unsigned char *)peers->seed, sizeof peers->seed);
    return peers;
}

void peers_free(struct peers *peers)
{
    for (size_t i = 0; i < sizeof peers->buckets / sizeof peers->buckets[0]; i++) {
        assert(peers->buckets[i] == NULL);
    }
    pthread_mutex_destroy(&peers->lock);
    free(peers);
}

/* An IPv4 address gets a bit of its own, so that no IPv6 prefix in use equals it. */
static uint64_t key_of(const struct address *address)
{
    uint64_t key = 0;
    switch (address->socket.any.sa_family) {
    case AF_INET:
        return UINT64_C(1) << 32 | ntohl(address->socket.ip4.sin_addr.s_addr);
    case AF_INET6:
        for (size_t i = 0; i < 8; i++) {
            key = key << 8 | address->socket.ip6.sin6_addr.s6_addr[i];
        }
        return key;
    default:
        return OTHER_KEY;
    }
}

static struct peer **bucket_of(struct peers *peers, uint64_t key)
{
    uint64_t hash = (key ^ peers->seed[0]) * (peers->seed[1] | 1);
    hash = (hash ^ hash >> 32) * (peers->seed[1] | 1);
    return &peers->buckets[hash >> (64 - BUCKET_BITS)];
}

struct peer *peers_enter(struct peers *peers, const struct address *address, size_t limit)
{
    uint64_t key = key_of(address);
    pthread_mutex_lock(&peers->lock);
    struct peer **bucket = bucket_of(peers, key), *peer = *bucket;
    while (peer != NULL && peer->key != key) {
        peer = peer->next;
    }
    if (peer == NULL) {
        peer = xcalloc(1, sizeof *peer);
        *peer = (struct peer){.next = *bucket, .key = key};
        *bucket = peer;
    }
    if (limit > 0 && peer->connections >= limit) {
        peer = NULL;
    } else {
        peer->connections++;
    }
    pthread_mutex_unlock(&peers->lock);
    return peer;
}

void peers_leave(struct peers *peers, struct peer *peer)
{
    pthread_mutex_lock(&peers->lock);
    if (--peer->connections == 0) {
        struct peer **place = bucket_of(peers, peer->key);
        while (*place != peer) {
            place = &(*place)->next;
        }
        *place = peer->next;
        free(peer);
    }
    pthread_mutex_unlock(&peers->lock);
}
