/*
 * The life of a pipeline: its thread, how it begins and ends, what it counts.
 *
 *     main thread                            pipeline's thread
 *     pipeline_new   ── starts ──▶           makes the state, loads the definition, constructs the loop
 *                    ◀── loaded ──
 *     pipeline_start: subscribes, posts ──▶  begins to take events
 *     pipeline_drain ── posts ──▶            goes on until nothing is left, closes the dispatcher, calls done
 *     pipeline_free  ── posts ──▶            closes the dispatcher unless that was done, ends
 *                    ◀── joined ──
 *                    unsubscribes: what was not delivered is lost, and counted
 *
 * With a successor there are two of one name for a while. One subscriber is theirs: the predecessor has taken from it, the successor will. So the queue is the successor's from the beginning, and what the
 * predecessor has in hand stays its own until it is freed.
 *
 * A pipeline that fetches its events itself has a subscriber of its own, an inbox, and what is in there can only be acknowledged by itself. So a predecessor of this kind gives back what it did not deliver, and its successor fetches
 * it again.
 */
#include "pipeline/pipeline.h"

#include <assert.h>
#include <lauxlib.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "bus/inbox_bus.h"
#include "pipeline/host.h"
#include "pipeline/settle.h"

#define DEFAULT_WATCHDOG_SECONDS 1.0

/* How long a dispatcher, and the plugin of the bus, may take to close when the pipeline is stopped. */
#define CLOSE_TIMEOUT_NS (500 * NANOSECONDS_PER_MILLISECOND)

struct pipeline {
    struct host host;
    char *name;
    pthread_t thread;
    struct loop *loop;
    struct bus *bus;
    struct subscriber *subscriber;            /* NULL: none yet, or the successor's */
    struct pipeline *predecessor, *successor; /* predecessor: not freed yet, so this one has not begun */
    size_t buffer_events, buffer_bytes;
    bool from_oldest;
    int loop_object; /* registry reference to what llmproxy.pipeline made: start, close */
    struct loop_timer close_timer;
    bool closed;
    void (*drained)(void *argument);
    void *drained_argument;

    int64_t waiting_told, depth_told; /* this pipeline's part of these gauges */

    /* While the thread starts. */
    const struct pipeline_settings *settings;
    pthread_mutex_t mutex;
    pthread_cond_t loaded;
    bool started; /* under the mutex: state and error are final */
    enum { FAILED, LOADED } state;
    struct error error;
};

static size_t in_hand(const struct pipeline *pipeline)
{
    return atomic_load_explicit(&pipeline->host.in_hand, memory_order_relaxed);
}

/* Given back and not fetched again, but counted as received. */
static size_t owed(const struct pipeline *pipeline)
{
    return pipeline->host.fetches && pipeline->subscriber != NULL ? inbox_owed(pipeline->subscriber) : 0;
}

/* Several pipelines of one name share the gauges: each adds what is its own. others: neither queued nor in hand. */
static void tell_waiting(struct pipeline *pipeline, size_t depth, size_t others)
{
    const struct counters *counters = &pipeline->host.counters;
    int64_t waiting = (int64_t)(depth + others);
    metric_add(counters->depth, (int64_t)depth - pipeline->depth_told);
    metric_add(counters->waiting, waiting - pipeline->waiting_told);
    pipeline->depth_told = (int64_t)depth;
    pipeline->waiting_told = waiting;
}

static int64_t age_seconds(uint64_t time_us)
{
    uint64_t now_us = clock_realtime_us();
    return time_us > 0 && now_us > time_us ? (int64_t)((now_us - time_us) / 1000000) : 0;
}

/* Until the predecessor is freed it is the one that delivers. */
static void tell_state(const struct pipeline *pipeline)
{
    const struct pipeline *active = pipeline->predecessor != NULL ? pipeline->predecessor : pipeline;
    metric_set(pipeline->host.counters.oldest,
               age_seconds(atomic_load_explicit(&active->host.oldest_us, memory_order_relaxed)));
    metric_set(pipeline->host.counters.state,
               atomic_load_explicit(&active->host.state, memory_order_relaxed));
}

static void collect(void *argument)
{
    struct pipeline *pipeline = argument;
    size_t depth = pipeline->subscriber != NULL ? bus_depth(pipeline->subscriber) : 0;
    tell_waiting(pipeline, depth, in_hand(pipeline) + owed(pipeline));
    if (pipeline->subscriber != NULL)
        tell_state(pipeline);
}

