/*
 * listener: accepts connections of one address on one loop.
 *
 * listener_bind() is called on the main thread, first of all, without SO_REUSEPORT, so that a port in use is an error and not a silent sharing; the workers then
 * open their own sockets on the address with SO_REUSEPORT (TCP), or share the one socket (unix:).
 */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include "net/address.h"
#include "net/loop.h"

struct listener;

struct listener_callbacks {
    /* A new connection: fd is non-blocking, close-on-exec, TCP_NODELAY, SO_KEEPALIVE; the callee's. peer is never an IPv4 address in IPv6 form. */
    void (*on_accepted)(void *owner, int fd, const struct address *peer);
    /* No file descriptor was left (EMFILE, ENFILE). Accepting pauses 100 ms, or until listener_resume(). The callee may close something. May be NULL. */
    void (*on_exhausted)(void *owner);
};

/* Opens count listening sockets for address into fds: probes without SO_REUSEPORT, then binds each with it (unix: one socket, dup'ed; a stale socket file is removed
 * only if nobody answers on it; mode 0600). A port of 0 gets one free port for all. On success *address carries the port. */
bool listener_bind(struct address *address, int *fds, size_t count, struct error *error);

/* Takes over fd. Accepts at most 64 connections a turn. */
struct listener *listener_new(struct loop *loop, int fd, const struct listener_callbacks *callbacks,
                              void *owner);
void listener_set_accepting(struct listener *listener, bool on);
/* A file descriptor is free again: ends the pause after on_exhausted. */
void listener_resume(struct listener *listener);
/* Accepts what waits in the queue, then closes. Both this and listener_free() may be called in a callback. */
void listener_drain_and_free(struct listener *listener);
void listener_free(struct listener *listener);

#endif
