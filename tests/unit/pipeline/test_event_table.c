/*
 * The table of an event in Lua, and its way back to JSON.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <lauxlib.h>

#include "pipeline/event_table.h"
#include "script/script.h"

static struct script *script;
static lua_State *lua;
static struct event_scratch scratch;

static int setup(void **state)
{
    (void)state;
    struct error error;
    script = script_new(&(struct script_settings){.lua_folder = LUA_DIR, .name = "test"}, &error);
    if (script == NULL)
        return -1;
    lua = script_lua(script);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    script_free(script);
    event_scratch_free(&scratch);
    return 0;
}

#define NAME_VALUE(name, value)                                                                              \
    {                                                                                                        \
        {name, sizeof name - 1},                                                                             \
        {                                                                                                    \
            value, sizeof value - 1                                                                          \
        }                                                                                                    \
    }

static const struct name_value request_headers[] = {
    NAME_VALUE("Zebra", "last in the alphabet, first in the request"),
    NAME_VALUE("Accept", "text/plain"),
    NAME_VALUE("ACCEPT", "text/html"),
    NAME_VALUE("Cookie", "a=1"),
    NAME_VALUE("cookie", "b=2"),
    NAME_VALUE("X-Latin", "caf\xe9"),
    NAME_VALUE("X-Empty", ""),
};

static struct event_fields full_fields(void)
{
    return (struct event_fields){
        .id = SLICE("0199b8a2-1c00-7abc-8def-0123456789ab"),
        .request_id = SLICE("req-1"),
        .time_us = UINT64_C(1767323045678901),
        .method = SLICE("POST"),
        .path = SLICE("/v1/caf\xe9"),
        .query = SLICE(""),
        .status = 200,
        .duration_us = 1834567,
        .ttfb_us = 412001,
        .client = SLICE("127.0.0.1:50312"),
        .client_name = SLICE("team \"a\""),
        .route = SLICE("openai"),
        .upstream = SLICE("https://api.openai.com"),
        .credential_kind = SLICE("authorization"),
        .credential_fingerprint = SLICE("3f9a0c2b7d1e"),
        .request_headers = request_headers,
        .request_header_count = sizeof request_headers / sizeof *request_headers,
        .request_bytes = 12,
        .response_bytes = 9000000001,
        .streamed = true,
        .chunks = 7,
        .error_kind = SLICE("client_aborted"),
        .error_message = SLICE("gone"),
        .trace_id = SLICE("4bf92f3577b34da6a3ce929d0e0e4736"),
        .span_id = SLICE("00f067aa0ba902b7"),
        .version = SLICE("0.1.0"),
        .instance = SLICE("host-a"),
        .request_kept = true,
        .response_kept = true,
    };
}

static struct event_record *make_event(const struct event_fields *fields, struct slice request,
                                       struct slice response, struct slice tail)
{
    struct body bodies[3];
    const struct slice bytes[3] = {request, response, tail};
    for (size_t i = 0; i < 3; i++) {
        body_init(&bodies[i], NULL);
        assert_true(body_append(&bodies[i], bytes[i]));
    }
    return event_record_new(fields, &bodies[0], &bodies[1], &bodies[2]);
}

static void push(const struct event_record *event)
{
    struct event_view view;
    event_view_make(&view, event, 1 << 20);
    event_table_push(lua, &view, &scratch);
    event_view_free(&view);
}

/* Runs Lua with the table on top of the stack as `event`. */
static void run_with_event(const char *code)
{
    lua_pushvalue(lua, -1);
    lua_setglobal(lua, "event");
    if (luaL_loadstring(lua, code) != 0 || lua_pcall(lua, 0, 0, 0) != 0)
        fail_msg("%s", lua_tostring(lua, -1));
}

/* The JSON of the table on top of the stack, which is popped; NULL: *error. */
static char *encode(const struct event_record *event, struct error *error)
{
    struct buffer out = {0};
    int top = lua_gettop(lua);
    bool encoded = event_table_encode(lua, top, event, &scratch, &out, error);
    assert_int_equal(lua_gettop(lua), top);
    lua_settop(lua, top - 1);
    if (!encoded) {
        assert_int_equal(out.size, 0);
        buffer_free(&out);
        return NULL;
    }
    return buffer_take_string(&out);
}

