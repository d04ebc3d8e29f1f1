/* JSON and Lua values: what is read, how it is written, and what is refused. */
#include "fixture.h"

#include <math.h>

#include "base/buffer.h"
#include "script/json.h"

static int set_up(void **state)
{
    static struct fixture fixture;
    fixture_set_up(&fixture, (struct script_settings){0});
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    fixture_tear_down(*state);
    return 0;
}

/* Decodes, encodes again; the caller frees. NULL: message has the error. */
static char *round_trip(struct fixture *fixture, struct slice text)
{
    struct error error;
    lua_State *lua = script_lua(fixture->script);
    struct buffer out = {0};
    bool checked = script_json_check(text, &error);
    bool decoded = script_json_decode(lua, text, &error);
    assert_int_equal(checked, decoded);
    snprintf(fixture->message, sizeof fixture->message, "%s", decoded ? "" : error.message);
    if (!decoded) {
        assert_int_equal(lua_gettop(lua), 0);
        return NULL;
    }
    if (!script_json_encode(lua, -1, &out, &error)) {
        fail_msg("%s", error.message);
    }
    lua_pop(lua, 1);
    assert_int_equal(lua_gettop(lua), 0);
    return buffer_take_string(&out);
}

static void expect_text(struct fixture *fixture, const char *text, const char *expected)
{
    char *written = round_trip(fixture, slice_of(text));
    if (written == NULL) {
        fail_msg("%s: %s", text, fixture->message);
    }
    assert_string_equal(written, expected);
    free(written);
}

static void what_is_read_is_written(void **state)
{
    static const char *const texts[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "-1",
        "0.7",
        "0.1",
        "-0.5",
        "1e-07",
        "5e-324",
        "1.7976931348623157e+308",
        "3.141592653589793",
        "0.30000000000000004",
        "9007199254740991",
        "9007199254740992",
        "-9007199254740992",
        "9007199254740993",
        "-9007199254740993",
        "9007199254740994.0", /* a double stays one */
        "18446744073709551616",
        "123456789012345678901234567890",
        "1e999",
        "-1e999",
        "1e-999",
        "\"\"",
        "\"a\"",
        "[]",
        "{}",
        "[[]]",
        "[{}]",
        "{\"a\":[]}",
        "{\"a\":{}}",
        "[null]",
        "[null,null]",
        "{\"a\":null}",
        "[1,2,3]",
        "[[1],[2,[3]]]",
        "{\"a\":1,\"b\":[true,false,null],\"c\":{\"d\":\"e\"}}",
        "{\"\":\"\"}",
        "{\"1\":1,\"2\":2}",
        "\"\\u0000\"",
        "{\"a\\u0000b\":1}",
        "\"\\\"\\\\\\b\\f\\n\\r\\t\\u001f\"",
        "\"ä€😀\"",
        "\"/\"",
        "\"\x7f\"",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        expect_text(*state, texts[i], texts[i]);
    }
}

static void other_spellings_mean_the_same(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {" \t\r\n1 \t\r\n", "1"},
        {" { \"b\" : 1 , \"a\" : [ 1 , 2 ] } ", "{\"a\":[1,2],\"b\":1}"},
        {"[ ]", "[]"},
        {"{ }", "{}"},
        {"1.0", "1"},
        {"1e2", "100"},
        {"1E+2", "100"},
        {"-1.50e-1", "-0.15"},
        {"100000000000000000000e0", "1e+20"},
        {"0.00000000000000000000000000001", "1e-29"},
        {"0e99999999999999999999", "0"},
        {"0.0000", "0"},
        {"\"\\u00e4\\u20AC\\ud83d\\uDE00\"", "\"ä€😀\""},
        {"\"\\/\"", "\"/\""},
        {"\"\\ud800\"", "\"\xef\xbf\xbd\""},
        {"\"\\udc00\"", "\"\xef\xbf\xbd\""},
        {"\"\\ud800\\ud800\\udc00\"", "\"\xef\xbf\xbd\xf0\x90\x80\x80\""},
        {"\"\\ud800x\"", "\"\xef\xbf\xbdx\""},
        {"\"\\ud800\\n\"", "\"\xef\xbf\xbd\\n\""},
        {"\"\\udbff\\udfff\"", "\"\xf4\x8f\xbf\xbf\""},
        {"{\"a\":1,\"b\":2,\"a\":[3]}", "{\"a\":[3],\"b\":2}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect_text(*state, cases[i].text, cases[i].expected);
    }
}

