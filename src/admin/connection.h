/*
 * connection: one connection of an operator: reads heads, has them answered one after the other, keeps its time limits. It frees itself when it is over.
 */
#ifndef ADMIN_CONNECTION_H
#define ADMIN_CONNECTION_H

#include <sys/queue.h>

#include "admin/admin.h"

/* All connections, the one that has been silent longest first. */
struct admin_connections {
    TAILQ_HEAD(, admin_connection) list;
    size_t count;
};

/* Takes over fd, and puts itself at the end of the list. settings and connections outlive it. */
void admin_connection_open(const struct admin_settings *settings, struct admin_connections *connections,
                           int fd);
/* At once, whatever it is doing. */
void admin_connection_close(struct admin_connection *connection);

#endif
