/*
 * admin: over real sockets on a real loop, the client on the same thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/admin.h"
#include "base/clock.h"
#include "base/memory.h"

#define LARGE       (8 << 20) /* more than socket buffers take */
#define PATIENCE_NS (20 * NANOSECONDS_PER_SECOND)
#define HEALTH      "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

static struct loop *loop;
static struct metrics *metrics;
static struct admin *admin;

static bool is_ready(void *argument, const char **reason)
{
    (void)argument;
    (void)reason;
    return true;
}

static int start(void **state)
{
    (void)state;
    struct error error;
    struct admin_settings settings = {.is_ready = is_ready};
    loop = loop_new();
    metrics = metrics_new();
    settings.loop = loop;
    settings.metrics = metrics;
    assert_true(address_parse("127.0.0.1:0", &settings.address, &error));
    admin = admin_new(&settings, &error);
    return admin != NULL ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    admin_free(admin);
    metrics_free(metrics);
    loop_free(loop);
    return 0;
}

static int connect_to_admin(void)
{
    const struct address *address = admin_address(admin);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, &address->socket.any, address->size), 0);
    return fd;
}

static void send_text(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Runs the loop until the client has received the text wanted or, if that is NULL, the connection has ended; returns what was received. */
static char *receive(int fd, const char *wanted)
{
    struct buffer got = {0};
    uint64_t end = clock_monotonic_ns() + PATIENCE_NS;
    for (;;) {
        event_base_loop(loop_base(loop), EVLOOP_ONCE | EVLOOP_NONBLOCK);
        char *into = buffer_reserve(&got, 65536);
        ssize_t size = recv(fd, into, 65536, MSG_DONTWAIT);
        if (size > 0) {
            buffer_commit(&got, (size_t)size);
            if (wanted != NULL && memmem(buffer_data(&got), got.size, wanted, strlen(wanted)) != NULL) {
                break;
            }
        } else if (size == 0 || errno != EAGAIN) {
            assert_null(wanted);
            break;
        } else {
            assert_true(clock_monotonic_ns() < end);
            usleep(50);
        }
    }
    return buffer_take_string(&got);
}

static size_t count(const char *text, const char *piece)
{
    size_t found = 0;
    for (; (text = strstr(text, piece)) != NULL; text += strlen(piece)) {
        found++;
    }
    return found;
}

static void a_connection_is_kept_and_pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    int fd = connect_to_admin();
    send_text(fd, HEALTH);
    free(receive(fd, "ok\n"));
    send_text(fd, HEALTH "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n" HEALTH
                         "GET /nothing HTTP/1.1\r\nHost: localhost\r\n"
                         "Connection: close\r\n\r\n" HEALTH);
    char *text = receive(fd, NULL);
    assert_int_equal(count(text, "HTTP/1.1 200 OK\r\n"), 3);
    assert_true(strstr(text, "ready\n") < strstr(text, "HTTP/1.1 404 "));
    assert_int_equal(count(text, "HTTP/1.1 "), 4); /* nothing after close */
    free(text);
    close(fd);
}

static void a_head_may_come_in_pieces(void **state)
{
    (void)state;
    int fd = connect_to_admin();
    for (const char *p = HEALTH; *p != 0; p++) {
        assert_int_equal(send(fd, p, 1, MSG_NOSIGNAL), 1);
        event_base_loop(loop_base(loop), EVLOOP_ONCE | EVLOOP_NONBLOCK);
    }
    char *text = receive(fd, "ok\n");
    assert_true(strncmp(text, "HTTP/1.1 200 OK\r\n", 17) == 0);
    free(text);
    close(fd);
}

static void what_is_no_request_is_answered_and_the_connection_closed(void **state)
{
    (void)state;
    static const struct {
        const char *text, *status;
    } cases[] = {
        {"\x16\x03\x01", "400 "},
        {"GET /healthz HTTP/1.1\r\n\r\n" HEALTH, "400 "},
        {"GET /healthz HTTP/2.0\r\n", "505 "},
        {"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" HEALTH, "405 "},
        {"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello" HEALTH, "404 "},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\nhello" HEALTH,
         "413 "},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = connect_to_admin();
        send_text(fd, cases[i].text);
        char *text = receive(fd, NULL);
        if (strncmp(text, "HTTP/1.1 ", 9) != 0 || strncmp(text + 9, cases[i].status, 4) != 0) {
            fail_msg("%s: %s", cases[i].text, text);
        }
        assert_int_equal(count(text, "\r\n\r\n"), 1);
        assert_non_null(strstr(text, "Connection: close\r\n"));
        assert_non_null(strstr(text, "\"type\":\"proxy_error\""));
        free(text);
        close(fd);
    }
}

