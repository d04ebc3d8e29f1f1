/* See pattern_match.h. */
#include "script/pattern_match.h"

#include <lauxlib.h>
#include <string.h>

#include "script/host.h"

#define DEEPEST           200
#define STEPS_BEFORE_LOOK (1u << 14)

void matcher_start(struct matcher *matcher, lua_State *lua, const char *text, size_t size)
{
    *matcher = (struct matcher){.lua = lua, .text = text, .end = text + size};
}

static inline void step(struct matcher *matcher)
{
    if (++matcher->steps >= STEPS_BEFORE_LOOK) {
        matcher->steps = 0;
        script_check_time(matcher->lua);
    }
}

void matcher_step(struct matcher *matcher)
{
    step(matcher);
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
    if (*p == PATTERN_ESCAPE) {
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
        if (*p++ == PATTERN_ESCAPE && *p != '\0') {
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
        if (*set == PATTERN_ESCAPE) {
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
    case PATTERN_ESCAPE:
        return is_of_class(c, (unsigned char)p[1]);
    case '[':
        return is_in_set(matcher, c, p, p_end - 1);
    default:
        return (unsigned char)*p == c;
    }
}

/* Matching ------------------------------------------------------------------------------------------------------------------------------------------------------------------ */

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
        const char *found = matcher_match(matcher, s + count, p_end + 1);
        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

static const char *match_fewest(struct matcher *matcher, const char *s, const char *p, const char *p_end)
{
    for (;;) {
        const char *found = matcher_match(matcher, s, p_end + 1);
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
    if (matcher->level >= LUA_MAXCAPTURES) {
        luaL_error(matcher->lua, "too many captures");
    }
    matcher->captures[matcher->level++] = (struct capture){s, size};
    const char *found = matcher_match(matcher, s, p);
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
    const char *found = matcher_match(matcher, s, p);
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

const char *matcher_match(struct matcher *matcher, const char *s, const char *p)
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
        if (*p == PATTERN_ESCAPE && (p[1] == 'b' || p[1] == 'f' || is_digit((unsigned char)p[1]))) {
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
            found = single ? matcher_match(matcher, s + 1, p_end + 1) : NULL;
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
