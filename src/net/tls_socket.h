/*
 * tls_socket: an OpenSSL connection over a non-blocking socket: how it reads and writes the socket, and what its return values mean.
 */
#ifndef NET_TLS_SOCKET_H
#define NET_TLS_SOCKET_H

#include <openssl/ssl.h>

#include "net/failure.h"

/* Joins the two, before the handshake; the socket stays the caller's. Writing to a socket whose peer is gone raises no SIGPIPE. Reading takes from the
 * socket what is there (one recv for many records), so SSL_has_pending() decides whether there is more, not the socket alone. */
void tls_socket_attach(SSL *ssl, int fd);

enum tls_outcome { TLS_DONE, TLS_WANT_READ, TLS_WANT_WRITE, TLS_CLOSED, TLS_FAILED };

/* Before each operation: what other connections of this thread left in OpenSSL's error queue must not be taken for ours. */
void tls_socket_prepare(void);
/* What the operation that returned result came to. TLS_CLOSED: close_notify arrived. TLS_FAILED: *failure tells. Right after it: errno counts. */
enum tls_outcome tls_socket_outcome(SSL *ssl, int result, struct failure *failure);

#endif
