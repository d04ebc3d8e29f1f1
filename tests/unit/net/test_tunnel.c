/*
 * tunnel: the request goes out whole, an answer opens the tunnel only when it is a well-formed head with a status of 2xx and nothing behind it, in whatever pieces it comes.
 */
#include "net_test.h"

#include "base/buffer.h"
#include "net/tunnel.h"

static int fds[2]; /* ours, the proxy's */
static struct tunnel *tunnel;
static char why[TUNNEL_TEXT_SIZE];

static const char REQUEST[] = "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n";

static int setup(void **state)
{
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    tunnel = tunnel_new(slice_of(REQUEST));
    why[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tunnel_free(tunnel);
    close(fds[0]);
    if (fds[1] >= 0) {
        close(fds[1]);
    }
    return 0;
}

static enum tunnel_outcome advance(void)
{
    return tunnel_advance(tunnel, fds[0], why);
}

static void answer(struct slice text)
{
    assert_int_equal(send(fds[1], text.data, text.size, MSG_NOSIGNAL), text.size);
}

/* A fresh tunnel whose answer is text, all at once. */
static enum tunnel_outcome outcome_of(struct slice text)
{
    teardown(NULL);
    setup(NULL);
    assert_int_equal(advance(), TUNNEL_WANT_READ);
    answer(text);
    return advance();
}

static void the_request_is_sent_as_it_is(void **state)
{
    (void)state;
    char got[256];
    assert_int_equal(advance(), TUNNEL_WANT_READ);
    assert_int_equal(recv(fds[1], got, sizeof got, 0), sizeof REQUEST - 1);
    assert_memory_equal(got, REQUEST, sizeof REQUEST - 1);
    assert_int_equal(advance(), TUNNEL_WANT_READ);
    assert_int_equal(recv(fds[1], got, sizeof got, 0), -1); /* not twice */
}

static void a_request_that_does_not_fit_is_continued(void **state)
{
    (void)state;
    size_t size = 4 << 20;
    char *request = xcalloc(1, size), *got = xcalloc(1, size);
    for (size_t i = 0; i < size; i++) {
        request[i] = (char)(i * 2654435761u >> 7);
    }
    tunnel_free(tunnel);
    tunnel = tunnel_new((struct slice){request, size});
    size_t received = 0;
    int waits = 0;
    while (received < size) {
        enum tunnel_outcome outcome = advance();
        assert_true(outcome == TUNNEL_WANT_WRITE || outcome == TUNNEL_WANT_READ);
        waits += outcome == TUNNEL_WANT_WRITE;
        ssize_t count = recv(fds[1], got + received, size - received, 0);
        assert_true(count > 0);
        received += (size_t)count;
    }
    assert_true(waits > 0);
    assert_memory_equal(got, request, size);
    free(request);
    free(got);
}

static void every_good_answer_opens(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "HTTP/1.1 200 Connection established\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200\r\n\r\n",
        "HTTP/1.1 200 \r\n\r\n",
        "HTTP/1.1 204 No Content\r\nVia: 1.1 x\r\nX-Empty:\r\nX-Text:\ta \xc3\xa9\r\n\r\n",
        "HTTP/1.1 299 Odd\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n", /* both mean nothing here */
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        assert_int_equal(outcome_of(slice_of(answers[i])), TUNNEL_OPEN);
    }
}

static void an_answer_may_come_byte_by_byte(void **state)
{
    (void)state;
    struct slice text = SLICE("HTTP/1.1 200 Connection established\r\nVia: 1.1 x\r\n\r\n");
    for (size_t i = 0; i < text.size; i++) {
        assert_int_equal(advance(), TUNNEL_WANT_READ);
        answer((struct slice){text.data + i, 1});
    }
    assert_int_equal(advance(), TUNNEL_OPEN);
}

static void what_comes_later_is_left_on_the_socket(void **state)
{
    (void)state;
    char got[8];
    assert_int_equal(outcome_of(SLICE("HTTP/1.1 200 OK\r\n\r\n")), TUNNEL_OPEN);
    answer(SLICE("later"));
    assert_int_equal(recv(fds[0], got, sizeof got, 0), 5);
}