static void assert_same_both_ways(const struct event_fields *fields, struct slice request,
                                  struct slice response, struct slice tail)
{
    struct error error;
    struct buffer direct = {0};
    struct event_record *event = make_event(fields, request, response, tail);
    event_write_json(event, 1 << 20, &direct);
    char *expected = buffer_take_string(&direct);
    push(event);
    char *encoded = encode(event, &error);
    assert_non_null(encoded);
    assert_string_equal(encoded, expected);
    free(encoded);
    free(expected);
    event_record_release(event);
}

static const struct slice binary = {"\xff\x00\x01", 3};

static void an_untouched_event_gives_the_same_bytes_both_ways(void **state)
{
    (void)state;
    struct event_fields fields = full_fields(), nothing = {.id = SLICE("x"), .ttfb_us = EVENT_NO_TIME};
    assert_same_both_ways(&fields, SLICE("{\"a\":\"\xc3\xa9\\n\"}\n"), SLICE("data: x\r\n\r\n"), SLICE(""));
    assert_same_both_ways(&fields, SLICE(""), SLICE(""), SLICE(""));
    assert_same_both_ways(&fields, binary, (struct slice){"\x80", 1}, SLICE(""));
    assert_same_both_ways(&fields, SLICE("text with a\0 in it"), SLICE("\xc3"), SLICE(""));
    assert_same_both_ways(&nothing, SLICE(""), SLICE(""), SLICE(""));
    fields.withheld = EVENT_WITHHELD_MEMORY;
    fields.request_kept = fields.response_kept = false;
    assert_same_both_ways(&fields, SLICE(""), SLICE(""), SLICE(""));
}

static void so_does_a_truncated_one(void **state)
{
    (void)state;
    struct event_fields fields = full_fields();
    fields.request_truncated = fields.response_truncated = true;
    assert_same_both_ways(&fields, SLICE("cut \xe2\x82"), SLICE("cut \xe2\x82"), SLICE("\x82\xac tail"));
    assert_same_both_ways(&fields, SLICE("cut"), SLICE("text"), binary);
    assert_same_both_ways(&fields, SLICE("cut"), binary, SLICE("text"));
}

static void so_does_one_whose_coding_is_unknown(void **state)
{
    (void)state;
    static const struct name_value coded[] = {NAME_VALUE("Content-Encoding", "rot13")};
    struct event_fields fields = full_fields();
    fields.request_headers = fields.response_headers = coded;
    fields.request_header_count = fields.response_header_count = 1;
    assert_same_both_ways(&fields, SLICE("looks like text"), SLICE("so does this"), SLICE(""));
}

static void lua_sees_bytes_numbers_and_nil(void **state)
{
    (void)state;
    struct event_fields fields = full_fields();
    struct event_record *event = make_event(&fields, binary, SLICE("text"), SLICE(""));
    push(event);
    run_with_event(
        "assert(event.request_body == '\\255\\0\\1' and event.request_body_encoding == 'base64')\n"
        "assert(event.response_body == 'text' and event.response_body_encoding == 'utf8')\n"
        "assert(event.status == 200 and event.duration_ms == 1834.567 and event.response_bytes == "
        "9000000001)\n"
        "assert(event.query == '' and event.response_tail == nil and event.bodies_withheld == nil)\n"
        "assert(event.path == '/v1/caf\\195\\169' and event.time == '2026-01-02T03:04:05.678901Z')\n"
        "assert(event.request_headers.accept == 'text/plain, text/html')\n"
        "assert(event.request_headers.cookie == 'a=1; b=2' and event.request_headers['x-latin'] == "
        "'caf\\195\\169')\n"
        "assert(event.credential.kind == 'authorization' and event.error.message == 'gone')\n"
        "assert(event.streamed == true and event.request_truncated == false and getmetatable(event) == "
        "nil)\n");
    lua_pop(lua, 1);
    event_record_release(event);
}

/* Changes an event with text bodies and looks for a piece of its JSON. */
static void assert_change(const char *code, const char *expected)
{
    struct error error;
    struct event_fields fields = full_fields();
    struct event_record *event = make_event(&fields, SLICE("asked"), SLICE("answered"), SLICE(""));
    push(event);
    run_with_event(code);
    char *json = encode(event, &error);
    if (json == NULL)
        fail_msg("%s: %s", code, error.message);
    if (strstr(json, expected) == NULL)
        fail_msg("%s: %s is not in %s", code, expected, json);
    free(json);
    event_record_release(event);
}

