/*
 * The functions of host.h. Each has the host as its upvalue. Bytes are kept in buffers of the host while Lua functions run that may raise; an encoded line is
 * a userdata, so that it is Lua's to free and nothing is hashed.
 */
#include "pipeline/host.h"

#include <assert.h>
#include <lauxlib.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "pipeline/entry.h"
#include "pipeline/settle.h"
#include "script/json.h"
#include "script/trace.h"
#include "spool/dead_letters.h"

/* A buffer that had to hold more than this gives its memory back. */
#define KEPT_BYTES (1u << 20)

/* What tools removed from the dead letters is looked at this often. */
#define TIDY_INTERVAL_NS (5 * NANOSECONDS_PER_SECOND)

#define MEMORY_LOG_INTERVAL_NS (60 * NANOSECONDS_PER_SECOND)

static struct host *host_of(lua_State *lua)
{
    return lua_touserdata(lua, lua_upvalueindex(1));
}

struct buffer *host_empty_out(struct host *host)
{
    if (host->out.capacity > KEPT_BYTES)
        buffer_free(&host->out);
    buffer_clear(&host->out);
    return &host->out;
}

/* Collects what a failure for want of memory left behind. What then is still there fails the next events too: that is a matter of the plugin or the limit, not of an event. */
static void relieve(struct host *host)
{
    if (!script_relieve(host->script))
        return;
    size_t kept = script_memory(host->script), limit = script_memory_limit(host->script);
    uint64_t now = clock_monotonic_ns();
    if (kept > limit - limit / 4)
        atomic_store_explicit(&host->worn, true, memory_order_relaxed);
    if (kept <= limit / 2 || now < host->next_memory_log_ns)
        return;
    host->next_memory_log_ns = now + MEMORY_LOG_INTERVAL_NS;
    log_error("the pipeline's plugins keep too much memory: raise memory_limit or mend the leak",
              log_string("pipeline", host->pipeline_name), log_integer("bytes_kept", (int64_t)kept),
              log_integer("memory_limit", (int64_t)limit));
}

static int take(lua_State *lua)
{
    struct host *host = host_of(lua);
    if (host->stopping)
        return 0;
    relieve(host);
    if (!entry_take(host, lua))
        return 0;
    source_wake(&host->source);
    return 1;
}

void host_wake(struct host *host)
{
    gate_open(&host->events);
}

static int wait_for_events(lua_State *lua)
{
    struct host *host = host_of(lua);
    double seconds = luaL_optnumber(lua, 1, GATE_MAX_SECONDS);
    lua_Integer events = luaL_optinteger(lua, 2, 1);
    if (events > 1 && !host->events.open && !bus_await(host->subscriber, (size_t)events))
        return 0;
    return gate_wait(&host->events, lua, seconds);
}

static int wake(lua_State *lua)
{
    host_wake(host_of(lua));
    return 0;
}

static int draining(lua_State *lua)
{
    lua_pushboolean(lua, host_of(lua)->draining);
    return 1;
}

static int retiring(lua_State *lua)
{
    lua_pushboolean(lua, host_of(lua)->retiring);
    return 1;
}

static int drained(lua_State *lua)
{
    struct host *host = host_of(lua);
    host->drained = true;
    loop_timer_set(&host->letters_timer, 0);
    return 0;
}

static int closed(lua_State *lua)
{
    struct host *host = host_of(lua);
    host->on_closed(host);
    return 0;
}

/* A task that is begun anew when it raised. The userdata is anchored, with its function and value, as long as it runs. */
struct spawned {
    struct host *host;
    int anchor; /* of { userdata, work, value } */
};

