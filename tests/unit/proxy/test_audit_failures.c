/*
 * Audit when something goes wrong while an end is held, or before: the event is lost or late, the client leaves, the upstream breaks, nothing is taken, the process ends.
 */
#include "audit_test.h"

static int64_t cuts(struct fixture *f, const char *reason)
{
    return metric_value(metrics_counter(f->metrics, "llm_proxy_audit_cut_total", "",
                                        (struct metric_label[]){{"reason", reason}, {NULL, NULL}}));
}

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
    assert_int_equal(poll(&(struct pollfd){.fd = f->client, .events = POLLIN}, 1, 30000), 1);
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
        } else {
            sched_yield();
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