/* Argument of lua_cpcall: the pipeline. Loads its definition and makes the loop of it. */
static int prepare(lua_State *lua)
{
    struct pipeline *pipeline = lua_touserdata(lua, 1);
    const struct pipeline_settings *settings = pipeline->settings;
    struct script *script = pipeline->host.script;
    struct error *error = &pipeline->error;

    lua_getglobal(lua, "require");
    lua_pushliteral(lua, "llmproxy.pipeline");
    if (!script_call(script, 1, 1, 0, error))
        return 0;
    lua_getfield(lua, -1, "new");
    if (!settings->load(settings->load_argument, lua, settings->index, error))
        return 0;
    lua_pushcfunction(lua, host_push);
    lua_pushlightuserdata(lua, &pipeline->host);
    if (!script_call(script, 1, 1, 0, error) || !script_call(script, 2, 1, 0, error))
        return 0;
    pipeline->loop_object = luaL_ref(lua, LUA_REGISTRYINDEX);
    pipeline->state = LOADED;
    return 0;
}

static void make_script(struct pipeline *pipeline)
{
    const struct pipeline_settings *settings = pipeline->settings;
    struct script_settings script_settings = {
        .lua_folder = settings->lua_folder,
        .plugin_folders = settings->plugin_folders,
        .memory_limit = settings->memory_limit,
        .memory_limit_name = "the pipeline's memory_limit",
        .loop = pipeline->loop,
        .name = pipeline->name,
        .metrics = settings->metrics,
        .watchdog_seconds =
            settings->watchdog_seconds > 0 ? settings->watchdog_seconds : DEFAULT_WATCHDOG_SECONDS,
    };
    pipeline->host.script = script_new(&script_settings, &pipeline->error);
    if (pipeline->host.script == NULL)
        return;
    lua_State *lua = script_lua(pipeline->host.script);
    if (lua_cpcall(lua, prepare, pipeline) != 0) {
        const char *message = lua_tostring(lua, -1);
        error_set(&pipeline->error, "%s", message != NULL ? message : "unknown error");
        lua_pop(lua, 1);
    }
}

static void *run(void *argument)
{
    struct pipeline *pipeline = argument;
    make_script(pipeline);
    bool loaded = pipeline->state == LOADED;
    pthread_mutex_lock(&pipeline->mutex);
    pipeline->started = true;
    pthread_cond_signal(&pipeline->loaded);
    pthread_mutex_unlock(&pipeline->mutex);
    if (loaded)
        loop_run(pipeline->loop);
    settle_letters(&pipeline->host);
    script_free(pipeline->host.script);
    return NULL;
}

/* Argument of lua_cpcall: a function of the Lua loop's to call. */
struct loop_function {
    struct pipeline *pipeline;
    const char *function;
};

static int call_loop(lua_State *lua)
{
    const struct loop_function *call = lua_touserdata(lua, 1);
    lua_rawgeti(lua, LUA_REGISTRYINDEX, call->pipeline->loop_object);
    lua_getfield(lua, -1, call->function);
    lua_call(lua, 0, 0);
    return 0;
}

static bool call(struct pipeline *pipeline, const char *function)
{
    lua_State *lua = script_lua(pipeline->host.script);
    struct loop_function argument = {pipeline, function};
    if (lua_cpcall(lua, call_loop, &argument) == 0)
        return true;
    const char *message = lua_tostring(lua, -1);
    log_error("the pipeline's loop failed", log_string("pipeline", pipeline->name),
              log_string("error", message != NULL ? message : "?"));
    lua_pop(lua, 1);
    return false;
}

/* On the pipeline's thread. */
static void begin(void *argument)
{
    struct pipeline *pipeline = argument;
    host_begin(&pipeline->host);
    call(pipeline, "start");
}

static void on_wake(void *argument)
{
    host_wake(argument);
}

/* Called by publishers. */
static void wake(void *argument)
{
    struct pipeline *pipeline = argument;
    loop_post(pipeline->loop, on_wake, &pipeline->host);
}

static void on_drained(struct host *host)
{
    struct pipeline *pipeline = container_of(host, struct pipeline, host);
    if (pipeline->drained != NULL)
        pipeline->drained(pipeline->drained_argument);
    pipeline->drained = NULL;
}

static void on_closed(struct host *host)
{
    struct pipeline *pipeline = container_of(host, struct pipeline, host);
    pipeline->closed = true;
    if (host->stopping)
        loop_stop(pipeline->loop);
}

static void on_close_timeout(void *argument)
{
    struct pipeline *pipeline = argument;
    log_warn("the dispatcher or the bus does not close: the pipeline ends without",
             log_string("pipeline", pipeline->name));
    loop_stop(pipeline->loop);
}

static void wake_all(struct host *host)
{
    host_wake(host);
    source_wake(&host->source);
}

