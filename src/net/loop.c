/*
 * loop: the event base, the mailbox and the lazy timers.
 *
 * The base has no locks, so nothing of it is ever touched from outside. Other threads append to a list under a mutex and write an eventfd,
 * once until the loop has looked; what they append is run from the eventfd's event.
 */
#include "net/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

#define LONGEST_DELAY_NS (UINT64_C(36500) * 86400 * NANOSECONDS_PER_SECOND)

struct loop {
    struct event_base *base;
    struct event wake_event;
    int wake_fd;
    atomic_bool stopping;
    atomic_uint posters; /* threads inside wake(), which may use wake_fd after the mutex was given back */
    pthread_mutex_t mutex;
    /* Guarded by the mutex. Rings with a head that is no call itself, so that a call is taken out without knowing where it is. */
    bool woken;
    struct loop_call inbox; /* posted since the loop looked last */
    struct loop_call batch; /* being run */
};

/* What loop_post() allocates. */
struct posted {
    struct loop_call call;
    void (*function)(void *argument);
    void *argument;
};

static void ring_clear(struct loop_call *ring)
{
    ring->next = ring->previous = ring;
}

static void ring_append(struct loop_call *ring, struct loop_call *call)
{
    call->next = ring;
    call->previous = ring->previous;
    ring->previous->next = call;
    ring->previous = call;
}

static void ring_remove(struct loop_call *call)
{
    call->next->previous = call->previous;
    call->previous->next = call->next;
    call->next = call->previous = NULL;
}

/* The first call of the ring, taken out; NULL when it is empty. */
static struct loop_call *ring_take(struct loop_call *ring)
{
    struct loop_call *call = ring->next;
    if (call == ring) {
        return NULL;
    }
    ring_remove(call);
    return call;
}

/* Runs what was in the mailbox when it began: a call that posts again waits for the next turn and starves nobody. */
static void on_wake(evutil_socket_t fd, short what, void *argument)
{
    (void)what;
    struct loop *loop = argument;
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof count);
    (void)got;

    pthread_mutex_lock(&loop->mutex);
    loop->woken = false;
    struct loop_call *call;
    while ((call = ring_take(&loop->inbox)) != NULL) {
        ring_append(&loop->batch, call);
    }
    while ((call = ring_take(&loop->batch)) != NULL) {
        void (*function)(void *) = call->function;
        void *function_argument = call->argument;
        pthread_mutex_unlock(&loop->mutex);
        function(function_argument);
        pthread_mutex_lock(&loop->mutex);
    }
    pthread_mutex_unlock(&loop->mutex);

    if (atomic_exchange(&loop->stopping, false)) {
        event_base_loopbreak(loop->base);
    }
}

struct loop *loop_new(void)
{
    struct loop *loop = xcalloc(1, sizeof *loop);
    struct event_config *config = event_config_new();
    if (config != NULL) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
        loop->base = event_base_new_with_config(config);
        event_config_free(config);
    }
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->base == NULL || loop->wake_fd < 0) {
        log_error("cannot make an event loop", log_string("reason", strerror(errno)));
        abort();
    }
    atomic_init(&loop->stopping, false);
    atomic_init(&loop->posters, 0);
    pthread_mutex_init(&loop->mutex, NULL);
    ring_clear(&loop->inbox);
    ring_clear(&loop->batch);
    event_assign(&loop->wake_event, loop->base, loop->wake_fd, EV_READ | EV_PERSIST, on_wake, loop);
    event_add(&loop->wake_event, NULL);
    return loop;
}

static void run_posted(void *argument)
{
    struct posted posted = *(struct posted *)argument;
    free(argument);
    posted.function(posted.argument);
}

static void drop_all(struct loop_call *ring)
{
    struct loop_call *call;
    while ((call = ring_take(ring)) != NULL) {
        if (call->function == run_posted) {
            free(call->argument);
        }
    }
}

