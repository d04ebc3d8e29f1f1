/*
 * A getaddrinfo of the test's own: it takes the place of libc's in the test program. The names it knows are those of FAKE_NAMES, which
 * the test defines before; a name that begins with "slow" is answered when the test says so.
 */
#ifndef FAKE_NAMES_H
#define FAKE_NAMES_H

#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "net_test.h"

struct fake_name {
    const char *name;
    const char *ips[12]; /* NULL ends */
};

static const struct fake_name fake_names[] = {FAKE_NAMES, {NULL, {NULL}}};
static atomic_int fake_asked;   /* calls begun */
static atomic_int fake_at_once; /* calls inside, at this moment */
static pthread_mutex_t fake_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t fake_changed = PTHREAD_COND_INITIALIZER;
static bool fake_slow_may_go;

static UNUSED void fake_hold_slow_names(void)
{
    pthread_mutex_lock(&fake_mutex);
    fake_slow_may_go = false;
    pthread_mutex_unlock(&fake_mutex);
}

static UNUSED void fake_let_slow_names_go(void)
{
    pthread_mutex_lock(&fake_mutex);
    fake_slow_may_go = true;
    pthread_cond_broadcast(&fake_changed);
    pthread_mutex_unlock(&fake_mutex);
}

static struct addrinfo *fake_entry(const char *ip)
{
    struct address address;
    assert_true(address_from_ip(slice_of(ip), 0, &address));
    struct addrinfo *entry = xcalloc(1, sizeof *entry);
    entry->ai_family = address.socket.any.sa_family;
    entry->ai_socktype = SOCK_STREAM;
    entry->ai_addrlen = address.size;
    entry->ai_addr = (struct sockaddr *)(void *)xmemdup(&address.socket, address.size);
    return entry;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
    (void)service;
    (void)hints;
    atomic_fetch_add(&fake_asked, 1);
    atomic_fetch_add(&fake_at_once, 1);
    if (strncmp(name, "slow", 4) == 0) {
        pthread_mutex_lock(&fake_mutex);
        while (!fake_slow_may_go) {
            pthread_cond_wait(&fake_changed, &fake_mutex);
        }
        pthread_mutex_unlock(&fake_mutex);
    }
    *list = NULL;
    struct addrinfo **end = list;
    for (size_t i = 0; fake_names[i].name != NULL; i++) {
        if (strcasecmp(fake_names[i].name, name) == 0) {
            for (const char *const *ip = fake_names[i].ips; *ip != NULL; ip++) {
                *end = fake_entry(*ip);
                end = &(*end)->ai_next;
            }
        }
    }
    atomic_fetch_sub(&fake_at_once, 1);
    return *list != NULL ? 0 : EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *list)
{
    while (list != NULL) {
        struct addrinfo *next = list->ai_next;
        free(list->ai_addr);
        free(list);
        list = next;
    }
}

#endif
