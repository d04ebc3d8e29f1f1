/*
 * llmproxy.regex: regular expressions of PCRE2, for texts nobody vouches for. Documented in lua/llmproxy/meta/regex.lua.
 *
 * The time is linear in the text, whatever the pattern: a text is searched in windows, one call of PCRE2 each. A match begins in its window and has at most `longest` bytes, so no call sees more than the two together, and
 * from one start PCRE2 takes MATCH_LIMIT steps at most. Between windows the watchdog's deadline is looked at. What runs into a limit raises: who searches for secrets must know that nothing was found from that nothing is there.
 *
 * Texts are UTF-8. A window that is not is searched by a second code, which takes bytes that are no characters for what no pattern matches; it costs a check of PCRE2's own for each call, the first one does not.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/utf8.h"
#include "script/host.h"
#include "script/modules.h"

#define REGEX           "llmproxy.regex"
#define WINDOW          2048
#define DEFAULT_LONGEST 8192
#define MOST_LONGEST    65536
#define MATCH_LIMIT     5000
#define HEAP_LIMIT_KIB  4096
#define LONGEST_PATTERN 16384
#define LOOK_BEHIND     64 /* bytes that a window sees before it, at least */

struct regex {
    pcre2_code *code, *tolerant; /* of valid UTF-8, of anything */
    pcre2_match_data *match;
    pcre2_match_context *context;
    size_t longest, look_behind;
};

struct search {
    const struct regex *regex;
    struct slice text; /* up to where the search ends */
    bool is_cut;       /* there was more of it */
    size_t from;       /* where the next match may begin */
    size_t first, end; /* of the last match: bytes from 0 */
    size_t valid_end;  /* from where windows begin up to here the text is known to be UTF-8 */
    const PCRE2_SIZE *vector;
    size_t base; /* what the vector counts from */
};

static struct regex *check_regex(lua_State *lua)
{
    struct regex *regex = lua_touserdata(lua, 1);
    bool fits = false;
    if (regex != NULL && lua_getmetatable(lua, 1)) {
        luaL_getmetatable(lua, REGEX);
        fits = lua_rawequal(lua, -1, -2) != 0;
        lua_pop(lua, 2);
    }
    if (!fits)
        script_argument_error(lua, 1, "regex", "a regex: write regex:method(text)");
    return regex;
}

static int collect(lua_State *lua)
{
    struct regex *regex = lua_touserdata(lua, 1);
    pcre2_code_free(regex->code);
    pcre2_code_free(regex->tolerant);
    pcre2_match_data_free(regex->match);
    pcre2_match_context_free(regex->context);
    *regex = (struct regex){0};
    return 0;
}

