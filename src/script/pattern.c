/*
 * See pattern.h. A matcher walks along pattern and text at once and calls itself where it may have to come back: at captures and repetitions. As in Lua 5.1 a pattern ends at its first NUL byte (%z stands for one in the text), and a text
 * may have any bytes.
 *
 * Lua may raise anywhere here: nothing is held that it does not own.
 */
#include "script/pattern.h"

#include <lauxlib.h>
#include <string.h>

#include "script/host.h"
#include "script/state.h"

#define ESCAPE            '%'
#define SPECIALS          "^$*+?.([%-"
#define MOST_CAPTURES     LUA_MAXCAPTURES
#define DEEPEST           200
#define STEPS_BEFORE_LOOK (1u << 14)

#define CAPTURE_OPEN     (-1)
#define CAPTURE_POSITION (-2)

struct capture {
    const char *start;
    ptrdiff_t size; /* or one of the above */
};

struct matcher {
    lua_State *lua;
    const char *text, *end;
    int level; /* captures begun */
    int depth;
    unsigned steps;
    struct capture captures[MOST_CAPTURES];
};

static void start(struct matcher *matcher, lua_State *lua, const char *text, size_t size)
{
    *matcher = (struct matcher){.lua = lua, .text = text, .end = text + size};
}

/* One step of work: now and then whether there is still time. */
static inline void step(struct matcher *matcher)
{
    if (++matcher->steps >= STEPS_BEFORE_LOOK) {
        matcher->steps = 0;
        script_check_time(matcher->lua);
    }
}

/* Characters --------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static inline bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static inline bool is_lower(unsigned char c)
{
    return c >= 'a' && c <= 'z';
}

static inline bool is_upper(unsigned char c)
{
    return c >= 'A' && c <= 'Z';
}

static inline bool is_graph(unsigned char c)
{
    return c > ' ' && c < 0x7f;
}

static inline bool is_alnum(unsigned char c)
{
    return is_digit(c) || is_lower(c) || is_upper(c);
}

/* Whether c is of the class that a letter behind "%" names; another character stands for itself. ASCII alone has classes. */
static bool is_of_class(unsigned char c, unsigned char class)
{
    bool is;
    switch (class | 0x20) {
    case 'a':
        is = is_lower(c) || is_upper(c);
        break;
    case 'c':
        is = c < ' ' || c == 0x7f;
        break;
    case 'd':
        is = is_digit(c);
        break;
    case 'g':
        is = is_graph(c);
        break;
    case 'l':
        is = is_lower(c);
        break;
    case 'p':
        is = is_graph(c) && !is_alnum(c);
        break;
    case 's':
        is = c == ' ' || (c >= '\t' && c <= '\r');
        break;
    case 'u':
        is = is_upper(c);
        break;
    case 'w':
        is = is_alnum(c);
        break;
    case 'x':
        is = is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
        break;
    case 'z':
        is = c == '\0';
        break;
    default:
        return class == c;
    }
    if (!is_lower(class) && !is_upper(class)) {
        return class == c;
    }
    return is_upper(class) ? !is : is;
}

/* Behind the single character class that begins at p. */
static const char *class_end(struct matcher *matcher, const char *p)
{
    if (*p == ESCAPE) {
        if (p[1] == '\0') {
            luaL_error(matcher->lua, "malformed pattern (ends with '%%')");
        }
        return p + 2;
    }
    if (*p++ != '[') {
        return p;
    }
    if (*p == '^') {
        p++;
    }
    do { /* a "]" right at the beginning stands for itself */
        step(matcher);
        if (*p == '\0') {
            luaL_error(matcher->lua, "malformed pattern (missing ']')");
        }
        if (*p++ == ESCAPE && *p != '\0') {
            p++;
        }
    } while (*p != ']');
    return p + 1;
}

