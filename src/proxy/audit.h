/*
 * audit: what a bus has to say about an event, brought back to the worker that waits for it. Private to proxy/.
 *
 * Under audit the end of a response is held back until the bus has said what became of its event. It says so once, on a thread of its own, and takes its time: the exchange, its client and even the worker may
 * be gone by then. So what the bus is given is a hold, which lives until it was answered, whoever still wants to know.
 */
#ifndef PROXY_AUDIT_H
#define PROXY_AUDIT_H

#include "net/loop.h"

struct audit;      /* one for each worker */
struct audit_hold; /* one for each event */

struct audit *audit_new(struct loop *loop);
/* Nobody is told anything any more. After the loop's end, before it is freed. */
void audit_close(struct audit *audit);

/* On the loop's thread, never within audit_done. The hold is gone. */
typedef void (*audit_answer)(void *owner, bool stored);

/* The event is to be published with audit_done and this hold as its argument. */
struct audit_hold *audit_hold_new(struct audit *audit, audit_answer answer, void *owner);
/* A bus_done. Any thread; never waits for the worker. */
void audit_done(void *hold, bool stored);
/* The owner goes before the answer has come. The loop's thread. */
void audit_hold_forget(struct audit_hold *hold);

#endif