static void a_half_closed_client_gets_its_answers_and_then_the_end(void **state)
{
    (void)state;
    int fd = connect_to_admin();
    send_text(fd, HEALTH HEALTH "GET /hea");
    shutdown(fd, SHUT_WR);
    char *text = receive(fd, NULL);
    assert_int_equal(count(text, "HTTP/1.1 200 OK\r\n"), 2);
    assert_int_equal(count(text, "HTTP/1.1 "), 2);
    free(text);
    close(fd);
}

static void the_newest_connection_gets_in_and_the_longest_idle_goes(void **state)
{
    (void)state;
    int fds[65];
    for (size_t i = 0; i < 64; i++) {
        fds[i] = connect_to_admin();
        send_text(fds[i], HEALTH);
        free(receive(fds[i], "ok\n"));
    }
    send_text(fds[0], HEALTH); /* no longer the one that is idle longest */
    free(receive(fds[0], "ok\n"));
    fds[64] = connect_to_admin();
    send_text(fds[64], HEALTH);
    free(receive(fds[64], "ok\n"));
    char *text = receive(fds[1], NULL);
    assert_string_equal(text, "");
    free(text);
    send_text(fds[0], HEALTH);
    free(receive(fds[0], "ok\n"));
    send_text(fds[2], HEALTH);
    free(receive(fds[2], "ok\n"));
    for (size_t i = 0; i < 65; i++) {
        close(fds[i]);
    }
}

static void a_large_answer_reaches_a_slow_reader_whole(void **state)
{
    (void)state;
    char *help = xmalloc(LARGE + 1);
    memset(help, 'x', LARGE);
    help[LARGE] = 0;
    metrics_counter(metrics, "large_total", help, (struct metric_label[]){{0}});
    int fd = connect_to_admin();
    send_text(fd, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" HEALTH);
    for (int i = 0; i < 100; i++) {
        event_base_loop(loop_base(loop), EVLOOP_ONCE | EVLOOP_NONBLOCK);
    }
    char *text = receive(fd, "\r\n\r\nok\n");
    assert_non_null(strstr(text, help));
    assert_int_equal(count(text, "HTTP/1.1 200 OK\r\n"), 2);
    free(text);
    free(help);
    close(fd);
}

static void an_address_in_use_is_an_error(void **state)
{
    (void)state;
    struct error error;
    struct admin_settings settings = {.loop = loop, .metrics = metrics, .address = *admin_address(admin)};
    assert_null(admin_new(&settings, &error));
    assert_non_null(strstr(error.message, "in use"));
}

static void stopping_closes_connections_in_every_state(void **state)
{
    (void)state;
    int idle = connect_to_admin(), half = connect_to_admin(), ending = connect_to_admin();
    send_text(idle, HEALTH);
    free(receive(idle, "ok\n"));
    send_text(half, "GET /hea");
    send_text(ending, "\x16");
    free(receive(ending, NULL));
    stop(NULL);
    char byte;
    assert_int_equal(recv(idle, &byte, 1, 0), 0);
    assert_true(recv(half, &byte, 1, 0) <= 0);
    close(idle);
    close(half);
    close(ending);
    assert_int_equal(start(NULL), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(a_connection_is_kept_and_pipelined_requests_are_answered_in_order),
        TEST(a_head_may_come_in_pieces),
        TEST(what_is_no_request_is_answered_and_the_connection_closed),
        TEST(a_half_closed_client_gets_its_answers_and_then_the_end),
        TEST(the_newest_connection_gets_in_and_the_longest_idle_goes),
        TEST(a_large_answer_reaches_a_slow_reader_whole),
        TEST(an_address_in_use_is_an_error),
        TEST(stopping_closes_connections_in_every_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
