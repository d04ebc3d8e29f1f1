/*
 * Exchanges from end to end: what passes, what becomes of failures, and what their events say.
 */
#include "proxy_test.h"

static void passes_a_request_and_its_response(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client,
             "POST /v1/chat?key=secret&a=b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
             "sk-1\r\nX-Request-Id: abc\r\n"
             "Connection: X-Hop\r\nX-Hop: 1\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 5\r\n\r\nhello");
    int upstream = accept_upstream(f);
    const char *head = read_until(f, upstream, "hello");
    assert_non_null(strstr(head, "POST /v1/chat?key=secret&a=b HTTP/1.1\r\nHost: 127.0.0.1:"));
    assert_non_null(strstr(head, "Authorization: Bearer sk-1\r\nX-A: 1\r\nX-A: 2\r\nVia: 1.1 llm-proxy-"));
    assert_non_null(strstr(head, "X-Request-Id: abc\r\nContent-Length: 5\r\n\r\nhello"));
    assert_null(strstr(head, "X-Hop"));
    send_all(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-B: 1\r\nKeep-Alive: timeout=5\r\n\r\nok");
    const char *answer = read_until(f, f->client, "\r\n\r\nok");
    assert_ptr_equal(strstr(answer, "HTTP/1.1 200 OK\r\nX-B: 1\r\nContent-Length: 2\r\nDate: "), answer);
    assert_non_null(strstr(answer, "X-Request-Id: abc\r\n"));

    struct event_record *event = next_event(f);
    const struct event_fields *fields = event_get(event);
    struct buffer json = {0};
    event_write_json(event, 1 << 20, &json);
    assert_null(memmem(json.block, json.size, "secret", 6));
    assert_null(memmem(json.block, json.size, "sk-1", 4));
    buffer_free(&json);
    assert_int_equal(fields->status, 200);
    assert_slice_equal(fields->request_id, "abc");
    assert_slice_equal(fields->query, "key=[redacted]&a=b");
    assert_slice_equal(fields->credential_kind, "authorization");
    assert_int_equal(fields->credential_fingerprint.size, 12);
    assert_int_equal(fields->request_bytes, 5);
    assert_int_equal(fields->response_bytes, 2);
    assert_slice_equal(fields->error_kind, NULL);
    assert_true(fields->ttfb_us <= fields->duration_us);
    event_record_release(event);
}

