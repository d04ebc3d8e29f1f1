/*
 * pattern_match: whether a Lua pattern matches at a place of a text, for the functions of pattern.h.
 *
 * A matcher walks along pattern and text at once and calls itself where it may have to come back: at captures and repetitions. As in Lua 5.1 a pattern ends at its first NUL byte (%z stands for one in the text), and a
 * text may have any bytes. Raises what is wrong with the pattern, and the watchdog's error when time is over.
 */
#ifndef SCRIPT_PATTERN_MATCH_H
#define SCRIPT_PATTERN_MATCH_H

#include <lua.h>
#include <stddef.h>

#define PATTERN_ESCAPE '%'

#define CAPTURE_OPEN     (-1)
#define CAPTURE_POSITION (-2)

struct capture {
    const char *start;
    ptrdiff_t size; /* or one of the above */
};

struct matcher {
    lua_State *lua;
    const char *text, *end;
    int level; /* captures begun; to be set to 0, as depth, before each match */
    int depth;
    unsigned steps;
    struct capture captures[LUA_MAXCAPTURES];
};

void matcher_start(struct matcher *matcher, lua_State *lua, const char *text, size_t size);
/* One step of work: now and then whether there is still time. */
void matcher_step(struct matcher *matcher);
/* Where a match of the whole pattern that begins at s ends, or NULL. */
const char *matcher_match(struct matcher *matcher, const char *s, const char *pattern);

#endif
