/*
 * resolver: each query is answered once or cancelled, a name is asked once for all who wait, and no loop waits for a name server.
 */
#include "net_test.h"

#include <sys/syscall.h>

#include "net/resolver.h"

#define FAKE_NAMES                                                                                           \
    {"one.example", {"10.0.0.1"}}, {"two.example", {"::1", "::2", "::3", "10.0.0.1", "10.0.0.2"}},           \
        {"many.example",                                                                                     \
         {"::1", "::2", "::3", "::4", "::5", "::6", "::7", "::8", "::9", "10.0.0.1", "::10"}},               \
        {"slow.example", {"10.0.0.9"}},                                                                      \
    {                                                                                                        \
        "slower.example",                                                                                    \
        {                                                                                                    \
            "10.0.0.8"                                                                                       \
        }                                                                                                    \
    }
#include "fake_names.h"

static struct loop *test_loop;
static struct resolver *resolver;
static atomic_long seconds_passed;

/* In the place of libc's: the program's clock, and as many seconds as the test wants to have passed. */
int clock_gettime(clockid_t id, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, id, now);
    now->tv_sec += seconds_passed;
    return result;
}

struct answer {
    int count;
    struct resolver_result result;
};

static void on_answer(void *owner, const struct resolver_result *result)
{
    struct answer *answer = owner;
    answer->count++;
    answer->result = *result;
}

static int setup(void **state)
{
    (void)state;
    test_loop = loop_new();
    resolver = resolver_new();
    fake_hold_slow_names();
    fake_asked = 0;
    return 0;
}

/* A test may end while a fake name server is being asked: nothing is shared with the next. */
static int teardown(void **state)
{
    (void)state;
    resolver_free(resolver);
    loop_free(test_loop);
    fake_let_slow_names_go();
    while (fake_at_once > 0) {
        usleep(100);
    }
    return 0;
}

static struct resolver_query *start(const char *host, struct answer *answer)
{
    *answer = (struct answer){0};
    return resolver_start(resolver, test_loop, host, 443, on_answer, answer);
}

static void expect_address(const struct resolver_result *result, size_t i, const char *text)
{
    char out[ADDRESS_TEXT_SIZE];
    assert_true(i < result->count);
    address_format(&result->addresses[i], out);
    assert_string_equal(out, text);
}

static void a_name_is_answered_later_and_once(void **state)
{
    (void)state;
    struct answer answer;
    start("one.example", &answer);
    assert_int_equal(answer.count, 0);
    wait_until(test_loop, answer.count > 0);
    turns(test_loop);
    assert_int_equal(answer.count, 1);
    assert_int_equal(answer.result.count, 1);
    expect_address(&answer.result, 0, "10.0.0.1:443");
}

static void an_answer_is_kept_for_every_port_and_any_case(void **state)
{
    (void)state;
    struct answer answer;
    struct resolver_result result;
    assert_false(resolver_cached(resolver, "one.example", 80, &result));
    start("one.example", &answer);
    wait_until(test_loop, answer.count == 1);
    assert_true(resolver_cached(resolver, "ONE.example", 80, &result));
    expect_address(&result, 0, "10.0.0.1:80");
    start("One.Example", &answer);
    assert_int_equal(answer.count, 0);
    wait_until(test_loop, answer.count == 1);
    expect_address(&answer.result, 0, "10.0.0.1:443");
    assert_int_equal(fake_asked, 1);
}

static void literals_are_answered_without_asking(void **state)
{
    (void)state;
    struct answer answer;
    struct resolver_result result;
    assert_true(resolver_cached(resolver, "192.0.2.1", 80, &result));
    expect_address(&result, 0, "192.0.2.1:80");
    start("::1", &answer);
    assert_int_equal(answer.count, 0);
    wait_until(test_loop, answer.count == 1);
    expect_address(&answer.result, 0, "[::1]:443");
    assert_int_equal(fake_asked, 0);
}

static void a_failure_tells_the_name_and_the_reason_and_is_kept_shortly(void **state)
{
    (void)state;
    struct answer answer;
    struct resolver_result result;
    start("nowhere.example", &answer);
    wait_until(test_loop, answer.count == 1);
    assert_int_equal(answer.result.count, 0);
    assert_string_equal(answer.result.error.message,
                        "cannot resolve nowhere.example: name or service not known");
    assert_true(resolver_cached(resolver, "nowhere.example", 80, &result));
    assert_int_equal(result.count, 0);
    assert_string_equal(result.error.message, answer.result.error.message);
    wait_until(test_loop, !resolver_cached(resolver, "nowhere.example", 80, &result));
}

