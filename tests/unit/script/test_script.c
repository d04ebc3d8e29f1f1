/* The state: calls and their errors, memory, require, runaway code. */
#include "fixture.h"

#include <signal.h>
#include <sys/stat.h>

#include "base/clock.h"

static int set_up(void **state)
{
    static struct fixture fixture;
    fixture_set_up(&fixture, (struct script_settings){.memory_limit = 16 << 20});
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    fixture_tear_down(*state);
    return 0;
}

static void call_gives_results_and_leaves_the_stack_clean(void **state)
{
    struct fixture *fixture = *state;
    lua_State *lua = script_lua(fixture->script);
    struct error error;
    lua_pushliteral(lua, "below");
    fixture_load(fixture, "local a, b = ... return a + b, a * b");
    lua_pushinteger(lua, 6);
    lua_pushinteger(lua, 7);
    assert_true(script_call(fixture->script, 2, 2, 0, &error));
    assert_int_equal(lua_gettop(lua), 3);
    assert_int_equal(lua_tointeger(lua, 2), 13);
    assert_int_equal(lua_tointeger(lua, 3), 42);
    lua_settop(lua, 1);
    fixture_load(fixture, "error('broken')");
    assert_false(script_call(fixture->script, 0, 5, 0, &error));
    assert_int_equal(lua_gettop(lua), 1);
    assert_string_equal(error.message, "code:1: broken");
    lua_settop(lua, 0);
}

static void error_objects_of_any_kind_become_text(void **state)
{
    static const struct {
        const char *code, *message;
    } cases[] = {
        {"error('text', 0)", "text"},
        {"error(42, 0)", "raised a number instead of a message"},
        {"error()", "raised a nil instead of a message"},
        {"error({})", "raised a table instead of a message"},
        {"error(print)", "raised a function instead of a message"},
        {"error(setmetatable({}, { __tostring = function() return 'described' end }))", "described"},
        {"error(setmetatable({}, { __tostring = function() return {} end }))",
         "raised a table instead of a message"},
        {"error(coroutine.create(print))", "raised a thread instead of a message"},
    };
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_false(fixture_call(fixture, cases[i].code));
        assert_string_equal(fixture->message, cases[i].message);
        assert_false(fixture_task(fixture, cases[i].code));
        assert_string_equal(fixture->message, cases[i].message);
    }
    assert_false(
        fixture_call(fixture, "error(setmetatable({}, { __tostring = function() error('again') end }))"));
    assert_false(
        fixture_task(fixture, "error(setmetatable({}, { __tostring = function() error('again') end }))"));
    assert_false(fixture_call(fixture, "local function f() return f() + 1 end f()"));
    expect_message(fixture, "stack overflow");
    assert_false(fixture_task(fixture, "local function f() return f() + 1 end f()"));
    expect_message(fixture, "stack overflow");
}

static void memory_over_the_limit_is_an_error_and_the_state_goes_on(void **state)
{
    static const char *const bombs[] = {
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local s = 'x' while true do s = s .. s end",
        "return ('x'):rep(1e9)",
        "local t = {} while true do t = { t, {}, {}, {} } end",
        "local t = {} while true do t[#t + 1] = function() return t end end",
        "local t = {} for i = 1, 1e9 do t[i] = 'key' .. i end",
        "local t = {} while true do t[#t + 1] = coroutine.create(print) end",
        "local t = {} while true do t[#t + 1] = ('x'):rep(1e6) .. #t pcall(error) end",
        "return table.concat({ ('x'):rep(2e7), ('x'):rep(2e7), ('y'):rep(2e7), ('z'):rep(2e7) })",
        "return ('%99d'):rep(1e6):gsub('%%', function() return ('x'):rep(100) end)",
    };
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        assert_false(i % 2 == 0 ? fixture_call(fixture, bombs[i]) : fixture_task(fixture, bombs[i]));
        expect_message(fixture, "not enough memory: more than the limit of 16 MiB");
        expect_call(fixture, "local t = {} for i = 1, 1000 do t[i] = ('x'):rep(i) end assert(#t == 1000)");
        assert_true(script_memory(fixture->script) < 8 << 20);
    }
}

static void garbage_does_not_fill_the_limit(void **state)
{
    expect_call(*state, "local keep = {} for i = 1, 30 do keep[i] = ('x'):rep(2e5 + i) end for i = 1, 500 do "
                        "local waste = ('y'):rep(2e5 + i) end");
}

static void a_limit_too_small_to_begin_with_is_an_error(void **state)
{
    (void)state;
    struct error error;
    for (size_t limit = 1; limit < 60000; limit += 501) {
        struct script *script =
            script_new(&(struct script_settings){.lua_folder = LUA_DIR, .memory_limit = limit}, &error);
        if (script == NULL) {
            assert_non_null(strstr(error.message, "Lua state"));
        }
        script_free(script);
    }
}

