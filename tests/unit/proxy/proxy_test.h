/*
 * What the tests of proxy/ share: the proxy as a whole on loopback. The test is both the client and the upstream, on blocking sockets, and looks at the events on a memory
 * bus.
 */
#ifndef PROXY_TEST_H
#define PROXY_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "bus/memory_bus.h"
#include "event/event_view.h"
#include "proxy/proxy.h"

struct fixture {
    struct proxy_settings *settings;
    struct proxy *proxy;
    struct bus *bus;
    struct subscriber *subscriber;
    struct metrics *metrics;
    struct memory_budget budget;
    uint16_t port; /* the upstream's */
    int listener;
    int upstream; /* the connection last accepted */
    int client;
    char received[262144];
};

/* Sockets --------------------------------------------------------------------------------------------------------------------------------- */

static inline void set_timeout(int fd)
{
    struct timeval limit = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static inline int listen_on_loopback(uint16_t *port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    set_timeout(fd);
    return fd;
}

static inline int connect_to_proxy(struct fixture *f)
{
    const struct address *address = proxy_address(f->proxy, 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    set_timeout(fd);
    assert_int_equal(connect(fd, &address->socket.any, address->size), 0);
    return fd;
}

static inline void send_all(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Reads until what was received contains text; fails at an end or after 5 s. */
static inline const char *read_until(struct fixture *f, int fd, const char *text)
{
    size_t size = 0;
    f->received[0] = 0;
    while (strstr(f->received, text) == NULL) {
        ssize_t got = recv(fd, f->received + size, sizeof f->received - 1 - size, 0);
        if (got <= 0) {
            fail_msg("expected \"%s\", got \"%s\" and then %s", text, f->received,
                     got == 0 ? "the end" : strerror(errno));
        }
        size += (size_t)got;
        f->received[size] = 0;
    }
    return f->received;
}

/* Reads to the end; returns whether it was an orderly one. */
static inline bool read_to_end(struct fixture *f, int fd)
{
    size_t size = 0;
    ssize_t got;
    while ((got = recv(fd, f->received + size, sizeof f->received - 1 - size, 0)) > 0) {
        size += (size_t)got;
    }
    f->received[size] = 0;
    if (got < 0 && errno == EAGAIN) {
        fail_msg("the connection did not end");
    }
    return got == 0;
}

static inline int accept_upstream(struct fixture *f)
{
    if (f->upstream >= 0) {
        close(f->upstream);
    }
    f->upstream = accept(f->listener, NULL, NULL);
    assert_true(f->upstream >= 0);
    set_timeout(f->upstream);
    return f->upstream;
}

/* Sends a GET, and returns the upstream's connection on which it came. */
static inline int get_upstream(struct fixture *f)
{
    send_all(f->client, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n");
    int upstream = accept_upstream(f);
    read_until(f, upstream, "\r\n\r\n");
    return upstream;
}

static inline bool upstream_was_contacted(struct fixture *f)
{
    return poll(&(struct pollfd){.fd = f->listener, .events = POLLIN}, 1, 50) == 1;
}

/* Events ---------------------------------------------------------------------------------------------------------------------------------- */

static inline struct event_record *next_event(struct fixture *f)
{
    struct bus_entry entry;
    for (int i = 0; i < 500; i++) {
        if (bus_fetch(f->subscriber, &entry, 1, SIZE_MAX) == 1) {
            bus_acknowledge(f->subscriber, entry.sequence);
            return entry.event;
        }
        usleep(10000);
    }
    fail_msg("no event came");
    return NULL;
}

#define assert_slice_equal(slice, text) assert_slice((slice), (text), __FILE__, __LINE__)
static inline void assert_slice(struct slice got, const char *expected, const char *file, int line)
{
    if ((got.data == NULL) != (expected == NULL) ||
        (expected != NULL && !slice_equal(got, slice_of(expected)))) {
        print_error("%s:%d: expected \"%s\", got \"%.*s\"\n", file, line,
                    expected != NULL ? expected : "(null)", SLICE_ARGUMENTS(got));
        fail();
    }
}

static inline void expect_event(struct fixture *f, int status, const char *error_kind)
{
    struct event_record *event = next_event(f);
    assert_int_equal(event_get(event)->status, status);
    assert_slice_equal(event_get(event)->error_kind, error_kind);
    event_record_release(event);
}

static inline void expect_no_event(struct fixture *f)
{
    usleep(50000);
    assert_int_equal(bus_depth(f->subscriber), 0);
}

static inline void set_flag(void *flag)
{
    atomic_store((atomic_bool *)flag, true);
}

static inline void wait_for_flag(atomic_bool *flag)
{
    for (int i = 0; i < 500 && !atomic_load(flag); i++) {
        usleep(10000);
    }
    assert_true(atomic_load(flag));
}

/* Set-up ---------------------------------------------------------------------------------------------------------------------------------- */

static inline void set_route(struct route *route, const char *prefix, uint16_t port)
{
    route->name = xstrdup(prefix[0] != 0 ? prefix : "/");
    route->prefix = xstrdup(prefix);
    route->upstream = xprintf("http://127.0.0.1:%u", port);
    route->host = xstrdup("127.0.0.1");
    route->port = port;
    route->authority = xprintf("127.0.0.1:%u", port);
    route->base_path = xstrdup("");
    route->capture = true;
}

static inline struct proxy_settings *make_settings(const char *prefix, uint16_t port)
{
    struct proxy_settings *settings = xcalloc(1, sizeof *settings);
    reference_init(&settings->references);
    uint64_t minute = 60 * NANOSECONDS_PER_SECOND;
    settings->timeouts = (struct proxy_timeouts){.request_head = minute,
                                                 .request_idle = minute,
                                                 .keep_alive = minute,
                                                 .upstream_idle = minute,
                                                 .connect = minute,
                                                 .response = minute,
                                                 .response_idle = minute,
                                                 .write = minute};
    settings->http =
        (struct http_limits){.max_head_bytes = 65536, .max_headers = 100, .max_target_bytes = 16384};
    settings->max_connections = 100;
    settings->observe = true;
    settings->max_request_body_bytes = 1048576;
    settings->max_response_body_bytes = 1048576;
    settings->route_count = 1;
    settings->routes = xcalloc(1, sizeof *settings->routes);
    set_route(&settings->routes[0], prefix, port);
    settings->routes[0].timeouts = settings->timeouts;
    return settings;
}

static inline int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    f->listener = listen_on_loopback(&f->port);
    f->upstream = f->client = -1;
    f->settings = make_settings("/v1", f->port);
    f->budget.limit = 64u << 20;
    f->metrics = metrics_new();
    f->bus = memory_bus_new();
    struct error error;
    struct subscriber_settings subscriber = {
        .name = "test",
        .max_events = 1000,
        .max_bytes = 64u << 20,
        .received = metrics_counter(f->metrics, "received", "", (struct metric_label[]){{0}}),
        .dropped_by[BUS_DROP_BUFFER_FULL] =
            metrics_counter(f->metrics, "dropped", "", (struct metric_label[]){{0}}),
    };
    f->subscriber = bus_subscribe(f->bus, &subscriber, &error);
    log_configure(LOG_ERROR, LOG_TEXT);
    *state = f;
    return 0;
}

static inline void start_workers(struct fixture *f, size_t workers)
{
    struct address address;
    struct error error;
    assert_true(address_parse("127.0.0.1:0", &address, &error));
    struct proxy_start begin = {.settings = f->settings,
                                .listen = &address,
                                .listen_count = 1,
                                .workers = workers,
                                .bus = f->bus,
                                .metrics = f->metrics,
                                .capture_budget = &f->budget};
    f->proxy = proxy_new(&begin, &error);
    if (f->proxy == NULL) {
        fail_msg("%s", error.message);
    }
    f->client = connect_to_proxy(f);
}

static inline void start(struct fixture *f)
{
    start_workers(f, 1);
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->client >= 0) {
        close(f->client);
    }
    if (f->upstream >= 0) {
        close(f->upstream);
    }
    close(f->listener);
    if (f->proxy != NULL) {
        proxy_free(f->proxy);
    }
    struct metric *inflight =
        metrics_gauge(f->metrics, "llm_proxy_inflight_requests", "", (struct metric_label[]){{NULL, NULL}});
    assert_int_equal(metric_value(inflight), 0);
    proxy_settings_release(f->settings);
    bus_unsubscribe(f->subscriber);
    bus_free(f->bus);
    metrics_free(f->metrics);
    assert_int_equal(f->budget.used, 0);
    free(f);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
