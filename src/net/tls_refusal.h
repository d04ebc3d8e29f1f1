/*
 * tls_refusal: why a certificate was refused, in a sentence for people: what OpenSSL says, and the name, date or authority that it does not tell.
 */
#ifndef NET_TLS_REFUSAL_H
#define NET_TLS_REFUSAL_H

#include <openssl/x509_vfy.h>

/* For a verification that has just failed; name is the one that the certificate should carry. "hostname mismatch: the certificate is not for api.example but
 * for other.example". At most a line of printable characters. The caller's, by free(). */
char *tls_refusal_new(X509_STORE_CTX *store, const char *name);

#endif
