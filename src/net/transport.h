/*
 * transport: bytes over one connected socket, plain or TLS, on a loop. It knows no HTTP.
 *
 * Reading is pulled: while reading is on, on_readable is called whenever there may be something, and the owner calls transport_read() into memory of its
 * own (level-triggered: what is left unread is announced again, also bytes that TLS has already decrypted). Writing is pushed:
 * transport_write() hands the bytes to the kernel at once and keeps only what it did not take; the owner stops producing while
 * transport_pending() is above its mark and goes on at on_drained.
 *
 * Switching reading off and on again costs nothing as long as nothing arrives in between: the socket leaves the event loop's set only when it is announced to
 * nobody. After TRANSPORT_END and TRANSPORT_ERROR reading is off: there is nothing more to come, and the kernel would announce that for ever.
 *
 * The owner has exactly one transport for a connection, frees it, and may do so inside any callback (the transport is not touched afterwards).
 * Loop thread only.
 */
#ifndef NET_TRANSPORT_H
#define NET_TRANSPORT_H

#include <sys/uio.h>

#include "base/error.h"
#include "base/slice.h"
#include "net/loop.h"

struct transport;
struct ssl_st;

struct transport_callbacks {
    void (*on_readable)(void *owner);
    /* Everything written so far has been taken by the kernel, after transport_pending() was above 0. */
    void (*on_drained)(void *owner);
    /* The write side failed (peer reset, TLS error), noticed while the kernel was to take pending bytes. Read errors come from transport_read. */
    void (*on_failed)(void *owner, const struct error *error);
};

/* Takes over fd (non-blocking, connected), and ssl if not NULL (attached by tls_socket_attach(), handshake done). Reading is off. callbacks may be NULL until
 * transport_set_owner(). */
struct transport *transport_new(struct loop *loop, int fd, struct ssl_st *ssl,
                                const struct transport_callbacks *callbacks, void *owner);
/* A pooled connection changes hands. */
void transport_set_owner(struct transport *transport, const struct transport_callbacks *callbacks,
                         void *owner);
/* Closes the socket; bytes the kernel has not taken are dropped. TLS: close_notify is tried once if nothing is pending. */
void transport_free(struct transport *transport);
/* Closes with RST (SO_LINGER 0), so that the peer cannot take the cut for an end. */
void transport_free_with_reset(struct transport *transport);

void transport_set_reading(struct transport *transport, bool on);
bool transport_is_reading(const struct transport *transport);

#define TRANSPORT_END   0  /* the peer ended its side properly (FIN; TLS: close_notify) */
#define TRANSPORT_AGAIN -1 /* nothing now */
#define TRANSPORT_ERROR                                                                                      \
    -2 /* *error says why: reset, TLS error, or a FIN without close_notify ("closed without close_notify") */

/* At most size bytes. A positive number, or one of the above. */
ssize_t transport_read(struct transport *transport, void *data, size_t size, struct error *error);
/* After TRANSPORT_ERROR: it was a FIN without close_notify. All that came before is genuine, but it may have been cut by somebody in between. */
bool transport_was_truncated(const struct transport *transport);
/* After TRANSPORT_ERROR: it was a TLS alert of the peer. A server of TLS 1.3 that does not like the client's certificate says so when the client's handshake is
 * long over. */
bool transport_was_alerted(const struct transport *transport);

/* False: the connection is broken, *error says why; nothing more can be written. */
bool transport_write(struct transport *transport, const struct iovec *pieces, int count, struct error *error)
    __attribute__((warn_unused_result));
bool transport_write_slice(struct transport *transport, struct slice data, struct error *error)
    __attribute__((warn_unused_result));
/* Bytes accepted by transport_write that the kernel has not taken yet. */
size_t transport_pending(const struct transport *transport);
/* Half-close after what is pending: FIN (TLS: close_notify, then FIN). */
void transport_shutdown_write(struct transport *transport);

/* For an idle connection: true when nothing was received and the peer has not closed (one recv with MSG_PEEK; TLS: session tickets are taken in and do not
 * count). Not quiet once is not to be used again. */
bool transport_is_quiet(struct transport *transport);
/* For a connection whose reading is off: has the peer closed or reset (poll with POLLRDHUP)? */
bool transport_peer_is_gone(struct transport *transport);
/* The same, but a peer that has closed only its side may still read. */
bool transport_is_reset(struct transport *transport);

int transport_fd(const struct transport *transport);
/* Bytes the transport has given to the kernel, ever. */
uint64_t transport_bytes_written(const struct transport *transport);
/* When the kernel last took bytes, or bytes began to wait for it (monotonic ns); the time of creation before that. For write time-outs. */
uint64_t transport_last_write_ns(const struct transport *transport);

#endif
