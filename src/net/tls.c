/*
 * tls: the OpenSSL context of a route.
 *
 * struct tls hangs on its SSL_CTX and dies with it: every connection holds a reference to the context, and late session tickets look for
 * the place to be kept.
 */
#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "net/address.h"
#include "net/failure.h"
#include "net/tls_refusal.h"
#include "net/tls_socket.h"

#define SYSTEM_CA_FILE "/etc/ssl/certs/ca-certificates.crt"
#define CA_FILE_LIMIT  ((size_t)16 << 20)
#define KEY_FILE_LIMIT ((size_t)1 << 20)
#define MAX_SESSIONS   16

struct tls {
    SSL_CTX *context;
    char *name; /* without a dot at the end */
    bool name_is_ip;
    pthread_mutex_t mutex;
    /* Guarded by the mutex; the newest is the last. */
    SSL_SESSION *sessions[MAX_SESSIONS];
    size_t session_count;
};

static pthread_once_t index_once = PTHREAD_ONCE_INIT;
static int tls_index;     /* where a context keeps its struct tls */
static int refusal_index; /* where a connection keeps why its peer's certificate was refused */

/* ------------------------------------------------------------------------------------------------ files */

static const char *openssl_reason(char out[FAILURE_TEXT_SIZE])
{
    struct failure failure = {.tls_error = ERR_get_error()};
    ERR_clear_error();
    return failure_text(&failure, out);
}

/* The certificates of a PEM file, at least one. NULL: *error tells. */
static STACK_OF(X509) * read_certificates(const char *setting, const char *path, struct error *error)
{
    struct buffer text = {0};
    BIO *source = NULL;
    STACK_OF(X509) *certificates = sk_X509_new_null();
    if (!file_read(path, CA_FILE_LIMIT, &text, error)) {
        error_prefix(error, "%s: ", setting);
        goto failed;
    }
    source = BIO_new_mem_buf(text.size > 0 ? buffer_data(&text) : "", (int)text.size);
    X509 *certificate;
    while ((certificate = PEM_read_bio_X509_AUX(source, NULL, NULL, NULL)) != NULL) {
        sk_X509_push(certificates, certificate);
    }
    char why[FAILURE_TEXT_SIZE];
    unsigned long reason = ERR_peek_last_error();
    if (ERR_GET_LIB(reason) != ERR_LIB_PEM || ERR_GET_REASON(reason) != PEM_R_NO_START_LINE) {
        error_set(error, "%s: %s: certificate %d cannot be read: %s", setting, path,
                  sk_X509_num(certificates) + 1, openssl_reason(why));
        goto failed;
    }
    ERR_clear_error();
    if (sk_X509_num(certificates) == 0) {
        error_set(error, "%s: %s: no certificate in PEM form in it", setting, path);
        goto failed;
    }
    BIO_free(source);
    buffer_free(&text);
    return certificates;
failed:
    BIO_free(source);
    buffer_free(&text);
    sk_X509_pop_free(certificates, X509_free);
    return NULL;
}

static bool load_authorities(SSL_CTX *context, const struct tls_settings *settings, struct error *error)
{
    const char *setting = "ca_file";
    const char *path = settings->ca_file;
    if (path == NULL) {
        setting = "SSL_CERT_FILE";
        path = getenv("SSL_CERT_FILE");
    }
    if (path == NULL || path[0] == '\0') {
        setting = "the system's certificates (package ca-certificates)";
        path = SYSTEM_CA_FILE;
    }
    STACK_OF(X509) *certificates = read_certificates(setting, path, error);
    if (certificates == NULL) {
        return false;
    }
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    for (int i = 0; i < sk_X509_num(certificates); i++) {
        X509 *certificate = sk_X509_value(certificates, i);
        X509_check_purpose(certificate, -1, 0); /* what it caches in there, before workers share it */
        X509_STORE_add_cert(store, certificate);
    }
    ERR_clear_error();
    sk_X509_pop_free(certificates, X509_free);
    return true;
}

/* A key that wants a passphrase has nobody to ask. */
static int no_passphrase(char *out, int size, int writing, void *argument)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)argument;
    return -1;
}

