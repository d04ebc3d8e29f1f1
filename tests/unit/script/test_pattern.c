/*
 * Patterns: everything is held against the interpreter's own functions, in a state beside, for random patterns and texts; and what would take for ever is stopped.
 */
#include "fixture.h"

#include <lualib.h>

#include "script/pattern.h"

#define RUNS      15000
#define LONG_RUNS 1000000

struct both {
    struct fixture fixture;
    lua_State *real;
};

static int set_up(void **state)
{
    static struct both both;
    fixture_set_up(&both.fixture, (struct script_settings){.watchdog_seconds = 0.3});
    both.real = luaL_newstate();
    luaL_openlibs(both.real);
    *state = &both;
    return 0;
}

static int tear_down(void **state)
{
    struct both *both = *state;
    fixture_tear_down(&both->fixture);
    lua_close(both->real);
    return 0;
}

/* Calls run(text, pattern, replacement) for all four functions; what they give, or raise, as one text. */
static const char *const run_all =
    "local function show(...) local out = {} for i = 1, select('#', ...) do out[i] = type((select(i, ...))) "
    ".. ':' .. tostring((select(i, ...))) end "
    "return table.concat(out, ',') end "
    "local function call(f, ...) return (show(pcall(f, ...)):gsub('[%w_%.%-/]*:%d+: ', '')) end "
    "local function all(text, pattern) local out = {} for a, b, c in string.gmatch(text, pattern) do "
    "out[#out + 1] = show(a, b, c) if #out > 50 then break end end "
    "return table.concat(out, ';') end "
    "return function(text, pattern, replacement, init) return table.concat({ "
    "call(string.find, text, pattern, init), call(string.find, text, pattern, init, true), "
    "call(string.match, text, pattern, init), call(all, text, pattern), "
    "call(string.gsub, text, pattern, replacement), call(string.gsub, text, pattern, '%0%1', 2), "
    "call(string.gsub, text, pattern, function(a, b) if a == 'a' then return nil end return (b or 'x') end), "
    "call(string.gsub, text, pattern, { a = 1, b = false, ab = 'c' }) "
    "}, '\\n') end";

static void load_runner(lua_State *lua)
{
    if (luaL_loadstring(lua, run_all) != 0 || lua_pcall(lua, 0, 1, 0) != 0) {
        fail_msg("%s", lua_tostring(lua, -1));
    }
    lua_setfield(lua, LUA_REGISTRYINDEX, "runner");
}

static unsigned long long seed = 88172645463325252ull;

static unsigned next_random(unsigned below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 11) % below;
}

static size_t make(char *out, size_t most, const char *const *pieces, unsigned count)
{
    size_t size = 0;
    for (unsigned left = next_random((unsigned)most / 2); left > 0; left--) {
        const char *piece = pieces[next_random(count)];
        size_t length = piece[0] == '\0' ? 1 : strlen(piece); /* an empty piece is a NUL byte */
        if (size + length > most) {
            break;
        }
        memcpy(out + size, piece, length);
        size += length;
    }
    return size;
}

struct sample {
    char text[40], pattern[40], replacement[12];
    size_t text_size, pattern_size, replacement_size;
    int init;
};

static char *results(lua_State *lua, const struct sample *sample)
{
    lua_getfield(lua, LUA_REGISTRYINDEX, "runner");
    lua_pushlstring(lua, sample->text, sample->text_size);
    lua_pushlstring(lua, sample->pattern, sample->pattern_size);
    lua_pushlstring(lua, sample->replacement, sample->replacement_size);
    lua_pushinteger(lua, sample->init);
    if (lua_pcall(lua, 4, 1, 0) != 0) {
        fail_msg("%s", lua_tostring(lua, -1));
    }
    size_t size;
    const char *text = lua_tolstring(lua, -1, &size);
    char *copy = malloc(size + 1);
    for (size_t i = 0; i <= size; i++) {
        copy[i] = text[i] == '\0' && i < size ? '@' : text[i];
    }
    lua_pop(lua, 1);
    return copy;
}