static void on_task_end(void *argument, const char *error)
{
    struct spawned *spawned = argument;
    struct host *host = spawned->host;
    lua_State *lua = script_lua(host->script);
    if (error == NULL) {
        luaL_unref(lua, LUA_REGISTRYINDEX, spawned->anchor);
        return;
    }
    error_set(&host->failure, "%s", host->noted.message[0] != '\0' ? host->noted.message : error);
    host->noted.message[0] = '\0';
    /* Who goes on tells what came of it, unless the next failure is on the heels of this one. */
    uint64_t suppressed;
    if (host->untold && log_limit_pass(&host->failure_log, &suppressed))
        log_error("a task of the pipeline was stopped by an error",
                  log_string("pipeline", host->pipeline_name), log_string("error", host->failure.message),
                  log_suppressed(suppressed));
    host->untold = true;
    /* Nothing here allocates in Lua, so that no task is lost for want of memory. */
    lua_rawgeti(lua, LUA_REGISTRYINDEX, spawned->anchor);
    lua_rawgeti(lua, -1, 2);
    lua_rawgeti(lua, -2, 3);
    lua_remove(lua, -3);
    lua_pushboolean(lua, true);
    script_spawn(host->script, 2, on_task_end, spawned);
}

static int spawn(lua_State *lua)
{
    struct host *host = host_of(lua);
    lua_settop(lua, 2);
    lua_createtable(lua, 3, 0);
    struct spawned *spawned = lua_newuserdata(lua, sizeof *spawned);
    *spawned = (struct spawned){.host = host};
    lua_rawseti(lua, 3, 1);
    lua_pushvalue(lua, 1);
    lua_rawseti(lua, 3, 2);
    lua_pushvalue(lua, 2);
    lua_rawseti(lua, 3, 3);
    spawned->anchor = luaL_ref(lua, LUA_REGISTRYINDEX);
    lua_pushboolean(lua, false);
    lua_State *main = script_lua(host->script);
    if (main != lua)
        lua_xmove(lua, main, 3);
    script_spawn(host->script, 2, on_task_end, spawned);
    return 0;
}

static int note(lua_State *lua)
{
    lua_settop(lua, 1);
    if (lua_type(lua, 1) == LUA_TSTRING) {
        trace_complete_name(lua, lua);
        error_set(&host_of(lua)->noted, "%s", lua_tostring(lua, 1));
    }
    return 1;
}

static int forget(lua_State *lua)
{
    struct host *host = host_of(lua);
    host->noted.message[0] = '\0';
    if (lua_gettop(lua) == 2 && !lua_toboolean(lua, 1) && lua_type(lua, 2) == LUA_TSTRING &&
        strcmp(lua_tostring(lua, 2), "not enough memory") == 0) {
        struct error error;
        script_memory_error(host->script, &error);
        relieve(host);
        lua_pushstring(lua, error.message);
        lua_replace(lua, 2);
    }
    return lua_gettop(lua);
}

static int failure(lua_State *lua)
{
    struct host *host = host_of(lua);
    host->untold = false;
    relieve(host);
    lua_pushstring(lua, host->failure.message);
    return 1;
}

/* What was encoded as a line: JSON given as text by a plugin may have line breaks between its values, which are blanks there. */
int host_push_line(lua_State *lua, struct buffer *out)
{
    for (char *at = buffer_data(out), *end = at + out->size; at < end; at++) {
        at = memchr(at, '\n', (size_t)(end - at));
        if (at == NULL)
            break;
        *at = ' ';
    }
    memcpy(lua_newuserdata(lua, out->size), buffer_data(out), out->size);
    lua_pushnumber(lua, (double)out->size);
    return 2;
}

int host_push_failure(lua_State *lua, const struct error *error)
{
    lua_pushnil(lua);
    lua_pushstring(lua, error->message);
    return 2;
}

static int encode(lua_State *lua)
{
    struct error error;
    struct buffer *out = host_empty_out(host_of(lua));
    return script_json_encode(lua, 1, out, &error) ? host_push_line(lua, out)
                                                   : host_push_failure(lua, &error);
}

/* The lines of the list at the first place, with what stands before, between and behind them. */
static int join(lua_State *lua, const char *before, const char *between, const char *behind)
{
    struct buffer *out = host_empty_out(host_of(lua));
    size_t count = lua_objlen(lua, 1);
    buffer_append_string(out, before);
    for (size_t i = 1; i <= count; i++) {
        lua_rawgeti(lua, 1, (int)i);
        if (i > 1)
            buffer_append_string(out, between);
        buffer_append(out, lua_touserdata(lua, -1), lua_objlen(lua, -1));
        lua_pop(lua, 1);
    }
    buffer_append_string(out, behind);
    lua_pushlstring(lua, buffer_data(out), out->size);
    return 1;
}

