/*
 * Audit: the end of each response waits for its event. The bus is a memory bus that says an event is stored when the test tells it to.
 */
#include <pthread.h>

#include "proxy_test.h"

#define MAX_WAITING 16
#define MARK        "Date: d\r\nX-Request-Id: r\r\n" /* so that the proxy adds neither */

struct promise {
    bus_done done;
    void *argument;
};

struct late_bus {
    struct bus bus;
    struct bus *memory;
    pthread_mutex_t mutex;
    struct promise waiting[MAX_WAITING]; /* published, oldest first; guarded by the mutex */
    size_t count;
    atomic_bool at_once; /* stored when it is published */
    atomic_bool full;
};

static struct late_bus *late(struct bus *bus)
{
    return container_of(bus, struct late_bus, bus);
}

static void late_publish(struct bus *bus, struct event_record *event, bus_done done, void *argument)
{
    struct late_bus *b = late(bus);
    bus_publish(b->memory, event, NULL, NULL);
    if (done != NULL && atomic_load(&b->at_once)) {
        done(argument, true);
    } else if (done != NULL) {
        pthread_mutex_lock(&b->mutex);
        assert(b->count < MAX_WAITING);
        b->waiting[b->count++] = (struct promise){done, argument};
        pthread_mutex_unlock(&b->mutex);
    }
}

static bool late_has_room(struct bus *bus)
{
    return !atomic_load(&late(bus)->full);
}

static void late_free(struct bus *bus)
{
    bus_free(late(bus)->memory);
    pthread_mutex_destroy(&late(bus)->mutex);
    free(late(bus));
}

static int set_up_audit(void **state)
{
    static const struct bus_operations operations = {
        .publish = late_publish, .has_room = late_has_room, .free = late_free};
    set_up(state);
    struct fixture *f = *state;
    struct late_bus *bus = xcalloc(1, sizeof *bus);
    *bus = (struct late_bus){.bus = {.operations = &operations}, .memory = f->bus};
    pthread_mutex_init(&bus->mutex, NULL);
    f->bus = &bus->bus;
    f->settings->audit = true;
    return 0;
}

static size_t held(struct fixture *f)
{
    struct late_bus *bus = late(f->bus);
    pthread_mutex_lock(&bus->mutex);
    size_t count = bus->count;
    pthread_mutex_unlock(&bus->mutex);
    return count;
}

/* Until the worker has published one more event: all that it wrote before is then on its way to the client. */
static void wait_for_hold(struct fixture *f)
{
    for (int i = 0; i < 500 && held(f) == 0; i++) {
        usleep(10000);
    }
    assert_int_equal(held(f), 1);
}

static struct promise take_promise(struct fixture *f)
{
    struct late_bus *bus = late(f->bus);
    wait_for_hold(f);
    pthread_mutex_lock(&bus->mutex);
    struct promise promise = bus->waiting[0];
    bus->count--;
    memmove(bus->waiting, bus->waiting + 1, bus->count * sizeof bus->waiting[0]);
    pthread_mutex_unlock(&bus->mutex);
    return promise;
}

static void answer(struct fixture *f, bool stored)
{
    struct promise promise = take_promise(f);
    promise.done(promise.argument, stored);
}

static void expect_silence(int fd)
{
    assert_int_equal(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 50), 0);
}

/* Exactly text, and nothing behind it for a moment. */
static void expect_bytes(struct fixture *f, int fd, const char *text)
{
    size_t size = 0, expected = strlen(text);
    while (size < expected) {
        ssize_t got = recv(fd, f->received + size, sizeof f->received - 1 - size, 0);
        if (got <= 0) {
            break;
        }
        size += (size_t)got;
    }
    f->received[size] = 0;
    assert_string_equal(f->received, text);
}

static int64_t gauge(struct fixture *f, const char *name)
{
    return metric_value(metrics_gauge(f->metrics, name, "", (struct metric_label[]){{NULL, NULL}}));
}

static int64_t cuts(struct fixture *f, const char *reason)
{
    return metric_value(metrics_counter(f->metrics, "llm_proxy_audit_cut_total", "",
                                        (struct metric_label[]){{"reason", reason}, {NULL, NULL}}));
}

static void reconnect(struct fixture *f)
{
    close(f->client);
    f->client = connect_to_proxy(f);
}

/* What is held ---------------------------------------------------------------------------------------------------------------------------------------- */