static void another_status_is_named_without_waiting_for_more(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *why;
    } cases[] = {
        {"HTTP/1.1 407 Proxy Authentication Required\r\n", "refused with status 407"},
        {"HTTP/1.1 407 \r\nContent-Length: 5\r\n\r\nsorry", "refused with status 407"},
        {"HTTP/1.0 502 Bad Gateway\r\n\r\n", "refused with status 502"},
        {"HTTP/1.1 302 Found\r\n\r\n", "refused with status 302"},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "refused with status 100"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(outcome_of(slice_of(cases[i].answer)), TUNNEL_FAILED);
        assert_string_equal(why, cases[i].why);
    }
}

static void what_is_no_http_is_told_at_once(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "S",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 600 Odd\r\n\r\n",
        "HTTP/1.1 200-OK\r\n\r\n",
        "HTTP/1.x 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 O\rK\r\n\r\n",
        "\x15\x03\x01", /* a TLS alert */
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        assert_int_equal(outcome_of(slice_of(answers[i])), TUNNEL_FAILED);
        assert_string_equal(why, "the answer is not HTTP");
    }
}

static void a_malformed_field_is_refused(void **state)
{
    (void)state;
    static const char *const fields[] = {
        "no colon\r\n",   ": empty name\r\n", "Name : x\r\n", " folded\r\n",      "Name: x\n",
        "Name: \x01\r\n", "Name: a\rb\r\n",   "\n",           "N\xc3\xa9: x\r\n", "Name: \x7f\r\n",
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char text[128];
        snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\n%s\r\n", fields[i]);
        assert_int_equal(outcome_of(slice_of(text)), TUNNEL_FAILED);
        assert_string_equal(why, "the head of the answer is malformed");
    }
    assert_int_equal(outcome_of(SLICE("HTTP/1.1 200 OK\r\nName: a\0b\r\n\r\n")), TUNNEL_FAILED);
    assert_string_equal(why, "the head of the answer is malformed");
}

static void bytes_behind_the_head_are_refused(void **state)
{
    (void)state;
    assert_int_equal(outcome_of(SLICE("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n")), TUNNEL_FAILED);
    assert_string_equal(why, "sent bytes behind the head of its answer");
}

static void a_head_has_at_most_16_kib(void **state)
{
    (void)state;
    struct buffer head = {0};
    buffer_append_string(&head, "HTTP/1.1 200 OK\r\nX: ");
    while (head.size < (16 << 10) - 4) {
        buffer_append_char(&head, 'x');
    }
    buffer_append_string(&head, "\r\n\r\n");
    assert_int_equal(outcome_of(buffer_slice(&head)), TUNNEL_OPEN);

    buffer_clear(&head);
    buffer_append_string(&head, "HTTP/1.1 200 OK\r\nX: ");
    while (head.size < (16 << 10) - 3) {
        buffer_append_char(&head, 'x');
    }
    buffer_append_string(&head, "\r\n\r\n");
    assert_int_equal(outcome_of(buffer_slice(&head)), TUNNEL_FAILED);
    assert_string_equal(why, "the head of the answer is larger than 16 KiB");
    buffer_free(&head);
}

static void a_proxy_that_closes_is_told_so(void **state)
{
    (void)state;
    assert_int_equal(advance(), TUNNEL_WANT_READ);
    answer(SLICE("HTTP/1.1 200 OK\r\n"));
    assert_int_equal(advance(), TUNNEL_WANT_READ);
    shutdown(fds[1], SHUT_WR);
    assert_int_equal(advance(), TUNNEL_FAILED);
    assert_string_equal(why, "closed the connection");
}

static void a_broken_connection_is_told_so(void **state)
{
    (void)state;
    close(fds[1]);
    fds[1] = -1;
    assert_int_equal(advance(), TUNNEL_FAILED);
    assert_string_equal(why, "broken pipe");
}

#define tunnel_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        tunnel_test(the_request_is_sent_as_it_is),
        tunnel_test(a_request_that_does_not_fit_is_continued),
        tunnel_test(every_good_answer_opens),
        tunnel_test(an_answer_may_come_byte_by_byte),
        tunnel_test(what_comes_later_is_left_on_the_socket),
        tunnel_test(another_status_is_named_without_waiting_for_more),
        tunnel_test(what_is_no_http_is_told_at_once),
        tunnel_test(a_malformed_field_is_refused),
        tunnel_test(bytes_behind_the_head_are_refused),
        tunnel_test(a_head_has_at_most_16_kib),
        tunnel_test(a_proxy_that_closes_is_told_so),
        tunnel_test(a_broken_connection_is_told_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