/* compile -------------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static bool option(lua_State *lua, const char *name)
{
    if (!lua_istable(lua, 2))
        return false;
    lua_getfield(lua, 2, name);
    bool set = lua_toboolean(lua, -1) != 0;
    lua_pop(lua, 1);
    return set;
}

static size_t longest_option(lua_State *lua)
{
    double longest = DEFAULT_LONGEST;
    if (lua_istable(lua, 2)) {
        lua_getfield(lua, 2, "longest");
        if (!lua_isnil(lua, -1))
            longest = script_check_number(lua, -1, "longest");
        lua_pop(lua, 1);
    }
    if (!(longest >= 1 && longest <= MOST_LONGEST))
        script_raise(lua, "longest: expected a number from 1 to %d", MOST_LONGEST);
    return (size_t)longest;
}

static pcre2_code *compile_code(struct slice pattern, uint32_t flags, char *message, size_t size)
{
    int number;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern.data, pattern.size, flags, &number, &offset, NULL);
    if (code == NULL) {
        PCRE2_UCHAR text[160];
        pcre2_get_error_message(number, text, sizeof text);
        snprintf(message, size, "at byte %zu of the pattern: %s", (size_t)offset + 1, (const char *)text);
        return NULL;
    }
    /* Without memory that may be executed the interpreter does it. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    return code;
}

/* regex.compile(pattern, options) -> regex, or nil and a message */
static int compile(lua_State *lua)
{
    struct slice pattern = script_check_string(lua, 1, "pattern");
    if (!lua_isnoneornil(lua, 2))
        script_check_table(lua, 2, "options");
    uint32_t flags = PCRE2_UTF | PCRE2_USE_OFFSET_LIMIT | PCRE2_NEVER_BACKSLASH_C;
    flags |= option(lua, "ignore_case") ? PCRE2_CASELESS : 0;
    flags |= option(lua, "multiline") ? PCRE2_MULTILINE : 0;
    flags |= option(lua, "dot_all") ? PCRE2_DOTALL : 0;
    flags |= option(lua, "extended") ? PCRE2_EXTENDED : 0;
    size_t longest = longest_option(lua);
    if (pattern.size > LONGEST_PATTERN)
        return script_fail(lua, "the pattern is longer than %d bytes", LONGEST_PATTERN);

    struct regex *regex = lua_newuserdata(lua, sizeof *regex);
    *regex = (struct regex){.longest = longest};
    luaL_getmetatable(lua, REGEX);
    lua_setmetatable(lua, -2);

    char message[256];
    regex->code = compile_code(pattern, flags, message, sizeof message);
    if (regex->code == NULL)
        return script_fail(lua, "%s", message);
    regex->tolerant = compile_code(pattern, flags | PCRE2_MATCH_INVALID_UTF, message, sizeof message);
    if (regex->tolerant == NULL)
        return script_fail(lua, "%s", message);
    regex->match = pcre2_match_data_create_from_pattern(regex->code, NULL);
    regex->context = pcre2_match_context_create(NULL);
    if (regex->match == NULL || regex->context == NULL)
        return luaL_error(lua, "not enough memory");
    pcre2_set_match_limit(regex->context, MATCH_LIMIT);
    pcre2_set_heap_limit(regex->context, HEAP_LIMIT_KIB);
    uint32_t characters = 0;
    pcre2_pattern_info(regex->code, PCRE2_INFO_MAXLOOKBEHIND, &characters);
    regex->look_behind = LOOK_BEHIND + 4 * (size_t)characters;
    return 1;
}

/* searching ------------------------------------------------------------------------------------------------------------------------------------------------------------------ */

static bool continues_character(struct slice text, size_t at)
{
    return at < text.size && ((unsigned char)text.data[at] & 0xc0) == 0x80;
}

/* The position, or where the character ends that it is inside of. Bytes that are no character are not skipped. */
static size_t after_character(struct slice text, size_t at)
{
    for (int i = 0; i < 3 && continues_character(text, at); i++)
        at++;
    return at;
}

/* The position, or where the character begins that it is inside of, not before `least`. */
static size_t before_character(struct slice text, size_t at, size_t least)
{
    for (int i = 0; i < 3 && at > least && continues_character(text, at); i++)
        at--;
    return at;
}

/* The bytes of a position counted from 1; absent: the default. */
static size_t check_position(lua_State *lua, int index, const char *argument, size_t fallback)
{
    if (lua_isnoneornil(lua, index))
        return fallback;
    double position = script_check_number(lua, index, argument);
    if (!(position >= 0 && position < 9007199254740992.0))
        script_raise(lua, "%s: expected a position from 1 on", argument);
    return (size_t)position;
}

/* From the arguments (regex, text, init, last), the positions at `index` and the next. */
static struct search begin_search(lua_State *lua, int index)
{
    struct search search = {.regex = check_regex(lua), .text = script_check_string(lua, 2, "text")};
    size_t init = check_position(lua, index, "init", 1);
    size_t last = check_position(lua, index + 1, "last", search.text.size);
    if (last < search.text.size) {
        search.is_cut = true;
        search.text.size = before_character(search.text, last, 0);
    }
    search.from = init > 0 ? init - 1 : 0;
    return search;
}

