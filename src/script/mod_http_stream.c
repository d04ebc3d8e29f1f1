/*
 * http.stream: an answer that is taken in pieces, as they come. The function waits for the head; read() waits for the next piece. What nobody reads yet is bounded: then the sender has to wait.
 *
 * The answer's table holds the functions, these hold the stream, and the stream the transfer: when nobody has the table any more the transfer is cancelled. A stream is made after the client of its state, so that it is finalized
 * before that when the state is closed.
 */
#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "script/host.h"
#include "script/mod_http.h"

#define DEFAULT_IDLE_TIMEOUT_S 60.0

struct stream {
    struct http_client_transfer *transfer; /* NULL: it is over */
    struct script_wait *wait;              /* of the one task that waits; NULL: none does */
    int anchor;                            /* registry reference to this userdata while a task waits */
    bool begun;                            /* the head was given to the caller */
    unsigned status;
    struct buffer head, rest; /* rest: of the body, when the transfer is over */
    char *error;              /* why it broke; NULL: it did not */
};

static void end_transfer(struct stream *stream)
{
    if (stream->transfer != NULL) {
        http_client_cancel(stream->transfer);
        stream->transfer = NULL;
    }
}

static int free_stream(lua_State *lua)
{
    struct stream *stream = lua_touserdata(lua, 1);
    end_transfer(stream);
    buffer_free(&stream->head);
    buffer_free(&stream->rest);
    free(stream->error);
    stream->error = NULL;
    return 0;
}

/* The state is closed while a task waits. */
static void cancel(void *object)
{
    struct stream *stream = object;
    stream->wait = NULL;
    end_transfer(stream);
}

static struct stream *stream_of(lua_State *lua)
{
    return lua_touserdata(lua, lua_upvalueindex(1));
}

/* Waits; the userdata is on top of the stack. */
static int wait_for_data(lua_State *lua, struct stream *stream)
{
    if (stream->wait != NULL)
        script_raise(lua, "another task waits for this answer already");
    script_check_wait(lua);
    stream->anchor = luaL_ref(lua, LUA_REGISTRYINDEX);
    stream->wait = script_wait(lua, cancel, stream);
    return lua_yield(lua, 0);
}

/* Reading ------------------------------------------------------------------------------------------------ */

/* The next piece if there is one, or the end: how many values were pushed; 0: there is nothing yet. */
static int push_piece(lua_State *lua, struct stream *stream)
{
    struct slice pending =
        stream->transfer != NULL ? http_client_pending(stream->transfer) : buffer_slice(&stream->rest);
    if (pending.size > 0) {
        lua_pushlstring(lua, pending.data, pending.size);
        if (stream->transfer != NULL)
            http_client_took(stream->transfer);
        else
            buffer_clear(&stream->rest);
        return 1;
    }
    if (stream->transfer != NULL)
        return 0;
    lua_pushnil(lua);
    if (stream->error == NULL)
        return 1;
    lua_pushstring(lua, stream->error);
    return 2;
}

/* response:read() -> a piece of the body; nil at its end; nil and a message when it broke */
static int stream_read(lua_State *lua)
{
    struct stream *stream = stream_of(lua);
    int pushed = push_piece(lua, stream);
    if (pushed > 0)
        return pushed;
    lua_pushvalue(lua, lua_upvalueindex(1));
    return wait_for_data(lua, stream);
}

/* response:close(): nothing more of it is wanted */
static int stream_close(lua_State *lua)
{
    struct stream *stream = stream_of(lua);
    if (stream->wait != NULL)
        script_raise(lua, "another task waits for this answer");
    end_transfer(stream);
    buffer_clear(&stream->rest);
    return 0;
}

/* The answer ------------------------------------------------------------------------------------------------ */