static void invalid_text_is_refused_with_the_place(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "at byte 1: expected a value, got the end"},
        {"  ", "at byte 3: expected a value, got the end"},
        {"nul", "at byte 1: expected a value, got 'n'"},
        {"nulll", "at byte 5: expected nothing behind the value, got 'l'"},
        {"True", "at byte 1"},
        {"NaN", "at byte 1"},
        {"Infinity", "at byte 1"},
        {"-Infinity", "at byte 2: expected a digit"},
        {"01", "at byte 2: a number must not begin with 0"},
        {"-01", "at byte 3"},
        {"1.", "at byte 3: expected a digit, got the end"},
        {".5", "at byte 1"},
        {"+1", "at byte 1"},
        {"1e", "at byte 3"},
        {"1e+", "at byte 4"},
        {"0x10", "at byte 2"},
        {"--1", "at byte 2"},
        {"1 2", "at byte 3"},
        {"[1,]", "at byte 4: expected a value, got ']'"},
        {"[,1]", "at byte 2"},
        {"[1 2]", "at byte 4: expected ',' or ']', got '2'"},
        {"[1", "at byte 3: expected ',' or ']', got the end"},
        {"[", "at byte 2"},
        {"]", "at byte 1"},
        {"[1}", "at byte 3"},
        {"{", "at byte 2: expected a key in quotes, got the end"},
        {"{\"a\"}", "at byte 5: expected ':', got '}'"},
        {"{\"a\":}", "at byte 6"},
        {"{\"a\":1,}", "at byte 8: expected a key in quotes"},
        {"{\"a\":1 \"b\":2}", "at byte 8: expected ',' or '}'"},
        {"{a:1}", "at byte 2"},
        {"{1:1}", "at byte 2"},
        {"{\"a\":1}}", "at byte 8"},
        {"'a'", "at byte 1"},
        {"\"a", "at byte 1: this string has no end"},
        {"[1,\"a]", "at byte 4: this string has no end"},
        {"\"\\", "at byte 3"},
        {"\"\\x41\"", "at byte 3: expected one of"},
        {"\"\\u12\"", "at byte 6: expected four hexadecimal digits"},
        {"\"\\ud800\\u12\"", "at byte 12"},
        {"\"\\U0041\"", "at byte 3"},
        {"\"a\nb\"", "at byte 3: a control character"},
        {"\"0123456789\tabc\"", "at byte 12: a control character"},
        {"\"\x1f\"", "at byte 2"},
        {"\"\xff\"", "at byte 2: not UTF-8"},
        {"\"abcdefghijklmnop\xc3\"", "at byte 18: not UTF-8"},
        {"\"\xed\xa0\x80\"", "at byte 2: not UTF-8"},
        {"\"\xc0\x80\"", "at byte 2"},
        {"\"\xf4\x90\x80\x80\"", "at byte 2"},
        {"\xef\xbb\xbf{}", "at byte 1: expected a value, got the byte 0xef"},
        {"// comment\n1", "at byte 1"},
        {"[1]\x01", "at byte 4: expected nothing behind the value, got the byte 0x01"},
        {"\x0b"
         "1",
         "at byte 1"},
    };
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *written = round_trip(fixture, slice_of(cases[i].text));
        if (written != NULL) {
            fail_msg("%s became %s", cases[i].text, written);
        }
        expect_message(fixture, cases[i].message);
    }
    assert_null(round_trip(fixture, (struct slice){"1\0", 2}));
    expect_message(fixture, "at byte 2: expected nothing behind the value, got the byte 0x00");
    assert_null(round_trip(fixture, (struct slice){"\"\0\"", 3}));
    assert_null(round_trip(fixture, (struct slice){NULL, 0}));
}

static void every_prefix_of_a_text_is_refused(void **state)
{
    static const char text[] = "{\"a\":[1,-2.5e3,\"\\u00e4\\n😀\",{\"b\":null}],\"c\":true}";
    struct fixture *fixture = *state;
    for (size_t size = 0; size < sizeof text - 1; size++) {
        char *copy = malloc(size + 1); /* not xmemdup: a byte too far must be seen */
        memcpy(copy, text, size);
        char *exact = size > 0 ? realloc(copy, size) : copy;
        assert_null(round_trip(fixture, (struct slice){exact, size}));
        free(exact);
    }
    expect_text(fixture, text, "{\"a\":[1,-2500,\"ä\\n😀\",{\"b\":null}],\"c\":true}");
}