/* On the pipeline's thread. */
static void begin_drain(void *argument)
{
    struct pipeline *pipeline = argument;
    pipeline->host.draining = true;
    wake_all(&pipeline->host);
}

/* On the pipeline's thread. */
static void begin_retirement(void *argument)
{
    struct pipeline *pipeline = argument;
    pipeline->host.retiring = true;
    wake_all(&pipeline->host);
}

/* On the pipeline's thread. */
static void begin_stop(void *argument)
{
    struct pipeline *pipeline = argument;
    pipeline->host.stopping = true;
    wake_all(&pipeline->host);
    if (pipeline->closed || !call(pipeline, "close"))
        loop_stop(pipeline->loop);
    else
        loop_timer_set(&pipeline->close_timer, CLOSE_TIMEOUT_NS);
}

static void start_thread(struct pipeline *pipeline)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&pipeline->thread, NULL, run, pipeline);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert(failed == 0);
    (void)failed;
    char thread_name[16];
    snprintf(thread_name, sizeof thread_name, "%s", pipeline->name);
    pthread_setname_np(pipeline->thread, thread_name);

    pthread_mutex_lock(&pipeline->mutex);
    while (!pipeline->started)
        pthread_cond_wait(&pipeline->loaded, &pipeline->mutex);
    pthread_mutex_unlock(&pipeline->mutex);
}

/* The thread has ended and nobody publishes to it. */
static void release(struct pipeline *pipeline)
{
    loop_timer_release(&pipeline->close_timer);
    host_release(&pipeline->host);
    loop_free(pipeline->loop);
    pthread_mutex_destroy(&pipeline->mutex);
    pthread_cond_destroy(&pipeline->loaded);
    free(pipeline->name);
    free(pipeline);
}

struct pipeline *pipeline_new(const struct pipeline_settings *settings, struct error *error)
{
    struct pipeline *pipeline = xcalloc(1, sizeof *pipeline);
    pipeline->name = xstrdup(settings->name);
    pipeline->settings = settings;
    pipeline->bus = settings->bus;
    pipeline->buffer_events = settings->buffer_events;
    pipeline->buffer_bytes = settings->buffer_bytes;
    pipeline->from_oldest = settings->from_oldest;
    pipeline->loop = loop_new();
    pthread_mutex_init(&pipeline->mutex, NULL);
    pthread_cond_init(&pipeline->loaded, NULL);
    struct host *host = &pipeline->host;
    host->pipeline_name = pipeline->name;
    host->max_decoded_bytes = settings->max_decoded_bytes;
    host->dead_letters = settings->dead_letters;
    host->keeps_events = bus_keeps_events(settings->bus);
    host->fetches = settings->fetches;
    host->no_delivery = settings->no_delivery;
    host->settled = settings->settled;
    host->settled_argument = settings->settled_argument;
    host->loop = pipeline->loop;
    host->on_drained = on_drained;
    host->on_closed = on_closed;
    host_setup(host);
    loop_timer_init(&pipeline->close_timer, pipeline->loop, on_close_timeout, pipeline);
    counters_make(&host->counters, settings->metrics, pipeline->name, host->fetches);

    start_thread(pipeline);
    pipeline->settings = NULL;
    if (pipeline->state != LOADED) {
        *error = pipeline->error;
        pthread_join(pipeline->thread, NULL);
        release(pipeline);
        return NULL;
    }
    metrics_on_collect(host->counters.metrics, collect, pipeline);
    return pipeline;
}

bool pipeline_is_worn(const struct pipeline *pipeline)
{
    return atomic_load_explicit(&pipeline->host.worn, memory_order_relaxed);
}

const char *pipeline_name(const struct pipeline *pipeline)
{
    return pipeline->name;
}

size_t pipeline_queued(const struct pipeline *pipeline)
{
    return bus_depth(pipeline->subscriber);
}

static struct subscriber_settings subscription(struct pipeline *pipeline)
{
    struct subscriber_settings settings = {
        .name = pipeline->name,
        .max_events = pipeline->buffer_events,
        .max_bytes = pipeline->buffer_bytes,
        .from_oldest = pipeline->from_oldest,
        .received = pipeline->host.counters.received,
        .dropped = pipeline->host.counters.results[OUTCOME_DROPPED],
        .wake = wake,
        .wake_argument = pipeline,
    };
    memcpy(settings.dropped_by, pipeline->host.counters.dropped_by, sizeof settings.dropped_by);
    return settings;
}