/* set: its "["; last: its "]". */
static bool is_in_set(struct matcher *matcher, unsigned char c, const char *set, const char *last)
{
    bool found = true;
    if (set[1] == '^') {
        found = false;
        set++;
    }
    while (++set < last) {
        step(matcher);
        if (*set == ESCAPE) {
            set++;
            if (is_of_class(c, (unsigned char)*set)) {
                return found;
            }
        } else if (set[1] == '-' && set + 2 < last) {
            set += 2;
            if ((unsigned char)set[-2] <= c && c <= (unsigned char)*set) {
                return found;
            }
        } else if ((unsigned char)*set == c) {
            return found;
        }
    }
    return !found;
}

/* Whether the character at s is one of the class from p to before p_end. */
static bool is_single(struct matcher *matcher, const char *s, const char *p, const char *p_end)
{
    step(matcher);
    if (s >= matcher->end) {
        return false;
    }
    unsigned char c = (unsigned char)*s;
    switch (*p) {
    case '.':
        return true;
    case ESCAPE:
        return is_of_class(c, (unsigned char)p[1]);
    case '[':
        return is_in_set(matcher, c, p, p_end - 1);
    default:
        return (unsigned char)*p == c;
    }
}

/* Matching ------------------------------------------------------------------------------------------------------------------------------------------------------------------ */

static const char *match(struct matcher *matcher, const char *s, const char *p);

/* "%bxy": from x to the y that closes it; p is behind "%b". */
static const char *match_balance(struct matcher *matcher, const char *s, const char *p)
{
    if (p[0] == '\0' || p[1] == '\0') {
        luaL_error(matcher->lua, "unbalanced pattern");
    }
    if (s >= matcher->end || *s != p[0]) {
        return NULL;
    }
    for (size_t open = 1; ++s < matcher->end;) {
        step(matcher);
        if (*s == p[1]) {
            if (--open == 0) {
                return s + 1;
            }
        } else if (*s == p[0]) {
            open++;
        }
    }
    return NULL;
}