static void an_answer_is_asked_for_again_after_thirty_seconds(void **state)
{
    (void)state;
    struct answer answer;
    start("one.example", &answer);
    wait_until(test_loop, answer.count == 1);
    seconds_passed += 29;
    start("one.example", &answer);
    wait_until(test_loop, answer.count == 1);
    assert_int_equal(fake_asked, 1);
    seconds_passed += 2;
    struct resolver_result result;
    assert_false(resolver_cached(resolver, "one.example", 443, &result));
    start("one.example", &answer);
    wait_until(test_loop, answer.count == 1);
    assert_int_equal(fake_asked, 2);
    expect_address(&answer.result, 0, "10.0.0.1:443");
}

static void families_take_turns(void **state)
{
    (void)state;
    struct answer answer;
    start("two.example", &answer);
    wait_until(test_loop, answer.count == 1);
    assert_int_equal(answer.result.count, 5);
    static const char *const expected[] = {"[::1]:443", "10.0.0.1:443", "[::2]:443", "10.0.0.2:443",
                                           "[::3]:443"};
    for (size_t i = 0; i < 5; i++) {
        expect_address(&answer.result, i, expected[i]);
    }
}

static void eight_addresses_are_kept_of_both_families(void **state)
{
    (void)state;
    struct answer answer;
    start("many.example", &answer);
    wait_until(test_loop, answer.count == 1);
    assert_int_equal(answer.result.count, RESOLVER_MAX_ADDRESSES);
    expect_address(&answer.result, 1, "10.0.0.1:443");
    expect_address(&answer.result, 7, "[::7]:443");
}

static void a_name_is_asked_once_for_all_who_wait(void **state)
{
    (void)state;
    struct answer answers[5];
    for (int i = 0; i < 5; i++) {
        start("slow.example", &answers[i]);
    }
    turns(test_loop);
    assert_int_equal(answers[0].count, 0);
    fake_let_slow_names_go();
    wait_until(test_loop,
               answers[0].count + answers[1].count + answers[2].count + answers[3].count + answers[4].count ==
                   5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(answers[i].count, 1);
        expect_address(&answers[i].result, 0, "10.0.0.9:443");
    }
    assert_int_equal(fake_asked, 1);
}

static void a_slow_name_holds_up_no_other(void **state)
{
    (void)state;
    struct answer slow, slower, other;
    start("slow.example", &slow);
    start("slower.example", &slower);
    start("one.example", &other);
    wait_until(test_loop, other.count == 1);
    assert_int_equal(slow.count + slower.count, 0);
    fake_let_slow_names_go();
    wait_until(test_loop, slow.count == 1 && slower.count == 1);
}

static void at_most_sixteen_names_are_asked_at_a_time(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    struct answer answers[COUNT];
    char name[32];
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "slow%d.example", i);
        start(name, &answers[i]);
    }
    wait_until(test_loop, fake_at_once == 16);
    turns(test_loop);
    assert_int_equal(fake_asked, 16);
    fake_let_slow_names_go();
    int total = 0;
    wait_until_with(test_loop, total == COUNT, {
        total = 0;
        for (int i = 0; i < COUNT; i++) {
            total += answers[i].count;
        }
    });
    assert_int_equal(fake_asked, COUNT);
}

static void the_number_of_names_is_bounded(void **state)
{
    (void)state;
    struct answer answers[257];
    struct resolver_query *queries[257];
    char name[32];
    for (int i = 0; i < 257; i++) {
        snprintf(name, sizeof name, "slow%d.example", i);
        queries[i] = start(name, &answers[i]);
    }
    wait_until(test_loop, answers[256].count == 1);
    assert_int_equal(answers[256].result.count, 0);
    assert_string_equal(answers[256].result.error.message,
                        "cannot resolve slow256.example: too many names are being resolved");
    fake_let_slow_names_go();
    wait_until(test_loop, answers[255].count == 1);
    /* Answers make room. */
    start("one.example", &answers[256]);
    wait_until(test_loop, answers[256].count == 1);
    assert_int_equal(answers[256].result.count, 1);
    for (int i = 0; i < 256; i++) {
        if (answers[i].count == 0) {
            resolver_cancel(queries[i]);
        }
    }
}