static void numbers_at_the_end_are_not_read_beyond(void **state)
{
    static const char *const texts[] = {"1234", "0.12345678901234567", "1e10", "12345678901234567890"};
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char with_more[64];
        snprintf(with_more, sizeof with_more, "%s99", texts[i]);
        char *alone = round_trip(fixture, slice_of(texts[i]));
        char *cut = round_trip(fixture, (struct slice){with_more, strlen(texts[i])});
        assert_string_equal(alone, cut);
        free(alone);
        free(cut);
    }
}

static void doubles_are_the_nearest_and_come_back(void **state)
{
    struct fixture *fixture = *state;
    lua_State *lua = script_lua(fixture->script);
    uint64_t seed = 88172645463325252;
    for (int i = 0; i < 50000; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        double number;
        char text[64];
        struct error error;
        memcpy(&number, &seed, sizeof number);
        if (isnan(number) || isinf(number)) {
            continue;
        }
        if (i % 2 == 0) { /* everyday numbers */
            number = (double)(int64_t)(seed >> 20) / (double)(1 + seed % 1000000);
        }
        snprintf(text, sizeof text, "%.*g", 1 + (int)(seed % 20), number);
        assert_true(script_json_decode(lua, slice_of(text), &error));
        double expected = strtod(text, NULL);
        if (lua_type(lua, -1) == LUA_TNUMBER) {
            assert_true(lua_tonumber(lua, -1) == expected);
        } else {
            assert_true(isinf(expected) || fabs(expected) >= 9007199254740992.0);
        }
        struct buffer out = {0};
        assert_true(script_json_encode(lua, -1, &out, &error));
        char *written = buffer_take_string(&out);
        assert_true(strtod(written, NULL) == expected);
        free(written);
        lua_pop(lua, 1);
    }
}

static void nesting_is_bounded_both_ways(void **state)
{
    struct fixture *fixture = *state;
    char text[600];
    for (int depth = 127; depth <= 130; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = '\0';
        char *written = round_trip(fixture, slice_of(text));
        assert_true((written != NULL) == (depth <= 128));
        if (written == NULL) {
            expect_message(fixture, "at byte 129: nested deeper than 128 levels");
        }
        free(written);
    }
    char *many = malloc(1000000);
    memset(many, '[', 1000000);
    assert_null(round_trip(fixture, (struct slice){many, 1000000}));
    free(many);
    expect_call(
        fixture,
        "local json = require 'llmproxy.json' "
        "local t = {} for i = 1, 159 do t = { t } end assert(json.encode(t)) "
        "local text, message = json.encode { t, t } assert(text == nil and "
        "message:find('nested deeper than 160 levels', 1, true), message)"
        "local circle = {} circle.self = { circle } text, message = json.encode(circle) "
        "assert(message == 'self[1]: cannot be written as JSON: a table that contains itself', message) "
        "local one, two = {}, {} one.two, two.one = two, one "
        "text, message = json.encode { a = { one } } "
        "assert(message == 'a[1].two.one: cannot be written as JSON: a table that contains itself', "
        "message)");
}

static void the_deepest_value_that_is_read_can_be_part_of_one_that_is_written(void **state)
{
    expect_call(*state, "local json = require 'llmproxy.json' "
                        "local deep = string.rep('[', 128) .. string.rep(']', 128) "
                        "local text = assert(json.encode { a = { b = assert(json.decode(deep)) } }) "
                        "assert(text == '{\"a\":{\"b\":' .. deep .. '}}')");
}

static void tables_are_lists_or_objects(void **state)
{
    expect_call(
        *state,
        "local json = require 'llmproxy.json' "
        "local function check(value, expected) local text, message = json.encode(value) assert(text == "
        "expected, text or message) end "
        "check({}, '{}') check(json.array {}, '[]') check(json.array(), '[]') check({ 1, 2 }, '[1,2]') "
        "check(json.array { 'a' }, '[\"a\"]') "
        "check({ a = 1 }, '{\"a\":1}') check({ [3] = 'c', [2] = 'b', [1] = 'a' }, '[\"a\",\"b\",\"c\"]') "
        "check({ b = 1, a = 2, ab = 3, [''] = 4 }, '{\"\":4,\"a\":2,\"ab\":3,\"b\":1}') "
        "local reversed = {} for i = 100, 1, -1 do reversed[i] = i end "
        "assert(json.encode(reversed):find('^%[1,2,3,.*,99,100%]$')) "
        "local many = {} for i = 1, 1000 do many[('k%04d'):format(i)] = i end "
        "local text = json.encode(many) local previous = '' for key in text:gmatch('\"(k%d+)\"') do "
        "assert(key > previous) previous = key end assert(previous == 'k1000') "
        "check(nil, 'null') check(json.null, 'null') check('x', '\"x\"') check(1e15, '1000000000000000') "
        "check(2 ^ 53, '9007199254740992') check(-0.0, '-0') "
        "check({ json.null }, '[null]') check(json.decode('[]'), '[]') check(json.decode('{}'), '{}') "
        "check('a\\0b\\255', '\"a\\\\u0000b\\239\\191\\189\"') check({ ['\\255'] = 1 }, "
        "'{\"\\239\\191\\189\":1}') "
        "local list = json.array { 1 } list[2] = 2 check(list, '[1,2]') "
        "local with_methods = setmetatable({ a = 1 }, { __index = function() error('asked') end, __len = "
        "function() error('asked') end }) check(with_methods, '{\"a\":1}') ");
}

