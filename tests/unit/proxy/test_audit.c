/*
 * Audit: the end of each response waits for its event, and everything before it does not.
 */
#include "audit_test.h"

static const struct {
    const char *request;
    const char *upstream
        [3]; /* each comes to the client before the next is sent; the connection is closed behind the last */
    const char *before, *end;
} messages[] = {
    {"GET /v1/a HTTP/1.1", {OK HELLO}, OK "Content-Length: 5\r\n\r\nhell", "o"},
    {"GET /v1/a HTTP/1.1", {OK "Content-Length: 1\r\n\r\nx"}, OK "Content-Length: 1\r\n\r\n", "x"},
    {"GET /v1/a HTTP/1.1", {OK "Content-Length: 3\r\n\r\nab", "c"}, OK "Content-Length: 3\r\n\r\nab", "c"},
    {"GET /v1/a HTTP/1.1",
     {OK "Content-Length: 3\r\n\r\n", "a", "bc"},
     OK "Content-Length: 3\r\n\r\nab",
     "c"},
    {"GET /v1/a HTTP/1.1", {OK "Content-Length: 0\r\n\r\n"}, "", OK "Content-Length: 0\r\n\r\n"},
    {"GET /v1/a HTTP/1.1",
     {"HTTP/1.1 204 No Content\r\n" MARK "\r\n"},
     "",
     "HTTP/1.1 204 No Content\r\n" MARK "\r\n"},
    {"GET /v1/a HTTP/1.1",
     {"HTTP/1.1 205 Reset Content\r\n" MARK "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", "0\r\n\r\n"},
     "",
     "HTTP/1.1 205 Reset Content\r\n" MARK "Content-Length: 0\r\n\r\n"},
    {"GET /v1/a HTTP/1.1",
     {"HTTP/1.1 304 Not Modified\r\n" MARK "Content-Length: 9\r\n\r\n"},
     "",
     "HTTP/1.1 304 Not Modified\r\n" MARK "Content-Length: 9\r\n\r\n"},
    {"HEAD /v1/a HTTP/1.1", {OK "Content-Length: 9\r\n\r\n"}, "", OK "Content-Length: 9\r\n\r\n"},
    {"GET /v1/a HTTP/1.1",
     {OK "Transfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n", "0\r\n\r\n"},
     OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
     "0\r\n\r\n"},
    {"GET /v1/a HTTP/1.1",
     {OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
     OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
     "0\r\n\r\n"},
    {"GET /v1/a HTTP/1.1",
     {OK "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
     OK "Transfer-Encoding: chunked\r\n\r\n",
     "0\r\n\r\n"},
    {"GET /v1/a HTTP/1.1",
     {OK "\r\nhello"},
     OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
     "0\r\n\r\n"},
    {"GET /v1/a HTTP/1.0", {OK "\r\n", "hello"}, OK "Connection: close\r\n\r\nhello", ""},
    {"GET /v1/a HTTP/1.0",
     {OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
     OK "Connection: close\r\n\r\nhello",
     ""},
    {"GET /v1/a HTTP/1.0", {OK HELLO}, OK "Content-Length: 5\r\nConnection: close\r\n\r\nhell", "o"},
};

static void all_but_the_end_of_a_response_streams(void **state)
{
    struct fixture *f = *state;
    start(f);
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        send_request(f, messages[i].request);
        int upstream = accept_upstream(f);
        read_until(f, upstream, "\r\n\r\n");
        for (size_t k = 0; k < 3 && messages[i].upstream[k] != NULL; k++) {
            send_all(upstream, messages[i].upstream[k]);
            if (k < 2 && messages[i].upstream[k + 1] != NULL) {
                usleep(20000); /* so that it is read alone */
                assert_int_equal(held(f), 0);
            }
        }
        close(upstream);
        f->upstream = -1;
        wait_for_hold(f);
        expect_bytes(f, f->client, messages[i].before);
        expect_silence(f->client);
        assert_int_equal(gauge(f, "llm_proxy_inflight_requests"), 1);
        answer(f, true);
        expect_bytes(f, f->client, messages[i].end);
        bool closes = strstr(messages[i].request, "HTTP/1.0") != NULL;
        if (closes) {
            assert_true(read_to_end(f, f->client));
            assert_string_equal(f->received, "");
            reconnect(f);
        }
        struct event_record *event = next_event(f);
        assert_null(event_get(event)->error_kind.data);
        bool has_body = strstr(messages[i].before, "hell") != NULL;
        assert_true(!has_body || event_get(event)->response_bytes == 5);
        event_record_release(event);
    }
}

static void answers_of_our_own_wait_as_a_whole(void **state)
{
    static const struct {
        const char *request, *status;
    } cases[] = {
        {"GET /nowhere HTTP/1.1\r\n", "404 Not Found"},
        {"OPTIONS * HTTP/1.1\r\n", "204 No Content"},
        {"TRACE /v1/a HTTP/1.1\r\n", "405 Method Not Allowed"},
        {"GET /v1/a HTTP/1.1\r\n", "502 Bad Gateway"},
    };
    struct fixture *f = *state;
    start(f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[128];
        snprintf(text, sizeof text, "%sHost: x\r\n\r\n", cases[i].request);
        send_all(f->client, text);
        if (atoi(cases[i].status) == 502) {
            read_until(f, accept_upstream(f), "\r\n\r\n");
            close(f->upstream);
            f->upstream = -1;
        }
        wait_for_hold(f);
        expect_silence(f->client);
        answer(f, true);
        snprintf(text, sizeof text, "HTTP/1.1 %s\r\n", cases[i].status);
        const char *got = read_until(f, f->client, atoi(cases[i].status) == 204 ? "\r\n\r\n" : "}}");
        assert_ptr_equal(strstr(got, text), got);
        struct event_record *event = next_event(f);
        assert_int_equal(event_get(event)->status, atoi(cases[i].status));
        event_record_release(event);
        reconnect(f);
    }
}

static void a_response_before_the_request_is_complete_is_held_too(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client, "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf ");
    int upstream = accept_upstream(f);
    read_until(f, upstream, "half ");
    send_all(upstream, OK HELLO);
    wait_for_hold(f);
    expect_bytes(f, f->client, OK "Content-Length: 5\r\n\r\nhell");
    send_all(f->client, "done!GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_silence(f->client);
    answer(f, true);
    wait_for_hold(f);
    expect_bytes(f, f->client, "o");
    answer(f, true);
    read_until(f, f->client, "HTTP/1.1 404 ");
    expect_event(f, 200, NULL);
    expect_event(f, 404, "no_route");
}

static void pipelined_requests_wait_for_the_end_before_them(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(f->client, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/b HTTP/1.1\r\nHost: x\r\n\r\n");
    int upstream = accept_upstream(f);
    read_until(f, upstream, "\r\n\r\n");
    send_all(upstream, OK HELLO);
    wait_for_hold(f);
    expect_silence(upstream);
    answer(f, true);
    read_until(f, upstream, "GET /v1/b ");
    send_all(upstream, OK "Content-Length: 2\r\n\r\nyz");
    wait_for_hold(f);
    expect_bytes(f, f->client, OK HELLO OK "Content-Length: 2\r\n\r\ny");
    answer(f, true);
    expect_bytes(f, f->client, "z");
    expect_event(f, 200, NULL);
    expect_event(f, 200, NULL);
}

#define LARGE 8000000

static void *send_large(void *fd)
{
    char head[96];
    char *body = xmalloc(LARGE + 1);
    for (size_t i = 0; i < LARGE; i++) {
        body[i] = (char)('a' + i % 23);
    }
    body[LARGE] = 0;
    snprintf(head, sizeof head, OK "Content-Length: %d\r\n\r\n", LARGE);
    send_all(*(int *)fd, head);
    send_all(*(int *)fd, body);
    free(body);
    return NULL;
}

/* The last bytes wait in the proxy for a client that does not read, and the held one comes behind them. */
static void a_slow_reader_gets_every_byte(void **state)
{
    struct fixture *f = *state;
    start(f);
    atomic_store(&late(f->bus)->at_once, true);
    int upstream = get_upstream(f);
    pthread_t sender;
    assert_int_equal(pthread_create(&sender, NULL, send_large, &upstream), 0);
    read_until(f, f->client, "\r\n\r\n");
    size_t count = strlen(strstr(f->received, "\r\n\r\n") + 4);
    while (count < LARGE) {
        ssize_t got = recv(f->client, f->received, 50000, 0);
        assert_true(got > 0);
        for (ssize_t i = 0; i < got; i++) {
            assert_int_equal(f->received[i], 'a' + (count + (size_t)i) % 23);
        }
        count += (size_t)got;
        usleep(200);
    }
    pthread_join(sender, NULL);
    expect_silence(f->client);
    struct event_record *event = next_event(f);
    assert_int_equal(event_get(event)->response_bytes, LARGE);
    event_record_release(event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        AUDIT_TEST(all_but_the_end_of_a_response_streams),
        AUDIT_TEST(answers_of_our_own_wait_as_a_whole),
        AUDIT_TEST(a_response_before_the_request_is_complete_is_held_too),
        AUDIT_TEST(pipelined_requests_wait_for_the_end_before_them),
        AUDIT_TEST(a_slow_reader_gets_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