static int open_counter(lua_State *lua)
{
    lua_newtable(lua);
    lua_pushvalue(lua, 1);
    lua_setfield(lua, -2, "name");
    return 1;
}

static void a_module_of_ours_that_is_not_there_is_told_with_the_one_that_is_meant(void **state)
{
    struct fixture *fixture = *state;
    assert_false(fixture_call(fixture, "require 'llmproxy.htp'"));
    expect_message(fixture, ", did you mean 'llmproxy.http'?");
    assert_false(fixture_call(fixture, "require 'llmproxy.verdicts'"));
    expect_message(fixture, ", did you mean 'llmproxy.verdict'?");
    assert_false(fixture_call(fixture, "require 'llmproxy.nothing_like_it'"));
    assert_null(strstr(fixture->message, "did you mean"));
}

static void require_gives_added_modules_once(void **state)
{
    struct fixture *fixture = *state;
    script_add_module(fixture->script, "llmproxy.extra", open_counter);
    expect_call(fixture, "local extra = require 'llmproxy.extra' assert(extra.name == 'llmproxy.extra' and "
                         "require 'llmproxy.extra' == extra)");
    expect_call(fixture, "for _, name in ipairs { 'json', 'log', 'time', 'file', 'http', 'crypto', 'codec' } "
                         "do assert(type(require('llmproxy.' .. name)) == 'table', name) end");
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void make_folder(const char *folder, const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void require_finds_files_in_its_places_only(void **state)
{
    (void)state;
    char folder[] = "/tmp/test_script_XXXXXX", first[64], second[64], runtime[64], command[80];
    assert_non_null(mkdtemp(folder));
    static const char *const folders[] = {"first",   "first/lib",        "first/lib/deep",
                                          "second",  "second/lib",       "second/lib/package",
                                          "runtime", "runtime/llmproxy", "runtime/llmproxy/part"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        make_folder(folder, folders[i]);
    }
    write_file(folder, "first/lib/both.lua", "return { from = 'first', name = ... }");
    write_file(folder, "second/lib/both.lua", "return { from = 'second' }");
    write_file(folder, "first/lib/deep/er.lua", "return 'deeper'");
    write_file(folder, "second/lib/package/init.lua", "return 'init'");
    write_file(folder, "first/lib/broken.lua", "return {\n  1 +\n}");
    write_file(folder, "first/lib/raises.lua", "error('at load')");
    write_file(folder, "first/lib/circle.lua", "return require 'circle2'");
    write_file(folder, "first/lib/circle2.lua", "return require 'circle'");
    write_file(folder, "first/lib/nothing.lua", "count = (count or 0) + 1");
    write_file(folder, "first/lib/bytecode.lua", "\x1bLJ\x02");
    write_file(folder, "first/outside.lua", "return 'must not be found'");
    write_file(folder, "runtime/llmproxy/part/init.lua", "return 'part'");
    write_file(folder, "runtime/other.lua", "return 'must not be found'");
    write_file(folder, "first/lib/llmproxy.lua", "return 'allowed'");
    snprintf(first, sizeof first, "%s/first", folder);
    snprintf(second, sizeof second, "%s/second", folder);
    snprintf(runtime, sizeof runtime, "%s/runtime", folder);

    struct fixture fixture;
    fixture_set_up(&fixture,
                   (struct script_settings){.lua_folder = runtime,
                                            .plugin_folders = (const char *const[]){first, second, NULL}});
    expect_call(&fixture, "local both = require 'both' assert(both.from == 'first' and both.name == 'both')");
    expect_call(&fixture, "assert(require 'deep.er' == 'deeper' and require 'package' == 'init' and require "
                          "'llmproxy.part' == 'part')");
    expect_call(&fixture, "assert(require 'nothing' == true and require 'nothing' == true and count == 1)");
    assert_false(fixture_call(&fixture, "require 'broken'"));
    expect_message(&fixture, "first/lib/broken.lua:3:");
    for (int i = 0; i < 2; i++) {
        assert_false(fixture_call(&fixture, "require 'raises'"));
        expect_message(&fixture, "first/lib/raises.lua:1: at load");
    }
    assert_false(fixture_call(&fixture, "require 'circle'"));
    expect_message(&fixture, "requires itself");
    assert_false(fixture_call(&fixture, "require 'bytecode'"));
    expect_message(&fixture, "attempt to load chunk with wrong mode");
    assert_false(fixture_call(&fixture, "require 'not.there'"));
    expect_message(&fixture, "code:1: module 'not.there' not found");
    expect_message(&fixture, "first/lib/not/there.lua'");
    expect_message(&fixture, "first/lib/not/there/init.lua'");
    expect_message(&fixture, "second/lib/not/there.lua'");
    assert_false(fixture_call(&fixture, "require 'llmproxy.missing'"));
    expect_message(&fixture, "runtime/llmproxy/missing.lua'");
    static const char *const refused[] = {"require '../outside'", "require '/etc/passwd'", "require ''",
                                          "require 'a\\0b'",      "require 'a b'",         "require 'a%b'"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_false(fixture_call(&fixture, refused[i]));
        expect_message(&fixture, "a module's name has letters");
    }
    assert_false(fixture_call(&fixture, "require '..outside'"));
    assert_false(fixture_call(&fixture, "require 'other'"));
    assert_false(fixture_call(&fixture, "require 'ffi'"));
    assert_false(fixture_call(&fixture, "require 'jit'"));
    assert_false(fixture_call(&fixture, "require 'string.buffer'"));
    fixture_tear_down(&fixture);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

static void runaway_calls_are_stopped_whatever_they_catch(void **state)
{
    skip_under_thread_sanitizer();
    static const char *const loops[] = {
        "while true do end",
        "for i = 1, math.huge do end",
        "local n = 0 while true do n = n + 1 end",
        "while true do pcall(error) end",
        "while true do pcall(function() while true do end end) end",
        "local function again() return again() end again()",
        "local function loop() while true do end end while true do xpcall(loop, tostring) end",
        "while true do coroutine.wrap(function() while true do pcall(coroutine.yield) end end)() end",
        "while true do ('x'):rep(100):gsub('.', function() end) end",
        "setmetatable(_G, { __index = function(t, k) return t[k] end }) local x = missing",
        "table.sort({ 1, 2, 3 }, function() while true do end end)",
        "while true do local t = {} end",
        "error(setmetatable({}, { __tostring = function() while true do end end }))",
    };
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof loops / sizeof *loops; i++) {
        struct error error;
        fixture_load(fixture, loops[i]);
        assert_false(script_call(fixture->script, 0, 0, 0.01, &error));
        expect_call(fixture, "local n = 0 for i = 1, 1000 do n = n + i end assert(n == 500500)");
        assert_int_equal(lua_gettop(script_lua(fixture->script)), 0);
    }
    struct error error;
    fixture_load(fixture, "while true do end");
    assert_false(script_call(fixture->script, 0, 0, 0.01, &error));
    assert_string_equal(error.message, "code:1: stopped: ran for more than 0.01 s without a break");
}

static void calls_within_their_time_are_left_alone(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    for (int i = 0; i < 100; i++) {
        fixture_load(fixture, "for i = 1, 1000 do end");
        assert_true(script_call(fixture->script, 0, 0, 60, &error));
    }
    raise(SIGURG);
    expect_call(fixture, "for i = 1, 1000 do end");
}

static int call_inside(lua_State *lua)
{
    struct script *script = script_of(lua);
    struct error error = {.message = ""};
    lua_State *own = script_lua(script);
    lua_getglobal(own, "inner");
    bool called = script_call(script, 0, 0, lua_tonumber(lua, 1), &error);
    lua_pushboolean(lua, called);
    return 1;
}

static void limits_of_calls_inside_calls_are_their_own(void **state)
{
    skip_under_thread_sanitizer();
    struct fixture *fixture = *state;
    struct error error;
    lua_register(script_lua(fixture->script), "call_inside", call_inside);
    fixture_load(
        fixture,
        "function inner() while true do end end assert(call_inside(0.01) == false) for i = 1, 100000 do end");
    assert_true(script_call(fixture->script, 0, 0, 60, &error));
    fixture_load(fixture,
                 "function inner() while true do end end assert(call_inside(0) == false) while true do end");
    assert_false(script_call(fixture->script, 0, 0, 0.01, &error));
    assert_non_null(strstr(error.message, "stopped"));
}

static void random_numbers_differ_between_states(void **state)
{
    struct fixture other;
    fixture_set_up(&other, (struct script_settings){0});
    double numbers[2];
    struct fixture *fixtures[] = {*state, &other};
    for (int i = 0; i < 2; i++) {
        struct error error;
        fixture_load(fixtures[i], "return math.random()");
        assert_true(script_call(fixtures[i]->script, 0, 1, 0, &error));
        numbers[i] = lua_tonumber(script_lua(fixtures[i]->script), -1);
        lua_settop(script_lua(fixtures[i]->script), 0);
    }
    assert_true(numbers[0] != numbers[1]);
    fixture_tear_down(&other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(call_gives_results_and_leaves_the_stack_clean),
        TEST(error_objects_of_any_kind_become_text),
        TEST(memory_over_the_limit_is_an_error_and_the_state_goes_on),
        TEST(garbage_does_not_fill_the_limit),
        TEST(a_limit_too_small_to_begin_with_is_an_error),
        TEST(a_module_of_ours_that_is_not_there_is_told_with_the_one_that_is_meant),
        TEST(require_gives_added_modules_once),
        TEST(require_finds_files_in_its_places_only),
        TEST(runaway_calls_are_stopped_whatever_they_catch),
        TEST(calls_within_their_time_are_left_alone),
        TEST(limits_of_calls_inside_calls_are_their_own),
        TEST(random_numbers_differ_between_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
