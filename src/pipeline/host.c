/*
 * The functions of host.h. Each has the host as its upvalue. Bytes are kept in buffers of the host while Lua functions run that may raise; an encoded line is
 * a userdata, so that it is Lua's to free and nothing is hashed.
 */
#include "pipeline/host.h"

#include <assert.h>
#include <lauxlib.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "script/json.h"

/* A buffer that had to hold more than this gives its memory back. */
#define KEPT_BYTES (1u << 20)

#define MAX_WAIT_SECONDS (366.0 * 86400)

#define MEMORY_LOG_INTERVAL_NS (60 * NANOSECONDS_PER_SECOND)

/* What a pipeline leaves of an entry to its successor. */
struct legacy {
    struct legacy *next;
    uint64_t sequence;
    char id[UUID_TEXT_SIZE];
    char *reason;        /* why a part of it was dropped; NULL: none was */
    struct buffer lines; /* each ended by a newline */
};

struct entry {
    struct host *host;
    struct event_record *event; /* NULL: released */
    struct legacy *legacy;      /* of the predecessor; owned */
    struct legacy *left;        /* for the successor; the host's */
    uint64_t sequence;
    bool settled;
    char id[UUID_TEXT_SIZE];
};

static const char entry_key; /* its address: the registry's metatable of entries */

static struct host *host_of(lua_State *lua)
{
    return lua_touserdata(lua, lua_upvalueindex(1));
}

static struct buffer *empty_out(struct host *host)
{
    if (host->out.capacity > KEPT_BYTES)
        buffer_free(&host->out);
    buffer_clear(&host->out);
    return &host->out;
}

/* The entry at the first place of the stack. Only the runtime library calls, which knows what it has. */
static struct entry *entry_of(lua_State *lua)
{
    return lua_touserdata(lua, 1);
}

/* Collects what a failure for want of memory left behind. What then is still there fails the next events too: that is a matter of the plugin or the limit, not of an event. */
static void relieve(struct host *host)
{
    if (!script_relieve(host->script))
        return;
    size_t kept = script_memory(host->script), limit = script_memory_limit(host->script);
    uint64_t now = clock_monotonic_ns();
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
    struct entry *entry = lua_newuserdata(lua, sizeof *entry);
    *entry = (struct entry){.host = host};
    lua_pushlightuserdata(lua, (void *)&entry_key);
    lua_rawget(lua, LUA_REGISTRYINDEX);
    lua_setmetatable(lua, -2);
    struct legacy *legacy = host->legacy;
    if (legacy != NULL) {
        host->legacy = legacy->next;
        legacy->next = NULL;
        entry->legacy = legacy;
        entry->sequence = legacy->sequence;
        memcpy(entry->id, legacy->id, sizeof entry->id);
        return 1;
    }
    struct bus_entry fetched;
    if (bus_fetch(host->subscriber, &fetched, 1, SIZE_MAX) == 0)
        return 0;
    atomic_fetch_add_explicit(&host->in_hand, 1, memory_order_relaxed);
    entry->event = fetched.event;
    entry->sequence = fetched.sequence;
    struct slice id = event_get(fetched.event)->id;
    size_t size = id.size < sizeof entry->id ? id.size : sizeof entry->id - 1;
    if (size > 0)
        memcpy(entry->id, id.data, size);
    return 1;
}

static void cancel_wait(void *object)
{
    struct host *host = object;
    host->waiting = NULL;
}

static int push_nothing(lua_State *lua, void *argument)
{
    (void)lua;
    (void)argument;
    return 0;
}

static void end_wait(void *argument)
{
    struct host *host = argument;
    struct script_wait *wait = host->waiting;
    if (wait == NULL)
        return;
    host->waiting = NULL;
    host->woken = false;
    script_resume(wait, push_nothing, NULL);
}

void host_wake(struct host *host)
{
    host->woken = true;
    if (host->waiting != NULL)
        loop_timer_set(&host->timer, 0);
}