static EVP_PKEY *read_key(const char *setting, const char *path, struct error *error)
{
    struct buffer text = {0};
    if (!file_read(path, KEY_FILE_LIMIT, &text, error)) {
        error_prefix(error, "%s: ", setting);
        buffer_free(&text);
        return NULL;
    }
    BIO *source = BIO_new_mem_buf(text.size > 0 ? buffer_data(&text) : "", (int)text.size);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(source, NULL, no_passphrase, NULL);
    if (key == NULL) {
        bool encrypted = text.size > 0 && memmem(buffer_data(&text), text.size, "ENCRYPTED", 9) != NULL;
        error_set(error, "%s: %s: %s", setting, path,
                  encrypted ? "the key is encrypted, a plain one is needed"
                            : "no private key in PEM form in it");
        ERR_clear_error();
    }
    BIO_free(source);
    if (text.block != NULL) {
        OPENSSL_cleanse(text.block, text.capacity);
    }
    buffer_free(&text);
    return key;
}

static bool load_client_certificate(SSL_CTX *context, const struct tls_settings *settings,
                                    struct error *error)
{
    char why[FAILURE_TEXT_SIZE];
    const char *key_setting = settings->client_key != NULL ? "client_key" : "client_cert";
    const char *key_path = settings->client_key != NULL ? settings->client_key : settings->client_cert;
    STACK_OF(X509) *certificates = read_certificates("client_cert", settings->client_cert, error);
    if (certificates == NULL) {
        return false;
    }
    bool loaded = false;
    EVP_PKEY *key = read_key(key_setting, key_path, error);
    if (key == NULL) {
        goto done;
    }
    if (SSL_CTX_use_certificate(context, sk_X509_value(certificates, 0)) != 1) {
        error_set(error, "client_cert: %s: %s", settings->client_cert, openssl_reason(why));
        goto done;
    }
    for (int i = 1; i < sk_X509_num(certificates); i++) {
        SSL_CTX_add1_chain_cert(context, sk_X509_value(certificates, i));
    }
    if (SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1) {
        ERR_clear_error();
        error_set(error, "%s: %s: the key does not belong to the certificate in %s", key_setting, key_path,
                  settings->client_cert);
        goto done;
    }
    loaded = true;
done:
    EVP_PKEY_free(key);
    sk_X509_pop_free(certificates, X509_free);
    return loaded;
}

/* ------------------------------------------------------------------------------------------------ sessions */

/* A session for later; OpenSSL's callback. TLS 1.3 sends several after the handshake. What is kept is a copy: a connection that ends without close_notify takes
 * its session with it. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *tls = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), tls_index);
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    SSL_SESSION *oldest = NULL;
    if (copy == NULL) {
        return 0;
    }
    pthread_mutex_lock(&tls->mutex);
    if (tls->session_count == MAX_SESSIONS) {
        oldest = tls->sessions[0];
        tls->session_count--;
        memmove(tls->sessions, tls->sessions + 1, tls->session_count * sizeof tls->sessions[0]);
    }
    tls->sessions[tls->session_count++] = copy;
    pthread_mutex_unlock(&tls->mutex);
    SSL_SESSION_free(oldest);
    return 0; /* the session stays OpenSSL's */
}

/* The newest session, the caller's. A ticket of TLS 1.3 is used once (RFC 8446 C.4); a session of TLS 1.2 again and again. */
static SSL_SESSION *take_session(struct tls *tls)
{
    SSL_SESSION *session = NULL;
    pthread_mutex_lock(&tls->mutex);
    if (tls->session_count > 0) {
        SSL_SESSION *newest = tls->sessions[tls->session_count - 1];
        if (SSL_SESSION_get_protocol_version(newest) >= TLS1_3_VERSION) {
            session = newest;
            tls->session_count--;
        } else {
            session = SSL_SESSION_dup(newest);
        }
    }
    pthread_mutex_unlock(&tls->mutex);
    return session;
}

/* ------------------------------------------------------------------------------------------------ life */