/* What an earlier pipeline of this name left on the bus is counted as waiting still; the subscription has just counted it as received once more. */
static void forget_kept(const struct pipeline *pipeline)
{
    const struct counters *counters = &pipeline->host.counters;
    int64_t kept = metric_value(counters->waiting);
    metric_add(counters->received, -kept);
    metric_add(counters->waiting, -kept);
}

static bool subscribe(struct pipeline *pipeline, struct error *error)
{
    struct subscriber_settings settings = subscription(pipeline);
    pipeline->subscriber = bus_subscribe(pipeline->bus, &settings, error);
    pipeline->host.subscriber = pipeline->subscriber;
    return pipeline->subscriber != NULL;
}

/* Of one that fetches: what an earlier pipeline of this name gave back. */
static void owe_kept(struct pipeline *pipeline)
{
    int64_t kept = metric_value(pipeline->host.counters.waiting);
    inbox_owe(pipeline->subscriber, (size_t)kept);
    pipeline->waiting_told = kept;
}

bool pipeline_start(struct pipeline *pipeline, struct error *error)
{
    if (!subscribe(pipeline, error))
        return false;
    if (pipeline->host.fetches)
        owe_kept(pipeline);
    else if (pipeline->host.keeps_events)
        forget_kept(pipeline);
    loop_post(pipeline->loop, begin, pipeline);
    return true;
}

static void take_subscriber(struct pipeline *pipeline, struct pipeline *predecessor)
{
    struct subscriber_settings settings = subscription(pipeline);
    pipeline->subscriber = pipeline->host.subscriber = predecessor->subscriber;
    predecessor->subscriber = NULL;
    bus_renew(pipeline->subscriber, &settings);
}

bool pipeline_succeed(struct pipeline *pipeline, struct pipeline *predecessor, void (*done)(void *argument),
                      void *argument)
{
    if (pipeline->host.fetches) {
        struct error error;
        bool subscribed = subscribe(pipeline, &error);
        assert(subscribed); /* to an inbox */
        (void)subscribed;
    } else {
        take_subscriber(pipeline, predecessor);
    }
    bool begun = predecessor->predecessor == NULL;
    pipeline->predecessor = begun ? predecessor : predecessor->predecessor;
    pipeline->predecessor->successor = pipeline;
    predecessor->predecessor = NULL;
    if (begun) {
        predecessor->drained = done;
        predecessor->drained_argument = argument;
        loop_post(predecessor->loop, begin_retirement, predecessor);
    }
    return begun;
}

void pipeline_drain(struct pipeline *pipeline, void (*done)(void *argument), void *argument)
{
    pipeline->drained = done;
    pipeline->drained_argument = argument;
    bus_close(pipeline->subscriber);
    loop_post(pipeline->loop, begin_drain, pipeline);
}

size_t pipeline_free(struct pipeline *pipeline)
{
    if (pipeline == NULL)
        return 0;
    struct host *host = &pipeline->host;
    struct pipeline *successor = pipeline->successor;
    assert(pipeline->predecessor == NULL);
    loop_post(pipeline->loop, begin_stop, pipeline);
    pthread_join(pipeline->thread, NULL);
    metrics_remove_collect(host->counters.metrics, collect, pipeline);
    if (successor != NULL && !host->fetches)
        host_bequeath(host, &successor->host);
    size_t hand = in_hand(pipeline), lost = host->keeps_events ? 0 : hand;
    size_t kept = (host->keeps_events ? hand : 0) + owed(pipeline);
    if (pipeline->subscriber != NULL) {
        kept += host->keeps_events ? bus_depth(pipeline->subscriber) : 0;
        lost += bus_unsubscribe(pipeline->subscriber);
        metric_set(host->counters.oldest, 0);
        metric_set(host->counters.state, 0);
    }
    if (lost > 0) {
        counters_add(&host->counters, OUTCOME_DROPPED, "shutdown", lost);
        log_warn("events dropped: the pipeline was stopped before they were delivered",
                 log_string("pipeline", pipeline->name), log_integer("events", (int64_t)lost),
                 log_string("setting", "shutdown_timeout"));
    }
    if (successor != NULL && host->fetches) {
        inbox_owe(successor->subscriber, kept);
        kept = 0;
    }
    tell_waiting(pipeline, 0, kept);
    if (successor != NULL) {
        successor->predecessor = NULL;
        loop_post(successor->loop, begin, successor);
    }
    release(pipeline);
    return lost;
}

/* On the pipeline's thread. */
static void reopen_files(void *argument)
{
    struct pipeline *pipeline = argument;
    script_reopen_files(pipeline->host.script);
}

void pipeline_reopen_files(struct pipeline *pipeline)
{
    loop_post(pipeline->loop, reopen_files, pipeline);
}