static int json(lua_State *lua)
{
    return join(lua, "[", ",", "]");
}

static int json_lines(lua_State *lua)
{
    return join(lua, "", "\n", "\n");
}

static int lines(lua_State *lua)
{
    int count = (int)lua_objlen(lua, 1);
    lua_createtable(lua, count, 0);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(lua, 1, i);
        lua_pushlstring(lua, lua_touserdata(lua, -1), lua_objlen(lua, -1));
        lua_rawseti(lua, 2, i);
        lua_pop(lua, 1);
    }
    return 1;
}

static int observe(lua_State *lua)
{
    const struct counters *counters = &host_of(lua)->counters;
    metric_observe(counters->seconds, luaL_checknumber(lua, 1));
    metric_observe(counters->batch_events, luaL_checknumber(lua, 2));
    metric_observe(counters->batch_bytes, luaL_checknumber(lua, 3));
    return 0;
}

static int state(lua_State *lua)
{
    atomic_store_explicit(&host_of(lua)->state, (int)luaL_checkinteger(lua, 1), memory_order_relaxed);
    return 0;
}

static const luaL_Reg host_functions[] = {
    {"take", take},         {"wait", wait_for_events},  {"wake", wake},
    {"draining", draining}, {"retiring", retiring},     {"drained", drained},
    {"closed", closed},     {"spawn", spawn},           {"note", note},
    {"forget", forget},     {"failure", failure},       {"encode", encode},
    {"json", json},         {"json_lines", json_lines}, {"lines", lines},
    {"observe", observe},   {"state", state},           {NULL, NULL},
};

static void push_flag(lua_State *lua, const char *name, bool value)
{
    lua_pushboolean(lua, value);
    lua_setfield(lua, -2, name);
}

int host_push(lua_State *lua)
{
    struct host *host = lua_touserdata(lua, 1);
    entry_register(lua);
    lua_newtable(lua);
    for (const luaL_Reg *function = host_functions; function->name != NULL; function++) {
        lua_pushlightuserdata(lua, host);
        lua_pushcclosure(lua, function->func, 1);
        lua_setfield(lua, -2, function->name);
    }
    if (host->fetches)
        source_push(lua, host);
    push_flag(lua, "fetches", host->fetches);
    push_flag(lua, "keeps_events", host->keeps_events);
    push_flag(lua, "no_delivery", host->no_delivery);
    push_flag(lua, "has_dead_letters", host->dead_letters != NULL);
    push_flag(lua, "tells_failures", host->settled != NULL);
    return 1;
}

static void on_letters_timer(void *argument)
{
    struct host *host = argument;
    if (host->dead_letters != NULL) {
        if (host->unsynced != NULL)
            settle_letters(host);
        else
            dead_letters_tidy(host->dead_letters);
        loop_timer_set(&host->letters_timer, TIDY_INTERVAL_NS);
    }
    if (host->drained) {
        host->drained = false;
        host->on_drained(host);
    }
}

void host_begin(struct host *host)
{
    if (host->dead_letters != NULL)
        loop_timer_set(&host->letters_timer, TIDY_INTERVAL_NS);
}

void host_setup(struct host *host)
{
    gate_init(&host->events, host->loop);
    source_setup(&host->source, host->loop);
    loop_timer_init(&host->letters_timer, host->loop, on_letters_timer, host);
    TAILQ_INIT(&host->entries);
    host->left_end = &host->left;
}

void host_release(struct host *host)
{
    gate_release(&host->events);
    source_release(&host->source);
    loop_timer_release(&host->letters_timer);
    entry_free_legacies(host->left);
    entry_free_legacies(host->legacy);
    event_view_free(&host->view);
    event_scratch_free(&host->scratch);
    buffer_free(&host->out);
}