/* OpenSSL's callback: the last reference to the context is gone. */
static void on_context_freed(void *parent, void *pointer, CRYPTO_EX_DATA *data, int index, long number,
                             void *argument)
{
    (void)parent;
    (void)data;
    (void)index;
    (void)number;
    (void)argument;
    struct tls *tls = pointer;
    if (tls == NULL) {
        return;
    }
    for (size_t i = 0; i < tls->session_count; i++) {
        SSL_SESSION_free(tls->sessions[i]);
    }
    pthread_mutex_destroy(&tls->mutex);
    free(tls->name);
    free(tls);
}

/* OpenSSL's callback. */
static void on_connection_freed(void *parent, void *pointer, CRYPTO_EX_DATA *data, int index, long number,
                                void *argument)
{
    (void)parent;
    (void)data;
    (void)index;
    (void)number;
    (void)argument;
    free(pointer);
}

static void make_indexes(void)
{
    tls_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, on_context_freed);
    refusal_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, on_connection_freed);
}

/* OpenSSL's callback. Changes no verdict: it takes down the reason while there is more to know than its number. */
static int on_verified(int good, X509_STORE_CTX *store)
{
    if (!good) {
        SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
        const struct tls *tls = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), tls_index);
        free(SSL_get_ex_data(ssl, refusal_index));
        SSL_set_ex_data(ssl, refusal_index, tls_refusal_new(store, tls_name(tls)));
    }
    return good;
}

static void set_name(struct tls *tls, const char *name)
{
    struct slice trimmed = slice_of(name);
    struct address address;
    tls->name_is_ip = address_from_ip(trimmed, 0, &address);
    if (!tls->name_is_ip && trimmed.size > 1 && trimmed.data[trimmed.size - 1] == '.') {
        trimmed.size--; /* no certificate and no SNI has the root's dot */
    }
    tls->name = slice_to_string(trimmed);
}

static bool configure(struct tls *tls, const struct tls_settings *settings, struct error *error)
{
    static const unsigned char protocols[] = "\x08http/1.1";
    SSL_CTX *context = tls->context;
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_alpn_protos(context, protocols, sizeof protocols - 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    if (!settings->insecure) {
        X509_VERIFY_PARAM *parameters = SSL_CTX_get0_param(context);
        int named = tls->name_is_ip ? X509_VERIFY_PARAM_set1_ip_asc(parameters, tls->name)
                                    : X509_VERIFY_PARAM_set1_host(parameters, tls->name, 0);
        if (named != 1) {
            error_set(error, "'%s' is no name that a certificate can carry", tls->name);
            return false;
        }
        X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, on_verified);
    }
    if ((!settings->insecure || settings->ca_file != NULL) && !load_authorities(context, settings, error)) {
        return false;
    }
    return settings->client_cert == NULL || load_client_certificate(context, settings, error);
}

struct tls *tls_new(const struct tls_settings *settings, const char *host, struct error *error)
{
    pthread_once(&index_once, make_indexes);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (context == NULL) {
        char why[FAILURE_TEXT_SIZE];
        error_set(error, "cannot make a TLS context: %s", openssl_reason(why));
        return NULL;
    }
    struct tls *tls = xcalloc(1, sizeof *tls);
    tls->context = context;
    pthread_mutex_init(&tls->mutex, NULL);
    set_name(tls, settings->server_name != NULL ? settings->server_name : host);
    SSL_CTX_set_ex_data(context, tls_index, tls);
    if (!configure(tls, settings, error)) {
        SSL_CTX_free(context);
        return NULL;
    }
    return tls;
}

void tls_free(struct tls *tls)
{
    if (tls != NULL) {
        SSL_CTX_free(tls->context);
    }
}

struct ssl_st *tls_connection(struct tls *tls, int fd)
{
    SSL *ssl = SSL_new(tls->context);
    if (ssl == NULL) {
        abort();
    }
    tls_socket_attach(ssl, fd);
    if (!tls->name_is_ip) {
        SSL_set_tlsext_host_name(ssl, tls->name);
    }
    SSL_SESSION *session = take_session(tls);
    if (session != NULL) {
        SSL_set_session(ssl, session);
        SSL_SESSION_free(session);
    }
    SSL_set_connect_state(ssl);
    return ssl;
}

const char *tls_name(const struct tls *tls)
{
    return tls->name;
}

const char *tls_refusal(const struct ssl_st *ssl)
{
    return SSL_get_ex_data(ssl, refusal_index);
}
