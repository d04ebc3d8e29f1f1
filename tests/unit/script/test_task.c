/* Tasks: begun by the loop, suspended by host functions, resumed once, cancelled with the state. */
#include "fixture.h"

/* A host function that waits until the test lets it go on. */
struct gate {
    struct script_wait *wait;
    int opened, cancelled;
    const char *text;
};

static struct gate gates[8];
static int gate_count;

static void gate_cancel(void *object)
{
    ((struct gate *)object)->cancelled++;
}

static int gate_wait(lua_State *lua)
{
    struct gate *gate = &gates[gate_count];
    gate->wait = script_wait(lua, gate_cancel, gate);
    gate_count++;
    return lua_yield(lua, 0);
}

static int gate_push(lua_State *lua, void *argument)
{
    struct gate *gate = argument;
    gate->opened++;
    lua_pushstring(lua, gate->text);
    lua_pushinteger(lua, gate->opened);
    return 2;
}

static void gate_open(int index, const char *text)
{
    gates[index].text = text;
    script_resume(gates[index].wait, gate_push, &gates[index]);
}

static int set_up(void **state)
{
    static struct fixture fixture;
    memset(gates, 0, sizeof gates);
    gate_count = 0;
    fixture_set_up(&fixture, (struct script_settings){.memory_limit = 8 << 20, .watchdog_seconds = 0.02});
    lua_State *lua = script_lua(fixture.script);
    script_new_module(lua, "gate", (const luaL_Reg[]){{"wait", gate_wait}, {NULL, NULL}});
    lua_setglobal(lua, "gate");
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    if (fixture->script != NULL) {
        fixture_tear_down(fixture);
    }
    return 0;
}

struct end {
    int times;
    char message[600];
};

static void on_end(void *argument, const char *error)
{
    struct end *end = argument;
    end->times++;
    snprintf(end->message, sizeof end->message, "%s", error != NULL ? error : "");
}

static void spawn(struct fixture *fixture, const char *code, struct end *end)
{
    memset(end, 0, sizeof *end);
    fixture_load(fixture, code);
    script_spawn(fixture->script, 0, on_end, end);
    assert_int_equal(lua_gettop(script_lua(fixture->script)), 0);
}

static void stop(void *argument)
{
    loop_stop(argument);
}

/* Lets the loop run what is ready now and in the next turns. */
static void turn(struct fixture *fixture)
{
    for (int i = 0; i < 3; i++) {
        struct loop_timer timer;
        loop_timer_init(&timer, fixture->loop, stop, fixture->loop);
        loop_timer_set(&timer, 0);
        loop_run(fixture->loop);
        loop_timer_release(&timer);
    }
}

static void a_task_begins_in_the_next_turn_with_its_arguments(void **state)
{
    struct fixture *fixture = *state;
    lua_State *lua = script_lua(fixture->script);
    struct end end = {0};
    lua_pushliteral(lua, "below");
    fixture_load(fixture, "sum = 0 for _, value in ipairs { ... } do sum = sum + value end");
    for (int i = 1; i <= 10; i++) {
        lua_pushinteger(lua, i);
    }
    script_spawn(fixture->script, 10, on_end, &end);
    assert_int_equal(lua_gettop(lua), 1);
    assert_int_equal(end.times, 0);
    turn(fixture);
    assert_int_equal(end.times, 1);
    assert_string_equal(end.message, "");
    expect_call(fixture, "assert(sum == 55)");
    lua_settop(lua, 0);
}

static void tasks_wait_and_go_on_in_the_order_they_are_resumed(void **state)
{
    struct fixture *fixture = *state;
    struct end ends[3];
    expect_call(fixture, "order = {}");
    for (int i = 0; i < 3; i++) {
        spawn(fixture,
              "local text, times = gate.wait() assert(times == 1) order[#order + 1] = text text = "
              "gate.wait() order[#order + 1] = text",
              &ends[i]);
    }
    turn(fixture);
    assert_int_equal(gate_count, 3);
    gate_open(2, "c");
    gate_open(0, "a");
    gate_open(1, "b");
    assert_int_equal(gate_count, 6);
    gate_open(3, "cc");
    gate_open(5, "bb");
    assert_int_equal(ends[2].times, 1);
    assert_int_equal(ends[1].times, 1);
    assert_int_equal(ends[0].times, 0);
    gate_open(4, "aa");
    assert_int_equal(ends[0].times, 1);
    expect_call(fixture, "assert(table.concat(order, ' ') == 'c a b cc bb aa', table.concat(order, ' '))");
}

