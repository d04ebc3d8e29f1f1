/* llmproxy.time: clocks, moments as text, and waiting; the words for users are in lua/llmproxy/meta/time.lua. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/memory.h"
#include "script/host.h"
#include "script/modules.h"

#define MAX_SLEEP_SECONDS  (366.0 * 86400)
#define YEAR_10000_SECONDS 253402300800.0
#define FORMAT_LETTERS     "YymdHIMSjaAbBpeuFTZ%"
#define LONGEST_FORMAT     200

/* time.now() -> seconds since 1970 */
static int now(lua_State *lua)
{
    lua_pushnumber(lua, (double)clock_realtime_us() / 1e6);
    return 1;
}

/* time.monotonic() -> seconds since some moment */
static int monotonic(lua_State *lua)
{
    lua_pushnumber(lua, (double)clock_monotonic_ns() / 1e9);
    return 1;
}

struct sleep {
    struct loop_timer timer;
    struct script_wait *wait;
};

static void sleep_free(void *object)
{
    struct sleep *sleep = object;
    loop_timer_release(&sleep->timer);
    free(sleep);
}

static int push_nothing(lua_State *lua, void *argument)
{
    (void)lua;
    (void)argument;
    return 0;
}

static void sleep_over(void *argument)
{
    struct sleep *sleep = argument;
    struct script_wait *wait = sleep->wait;
    sleep_free(sleep);
    script_resume(wait, push_nothing, NULL);
}

/* time.sleep(seconds) */
static int sleep_seconds(lua_State *lua)
{
    double seconds = script_check_number(lua, 1, "seconds");
    if (!(seconds >= 0 && seconds <= MAX_SLEEP_SECONDS)) {
        script_raise(lua, "seconds: expected 0 or more, at most a year");
    }
    script_check_wait(lua);
    struct sleep *sleep = xcalloc(1, sizeof *sleep);
    loop_timer_init(&sleep->timer, script_loop(script_of(lua)), sleep_over, sleep);
    sleep->wait = script_wait(lua, sleep_free, sleep);
    loop_timer_set(&sleep->timer, (uint64_t)(seconds * (double)NANOSECONDS_PER_SECOND));
    return lua_yield(lua, 0);
}

static double check_moment(lua_State *lua)
{
    double seconds = script_check_number(lua, 1, "t");
    if (!(seconds >= 0 && seconds < YEAR_10000_SECONDS)) {
        script_raise(lua, "t: expected seconds since 1970, before the year 10000");
    }
    return seconds;
}

/* time.rfc3339(t) -> "2026-01-02T03:04:05.678901Z" */
static int rfc3339(lua_State *lua)
{
    char text[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339((uint64_t)(check_moment(lua) * 1e6 + 0.5), text);
    lua_pushstring(lua, text);
    return 1;
}

/* time.format(t, format) -> the moment in UTC, as strftime writes it in the C locale */
static int format(lua_State *lua)
{
    time_t seconds = (time_t)check_moment(lua);
    const char *pattern = script_check_text(lua, 2, "format");
    if (strlen(pattern) > LONGEST_FORMAT) {
        script_raise(lua, "format: expected at most %d bytes", LONGEST_FORMAT);
    }
    for (const char *at = strchr(pattern, '%'); at != NULL; at = strchr(at + 2, '%')) {
        if (at[1] == '\0' || strchr(FORMAT_LETTERS, at[1]) == NULL) {
            script_raise(lua, "format: '%%%.1s' is none of %%%s", at + 1,
                         "Y y m d H I M S j a A b B p e u F T Z %");
        }
    }
    struct tm parts;
    char text[10 * LONGEST_FORMAT];
    gmtime_r(&seconds, &parts);
    lua_pushlstring(lua, text, pattern[0] != '\0' ? strftime(text, sizeof text, pattern, &parts) : 0);
    return 1;
}

/* time.parse(text) -> seconds since 1970, or nil and a message */
static int parse(lua_State *lua)
{
    uint64_t time_us;
    struct slice text = script_check_string(lua, 1, "text");
    if (!clock_parse_rfc3339(text, &time_us) && !clock_parse_http_date(text, &time_us)) {
        return script_fail(lua, "not a time as in RFC 3339 or HTTP: '%.*s'",
                           text.size > 60 ? 60 : (int)text.size, text.data);
    }
    lua_pushnumber(lua, (double)time_us / 1e6);
    return 1;
}

int script_open_time(lua_State *lua)
{
    script_new_module(lua, "llmproxy.time",
                      (const luaL_Reg[]){{"now", now},
                                         {"monotonic", monotonic},
                                         {"sleep", sleep_seconds},
                                         {"rfc3339", rfc3339},
                                         {"format", format},
                                         {"parse", parse},
                                         {NULL, NULL}});
    return 1;
}
