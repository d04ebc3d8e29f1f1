/* See trace.h. */
#include "script/trace.h"

#include <lauxlib.h>
#include <string.h>

#define RUNTIME_FOLDER "/lua/llmproxy/"
#define MOST_CALLS     20

/* The call at that level, if its author is not us. */
static bool is_users(lua_State *coroutine, lua_Debug *frame)
{
    lua_getinfo(coroutine, "nSl", frame);
    return (frame->source[0] == '@' || frame->source[0] == '=') && frame->currentline > 0 &&
           strstr(frame->source, RUNTIME_FOLDER) == NULL;
}

bool trace_push_place(lua_State *lua)
{
    lua_Debug frame;
    for (int level = 0; lua_getstack(lua, level, &frame) != 0; level++) {
        if (is_users(lua, &frame)) {
            lua_pushfstring(lua, "%s:%d", frame.source + 1, frame.currentline);
            return true;
        }
    }
    return false;
}

static void push_call(lua_State *lua, const lua_Debug *frame)
{
    lua_pushfstring(lua, "%s:%d", frame->source + 1, frame->currentline);
    if (frame->what[0] == 'm') {
        lua_pushliteral(lua, " in the main chunk");
    } else if (frame->name != NULL) {
        lua_pushfstring(lua, " in function '%s'", frame->name);
    } else {
        lua_pushfstring(lua, " in the function of line %d", frame->linedefined);
    }
    lua_concat(lua, 2);
}

void trace_push(lua_State *lua, lua_State *coroutine)
{
    lua_Debug frame;
    int calls = 0;
    luaL_checkstack(lua, 6, NULL);
    lua_pushliteral(lua, "");
    for (int level = 0; calls < MOST_CALLS && lua_getstack(coroutine, level, &frame) != 0; level++) {
        if (is_users(coroutine, &frame)) {
            lua_pushstring(lua, calls++ > 0 ? "\n" : "");
            push_call(lua, &frame);
            lua_concat(lua, 3);
        }
    }
}

void trace_complete_name(lua_State *lua, lua_State *coroutine)
{
    lua_Debug frame;
    const char *message = lua_tostring(lua, -1);
    const char *colon = message != NULL && strncmp(message, "...", 3) == 0 ? strchr(message, ':') : NULL;
    size_t size = colon != NULL ? (size_t)(colon - message) - 3 : 0;
    for (int level = 0; size > 0 && lua_getstack(coroutine, level, &frame) != 0; level++) {
        lua_getinfo(coroutine, "S", &frame);
        size_t whole = strlen(frame.source);
        if (frame.source[0] == '@' && whole > size &&
            memcmp(frame.source + whole - size, message + 3, size) == 0) {
            lua_pushfstring(lua, "%s%s", frame.source + 1, colon);
            lua_replace(lua, -2);
            return;
        }
    }
}
