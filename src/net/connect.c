/*
 * connect: one attempt, from the name to the transport.
 *
 *     RESOLVING ──▶ CONNECTING ──▶ (TUNNELLING) ──▶ (HANDSHAKING) ──▶ on_connected
 *          └──────────────┴───────────────┴────────────────┴── FAILED ──▶ on_failed, in the next turn
 *
 * Through a forward proxy it is the proxy that is resolved and connected to; the proxy resolves the target's name.
 * While CONNECTING there may be several sockets on the way at once; the first that is connected wins and the others are closed. Both callbacks
 * come from the loop with the attempt already freed.
 */
#include "net/connect.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "net/failure.h"
#include "net/tls_socket.h"

#define NEXT_ADDRESS_AFTER_NS (250 * NANOSECONDS_PER_MILLISECOND)

/* A response may take ten minutes without a byte; routers on the way forget connections that are silent for less. */
#define KEEPALIVE_IDLE_S     60
#define KEEPALIVE_INTERVAL_S 15
#define KEEPALIVE_PROBES     4

enum phase { RESOLVING, CONNECTING, TUNNELLING, HANDSHAKING, FAILED };

/* One address being connected to. */
struct trial {
    struct connect_attempt *attempt;
    int fd; /* -1: not begun, or over */
    struct event event;
};

struct connect_attempt {
    struct loop *loop;
    struct resolver *resolver;
    struct connect_target target;
    const struct connect_callbacks *callbacks;
    void *owner;
    enum phase phase;
    struct loop_timer total;
    struct loop_timer next; /* CONNECTING: the next address; FAILED: the callback */
    struct resolver_query *query;
    struct resolver_result addresses;
    size_t begun; /* addresses */
    bool exhausted;
    struct trial trials[RESOLVER_MAX_ADDRESSES];
    struct tunnel *tunnel;
    SSL *ssl;
    enum connect_failure failure;
    struct error error;
};

/* ------------------------------------------------------------------------------------------------ ends */

static void trial_end(struct trial *trial)
{
    if (trial->fd >= 0) {
        event_del(&trial->event);
        close(trial->fd);
        trial->fd = -1;
    }
}

static void stop(struct connect_attempt *attempt)
{
    if (attempt->query != NULL) {
        resolver_cancel(attempt->query);
        attempt->query = NULL;
    }
    tunnel_free(attempt->tunnel);
    attempt->tunnel = NULL;
    SSL_free(attempt->ssl);
    attempt->ssl = NULL;
    for (size_t i = 0; i < RESOLVER_MAX_ADDRESSES; i++) {
        trial_end(&attempt->trials[i]);
    }
}

static void attempt_free(struct connect_attempt *attempt)
{
    stop(attempt);
    loop_timer_release(&attempt->total);
    loop_timer_release(&attempt->next);
    free(attempt);
}

/* attempt->error is set: tells the owner in the next turn of the loop. */
static void fail(struct connect_attempt *attempt, enum connect_failure failure)
{
    stop(attempt);
    attempt->phase = FAILED;
    attempt->failure = failure;
    loop_timer_clear(&attempt->total);
    loop_timer_set(&attempt->next, 0);
}

static void tell_failed(struct connect_attempt *attempt)
{
    const struct connect_callbacks *callbacks = attempt->callbacks;
    void *owner = attempt->owner;
    enum connect_failure failure = attempt->failure;
    struct error error = attempt->error;
    attempt_free(attempt);
    callbacks->on_failed(owner, failure, &error);
}

static void tell_connected(struct connect_attempt *attempt, struct trial *trial)
{
    const struct connect_callbacks *callbacks = attempt->callbacks;
    void *owner = attempt->owner;
    struct transport *transport = transport_new(attempt->loop, trial->fd, attempt->ssl, NULL, NULL);
    trial->fd = -1;
    attempt->ssl = NULL;
    attempt_free(attempt);
    callbacks->on_connected(owner, transport);
}

/* Who is resolved and connected to. */
static const char *next_host(const struct connect_attempt *attempt)
{
    const struct connect_target *target = &attempt->target;
    return target->proxy != NULL ? target->proxy->host : target->host;
}

static uint16_t next_port(const struct connect_attempt *attempt)
{
    const struct connect_target *target = &attempt->target;
    return target->proxy != NULL ? target->proxy->port : target->port;
}

/* Puts the forward proxy, if there is one, in front of the error: it lies there, or on the way there. */
static void blame_proxy(struct connect_attempt *attempt)
{
    const struct tunnel_proxy *proxy = attempt->target.proxy;
    if (proxy != NULL) {
        bool is_ip6 = strchr(proxy->host, ':') != NULL;
        error_prefix(&attempt->error,
                     is_ip6 ? "forward proxy [%s]:%u: " : "forward proxy %s:%u: ", proxy->host, proxy->port);
    }
}