void loop_free(struct loop *loop)
{
    if (loop == NULL) {
        return;
    }
    while (atomic_load(&loop->posters) != 0) {
        sched_yield();
    }
    drop_all(&loop->inbox);
    drop_all(&loop->batch);
    event_del(&loop->wake_event);
    event_base_free(loop->base);
    close(loop->wake_fd);
    pthread_mutex_destroy(&loop->mutex);
    free(loop);
}

struct event_base *loop_base(struct loop *loop)
{
    return loop->base;
}

void loop_run(struct loop *loop)
{
    event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
}

/* Appends the call, if there is one and it is not waiting already, and makes the loop look. The write is outside of the mutex, and the loop may run the call
 * (and end) before it happens: posters keeps loop_free() waiting for it. */
static void wake(struct loop *loop, struct loop_call *call)
{
    atomic_fetch_add(&loop->posters, 1);
    pthread_mutex_lock(&loop->mutex);
    if (call != NULL && call->next == NULL) {
        ring_append(&loop->inbox, call);
    }
    bool write_needed = !loop->woken;
    loop->woken = true;
    pthread_mutex_unlock(&loop->mutex);
    if (write_needed) {
        ssize_t written = write(loop->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
        (void)written;
    }
    atomic_fetch_sub(&loop->posters, 1);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    wake(loop, NULL);
}

void loop_call_post(struct loop *loop, struct loop_call *call)
{
    wake(loop, call);
}

void loop_call_cancel(struct loop *loop, struct loop_call *call)
{
    pthread_mutex_lock(&loop->mutex);
    if (call->next != NULL) {
        ring_remove(call);
    }
    pthread_mutex_unlock(&loop->mutex);
}

void loop_post(struct loop *loop, void (*function)(void *argument), void *argument)
{
    struct posted *posted = xmalloc(sizeof *posted);
    *posted = (struct posted){.function = function, .argument = argument};
    posted->call = (struct loop_call){.function = run_posted, .argument = posted};
    wake(loop, &posted->call);
}

static void arm(struct loop_timer *timer, uint64_t delay_ns)
{
    uint64_t delay_us = (delay_ns + 999) / 1000;
    struct timeval delay = {(time_t)(delay_us / 1000000), (suseconds_t)(delay_us % 1000000)};
    timer->fires_ns = timer->deadline_ns;
    event_add(&timer->event, &delay);
}

/* libevent's clock is coarse, ours is not: an event may come a few milliseconds before its time and goes back to sleep like one whose time was moved. */
static void on_timer(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct loop_timer *timer = argument;
    timer->fires_ns = 0;
    if (timer->deadline_ns == 0) {
        return;
    }
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns < timer->deadline_ns) {
        arm(timer, timer->deadline_ns - now_ns);
        return;
    }
    timer->deadline_ns = 0;
    timer->callback(timer->argument);
}

void loop_timer_init(struct loop_timer *timer, struct loop *loop, void (*callback)(void *argument),
                     void *argument)
{
    *timer = (struct loop_timer){.callback = callback, .argument = argument};
    event_assign(&timer->event, loop->base, -1, 0, on_timer, timer);
}

void loop_timer_set(struct loop_timer *timer, uint64_t delay_ns)
{
    if (delay_ns > LONGEST_DELAY_NS) {
        delay_ns = LONGEST_DELAY_NS; /* so that "never" may be any large number */
    }
    timer->deadline_ns = clock_monotonic_ns() + delay_ns;
    if (timer->fires_ns == 0 || timer->deadline_ns < timer->fires_ns) {
        arm(timer, delay_ns);
    }
}

void loop_timer_clear(struct loop_timer *timer)
{
    timer->deadline_ns = 0;
}

void loop_timer_release(struct loop_timer *timer)
{
    timer->deadline_ns = 0;
    if (timer->fires_ns != 0) {
        timer->fires_ns = 0;
        event_del(&timer->event);
    }
}