static const char *match_most(struct matcher *matcher, const char *s, const char *p, const char *p_end)
{
    ptrdiff_t count = 0;
    while (is_single(matcher, s + count, p, p_end)) {
        count++;
    }
    for (; count >= 0; count--) {
        const char *found = match(matcher, s + count, p_end + 1);
        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

static const char *match_fewest(struct matcher *matcher, const char *s, const char *p, const char *p_end)
{
    for (;;) {
        const char *found = match(matcher, s, p_end + 1);
        if (found != NULL) {
            return found;
        }
        if (!is_single(matcher, s, p, p_end)) {
            return NULL;
        }
        s++;
    }
}

static const char *begin_capture(struct matcher *matcher, const char *s, const char *p, ptrdiff_t size)
{
    if (matcher->level >= MOST_CAPTURES) {
        luaL_error(matcher->lua, "too many captures");
    }
    matcher->captures[matcher->level++] = (struct capture){s, size};
    const char *found = match(matcher, s, p);
    if (found == NULL) {
        matcher->level--;
    }
    return found;
}

static const char *end_capture(struct matcher *matcher, const char *s, const char *p)
{
    int open = matcher->level - 1;
    while (open >= 0 && matcher->captures[open].size != CAPTURE_OPEN) {
        open--;
    }
    if (open < 0) {
        luaL_error(matcher->lua, "invalid pattern capture");
    }
    matcher->captures[open].size = s - matcher->captures[open].start;
    const char *found = match(matcher, s, p);
    if (found == NULL) {
        matcher->captures[open].size = CAPTURE_OPEN;
    }
    return found;
}

/* "%1": what was captured once more. */
static const char *match_capture(struct matcher *matcher, const char *s, char digit)
{
    int index = digit - '1';
    if (index < 0 || index >= matcher->level || matcher->captures[index].size == CAPTURE_OPEN) {
        luaL_error(matcher->lua, "invalid capture index");
    }
    size_t size = (size_t)matcher->captures[index].size; /* of a position: larger than any text */
    if ((size_t)(matcher->end - s) < size || memcmp(matcher->captures[index].start, s, size) != 0) {
        return NULL;
    }
    matcher->steps += (unsigned)(size / 16);
    return s + size;
}

/* "%f[set]" between two characters; p is behind "%f". Where the set ends, or NULL. */
static const char *match_frontier(struct matcher *matcher, const char *s, const char *p)
{
    if (*p != '[') {
        luaL_error(matcher->lua, "missing '[' after '%%f' in pattern");
    }
    const char *p_end = class_end(matcher, p);
    unsigned char before = s > matcher->text ? (unsigned char)s[-1] : '\0';
    unsigned char here = s < matcher->end ? (unsigned char)*s : '\0';
    bool is = !is_in_set(matcher, before, p, p_end - 1) && is_in_set(matcher, here, p, p_end - 1);
    return is ? p_end : NULL;
}

/* What does not end a match but goes on behind it. s: where the match goes on, or NULL. */
struct progress {
    const char *s, *p;
};

static struct progress match_escape(struct matcher *matcher, const char *s, const char *p)
{
    if (p[1] == 'b') {
        return (struct progress){match_balance(matcher, s, p + 2), p + 4};
    }
    if (p[1] == 'f') {
        const char *p_end = match_frontier(matcher, s, p + 2);
        return (struct progress){p_end != NULL ? s : NULL, p_end};
    }
    return (struct progress){match_capture(matcher, s, p[1]), p + 2};
}

/* Where a match of the whole pattern that begins at s ends, or NULL. */
static const char *match(struct matcher *matcher, const char *s, const char *p)
{
    if (++matcher->depth > DEEPEST) {
        luaL_error(matcher->lua, "pattern too complex");
    }
    const char *found = NULL;
    while (s != NULL) {
        step(matcher);
        if (*p == '\0') {
            found = s;
            break;
        }
        if (*p == '(') {
            bool position = p[1] == ')';
            found = begin_capture(matcher, s, position ? p + 2 : p + 1,
                                  position ? CAPTURE_POSITION : CAPTURE_OPEN);
            break;
        }
        if (*p == ')') {
            found = end_capture(matcher, s, p + 1);
            break;
        }
        if (*p == '$' && p[1] == '\0') {
            found = s == matcher->end ? s : NULL;
            break;
        }
        if (*p == ESCAPE && (p[1] == 'b' || p[1] == 'f' || is_digit((unsigned char)p[1]))) {
            struct progress progress = match_escape(matcher, s, p);
            s = progress.s;
            p = progress.p;
            continue;
        }
        const char *p_end = class_end(matcher, p);
        if (*p_end == '*') {
            found = match_most(matcher, s, p, p_end);
            break;
        }
        if (*p_end == '-') {
            found = match_fewest(matcher, s, p, p_end);
            break;
        }
        if (*p_end == '+') {
            found = is_single(matcher, s, p, p_end) ? match_most(matcher, s + 1, p, p_end) : NULL;
            break;
        }
        bool single = is_single(matcher, s, p, p_end);
        if (*p_end == '?') {
            found = single ? match(matcher, s + 1, p_end + 1) : NULL;
            if (found != NULL) {
                break;
            }
            p = p_end + 1;
        } else if (single) {
            s++;
            p = p_end;
        } else {
            break;
        }
    }
    matcher->depth--;
    return found;
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
    start(&matcher, lua, text, size);
    do {
        matcher.level = matcher.depth = 0;
        const char *end = match(&matcher, s, pattern + anchored);
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
    start(&matcher, lua, text, size);
    for (const char *s = text + (size_t)lua_tointeger(lua, lua_upvalueindex(3)); s <= matcher.end; s++) {
        matcher.level = matcher.depth = 0;
        const char *end = match(&matcher, s, pattern);
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
        if (text[i] != ESCAPE) {
            luaL_addchar(out, text[i]);
            continue;
        }
        i++; /* at the end of a text there is a NUL */
        if (!is_digit((unsigned char)text[i])) {
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
    start(&matcher, lua, text, size);
    luaL_buffinit(lua, &out);
    while (count < most) {
        matcher.level = matcher.depth = 0;
        const char *end = match(&matcher, s, pattern + anchored);
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
