/*
 * See pattern.h. What is a match is in pattern_match.c; here are the four functions.
 *
 * Lua may raise anywhere here: nothing is held that it does not own.
 */
#include "script/pattern.h"

#include <lauxlib.h>
#include <string.h>

#include "script/pattern_match.h"
#include "script/state.h"

#define SPECIALS "^$*+?.([%-"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Results ------------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static void push_capture(struct matcher *matcher, int index, const char *s, const char *end)
{
    lua_State *lua = matcher->lua;
    if (index >= matcher->level) {
        if (index != 0) {
            luaL_error(lua, "invalid capture index");
        }
        lua_pushlstring(lua, s, (size_t)(end - s)); /* the whole match */
        return;
    }
    const struct capture *capture = &matcher->captures[index];
    if (capture->size == CAPTURE_OPEN) {
        luaL_error(lua, "unfinished capture");
    }
    if (capture->size == CAPTURE_POSITION) {
        lua_pushinteger(lua, capture->start - matcher->text + 1);
    } else {
        lua_pushlstring(lua, capture->start, (size_t)capture->size);
    }
}

/* s NULL: no whole match where there are no captures. */
static int push_captures(struct matcher *matcher, const char *s, const char *end)
{
    int count = matcher->level == 0 && s != NULL ? 1 : matcher->level;
    luaL_checkstack(matcher->lua, count, "too many captures");
    for (int i = 0; i < count; i++) {
        push_capture(matcher, i, s, end);
    }
    return count;
}

/* Also behind a NUL byte, where none counts. */
static bool has_specials(const char *pattern, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (pattern[i] != '\0' && strchr(SPECIALS, pattern[i]) != NULL) {
            return true;
        }
    }
    return false;
}

static int find_or_match(lua_State *lua, bool find)
{
    size_t size, pattern_size;
    const char *text = luaL_checklstring(lua, 1, &size), *pattern = luaL_checklstring(lua, 2, &pattern_size);
    ptrdiff_t first = (ptrdiff_t)luaL_optinteger(lua, 3, 1);
    first = first < 0 ? first + (ptrdiff_t)size : first - 1;
    size_t offset = first < 0 ? 0 : (size_t)first > size ? size : (size_t)first;
    const char *s = text + offset;
    if (find && (lua_toboolean(lua, 4) || !has_specials(pattern, pattern_size))) {
        const char *found = pattern_size == 0 ? s : memmem(s, size - offset, pattern, pattern_size);
        if (found == NULL) {
            lua_pushnil(lua);
            return 1;
        }
        lua_pushinteger(lua, found - text + 1);
        lua_pushinteger(lua, found - text + (ptrdiff_t)pattern_size);
        return 2;
    }
    struct matcher matcher;
    bool anchored = *pattern == '^';
    matcher_start(&matcher, lua, text, size);
    do {
        matcher.level = matcher.depth = 0;
        const char *end = matcher_match(&matcher, s, pattern + anchored);
        if (end != NULL) {
            if (!find) {
                return push_captures(&matcher, s, end);
            }
            lua_pushinteger(lua, s - text + 1);
            lua_pushinteger(lua, end - text);
            return push_captures(&matcher, NULL, NULL) + 2;
        }
    } while (s++ < matcher.end && !anchored);
    lua_pushnil(lua);
    return 1;
}

static int pattern_find(lua_State *lua)
{
    return find_or_match(lua, true);
}

static int pattern_match(lua_State *lua)
{
    return find_or_match(lua, false);
}

/* Upvalues: text, pattern, where to go on. */
static int gmatch_next(lua_State *lua)
{
    size_t size;
    const char *text = lua_tolstring(lua, lua_upvalueindex(1), &size),
               *pattern = lua_tostring(lua, lua_upvalueindex(2));
    struct matcher matcher;
    matcher_start(&matcher, lua, text, size);
    for (const char *s = text + (size_t)lua_tointeger(lua, lua_upvalueindex(3)); s <= matcher.end; s++) {
        matcher.level = matcher.depth = 0;
        const char *end = matcher_match(&matcher, s, pattern);
        if (end != NULL) {
            lua_pushinteger(lua,
                            end - text + (end == s)); /* behind an empty match by one, not to find it again */
            lua_replace(lua, lua_upvalueindex(3));
            return push_captures(&matcher, s, end);
        }
    }
    return 0;
}

