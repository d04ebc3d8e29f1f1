/*
 * tls: what a route needs to speak TLS to its upstream, made once at start: an OpenSSL context with its trust store, and the last session for resumption.
 *
 * TLS 1.2 or newer, ALPN http/1.1, host name or IP address checked, SNI for names. CAs: ca_file, else SSL_CERT_FILE, else the system's bundle
 * (/etc/ssl/certs/ca-certificates.crt), never the hashed folder. Made and freed on the main thread; used by all workers (OpenSSL locks inside, sessions under a lock of
 * our own).
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

/* NULL: *error names the file and the reason. */
struct tls *tls_new(const struct tls_settings *settings, const char *host, struct error *error);
void tls_free(struct tls *tls);

#endif