static void names_that_are_none_fail(void **state)
{
    (void)state;
    struct answer answer;
    char name[400];
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    start(name, &answer);
    wait_until(test_loop, answer.count == 1);
    assert_non_null(strstr(answer.result.error.message, "not a host name"));
    start("", &answer);
    wait_until(test_loop, answer.count == 1);
    assert_int_equal(answer.result.count, 0);
}

static void a_cancelled_query_is_silent_at_every_moment(void **state)
{
    (void)state;
    struct answer waiting, other, known;
    struct resolver_query *query = start("slow.example", &waiting);
    start("slow.example", &other);
    resolver_cancel(query);
    fake_let_slow_names_go();
    wait_until(test_loop, other.count == 1);
    assert_int_equal(waiting.count, 0);

    resolver_cancel(start("slow.example", &known)); /* from the cache, the result is on its way */
    turns(test_loop);
    assert_int_equal(known.count, 0);

    query = start("one.example", &known);
    usleep(20000); /* answered by the thread, not yet by the loop (or not answered: both are fine) */
    resolver_cancel(query);
    turns(test_loop);
    assert_int_equal(known.count, 0);
}

static void a_loop_may_go_after_its_queries_are_cancelled(void **state)
{
    (void)state;
    struct loop *other_loop = loop_new();
    struct answer answer = {0};
    struct resolver_query *query =
        resolver_start(resolver, other_loop, "slow.example", 1, on_answer, &answer);
    resolver_cancel(query);
    loop_free(other_loop);
    fake_let_slow_names_go();
    struct answer later;
    start("slow.example", &later);
    wait_until(test_loop, later.count == 1);
    assert_int_equal(answer.count, 0);
}

static void freeing_does_not_wait_for_a_name_server(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    struct answer answers[COUNT];
    char name[32];
    struct resolver_query *queries[COUNT];
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "slow%d.example", i);
        queries[i] = start(name, &answers[i]);
    }
    wait_until(test_loop, fake_at_once == 16);
    for (int i = 0; i < COUNT; i++) {
        resolver_cancel(queries[i]);
    }
    resolver_free(resolver);
    resolver = NULL; /* teardown lets the threads go */
    assert_int_equal(fake_at_once, 16);
}

enum { ROUNDS = 200 };

static void *resolve_on_a_loop_of_its_own(void *argument)
{
    (void)argument;
    struct loop *loop = loop_new();
    for (int i = 0; i < ROUNDS; i++) {
        struct answer answer = {0};
        char name[32];
        snprintf(name, sizeof name, i % 3 == 0 ? "one.example" : "n%d.example", i);
        struct resolver_query *query = resolver_start(resolver, loop, name, 1, on_answer, &answer);
        if (i % 2 == 0) {
            resolver_cancel(query);
            continue;
        }
        while (answer.count == 0) {
            turn(loop);
        }
    }
    loop_free(loop);
    return NULL;
}

static void loops_of_several_threads_share_it(void **state)
{
    (void)state;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, resolve_on_a_loop_of_its_own, NULL), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
}

#define resolver_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        resolver_test(a_name_is_answered_later_and_once),
        resolver_test(an_answer_is_kept_for_every_port_and_any_case),
        resolver_test(literals_are_answered_without_asking),
        resolver_test(a_failure_tells_the_name_and_the_reason_and_is_kept_shortly),
        resolver_test(an_answer_is_asked_for_again_after_thirty_seconds),
        resolver_test(families_take_turns),
        resolver_test(eight_addresses_are_kept_of_both_families),
        resolver_test(a_name_is_asked_once_for_all_who_wait),
        resolver_test(a_slow_name_holds_up_no_other),
        resolver_test(at_most_sixteen_names_are_asked_at_a_time),
        resolver_test(the_number_of_names_is_bounded),
        resolver_test(names_that_are_none_fail),
        resolver_test(a_cancelled_query_is_silent_at_every_moment),
        resolver_test(a_loop_may_go_after_its_queries_are_cancelled),
        resolver_test(freeing_does_not_wait_for_a_name_server),
        resolver_test(loops_of_several_threads_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
