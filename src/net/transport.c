/*
 * transport: raw events on the socket, no buffer on the way in, one on the way out that is empty unless the peer is slow.
 *
 * The price of a busy connection is one recv and one send for each piece: the read event stays in epoll's set while its owner switches reading
 * off and on (it is taken out when it fires and nobody wants it), and the write event is there only while bytes are pending.
 *
 * TLS adds two things. OpenSSL may hold bytes that no event will announce: then a timer of zero does. And a read may have to wait for the
 * socket to take something, a write for something to arrive (a key update): the two flags `crossed`.
 */
#include "net/transport.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/memory.h"
#include "net/failure.h"
#include "net/tls_socket.h"

/* A TLS record's worth: more in one SSL_write is cut by OpenSSL into records of this size, less is a record of its own. */
#define RECORD_SIZE 16384

enum read_state { READ_OPEN, READ_ENDED, READ_FAILED };
enum write_state { WRITE_OPEN, WRITE_ENDING, WRITE_ENDED, WRITE_FAILED };

struct transport {
    const struct transport_callbacks *callbacks;
    void *owner;
    SSL *ssl;
    int fd;
    bool reading;       /* the owner wants on_readable */
    bool read_added;    /* read_event is in epoll's set; perhaps longer than reading */
    bool write_added;   /* write_event is in epoll's set */
    bool read_crossed;  /* TLS: reading goes on when the socket is writable */
    bool write_crossed; /* TLS: writing goes on when the socket is readable */
    bool more;          /* there is something to read that no event of the socket will announce */
    enum read_state read_state;
    enum write_state write_state;
    bool *freed;           /* set while a callback runs: transport_free() says so there */
    struct buffer pending; /* what the kernel did not take */
    uint64_t bytes_written;
    uint64_t last_write_ns;
    struct event read_event;
    struct event write_event;
    struct loop_timer again; /* announces what more stands for */
    struct failure read_failure;
    struct failure write_failure;
};

/* ------------------------------------------------------------------------------------------------ events */

static void update_events(struct transport *transport)
{
    if (!transport->read_added && (transport->reading || transport->write_crossed)) {
        transport->read_added = event_add(&transport->read_event, NULL) == 0;
    }
    bool open = transport->write_state == WRITE_OPEN || transport->write_state == WRITE_ENDING;
    bool write_wanted = (open && !transport->write_crossed &&
                         (transport->pending.size > 0 || transport->write_state == WRITE_ENDING)) ||
                        (transport->reading && transport->read_crossed);
    if (write_wanted && !transport->write_added) {
        transport->write_added = event_add(&transport->write_event, NULL) == 0;
    } else if (!write_wanted && transport->write_added) {
        event_del(&transport->write_event);
        transport->write_added = false;
    }
}

static void announce_more(struct transport *transport)
{
    if (transport->reading && transport->more) {
        loop_timer_set(&transport->again, 0);
    }
}

/* False: the owner has freed the transport. */
static bool call_owner(struct transport *transport, void (*callback)(void *owner))
{
    bool freed = false;
    transport->freed = &freed;
    callback(transport->owner);
    if (!freed) {
        transport->freed = NULL;
    }
    return !freed;
}

static bool announce_readable(struct transport *transport)
{
    if (!call_owner(transport, transport->callbacks->on_readable)) {
        return false;
    }
    announce_more(transport);
    return true;
}

/* ------------------------------------------------------------------------------------------------ reading */

static ssize_t read_ended(struct transport *transport)
{
    transport->read_state = READ_ENDED;
    return TRANSPORT_END;
}

static ssize_t read_failed(struct transport *transport, struct failure failure)
{
    transport->read_state = READ_FAILED;
    transport->read_failure = failure;
    return TRANSPORT_ERROR;
}

