/*
 * Stored events: any bytes are refused, or are an event whose JSON is valid, whose Lua table says the same, and which is the same event when it is built and stored again.
 */
#include "base/utf8.h"
#include "fuzz.h"
#include "pipeline/event_read.h"
#include "pipeline/event_table.h"
#include "script/json.h"
#include "script/script.h"

#define MAX_DECODED       65536
#define MAX_EXACT_INTEGER (UINT64_C(1) << 53)
#define MAX_TIME_US       UINT64_C(1000000000000000000)

static struct buffer stored_form(const struct event_record *event)
{
    struct buffer stored = {0};
    size_t count = event_pieces(event, NULL, 0);
    struct iovec *pieces = calloc(count, sizeof *pieces);
    REQUIRE(event_pieces(event, pieces, count) == count);
    for (size_t i = 0; i < count; i++)
        buffer_append(&stored, pieces[i].iov_base, pieces[i].iov_len);
    free(pieces);
    REQUIRE(stored.size == event_stored_size(event));
    return stored;
}

static struct buffer json_of(const struct event_record *event)
{
    struct buffer json = {0};
    struct error error;
    event_write_json(event, MAX_DECODED, &json);
    REQUIRE_MESSAGE(script_json_check(buffer_slice(&json), &error), error.message);
    REQUIRE(utf8_valid(buffer_slice(&json)));
    REQUIRE(memchr(buffer_data(&json), '\n', json.size) == NULL);
    return json;
}

static bool is_ascii(struct slice text)
{
    bool ascii = true;
    for (size_t i = 0; i < text.size; i++)
        ascii = ascii && (unsigned char)text.data[i] < 0x80;
    return ascii;
}

/* Lua has doubles only; and beyond 10^15 milliseconds the two ways to JSON choose different words for the same number. */
static bool has_possible_numbers(const struct event_fields *fields)
{
    return fields->request_bytes <= MAX_EXACT_INTEGER && fields->response_bytes <= MAX_EXACT_INTEGER &&
           fields->chunks <= MAX_EXACT_INTEGER && fields->duration_us <= MAX_TIME_US &&
           (fields->ttfb_us <= MAX_TIME_US || fields->ttfb_us == EVENT_NO_TIME);
}

/* Names of fields are ASCII. Others may be the same text in two encodings, and so twice in one object. */
static bool has_possible_names(const struct event_fields *fields)
{
    bool ascii = true;
    for (size_t i = 0; i < fields->request_header_count; i++)
        ascii = ascii && is_ascii(fields->request_headers[i].name);
    for (size_t i = 0; i < fields->response_header_count; i++)
        ascii = ascii && is_ascii(fields->response_headers[i].name);
    return ascii;
}

/* What is read is exact in microseconds. */
static bool has_likely_numbers(const struct event_fields *fields)
{
    return has_possible_numbers(fields) && fields->status <= 999 &&
           fields->duration_us <= MAX_EXACT_INTEGER &&
           (fields->ttfb_us <= MAX_EXACT_INTEGER || fields->ttfb_us == EVENT_NO_TIME);
}

static lua_State *state(void)
{
    static struct script *script;
    struct error error = {.message = ""};
    if (script == NULL)
        script = script_new(&(struct script_settings){.lua_folder = LUA_DIR, .name = "fuzz"}, &error);
    REQUIRE_MESSAGE(script != NULL, error.message);
    return script_lua(script);
}

static void require_same_table(const struct event_record *event, struct slice json)
{
    static struct event_scratch scratch;
    struct error error;
    struct event_view view;
    struct buffer out = {0};
    lua_State *lua = state();
    event_view_make(&view, event, MAX_DECODED);
    event_table_push(lua, &view, &scratch);
    REQUIRE_MESSAGE(event_table_encode(lua, lua_gettop(lua), event, &scratch, &out, &error), error.message);
    REQUIRE(slice_equal(buffer_slice(&out), json));
    lua_settop(lua, 0);
    event_view_free(&view);
    buffer_free(&out);
}

/* Read from its JSON it is the same event, but for the order of its headers, and a tail of which no character is whole. */
static void require_same_read(const struct event_record *event, struct slice json)
{
    struct error error;
    struct buffer out = {0};
    lua_State *lua = state();
    REQUIRE_MESSAGE(script_json_decode(lua, json, &error), error.message);
    struct event_record *read = event_read(lua, -1, &error);
    lua_settop(lua, 0);
    REQUIRE_MESSAGE(read != NULL, error.message);
    event_write_json(read, MAX_DECODED, &out);
    const struct event_fields *fields = event_get(event);
    bool ordered = fields->request_header_count + fields->response_header_count == 0;
    if (event_response_tail(event)->size == 0)
        REQUIRE(out.size == json.size && (!ordered || slice_equal(buffer_slice(&out), json)));
    event_record_release(read);
    buffer_free(&out);
}

static struct body copy_body(const struct body *body)
{
    struct body copy;
    body_init(&copy, NULL);
    for (const struct body_block *block = body->first; block != NULL; block = block->next) {
        /* In pieces, as a body arrives: other blocks than one read from a store. */
        for (size_t at = 0, size; at < block->size; at += size) {
            size = block->size - at < 700 ? block->size - at : 700;
            REQUIRE(body_append(&copy, (struct slice){block->data + at, size}));
        }
    }
    return copy;
}

static struct event_record *build_again(const struct event_record *event)
{
    struct body request = copy_body(event_request_body(event));
    struct body response = copy_body(event_response_body(event));
    struct body tail = copy_body(event_response_tail(event));
    return event_record_new(event_get(event), &request, &response, &tail);
}

static void check_event(const struct event_record *event, struct slice stored)
{
    struct error error;
    struct buffer same = stored_form(event), json = json_of(event);
    REQUIRE(slice_equal(buffer_slice(&same), stored));
    const struct event_fields *fields = event_get(event);
    if (has_possible_numbers(fields) && has_possible_names(fields))
        require_same_table(event, buffer_slice(&json));
    if (has_likely_numbers(fields) && has_possible_names(fields))
        require_same_read(event, buffer_slice(&json));

    struct event_record *again = build_again(event);
    struct buffer json_again = json_of(again), stored_again = stored_form(again);
    REQUIRE(slice_equal(buffer_slice(&json), buffer_slice(&json_again)));
    struct event_record *read = event_decode(buffer_slice(&stored_again), &error);
    REQUIRE_MESSAGE(read != NULL, error.message);
    struct event_record *third = build_again(read);
    struct buffer stored_third = stored_form(third);
    REQUIRE(slice_equal(buffer_slice(&stored_again), buffer_slice(&stored_third)));

    event_record_release(again);
    event_record_release(read);
    event_record_release(third);
    buffer_free(&same);
    buffer_free(&json);
    buffer_free(&json_again);
    buffer_free(&stored_again);
    buffer_free(&stored_third);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error error = {.message = ""};
    struct slice stored = fuzz_copy((struct slice){(const char *)data, size});
    struct event_record *event = event_decode(stored, &error);
    if (event != NULL)
        check_event(event, stored);
    else
        REQUIRE(error.message[0] != 0);
    event_record_release(event);
    free((char *)(uintptr_t)stored.data);
    return 0;
}
