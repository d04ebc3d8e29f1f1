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
 *     host.lines(lines)          a list of them, as strings
 *     host.observe(seconds, events, bytes)  counts a try to deliver a batch
 *     host.state(number)         0: delivers, 1: tries again, 2: paused
 *     host.fetches               the pipeline fetches its events itself, by a bus plugin: there are the functions of source.h too
 *     host.keeps_events          what is not settled comes again after a restart: nothing is lost by leaving it
 *     host.no_delivery           the dispatcher is not to be given anything
 *     host.has_dead_letters      what fails is kept there
 *     host.tells_failures        whoever runs the pipeline tells what fails, and what becomes of it
 *
 *     entry:id()                 the event's
 *     entry:event()              a new table
 *     entry:encode(table)        as host.encode, of a table that entry:event() made; without one straight from the record
 *     entry:release()            the record is not needed any more
 *     entry:leave(line, …)       leaves a part of it to the successor, as a line; …: as for fail, if another part of it failed. For this pipeline the entry is settled
 *     entry:legacy()             what a predecessor left of it: a list of lines, as strings, and why another part failed, if so. nil: it comes from the bus
 *     entry:settle(result)       through with it: "delivered" or "filtered"
 *     entry:fail(reason, error, where, tries, first, last)  through with it: it cannot be delivered. error may be nil; where: a transform's or dispatcher's name, or nil; first, last: seconds since 1970
 */
#ifndef PIPELINE_HOST_H
#define PIPELINE_HOST_H

#include <sys/queue.h>

#include "base/id.h"
#include "base/log.h"
#include "pipeline/counters.h"
#include "pipeline/event_table.h"
#include "pipeline/gate.h"
#include "pipeline/source.h"
#include "script/script.h"

struct entry;
struct legacy;
struct unsynced;
struct dead_letters;

/* What is known of an event as long as it is in hand. */
struct ticket {
    uint64_t sequence; /* the bus's */
    uint64_t time_us;  /* the event's */
    char id[UUID_TEXT_SIZE];
};

struct host {
    const char *pipeline_name;
    size_t max_decoded_bytes;
    struct counters counters;
    struct dead_letters *dead_letters; /* NULL: none */
    bool keeps_events, no_delivery;
    bool fetches; /* the bus is an inbox, which the pipeline fills */
    void (*settled)(void *argument, struct slice event_id, uint64_t sequence, const char *result,
                    const char *reason, const char *error); /* NULL: nobody asks */
    void *settled_argument;
    struct loop *loop;
    struct script *script;
    struct subscriber *subscriber;
    /* Read by whoever writes the metrics. */
    _Atomic size_t in_hand;     /* taken and not settled */
    _Atomic uint64_t oldest_us; /* time of the one that was taken first; 0: there is none */
    _Atomic int state;          /* 0: delivers, 1: tries again, 2: paused */
    _Atomic bool worn;          /* what is kept in the state leaves no memory to work with */
    bool draining, retiring, stopping;
    void (*on_drained)(struct host *host);
    void (*on_closed)(struct host *host);

    /* Private from here on. */
    struct gate events;
    struct source source;
    TAILQ_HEAD(, entry) entries;     /* taken and not settled, the first one taken first */
    struct unsynced *unsynced;       /* dead letters that are not durable yet; in hand */
    struct loop_timer letters_timer; /* to make them durable, else to tidy up */
    struct log_limit letters_log;
    bool drained;                    /* and not told yet */
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
/* On the pipeline's thread, which begins to take events. */
void host_begin(struct host *host);
/* After the script was freed and its thread has ended. */
void host_release(struct host *host);
/* Pushes the table of functions; raises only when Lua's memory runs out. argument of lua_cpcall: the host. */
int host_push(lua_State *lua);
/* Leaves what is left to the successor, to be taken before anything else. Neither thread runs Lua. */
void host_bequeath(struct host *host, struct host *successor);
/* Something may have changed for whoever waits. */
void host_wake(struct host *host);

/* For entry.c. The buffer for what Lua is given next; */
struct buffer *host_empty_out(struct host *host);
/* it, as a line in a userdata, and its size; */
int host_push_line(lua_State *lua, struct buffer *out);
/* nil and the message. */
int host_push_failure(lua_State *lua, const struct error *error);

#endif
