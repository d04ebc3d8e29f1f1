/* Each function has the host as its upvalue. */
#include "pipeline/source.h"

#include <lauxlib.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "base/id.h"
#include "bus/inbox_bus.h"
#include "pipeline/event_read.h"
#include "pipeline/host.h"
#include "pipeline/settle.h"
#include "script/host.h"
#include "script/json.h"

/* Told at a time. */
#define MOST_SETTLED 1000

#define HOST_NAME_SIZE 65

static char process_name[HOST_NAME_SIZE + 32];
static pthread_once_t named = PTHREAD_ONCE_INIT;

/* Unique among all processes of all machines. */
static void name_process(void)
{
    char machine[HOST_NAME_SIZE] = "";
    uint32_t number;
    random_bytes(&number, sizeof number);
    if (gethostname(machine, sizeof machine - 1) != 0 || machine[0] == '\0')
        snprintf(machine, sizeof machine, "unnamed");
    snprintf(process_name, sizeof process_name, "%s-%ld-%08x", machine, (long)getpid(), number);
}

void source_setup(struct source *source, struct loop *loop)
{
    gate_init(&source->room, loop);
    gate_init(&source->settled, loop);
}

void source_release(struct source *source)
{
    gate_release(&source->room);
    gate_release(&source->settled);
}

void source_wake(struct source *source)
{
    gate_open(&source->room);
    gate_open(&source->settled);
}

static struct host *host_of(lua_State *lua)
{
    return lua_touserdata(lua, lua_upvalueindex(1));
}

static int put(lua_State *lua)
{
    struct host *host = host_of(lua);
    struct error error;
    lua_settop(lua, 1);
    if (lua_type(lua, 1) == LUA_TSTRING) {
        struct slice text;
        text.data = lua_tolstring(lua, 1, &text.size);
        if (!script_json_decode(lua, text, &error))
            return host_push_failure(lua, &error);
    }
    struct event_record *event = event_read(lua, -1, &error);
    if (event == NULL)
        return host_push_failure(lua, &error);
    uint64_t sequence = inbox_put(host->subscriber, event);
    event_record_release(event);
    lua_pushnumber(lua, (double)sequence);
    return 1;
}

static int unreadable(lua_State *lua)
{
    struct host *host = host_of(lua);
    inbox_count_received(host->subscriber);
    counters_add(&host->counters, OUTCOME_DROPPED, "unreadable", 1);
    return 0;
}

static int room(lua_State *lua)
{
    lua_pushnumber(lua, (double)inbox_room(host_of(lua)->subscriber));
    return 1;
}

static int wait_for_room(lua_State *lua)
{
    return gate_wait(&host_of(lua)->source.room, lua, luaL_optnumber(lua, 1, GATE_MAX_SECONDS));
}

static int settled(lua_State *lua)
{
    struct subscriber *subscriber = host_of(lua)->subscriber;
    size_t count = inbox_acknowledged_count(subscriber);
    uint64_t sequences[MOST_SETTLED];
    lua_createtable(lua, count < MOST_SETTLED ? (int)count : MOST_SETTLED, 0);
    count = inbox_acknowledged(subscriber, sequences, MOST_SETTLED);
    for (size_t i = 0; i < count; i++) {
        lua_pushnumber(lua, (double)sequences[i]);
        lua_rawseti(lua, -2, (int)i + 1);
    }
    return 1;
}

static int settled_count(lua_State *lua)
{
    lua_pushnumber(lua, (double)inbox_acknowledged_count(host_of(lua)->subscriber));
    return 1;
}

static int wait_for_settled(lua_State *lua)
{
    return gate_wait(&host_of(lua)->source.settled, lua, luaL_optnumber(lua, 1, GATE_MAX_SECONDS));
}

static int wake_source(lua_State *lua)
{
    source_wake(&host_of(lua)->source);
    return 0;
}

static int keep_letters(lua_State *lua)
{
    uint64_t begun = script_begin_blocking(lua);
    settle_letters(host_of(lua));
    script_end_blocking(lua, begun);
    return 0;
}

static int bus_error(lua_State *lua)
{
    const struct counters *counters = &host_of(lua)->counters;
    const struct metric_label labels[] = {
        {"pipeline", counters->pipeline}, {"operation", luaL_checkstring(lua, 1)}, {NULL, NULL}};
    metric_add(metrics_counter(counters->metrics, "llm_proxy_bus_errors_total",
                               "Calls of a bus plugin's subscription that failed.", labels),
               1);
    return 0;
}

static int lag(lua_State *lua)
{
    const struct counters *counters = &host_of(lua)->counters;
    const struct metric_label labels[] = {{"pipeline", counters->pipeline}, {NULL, NULL}};
    metric_set(metrics_gauge(counters->metrics, "llm_proxy_bus_lag",
                             "Events that wait for the pipeline on the bus it fetches from.", labels),
               (int64_t)luaL_checknumber(lua, 1));
    return 0;
}

void source_push(lua_State *lua, struct host *host)
{
    static const luaL_Reg functions[] = {
        {"put", put},
        {"unreadable", unreadable},
        {"room", room},
        {"wait_for_room", wait_for_room},
        {"settled", settled},
        {"settled_count", settled_count},
        {"wait_for_settled", wait_for_settled},
        {"wake_source", wake_source},
        {"keep_letters", keep_letters},
        {"bus_error", bus_error},
        {"lag", lag},
        {NULL, NULL},
    };
    for (const luaL_Reg *function = functions; function->name != NULL; function++) {
        lua_pushlightuserdata(lua, host);
        lua_pushcclosure(lua, function->func, 1);
        lua_setfield(lua, -2, function->name);
    }
    pthread_once(&named, name_process);
    lua_pushfstring(lua, "%s-%s", process_name, host->pipeline_name);
    lua_setfield(lua, -2, "consumer");
}