_Noreturn static void raise_failure(lua_State *lua, int number)
{
    PCRE2_UCHAR text[160];
    if (number == PCRE2_ERROR_MATCHLIMIT || number == PCRE2_ERROR_HEAPLIMIT ||
        number == PCRE2_ERROR_DEPTHLIMIT || number == PCRE2_ERROR_JIT_STACKLIMIT)
        script_raise(lua, "the pattern takes too many steps on this text: bound its repetitions ({0,64}), or "
                          "make them possessive (*+)");
    pcre2_get_error_message(number, text, sizeof text);
    script_raise(lua, "%s", (const char *)text);
}

/* Whether a window is UTF-8 from end to end: only what no window before had is looked at. */
static bool is_valid(struct search *search, size_t begin, size_t end)
{
    size_t from = search->valid_end > begin ? search->valid_end : begin;
    if (from < end && !utf8_valid((struct slice){search->text.data + from, end - from}))
        return false;
    if (end > from)
        search->valid_end = end;
    return !continues_character(search->text, search->from);
}

/* One call of PCRE2, for matches that begin in [from, from + WINDOW]. */
static int search_window(struct search *search, size_t *end)
{
    const struct regex *regex = search->regex;
    struct slice text = search->text;
    size_t begin = search->from > regex->look_behind ? search->from - regex->look_behind : 0;
    if (begin > 0)
        begin = after_character(text, begin);
    *end = text.size - search->from > WINDOW + regex->longest ? search->from + WINDOW + regex->longest
                                                              : text.size;
    *end = before_character(text, *end, search->from);
    bool whole_characters = is_valid(search, begin, *end);
    uint32_t flags = (begin > 0 ? PCRE2_NOTBOL : 0) |
                     (*end < text.size || search->is_cut ? PCRE2_NOTEOL : 0) |
                     (whole_characters ? PCRE2_NO_UTF_CHECK : 0);
    pcre2_set_offset_limit(regex->context, search->from - begin + WINDOW);
    search->base = begin;
    search->vector = pcre2_get_ovector_pointer(regex->match);
    return pcre2_match(whole_characters ? regex->code : regex->tolerant, (PCRE2_SPTR)text.data + begin,
                       *end - begin, search->from - begin, flags, regex->match, regex->context);
}

/* Whether there is another match; empty ones are none. Raises when that cannot be told. */
static bool next_match(lua_State *lua, struct search *search)
{
    while (search->from < search->text.size) {
        size_t end;
        script_check_time(lua);
        int found = search_window(search, &end);
        if (found == PCRE2_ERROR_NOMATCH) {
            search->from = after_character(search->text, search->from + WINDOW + 1);
            continue;
        }
        if (found < 0)
            raise_failure(lua, found);
        search->first = search->base + search->vector[0];
        search->end = search->base + search->vector[1];
        if (search->end > search->first) {
            if (search->end - search->first > search->regex->longest)
                script_raise(lua, "a match is longer than %zu bytes", search->regex->longest);
            search->from = search->end;
            return true;
        }
        search->from = after_character(search->text, search->end + 1);
    }
    return false;
}

/* Pushes what the groups matched, nil for one that took no part. */
static int push_captures(lua_State *lua, const struct search *search)
{
    uint32_t pairs = pcre2_get_ovector_count(search->regex->match);
    luaL_checkstack(lua, (int)pairs, "too many groups");
    for (uint32_t i = 1; i < pairs; i++) {
        PCRE2_SIZE first = search->vector[2 * i], end = search->vector[2 * i + 1];
        if (first == PCRE2_UNSET)
            lua_pushnil(lua);
        else
            lua_pushlstring(lua, search->text.data + search->base + first, end > first ? end - first : 0);
    }
    return (int)pairs - 1;
}