static ssize_t read_plain(struct transport *transport, void *data, size_t size)
{
    ssize_t got;
    do {
        got = recv(transport->fd, data, size, 0);
    } while (got < 0 && errno == EINTR);
    if (got > 0) {
        return got;
    }
    if (got == 0) {
        /* The kernel tells of a reset once. If a write was told, a read sees what looks like an end. (EPIPE comes after a true FIN.) */
        bool was_reset =
            transport->write_state == WRITE_FAILED && transport->write_failure.system_error != EPIPE;
        return was_reset ? read_failed(transport, transport->write_failure) : read_ended(transport);
    }
    if (errno == EAGAIN) {
        return TRANSPORT_AGAIN;
    }
    return read_failed(transport, (struct failure){.system_error = errno});
}

/* Several records in one go, as long as OpenSSL holds bytes of the next: a stream of small records becomes few writes on the other side. */
static ssize_t read_tls(struct transport *transport, char *data, size_t size)
{
    size_t total = 0;
    do {
        size_t got = 0;
        struct failure failure;
        tls_socket_prepare();
        int result = SSL_read_ex(transport->ssl, data + total, size - total, &got);
        switch (tls_socket_outcome(transport->ssl, result, &failure)) {
        case TLS_DONE:
            total += got;
            transport->more = SSL_has_pending(transport->ssl) != 0;
            continue;
        case TLS_WANT_READ:
            transport->more = false;
            return total > 0 ? (ssize_t)total : TRANSPORT_AGAIN;
        case TLS_WANT_WRITE:
            transport->more = false;
            transport->read_crossed = true;
            update_events(transport);
            return total > 0 ? (ssize_t)total : TRANSPORT_AGAIN;
        case TLS_CLOSED:
            read_ended(transport);
            break;
        case TLS_FAILED:
            read_failed(transport, failure);
            break;
        }
        /* The end is told by the next call, which no event of the socket may bring about. */
        transport->more = total > 0;
        if (total > 0) {
            return (ssize_t)total;
        }
        return transport->read_state == READ_ENDED ? TRANSPORT_END : TRANSPORT_ERROR;
    } while (total < size && transport->more);
    return (ssize_t)total;
}

ssize_t transport_read(struct transport *transport, void *data, size_t size, struct error *error)
{
    assert(size > 0);
    ssize_t got;
    switch (transport->read_state) {
    case READ_OPEN:
        got = transport->ssl == NULL ? read_plain(transport, data, size) : read_tls(transport, data, size);
        break;
    case READ_ENDED:
        got = TRANSPORT_END;
        break;
    default:
        got = TRANSPORT_ERROR;
        break;
    }
    if (got == TRANSPORT_END || got == TRANSPORT_ERROR) {
        transport->reading = false;
        transport->more = false;
    }
    if (got == TRANSPORT_ERROR) {
        char text[FAILURE_TEXT_SIZE];
        error_set(error, "%s", failure_text(&transport->read_failure, text));
    }
    if (transport->freed == NULL) {
        announce_more(transport); /* else when the callback has returned */
    }
    return got;
}

bool transport_was_truncated(const struct transport *transport)
{
    return transport->read_state == READ_FAILED && transport->read_failure.truncated;
}

bool transport_was_alerted(const struct transport *transport)
{
    return transport->read_state == READ_FAILED && failure_is_alert(&transport->read_failure);
}

void transport_set_reading(struct transport *transport, bool on)
{
    if (transport->reading == on) {
        return;
    }
    transport->reading = on;
    if (on) {
        transport->more = transport->more || transport->read_state != READ_OPEN;
        update_events(transport);
        if (transport->freed == NULL) {
            announce_more(transport);
        }
    } else if (transport->read_crossed) {
        update_events(transport);
    }
}

bool transport_is_reading(const struct transport *transport)
{
    return transport->reading;
}

/* ------------------------------------------------------------------------------------------------ writing */

static void count_written(struct transport *transport, size_t size)
{
    transport->bytes_written += size;
    transport->last_write_ns = clock_monotonic_ns();
}

/* What became of bytes offered to the socket. *taken of them are gone, also when the rest has to wait. */
enum offered { OFFERED_ALL, OFFERED_WAIT, OFFERED_FAILED };

