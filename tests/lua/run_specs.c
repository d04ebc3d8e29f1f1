/*
 * run_specs SPEC.lua: runs a spec in a real script host, prints TAP, and exits with 1 when a promise was not kept.
 *
 * A spec returns a table of functions by promise. What it may use is in lib/testing.lua, which does the work; this file gives it what the sandbox rightly has not: files, a server on loopback, the way out.
 * A promise runs as a task, so that host functions can wait in it.
 */
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "loopback.h"
#include "script/host.h"

#define LONGEST_RUN_S 60
#define MAX_FILE      (64 << 20)

static const char *spec_path;
static char folder[] = "/tmp/llm-proxy-spec-XXXXXX";
static int exit_status = 1;
static FILE *
    report; /* the real standard output: what the dispatcher stdout writes goes to the file "stdout" in the folder */

static int print_line(lua_State *lua)
{
    struct slice text = script_check_string(lua, 1, "text");
    fwrite(text.data, 1, text.size, report);
    fputc('\n', report);
    fflush(report);
    return 0;
}

static int load_file(lua_State *lua, const char *path)
{
    struct buffer *text = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    struct error error;
    if (!file_read(path, MAX_FILE, text, &error))
        return luaL_error(lua, "%s", error.message);
    lua_pushfstring(lua, "@%s", path);
    if (luaL_loadbuffer(lua, buffer_data(text), text->size, lua_tostring(lua, -1)) != 0)
        return lua_error(lua);
    return 1;
}

/* The spec's table. */
static int load_spec(lua_State *lua)
{
    load_file(lua, spec_path);
    lua_call(lua, 0, 1);
    return 1;
}

/* The table that a stock plugin's file ("transforms/llm") returns. */
static int load_plugin(lua_State *lua)
{
    load_file(lua, lua_pushfstring(lua, "%s/%s.lua", PLUGIN_DIR, script_check_text(lua, 1, "plugin")));
    lua_call(lua, 0, 1);
    return 1;
}

static int read_file(lua_State *lua)
{
    struct buffer *text = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    struct error error;
    if (!file_read(script_check_text(lua, 1, "path"), MAX_FILE, text, &error))
        return script_fail(lua, "%s", error.message);
    lua_pushlstring(lua, text->size > 0 ? buffer_data(text) : "", text->size);
    return 1;
}

/* An empty folder of this run's. */
static int push_folder(lua_State *lua)
{
    lua_pushstring(lua, folder);
    return 1;
}

static int push_certificate(lua_State *lua)
{
    lua_pushstring(lua, loopback_certificate(folder));
    return 1;
}

/* As SIGHUP does. */
static int reopen_files(lua_State *lua)
{
    script_reopen_files(script_of(lua));
    return 0;
}

static int rename_file(lua_State *lua)
{
    if (rename(script_check_text(lua, 1, "from"), script_check_text(lua, 2, "to")) != 0)
        return luaL_error(lua, "cannot rename");
    return 0;
}

/* The paths that begin with this, sorted. */
static int list_files(lua_State *lua)
{
    glob_t found;
    const char *pattern = lua_pushfstring(lua, "%s*", script_check_text(lua, 1, "beginning"));
    size_t count = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    lua_newtable(lua);
    for (size_t i = 0; i < count; i++) {
        lua_pushstring(lua, found.gl_pathv[i]);
        lua_rawseti(lua, -2, (int)i + 1);
    }
    globfree(&found);
    return 1;
}

/* Calls a function on the main coroutine, where nothing can wait: as plugins are loaded. true, or false and the message. */
static int call_outside(lua_State *lua)
{
    struct script *script = script_of(lua);
    lua_State *main_coroutine = script_lua(script);
    struct error error;
    lua_settop(lua, 1);
    lua_xmove(lua, main_coroutine, 1);
    bool done = script_call(script, 0, 0, 0, &error);
    lua_pushboolean(lua, done);
    if (done)
        return 1;
    lua_pushstring(lua, error.message);
    return 2;
}

/* Runs a function as another task, which is cancelled if it still waits when the run ends. */
static int spawn(lua_State *lua)
{
    struct script *script = script_of(lua);
    lua_settop(lua, 1);
    lua_xmove(lua, script_lua(script), 1);
    script_spawn(script, 0, NULL, NULL);
    return 0;
}

/* Whether the tests may take minutes. */
static int is_long(lua_State *lua)
{
    const char *wanted = getenv("LLM_PROXY_LONG_TESTS");
    lua_pushboolean(lua, wanted != NULL && *wanted != '\0');
    return 1;
}

static int finish(lua_State *lua)
{
    exit_status = script_check_number(lua, 1, "failures") > 0 ? 1 : 0;
    return 0;
}

static int open_host(lua_State *lua)
{
    static const luaL_Reg functions[] = {
        {"print", print_line},          {"load_spec", load_spec}, {"load_plugin", load_plugin},
        {"read_file", read_file},       {"folder", push_folder},  {"reopen_files", reopen_files},
        {"rename", rename_file},        {"list", list_files},     {"certificate", push_certificate},
        {"call_outside", call_outside}, {"spawn", spawn},         {"is_long", is_long},
        {"listen", loopback_listen},    {"finish", finish},       {NULL, NULL}};
    script_new_module(lua, "testing_host", functions);
    return 1;
}

static void on_done(void *argument, const char *error)
{
    if (error != NULL)
        fprintf(report, "Bail out! %s\n", error);
    loop_stop(argument);
}

static void on_too_long(void *argument)
{
    fprintf(report, "Bail out! still not done after %d s\n", LONGEST_RUN_S);
    loop_stop(argument);
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

static void run(struct script *script, struct loop *loop)
{
    struct loop_timer timer;
    struct error error;
    lua_State *lua = script_lua(script);
    script_add_module(script, "testing_host", open_host);
    lua_getglobal(lua, "require");
    lua_pushliteral(lua, "testing");
    if (!script_call(script, 1, 1, 0, &error)) {
        fprintf(report, "Bail out! %s\n", error.message);
        return;
    }
    lua_getfield(lua, -1, "run");
    script_spawn(script, 0, on_done, loop);
    loop_timer_init(&timer, loop, on_too_long, loop);
    loop_timer_set(&timer, LONGEST_RUN_S * UINT64_C(1000000000));
    loop_run(loop);
    loop_timer_release(&timer);
}

/* Keeps the real standard output for the report, and puts a file in its place. */
static void redirect_output(void)
{
    char *path = xprintf("%s/stdout", folder);
    report = fdopen(dup(STDOUT_FILENO), "w");
    if (report == NULL || freopen(path, "a", stdout) == NULL)
        abort();
    free(path);
}

int main(int argc, char **argv)
{
    if (argc != 2 || mkdtemp(folder) == NULL) {
        fprintf(stderr, "usage: run_specs SPEC.lua\n");
        return 2;
    }
    spec_path = argv[1];
    redirect_output();
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    /* Nothing that the environment says about proxies concerns a server on loopback. */
    setenv("no_proxy", "*", 1);
    log_configure(LOG_ERROR, LOG_TEXT);
    struct loop *loop = loop_new();
    struct error error;
    struct script_settings settings = {
        .lua_folder = LUA_DIR,
        .plugin_folders = (const char *const[]){PLUGIN_DIR, SPEC_DIR, NULL},
        .loop = loop,
        .name = "spec",
    };
    struct script *script = script_new(&settings, &error);
    if (script != NULL)
        run(script, loop);
    else
        fprintf(report, "Bail out! %s\n", error.message);
    script_free(script);
    loop_free(loop);
    fclose(report);
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return exit_status;
}