static void waiting_works_across_pcall_and_metamethods_and_survives_collection(void **state)
{
    struct fixture *fixture = *state;
    struct end end;
    spawn(fixture,
          "local called, text = pcall(function() return gate.wait() end) assert(called and text == 'one') "
          "local object = setmetatable({}, { __index = function() return (gate.wait()) end }) "
          "assert(object.field == 'two') "
          "local raised, message = pcall(function() gate.wait() error('after', 0) end) assert(not raised and "
          "message == 'after') "
          "for text in gate.wait do assert(text == 'four') break end",
          &end);
    turn(fixture);
    static const char *const texts[] = {"one", "two", "three", "four"};
    for (int i = 0; i < 4; i++) {
        lua_gc(script_lua(fixture->script), LUA_GCCOLLECT, 0);
        gate_open(i, texts[i]);
    }
    assert_int_equal(end.times, 1);
    assert_string_equal(end.message, "");
}

static void a_task_that_raises_reports_it_and_hurts_no_other(void **state)
{
    struct fixture *fixture = *state;
    struct end before, raising, other;
    spawn(fixture, "error('at once', 0)", &before);
    spawn(fixture, "gate.wait() error({ code = 1 })", &raising);
    spawn(fixture, "gate.wait()", &other);
    turn(fixture);
    assert_string_equal(before.message, "at once");
    gate_open(0, "go");
    assert_int_equal(raising.times, 1);
    assert_string_equal(raising.message, "raised a table instead of a message");
    assert_int_equal(other.times, 0);
    gate_open(1, "go");
    assert_int_equal(other.times, 1);
    assert_string_equal(other.message, "");
}

static void waiting_where_it_cannot_work_is_an_error(void **state)
{
    static const struct {
        const char *code, *message;
    } cases[] = {
        {"coroutine.wrap(function() gate.wait() end)()",
         "gate.wait cannot wait inside a coroutine of your own"},
        {"table.sort({ 1, 2, 3 }, function() gate.wait() end)",
         "gate.wait cannot wait inside a function called by C"},
        {"('x'):gsub('x', gate.wait)", "gate.wait cannot wait inside a function called by C"},
    };
    struct fixture *fixture = *state;
    assert_false(fixture_call(fixture, "gate.wait()"));
    assert_string_equal(
        fixture->message,
        "code:1: gate.wait cannot wait here: only while a pipeline runs, not while plugins are loaded");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_false(fixture_task(fixture, cases[i].code));
        expect_message(fixture, cases[i].message);
    }
    assert_int_equal(gate_count, 0);
}

static void freeing_the_script_cancels_what_waits(void **state)
{
    struct fixture *fixture = *state;
    struct end waiting, resumed, never_begun;
    spawn(fixture, "gate.wait()", &waiting);
    spawn(fixture, "gate.wait() gate.wait()", &resumed);
    turn(fixture);
    gate_open(1, "go");
    spawn(fixture, "gate.wait()", &never_begun);
    fixture_tear_down(fixture);
    fixture->script = NULL;
    assert_int_equal(gates[0].cancelled, 1);
    assert_int_equal(gates[1].cancelled, 0);
    assert_int_equal(gates[2].cancelled, 1);
    assert_int_equal(waiting.times + resumed.times + never_begun.times, 0);
}

static int push_too_much(lua_State *lua, void *argument)
{
    (void)argument;
    lua_newuserdata(lua, 100 << 20);
    return 1;
}

static void results_that_do_not_fit_into_memory_become_nil_and_a_message(void **state)
{
    struct fixture *fixture = *state;
    struct end end;
    spawn(
        fixture,
        "local value, message = gate.wait() assert(value == nil and message == 'not enough memory', message)",
        &end);
    turn(fixture);
    script_resume(gates[0].wait, push_too_much, NULL);
    assert_int_equal(end.times, 1);
    assert_string_equal(end.message, "");
}

static void a_task_may_not_run_without_a_break_for_long(void **state)
{
    skip_under_thread_sanitizer();
    struct fixture *fixture = *state;
    struct end endless, later, waiting;
    spawn(fixture, "gate.wait()", &waiting);
    spawn(fixture, "while true do pcall(function() while true do end end) end", &endless);
    turn(fixture);
    assert_int_equal(endless.times, 1);
    assert_non_null(strstr(endless.message, "stopped: ran for more than 0.02 s without a break"));
    spawn(fixture, "gate.wait() while true do end", &later);
    turn(fixture);
    gate_open(1, "go");
    assert_int_equal(later.times, 1);
    assert_non_null(strstr(later.message, "stopped"));
    usleep(100000); /* waiting is no running */
    gate_open(0, "go");
    assert_string_equal(waiting.message, "");
    assert_int_equal(waiting.times, 1);
}