static enum offered offer_plain(struct transport *transport, const struct iovec *pieces, int count,
                                size_t size, size_t *taken)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)pieces,
                             .msg_iovlen = (size_t)(count < IOV_MAX ? count : IOV_MAX)};
    ssize_t sent;
    do {
        sent = sendmsg(transport->fd, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    *taken = 0;
    if (sent < 0) {
        if (errno == EAGAIN) {
            return OFFERED_WAIT;
        }
        transport->write_failure = (struct failure){.system_error = errno};
        return OFFERED_FAILED;
    }
    *taken = (size_t)sent;
    count_written(transport, *taken);
    return *taken == size ? OFFERED_ALL : OFFERED_WAIT;
}

static enum offered offer_tls(struct transport *transport, const char *data, size_t size, size_t *taken)
{
    *taken = 0;
    while (*taken < size) {
        size_t sent = 0;
        tls_socket_prepare();
        int result = SSL_write_ex(transport->ssl, data + *taken, size - *taken, &sent);
        switch (tls_socket_outcome(transport->ssl, result, &transport->write_failure)) {
        case TLS_DONE:
            *taken += sent;
            count_written(transport, sent);
            break;
        case TLS_WANT_READ:
            transport->write_crossed = true;
            return OFFERED_WAIT;
        case TLS_WANT_WRITE:
            return OFFERED_WAIT;
        case TLS_CLOSED:
        case TLS_FAILED:
            return OFFERED_FAILED;
        }
    }
    return OFFERED_ALL;
}

/* A place in a list of pieces. */
struct cursor {
    const struct iovec *piece;
    int count;
    size_t offset; /* in the first piece */
};

/* The next bytes as one run: straight from the piece when it fills a record or is the last, else gathered in scratch. */
static struct slice cursor_next(struct cursor *cursor, char scratch[RECORD_SIZE])
{
    size_t gathered = 0;
    while (cursor->count > 0) {
        const char *data = (const char *)cursor->piece->iov_base + cursor->offset;
        size_t left = cursor->piece->iov_len - cursor->offset;
        if (gathered == 0 && left > 0 && (left >= RECORD_SIZE || cursor->count == 1)) {
            cursor->piece++;
            cursor->count--;
            cursor->offset = 0;
            return (struct slice){data, left};
        }
        size_t room = RECORD_SIZE - gathered;
        size_t part = left < room ? left : room;
        if (part > 0) {
            memcpy(scratch + gathered, data, part);
        }
        gathered += part;
        cursor->offset += part;
        if (part < left) {
            break;
        }
        cursor->piece++;
        cursor->count--;
        cursor->offset = 0;
    }
    return (struct slice){scratch, gathered};
}

/* Behind what is pending, from the cursor on. */
static void keep(struct transport *transport, struct cursor cursor)
{
    for (; cursor.count > 0; cursor.piece++, cursor.count--, cursor.offset = 0) {
        buffer_append(&transport->pending, (const char *)cursor.piece->iov_base + cursor.offset,
                      cursor.piece->iov_len - cursor.offset);
    }
}

static enum offered write_plain(struct transport *transport, const struct iovec *pieces, int count,
                                size_t size)
{
    size_t taken;
    enum offered offered = offer_plain(transport, pieces, count, size, &taken);
    if (offered == OFFERED_WAIT) {
        struct cursor cursor = {pieces, count, taken};
        while (cursor.count > 0 && cursor.offset >= cursor.piece->iov_len) {
            cursor.offset -= cursor.piece->iov_len;
            cursor.piece++;
            cursor.count--;
        }
        keep(transport, cursor);
    }
    return offered;
}

/* OpenSSL wants a write that had to wait offered again with the same bytes at the front, and no fewer: the whole run goes to pending. */
static enum offered write_tls(struct transport *transport, const struct iovec *pieces, int count)
{
    char scratch[RECORD_SIZE];
    struct cursor cursor = {pieces, count, 0};
    while (cursor.count > 0) {
        struct slice run = cursor_next(&cursor, scratch);
        if (run.size == 0) {
            break;
        }
        size_t taken;
        enum offered offered = offer_tls(transport, run.data, run.size, &taken);
        if (offered == OFFERED_WAIT) {
            buffer_append(&transport->pending, run.data + taken, run.size - taken);
            keep(transport, cursor);
        }
        if (offered != OFFERED_ALL) {
            return offered;
        }
    }
    return OFFERED_ALL;
}

static void write_failed(struct transport *transport, struct error *error)
{
    char text[FAILURE_TEXT_SIZE];
    error_set(error, "%s", failure_text(&transport->write_failure, text));
    transport->write_state = WRITE_FAILED;
    transport->write_crossed = false;
    buffer_free(&transport->pending);
    update_events(transport);
}

bool transport_write(struct transport *transport, const struct iovec *pieces, int count, struct error *error)
{
    if (transport->write_state == WRITE_FAILED) {
        char text[FAILURE_TEXT_SIZE];
        error_set(error, "%s", failure_text(&transport->write_failure, text));
        return false;
    }
    if (transport->write_state != WRITE_OPEN) {
        error_set(error, "the write side is closed");
        return false;
    }
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        size += pieces[i].iov_len;
    }
    if (size == 0) {
        return true;
    }
    if (transport->pending.size > 0) {
        keep(transport, (struct cursor){pieces, count, 0});
        return true;
    }
    enum offered offered = transport->ssl == NULL ? write_plain(transport, pieces, count, size)
                                                  : write_tls(transport, pieces, count);
    if (offered == OFFERED_FAILED) {
        write_failed(transport, error);
        return false;
    }
    if (offered == OFFERED_WAIT) {
        transport->last_write_ns = clock_monotonic_ns(); /* the waiting begins, taken some or none */
        update_events(transport);
    }
    return true;
}

