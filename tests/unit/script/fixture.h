/* fixture: a script on a loop, and ways to run Lua text in it, for the tests of this folder. */
#ifndef TEST_SCRIPT_FIXTURE_H
#define TEST_SCRIPT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "net/loop.h"
#include "script/host.h"
#include "script/script.h"

struct fixture {
    struct loop *loop;
    struct script *script;
    bool done, failed;
    char message[600];
};

static inline void fixture_set_up(struct fixture *fixture, struct script_settings settings)
{
    struct error error;
    memset(fixture, 0, sizeof *fixture);
    fixture->loop = loop_new();
    settings.loop = fixture->loop;
    settings.lua_folder = settings.lua_folder != NULL ? settings.lua_folder : LUA_DIR;
    settings.name = "test";
    fixture->script = script_new(&settings, &error);
    if (fixture->script == NULL) {
        fail_msg("%s", error.message);
    }
}

static inline void fixture_tear_down(struct fixture *fixture)
{
    script_free(fixture->script);
    loop_free(fixture->loop);
}

static inline void fixture_load(struct fixture *fixture, const char *code)
{
    lua_State *lua = script_lua(fixture->script);
    if (luaL_loadbuffer(lua, code, strlen(code), "=code") != 0) {
        fail_msg("%s", lua_tostring(lua, -1));
    }
}

/* The thread sanitizer holds signals back until a thread calls the C library, which an endless loop in Lua never does: nothing would stop it. */
static inline void skip_under_thread_sanitizer(void)
{
#if defined(__SANITIZE_THREAD__)
    skip();
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
    skip();
#endif
#endif
}

/* On the main coroutine; false: the message is in fixture->message. */
static inline bool fixture_call(struct fixture *fixture, const char *code)
{
    struct error error = {.message = ""};
    fixture_load(fixture, code);
    bool called = script_call(fixture->script, 0, 0, 0, &error);
    snprintf(fixture->message, sizeof fixture->message, "%s", error.message);
    return called;
}

static inline void fixture_done(void *argument, const char *error)
{
    struct fixture *fixture = argument;
    fixture->done = true;
    fixture->failed = error != NULL;
    snprintf(fixture->message, sizeof fixture->message, "%s", error != NULL ? error : "");
    loop_stop(fixture->loop);
}

/* As a task, until it is done. */
static inline bool fixture_task(struct fixture *fixture, const char *code)
{
    fixture->done = false;
    fixture_load(fixture, code);
    script_spawn(fixture->script, 0, fixture_done, fixture);
    loop_run(fixture->loop);
    assert_true(fixture->done);
    return !fixture->failed;
}

/* The code's own asserts must hold. */
static inline void expect_call(struct fixture *fixture, const char *code)
{
    if (!fixture_call(fixture, code)) {
        fail_msg("%s", fixture->message);
    }
}

static inline void expect_task(struct fixture *fixture, const char *code)
{
    if (!fixture_task(fixture, code)) {
        fail_msg("%s", fixture->message);
    }
}

static inline void expect_message(const struct fixture *fixture, const char *part)
{
    if (strstr(fixture->message, part) == NULL) {
        fail_msg("'%s' is not in '%s'", part, fixture->message);
    }
}

#endif