static int spawn_global(lua_State *lua)
{
    struct script *script = script_of(lua);
    lua_State *own = script_lua(script);
    lua_getglobal(own, "child");
    script_spawn(script, 0, NULL, NULL);
    return 0;
}

static void an_error_that_never_becomes_text_stops_nothing(void **state)
{
    skip_under_thread_sanitizer();
    struct fixture *fixture = *state;
    assert_false(
        fixture_task(fixture, "error(setmetatable({}, { __tostring = function() while true do end end }))"));
    expect_message(fixture, "stopped: ran for more than");
    assert_false(fixture_task(
        fixture, "error(setmetatable({}, { __tostring = function() error('no text', 0) end }))"));
    expect_message(fixture, "no text");
}

static void a_handler_that_never_ends_is_stopped(void **state)
{
    skip_under_thread_sanitizer();
    struct fixture *fixture = *state;
    static const char *const codes[] = {
        "xpcall(function() while true do end end, function() while true do end end)",
        "xpcall(function() error('x') end, function() while true do end end)",
        "coroutine.wrap(function() xpcall(function() while true do end end, function() while true do end "
        "end) "
        "end)()",
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        assert_false(fixture_task(fixture, codes[i]));
        expect_message(fixture, "stopped: ran for more than");
    }
    expect_task(fixture, "local called, message = xpcall(function(a) error(a .. 'b', 0) end, function(text) "
                         "return text .. 'c' end, 'a') assert(not called and message == 'abc') "
                         "assert(select('#', xpcall(function(...) return ... end, error, nil, 1, nil)) == 4) "
                         "assert(xpcall(require('llmproxy.time').sleep, error, 0.001)) "
                         "assert(not pcall(xpcall, error))");
}

static void a_task_may_start_others(void **state)
{
    struct fixture *fixture = *state;
    struct end end;
    lua_register(script_lua(fixture->script), "spawn", spawn_global);
    spawn(fixture,
          "count = 0 function child() count = count + 1 if count < 3 then spawn() end end spawn() "
          "assert(count == 0)",
          &end);
    turn(fixture);
    turn(fixture);
    assert_string_equal(end.message, "");
    expect_call(fixture, "assert(count == 3)");
}

static void sleeping_tasks_overlap(void **state)
{
    struct fixture *fixture = *state;
    struct end first, second;
    expect_call(fixture, "order = {}");
    spawn(fixture, "local time = require 'llmproxy.time' time.sleep(0.02) order[#order + 1] = 'long'",
          &first);
    spawn(
        fixture,
        "local time = require 'llmproxy.time' for _ = 1, 3 do time.sleep(0) order[#order + 1] = 'short' end",
        &second);
    expect_task(fixture, "local time = require 'llmproxy.time' local before = time.monotonic() "
                         "time.sleep(0.03) assert(time.monotonic() - before >= 0.03)");
    assert_int_equal(first.times + second.times, 2);
    expect_call(fixture, "assert(table.concat(order, ' ') == 'short short short long')");
}

static void sleeping_tasks_are_cancelled_with_the_state(void **state)
{
    struct fixture *fixture = *state;
    struct end end;
    spawn(fixture, "require('llmproxy.time').sleep(1000)", &end);
    turn(fixture);
    fixture_tear_down(fixture);
    fixture->script = NULL;
    assert_int_equal(end.times, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_task_begins_in_the_next_turn_with_its_arguments),
        TEST(tasks_wait_and_go_on_in_the_order_they_are_resumed),
        TEST(waiting_works_across_pcall_and_metamethods_and_survives_collection),
        TEST(a_task_that_raises_reports_it_and_hurts_no_other),
        TEST(waiting_where_it_cannot_work_is_an_error),
        TEST(freeing_the_script_cancels_what_waits),
        TEST(results_that_do_not_fit_into_memory_become_nil_and_a_message),
        TEST(a_task_may_not_run_without_a_break_for_long),
        TEST(an_error_that_never_becomes_text_stops_nothing),
        TEST(a_handler_that_never_ends_is_stopped),
        TEST(a_task_may_start_others),
        TEST(sleeping_tasks_overlap),
        TEST(sleeping_tasks_are_cancelled_with_the_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
