/*
 * An event's JSON is read back as the same event; what is none is refused by the name of its key.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "event/event_view.h"
#include "pipeline/event_read.h"
#include "script/json.h"
#include "script/script.h"

static struct script *script;
static lua_State *lua;

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
    return 0;
}

static struct event_record *read_json(const char *json, struct error *error)
{
    int top = lua_gettop(lua);
    assert_true(script_json_decode(lua, slice_of(json), error));
    struct event_record *record = event_read(lua, -1, error);
    assert_int_equal(lua_gettop(lua), top + 1);
    lua_settop(lua, top);
    return record;
}

static void assert_same_again(const char *json)
{
    struct error error = {{0}};
    struct event_record *record = read_json(json, &error);
    if (record == NULL)
        fail_msg("%s", error.message);
    struct buffer out = {0};
    event_write_json(record, 1 << 20, &out);
    char *text = buffer_take_string(&out);
    assert_string_equal(text, json);
    free(text);
    event_record_release(record);
}

#define HEAD                                                                                                 \
    "{\"id\":\"0199b8a2-1c3e-7b07-8d11-54f2a1c09d3e\",\"request_id\":\"r\",\"time\":\"2026-01-31T10:00:00."  \
    "123456Z\",\"method\":\"POST\",\"path\":\"/v1/caf\xc3\xa9\",\"query\":\"\",\"status\":200,\"duration_"   \
    "ms\":12.345,\"ttfb_ms\":1.5,\"client\":\"127.0.0.1:5\",\"client_name\":null,\"route\":\"openai\","      \
    "\"upstream\":\"https://api\",\"credential\":{\"kind\":\"authorization\",\"fingerprint\":\"0123\"},"
#define FOOT                                                                                                 \
    "\"request_bytes\":5,\"response_bytes\":9007199254740991,\"request_truncated\":false,\"response_"        \
    "truncated\":%s,\"response_tail\":%s,\"bodies_withheld\":null,\"streamed\":true,\"chunks\":3,\"error\":" \
    "{\"kind\":\"upstream_aborted\",\"message\":\"cut\"},\"trace_id\":null,\"span_id\":null,\"proxy\":{"     \
    "\"version\":\"1\",\"instance\":\"i\"}}"

static void assert_bodies_again(const char *bodies, const char *truncated, const char *tail)
{
    struct buffer json = {0};
    buffer_append_string(&json, HEAD);
    buffer_append_string(&json, bodies);
    buffer_printf(&json, FOOT, truncated, tail);
    char *text = buffer_take_string(&json);
    assert_same_again(text);
    free(text);
}

static void an_event_comes_back_as_it_was(void **state)
{
    (void)state;
    assert_bodies_again(
        "\"request_headers\":{\"a\":\"1\",\"b\":\"\"},\"response_headers\":{},\"request_body\":"
        "\"hi \xf0\x9f\x98\x80\",\"response_body\":\"\",\"request_body_encoding\":\"utf8\",\"re"
        "sponse_body_encoding\":\"utf8\",\"request_content_coding\":null,\"response_content_cod"
        "ing\":null,",
        "false", "null");
}

static void a_decoded_body_is_not_decoded_again_and_a_coded_one_stays(void **state)
{
    (void)state;
    assert_bodies_again(
        "\"request_headers\":{\"content-encoding\":\"gzip\"},\"response_headers\":{\"content-en"
        "coding\":\"odd\"},\"request_body\":\"plain\",\"response_body\":\"AAEC\",\"request_body"
        "_encoding\":\"utf8\",\"response_body_encoding\":\"base64\",\"request_content_coding\":"
        "null,\"response_content_coding\":\"odd\",",
        "false", "null");
}

static void a_tail_and_bytes_come_back(void **state)
{
    (void)state;
    assert_bodies_again(
        "\"request_headers\":{},\"response_headers\":{},\"request_body\":\"/w==\",\"response_bo"
        "dy\":\"begin\",\"request_body_encoding\":\"base64\",\"response_body_encoding\":\"utf8\""
        ",\"request_content_coding\":null,\"response_content_coding\":null,",
        "true", "\"the end\"");
    assert_bodies_again(
        "\"request_headers\":{},\"response_headers\":{},\"request_body\":null,\"response_body\""
        ":\"/wE=\",\"request_body_encoding\":null,\"response_body_encoding\":\"base64\",\"reque"
        "st_content_coding\":null,\"response_content_coding\":null,",
        "true", "\"/wI=\"");
}

static void a_transforms_keys_are_left_out_and_missing_ones_are_null(void **state)
{
    (void)state;
    struct error error;
    struct event_record *record = read_json(
        "{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"llm\":{\"provider\":\"openai\"}}", &error);
    assert_non_null(record);
    const struct event_fields *fields = event_get(record);
    assert_int_equal(fields->status, 0);
    assert_null(fields->method.data);
    assert_false(fields->request_kept);
    assert_true(fields->ttfb_us == EVENT_NO_TIME);
    event_record_release(record);
}

static void what_is_no_event_is_refused_by_key(void **state)
{
    (void)state;
    static const struct {
        const char *json, *key;
    } cases[] = {
        {"5", "expected an event"},
        {"{\"time\":\"2026-01-31T10:00:00Z\"}", "id: "},
        {"{\"id\":\"\",\"time\":\"2026-01-31T10:00:00Z\"}", "id: "},
        {"{\"id\":5,\"time\":\"2026-01-31T10:00:00Z\"}", "id: "},
        {"{\"id\":\"i\"}", "time: "},
        {"{\"id\":\"i\",\"time\":\"yesterday\"}", "time: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"status\":1000}", "status: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"status\":-1}", "status: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"chunks\":\"3\"}", "chunks: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"chunks\":99999999999999999999}", "chunks: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"streamed\":1}", "streamed: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"error\":\"x\"}", "error: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"request_headers\":[\"x\"]}", "request_headers: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"request_headers\":{\"a\":1}}",
         "request_headers: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"request_headers\":7}", "request_headers: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"request_body\":{}}", "request_body: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"request_body\":\"x\",\"request_body_encoding\":"
         "\"base64\"}",
         "request_body: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"request_body\":\"x\",\"request_body_encoding\":"
         "\"hex\"}",
         "request_body: "},
        {"{\"id\":\"i\",\"time\":\"2026-01-31T10:00:00Z\",\"bodies_withheld\":\"no\"}", "bodies_withheld: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error = {{0}};
        assert_null(read_json(cases[i].json, &error));
        if (strncmp(error.message, cases[i].key, strlen(cases[i].key)) != 0)
            fail_msg("%s: %s", cases[i].json, error.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_comes_back_as_it_was),
        cmocka_unit_test(a_decoded_body_is_not_decoded_again_and_a_coded_one_stays),
        cmocka_unit_test(a_tail_and_bytes_come_back),
        cmocka_unit_test(a_transforms_keys_are_left_out_and_missing_ones_are_null),
        cmocka_unit_test(what_is_no_event_is_refused_by_key),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