static void what_has_no_json_form_is_an_error_that_names_the_way(void **state)
{
    expect_call(
        *state,
        "local json = require 'llmproxy.json' "
        "local function check(value, expected) local text, message = json.encode(value) assert(text == nil "
        "and message:find(expected, 1, true), message or text) end "
        "check(print, 'cannot be written as JSON: a function') "
        "check({ choices = { 1, { delta = print } } }, 'choices[2].delta: cannot be written as JSON: a "
        "function') "
        "check({ { 0 / 0 } }, '[1][1]: cannot be written as JSON: NaN') check({ a = math.huge }, 'a: cannot "
        "be written as JSON: an infinite number') "
        "check({ a = { 1, nil, 3 } }, 'a: cannot be written as JSON: a list with holes') check({ 1, a = 2 }, "
        "'other keys than 1 to n') "
        "check({ [5] = 1 }, 'numbers as keys') check({ [1.5] = 1 }, 'numbers as keys') check({ [true] = 1 }, "
        "'a key that is not a string') "
        "check(json.array { a = 1 }, 'a list with holes or with other keys') check(coroutine.create(print), "
        "'no data') check(require('llmproxy.file').stdout(), 'a userdata') "
        "assert(json.encode { 1 } == '[1]')");
}

static void a_failed_encoding_leaves_the_buffer_as_it_was(void **state)
{
    struct fixture *fixture = *state;
    lua_State *lua = script_lua(fixture->script);
    struct error error;
    struct buffer out = {0};
    fixture_load(fixture, "return { a = 'x', b = { 1, 2, print } }, { ok = true }");
    assert_true(script_call(fixture->script, 0, 2, 0, &error));
    buffer_append_string(&out, "before ");
    assert_false(script_json_encode(lua, 1, &out, &error));
    assert_string_equal(error.message, "b[3]: cannot be written as JSON: a function");
    assert_true(slice_equal(buffer_slice(&out), SLICE("before ")));
    assert_true(script_json_encode(lua, -1, &out, &error));
    assert_true(slice_equal(buffer_slice(&out), SLICE("before {\"ok\":true}")));
    assert_int_equal(lua_gettop(lua), 2);
    lua_settop(lua, 0);
    buffer_free(&out);
}

static void raw_values_keep_their_text(void **state)
{
    expect_call(*state, "local json = require 'llmproxy.json' "
                        "local big = json.decode('{\"id\":12345678901234567890}').id assert(tostring(big) == "
                        "'12345678901234567890' and type(big) == 'userdata') "
                        "assert(json.encode { id = big } == '{\"id\":12345678901234567890}') assert(big == "
                        "json.decode '12345678901234567890' and big ~= json.decode '12345678901234567891') "
                        "local body = json.raw ' {\"b\" :1.0,\"a\":[ ]} ' assert(json.encode { body } == '[ "
                        "{\"b\" :1.0,\"a\":[ ]} ]') "
                        "local none, message = json.raw '{\"a\":}' assert(none == nil and message:find('at "
                        "byte 6', 1, true)) "
                        "assert(getmetatable(big) == 'json.raw' and not pcall(setmetatable, big, {}))"
                        "assert(tostring(json.null) == 'null' and json.decode 'null' == json.null and "
                        "json.decode('[null]')[1] == json.null)");
}