static void keeps_both_connections_for_the_next_request(void **state)
{
    struct fixture *f = *state;
    start(f);
    for (int i = 0; i < 3; i++) {
        send_all(f->client, "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
        int upstream = i == 0 ? accept_upstream(f) : f->upstream;
        read_until(f, upstream, "\r\n\r\n");
        send_all(upstream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        read_until(f, f->client, "3\r\nabc\r\n0\r\n\r\n");
        expect_event(f, 200, NULL);
    }
}

static void answers_pipelined_requests_in_order(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client,
             "POST /v1/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"
             "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/b HTTP/1.1\r\nHost: x\r\n\r\n");
    int upstream = accept_upstream(f);
    assert_non_null(strstr(read_until(f, upstream, "0\r\n\r\n"), "\r\n\r\n3\r\none\r\n0\r\n\r\n"));
    send_all(upstream, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    read_until(f, upstream, "GET /v1/b ");
    send_all(upstream, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    const char *answers = read_until(f, f->client, "HTTP/1.1 202 Accepted");
    assert_true(strstr(answers, "201 Created") < strstr(answers, "404 Not Found"));
    assert_true(strstr(answers, "404 Not Found") < strstr(answers, "202 Accepted"));
    expect_event(f, 201, NULL);
    expect_event(f, 404, "no_route");
    expect_event(f, 202, NULL);
}

static void streams_the_request_before_it_is_complete(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client,
             "POST /v1/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n");
    read_until(f, f->client, "HTTP/1.1 100 Continue\r\n\r\n");
    int upstream = accept_upstream(f);
    assert_null(strstr(read_until(f, upstream, "\r\n\r\n"), "Expect"));
    send_all(f->client, "01234");
    read_until(f, upstream, "01234");
    send_all(f->client, "56789");
    read_until(f, upstream, "56789");
    send_all(upstream, "HTTP/1.1 200 OK\r\n\r\nto the end");
    close(upstream);
    f->upstream = -1;
    read_until(f, f->client, "a\r\nto the end\r\n0\r\n\r\n");
    expect_event(f, 200, NULL);
}

static void cancels_the_upstream_when_the_client_leaves(void **state)
{
    struct fixture *f = *state;
    start(f);
    int upstream = get_upstream(f);
    close(f->client);
    f->client = -1;
    read_to_end(f, upstream);
    expect_event(f, 0, "client_aborted");
}

static void a_response_cut_short_is_seen_to_be_short(void **state)
{
    struct fixture *f = *state;
    start(f);
    int upstream = get_upstream(f);
    send_all(upstream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    read_until(f, f->client, "hello\r\n");
    close(upstream);
    f->upstream = -1;
    read_to_end(f, f->client);
    assert_null(strstr(f->received, "0\r\n\r\n"));
    expect_event(f, 200, "upstream_aborted");
}

static void an_http_1_0_client_gets_a_reset_when_the_response_is_cut(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client, "GET /v1/a HTTP/1.0\r\n\r\n");
    int upstream = accept_upstream(f);
    read_until(f, upstream, "\r\n\r\n");
    send_all(upstream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    read_until(f, f->client, "\r\n\r\nhello");
    close(upstream);
    f->upstream = -1;
    assert_false(read_to_end(f, f->client));
    expect_event(f, 200, "upstream_aborted");
}

static void a_malformed_response_head_is_502(void **state)
{
    struct fixture *f = *state;
    start(f);
    int upstream = get_upstream(f);
    send_all(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 3\r\n\r\nhello");
    read_until(f, f->client, "\"code\":\"upstream_invalid_response\"");
    expect_event(f, 502, "upstream_invalid_response");
}

static void an_upstream_that_is_down_is_502_and_the_connection_stays(void **state)
{
    struct fixture *f = *state;
    close(f->listener);
    f->listener = socket(AF_INET, SOCK_STREAM, 0);
    start(f);
    for (int i = 0; i < 2; i++) {
        send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
        read_until(f, f->client, "\"code\":\"upstream_unreachable\"");
        struct event_record *event = next_event(f);
        struct buffer body = {0};
        body_copy(event_request_body(event), &body);
        assert_slice_equal(event_get(event)->error_kind, "upstream_unreachable");
        assert_slice_equal(buffer_slice(&body), "abc"); /* recorded all the same */
        buffer_free(&body);
        event_record_release(event);
    }
}

static void junk_is_refused_without_an_event(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client,
             "GET /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_true(read_to_end(f, f->client));
    assert_int_equal(strncmp(f->received, "HTTP/1.1 400 Bad Request\r\n", 26), 0);
    assert_false(upstream_was_contacted(f));
    expect_no_event(f);
}

static void a_broken_request_body_is_400_and_never_complete_for_the_upstream(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    int upstream = accept_upstream(f);
    read_until(f, upstream, "3\r\nabc\r\n");
    send_all(f->client, "zz\r\n");
    read_until(f, f->client, "HTTP/1.1 400 Bad Request\r\n");
    read_to_end(f, upstream);
    assert_null(strstr(f->received, "0\r\n\r\n"));
    expect_event(f, 400, "bad_request");
}

static void methods_that_are_not_served_are_events(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client, "TRACE /v1/a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(read_to_end(f, f->client));
    assert_non_null(strstr(f->received, "\r\nAllow: "));
    expect_event(f, 405, "method_not_allowed");
}

static void a_request_that_comes_back_is_a_loop(void **state)
{
    struct fixture *f = *state;
    start(f);
    char port[16];
    snprintf(port, sizeof port, "%u", ntohs(proxy_address(f->proxy, 0)->socket.ip4.sin_port));
    /* The upstream hands the request back to the proxy. */
    send_all(f->client, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n");
    int upstream = accept_upstream(f);
    char *request = xstrdup(read_until(f, upstream, "\r\n\r\n"));
    int again = connect_to_proxy(f);
    send_all(again, request);
    read_until(f, again, "HTTP/1.1 508 ");
    close(again);
    free(request);
    expect_event(f, 508, "loop_detected");
}

static void a_stale_connection_is_not_the_clients_problem_for_get(void **state)
{
    struct fixture *f = *state;
    start(f);
    int upstream = get_upstream(f);
    send_all(upstream, "HTTP/1.1 204 No Content\r\n\r\n");
    read_until(f, f->client, "\r\n\r\n");
    expect_event(f, 204, NULL);
    send_all(f->client, "GET /v1/b HTTP/1.1\r\nHost: x\r\n\r\n");
    read_until(f, upstream, "\r\n\r\n");
    accept_upstream(f); /* closes the old one; the request comes again on a new one */
    read_until(f, f->upstream, "GET /v1/b ");
    send_all(f->upstream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    read_until(f, f->client, "HTTP/1.1 200 OK");
    expect_event(f, 200, NULL);
}

static void a_post_is_not_sent_twice(void **state)
{
    struct fixture *f = *state;
    start(f);
    for (int i = 0; i < 2; i++) {
        send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
        int upstream = i == 0 ? accept_upstream(f) : f->upstream;
        read_until(f, upstream, "\r\n\r\nabc");
        if (i == 0) {
            send_all(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            read_until(f, f->client, "\r\n\r\n");
        }
    }
    close(f->upstream);
    f->upstream = -1;
    read_until(f, f->client, "HTTP/1.1 502 Bad Gateway");
    assert_false(upstream_was_contacted(f));
    expect_event(f, 200, NULL);
    expect_event(f, 502, "upstream_unreachable");
}

static void stray_bytes_on_an_idle_connection_reach_nobody(void **state)
{
    struct fixture *f = *state;
    start(f);
    int upstream = get_upstream(f);
    send_all(
        upstream,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL");
    read_until(f, f->client, "\r\n\r\nok");
    send_all(f->client, "GET /v1/b HTTP/1.1\r\nHost: x\r\n\r\n");
    accept_upstream(f);
    read_until(f, f->upstream, "GET /v1/b ");
    send_all(f->upstream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
    read_until(f, f->client, "good");
}

static void an_early_response_is_delivered_and_the_connection_closed_politely(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc");
    int upstream = accept_upstream(f);
    read_until(f, upstream, "\r\n\r\nabc");
    send_all(upstream, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong");
    const char *answer = read_until(f, f->client, "long");
    assert_non_null(strstr(answer, "Connection: close\r\n"));
    send_all(f->client, "more of the body, which nobody wants");
    assert_true(read_to_end(f, f->client));
    expect_event(f, 413, NULL);
}

static void a_short_rest_of_a_refused_request_is_dropped_and_the_connection_stays(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    read_until(f, f->client, "HTTP/1.1 404 Not Found");
    send_all(f->client, "defghijGET /nowhere/else HTTP/1.1\r\nHost: x\r\n\r\n");
    read_until(f, f->client, "HTTP/1.1 404 Not Found");
    expect_event(f, 404, "no_route");
    expect_event(f, 404, "no_route");
}

static void time_outs_end_what_stalls(void **state)
{
    struct fixture *f = *state;
    f->settings->routes[0].timeouts.response = 100 * NANOSECONDS_PER_MILLISECOND;
    f->settings->routes[0].timeouts.response_idle = 100 * NANOSECONDS_PER_MILLISECOND;
    f->settings->routes[0].timeouts.request_idle = 100 * NANOSECONDS_PER_MILLISECOND;
    start(f);
    send_all(f->client, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n");
    read_until(f, f->client, "HTTP/1.1 504 Gateway Timeout");
    expect_event(f, 504, "upstream_timeout");

    accept_upstream(f);
    send_all(f->client, "GET /v1/b HTTP/1.1\r\nHost: x\r\n\r\n");
    accept_upstream(f);
    read_until(f, f->upstream, "\r\n\r\n");
    send_all(f->upstream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    read_to_end(f, f->client);
    assert_non_null(strstr(f->received, "\r\n\r\nabc"));
    expect_event(f, 200, "upstream_timeout");

    close(f->client);
    f->client = connect_to_proxy(f);
    send_all(f->client, "POST /v1/c HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    read_until(f, f->client, "HTTP/1.1 408 Request Timeout");
    expect_event(f, 408, "request_timeout");
}

static void a_truncated_response_keeps_its_tail(void **state)
{
    struct fixture *f = *state;
    f->settings->max_response_body_bytes = 4;
    start(f);
    int upstream = get_upstream(f);
    send_all(upstream,
             "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 10\r\n\r\n0123456789");
    read_until(f, f->client, "0123456789");
    struct event_record *event = next_event(f);
    struct buffer body = {0}, tail = {0};
    body_copy(event_response_body(event), &body);
    body_copy(event_response_tail(event), &tail);
    assert_slice_equal(buffer_slice(&body), "0123");
    assert_slice_equal(buffer_slice(&tail), "0123456789");
    assert_true(event_get(event)->response_truncated);
    assert_true(event_get(event)->streamed);
    assert_int_equal(event_get(event)->response_bytes, 10);
    buffer_free(&body);
    buffer_free(&tail);
    event_record_release(event);
}

static void a_slow_client_slows_the_upstream(void **state)
{
    struct fixture *f = *state;
    f->settings->max_response_body_bytes = 0;
    start(f);
    int small = 4096;
    setsockopt(f->client, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    int upstream = get_upstream(f);
    send_all(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    static char block[65536];
    size_t sent = 0;
    ssize_t got;
    struct timeval limit = {.tv_usec = 300000};
    setsockopt(upstream, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    while (sent < 500u << 20 && (got = send(upstream, block, sizeof block, MSG_NOSIGNAL)) > 0) {
        sent += (size_t)got;
    }
    assert_true(sent < 64u << 20); /* sockets' buffers, and a bounded rest in the proxy */
}

static void draining_finishes_what_runs(void **state)
{
    struct fixture *f = *state;
    atomic_bool idle = false;
    start(f);
    int upstream = get_upstream(f);
    proxy_drain(f->proxy, set_flag, &idle);
    send_all(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_non_null(strstr(read_until(f, f->client, "\r\n\r\nok"), "Connection: close\r\n"));
    expect_event(f, 200, NULL);
    assert_true(read_to_end(f, f->client));
    close(f->client);
    f->client = -1;
    wait_for_flag(&idle);
}

static void a_stop_leaves_an_event_for_what_still_ran(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n");
    read_until(f, accept_upstream(f), "\r\n\r\n");
    proxy_free(f->proxy);
    f->proxy = NULL;
    expect_event(f, 0, "shutdown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(passes_a_request_and_its_response),
        TEST(keeps_both_connections_for_the_next_request),
        TEST(answers_pipelined_requests_in_order),
        TEST(streams_the_request_before_it_is_complete),
        TEST(cancels_the_upstream_when_the_client_leaves),
        TEST(a_response_cut_short_is_seen_to_be_short),
        TEST(an_http_1_0_client_gets_a_reset_when_the_response_is_cut),
        TEST(a_malformed_response_head_is_502),
        TEST(an_upstream_that_is_down_is_502_and_the_connection_stays),
        TEST(junk_is_refused_without_an_event),
        TEST(a_broken_request_body_is_400_and_never_complete_for_the_upstream),
        TEST(methods_that_are_not_served_are_events),
        TEST(a_request_that_comes_back_is_a_loop),
        TEST(a_stale_connection_is_not_the_clients_problem_for_get),
        TEST(a_post_is_not_sent_twice),
        TEST(stray_bytes_on_an_idle_connection_reach_nobody),
        TEST(an_early_response_is_delivered_and_the_connection_closed_politely),
        TEST(a_short_rest_of_a_refused_request_is_dropped_and_the_connection_stays),
        TEST(time_outs_end_what_stalls),
        TEST(a_truncated_response_keeps_its_tail),
        TEST(a_slow_client_slows_the_upstream),
        TEST(draining_finishes_what_runs),
        TEST(a_stop_leaves_an_event_for_what_still_ran),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
