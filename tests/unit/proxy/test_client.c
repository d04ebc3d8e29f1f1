/*
 * Client connections: what keeps one open, what closes it, how many there may be.
 */
#include "proxy_test.h"

/* A name that is answered when the test says so keeps an exchange connecting. */
#define FAKE_NAMES                                                                                           \
    {                                                                                                        \
        "slow.test",                                                                                         \
        {                                                                                                    \
            "127.0.0.1"                                                                                      \
        }                                                                                                    \
    }
#include "../net/fake_names.h"

static void a_head_may_come_in_pieces_up_to_its_limit(void **state)
{
    struct fixture *f = *state;
    start(f);
    char padding[20001];
    memset(padding, 'a', sizeof padding - 1);
    padding[sizeof padding - 1] = 0;
    send_all(f->client, "GET /nowhere HTTP/1.1\r\nHost: x\r\nX-A: ");
    for (int i = 0; i < 3; i++) {
        send_all(f->client, padding);
        usleep(30000); /* so that the pieces are read one by one */
    }
    send_all(f->client, "\r\n\r\n");
    read_until(f, f->client, "HTTP/1.1 404 Not Found");
    expect_event(f, 404, "no_route");
}

static void draining_closes_a_connection_whose_response_had_begun(void **state)
{
    struct fixture *f = *state;
    atomic_bool idle = false;
    start(f);
    int upstream = get_upstream(f);
    send_all(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
    read_until(f, f->client, "\r\n\r\n01234");
    proxy_drain(f->proxy, set_flag, &idle);
    usleep(50000);
    send_all(upstream, "56789");
    assert_true(read_to_end(f, f->client));
    assert_string_equal(f->received, "56789");
    close(f->client); /* else the proxy waits for that, within bounds */
    f->client = -1;
    wait_for_flag(&idle);
    expect_event(f, 200, NULL);
}

static void draining_serves_the_requests_that_came_before(void **state)
{
    struct fixture *f = *state;
    atomic_bool idle = false;
    start(f);
    int upstream = get_upstream(f);
    send_all(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
    read_until(f, f->client, "\r\n\r\n01234");
    send_all(f->client, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    usleep(50000);
    proxy_drain(f->proxy, set_flag, &idle);
    usleep(50000);
    send_all(upstream, "56789");
    assert_true(read_to_end(f, f->client));
    assert_non_null(strstr(f->received, "HTTP/1.1 404 Not Found"));
    close(f->client); /* else the proxy waits for that, within bounds */
    f->client = -1;
    wait_for_flag(&idle);
    expect_event(f, 200, NULL);
    expect_event(f, 404, "no_route");
}

static void draining_serves_a_connection_that_was_made_and_not_used_yet(void **state)
{
    struct fixture *f = *state;
    atomic_bool idle = false;
    start(f);
    usleep(50000);
    proxy_drain(f->proxy, set_flag, &idle);
    usleep(50000);
    send_all(f->client, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(read_to_end(f, f->client));
    assert_non_null(strstr(f->received, "HTTP/1.1 404 Not Found"));
    close(f->client); /* else the proxy waits for that, within bounds */
    f->client = -1;
    wait_for_flag(&idle);
    expect_event(f, 404, "no_route");
}

static void connect_slowly(struct fixture *f)
{
    fake_hold_slow_names();
    free(f->settings->routes[0].host);
    f->settings->routes[0].host = xstrdup("slow.test");
}

static void a_half_closed_client_gets_its_answer_where_the_route_says_so(void **state)
{
    struct fixture *f = *state;
    f->settings->routes[0].half_close = true;
    start(f);
    send_all(f->client, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(f->client, SHUT_WR);
    int upstream = accept_upstream(f);
    read_until(f, upstream, "\r\n\r\n");
    usleep(120000); /* two sweeps */
    send_all(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_true(read_to_end(f, f->client));
    assert_non_null(strstr(f->received, "\r\n\r\nok"));
    expect_event(f, 200, NULL);
}

/* Its end waits behind a body that the upstream does not take yet. */
static void a_half_closed_client_may_have_body_on_the_way(void **state)
{
    struct fixture *f = *state;
    f->settings->routes[0].half_close = true;
    connect_slowly(f);
    start(f);
    char body[60001];
    memset(body, 'b', sizeof body - 1);
    body[sizeof body - 1] = 0;
    send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n");
    usleep(30000);
    send_all(f->client, body);
    usleep(30000);
    shutdown(f->client, SHUT_WR);
    usleep(120000);
    fake_let_slow_names_go();
    int upstream = accept_upstream(f);
    read_until(f, upstream, body);
    send_all(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    read_until(f, f->client, "\r\n\r\nok");
    expect_event(f, 200, NULL);
}

static void a_client_that_leaves_while_its_body_waits_is_noticed(void **state)
{
    struct fixture *f = *state;
    connect_slowly(f);
    start(f);
    char body[60001];
    memset(body, 'b', sizeof body - 1);
    body[sizeof body - 1] = 0;
    send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    usleep(30000);
    send_all(f->client, body);
    usleep(30000);
    shutdown(f->client, SHUT_WR);
    expect_event(f, 0, "client_aborted");
    fake_let_slow_names_go();
    assert_false(upstream_was_contacted(f));
}

static void a_refused_body_that_waits_for_100_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client,
             "POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n");
    /* The client may send the body now, or leave it out: only the end of the connection is clear. */
    assert_true(read_to_end(f, f->client));
    assert_non_null(strstr(f->received, "HTTP/1.1 404 Not Found"));
    assert_non_null(strstr(f->received, "Connection: close\r\n"));
    expect_event(f, 404, "no_route");
}

static void the_longest_idle_connection_makes_room_for_a_new_one(void **state)
{
    struct fixture *f = *state;
    f->settings->max_connections = 1;
    start_workers(f, 2);
    int clients[16], refused = 0;
    for (int i = 0; i < 16; i++) {
        /* The one before may have its answer and not be idle yet. */
        do {
            clients[i] = connect_to_proxy(f);
            send_all(clients[i], "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
            read_until(f, clients[i], "\r\n\r\n");
        } while (strstr(f->received, "HTTP/1.1 503 ") != NULL && close(clients[i]) == 0 && ++refused < 1000);
        assert_non_null(strstr(f->received, "HTTP/1.1 404 Not Found"));
        expect_event(f, 404, "no_route");
    }
    for (int i = 0; i < 16; i++) {
        close(clients[i]);
    }
}

static void connections_beyond_the_limit_are_503(void **state)
{
    struct fixture *f = *state;
    f->settings->max_connections = 1;
    start_workers(f, 2);
    send_all(f->client, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n");
    read_until(f, accept_upstream(f), "\r\n\r\n");
    for (int i = 0; i < 8; i++) {
        int client = connect_to_proxy(f);
        send_all(client, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
        read_until(f, client, "HTTP/1.1 503 Service Unavailable");
        close(client);
    }
    expect_no_event(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_head_may_come_in_pieces_up_to_its_limit),
        TEST(draining_closes_a_connection_whose_response_had_begun),
        TEST(draining_serves_the_requests_that_came_before),
        TEST(draining_serves_a_connection_that_was_made_and_not_used_yet),
        TEST(a_half_closed_client_gets_its_answer_where_the_route_says_so),
        TEST(a_half_closed_client_may_have_body_on_the_way),
        TEST(a_client_that_leaves_while_its_body_waits_is_noticed),
        TEST(a_refused_body_that_waits_for_100_ends_the_connection),
        TEST(the_longest_idle_connection_makes_room_for_a_new_one),
        TEST(connections_beyond_the_limit_are_503),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
