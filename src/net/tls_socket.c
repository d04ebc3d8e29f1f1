/*
 * tls_socket: a BIO of our own between OpenSSL and the socket, because OpenSSL's writes with write(2), and that raises SIGPIPE.
 */
#include "net/tls_socket.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

static pthread_once_t method_once = PTHREAD_ONCE_INIT;
static BIO_METHOD *method;

static int descriptor(BIO *bio)
{
    return (int)(intptr_t)BIO_get_data(bio);
}

static int socket_write(BIO *bio, const char *data, int size)
{
    BIO_clear_retry_flags(bio);
    ssize_t written = send(descriptor(bio), data, (size_t)size, MSG_NOSIGNAL);
    if (written < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_write(bio);
    }
    return (int)written;
}

static int socket_read(BIO *bio, char *data, int size)
{
    BIO_clear_retry_flags(bio);
    ssize_t got = recv(descriptor(bio), data, (size_t)size, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_read(bio);
    }
    if (got == 0) {
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    }
    return (int)got;
}

static long socket_control(BIO *bio, int command, long number, void *pointer)
{
    (void)number;
    (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    default:
        return 0;
    }
}

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE");
    if (method == NULL || !BIO_meth_set_write(method, socket_write) ||
        !BIO_meth_set_read(method, socket_read) || !BIO_meth_set_ctrl(method, socket_control)) {
        abort();
    }
}

void tls_socket_attach(SSL *ssl, int fd)
{
    pthread_once(&method_once, make_method);
    BIO *bio = BIO_new(method);
    if (bio == NULL) {
        abort();
    }
    BIO_set_data(bio, (void *)(intptr_t)fd);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                          SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_set_read_ahead(ssl, 1);
}

void tls_socket_prepare(void)
{
    ERR_clear_error();
}

enum tls_outcome tls_socket_outcome(SSL *ssl, int result, struct failure *failure)
{
    int number = errno;
    *failure = (struct failure){0};
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_NONE:
        return TLS_DONE;
    case SSL_ERROR_WANT_READ:
        return TLS_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_CLOSED;
    case SSL_ERROR_SYSCALL:
        failure->system_error = number;
        failure->truncated = number == 0;
        return TLS_FAILED;
    default:
        failure->tls_error = ERR_get_error();
        failure->truncated = ERR_GET_LIB(failure->tls_error) == ERR_LIB_SSL &&
                             ERR_GET_REASON(failure->tls_error) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
        return TLS_FAILED;
    }
}
