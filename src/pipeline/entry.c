/* Entries are userdata; those in hand are in a list of the host's, the one that was taken first at its head, so that whoever reads the metrics sees how long it has been waiting. */
#include "pipeline/entry.h"

#include <assert.h>
#include <lauxlib.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/memory.h"
#include "pipeline/settle.h"
#include "script/host.h"

/* What a pipeline leaves of an entry to its successor. */
struct legacy {
    struct legacy *next;
    struct ticket ticket;
    struct event_record *event; /* NULL: was not kept */
    struct failure failure;     /* of another part of it; reason NULL: none failed. Strings are owned */
    struct buffer lines;        /* each ended by a newline */
};

struct entry {
    TAILQ_ENTRY(entry) in_hand; /* unless settled */
    struct host *host;
    struct event_record *event; /* NULL: released */
    struct legacy *legacy;      /* of the predecessor; owned */
    struct legacy *left;        /* for the successor; the host's */
    struct ticket ticket;
    bool settled;
};

static const char entry_key; /* its address: the registry's metatable of entries */

/* The entry at the first place of the stack. Only the runtime library calls, which knows what it has. */
static struct entry *entry_of(lua_State *lua)
{
    return lua_touserdata(lua, 1);
}

static void note_oldest(struct host *host)
{
    const struct entry *first = TAILQ_FIRST(&host->entries);
    atomic_store_explicit(&host->oldest_us, first != NULL ? first->ticket.time_us : 0, memory_order_relaxed);
}

static void mark_settled(struct entry *entry)
{
    struct host *host = entry->host;
    entry->settled = true;
    TAILQ_REMOVE(&host->entries, entry, in_hand);
    note_oldest(host);
}

static void come_from_predecessor(struct entry *entry, struct legacy *legacy)
{
    legacy->next = NULL;
    entry->legacy = legacy;
    entry->ticket = legacy->ticket;
    entry->event = legacy->event;
    legacy->event = NULL;
}

static void come_from_bus(struct entry *entry, const struct bus_entry *fetched)
{
    const struct event_fields *fields = event_get(fetched->event);
    struct ticket *ticket = &entry->ticket;
    size_t size = fields->id.size < sizeof ticket->id ? fields->id.size : sizeof ticket->id - 1;
    atomic_fetch_add_explicit(&entry->host->in_hand, 1, memory_order_relaxed);
    entry->event = fetched->event;
    ticket->sequence = fetched->sequence;
    ticket->time_us = fields->time_us;
    if (size > 0)
        memcpy(ticket->id, fields->id.data, size);
}

bool entry_take(struct host *host, lua_State *lua)
{
    struct entry *entry = lua_newuserdata(lua, sizeof *entry);
    struct bus_entry fetched;
    *entry = (struct entry){.host = host, .settled = true};
    lua_pushlightuserdata(lua, (void *)&entry_key);
    lua_rawget(lua, LUA_REGISTRYINDEX);
    lua_setmetatable(lua, -2);
    struct legacy *legacy = host->legacy;
    if (legacy != NULL) {
        host->legacy = legacy->next;
        come_from_predecessor(entry, legacy);
    } else if (bus_fetch(host->subscriber, &fetched, 1, SIZE_MAX) > 0) {
        come_from_bus(entry, &fetched);
    } else {
        lua_pop(lua, 1);
        return false;
    }
    entry->settled = false;
    TAILQ_INSERT_TAIL(&host->entries, entry, in_hand);
    note_oldest(host);
    return true;
}

static int entry_id(lua_State *lua)
{
    lua_pushstring(lua, entry_of(lua)->ticket.id);
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
    struct buffer *out = host_empty_out(entry->host);
    if (lua_istable(lua, 2)) {
        if (!event_table_encode(lua, 2, entry->event, &entry->host->scratch, out, &error))
            return host_push_failure(lua, &error);
    } else {
        assert(entry->event != NULL);
        event_write_json(entry->event, entry->host->max_decoded_bytes, out);
    }
    return host_push_line(lua, out);
}

void entry_free_legacies(struct legacy *legacy)
{
    while (legacy != NULL) {
        struct legacy *next = legacy->next;
        event_record_release(legacy->event);
        free((void *)(uintptr_t)legacy->failure.reason);
        free((void *)(uintptr_t)legacy->failure.error);
        free((void *)(uintptr_t)legacy->failure.where);
        buffer_free(&legacy->lines);
        free(legacy);
        legacy = next;
    }
}

