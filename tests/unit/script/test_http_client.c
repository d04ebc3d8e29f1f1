/*
 * What Lua specs cannot show of http_client: that neither a time-out, nor a cancel, nor the end of the client waits for a name look-up. The look-up here is our own and lasts until the test lets it go, so a client
 * that waits for it hangs.
 */
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "script/http_client.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int begun, ended;
static bool let_go;

/* In the place of the C library's. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
    (void)name;
    (void)service;
    (void)hints;
    (void)result;
    pthread_mutex_lock(&mutex);
    begun++;
    pthread_cond_broadcast(&changed);
    while (!let_go)
        pthread_cond_wait(&changed, &mutex);
    ended++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    return EAI_NONAME;
}

static void wait_until_begun(int count)
{
    pthread_mutex_lock(&mutex);
    while (begun < count)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

static void finish_look_ups(void)
{
    pthread_mutex_lock(&mutex);
    let_go = true;
    pthread_cond_broadcast(&changed);
    while (ended < begun)
        pthread_cond_wait(&changed, &mutex);
    let_go = false;
    begun = ended = 0;
    pthread_mutex_unlock(&mutex);
}

struct outcome {
    struct loop *loop;
    int count;
    char *error;
};

static void on_done(void *owner, const struct http_client_response *response)
{
    struct outcome *outcome = owner;
    outcome->count++;
    outcome->error = response->error != NULL ? strdup(response->error) : NULL;
    loop_stop(outcome->loop);
}

static struct http_client_transfer *start(struct http_client *client, double timeout_s,
                                          struct outcome *outcome)
{
    struct http_client_request request = {
        .method = "GET",
        .url = "http://slow.test/",
        .timeout_s = timeout_s,
        .connect_timeout_s = timeout_s,
        .max_response_bytes = 1,
        .proxy = "",
    };
    return http_client_start(client, &request, on_done, outcome);
}

static void time_out_does_not_wait_for_a_name(void **state)
{
    (void)state;
    struct outcome outcome = {.loop = loop_new()};
    struct http_client *client = http_client_new(outcome.loop);
    start(client, 0.02, &outcome);
    loop_run(outcome.loop);
    assert_int_equal(outcome.count, 1);
    assert_string_equal(outcome.error, "GET http://slow.test/: no connection in time");
    http_client_free(client);
    loop_free(outcome.loop);
    free(outcome.error);
    finish_look_ups();
}

/* Turns the loop until the look-up runs. */
static void stop_when_begun(void *argument)
{
    wait_until_begun(1);
    loop_stop(argument);
}

static void run_until_begun(struct loop *loop)
{
    struct loop_timer timer;
    loop_timer_init(&timer, loop, stop_when_begun, loop);
    loop_timer_set(&timer, 10 * NANOSECONDS_PER_MILLISECOND);
    loop_run(loop);
    loop_timer_release(&timer);
}

static void cancel_does_not_wait_for_a_name_nor_call_back(void **state)
{
    (void)state;
    struct outcome outcome = {.loop = loop_new()};
    struct http_client *client = http_client_new(outcome.loop);
    struct http_client_transfer *transfer = start(client, 100, &outcome);
    run_until_begun(outcome.loop);
    http_client_cancel(transfer);
    http_client_free(client);
    assert_int_equal(outcome.count, 0);
    loop_free(outcome.loop);
    finish_look_ups();
}

static void free_cancels_what_runs(void **state)
{
    (void)state;
    struct outcome outcome = {.loop = loop_new()};
    struct http_client *client = http_client_new(outcome.loop);
    start(client, 100, &outcome);
    run_until_begun(outcome.loop);
    start(client, 100, &outcome);
    http_client_free(client);
    assert_int_equal(outcome.count, 0);
    loop_free(outcome.loop);
    finish_look_ups();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_out_does_not_wait_for_a_name),
        cmocka_unit_test(cancel_does_not_wait_for_a_name_nor_call_back),
        cmocka_unit_test(free_cancels_what_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