static void random_patterns_give_what_the_interpreter_gives(void **state)
{
    static const char *const in_patterns[] = {
        "a",      "b",     "c",     ".",      "*",     "+",   "-",  "?",  "(",    ")",  "()",
        "^",      "$",     "[ab]",  "[^a]",   "[a-c]", "[]]", "[",  "]",  "%a",   "%A", "%d",
        "%w",     "%W",    "%s",    "%S",     "%p",    "%z",  "%x", "%g", "%c",   "%u", "%l",
        "%b()",   "%bab",  "%f[a]", "%f[%w]", "%f",    "%1",  "%2", "%0", "%%",   "%",  "%]",
        "[%a-z]", "[%-x]", "[a-]",  "\xff",   "\x80",  "",    "1",  "(a", "(.-)", "[%"};
    static const char *const in_texts[] = {"a", "b", "c", "ab",   "A",    "1", " ",  "(",  ")", "[",
                                           "]", "%", "-", "\xff", "\x80", "",  "\n", "aa", "x", "."};
    static const char *const in_replacements[] = {"a", "%0", "%1", "%2", "%", "%%", "x", ""};
    struct both *both = *state;
    lua_State *ours = script_lua(both->fixture.script);
    long runs = getenv("LLM_PROXY_LONG_TESTS") != NULL ? LONG_RUNS : RUNS;
    load_runner(both->real);
    load_runner(ours);
    for (long i = 0; i < runs; i++) {
        struct sample sample = {.init = (int)next_random(12) - 4};
        sample.text_size =
            make(sample.text, sizeof sample.text, in_texts, sizeof in_texts / sizeof *in_texts);
        sample.pattern_size = make(sample.pattern, 20, in_patterns, sizeof in_patterns / sizeof *in_patterns);
        sample.replacement_size = make(sample.replacement, sizeof sample.replacement, in_replacements,
                                       sizeof in_replacements / sizeof *in_replacements);
        char *expected = results(both->real, &sample), *got = results(ours, &sample);
        if (strcmp(expected, got) != 0) {
            fail_msg("text '%.*s' pattern '%.*s' replacement '%.*s' init %d:\n%s\n-- but there was\n%s",
                     (int)sample.text_size, sample.text, (int)sample.pattern_size, sample.pattern,
                     (int)sample.replacement_size, sample.replacement, sample.init, expected, got);
        }
        free(expected);
        free(got);
    }
}

static void limits_are_the_interpreters(void **state)
{
    struct both *both = *state;
    static const char *const calls[] = {
        "string.find(('a'):rep(300), ('a?'):rep(300) .. 'b')",
        "string.find('a', ('('):rep(33) .. 'a')",
        "string.rep('a', 100):gsub('.', '%0%0')",
        "string.gsub('abc', 'b', {}, 1)",
        "string.gsub('abc', 'b')",
        "string.gsub('abc', '%w', function() return {} end)",
        "string.find()",
        "string.find('a', {})",
        "string.match(12345, '3(.)')",
        "('x'):find('x')",
        "string.gsub('hello world', '%w+', '%0 %0', 1)",
        "string.gmatch('a', nil)",
        "string.gsub('abc', '', '-')",
        "string.gsub('abc', '^', '-')",
        "string.find('a', 'a', 1/0)",
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        char *expected =
            xprintf("local function show(...) local out = {} for i = 1, select('#', ...) do out[i] = "
                    "tostring((select(i, ...))):gsub('^[^:]*:%%d+: ', '') end "
                    "return table.concat(out, ',') end return show(pcall(function() return %s end))",
                    calls[i]);
        lua_State *states[] = {both->real, script_lua(both->fixture.script)};
        for (int j = 0; j < 2; j++) {
            if (luaL_loadbuffer(states[j], expected, strlen(expected), "=x") != 0 ||
                lua_pcall(states[j], 0, 1, 0) != 0) {
                fail_msg("%s", lua_tostring(states[j], -1));
            }
        }
        assert_string_equal(lua_tostring(states[1], -1), lua_tostring(states[0], -1));
        lua_pop(states[0], 1);
        lua_pop(states[1], 1);
        free(expected);
    }
}

static void what_takes_for_ever_is_stopped(void **state)
{
    struct both *both = *state;
    static const char *const codes[] = {
        "('a'):rep(30000):find('.-.-.-.-b')",
        "('a'):rep(30000):match('(.*)(.*)(.*)(.*)b')",
        "('('):rep(300000):gsub('%b()', '')",
        "for _ in ('a'):rep(30000):gmatch('.-.-.-b') do end",
        "('a'):rep(100000):gsub('', ('%0'):rep(1000000))",
        "while true do pcall(string.find, ('a'):rep(30000), '.-.-.-.-b') end",
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        assert_false(fixture_task(&both->fixture, codes[i]));
        assert_non_null(strstr(both->fixture.message, "stopped: ran for more than 0.3 s without a break"));
    }
}

static void plain_texts_are_found_in_linear_time(void **state)
{
    struct both *both = *state;
    assert_true(fixture_call(&both->fixture, "local text, part = ('a'):rep(4000000), ('a'):rep(1000000) .. "
                                             "'b' assert(text:find(part, 1, true) == nil) "
                                             "assert((text .. 'b'):find(part, 1, true) == 3000001)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(random_patterns_give_what_the_interpreter_gives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(limits_are_the_interpreters, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_takes_for_ever_is_stopped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(plain_texts_are_found_in_linear_time, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
