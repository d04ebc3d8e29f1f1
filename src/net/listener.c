/*
 * listener: bind, accept, stop.
 *
 * With SO_REUSEPORT every worker's socket has an accept queue of its own, and what waits there dies with the socket: so the end of a
 * listener is to accept until the queue is empty, then to close.
 */
#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "net/failure.h"

#define ACCEPTS_PER_TURN   64
#define EXHAUSTED_PAUSE_NS (100 * NANOSECONDS_PER_MILLISECOND)
#define DRAIN_LIMIT                                                                                          \
    8192 /* twice the longest queue: clients that come faster than they are taken cannot hold up the end */

struct listener {
    const struct listener_callbacks *callbacks;
    void *owner;
    int fd;
    bool accepting; /* the owner wants connections */
    bool added;     /* the event is in epoll's set */
    bool *freed;    /* set while a callback runs */
    struct event event;
    struct loop_timer pause; /* set: no file descriptors, for a while */
};

/* ------------------------------------------------------------------------------------------------ binding */

static bool bind_failed(const struct address *address, int number, struct error *error)
{
    char where[ADDRESS_TEXT_SIZE], why[FAILURE_TEXT_SIZE];
    address_format(address, where);
    error_set(error, "listen on %s: %s", where, failure_text_of_errno(number, why));
    return false;
}

static bool is_any_ip6(const struct address *address)
{
    return address->socket.any.sa_family == AF_INET6 &&
           IN6_IS_ADDR_UNSPECIFIED(&address->socket.ip6.sin6_addr);
}

/* A socket bound to the address, or -1 and errno. */
static int bind_tcp(const struct address *address, bool share_port)
{
    int fd = socket(address->socket.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    int on = 1, off = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (share_port) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    }
    if (is_any_ip6(address)) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    if (bind(fd, &address->socket.any, address->size) != 0) {
        int number = errno;
        close(fd);
        errno = number;
        return -1;
    }
    return fd;
}

static void close_first(int *fds, size_t count)
{
    while (count > 0) {
        close(fds[--count]);
    }
}

static bool listen_tcp(struct address *address, int *fds, size_t count, struct error *error)
{
    /* The probe does not share the port, so it fails when anybody listens there, even a socket that would share. */
    int probe = bind_tcp(address, false);
    if (probe < 0 && errno == EAFNOSUPPORT && is_any_ip6(address)) {
        /* No IPv6 on this machine: all addresses are all of IPv4. */
        in_port_t port = address->socket.ip6.sin6_port;
        *address = (struct address){.size = sizeof(struct sockaddr_in)};
        address->socket.ip4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port};
        probe = bind_tcp(address, false);
    }
    if (probe < 0) {
        return bind_failed(address, errno, error);
    }
    getsockname(probe, &address->socket.any, &address->size);
    close(probe);
    for (size_t i = 0; i < count; i++) {
        fds[i] = bind_tcp(address, true);
        if (fds[i] < 0 || listen(fds[i], SOMAXCONN) != 0) {
            int number = errno;
            close_first(fds, fds[i] < 0 ? i : i + 1);
            return bind_failed(address, number, error);
        }
    }
    return true;
}

/* True when nobody is behind the socket file, which is then gone. */
static bool remove_stale(const struct address *address, struct error *error)
{
    const char *path = address->socket.path.sun_path;
    struct stat status;
    if (lstat(path, &status) != 0) {
        return errno == ENOENT || bind_failed(address, errno, error);
    }
    if (!S_ISSOCK(status.st_mode)) {
        error_set(error, "listen on unix:%s: a file that is no socket is in the way", path);
        return false;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return bind_failed(address, errno, error);
    }
    int connected = connect(fd, &address->socket.any, address->size);
    int number = connected == 0 ? EADDRINUSE : errno;
    close(fd);
    if (number != ECONNREFUSED) {
        /* EAGAIN: somebody with a full queue. */
        return bind_failed(address, number == EAGAIN ? EADDRINUSE : number, error);
    }
    return unlink(path) == 0 || bind_failed(address, errno, error);
}

static bool listen_unix(const struct address *address, int *fds, size_t count, struct error *error)
{
    if (!remove_stale(address, error)) {
        return false;
    }
    fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* The file gets the mode of the socket: it is never open to others, not even for a moment. */
    if (fds[0] < 0 || fchmod(fds[0], 0600) != 0 || bind(fds[0], &address->socket.any, address->size) != 0 ||
        listen(fds[0], SOMAXCONN) != 0) {
        int number = errno;
        close_first(fds, fds[0] < 0 ? 0 : 1);
        return bind_failed(address, number, error);
    }
    for (size_t i = 1; i < count; i++) {
        fds[i] = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
        if (fds[i] < 0) {
            int number = errno;
            close_first(fds, i);
            unlink(address->socket.path.sun_path);
            return bind_failed(address, number, error);
        }
    }
    return true;
}