static void describe_target(struct connect_attempt *attempt, const char *verb, const char *what)
{
    const struct connect_target *target = &attempt->target;
    bool is_ip6 = strchr(target->host, ':') != NULL;
    error_set(&attempt->error, is_ip6 ? "%s [%s]:%u: %s" : "%s %s:%u: %s", verb, target->host, target->port,
              what);
}

/* The sentence about a phase, up to what happened. */
static void describe_phase(struct connect_attempt *attempt, const char *what)
{
    const struct connect_target *target = &attempt->target;
    switch (attempt->phase) {
    case RESOLVING:
        error_set(&attempt->error, "cannot resolve %s: %s", next_host(attempt), what);
        blame_proxy(attempt);
        break;
    case CONNECTING:
        if (target->proxy != NULL) {
            error_set(&attempt->error, "%s", what);
            blame_proxy(attempt);
        } else {
            describe_target(attempt, "connect to", what);
        }
        break;
    case TUNNELLING:
        describe_target(attempt, "CONNECT", what);
        blame_proxy(attempt);
        break;
    case HANDSHAKING:
        error_set(&attempt->error, "TLS handshake with %s: %s", target->host, what);
        break;
    case FAILED:
        break;
    }
}

/* ------------------------------------------------------------------------------------------------ TLS */

static void describe_tls_failure(struct connect_attempt *attempt, const struct failure *failure)
{
    char text[FAILURE_TEXT_SIZE];
    const char *refusal = tls_refusal(attempt->ssl);
    int reason = ERR_GET_LIB(failure->tls_error) == ERR_LIB_SSL ? ERR_GET_REASON(failure->tls_error) : 0;
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && refusal != NULL) {
        describe_phase(attempt, refusal);
    } else if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST) {
        describe_phase(attempt, "the answer is not TLS");
    } else if (failure->truncated) {
        describe_phase(attempt, "closed by the peer");
    } else {
        describe_phase(attempt, failure_text(failure, text));
    }
}

static void on_handshake_ready(evutil_socket_t fd, short ready, void *argument);

static void wait_for(struct trial *trial, short what, event_callback_fn callback)
{
    event_assign(&trial->event, loop_base(trial->attempt->loop), trial->fd, what, callback, trial);
    event_add(&trial->event, NULL);
}

static void handshake(struct connect_attempt *attempt, struct trial *trial)
{
    struct failure failure;
    tls_socket_prepare();
    int result = SSL_do_handshake(attempt->ssl);
    switch (tls_socket_outcome(attempt->ssl, result, &failure)) {
    case TLS_DONE:
        tell_connected(attempt, trial);
        break;
    case TLS_WANT_READ:
        wait_for(trial, EV_READ, on_handshake_ready);
        break;
    case TLS_WANT_WRITE:
        wait_for(trial, EV_WRITE, on_handshake_ready);
        break;
    case TLS_CLOSED:
        describe_phase(attempt, "closed by the peer");
        fail(attempt, CONNECT_UNREACHABLE);
        break;
    case TLS_FAILED:
        describe_tls_failure(attempt, &failure);
        fail(attempt, CONNECT_UNREACHABLE);
        break;
    }
}

static void on_handshake_ready(evutil_socket_t fd, short ready, void *argument)
{
    (void)fd;
    (void)ready;
    struct trial *trial = argument;
    handshake(trial->attempt, trial);
}

/* The socket leads to the target: TLS, if it is to be spoken. */
static void reached(struct connect_attempt *attempt, struct trial *trial)
{
    if (attempt->target.tls == NULL) {
        tell_connected(attempt, trial);
        return;
    }
    attempt->phase = HANDSHAKING;
    attempt->ssl = tls_connection(attempt->target.tls, trial->fd);
    handshake(attempt, trial);
}

/* ------------------------------------------------------------------------------------------------ forward proxy */

static void on_tunnel_ready(evutil_socket_t fd, short ready, void *argument);

static void tunnel(struct connect_attempt *attempt, struct trial *trial)
{
    char why[TUNNEL_TEXT_SIZE];
    switch (tunnel_advance(attempt->tunnel, trial->fd, why)) {
    case TUNNEL_OPEN:
        reached(attempt, trial);
        break;
    case TUNNEL_WANT_READ:
        wait_for(trial, EV_READ, on_tunnel_ready);
        break;
    case TUNNEL_WANT_WRITE:
        wait_for(trial, EV_WRITE, on_tunnel_ready);
        break;
    case TUNNEL_FAILED:
        describe_phase(attempt, why);
        fail(attempt, CONNECT_UNREACHABLE);
        break;
    }
}

static void on_tunnel_ready(evutil_socket_t fd, short ready, void *argument)
{
    (void)fd;
    (void)ready;
    struct trial *trial = argument;
    tunnel(trial->attempt, trial);
}

/* ------------------------------------------------------------------------------------------------ TCP */

static void connect_next(struct connect_attempt *attempt);