static int pattern_gmatch(lua_State *lua)
{
    luaL_checkstring(lua, 1);
    luaL_checkstring(lua, 2);
    lua_settop(lua, 2);
    lua_pushinteger(lua, 0);
    lua_pushcclosure(lua, gmatch_next, 3);
    return 1;
}

/* The replacement as a text: "%1" stands for a capture, "%0" for the match, "%" and anything else for that. */
static void add_text(struct matcher *matcher, luaL_Buffer *out, const char *s, const char *end)
{
    size_t size;
    const char *text = lua_tolstring(matcher->lua, 3, &size);
    for (size_t i = 0; i < size; i++) {
        matcher_step(matcher);
        if (text[i] != PATTERN_ESCAPE) {
            luaL_addchar(out, text[i]);
            continue;
        }
        i++; /* at the end of a text there is a NUL */
        if (!is_digit(text[i])) {
            luaL_addchar(out, text[i]);
        } else if (text[i] == '0') {
            luaL_addlstring(out, s, (size_t)(end - s));
        } else {
            push_capture(matcher, text[i] - '1', s, end);
            luaL_addvalue(out);
        }
    }
}

static void add_replacement(struct matcher *matcher, luaL_Buffer *out, const char *s, const char *end)
{
    lua_State *lua = matcher->lua;
    int kind = lua_type(lua, 3);
    if (kind == LUA_TNUMBER || kind == LUA_TSTRING) {
        add_text(matcher, out, s, end);
        return;
    }
    if (kind == LUA_TFUNCTION) {
        lua_pushvalue(lua, 3);
        lua_call(lua, push_captures(matcher, s, end), 1);
    } else {
        push_capture(matcher, 0, s, end);
        lua_gettable(lua, 3);
    }
    if (!lua_toboolean(lua, -1)) {
        lua_pop(lua, 1);
        lua_pushlstring(lua, s, (size_t)(end - s));
    } else if (!lua_isstring(lua, -1)) {
        luaL_error(lua, "invalid replacement value (a %s)", luaL_typename(lua, -1));
    }
    luaL_addvalue(out);
}

static int pattern_gsub(lua_State *lua)
{
    size_t size;
    if (script_is_deep(script_of(
            lua))) { /* the buffer takes much of the thread's stack, and a replacement may call this again */
        return luaL_error(lua, "stack overflow");
    }
    const char *text = luaL_checklstring(lua, 1, &size), *pattern = luaL_checkstring(lua, 2), *s = text;
    int kind = lua_type(lua, 3);
    bool anchored = *pattern == '^';
    lua_Integer most = luaL_optinteger(lua, 4, (lua_Integer)size + 1), count = 0;
    if (kind != LUA_TNUMBER && kind != LUA_TSTRING && kind != LUA_TFUNCTION && kind != LUA_TTABLE) {
        luaL_argerror(lua, 3, "string/function/table expected");
    }
    struct matcher matcher;
    luaL_Buffer out;
    matcher_start(&matcher, lua, text, size);
    luaL_buffinit(lua, &out);
    while (count < most) {
        matcher.level = matcher.depth = 0;
        const char *end = matcher_match(&matcher, s, pattern + anchored);
        if (end != NULL) {
            count++;
            add_replacement(&matcher, &out, s, end);
        }
        if (end != NULL && end > s) {
            s = end;
        } else if (s < matcher.end) {
            luaL_addchar(&out, *s++);
        } else {
            break;
        }
        if (anchored) {
            break;
        }
    }
    luaL_addlstring(&out, s, (size_t)(matcher.end - s));
    luaL_pushresult(&out);
    lua_pushinteger(lua, count);
    return 2;
}

void pattern_open(lua_State *lua)
{
    static const luaL_Reg functions[] = {{"find", pattern_find},
                                         {"match", pattern_match},
                                         {"gmatch", pattern_gmatch},
                                         {"gsub", pattern_gsub},
                                         {NULL, NULL}};
    for (const luaL_Reg *function = functions; function->name != NULL; function++) {
        lua_pushcfunction(lua, function->func);
        lua_setfield(lua, -2, function->name);
    }
}
