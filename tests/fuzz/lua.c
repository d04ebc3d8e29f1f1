/*
 * Runs a check that is written in Lua (CHECK.lua beside this file: a function of one text, which raises when a promise is not kept) in a real script host.
 *
 * libFuzzer cannot see which Lua code ran: a hook tells it, a counter for each step from one line to another.
 */
#include <lauxlib.h>

#include "base/file.h"
#include "fuzz.h"
#include "script/script.h"

#define MAX_FILE (1 << 20)

#ifdef LLM_PROXY_FUZZ
static uint8_t counters[1 << 14] __attribute__((section("__libfuzzer_extra_counters")));

static void count_line(lua_State *lua, lua_Debug *call)
{
    static uint64_t before;
    lua_getinfo(lua, "S", call);
    uint64_t line = fuzz_hash(slice_of(call->short_src)) + (uint64_t)call->currentline * 2654435761u;
    counters[(line ^ before >> 1) % sizeof counters]++;
    before = line;
}
#endif

/* Leaves the check on the stack. */
static struct script *load(void)
{
    struct error error = {.message = ""};
    struct buffer text = {0};
    struct script *script =
        script_new(&(struct script_settings){.lua_folder = LUA_DIR, .name = CHECK}, &error);
    REQUIRE_MESSAGE(script != NULL, error.message);
    REQUIRE_MESSAGE(file_read(FUZZ_DIR "/" CHECK ".lua", MAX_FILE, &text, &error), error.message);
    lua_State *lua = script_lua(script);
    REQUIRE_MESSAGE(luaL_loadbuffer(lua, buffer_data(&text), text.size, "@" CHECK ".lua") == 0,
                    lua_tostring(lua, -1));
    REQUIRE_MESSAGE(script_call(script, 0, 1, 0, &error), error.message);
#ifdef LLM_PROXY_FUZZ
    lua_sethook(lua, count_line, LUA_MASKLINE, 0);
#endif
    buffer_free(&text);
    return script;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct script *script;
    struct error error = {.message = ""};
    if (script == NULL)
        script = load();
    lua_State *lua = script_lua(script);
    lua_pushvalue(lua, 1);
    lua_pushlstring(lua, (const char *)data, size);
    REQUIRE_MESSAGE(script_call(script, 1, 0, 0, &error), error.message);
    return 0;
}
