/*
 * clients: the connections of one worker together: who may come in, and who must go. Private to proxy/; worker's thread only.
 */
#ifndef PROXY_CLIENTS_H
#define PROXY_CLIENTS_H

#include "proxy/client.h"

/* Takes over fd. */
void clients_accept(struct worker *worker, int fd, const struct address *peer);
/* Looks for clients that have gone, among those that are not being read from. */
void clients_sweep(struct worker *worker);
/* Closes the longest idle connection, here or else on another worker. */
enum room clients_make_room(struct worker *worker);
/* Closes those that are idle; those that were never used have a moment to bring their request. */
void clients_close_idle(struct worker *worker);
void clients_close_all(struct worker *worker);

#endif
