/*
 * A pipeline on a real memory bus with real Lua, whose definition is a piece of Lua:
 *
 *     pipeline { transforms = { function(event) … end }, deliver = function(batch) … end, batch = { … }, concurrency = 1, retry = { … }, close = … }
 *
 * with what is left out being quick and small. It may call record(text), which appends to what the test sees, and hold(), which waits until the test sets world.released. verdict and time are the modules.
 */
#ifndef PIPELINE_FIXTURE_H
#define PIPELINE_FIXTURE_H

#include <lauxlib.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/memory.h"
#include "bus/memory_bus.h"
#include "pipeline/pipeline.h"

static const char prelude[] =
    "local record, released = ...\n"
    "local verdict, time = require 'llmproxy.verdict', require 'llmproxy.time'\n"
    "local function pipeline(given)\n"
    "  local transforms = {}\n"
    "  for index, run in ipairs(given.transforms or {}) do transforms[index] = { name = 'number ' .. index, "
    "run = run } end\n"
    "  local batch = given.batch or {}\n"
    "  return { name = 'test', transforms = transforms, concurrency = given.concurrency or 1,\n"
    "    batch = { max_events = batch.max_events or 100, max_bytes = batch.max_bytes or 1048576, max_wait = "
    "batch.max_wait or 0.001 },\n"
    "    retry = given.retry or { min_delay = 0.001, max_delay = 0.002 },\n"
    "    dispatcher = { name = 'recorder', object = { close = given.close, deliver = function(_, batch) "
    "return given.deliver(batch) end } } }\n"
    "end\n"
    "local function ids(batch)\n"
    "  local list = {}\n"
    "  for index, event in ipairs(batch.events) do list[index] = event.id end\n"
    "  return table.concat(list, ',')\n"
    "end\n"
    "local function hold() repeat time.sleep(0.001) until released() end\n"
    "local _ = record, verdict, time, pipeline, ids, hold\n";

struct world {
    struct metrics *metrics;
    struct bus *bus;
    struct pipeline *pipeline;
    struct pipeline *predecessor; /* set: pipeline is not started, but to succeed it */
    const char *definition;
    size_t buffer_events;
    double watchdog_seconds;
    struct dead_letters *dead_letters;
    bool no_delivery;
    void (*settled)(void *world, struct slice event_id, uint64_t sequence, const char *result,
                    const char *reason, const char *error);
    atomic_bool released;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct buffer recorded;
    sem_t drained;
};

static inline void world_note(struct world *world, struct slice text)
{
    pthread_mutex_lock(&world->mutex);
    buffer_append_slice(&world->recorded, text);
    buffer_append_char(&world->recorded, '\n');
    pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->mutex);
}

static inline int world_record(lua_State *lua)
{
    size_t size;
    const char *text = luaL_checklstring(lua, 1, &size);
    world_note(lua_touserdata(lua, lua_upvalueindex(1)), (struct slice){text, size});
    return 0;
}

static inline int world_released(lua_State *lua)
{
    struct world *world = lua_touserdata(lua, lua_upvalueindex(1));
    lua_pushboolean(lua, world->released);
    return 1;
}

static inline bool world_load(void *argument, lua_State *lua, size_t index, struct error *error)
{
    struct world *world = argument;
    assert_int_equal(index, 3);
    char *chunk = xprintf("%s%s", prelude, world->definition);
    int status = luaL_loadbuffer(lua, chunk, strlen(chunk), "=definition");
    free(chunk);
    if (status == 0) {
        lua_pushlightuserdata(lua, world);
        lua_pushcclosure(lua, world_record, 1);
        lua_pushlightuserdata(lua, world);
        lua_pushcclosure(lua, world_released, 1);
        status = lua_pcall(lua, 2, 1, 0);
    }
    if (status != 0) {
        error_set(error, "%s", lua_tostring(lua, -1));
        lua_pop(lua, 1);
    }
    return status == 0;
}

static inline bool world_try(struct world *world, const char *definition, struct error *error)
{
    world->definition = definition;
    const char *const folders[] = {PLUGIN_DIR, NULL};
    const struct pipeline_settings settings = {
        .name = "test",
        .index = 3,
        .buffer_events = world->buffer_events > 0 ? world->buffer_events : 1000,
        .buffer_bytes = 64 << 20,
        .max_decoded_bytes = 1 << 20,
        .memory_limit = 64 << 20,
        .watchdog_seconds = world->watchdog_seconds,
        .lua_folder = LUA_DIR,
        .plugin_folders = folders,
        .load = world_load,
        .load_argument = world,
        .metrics = world->metrics,
        .bus = world->bus,
        .dead_letters = world->dead_letters,
        .no_delivery = world->no_delivery,
        .settled = world->settled,
        .settled_argument = world,
    };
    struct pipeline *pipeline = pipeline_new(&settings, error);
    if (pipeline != NULL && world->predecessor == NULL && !pipeline_start(pipeline, error)) {
        pipeline_free(pipeline);
        pipeline = NULL;
    }
    world->pipeline = pipeline;
    return pipeline != NULL;
}