bool transport_write_slice(struct transport *transport, struct slice data, struct error *error)
{
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data.data, .iov_len = data.size};
    return transport_write(transport, &piece, 1, error);
}

size_t transport_pending(const struct transport *transport)
{
    return transport->pending.size;
}

/* Nothing is pending: close_notify and FIN, now or when the socket takes it. */
static void end_writing(struct transport *transport)
{
    if (transport->ssl != NULL) {
        struct failure failure;
        tls_socket_prepare();
        int result = SSL_shutdown(transport->ssl);
        if (result < 0 && tls_socket_outcome(transport->ssl, result, &failure) == TLS_WANT_WRITE) {
            return;
        }
    }
    shutdown(transport->fd, SHUT_WR);
    transport->write_state = WRITE_ENDED;
}

void transport_shutdown_write(struct transport *transport)
{
    if (transport->write_state != WRITE_OPEN) {
        return;
    }
    transport->write_state = WRITE_ENDING;
    if (transport->pending.size == 0) {
        end_writing(transport);
    }
    update_events(transport);
}

/* The socket is ready for what is pending. The last thing a caller does: the owner may free the transport. */
static void flush(struct transport *transport)
{
    bool had_pending = transport->pending.size > 0;
    if (had_pending) {
        size_t taken;
        struct slice data = buffer_slice(&transport->pending);
        struct iovec piece = {.iov_base = (void *)(uintptr_t)data.data, .iov_len = data.size};
        enum offered offered = transport->ssl == NULL ? offer_plain(transport, &piece, 1, data.size, &taken)
                                                      : offer_tls(transport, data.data, data.size, &taken);
        if (offered == OFFERED_FAILED) {
            struct error error;
            write_failed(transport, &error);
            transport->callbacks->on_failed(transport->owner, &error);
            return;
        }
        buffer_consume(&transport->pending, taken);
        if (offered == OFFERED_WAIT) {
            update_events(transport);
            return;
        }
        buffer_free(&transport->pending);
    }
    if (transport->write_state == WRITE_ENDING) {
        end_writing(transport);
    }
    update_events(transport);
    if (had_pending) {
        transport->callbacks->on_drained(transport->owner);
    }
}

