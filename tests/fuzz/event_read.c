/*
 * Events stored as JSON: any text is refused with a message, or is an event whose own JSON is the same event again; and it can be stored.
 */
#include "pipeline/event_read.h"
#include "event/event_view.h"
#include "fuzz.h"
#include "script/json.h"
#include "script/script.h"

#define MAX_DECODED 65536

static lua_State *state(void)
{
    static struct script *script;
    struct error error = {.message = ""};
    if (script == NULL)
        script = script_new(&(struct script_settings){.lua_folder = LUA_DIR, .name = "fuzz"}, &error);
    REQUIRE_MESSAGE(script != NULL, error.message);
    return script_lua(script);
}

/* NULL: refused, *error says why. */
static struct event_record *read_event(struct slice text, struct error *error)
{
    lua_State *lua = state();
    struct event_record *event = NULL;
    if (script_json_decode(lua, text, error)) {
        event = event_read(lua, -1, error);
        REQUIRE(lua_gettop(lua) == 1);
    }
    lua_settop(lua, 0);
    return event;
}

static void check_stored(const struct event_record *event)
{
    struct error error = {.message = ""};
    struct iovec pieces[64];
    struct buffer stored = {0};
    size_t count = event_pieces(event, pieces, 64);
    REQUIRE(count <= 64);
    for (size_t i = 0; i < count; i++)
        buffer_append(&stored, pieces[i].iov_base, pieces[i].iov_len);
    struct event_record *read = event_decode(buffer_slice(&stored), &error);
    REQUIRE_MESSAGE(read != NULL, error.message);
    event_record_release(read);
    buffer_free(&stored);
}

/* The JSON of the event that this JSON is read as. */
static struct buffer again(struct slice json)
{
    struct error error = {.message = ""};
    struct buffer out = {0};
    struct event_record *event = read_event(json, &error);
    REQUIRE_MESSAGE(event != NULL, error.message);
    event_write_json(event, MAX_DECODED, &out);
    event_record_release(event);
    return out;
}

static void check_event(const struct event_record *event)
{
    struct buffer json = {0};
    check_stored(event);
    event_write_json(event, MAX_DECODED, &json);
    /* Names of headers that were not in lower case may be in another order; and a tail of which no character is whole is none. */
    bool has_tail = event_response_tail(event)->size > 0;
    struct buffer second = again(buffer_slice(&json)), third = again(buffer_slice(&second));
    REQUIRE(second.size == json.size || has_tail);
    REQUIRE(slice_equal(buffer_slice(&second), buffer_slice(&third)));
    buffer_free(&json);
    buffer_free(&second);
    buffer_free(&third);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error error = {.message = ""};
    struct slice text = fuzz_copy((struct slice){(const char *)data, size});
    struct event_record *event = read_event(text, &error);
    if (event != NULL)
        check_event(event);
    else
        REQUIRE(error.message[0] != 0);
    event_record_release(event);
    free((char *)(uintptr_t)text.data);
    return 0;
}