bool listener_bind(struct address *address, int *fds, size_t count, struct error *error)
{
    return address->socket.any.sa_family == AF_UNIX ? listen_unix(address, fds, count, error)
                                                    : listen_tcp(address, fds, count, error);
}

/* ------------------------------------------------------------------------------------------------ accepting */

static void update_event(struct listener *listener)
{
    bool wanted = listener->accepting && listener->pause.deadline_ns == 0;
    if (wanted && !listener->added) {
        listener->added = event_add(&listener->event, NULL) == 0;
    } else if (!wanted && listener->added) {
        event_del(&listener->event);
        listener->added = false;
    }
}

enum accepted { ACCEPTED, ACCEPT_AGAIN, ACCEPT_EMPTY, ACCEPT_EXHAUSTED, ACCEPT_FREED };

/* One connection, or why there is none. */
static enum accepted accept_one(struct listener *listener)
{
    struct address peer = {.size = sizeof peer.socket};
    int fd = accept4(listener->fd, &peer.socket.any, &peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        switch (errno) {
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            /* Linux looks for a descriptor before it looks for a connection. */
            return poll(&(struct pollfd){.fd = listener->fd, .events = POLLIN}, 1, 0) > 0 ? ACCEPT_EXHAUSTED
                                                                                          : ACCEPT_EMPTY;
        case EINTR: /* and what befell the connection, not us */
        case ECONNABORTED:
        case EPROTO:
        case EPERM:
        case ENETDOWN:
        case ENETUNREACH:
        case EHOSTDOWN:
        case EHOSTUNREACH:
        case ETIMEDOUT:
            return ACCEPT_AGAIN;
        default:
            return ACCEPT_EMPTY;
        }
    }
    address_unmap(&peer);
    bool freed = false;
    listener->freed = &freed;
    listener->callbacks->on_accepted(listener->owner, fd, &peer);
    if (freed) {
        return ACCEPT_FREED;
    }
    listener->freed = NULL;
    return ACCEPTED;
}

/* False: the owner has freed the listener. */
static bool tell_exhausted(struct listener *listener)
{
    bool freed = false;
    if (listener->callbacks->on_exhausted != NULL) {
        listener->freed = &freed;
        listener->callbacks->on_exhausted(listener->owner);
        if (!freed) {
            listener->freed = NULL;
        }
    }
    return !freed;
}

static void on_connection(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct listener *listener = argument;
    for (int i = 0; i < ACCEPTS_PER_TURN && listener->accepting; i++) {
        switch (accept_one(listener)) {
        case ACCEPTED:
        case ACCEPT_AGAIN:
            break;
        case ACCEPT_EXHAUSTED:
            /* The socket stays readable: without a pause the loop would spin. */
            loop_timer_set(&listener->pause, EXHAUSTED_PAUSE_NS);
            update_event(listener);
            tell_exhausted(listener);
            return;
        case ACCEPT_EMPTY:
        case ACCEPT_FREED:
            return;
        }
    }
}

static void on_pause_over(void *argument)
{
    update_event(argument);
}

struct listener *listener_new(struct loop *loop, int fd, const struct listener_callbacks *callbacks,
                              void *owner)
{
    struct listener *listener = xcalloc(1, sizeof *listener);
    listener->callbacks = callbacks;
    listener->owner = owner;
    listener->fd = fd;
    listener->accepting = true;
    /* Accepted sockets inherit both: no system call for each of them. A unix socket has neither. */
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    event_assign(&listener->event, loop_base(loop), fd, EV_READ | EV_PERSIST, on_connection, listener);
    loop_timer_init(&listener->pause, loop, on_pause_over, listener);
    update_event(listener);
    return listener;
}

void listener_set_accepting(struct listener *listener, bool on)
{
    listener->accepting = on;
    update_event(listener);
}

void listener_resume(struct listener *listener)
{
    loop_timer_clear(&listener->pause);
    update_event(listener);
}

void listener_drain_and_free(struct listener *listener)
{
    listener->accepting = false;
    update_event(listener);
    bool told = false;
    for (int i = 0; i < DRAIN_LIMIT; i++) {
        switch (accept_one(listener)) {
        case ACCEPTED:
            told = false;
            continue;
        case ACCEPT_AGAIN:
            continue;
        case ACCEPT_EXHAUSTED:
            /* Goes on as long as the owner finds something to close. */
            if (told) {
                break;
            }
            told = true;
            if (!tell_exhausted(listener)) {
                return;
            }
            continue;
        case ACCEPT_EMPTY:
            break;
        case ACCEPT_FREED:
            return;
        }
        break;
    }
    listener_free(listener);
}

void listener_free(struct listener *listener)
{
    if (listener == NULL) {
        return;
    }
    if (listener->freed != NULL) {
        *listener->freed = true;
    }
    if (listener->added) {
        event_del(&listener->event);
    }
    loop_timer_release(&listener->pause);
    close(listener->fd);
    free(listener);
}
