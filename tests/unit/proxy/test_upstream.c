/*
 * Connections to the upstream: how many are in use, how long their peers may be silent, what is known of their first byte.
 */
#include "proxy_test.h"

#define MILLISECONDS(n) ((n)*NANOSECONDS_PER_MILLISECOND)

static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

static void idle_connections_do_not_count_for_the_routes_limit(void **state)
{
    struct fixture *f = *state;
    f->settings->routes[0].max_connections = 1;
    start_workers(f, 2);
    int kept[16]; /* the proxy's idle connections, all left open */
    size_t count = 0;
    for (int i = 0; i < 16; i++) {
        int client = connect_to_proxy(f);
        send_all(client, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n");
        struct pollfd readable[17] = {{.fd = f->listener, .events = POLLIN}};
        for (size_t k = 0; k < count; k++) {
            readable[k + 1] = (struct pollfd){.fd = kept[k], .events = POLLIN};
        }
        if (poll(readable, count + 1, 2000) == 0) {
            fail_msg("%s", read_until(f, client, "\r\n\r\n"));
        }
        int upstream = -1;
        for (size_t k = 0; k < count; k++) {
            upstream = readable[k + 1].revents != 0 ? kept[k] : upstream;
        }
        if (upstream < 0) {
            upstream = kept[count++] = accept(f->listener, NULL, NULL);
        }
        read_until(f, upstream, "\r\n\r\n");
        send_all(upstream, ok);
        read_until(f, client, "\r\n\r\nok");
        expect_event(f, 200, NULL);
        close(client);
    }
    for (size_t k = 0; k < count; k++) {
        close(kept[k]);
    }
}

static void requests_beyond_the_routes_limit_are_503(void **state)
{
    struct fixture *f = *state;
    f->settings->routes[0].max_connections = 1;
    start_workers(f, 2);
    int upstream = get_upstream(f);
    for (int i = 0; i < 8; i++) {
        int client = connect_to_proxy(f);
        send_all(client, "GET /v1/b HTTP/1.1\r\nHost: x\r\n\r\n");
        read_until(f, client, "HTTP/1.1 503 Service Unavailable");
        expect_event(f, 503, "overloaded");
        close(client);
    }
    send_all(upstream, ok);
    read_until(f, f->client, "\r\n\r\nok");
    expect_event(f, 200, NULL);
}

static void an_upstream_that_takes_nothing_is_504(void **state)
{
    struct fixture *f = *state;
    static char body[65536];
    f->settings->routes[0].timeouts.write = MILLISECONDS(200);
    start(f);
    int small = 4096;
    setsockopt(f->listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
    accept_upstream(f);
    struct timeval limit = {.tv_usec = 50000};
    setsockopt(f->client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    while (send(f->client, body, sizeof body, MSG_NOSIGNAL) > 0) {
    }
    read_until(f, f->client, "\"code\":\"upstream_timeout\"");
    expect_event(f, 504, "upstream_timeout");
}

static void the_first_byte_of_a_broken_response_counts(void **state)
{
    struct fixture *f = *state;
    start(f);
    int upstream = get_upstream(f);
    send_all(upstream, "HTTP/1.1 200");
    usleep(100000);
    send_all(upstream, " OK\r\nContent-Length: x\r\n\r\n");
    read_until(f, f->client, "HTTP/1.1 502 Bad Gateway");
    struct event_record *event = next_event(f);
    assert_true(event_get(event)->ttfb_us != EVENT_NO_TIME);
    assert_true(event_get(event)->ttfb_us + 90000 < event_get(event)->duration_us);
    event_record_release(event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(idle_connections_do_not_count_for_the_routes_limit),
        TEST(requests_beyond_the_routes_limit_are_503),
        TEST(an_upstream_that_takes_nothing_is_504),
        TEST(the_first_byte_of_a_broken_response_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
