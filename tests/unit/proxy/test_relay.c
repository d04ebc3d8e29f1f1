/*
 * What an exchange passes on, byte for byte, in both directions, and what it sends again.
 */
#include "proxy_test.h"

static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

static void interim_responses_pass_to_those_who_know_them(void **state)
{
    struct fixture *f = *state;
    start(f);
    for (int minor = 1; minor >= 0; minor--) {
        char request[64];
        snprintf(request, sizeof request, "GET /v1/a HTTP/1.%d\r\nHost: x\r\n\r\n", minor);
        send_all(f->client, request);
        int upstream = minor == 1 ? accept_upstream(f) : f->upstream;
        read_until(f, upstream, "\r\n\r\n");
        send_all(upstream, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n"
                           "Connection: close\r\n\r\n");
        send_all(upstream, ok);
        const char *answer = read_until(f, f->client, "\r\n\r\nok");
        assert_null(strstr(answer, "100 Continue"));
        assert_int_equal(strncmp(answer, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200", 52) ==
                             0,
                         minor == 1);
        expect_event(f, 200, NULL);
    }
}

static void a_response_without_a_body_has_none(void **state)
{
    struct fixture *f = *state;
    start(f);
    static const struct {
        const char *method, *response, *end;
    } cases[] = {
        {"HEAD", "200 OK\r\nContent-Length: 500\r\n", "\r\nContent-Length: 500\r\n"},
        {"HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n", NULL},
        {"GET", "304 Not Modified\r\nContent-Length: 500\r\n", "\r\nContent-Length: 500\r\n"},
        {"GET", "204 No Content\r\n", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[128];
        snprintf(text, sizeof text, "%s /v1/a HTTP/1.1\r\nHost: x\r\n\r\n", cases[i].method);
        send_all(f->client, text);
        int upstream = i == 0 ? accept_upstream(f) : f->upstream;
        read_until(f, upstream, "\r\n\r\n");
        snprintf(text, sizeof text, "HTTP/1.1 %s\r\n", cases[i].response);
        send_all(upstream, text);
        const char *answer = read_until(f, f->client, "\r\n\r\n");
        assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
        assert_null(strstr(answer, "Transfer-Encoding"));
        assert_int_equal(strstr(answer, "Content-Length") != NULL, cases[i].end != NULL);
        assert_true(cases[i].end == NULL || strstr(answer, cases[i].end) != NULL);
        expect_event(f, atoi(cases[i].response), NULL);
    }
}

static void chunks_are_framed_anew_and_trailers_dropped(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "1;a=\"b\"\r\na\r\n002\r\nbc\r\n0\r\nX-T: 1\r\n\r\n");
    int upstream = accept_upstream(f);
    assert_non_null(strstr(read_until(f, upstream, "0\r\n\r\n"), "\r\n\r\n3\r\nabc\r\n0\r\n\r\n"));
    send_all(
        upstream,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\nd\r\n2\r\nef\r\n0\r\nX-T: 1\r\n\r\n");
    const char *answer = read_until(f, f->client, "0\r\n\r\n");
    assert_non_null(strstr(answer, "\r\n\r\n3\r\ndef\r\n0\r\n\r\n"));
    expect_event(f, 200, NULL);
}

/* Leaves a connection in the pool, over which the next request will be sent. */
static void use_once(struct fixture *f)
{
    send_all(f->client, "GET /v1/first HTTP/1.1\r\nHost: x\r\n\r\n");
    int upstream = accept_upstream(f);
    read_until(f, upstream, "\r\n\r\n");
    send_all(upstream, ok);
    read_until(f, f->client, "\r\n\r\nok");
    expect_event(f, 200, NULL);
}

static void a_post_is_sent_again_where_the_route_says_so(void **state)
{
    struct fixture *f = *state;
    f->settings->routes[0].retry_stale = true;
    start(f);
    use_once(f);
    send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    read_until(f, f->upstream, "3\r\nabc\r\n");
    accept_upstream(f); /* closes the one from the pool */
    assert_non_null(strstr(read_until(f, f->upstream, "3\r\nabc\r\n"), "POST /v1/a "));
    send_all(f->client, "2\r\nde\r\n0\r\n\r\n");
    assert_string_equal(read_until(f, f->upstream, "0\r\n\r\n"), "2\r\nde\r\n0\r\n\r\n");
    send_all(f->upstream, ok);
    read_until(f, f->client, "\r\n\r\nok");
    struct event_record *event = next_event(f);
    assert_int_equal(event_get(event)->request_bytes, 5);
    event_record_release(event);
}

static void a_body_too_large_to_keep_is_not_sent_again(void **state)
{
    struct fixture *f = *state;
    f->settings->routes[0].retry_stale = true;
    start(f);
    use_once(f);
    char body[70001];
    memset(body, 'b', sizeof body - 1);
    body[sizeof body - 1] = 0;
    send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n");
    send_all(f->client, body);
    read_until(f, f->upstream, body);
    close(f->upstream);
    f->upstream = -1;
    read_until(f, f->client, "\"code\":\"upstream_unreachable\"");
    assert_false(upstream_was_contacted(f));
    expect_event(f, 502, "upstream_unreachable");
}

static void a_reload_changes_new_exchanges_only(void **state)
{
    struct fixture *f = *state;
    start(f);
    int upstream = get_upstream(f);

    struct proxy_settings *before = f->settings;
    f->settings = make_settings("/v2", f->port);
    proxy_reload(f->proxy, f->settings);
    proxy_settings_release(before);
    usleep(50000);

    send_all(upstream, ok);
    read_until(f, f->client, "\r\n\r\nok");
    struct event_record *event = next_event(f);
    assert_slice_equal(event_get(event)->route, "/v1");
    event_record_release(event);
    /* Its connection belongs to the settings of before: it is closed. */
    assert_true(read_to_end(f, upstream));
    send_all(f->client, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n");
    read_until(f, f->client, "HTTP/1.1 404 Not Found");
    expect_event(f, 404, "no_route");
    send_all(f->client, "GET /v2/a HTTP/1.1\r\nHost: x\r\n\r\n");
    read_until(f, accept_upstream(f), "GET /v2/a ");
    send_all(f->upstream, ok);
    read_until(f, f->client, "\r\n\r\nok");
    expect_event(f, 200, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(interim_responses_pass_to_those_who_know_them),
        TEST(a_response_without_a_body_has_none),
        TEST(chunks_are_framed_anew_and_trailers_dropped),
        TEST(a_post_is_sent_again_where_the_route_says_so),
        TEST(a_body_too_large_to_keep_is_not_sent_again),
        TEST(a_reload_changes_new_exchanges_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