/* regex:find(text, init, last) -> first, last, captures; nothing: nil */
static int find(lua_State *lua)
{
    struct search search = begin_search(lua, 3);
    if (!next_match(lua, &search)) {
        lua_pushnil(lua);
        return 1;
    }
    lua_pushnumber(lua, (double)search.first + 1);
    lua_pushnumber(lua, (double)search.end);
    return 2 + push_captures(lua, &search);
}

/* regex:matches(text, init, last) -> { first, last, first, last, … } */
static int matches(lua_State *lua)
{
    struct search search = begin_search(lua, 3);
    lua_newtable(lua);
    for (int count = 0; next_match(lua, &search); count += 2) {
        lua_pushnumber(lua, (double)search.first + 1);
        lua_rawseti(lua, -2, count + 1);
        lua_pushnumber(lua, (double)search.end);
        lua_rawseti(lua, -2, count + 2);
    }
    return 1;
}

/* regex:count(text, init, last) -> how many there are */
static int count_matches(lua_State *lua)
{
    struct search search = begin_search(lua, 3);
    double count = 0;
    while (next_match(lua, &search))
        count++;
    lua_pushnumber(lua, count);
    return 1;
}

/* Pushes what stands in place of the match; false: it stays. */
static bool push_replacement(lua_State *lua, const struct search *search)
{
    if (!lua_isfunction(lua, 3)) {
        lua_pushvalue(lua, 3);
        return true;
    }
    lua_pushvalue(lua, 3);
    lua_pushlstring(lua, search->text.data + search->first, search->end - search->first);
    lua_call(lua, 1 + push_captures(lua, search), 1);
    if (lua_toboolean(lua, -1) && !lua_isstring(lua, -1))
        script_raise(lua,
                     "replacement: expected a function that returns a string, nil or false, it returned a %s",
                     luaL_typename(lua, -1));
    if (lua_isstring(lua, -1))
        return true;
    lua_pop(lua, 1);
    return false;
}

/* regex:replace(text, replacement) -> text, how many were replaced */
static int replace(lua_State *lua)
{
    lua_settop(lua, 3);
    struct search search = begin_search(lua, 4);
    if (!lua_isfunction(lua, 3) && !lua_isstring(lua, 3))
        script_argument_error(lua, 3, "replacement", "a string or a function");
    lua_newtable(lua); /* 4: the pieces; a function may use the script's buffers */
    int pieces = 0, count = 0;
    size_t copied = 0;
    while (next_match(lua, &search)) {
        size_t first = search.first, end = search.end;
        if (!push_replacement(lua, &search))
            continue;
        lua_pushlstring(lua, search.text.data + copied, first - copied);
        lua_rawseti(lua, 4, ++pieces);
        lua_rawseti(lua, 4, ++pieces);
        copied = end;
        count++;
    }
    struct buffer *out = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    for (int i = 1; i <= pieces; i++) {
        size_t size;
        lua_rawgeti(lua, 4, i);
        const char *piece = lua_tolstring(lua, -1, &size);
        buffer_append(out, piece, size);
        lua_pop(lua, 1);
    }
    buffer_append(out, search.text.data + copied, search.text.size - copied);
    lua_pushlstring(lua, out->size > 0 ? buffer_data(out) : "", out->size);
    lua_pushnumber(lua, count);
    return 2;
}

int script_open_regex(lua_State *lua)
{
    luaL_newmetatable(lua, REGEX);
    lua_newtable(lua);
    script_set_functions(lua, REGEX ":",
                         (const luaL_Reg[]){{"find", find},
                                            {"matches", matches},
                                            {"count", count_matches},
                                            {"replace", replace},
                                            {NULL, NULL}});
    lua_setfield(lua, -2, "__index");
    lua_pushcfunction(lua, collect);
    lua_setfield(lua, -2, "__gc");
    lua_pushliteral(lua, "regex"); /* hides the metatable */
    lua_setfield(lua, -2, "__metatable");
    lua_pop(lua, 1);
    script_new_module(lua, REGEX, (const luaL_Reg[]){{"compile", compile}, {NULL, NULL}});
    return 1;
}