static void trial_failed(struct trial *trial, int number)
{
    char why[FAILURE_TEXT_SIZE];
    describe_phase(trial->attempt, failure_text_of_errno(number, why));
    trial_end(trial);
}

static void on_connect_ready(evutil_socket_t fd, short ready, void *argument)
{
    (void)ready;
    struct trial *trial = argument;
    struct connect_attempt *attempt = trial->attempt;
    int number = 0;
    socklen_t size = sizeof number;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size) != 0) {
        number = errno;
    }
    if (number != 0) {
        trial_failed(trial, number);
        connect_next(attempt);
        return;
    }
    loop_timer_clear(&attempt->next);
    for (size_t i = 0; i < RESOLVER_MAX_ADDRESSES; i++) {
        if (&attempt->trials[i] != trial) {
            trial_end(&attempt->trials[i]);
        }
    }
    if (attempt->target.proxy == NULL) {
        reached(attempt, trial);
        return;
    }
    attempt->phase = TUNNELLING;
    attempt->tunnel = tunnel_new(slice_of(attempt->target.proxy->request));
    tunnel(attempt, trial);
}

static void set_option(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof value);
}

/* False: failed at once. */
static bool trial_begin(struct trial *trial, const struct address *address)
{
    int fd = socket(address->socket.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        trial->attempt->exhausted = errno == EMFILE || errno == ENFILE;
        trial_failed(trial, errno);
        return false;
    }
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    if (connect(fd, &address->socket.any, address->size) != 0 && errno != EINPROGRESS) {
        int number = errno;
        close(fd);
        trial_failed(trial, number);
        return false;
    }
    trial->fd = fd;
    wait_for(trial, EV_WRITE, on_connect_ready);
    return true;
}

static bool is_under_way(const struct connect_attempt *attempt)
{
    for (size_t i = 0; i < attempt->begun; i++) {
        if (attempt->trials[i].fd >= 0) {
            return true;
        }
    }
    return false;
}

/* Begins with the next address; the one after that has its turn in 250 ms, or when this one fails. */
static void connect_next(struct connect_attempt *attempt)
{
    while (attempt->begun < attempt->addresses.count) {
        size_t i = attempt->begun++;
        if (trial_begin(&attempt->trials[i], &attempt->addresses.addresses[i])) {
            if (attempt->begun < attempt->addresses.count) {
                loop_timer_set(&attempt->next, NEXT_ADDRESS_AFTER_NS);
            }
            return;
        }
    }
    if (!is_under_way(attempt)) {
        fail(attempt, attempt->exhausted ? CONNECT_EXHAUSTED : CONNECT_UNREACHABLE);
    }
}

/* ------------------------------------------------------------------------------------------------ the whole */

static void on_resolved(void *owner, const struct resolver_result *result)
{
    struct connect_attempt *attempt = owner;
    attempt->query = NULL;
    if (result->count == 0) {
        attempt->error = result->error;
        blame_proxy(attempt);
        fail(attempt, CONNECT_UNREACHABLE);
        return;
    }
    attempt->addresses = *result;
    attempt->phase = CONNECTING;
    connect_next(attempt);
}

static void on_next(void *argument)
{
    struct connect_attempt *attempt = argument;
    if (attempt->phase == FAILED) {
        tell_failed(attempt);
    } else if (attempt->phase == CONNECTING) {
        connect_next(attempt);
    }
}

static void on_total(void *argument)
{
    struct connect_attempt *attempt = argument;
    assert(attempt->phase != FAILED);
    describe_phase(attempt, "timed out");
    attempt->failure = CONNECT_TIMED_OUT;
    tell_failed(attempt);
}

struct connect_attempt *connect_start(struct loop *loop, struct resolver *resolver,
                                      const struct connect_target *target, uint64_t timeout_ns,
                                      const struct connect_callbacks *callbacks, void *owner)
{
    struct connect_attempt *attempt = xcalloc(1, sizeof *attempt);
    attempt->loop = loop;
    attempt->resolver = resolver;
    attempt->target = *target;
    attempt->callbacks = callbacks;
    attempt->owner = owner;
    attempt->phase = RESOLVING;
    for (size_t i = 0; i < RESOLVER_MAX_ADDRESSES; i++) {
        attempt->trials[i] = (struct trial){.attempt = attempt, .fd = -1};
    }
    loop_timer_init(&attempt->total, loop, on_total, attempt);
    loop_timer_init(&attempt->next, loop, on_next, attempt);
    loop_timer_set(&attempt->total, timeout_ns);
    struct resolver_result known;
    const char *host = next_host(attempt);
    uint16_t port = next_port(attempt);
    if (resolver_cached(resolver, host, port, &known)) {
        on_resolved(attempt, &known);
    } else {
        attempt->query = resolver_start(resolver, loop, host, port, on_resolved, attempt);
    }
    return attempt;
}

void connect_cancel(struct connect_attempt *attempt)
{
    if (attempt != NULL) {
        attempt_free(attempt);
    }
}