static int wait_for_events(lua_State *lua)
{
    struct host *host = host_of(lua);
    double seconds = luaL_optnumber(lua, 1, MAX_WAIT_SECONDS);
    lua_Integer events = luaL_optinteger(lua, 2, 1);
    if (host->woken || (events > 1 && !bus_await(host->subscriber, (size_t)events))) {
        host->woken = false;
        return 0;
    }
    assert(host->waiting == NULL);
    host->waiting = script_wait(lua, cancel_wait, host);
    if (seconds < MAX_WAIT_SECONDS)
        loop_timer_set(&host->timer, seconds > 0 ? (uint64_t)(seconds * (double)NANOSECONDS_PER_SECOND) : 0);
    else
        loop_timer_clear(&host->timer);
    return lua_yield(lua, 0);
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
    host->on_drained(host);
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
    if (lua_type(lua, 1) == LUA_TSTRING)
        error_set(&host_of(lua)->noted, "%s", lua_tostring(lua, 1));
    lua_settop(lua, 1);
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
    lua_pushstring(lua, host->failure.message);
    return 1;
}

/* What was encoded as a line: JSON given as text by a plugin may have line breaks between its values, which are blanks there. */
static int push_line(lua_State *lua, struct buffer *out)
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

static int push_failure(lua_State *lua, const struct error *error)
{
    lua_pushnil(lua);
    lua_pushstring(lua, error->message);
    return 2;
}

static int encode(lua_State *lua)
{
    struct error error;
    struct buffer *out = empty_out(host_of(lua));
    return script_json_encode(lua, 1, out, &error) ? push_line(lua, out) : push_failure(lua, &error);
}