static void release(struct entry *entry, bool keep_event)
{
    if (!keep_event) {
        event_record_release(entry->event);
        entry->event = NULL;
    }
    entry_free_legacies(entry->legacy);
    entry->legacy = NULL;
}

static int entry_release(lua_State *lua)
{
    struct entry *entry = entry_of(lua);
    release(entry, entry->host->dead_letters != NULL);
    return 0;
}

static int collect(lua_State *lua)
{
    struct entry *entry = entry_of(lua);
    if (!entry->settled)
        mark_settled(entry);
    release(entry, false);
    return 0;
}

/* The arguments from this place on; its strings are Lua's. */
static struct failure failure_at(lua_State *lua, int index)
{
    return (struct failure){
        .reason = lua_tostring(lua, index),
        .error = lua_tostring(lua, index + 1),
        .where = lua_tostring(lua, index + 2),
        .tries = (uint32_t)lua_tonumber(lua, index + 3),
        .first_us = (uint64_t)(lua_tonumber(lua, index + 4) * 1e6),
        .last_us = (uint64_t)(lua_tonumber(lua, index + 5) * 1e6),
    };
}

static int push_failed_part(lua_State *lua, const struct failure *failure)
{
    lua_pushstring(lua, failure->reason);
    lua_pushstring(lua, failure->error);
    lua_pushstring(lua, failure->where);
    lua_pushnumber(lua, failure->tries);
    lua_pushnumber(lua, (double)failure->first_us / 1e6);
    lua_pushnumber(lua, (double)failure->last_us / 1e6);
    return 6;
}

static char *copy_of(const char *text)
{
    return text != NULL ? xstrdup(text) : NULL;
}

static int entry_leave(lua_State *lua)
{
    struct entry *entry = entry_of(lua);
    struct host *host = entry->host;
    if (entry->left == NULL) {
        assert(!entry->settled);
        struct legacy *left = xcalloc(1, sizeof *left);
        left->ticket = entry->ticket;
        left->failure = failure_at(lua, 3);
        left->failure.reason = copy_of(left->failure.reason);
        left->failure.error = copy_of(left->failure.error);
        left->failure.where = copy_of(left->failure.where);
        if (host->dead_letters != NULL) {
            left->event = entry->event;
            entry->event = NULL;
        }
        *host->left_end = left;
        host->left_end = &left->next;
        entry->left = left;
        mark_settled(entry);
    }
    buffer_append(&entry->left->lines, lua_touserdata(lua, 2), lua_objlen(lua, 2));
    buffer_append_char(&entry->left->lines, '\n');
    release(entry, false);
    return 0;
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
    return legacy->failure.reason != NULL ? 1 + push_failed_part(lua, &legacy->failure) : 1;
}

static int entry_settle(lua_State *lua)
{
    struct entry *entry = entry_of(lua);
    bool delivered = strcmp(luaL_checkstring(lua, 2), outcome_name(OUTCOME_DELIVERED)) == 0;
    if (entry->settled)
        return 0;
    mark_settled(entry);
    settle(entry->host, &entry->ticket, delivered ? OUTCOME_DELIVERED : OUTCOME_FILTERED);
    release(entry, false);
    return 0;
}

static int entry_fail(lua_State *lua)
{
    struct entry *entry = entry_of(lua);
    const struct failure failure = failure_at(lua, 2);
    if (entry->settled)
        return 0;
    assert(failure.reason != NULL);
    mark_settled(entry);
    uint64_t begun = script_begin_blocking(lua);
    settle_failed(entry->host, &entry->ticket, entry->event, &failure);
    script_end_blocking(lua, begun);
    release(entry, false);
    return 0;
}

void entry_register(lua_State *lua)
{
    static const luaL_Reg functions[] = {
        {"id", entry_id},           {"event", entry_event},   {"encode", entry_encode},
        {"release", entry_release}, {"settle", entry_settle}, {"fail", entry_fail},
        {"leave", entry_leave},     {"legacy", entry_legacy}, {NULL, NULL},
    };
    lua_pushlightuserdata(lua, (void *)&entry_key);
    lua_newtable(lua);
    lua_pushcfunction(lua, collect);
    lua_setfield(lua, -2, "__gc");
    lua_newtable(lua);
    for (const luaL_Reg *function = functions; function->name != NULL; function++) {
        lua_pushcfunction(lua, function->func);
        lua_setfield(lua, -2, function->name);
    }
    lua_setfield(lua, -2, "__index");
    lua_rawset(lua, LUA_REGISTRYINDEX);
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
