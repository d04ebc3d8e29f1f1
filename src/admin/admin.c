/*
 * admin: the listener and its connections. A flood of connections must not lock operators out, so the newest always gets in and the one that
 * has been silent longest goes.
 */
#include "admin/admin.h"

#include <stdlib.h>

#include "admin/connection.h"
#include "base/memory.h"
#include "net/listener.h"

#define MAX_CONNECTIONS 64

struct admin {
    struct admin_settings settings; /* with the copies below */
    char *token;
    char **hosts;
    struct listener *listener;
    struct admin_connections connections;
};

static char **copy_hosts(const char *const *hosts)
{
    size_t count = 0;
    while (hosts != NULL && hosts[count] != NULL) {
        count++;
    }
    char **copy = xcalloc(count + 1, sizeof(*copy));
    for (size_t i = 0; i < count; i++) {
        copy[i] = xstrdup(hosts[i]);
    }
    return copy;
}

static void free_hosts(char **hosts)
{
    for (size_t i = 0; hosts[i] != NULL; i++) {
        free(hosts[i]);
    }
    free(hosts);
}

static void close_longest_idle(struct admin *admin)
{
    if (admin->connections.count > 0) {
        admin_connection_close(TAILQ_FIRST(&admin->connections.list));
    }
}

static void on_accepted(void *owner, int fd, const struct address *peer)
{
    struct admin *admin = owner;
    (void)peer;
    if (admin->connections.count == MAX_CONNECTIONS) {
        close_longest_idle(admin);
    }
    admin_connection_open(&admin->settings, &admin->connections, fd);
}

static void on_exhausted(void *owner)
{
    close_longest_idle(owner);
}

struct admin *admin_new(const struct admin_settings *settings, struct error *error)
{
    static const struct listener_callbacks callbacks = {on_accepted, on_exhausted};
    struct address address = settings->address;
    int fd;

    if (!listener_bind(&address, &fd, 1, error)) {
        return NULL;
    }
    struct admin *admin = xcalloc(1, sizeof(*admin));
    admin->settings = *settings;
    admin->settings.address = address;
    admin->token = settings->token != NULL ? xstrdup(settings->token) : NULL;
    admin->settings.token = admin->token;
    admin->hosts = copy_hosts(settings->hosts);
    admin->settings.hosts = (const char *const *)admin->hosts;
    TAILQ_INIT(&admin->connections.list);
    admin->listener = listener_new(settings->loop, fd, &callbacks, admin);
    return admin;
}

const struct address *admin_address(const struct admin *admin)
{
    return &admin->settings.address;
}

void admin_set_hosts(struct admin *admin, const char *const *hosts)
{
    char **copy = copy_hosts(hosts);
    free_hosts(admin->hosts);
    admin->hosts = copy;
    admin->settings.hosts = (const char *const *)copy;
}

void admin_free(struct admin *admin)
{
    listener_free(admin->listener);
    while (admin->connections.count > 0) {
        close_longest_idle(admin);
    }
    free(admin->token);
    free_hosts(admin->hosts);
    free(admin);
}
