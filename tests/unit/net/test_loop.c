/*
 * loop: calls from any thread arrive once and in order, timers fire once and never early, and everything may be undone from inside a callback.
 */
#include "net_test.h"

#include <pthread.h>

static struct loop *shared_loop;
static int numbers[64];
static int number_count;
static int values[64];

static void add_number(void *argument)
{
    numbers[number_count++] = *(int *)argument;
}

static int setup(void **state)
{
    (void)state;
    shared_loop = loop_new();
    number_count = 0;
    for (int i = 0; i < 64; i++) {
        values[i] = i;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(shared_loop);
    return 0;
}

static void calls_run_in_the_order_of_posting(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        loop_post(shared_loop, add_number, &values[i]);
    }
    assert_int_equal(number_count, 0);
    wait_until(shared_loop, number_count == 10);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(numbers[i], i);
    }
}

static void post_again(void *argument)
{
    add_number(argument);
    loop_post(shared_loop, post_again, argument);
}

static void a_call_that_posts_again_does_not_keep_the_loop_from_its_sockets(void **state)
{
    (void)state;
    loop_post(shared_loop, post_again, &values[0]);
    for (int i = 0; i < 5; i++) {
        turn(shared_loop);
    }
    assert_in_range(number_count, 1, 5);
}

static void stop_now(void *argument)
{
    add_number(argument);
    loop_stop(shared_loop);
}

static void calls_posted_before_the_stop_run_and_the_loop_can_run_again(void **state)
{
    (void)state;
    loop_post(shared_loop, stop_now, &values[1]);
    loop_post(shared_loop, add_number, &values[2]);
    loop_run(shared_loop);
    assert_int_equal(number_count, 2);
    loop_post(shared_loop, stop_now, &values[3]);
    loop_run(shared_loop);
    assert_int_equal(number_count, 3);
}

static void a_stop_before_the_run_ends_it(void **state)
{
    (void)state;
    loop_stop(shared_loop);
    loop_run(shared_loop);
}

static void calls_that_never_ran_are_dropped(void **state)
{
    (void)state;
    loop_post(shared_loop, add_number, &values[1]); /* the loop is freed: nothing leaks, nothing runs */
}

static void an_embedded_call_waits_once_and_can_be_taken_back(void **state)
{
    (void)state;
    struct loop_call first = {.function = add_number, .argument = &values[1]};
    struct loop_call second = {.function = add_number, .argument = &values[2]};
    loop_call_post(shared_loop, &first);
    loop_call_post(shared_loop, &first);
    loop_call_post(shared_loop, &second);
    loop_call_cancel(shared_loop, &second);
    loop_call_cancel(shared_loop, &second);
    turns(shared_loop);
    assert_int_equal(number_count, 1);
    loop_call_post(shared_loop, &second);
    turns(shared_loop);
    assert_int_equal(number_count, 2);
    assert_int_equal(numbers[1], 2);
}

static struct loop_call to_cancel = {.function = add_number, .argument = &values[9]};

static void cancel_the_next(void *argument)
{
    (void)argument;
    loop_call_cancel(shared_loop, &to_cancel);
}

static void a_call_can_be_taken_back_by_the_one_before_it(void **state)
{
    (void)state;
    loop_post(shared_loop, cancel_the_next, NULL);
    loop_call_post(shared_loop, &to_cancel);
    turns(shared_loop);
    assert_int_equal(number_count, 0);
}

enum { POSTS_PER_THREAD = 5000 };
static int posts_run;

static void count_post(void *argument)
{
    (void)argument;
    if (++posts_run == 2 * POSTS_PER_THREAD) {
        loop_stop(shared_loop);
    }
}

static void *post_many(void *argument)
{
    for (int i = 0; i < POSTS_PER_THREAD; i++) {
        loop_post(shared_loop, count_post, argument);
    }
    return NULL;
}

static void no_call_of_several_threads_is_lost(void **state)
{
    (void)state;
    pthread_t threads[2];
    posts_run = 0;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, post_many, NULL), 0);
    }
    loop_run(shared_loop);
    assert_int_equal(posts_run, 2 * POSTS_PER_THREAD);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* ------------------------------------------------------------------------------------------------ timers */

static int fired;
static struct loop_timer timer;

static void on_timer(void *argument)
{
    (void)argument;
    fired++;
}

static void a_timer_fires_once_and_not_before_its_time(void **state)
{
    (void)state;
    fired = 0;
    loop_timer_init(&timer, shared_loop, on_timer, NULL);
    uint64_t begin = clock_monotonic_ns();
    loop_timer_set(&timer, 20 * NANOSECONDS_PER_MILLISECOND);
    wait_until(shared_loop, fired > 0);
    assert_true(clock_monotonic_ns() - begin >= 20 * NANOSECONDS_PER_MILLISECOND);
    turns(shared_loop);
    assert_int_equal(fired, 1);
    loop_timer_release(&timer);
}

