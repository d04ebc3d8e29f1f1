/*
 * JSON in Lua: any text is refused, or becomes a value whose JSON is valid and becomes the same value again. A number is the one that the C library reads.
 */
#include <ctype.h>
#include <math.h>

#include "base/utf8.h"
#include "fuzz.h"
#include "script/json.h"
#include "script/script.h"

static lua_State *state(void)
{
    static struct script *script;
    struct error error = {.message = ""};
    if (script == NULL)
        script = script_new(&(struct script_settings){.lua_folder = LUA_DIR, .name = "fuzz"}, &error);
    REQUIRE_MESSAGE(script != NULL, error.message);
    return script_lua(script);
}

/* What cannot be a double, or is a large integer, stays the text it was. */
static void check_number(lua_State *lua, struct slice text)
{
    while (text.size > 0 && isspace((unsigned char)text.data[text.size - 1]))
        text.size--;
    while (text.size > 0 && isspace((unsigned char)*text.data))
        text = (struct slice){text.data + 1, text.size - 1};
    char *copy = slice_to_string(text);
    if (lua_type(lua, -1) == LUA_TNUMBER) {
        double number = lua_tonumber(lua, -1), expected = strtod(copy, NULL);
        REQUIRE_MESSAGE(memcmp(&number, &expected, sizeof number) == 0, copy);
        REQUIRE_MESSAGE(!isinf(number), copy);
    } else if (lua_type(lua, -1) == LUA_TUSERDATA) {
        REQUIRE(lua_objlen(lua, -1) == text.size &&
                memcmp(lua_touserdata(lua, -1), text.data, text.size) == 0);
    }
    free(copy);
}

static struct buffer encode(lua_State *lua)
{
    struct buffer out = {0};
    struct error error;
    REQUIRE_MESSAGE(script_json_encode(lua, -1, &out, &error), error.message);
    REQUIRE_MESSAGE(script_json_check(buffer_slice(&out), &error), error.message);
    REQUIRE(utf8_valid(buffer_slice(&out)));
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lua_State *lua = state();
    struct slice text = fuzz_copy((struct slice){(const char *)data, size});
    struct error error = {.message = ""}, check_error = {.message = ""};
    bool valid = script_json_check(text, &check_error);
    REQUIRE(script_json_decode(lua, text, &error) == valid && lua_gettop(lua) == (valid ? 1 : 0));
    if (valid) {
        REQUIRE(utf8_valid(text));
        check_number(lua, text);
        struct buffer first = encode(lua);
        REQUIRE_MESSAGE(script_json_decode(lua, buffer_slice(&first), &error), error.message);
        REQUIRE(lua_type(lua, 1) == lua_type(lua, 2));
        struct buffer second = encode(lua);
        REQUIRE(slice_equal(buffer_slice(&first), buffer_slice(&second)));
        buffer_free(&first);
        buffer_free(&second);
    } else {
        REQUIRE(error.message[0] != 0 && strcmp(error.message, check_error.message) == 0);
    }
    lua_settop(lua, 0);
    free((char *)(uintptr_t)text.data);
    return 0;
}