#define OK    "HTTP/1.1 200 OK\r\n" MARK
#define HELLO "Content-Length: 5\r\n\r\nhello"

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

static void send_request(struct fixture *f, const char *line)
{
    char request[128];
    snprintf(request, sizeof request, "%s\r\nHost: x\r\n\r\n", line);
    send_all(f->client, request);
}

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

/* What goes wrong -------------------------------------------------------------------------------------------------------------------------------------- */

static void expect_reset(struct fixture *f)
{
    assert_false(read_to_end(f, f->client));
    assert_int_equal(errno, ECONNRESET);
}

static void an_event_that_is_not_stored_cuts_its_response(void **state)
{
    struct fixture *f = *state;
    start(f);
    static const char *const responses[] = {OK HELLO, OK "Content-Length: 0\r\n\r\n",
                                            OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"};
    for (size_t i = 0; i < 3; i++) {
        int upstream = get_upstream(f);
        send_all(upstream, responses[i]);
        close(upstream);
        f->upstream = -1;
        answer(f, false);
        expect_reset(f);
        assert_int_equal(cuts(f, "lost"), i + 1);
        expect_event(f, 200, NULL);
        reconnect(f);
    }
}

static void a_response_held_too_long_is_cut(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(get_upstream(f), OK HELLO);
    struct promise promise = take_promise(f);
    expect_bytes(f, f->client, OK "Content-Length: 5\r\n\r\nhell");
    uint64_t begun_ns = clock_monotonic_ns();
    assert_int_equal(poll(&(struct pollfd){.fd = f->client, .events = POLLIN}, 1, 60000), 1);
    assert_true(clock_monotonic_ns() - begun_ns > 4 * NANOSECONDS_PER_SECOND);
    expect_reset(f);
    assert_int_equal(cuts(f, "timeout"), 1);
    promise.done(promise.argument, true);
    expect_event(f, 200, NULL);
    reconnect(f);
    send_request(f, "GET /nowhere HTTP/1.1");
    answer(f, true);
    read_until(f, f->client, "HTTP/1.1 404 ");
}

static void a_client_that_leaves_while_the_end_is_held_counts_as_complete(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(get_upstream(f), OK HELLO);
    wait_for_hold(f);
    close(f->client);
    for (int i = 0; i < 500 && gauge(f, "llm_proxy_inflight_requests") > 0; i++) {
        usleep(10000);
    }
    assert_int_equal(gauge(f, "llm_proxy_inflight_requests"), 0);
    struct event_record *event = next_event(f);
    assert_int_equal(event_get(event)->status, 200);
    assert_int_equal(event_get(event)->response_bytes, 5);
    assert_null(event_get(event)->error_kind.data);
    event_record_release(event);
    f->client = connect_to_proxy(f); /* the exchange's memory serves another one, before the answer comes */
    send_all(f->client, "GET /v1/b HTTP/1.1\r\nHost: x\r\n\r\n");
    read_until(f, f->upstream, "GET /v1/b ");
    answer(f, true);
    send_all(f->upstream, OK HELLO);
    wait_for_hold(f);
    expect_bytes(f, f->client, OK "Content-Length: 5\r\n\r\nhell");
    expect_silence(f->client);
    answer(f, true);
    expect_bytes(f, f->client, "o");
    expect_event(f, 200, NULL);
}

static void a_response_that_breaks_is_cut_without_waiting(void **state)
{
    struct fixture *f = *state;
    start(f);
    int upstream = get_upstream(f);
    send_all(upstream, OK "Content-Length: 5\r\n\r\nhell");
    close(upstream);
    f->upstream = -1;
    assert_true(read_to_end(f, f->client));
    assert_string_equal(strstr(f->received, "\r\n\r\n"), "\r\n\r\nhell");
    expect_event(f, 200, "upstream_aborted");
    assert_int_equal(held(f), 0);

    reconnect(f);
    upstream = get_upstream(f);
    send_all(upstream, "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhell");
    usleep(20000);
    close(upstream);
    f->upstream = -1;
    read_to_end(f, f->client);
    assert_string_equal(f->received, "");
    expect_event(f, 0, "upstream_aborted");
}

static void expect_overloaded(struct fixture *f, const char *line)
{
    send_request(f, line);
    const char *got = read_until(f, f->client, "}}");
    assert_ptr_equal(strstr(got, "HTTP/1.1 503 "), got);
    assert_non_null(strstr(got, "\"code\":\"overloaded\""));
    assert_false(upstream_was_contacted(f));
    assert_int_equal(held(f), 0);
    expect_event(f, 503, "overloaded");
}

static void requests_are_refused_while_events_are_not_taken(void **state)
{
    struct fixture *f = *state;
    start(f);
    atomic_store(&late(f->bus)->full, true);
    expect_overloaded(f, "GET /v1/a HTTP/1.1");
    expect_overloaded(f, "GET /nowhere HTTP/1.1");
    expect_overloaded(f, "TRACE /v1/a HTTP/1.1");
    reconnect(f);
    atomic_store(&late(f->bus)->full, false);
    assert_true(memory_budget_take(&f->budget, f->budget.limit - 1000));
    expect_overloaded(f, "GET /v1/a HTTP/1.1");
    memory_budget_give_back(&f->budget, f->budget.limit - 1000);
    atomic_store(&late(f->bus)->at_once, true);
    send_all(get_upstream(f), OK HELLO);
    expect_bytes(f, f->client, OK HELLO);
    expect_event(f, 200, NULL);
}

/* Shutdown ---------------------------------------------------------------------------------------------------------------------------------------------- */

static void draining_waits_for_what_is_held(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(get_upstream(f), OK HELLO);
    wait_for_hold(f);
    atomic_bool idle = false;
    proxy_drain(f->proxy, set_flag, &idle);
    usleep(50000);
    assert_false(atomic_load(&idle));
    answer(f, true);
    read_until(f, f->client, "\r\n\r\nhello");
    wait_for_flag(&idle);
    assert_true(read_to_end(f, f->client));
    expect_event(f, 200, NULL);
}

static void the_bus_may_answer_when_the_workers_are_gone(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_all(get_upstream(f), OK HELLO);
    wait_for_hold(f);
    proxy_free(f->proxy);
    f->proxy = NULL;
    expect_reset(f);
    expect_event(f, 200, NULL);
    answer(f, true);
}

static void *answer_always(void *argument)
{
    struct fixture *f = argument;
    struct late_bus *bus = late(f->bus);
    while (!atomic_load(&bus->at_once)) {
        pthread_mutex_lock(&bus->mutex);
        struct promise promise = {NULL, NULL};
        if (bus->count > 0) {
            promise = bus->waiting[--bus->count];
        }
        pthread_mutex_unlock(&bus->mutex);
        if (promise.done != NULL) {
            promise.done(promise.argument, true);
        }
    }
    return NULL;
}

/* For the sanitizers: answers come from another thread while clients come and go, and while the workers stop. */
static void answers_and_ends_may_cross(void **state)
{
    struct fixture *f = *state;
    start_workers(f, 2);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer_always, f), 0);
    for (int i = 0; i < 200; i++) {
        int client = connect_to_proxy(f);
        send_all(client, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
        if (i % 3 == 0) {
            read_until(f, client, "}}");
        } else {
            usleep((useconds_t)(i % 7) * 50);
        }
        close(client);
    }
    for (int i = 0; i < 8; i++) {
        send_all(f->client, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    proxy_free(f->proxy);
    f->proxy = NULL;
    while (held(f) > 0) {
        usleep(1000);
    }
    atomic_store(&late(f->bus)->at_once, true);
    pthread_join(thread, NULL);
}

#define AUDIT_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_audit, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        AUDIT_TEST(all_but_the_end_of_a_response_streams),
        AUDIT_TEST(answers_of_our_own_wait_as_a_whole),
        AUDIT_TEST(a_response_before_the_request_is_complete_is_held_too),
        AUDIT_TEST(pipelined_requests_wait_for_the_end_before_them),
        AUDIT_TEST(a_slow_reader_gets_every_byte),
        AUDIT_TEST(an_event_that_is_not_stored_cuts_its_response),
        AUDIT_TEST(a_response_held_too_long_is_cut),
        AUDIT_TEST(a_client_that_leaves_while_the_end_is_held_counts_as_complete),
        AUDIT_TEST(a_response_that_breaks_is_cut_without_waiting),
        AUDIT_TEST(requests_are_refused_while_events_are_not_taken),
        AUDIT_TEST(draining_waits_for_what_is_held),
        AUDIT_TEST(the_bus_may_answer_when_the_workers_are_gone),
        AUDIT_TEST(answers_and_ends_may_cross),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
