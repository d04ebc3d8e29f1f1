/*
 * run-transform: stored events through one transform, and what comes out of it on the standard output, line by line: to see what a plugin does before a pipeline uses it.
 */
#include "command/command.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/memory.h"
#include "command/plugin_host.h"
#include "net/loop.h"
#include "script/host.h"
#include "script/modules.h"
#include "script/script.h"

#define MEMORY_LIMIT     (256u << 20)
#define LOAD_SECONDS     5.0
#define WATCHDOG_SECONDS 1.0

struct work {
    const struct options *options;
    const char *stock_folder;
    struct loop *loop;
    char *line; /* of the standard input, getline's */
    size_t line_size;
    int status;
};

static struct work *work_of(lua_State *lua)
{
    return lua_touserdata(lua, lua_upvalueindex(1));
}

/* read_line() -> the next line of the standard input without its newline; nothing at the end */
static int read_line(lua_State *lua)
{
    struct work *work = work_of(lua);
    uint64_t begun = script_begin_blocking(lua);
    ssize_t size = getline(&work->line, &work->line_size, stdin);
    script_end_blocking(lua, begun);
    if (size < 0) {
        return 0;
    }
    lua_pushlstring(lua, work->line, (size_t)size - (work->line[size - 1] == '\n'));
    return 1;
}

static int complain(lua_State *lua)
{
    command_error("%s", lua_tostring(lua, 1));
    return 0;
}

static int done(lua_State *lua)
{
    struct work *work = work_of(lua);
    work->status = lua_tointeger(lua, 2) > 0 ? EXIT_FAILED : EXIT_DONE;
    loop_stop(work->loop);
    return 0;
}

static int refuse(lua_State *lua)
{
    struct work *work = work_of(lua);
    for (int i = 1; i <= (int)lua_objlen(lua, 1); i++) {
        lua_rawgeti(lua, 1, i);
        command_error("%s", lua_tostring(lua, -1));
        lua_pop(lua, 1);
    }
    work->status = EXIT_USAGE;
    loop_stop(work->loop);
    return 0;
}

/* The protected part; its argument is the work. */
static int start(lua_State *lua)
{
    static const luaL_Reg functions[] = {
        {"read_line", read_line}, {"complain", complain}, {"done", done}, {"refuse", refuse}, {NULL, NULL}};
    struct work *work = lua_touserdata(lua, 1);
    lua_getglobal(lua, "require");
    lua_pushliteral(lua, "llmproxy.testing.run_transform");
    lua_call(lua, 1, 1);
    plugin_host_push(lua);
    for (const luaL_Reg *function = functions; function->name != NULL; function++) {
        lua_pushlightuserdata(lua, work);
        lua_pushcclosure(lua, function->func, 1);
        lua_setfield(lua, -2, function->name);
    }
    lua_newtable(lua);
    lua_pushstring(lua, work->options->values[OPTION_CONFIG]);
    lua_setfield(lua, -2, "flag");
    lua_pushstring(lua, work->stock_folder);
    lua_setfield(lua, -2, "stock");
    lua_pushstring(lua, work->options->arguments[0]);
    lua_pushstring(lua, work->options->argument_count > 1 ? work->options->arguments[1] : NULL);
    lua_call(lua, 4, 0);
    return 0;
}

static int run(const struct options *options)
{
    if (options->argument_count == 0) {
        command_error("run-transform: expected the name of a transform");
        fprintf(stderr, "see llm-proxy run-transform --help\n");
        return EXIT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    log_configure(getenv("LOG_LEVEL") == NULL ? LOG_WARN : LOG_DEBUG, LOG_TEXT);
    struct error error;
    char *share = config_share_folder(NULL);
    char *lua_folder = xprintf("%s/lua", share), *stock_folder = xprintf("%s/plugins", share);
    struct work work = {
        .options = options, .stock_folder = stock_folder, .loop = loop_new(), .status = EXIT_FAILED};
    struct script *script = script_new(&(struct script_settings){.lua_folder = lua_folder,
                                                                 .memory_limit = MEMORY_LIMIT,
                                                                 .memory_limit_name = "the limit",
                                                                 .loop = work.loop,
                                                                 .name = "run-transform",
                                                                 .watchdog_seconds = WATCHDOG_SECONDS},
                                       &error);
    bool begun = false;
    if (script != NULL) {
        lua_State *lua = script_lua(script);
        script_add_module(script, "llmproxy.time.real", script_open_time);
        lua_pushcfunction(lua, start);
        lua_pushlightuserdata(lua, &work);
        begun = script_call(script, 1, 0, LOAD_SECONDS, &error);
    }
    if (!begun) {
        command_error("%s", error.message);
    } else if (work.status != EXIT_USAGE) {
        loop_run(work.loop);
    }
    script_free(script);
    loop_free(work.loop);
    free(work.line);
    free(stock_folder);
    free(lua_folder);
    free(share);
    return work.status;
}

const struct command command_run_transform = {
    .name = "run-transform",
    .summary = "runs stored events through one transform",
    .synopsis = "run-transform [-c FILE] NAME [SETTINGS] < events.jsonl",
    .details =
        "Reads events as JSON lines, as the dispatcher file writes them, from the standard input, runs each "
        "through\nthe transform, and prints what comes out. SETTINGS are written as in the configuration: "
        "'{ longer_than = \"1s\" }'.\nThe exit status is 1 when an event failed; why is said with its line.",
    .takes = TAKES(OPTION_CONFIG),
    .most_arguments = 2,
    .run = run,
};
