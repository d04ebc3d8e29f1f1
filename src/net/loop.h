/*
 * loop: a thread's event loop (a libevent base without locks), and the one way into it from other threads: a mailbox of calls.
 *
 * Everything on a loop is used from its own thread only, but loop_post() and loop_stop(), which any thread may call.
 */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>

struct loop;

struct loop *loop_new(void);
/* Free only when its thread has ended. Calls that were posted and never ran are dropped. */
void loop_free(struct loop *loop);
struct event_base *loop_base(struct loop *loop);
/* Runs until loop_stop(). */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* Runs function(argument) on the loop's thread, soon and in order of posting. The wake-up is one eventfd write for a burst. Any thread. */
void loop_post(struct loop *loop, void (*function)(void *argument), void *argument);

/* The same without an allocation, embedded in its owner, and it can be taken back. All zero but for function and argument to begin with. */
struct loop_call {
    void (*function)(void *argument);
    void *argument;
    struct loop_call *next, *previous; /* the loop's */
};

/* Any thread. Does nothing while the call is still waiting to be run. When it runs, the loop has let go of it. */
void loop_call_post(struct loop *loop, struct loop_call *call);
/* Will not run. The loop's thread only. */
void loop_call_cancel(struct loop *loop, struct loop_call *call);

/*
 * A lazy timer: setting it again and again (each read of a busy connection) costs a store, not a heap operation: it fires when its time is over, sees that its time
 * was moved, and goes back to sleep. Embedded in its owner.
 */
struct loop_timer {
    struct event event;
    uint64_t deadline_ns; /* 0: not set */
    uint64_t fires_ns;    /* when the event is pending for; 0: not pending */
    void (*callback)(void *argument);
    void *argument;
};

void loop_timer_init(struct loop_timer *timer, struct loop *loop, void (*callback)(void *argument),
                     void *argument);
/* Calls back once, delay_ns from now; replaces what was set before. 0 fires in the next turn of the loop. */
void loop_timer_set(struct loop_timer *timer, uint64_t delay_ns);
/* Will not call back; may leave the event pending (cheap to set again). */
void loop_timer_clear(struct loop_timer *timer);
/* Before the owner is freed. */
void loop_timer_release(struct loop_timer *timer);

#endif
