/* The globals: what is absent stays out of reach, whatever way is tried; what is there works. */
#include "fixture.h"

static int set_up(void **state)
{
    static struct fixture fixture;
    fixture_set_up(&fixture, (struct script_settings){.memory_limit = 64 << 20});
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    fixture_tear_down(*state);
    return 0;
}

static void what_reaches_the_system_is_absent(void **state)
{
    expect_call(
        *state,
        "for name in ('io os ffi debug jit package loadstring getfenv setfenv newproxy collectgarbage gcinfo "
        "dofile loadfile module'):gmatch '%a+' do assert(_G[name] == nil, name) end "
        "assert(string.dump == nil and ('').dump == nil)");
    expect_call(*state,
                "for _, name in ipairs { 'io', 'os', 'ffi', 'debug', 'jit', 'jit.util', 'jit.opt', "
                "'package', 'string.buffer', 'table.new', 'table.clear', 'cjson', '_G', 'string' } do "
                "  local loaded, message = pcall(require, name) assert(not loaded and message:find('not "
                "found', 1, true), name) "
                "end");
}

/* One after the other, each with all memory again: what an endless recursion leaves behind may be as much as there is, and then the call around it fails for want of memory as well. */
static void endless_recursion_is_an_error(void **state)
{
    static const char *const recursions[] = {
        "local function plain() plain() return 1 end plain()",
        "local function gsub() ('x'):gsub('x', gsub) end gsub()",
        "local function wrapped() coroutine.wrap(wrapped)() end wrapped()",
        "local function both() coroutine.wrap(function() ('x'):gsub('x', both) end)() end both()",
        "local function sort() table.sort({ 1, 2, 3 }, sort) end sort()",
        "print(setmetatable({}, { __tostring = function(t) print(t) return '' end }))",
        "return setmetatable({}, { __index = function(t) return (('x'):gsub('x', t)) end }).x",
    };
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof recursions / sizeof *recursions; i++) {
        char *code = xprintf("local fine, message = pcall(function() %s end) "
                             "assert(not fine and (message:find 'stack overflow' or message:find 'not enough "
                             "memory' or message:find 'error in error'), message)",
                             recursions[i]);
        if (!fixture_call(fixture, code)) {
            expect_message(fixture, "not enough memory");
        }
        script_relieve(fixture->script);
        free(code);
    }
}

/* Whatever is reachable from the globals, by fields, metatables and keys, is one of the functions that were meant to be. */
static void nothing_else_can_be_reached_through_the_globals(void **state)
{
    expect_call(*state,
                "local meant = {} "
                "for name in ([[assert error getmetatable ipairs load next pairs pcall print rawequal rawget "
                "rawlen rawset require select setmetatable tonumber tostring type unpack xpcall]]):gmatch "
                "'%S+' do meant[name] = true end "
                "for name in ('create isyieldable resume running status wrap yield'):gmatch '%S+' do "
                "meant['coroutine.' .. name] = true end "
                "for name, library in pairs { string = string, table = table, math = math, bit = bit } do "
                "for function_name in pairs(library) do meant[name .. '.' .. function_name] = true end end "
                "local seen = {} "
                "local function walk(value, path) "
                "  if seen[value] then return end "
                "  if type(value) == 'function' then assert(meant[path], path .. ' is reachable') end "
                "  if type(value) == 'table' then seen[value] = true for k, v in pairs(value) do walk(v, "
                "(path == '' and '' or path .. '.') .. tostring(k)) end end "
                "  local meta = getmetatable(value) if meta and value ~= '' and type(value) ~= 'string' then "
                "walk(meta, path .. '<metatable>') end "
                "end "
                "seen[_G] = true for k, v in pairs(_G) do walk(v, k) end "
                "local strings = {} for name in pairs(string) do strings[#strings + 1] = name end "
                "table.sort(strings) "
                "assert(table.concat(strings, ' ') == 'byte char find format gmatch gsub len lower match rep "
                "reverse sub upper', table.concat(strings, ' '))");
}

static void bytecode_is_not_loaded_in_any_mode(void **state)
{
    expect_call(*state,
                "local bytecode = '\\27LJ\\2\\0\\0\\0' "
                "for _, mode in ipairs { 'b', 'bt', 't' } do local chunk, message = load(bytecode, 'x', "
                "mode) assert(chunk == nil and message:find('wrong mode', 1, true), message) end "
                "local once = true assert(load(function() if once then once = false return bytecode end end, "
                "'x', 'b') == nil) "
                "assert(load(bytecode) == nil)");
}

static void text_is_loaded_with_or_without_an_environment(void **state)
{
    expect_call(
        *state,
        "assert(load('return 1 + 1')() == 2) local pieces, n = { 'return ', '4', '2' }, 0 "
        "assert(load(function() n = n + 1 return pieces[n] end)() == 42) "
        "assert(load('return x', 'chunk', 't', { x = 5 })() == 5) x = 6 assert(load('return x')() == 6) "
        "local chunk, message = load('return +', '=name') assert(chunk == nil and message:find('^name:1:'))");
}

static void the_coroutines_of_code_are_its_own(void **state)
{
    static const char *const code = "assert(coroutine.running() == nil) "
                                    "local inner = coroutine.create(function(a) assert(coroutine.running()) "
                                    "local b = coroutine.yield(a + 1) return b * 2 end) "
                                    "local ok, value = coroutine.resume(inner, 1) assert(ok and value == 2) "
                                    "ok, value = coroutine.resume(inner, 21) assert(ok and value == 42) "
                                    "local caught, message = pcall(coroutine.yield, 1) assert(not caught and "
                                    "message:find('not inside a coroutine of your own', 1, true), message) "
                                    "local generate = coroutine.wrap(function() for i = 1, 3 do local ok = "
                                    "pcall(function() coroutine.yield(i) end) assert(ok) end end) "
                                    "assert(generate() == 1 and generate() == 2 and generate() == 3)";
    expect_call(*state, code);
    expect_task(*state, code);
}

static void states_do_not_see_each_other(void **state)
{
    struct fixture other;
    fixture_set_up(&other, (struct script_settings){0});
    expect_call(*state, "secret = 1 string.secret = 2 require('llmproxy.json').secret = 3");
    expect_call(&other,
                "assert(secret == nil and string.secret == nil and require('llmproxy.json').secret == nil)");
    fixture_tear_down(&other);
}

static void host_values_cannot_be_taken_apart(void **state)
{
    expect_call(
        *state,
        "local handle = require('llmproxy.file').stdout() "
        "assert(type(getmetatable(handle)) == 'string' and not pcall(setmetatable, handle, {})) "
        "assert(handle.__gc == nil) "
        "for _, wrong in ipairs { 1, 'x', {}, print } do assert(not pcall(handle.write, wrong, 'x')) "
        "assert(not pcall(handle.close, wrong)) end "
        "local null = require('llmproxy.json').null assert(getmetatable(null) == 'json.null') "
        "assert(not pcall(function() null.x = 1 end) and not pcall(function() return handle.file.x end))");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_reaches_the_system_is_absent),
        TEST(endless_recursion_is_an_error),
        TEST(nothing_else_can_be_reached_through_the_globals),
        TEST(bytecode_is_not_loaded_in_any_mode),
        TEST(text_is_loaded_with_or_without_an_environment),
        TEST(the_coroutines_of_code_are_its_own),
        TEST(states_do_not_see_each_other),
        TEST(host_values_cannot_be_taken_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
