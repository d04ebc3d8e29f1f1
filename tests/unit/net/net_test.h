/*
 * What the tests of net/ share: waiting for a loop, pairs of connected sockets, certificates and TLS peers. Functions are static, each test uses
 * what it needs.
 */
#ifndef NET_TEST_H
#define NET_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "net/loop.h"

#define UNUSED __attribute__((unused))

/* ------------------------------------------------------------------------------------------------ waiting */

static inline void turn(struct loop *loop)
{
    event_base_loop(loop_base(loop), EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

/* Some turns in which nothing is expected. */
static inline void turns(struct loop *loop)
{
    for (int i = 0; i < 20; i++) {
        turn(loop);
        usleep(100);
    }
}

/* Runs the loop until the condition holds; step (a statement) is done in every turn. A failure after 20 s. */
#define wait_until_with(loop, condition, step)                                                               \
    do {                                                                                                     \
        uint64_t wait_end = clock_monotonic_ns() + 20 * NANOSECONDS_PER_SECOND;                              \
        while (!(condition)) {                                                                               \
            assert_true(clock_monotonic_ns() < wait_end);                                                    \
            turn(loop);                                                                                      \
            step;                                                                                            \
            usleep(50);                                                                                      \
        }                                                                                                    \
    } while (0)
#define wait_until(loop, condition) wait_until_with(loop, condition, (void)0)

/* ------------------------------------------------------------------------------------------------ sockets */

static UNUSED void set_nonblocking(int fd)
{
    assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

static UNUSED struct sockaddr_in loopback(const char *ip, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    unsigned a, b, c, d;
    assert_int_equal(sscanf(ip, "%u.%u.%u.%u", &a, &b, &c, &d), 4);
    address.sin_addr.s_addr = htonl(a << 24 | b << 16 | c << 8 | d);
    return address;
}

/* A listening socket; *port 0 is replaced by the one it got. */
static UNUSED int listen_on(const char *ip, uint16_t *port, int backlog)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(ip, *port);
    socklen_t size = sizeof address;
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, backlog), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

/* A connected, blocking socket. */
static UNUSED int connect_to(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback("127.0.0.1", port);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* A TCP connection over loopback; both ends non-blocking. */
static UNUSED void tcp_pair(int fds[2])
{
    uint16_t port = 0;
    int listening = listen_on("127.0.0.1", &port, 1);
    fds[0] = connect_to(port);
    struct pollfd poller = {.fd = listening, .events = POLLIN};
    assert_int_equal(poll(&poller, 1, 5000), 1);
    fds[1] = accept(listening, NULL, NULL);
    assert_true(fds[1] >= 0);
    close(listening);
    for (int i = 0; i < 2; i++) {
        set_nonblocking(fds[i]);
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        /* Small, so that a peer that does not read is soon felt. */
        setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &(int){100000}, sizeof(int));
        setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &(int){100000}, sizeof(int));
    }
}

static UNUSED void close_with_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(fd);
}

static UNUSED int open_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

/* ------------------------------------------------------------------------------------------------ certificates */

struct identity {
    X509 *certificate;
    EVP_PKEY *key;
};

struct identity_settings {
    const char *name;         /* common name */
    const char *alternatives; /* subjectAltName, as in "DNS:api.example,IP:127.0.0.1"; NULL: none */
    struct identity *issuer;  /* NULL: signed by itself */
    bool authority;
    long from_s, until_s; /* from now; until 0: an hour */
};

static UNUSED void add_extension(X509 *certificate, int kind, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, kind, value);
    assert_non_null(extension);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

static UNUSED struct identity identity_new(const struct identity_settings *settings)
{
    static long serial = 1;
    struct identity identity = {X509_new(), EVP_EC_gen("P-256")};
    X509 *certificate = identity.certificate;
    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial++);
    X509_gmtime_adj(X509_getm_notBefore(certificate), settings->from_s != 0 ? settings->from_s : -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), settings->until_s != 0 ? settings->until_s : 3600);
    X509_set_pubkey(certificate, identity.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               (const unsigned char *)settings->name, -1, -1, 0);
    const struct identity *issuer = settings->issuer != NULL ? settings->issuer : &identity;
    X509_set_issuer_name(certificate, X509_get_subject_name(issuer->certificate));
    add_extension(certificate, NID_basic_constraints, settings->authority ? "critical,CA:TRUE" : "CA:FALSE");
    if (settings->alternatives != NULL) {
        add_extension(certificate, NID_subject_alt_name, settings->alternatives);
    }
    assert_true(X509_sign(certificate, issuer->key, EVP_sha256()) > 0);
    return identity;
}

static UNUSED void identity_free(struct identity *identity)
{
    X509_free(identity->certificate);
    EVP_PKEY_free(identity->key);
}

static UNUSED void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static UNUSED void write_certificate(const char *path, const char *mode, const struct identity *identity)
{
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    PEM_write_X509(file, identity->certificate);
    fclose(file);
}

static UNUSED void write_key(const char *path, const char *mode, const struct identity *identity)
{
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    PEM_write_PrivateKey(file, identity->key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
}

/* ------------------------------------------------------------------------------------------------ TLS servers */

static UNUSED int choose_http1(SSL *ssl, const unsigned char **out, unsigned char *size,
                               const unsigned char *offered, unsigned offered_size, void *argument)
{
    (void)ssl;
    (void)argument;
    static const unsigned char ours[] = "\x08http/1.1";
    return SSL_select_next_proto((unsigned char **)(uintptr_t)out, size, ours, sizeof ours - 1, offered,
                                 offered_size) == OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* version: TLS1_2_VERSION or TLS1_3_VERSION. */
static UNUSED SSL_CTX *server_context(const struct identity *identity, int version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    assert_int_equal(SSL_CTX_use_certificate(context, identity->certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, identity->key), 1);
    SSL_CTX_set_alpn_select_cb(context, choose_http1, NULL);
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"test", 4);
    return context;
}

#endif