static void changes_are_written_in_canonical_form(void **state)
{
    (void)state;
    assert_change("event.zoo = 1 event.llm = { b = 2, a = { 1 } }",
                  "\"instance\":\"host-a\"},\"llm\":{\"a\":[1],\"b\":2},\"zoo\":1}");
    assert_change("event.method = nil event.status = 'odd'",
                  "\"method\":null,\"path\":\"/v1/caf\xc3\xa9\",\"query\":\"\",\"status\":\"odd\"");
    assert_change(
        "event.request_body = '\\255'",
        "\"request_body\":\"/w==\",\"response_body\":\"answered\",\"request_body_encoding\":\"base64\","
        "\"response_body_encoding\":\"utf8\"");
    assert_change("event.request_body = nil",
                  "\"request_body\":null,\"response_body\":\"answered\",\"request_body_encoding\":null,");
    assert_change(
        "event.response_body = { a = 1 }",
        "\"response_body\":{\"a\":1},\"request_body_encoding\":\"utf8\",\"response_body_encoding\":null,");
    assert_change("event.request_body_encoding = 'nonsense'", "\"request_body_encoding\":\"utf8\"");
    assert_change("event.response_tail = '\\255'", "\"response_body\":\"YW5zd2VyZWQ=\"");
    assert_change("event.credential = { fingerprint = 'x', more = 1 }",
                  "\"credential\":{\"kind\":null,\"fingerprint\":\"x\",\"more\":1}");
    assert_change("event.error = 'plain'", "\"error\":\"plain\"");
    assert_change(
        "event.request_headers.accept = nil event.request_headers.b = 'new' event.request_headers.a = 'too'",
        "\"request_headers\":{\"zebra\":\"last in the alphabet, first in the request\",\"cookie\":\"a=1; "
        "b=2\","
        "\"x-latin\":\"caf\xc3\xa9\",\"x-empty\":\"\",\"a\":\"too\",\"b\":\"new\"}");
    assert_change("event.request_headers = {}", "\"request_headers\":{}");
    assert_change("event.request_headers = nil", "\"request_headers\":null");
    assert_change("setmetatable(event, { __index = function() error('no') end })",
                  "\"bodies_withheld\":null");
}

static void without_the_record_headers_are_sorted(void **state)
{
    (void)state;
    struct error error;
    struct event_fields fields = full_fields();
    fields.request_header_count = 2;
    struct event_record *event = make_event(&fields, SLICE(""), SLICE(""), SLICE(""));
    push(event);
    char *json = encode(NULL, &error);
    assert_non_null(strstr(json, "\"request_headers\":{\"accept\":\"text/plain\",\"zebra\":"));
    free(json);
    event_record_release(event);
}

static void what_is_no_json_is_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"event.llm = { f = print }", "llm: f: "},
        {"event.self = event", "self: "},
        {"event.status = print", "status: "},
        {"event.request_headers.x = print", "request_headers.x: "},
        {"event.error.extra = print", "error.extra: "},
        {"event.error.kind = print", "error.kind: "},
        {"event.request_body = print", "request_body: "},
        {"event[2] = 'x'", "a key that is no string (a number)"},
        {"event.request_headers[true] = 'x'",
         "request_headers.cannot be written as JSON: a key that is no string (a boolean)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error;
        struct event_fields fields = full_fields();
        struct event_record *event = make_event(&fields, SLICE(""), SLICE(""), SLICE(""));
        push(event);
        run_with_event(cases[i][0]);
        char *json = encode(event, &error);
        if (json != NULL)
            fail_msg("%s: %s", cases[i][0], json);
        if (strstr(error.message, cases[i][1]) == NULL)
            fail_msg("%s: %s", cases[i][0], error.message);
        event_record_release(event);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_untouched_event_gives_the_same_bytes_both_ways),
        cmocka_unit_test(so_does_a_truncated_one),
        cmocka_unit_test(so_does_one_whose_coding_is_unknown),
        cmocka_unit_test(lua_sees_bytes_numbers_and_nil),
        cmocka_unit_test(changes_are_written_in_canonical_form),
        cmocka_unit_test(without_the_record_headers_are_sorted),
        cmocka_unit_test(what_is_no_json_is_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