static void the_module_refuses_wrong_arguments_by_name(void **state)
{
    static const struct {
        const char *code, *message;
    } cases[] = {
        {"require('llmproxy.json').decode()",
         "code:1: llmproxy.json.decode: text: expected a string, got nothing"},
        {"require('llmproxy.json').decode({})", "llmproxy.json.decode: text: expected a string, got table"},
        {"require('llmproxy.json').encode()", "llmproxy.json.encode: value: expected a value, got nothing"},
        {"require('llmproxy.json').array(1)", "llmproxy.json.array: table: expected a table, got number"},
        {"require('llmproxy.json').raw(nil)", "llmproxy.json.raw: text: expected a string, got nil"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_false(fixture_call(*state, cases[i].code));
        expect_message(*state, cases[i].message);
    }
}

/* Random values, written, read and written again, are the same text. */
static void random_values_survive(void **state)
{
    expect_call(*state,
                "local json = require 'llmproxy.json'\n"
                "local value\n"
                "local function text() local bytes = {} for i = 1, math.random(0, 20) do bytes[i] = "
                "string.char(math.random(0, 127)) end return table.concat(bytes) .. (math.random() < 0.3 and "
                "'ä€😀' or '') end\n"
                "local makers = {\n"
                "  function() return math.random() < 0.5 end, function() return json.null end, text,\n"
                "  function() return math.random(-1000, 1000) end, function() return math.random() * 10 ^ "
                "math.random(-300, 300) end,\n"
                "  function() return json.decode(('%d'):format(math.random(1, 9)) .. "
                "('7'):rep(math.random(16, 40))) end,\n"
                "  function(depth) local t = {} for i = 1, math.random(0, depth) do t[i] = value(depth - 1) "
                "end return json.array(t) end,\n"
                "  function(depth) local t = {} for _ = 1, math.random(0, depth) do t[text()] = value(depth "
                "- 1) end return t end,\n"
                "}\n"
                "function value(depth) return makers[math.random(#makers)](depth) end\n"
                "for _ = 1, 2000 do\n"
                "  local first = assert(json.encode(makers[math.random(7, 8)](6)))\n"
                "  local second = assert(json.encode(assert(json.decode(first))))\n"
                "  assert(first == second, first)\n"
                "  assert(json.encode(json.raw(first)) == first)\n"
                "end");
}

static void running_out_of_memory_in_the_middle_leaks_nothing(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_set_up(&fixture, (struct script_settings){.memory_limit = 2 << 20});
    for (int i = 0; i < 3; i++) {
        assert_false(fixture_call(
            &fixture, "local json = require 'llmproxy.json' local t = {} for i = 1, 1e6 do t[i] = "
                      "json.decode('{\"key\\\\n' .. i .. '\":[1,2,{\"x\":\"\\\\u00e4\"}]}') end"));
        expect_message(&fixture, "not enough memory");
        assert_false(fixture_call(
            &fixture, "local json = require 'llmproxy.json' local t = {} for i = 1, 1e6 do t['k' .. i] = { t "
                      "= i } if i % 100 == 0 then assert(#json.encode(t) > 0) end end"));
        expect_message(&fixture, "not enough memory");
    }
    fixture_tear_down(&fixture);
}

/* Sixty tables, of which each holds the next one twice: a text that would fill every disk. */
static void tables_in_each_other_end_with_the_time_or_the_memory(void **state)
{
    (void)state;
    static const char *const code = "local list = {} for i = 1, 60 do list = { list, list } end "
                                    "local text, message = require('llmproxy.json').encode(list) "
                                    "assert(text == nil) error(message)";
    struct fixture fixture;
    fixture_set_up(&fixture, (struct script_settings){.memory_limit = 2 << 20});
    assert_false(fixture_task(&fixture, code));
    expect_message(&fixture, "cannot be written as JSON: the text is larger than the memory limit");
    fixture_tear_down(&fixture);
    fixture_set_up(&fixture, (struct script_settings){.watchdog_seconds = 0.1});
    assert_false(fixture_task(&fixture, code));
    expect_message(&fixture, "code:1: stopped: ran for more than 0.1 s without a break");
    fixture_tear_down(&fixture);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_read_is_written),
        TEST(other_spellings_mean_the_same),
        TEST(invalid_text_is_refused_with_the_place),
        TEST(every_prefix_of_a_text_is_refused),
        TEST(numbers_at_the_end_are_not_read_beyond),
        TEST(doubles_are_the_nearest_and_come_back),
        TEST(nesting_is_bounded_both_ways),
        TEST(the_deepest_value_that_is_read_can_be_part_of_one_that_is_written),
        TEST(tables_are_lists_or_objects),
        TEST(what_has_no_json_form_is_an_error_that_names_the_way),
        TEST(a_failed_encoding_leaves_the_buffer_as_it_was),
        TEST(raw_values_keep_their_text),
        TEST(the_module_refuses_wrong_arguments_by_name),
        TEST(random_values_survive),
        TEST(running_out_of_memory_in_the_middle_leaks_nothing),
        TEST(tables_in_each_other_end_with_the_time_or_the_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