/* ------------------------------------------------------------------------------------------------ the loop calls */

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct transport *transport = argument;
    if (transport->reading) {
        if (!announce_readable(transport)) {
            return;
        }
    } else if (!transport->write_crossed) {
        event_del(&transport->read_event);
        transport->read_added = false;
    }
    if (transport->write_crossed) {
        transport->write_crossed = false;
        flush(transport);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct transport *transport = argument;
    if (transport->read_crossed) {
        transport->read_crossed = false;
        if (transport->reading && !announce_readable(transport)) {
            return;
        }
        if (!transport->read_crossed) {
            update_events(transport);
        }
    }
    if (!transport->write_crossed && transport->write_added) {
        flush(transport);
    }
}

static void on_again(void *argument)
{
    struct transport *transport = argument;
    if (transport->reading && transport->more) {
        announce_readable(transport);
    }
}

/* ------------------------------------------------------------------------------------------------ life */

struct transport *transport_new(struct loop *loop, int fd, struct ssl_st *ssl,
                                const struct transport_callbacks *callbacks, void *owner)
{
    struct transport *transport = xcalloc(1, sizeof *transport);
    transport->fd = fd;
    transport->ssl = ssl;
    transport->callbacks = callbacks;
    transport->owner = owner;
    transport->last_write_ns = clock_monotonic_ns();
    transport->more = ssl != NULL && SSL_has_pending(ssl) != 0; /* came with the end of the handshake */
    event_assign(&transport->read_event, loop_base(loop), fd, EV_READ | EV_PERSIST, on_readable, transport);
    event_assign(&transport->write_event, loop_base(loop), fd, EV_WRITE | EV_PERSIST, on_writable, transport);
    loop_timer_init(&transport->again, loop, on_again, transport);
    return transport;
}

void transport_set_owner(struct transport *transport, const struct transport_callbacks *callbacks,
                         void *owner)
{
    transport->callbacks = callbacks;
    transport->owner = owner;
}

static void close_all(struct transport *transport)
{
    if (transport->freed != NULL) {
        *transport->freed = true;
    }
    if (transport->read_added) {
        event_del(&transport->read_event);
    }
    if (transport->write_added) {
        event_del(&transport->write_event);
    }
    loop_timer_release(&transport->again);
    if (transport->ssl != NULL) {
        /* How the connection ended says nothing about its session: without this OpenSSL would not resume it. */
        SSL_set_shutdown(transport->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(transport->ssl);
    }
    close(transport->fd);
    buffer_free(&transport->pending);
    free(transport);
}

void transport_free(struct transport *transport)
{
    if (transport == NULL) {
        return;
    }
    if (transport->ssl != NULL && transport->write_state == WRITE_OPEN && transport->pending.size == 0 &&
        transport->read_state != READ_FAILED) {
        tls_socket_prepare();
        SSL_shutdown(transport->ssl);
    }
    close_all(transport);
}

void transport_free_with_reset(struct transport *transport)
{
    if (transport == NULL) {
        return;
    }
    setsockopt(transport->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
    close_all(transport);
}

bool transport_is_quiet(struct transport *transport)
{
    if (transport->read_state != READ_OPEN || transport->more) {
        return false;
    }
    char byte;
    if (transport->ssl == NULL) {
        return recv(transport->fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
    }
    size_t got;
    struct failure failure;
    tls_socket_prepare();
    int result = SSL_peek_ex(transport->ssl, &byte, 1, &got);
    return tls_socket_outcome(transport->ssl, result, &failure) == TLS_WANT_READ &&
           SSL_has_pending(transport->ssl) == 0;
}

static bool polls(struct transport *transport, short events)
{
    struct pollfd poller = {.fd = transport->fd, .events = events};
    return poll(&poller, 1, 0) > 0 && (poller.revents & events) != 0;
}

bool transport_peer_is_gone(struct transport *transport)
{
    return polls(transport, POLLRDHUP | POLLERR | POLLHUP);
}

bool transport_is_reset(struct transport *transport)
{
    return polls(transport, POLLERR | POLLHUP);
}

int transport_fd(const struct transport *transport)
{
    return transport->fd;
}

uint64_t transport_bytes_written(const struct transport *transport)
{
    return transport->bytes_written;
}

uint64_t transport_last_write_ns(const struct transport *transport)
{
    return transport->last_write_ns;
}