static inline void world_setup(struct world *world)
{
    log_configure(getenv("TEST_LOG") != NULL ? LOG_DEBUG : LOG_ERROR + 1, LOG_TEXT);
    world->metrics = metrics_new();
    world->bus = memory_bus_new();
    pthread_mutex_init(&world->mutex, NULL);
    pthread_cond_init(&world->changed, NULL);
    sem_init(&world->drained, 0, 0);
}

static inline void world_start(struct world *world, const char *definition)
{
    struct error error;
    world_setup(world);
    if (!world_try(world, definition, &error))
        fail_msg("%s", error.message);
}

static inline void world_publish(struct world *world, const char *id, const char *body)
{
    struct body request, response, tail;
    body_init(&request, NULL);
    body_init(&response, NULL);
    body_init(&tail, NULL);
    assert_true(body_append(&response, slice_of(body)));
    const struct event_fields fields = {.id = slice_of(id),
                                        .time_us = UINT64_C(1767323045678901),
                                        .method = SLICE("GET"),
                                        .path = SLICE("/"),
                                        .status = 200,
                                        .response_kept = true};
    struct event_record *event = event_record_new(&fields, &request, &response, &tail);
    bus_publish(world->bus, event, NULL, NULL);
    event_record_release(event);
}

static inline void world_on_drained(void *argument)
{
    struct world *world = argument;
    sem_post(&world->drained);
}

/* Waits until everything was delivered or dropped. */
static inline void world_drain(struct world *world)
{
    pipeline_drain(world->pipeline, world_on_drained, world);
    assert_int_equal(sem_wait(&world->drained), 0);
}

/* Waits until this text was recorded. */
static inline void world_wait_for(struct world *world, const char *text)
{
    struct slice wanted = slice_of(text);
    pthread_mutex_lock(&world->mutex);
    while (world->recorded.size < wanted.size ||
           memmem(buffer_data(&world->recorded), world->recorded.size, wanted.data, wanted.size) == NULL)
        pthread_cond_wait(&world->changed, &world->mutex);
    pthread_mutex_unlock(&world->mutex);
}

static inline void world_assert_recorded(struct world *world, const char *expected)
{
    pthread_mutex_lock(&world->mutex);
    buffer_append_char(&world->recorded, '\0');
    world->recorded.size--;
    if (strcmp(buffer_data(&world->recorded), expected) != 0)
        fail_msg("recorded:\n%s\nexpected:\n%s", buffer_data(&world->recorded), expected);
    pthread_mutex_unlock(&world->mutex);
}

/* The value of a series in the metrics text, by its name with labels as written there. */
static inline int64_t world_metric(struct world *world, const char *series)
{
    struct buffer out = {0};
    metrics_write(world->metrics, &out);
    char *text = buffer_take_string(&out);
    char *line = xprintf("\n%s ", series);
    const char *at = strstr(text, line);
    if (at == NULL)
        fail_msg("%s is not in\n%s", series, text);
    int64_t value = strtoll(at + strlen(line), NULL, 10);
    free(line);
    free(text);
    return value;
}

#define EVENTS(result)  "llm_proxy_events_total{pipeline=\"test\",result=\"" result "\"}"
#define DROPPED(reason) "llm_proxy_events_dropped_total{pipeline=\"test\",reason=\"" reason "\"}"
#define RECEIVED        "llm_proxy_events_received_total{pipeline=\"test\"}"
#define WAITING         "llm_proxy_events_waiting{pipeline=\"test\"}"

/* What holds at any quiet moment. */
static inline void world_assert_invariant(struct world *world)
{
    static const char *const reasons[] = {DROPPED("buffer_full"), DROPPED("rejected"),
                                          DROPPED("transform_error"), DROPPED("expired"),
                                          DROPPED("shutdown")};
    int64_t dropped = 0;
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        dropped += world_metric(world, reasons[i]);
    assert_int_equal(world_metric(world, EVENTS("dropped")), dropped);
    assert_int_equal(world_metric(world, RECEIVED), world_metric(world, EVENTS("delivered")) +
                                                        world_metric(world, EVENTS("filtered")) + dropped +
                                                        world_metric(world, EVENTS("dead_lettered")) +
                                                        world_metric(world, WAITING));
}

/* Frees everything; returns how many events were lost by that. */
static inline size_t world_stop(struct world *world)
{
    if (world->pipeline != NULL)
        world_assert_invariant(world);
    size_t lost = pipeline_free(world->pipeline);
    if (world->pipeline != NULL) {
        world_assert_invariant(world);
        assert_true(world->bus->keeps_events || world_metric(world, WAITING) == 0);
    }
    bus_free(world->bus);
    metrics_free(world->metrics);
    buffer_free(&world->recorded);
    pthread_mutex_destroy(&world->mutex);
    pthread_cond_destroy(&world->changed);
    sem_destroy(&world->drained);
    return lost;
}

#endif