/* The userdata is on top of the stack, and is replaced by the table. */
static void push_answer(lua_State *lua, struct stream *stream)
{
    static const luaL_Reg functions[] = {{"read", stream_read}, {"close", stream_close}, {NULL, NULL}};
    lua_createtable(lua, 0, 4);
    for (const luaL_Reg *function = functions; function->name != NULL; function++) {
        lua_pushvalue(lua, -2);
        lua_pushcclosure(lua, function->func, 1);
        script_name_function(lua, "llmproxy.http.stream:", function->name);
        lua_setfield(lua, -2, function->name);
    }
    lua_pushinteger(lua, (lua_Integer)stream->status);
    lua_setfield(lua, -2, "status");
    http_push_headers(lua, buffer_slice(&stream->head));
    lua_setfield(lua, -2, "headers");
    lua_remove(lua, -2);
}

static int push_results(lua_State *lua, void *argument)
{
    struct stream *stream = argument;
    lua_rawgeti(lua, LUA_REGISTRYINDEX, stream->anchor);
    luaL_unref(lua, LUA_REGISTRYINDEX, stream->anchor);
    if (stream->begun)
        return push_piece(lua, stream);
    if (stream->transfer == NULL && stream->status == 0)
        return script_fail(lua, "%s", stream->error != NULL ? stream->error : "there was no answer");
    stream->begun = true;
    push_answer(lua, stream);
    return 1;
}

static void resume(struct stream *stream)
{
    struct script_wait *wait = stream->wait;
    if (wait != NULL) {
        stream->wait = NULL;
        script_resume(wait, push_results, stream);
    }
}

static void keep_head(struct stream *stream, unsigned status, struct slice head)
{
    stream->status = status;
    buffer_clear(&stream->head);
    buffer_append_slice(&stream->head, head);
}

static void on_data(void *owner)
{
    struct stream *stream = owner;
    unsigned status;
    struct slice head;
    if (!stream->begun && http_client_head(stream->transfer, &status, &head))
        keep_head(stream, status, head);
    if (!stream->begun || http_client_pending(stream->transfer).size > 0)
        resume(stream);
}

static void on_end(void *owner, const struct http_client_response *response)
{
    struct stream *stream = owner;
    stream->transfer = NULL;
    if (response->error != NULL)
        stream->error = xstrdup(response->error);
    else if (!stream->begun)
        keep_head(stream, response->status, response->head);
    buffer_append_slice(&stream->rest, response->body);
    resume(stream);
}

static struct stream *push_stream(lua_State *lua)
{
    struct stream *stream = lua_newuserdata(lua, sizeof(*stream));
    *stream = (struct stream){.anchor = LUA_NOREF};
    lua_createtable(lua, 0, 1);
    lua_pushcfunction(lua, free_stream);
    lua_setfield(lua, -2, "__gc");
    lua_setmetatable(lua, -2);
    return stream;
}

/* An answer that somebody else gave, on top of the stack, as a stream. */
static int push_given(lua_State *lua)
{
    int given = lua_gettop(lua);
    struct stream *stream = push_stream(lua);
    struct slice body;
    lua_getfield(lua, given, "status");
    lua_getfield(lua, given, "body");
    stream->status = (unsigned)lua_tointeger(lua, -2);
    body.data = lua_tolstring(lua, -1, &body.size);
    if (body.data != NULL)
        buffer_append_slice(&stream->rest, body);
    lua_pop(lua, 2);
    push_answer(lua, stream);
    lua_getfield(lua, given, "headers");
    lua_setfield(lua, -2, "headers");
    return 1;
}

int http_stream(lua_State *lua)
{
    struct http_client_request request = {0};
    http_read_request(lua, NULL, &request);
    script_check_wait(lua);
    if (!http_is_address(slice_of(request.url)))
        return script_fail(lua, "url: not an http or https address");
    if (http_is_intercepted(lua, &request)) {
        if (lua_isnil(lua, -2))
            return 2;
        lua_pop(lua, 1);
        return push_given(lua);
    }
    lua_getfield(lua, 1, "timeout");
    if (lua_isnil(lua, -1))
        request.timeout_s = 0;
    if (request.idle_timeout_s == 0)
        request.idle_timeout_s = DEFAULT_IDLE_TIMEOUT_S;
    request.on_data = on_data;
    struct http_client *client = http_client_of(lua);
    struct stream *stream = push_stream(lua);
    stream->transfer = http_client_start(client, &request, on_end, stream);
    return wait_for_data(lua, stream);
}
