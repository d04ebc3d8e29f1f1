/*
 * host: what the pipeline's loop in Lua (llmproxy.pipeline) asks of C: the next event, waiting, encoding, counting. No plugin sees it.
 *
 *     host.take()                the next event as an entry, or nil when there is none now
 *     host.wait(seconds, events) waits until there may be one, or (if given) that many or half a queue of them, host.wake() was called, draining began, or (if given) the time is over. One task at a time
 *     host.wake()                ends a wait, or the next one
 *     host.draining()            whether no more events come
 *     host.retiring()            whether a successor is waiting: nothing is to be begun, what is not delivered is left to it
 *     host.drained()             nothing is left: tells whoever asked for it
 *     host.closed()              the dispatcher is closed
 *     host.spawn(work, value)    runs work(value, false) as a task; each time it raises (runaway code raises past every pcall) anew as work(value, true)
 *     host.note(error)           remembers an error where it is raised: a handler for xpcall. For runaway code the error that ends the task is another one, raised behind the xpcall
 *     host.forget(…)             the task goes on: the noted error is handled. Returns what it is given, "not enough memory" with the limit
 *     host.failure()             the noted error of the task that was ended last, else the error that ended it
 *     host.encode(value)         a line (JSON in a userdata) and its size, or nil and a message
 *     host.json(lines)           a JSON array of these lines
 *     host.json_lines(lines)     each line, then "\n"
 *     host.observe(seconds)      counts a delivery's time
 *
 *     entry:id()                 the event's
 *     entry:event()              a new table
 *     entry:encode(table)        as host.encode, of a table that entry:event() made; without one straight from the record
 *     entry:release()            the record is not needed any more
 *     entry:leave(line, reason)  leaves a part of it to the successor, as a line; reason: why another part was dropped, if so. For this pipeline the entry is settled
 *     entry:legacy()             what a predecessor left of it: a list of lines, as strings, and the reason. nil: it comes from the bus
 *     entry:settle(result, reason)  through with it: "delivered", "filtered" or "dropped" (with a reason)
 */
#ifndef PIPELINE_HOST_H
#define PIPELINE_HOST_H

#include "base/id.h"
#include "base/log.h"
#include "base/metrics.h"
#include "bus/bus.h"
#include "pipeline/event_table.h"
#include "script/script.h"

struct host {
    const char *pipeline_name;
    size_t max_decoded_bytes;
    struct metrics *metrics;
    struct metric *delivered, *filtered, *dropped, *seconds;
    struct loop *loop;
    struct script *script;
    struct subscriber *subscriber;
    _Atomic size_t in_hand; /* taken and not settled; read by whoever writes the metrics */
    bool draining, retiring, stopping;
    void (*on_drained)(struct host *host);
    void (*on_closed)(struct host *host);

    /* Private from here on. */
    struct script_wait *waiting;
    struct loop_timer timer;
    bool woken;
    struct legacy *legacy;           /* of the predecessor, not yet taken; in hand */
    struct legacy *left, **left_end; /* for the successor; in hand */
    struct error noted, failure;
    bool untold; /* nobody asked for the failure yet */
    struct log_limit failure_log;
    uint64_t next_memory_log_ns;
    struct event_view view;
    struct event_scratch scratch;
    struct buffer out;
};

/* The fields above "private" are set. */
void host_setup(struct host *host);
/* After the script was freed and its thread has ended. */
void host_release(struct host *host);
/* Pushes the table of functions; raises only when Lua's memory runs out. argument of lua_cpcall: the host. */
int host_push(lua_State *lua);
/* Leaves what is left to the successor, to be taken before anything else. Neither thread runs Lua. */
void host_bequeath(struct host *host, struct host *successor);
/* Something may have changed for whoever waits. */
void host_wake(struct host *host);
/* One more event that did not arrive, whatever the reason. */
void host_count_drop(struct host *host, const char *reason, size_t count);

#endif
