/*
 * tls: what a route needs to speak TLS to its upstream, made once at start: an OpenSSL context with its trust store, and the last session for resumption.
 *
 * TLS 1.2 or newer, ALPN http/1.1, host name or IP address checked, SNI for names. CAs: ca_file, else SSL_CERT_FILE, else the system's bundle
 * (/etc/ssl/certs/ca-certificates.crt), never the hashed folder. Made on the main thread; used by all workers (OpenSSL locks inside, sessions under a lock of
 * our own). Connections keep what they need of it: it may be freed before them, by any thread.
 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "base/error.h"
#include "base/slice.h"

struct tls_settings {
    const char *ca_file;     /* NULL: the system's */
    bool insecure;           /* verify = false */
    const char *client_cert; /* PEM, NULL: none */
    const char *client_key;  /* PEM, NULL: in client_cert */
    const char *server_name; /* NULL: the host connected to */
};

struct tls;
struct ssl_st;

/* NULL: *error names the file and the reason. */
struct tls *tls_new(const struct tls_settings *settings, const char *host, struct error *error);
void tls_free(struct tls *tls);

/* A connection of the caller's, joined to the non-blocking socket (which stays the caller's), ready for SSL_do_handshake() as a client: name, SNI and a
 * session to resume are set. Any thread. */
struct ssl_st *tls_connection(struct tls *tls, int fd);
/* The name that the certificate must carry. */
const char *tls_name(const struct tls *tls);
/* After a handshake that failed: why the peer's certificate was refused; NULL: it was not. As long as the connection. */
const char *tls_refusal(const struct ssl_st *ssl);

#endif