/* The lines of the list at the first place, with what stands before, between and behind them. */
static int join(lua_State *lua, const char *before, const char *between, const char *behind)
{
    struct buffer *out = empty_out(host_of(lua));
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

static int observe(lua_State *lua)
{
    metric_observe(host_of(lua)->seconds, luaL_checknumber(lua, 1));
    return 0;
}

static int entry_id(lua_State *lua)
{
    lua_pushstring(lua, entry_of(lua)->id);
    return 1;
}

static int entry_event(lua_State *lua)
{
    struct entry *entry = entry_of(lua);
    struct host *host = entry->host;
    if (entry->event == NULL)
        return luaL_error(lua, "the event is gone");
    event_view_free(&host->view); /* of one that was left by an error */
    event_view_make(&host->view, entry->event, host->max_decoded_bytes);
    event_table_push(lua, &host->view, &host->scratch);
    event_view_free(&host->view);
    return 1;
}

static int entry_encode(lua_State *lua)
{
    struct error error;
    struct entry *entry = entry_of(lua);
    struct buffer *out = empty_out(entry->host);
    if (lua_istable(lua, 2)) {
        if (!event_table_encode(lua, 2, entry->event, &entry->host->scratch, out, &error))
            return push_failure(lua, &error);
    } else {
        assert(entry->event != NULL);
        event_write_json(entry->event, entry->host->max_decoded_bytes, out);
    }
    return push_line(lua, out);
}

static void free_legacies(struct legacy *legacy)
{
    while (legacy != NULL) {
        struct legacy *next = legacy->next;
        free(legacy->reason);
        buffer_free(&legacy->lines);
        free(legacy);
        legacy = next;
    }
}

static int entry_release(lua_State *lua)
{
    struct entry *entry = entry_of(lua);
    event_record_release(entry->event);
    entry->event = NULL;
    free_legacies(entry->legacy);
    entry->legacy = NULL;
    return 0;
}

static int entry_leave(lua_State *lua)
{
    struct entry *entry = entry_of(lua);
    struct host *host = entry->host;
    const char *reason = lua_tostring(lua, 3);
    if (entry->left == NULL) {
        assert(!entry->settled);
        struct legacy *left = xcalloc(1, sizeof *left);
        left->sequence = entry->sequence;
        memcpy(left->id, entry->id, sizeof left->id);
        left->reason = reason != NULL ? xstrdup(reason) : NULL;
        *host->left_end = left;
        host->left_end = &left->next;
        entry->left = left;
        entry->settled = true;
    }
    buffer_append(&entry->left->lines, lua_touserdata(lua, 2), lua_objlen(lua, 2));
    buffer_append_char(&entry->left->lines, '\n');
    return entry_release(lua);
}

static int entry_legacy(lua_State *lua)
{
    const struct legacy *legacy = entry_of(lua)->legacy;
    if (legacy == NULL)
        return 0;
    lua_newtable(lua);
    struct slice rest = buffer_slice(&legacy->lines), line;
    for (int i = 1; rest.size > 0 && slice_split(&rest, '\n', &line); i++) {
        lua_pushlstring(lua, line.data, line.size);
        lua_rawseti(lua, -2, i);
    }
    lua_pushstring(lua, legacy->reason);
    return 2;
}

void host_count_drop(struct host *host, const char *reason, size_t count)
{
    struct metric *dropped = metrics_counter(
        host->metrics, "llm_proxy_events_dropped_total", "Events that were not delivered, by reason.",
        (struct metric_label[]){{"pipeline", host->pipeline_name}, {"reason", reason}, {NULL, NULL}});
    metric_add(dropped, (int64_t)count);
    metric_add(host->dropped, (int64_t)count);
}

static int entry_settle(lua_State *lua)
{
    struct entry *entry = entry_of(lua);
    struct host *host = entry->host;
    const char *result = luaL_checkstring(lua, 2);
    if (entry->settled)
        return 0;
    if (strcmp(result, "dropped") == 0) {
        host_count_drop(host, luaL_checkstring(lua, 3), 1);
    } else {
        assert(strcmp(result, "delivered") == 0 || strcmp(result, "filtered") == 0);
        metric_add(result[0] == 'd' ? host->delivered : host->filtered, 1);
    }
    entry->settled = true;
    atomic_fetch_sub_explicit(&host->in_hand, 1, memory_order_relaxed);
    bus_acknowledge(host->subscriber, entry->sequence);
    return entry_release(lua);
}

static const luaL_Reg host_functions[] = {
    {"take", take},         {"wait", wait_for_events},  {"wake", wake},       {"draining", draining},
    {"retiring", retiring}, {"drained", drained},       {"closed", closed},   {"spawn", spawn},
    {"note", note},         {"forget", forget},         {"failure", failure}, {"encode", encode},
    {"json", json},         {"json_lines", json_lines}, {"observe", observe}, {NULL, NULL},
};

static const luaL_Reg entry_functions[] = {
    {"id", entry_id},         {"event", entry_event}, {"encode", entry_encode}, {"release", entry_release},
    {"settle", entry_settle}, {"leave", entry_leave}, {"legacy", entry_legacy}, {NULL, NULL},
};

int host_push(lua_State *lua)
{
    struct host *host = lua_touserdata(lua, 1);
    lua_pushlightuserdata(lua, (void *)&entry_key);
    lua_newtable(lua);
    lua_pushcfunction(lua, entry_release);
    lua_setfield(lua, -2, "__gc");
    lua_newtable(lua);
    for (const luaL_Reg *function = entry_functions; function->name != NULL; function++) {
        lua_pushcfunction(lua, function->func);
        lua_setfield(lua, -2, function->name);
    }
    lua_setfield(lua, -2, "__index");
    lua_rawset(lua, LUA_REGISTRYINDEX);

    lua_newtable(lua);
    for (const luaL_Reg *function = host_functions; function->name != NULL; function++) {
        lua_pushlightuserdata(lua, host);
        lua_pushcclosure(lua, function->func, 1);
        lua_setfield(lua, -2, function->name);
    }
    return 1;
}

void host_setup(struct host *host)
{
    loop_timer_init(&host->timer, host->loop, end_wait, host);
    host->left_end = &host->left;
}

void host_bequeath(struct host *host, struct host *successor)
{
    assert(successor->legacy == NULL);
    *host->left_end = host->legacy;
    successor->legacy = host->left;
    host->left = host->legacy = NULL;
    size_t count = 0;
    for (const struct legacy *legacy = successor->legacy; legacy != NULL; legacy = legacy->next)
        count++;
    atomic_fetch_sub_explicit(&host->in_hand, count, memory_order_relaxed);
    atomic_fetch_add_explicit(&successor->in_hand, count, memory_order_relaxed);
}

void host_release(struct host *host)
{
    loop_timer_release(&host->timer);
    free_legacies(host->left);
    free_legacies(host->legacy);
    event_view_free(&host->view);
    event_scratch_free(&host->scratch);
    buffer_free(&host->out);
}