static void zero_fires_in_the_next_turn(void **state)
{
    (void)state;
    fired = 0;
    loop_timer_init(&timer, shared_loop, on_timer, NULL);
    loop_timer_set(&timer, 0);
    assert_int_equal(fired, 0);
    turn(shared_loop);
    assert_int_equal(fired, 1);
    loop_timer_release(&timer);
}

static void a_timer_moved_later_sleeps_on_and_moved_earlier_fires_earlier(void **state)
{
    (void)state;
    fired = 0;
    loop_timer_init(&timer, shared_loop, on_timer, NULL);
    loop_timer_set(&timer, NANOSECONDS_PER_MILLISECOND);
    loop_timer_set(&timer, 3600 * NANOSECONDS_PER_SECOND);
    usleep(10000);
    turns(shared_loop);
    assert_int_equal(fired, 0);
    loop_timer_set(&timer, NANOSECONDS_PER_MILLISECOND);
    wait_until(shared_loop, fired == 1);
    loop_timer_release(&timer);
}

static void a_timer_for_never_does_not_fire(void **state)
{
    (void)state;
    fired = 0;
    loop_timer_init(&timer, shared_loop, on_timer, NULL);
    loop_timer_set(&timer, UINT64_MAX);
    turns(shared_loop);
    assert_int_equal(fired, 0);
    loop_timer_release(&timer);
}

static void a_cleared_timer_does_not_fire_and_can_be_set_again(void **state)
{
    (void)state;
    fired = 0;
    loop_timer_init(&timer, shared_loop, on_timer, NULL);
    loop_timer_set(&timer, NANOSECONDS_PER_MILLISECOND);
    loop_timer_clear(&timer);
    usleep(10000);
    turns(shared_loop);
    assert_int_equal(fired, 0);
    loop_timer_set(&timer, 0);
    wait_until(shared_loop, fired == 1);
    loop_timer_release(&timer);
}

static void set_in_callback(void *argument)
{
    struct loop_timer *own = argument;
    if (++fired < 3) {
        loop_timer_set(own, 0);
    }
    if (fired == 3) {
        loop_timer_set(own, 0);
        loop_timer_clear(own);
    }
}

static void a_timer_may_be_set_and_cleared_in_its_callback(void **state)
{
    (void)state;
    fired = 0;
    loop_timer_init(&timer, shared_loop, set_in_callback, &timer);
    loop_timer_set(&timer, 0);
    wait_until(shared_loop, fired == 3);
    turns(shared_loop);
    assert_int_equal(fired, 3);
    loop_timer_release(&timer);
}

static void free_in_callback(void *argument)
{
    fired++;
    loop_timer_release(argument);
    free(argument);
}

static void a_timer_may_be_freed_in_its_callback(void **state)
{
    (void)state;
    fired = 0;
    struct loop_timer *own = xcalloc(1, sizeof *own);
    loop_timer_init(own, shared_loop, free_in_callback, own);
    loop_timer_set(own, 0);
    wait_until(shared_loop, fired == 1);
    turns(shared_loop);
}

static void release_takes_a_pending_timer_out_and_does_nothing_twice(void **state)
{
    (void)state;
    fired = 0;
    loop_timer_init(&timer, shared_loop, on_timer, NULL);
    loop_timer_set(&timer, 0);
    loop_timer_release(&timer);
    loop_timer_release(&timer);
    turns(shared_loop);
    assert_int_equal(fired, 0);
}

#define loop_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(calls_run_in_the_order_of_posting),
        loop_test(a_call_that_posts_again_does_not_keep_the_loop_from_its_sockets),
        loop_test(calls_posted_before_the_stop_run_and_the_loop_can_run_again),
        loop_test(a_stop_before_the_run_ends_it),
        loop_test(calls_that_never_ran_are_dropped),
        loop_test(an_embedded_call_waits_once_and_can_be_taken_back),
        loop_test(a_call_can_be_taken_back_by_the_one_before_it),
        loop_test(no_call_of_several_threads_is_lost),
        loop_test(a_timer_fires_once_and_not_before_its_time),
        loop_test(zero_fires_in_the_next_turn),
        loop_test(a_timer_moved_later_sleeps_on_and_moved_earlier_fires_earlier),
        loop_test(a_timer_for_never_does_not_fire),
        loop_test(a_cleared_timer_does_not_fire_and_can_be_set_again),
        loop_test(a_timer_may_be_set_and_cleared_in_its_callback),
        loop_test(a_timer_may_be_freed_in_its_callback),
        loop_test(release_takes_a_pending_timer_out_and_does_nothing_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
