/*
 * audit: answered holds wait in a list for the loop to take all of them at once, so that a commit of many events wakes it once. The list is guarded by a mutex that is never held across a system call; a thread that is
 * about to wake the loop is counted among the posters instead, and who closes waits for these.
 */
#include "proxy/audit.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/reference.h"

struct audit {
    struct reference references; /* the worker's, and one of each hold */
    struct loop *loop;
    struct loop_call call;
    atomic_uint posters;
    pthread_mutex_t mutex;
    /* Guarded by the mutex. */
    struct audit_hold *first, **end; /* answered */
    bool closed;
};

struct audit_hold {
    struct audit_hold *next;
    struct audit *audit;
    audit_answer answer;
    void *owner; /* the loop thread's; NULL: nobody wants to know */
    bool stored;
};

static void release(struct audit *audit)
{
    if (reference_release(&audit->references)) {
        pthread_mutex_destroy(&audit->mutex);
        free(audit);
    }
}

static void free_hold(struct audit_hold *hold)
{
    struct audit *audit = hold->audit;
    free(hold);
    release(audit);
}

static struct audit_hold *take_answered(struct audit *audit)
{
    pthread_mutex_lock(&audit->mutex);
    struct audit_hold *first = audit->first;
    audit->first = NULL;
    audit->end = &audit->first;
    pthread_mutex_unlock(&audit->mutex);
    return first;
}

static void on_answered(void *argument)
{
    struct audit_hold *hold = take_answered(argument), *next;
    for (; hold != NULL; hold = next) {
        audit_answer answer = hold->answer;
        void *owner = hold->owner;
        bool stored = hold->stored;
        next = hold->next;
        free_hold(hold);
        if (owner != NULL) {
            answer(owner, stored);
        }
    }
}

struct audit *audit_new(struct loop *loop)
{
    struct audit *audit = xcalloc(1, sizeof *audit);
    reference_init(&audit->references);
    audit->loop = loop;
    audit->call = (struct loop_call){.function = on_answered, .argument = audit};
    atomic_init(&audit->posters, 0);
    pthread_mutex_init(&audit->mutex, NULL);
    audit->end = &audit->first;
    return audit;
}

void audit_close(struct audit *audit)
{
    pthread_mutex_lock(&audit->mutex);
    audit->closed = true;
    pthread_mutex_unlock(&audit->mutex);
    while (atomic_load(&audit->posters) > 0) {
        sched_yield();
    }
    loop_call_cancel(audit->loop, &audit->call);
    struct audit_hold *hold = take_answered(audit), *next;
    for (; hold != NULL; hold = next) {
        next = hold->next;
        free_hold(hold);
    }
    release(audit);
}

struct audit_hold *audit_hold_new(struct audit *audit, audit_answer answer, void *owner)
{
    struct audit_hold *hold = xcalloc(1, sizeof *hold);
    *hold = (struct audit_hold){.audit = audit, .answer = answer, .owner = owner};
    reference_take(&audit->references);
    return hold;
}

void audit_done(void *argument, bool stored)
{
    struct audit_hold *hold = argument;
    struct audit *audit = hold->audit;
    hold->stored = stored;
    pthread_mutex_lock(&audit->mutex);
    if (audit->closed) {
        pthread_mutex_unlock(&audit->mutex);
        free_hold(hold);
        return;
    }
    bool first = audit->first == NULL;
    *audit->end = hold;
    audit->end = &hold->next;
    atomic_fetch_add(&audit->posters, first);
    pthread_mutex_unlock(&audit->mutex);
    if (first) {
        loop_call_post(audit->loop, &audit->call);
        atomic_fetch_sub(&audit->posters, 1);
    }
}

void audit_hold_forget(struct audit_hold *hold)
{
    hold->owner = NULL;
}
