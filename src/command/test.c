/*
 * test: runs specs of plugins in the host they are made for: each file in a Lua state of its own, with the sandbox, modules and limits of a pipeline. What a spec may use is in lua/llmproxy/testing; here are the files, the
 * states, and the end.
 *
 * TAP on the standard output, its last line "N passed, N failed".
 */
#include "command/command.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "command/plugin_host.h"
#include "net/loop.h"
#include "script/host.h"
#include "script/modules.h"
#include "script/script.h"

#define SPEC_ENDING       "_spec.lua"
#define MEMORY_LIMIT      (256u << 20)
#define WATCHDOG_SECONDS  5.0
#define LONGEST_SPEC_S    300
#define MOST_PARENTS      8
#define MOST_PLUGIN_PATHS 34

struct paths {
    char **list; /* absolute */
    size_t count;
};

/* One file's run. */
struct run {
    const char *path;
    const char *filter;
    const char *stock_folder;
    char **folders; /* of plugins; NULL-terminated */
    unsigned first; /* number of its first test */
    unsigned passed, failed;
    struct loop *loop;
    char folder[32];    /* for its files, when it asked for one; empty: it did not */
    struct error error; /* why it could not be run to its end; empty: it was */
};

static void add_path(struct paths *paths, const char *path)
{
    char absolute[PATH_MAX];
    paths->list = xrealloc(paths->list, (paths->count + 1) * sizeof *paths->list);
    paths->list[paths->count++] = xstrdup(realpath(path, absolute) != NULL ? absolute : path);
}

static void free_paths(struct paths *paths)
{
    for (size_t i = 0; i < paths->count; i++) {
        free(paths->list[i]);
    }
    free(paths->list);
}

static bool is_spec(const char *name)
{
    size_t size = strlen(name), ending = sizeof SPEC_ENDING - 1;
    return name[0] != '.' && size > ending && strcmp(name + size - ending, SPEC_ENDING) == 0;
}

/* Specs in a folder and below, in the order of their names. False: an error was said. */
static bool find_specs(const char *path, struct paths *found)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0) {
        command_error("%s: %s", path, strerror(errno));
        return false;
    }
    bool fine = true;
    for (int i = 0; i < count; i++) {
        struct stat status;
        char *below = xprintf("%s/%s", path, entries[i]->d_name);
        bool hidden = entries[i]->d_name[0] == '.';
        if (!hidden && stat(below, &status) == 0 && S_ISDIR(status.st_mode)) {
            fine = find_specs(below, found) && fine;
        } else if (is_spec(entries[i]->d_name)) {
            add_path(found, below);
        }
        free(below);
        free(entries[i]);
    }
    free(entries);
    return fine;
}

/* A file that is named is taken whatever it is called. */
static bool collect(const struct options *options, struct paths *found)
{
    for (size_t i = 0; i < options->argument_count; i++) {
        struct stat status;
        const char *path = options->arguments[i];
        size_t before = found->count;
        if (stat(path, &status) != 0) {
            command_error("%s: %s", path, strerror(errno));
            return false;
        }
        if (!S_ISDIR(status.st_mode)) {
            add_path(found, path);
        } else if (!find_specs(path, found)) {
            return false;
        }
        if (found->count == before) {
            command_error("%s: no specs in it (files named *%s)", path, SPEC_ENDING);
            return false;
        }
    }
    return true;
}

static bool is_plugin_folder(const char *folder)
{
    static const char *const kinds[] = {"transforms", "dispatchers", "buses"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct stat status;
        char *path = xprintf("%s/%s", folder, kinds[i]);
        bool there = stat(path, &status) == 0 && S_ISDIR(status.st_mode);
        free(path);
        if (there) {
            return true;
        }
    }
    return false;
}

/* Of LLM_PROXY_PLUGINS, the nearest one that a spec is in, the stock folder; NULL-terminated. */
static char **plugin_folders(const char *spec, const char *stock)
{
    char **folders = xcalloc(MOST_PLUGIN_PATHS, sizeof *folders);
    size_t count = 0;
    const char *variable = getenv("LLM_PROXY_PLUGINS");
    struct slice rest = slice_of(variable != NULL ? variable : ""), folder;
    while (rest.size > 0 && count + 3 < MOST_PLUGIN_PATHS) {
        slice_split(&rest, ':', &folder);
        char *path = xprintf("%.*s", SLICE_ARGUMENTS(folder)), absolute[PATH_MAX];
        if (folder.size > 0 && realpath(path, absolute) != NULL) {
            folders[count++] = xstrdup(absolute);
        }
        free(path);
    }
    char *parent = xstrdup(spec);
    for (int i = 0; i < MOST_PARENTS; i++) {
        char *slash = strrchr(parent, '/');
        if (slash == NULL || slash == parent) {
            break;
        }
        *slash = '\0';
        if (is_plugin_folder(parent)) {
            folders[count++] = xstrdup(parent);
            break;
        }
    }
    free(parent);
    folders[count] = xstrdup(stock);
    return folders;
}

/* One file ----------------------------------------------------------------------------------------------- */

static void on_too_long(void *argument)
{
    struct run *run = argument;
    error_set(&run->error, "not done after %d s", LONGEST_SPEC_S);
    loop_stop(run->loop);
}

/* done(passed, failed): all tests have run. */
static int done(lua_State *lua)
{
    struct run *run = lua_touserdata(lua, lua_upvalueindex(1));
    run->passed = (unsigned)lua_tointeger(lua, 1);
    run->failed = (unsigned)lua_tointeger(lua, 2);
    loop_stop(run->loop);
    return 0;
}

/* folder() -> an empty folder of this run's, which goes with it */
static int folder(lua_State *lua)
{
    struct run *run = lua_touserdata(lua, lua_upvalueindex(1));
    if (run->folder[0] == '\0') {
        snprintf(run->folder, sizeof run->folder, "/tmp/llm-proxy-test-XXXXXX");
        if (mkdtemp(run->folder) == NULL) {
            run->folder[0] = '\0';
            return luaL_error(lua, "cannot make a folder in /tmp: %s", strerror(errno));
        }
    }
    lua_pushstring(lua, run->folder);
    return 1;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

static void open_in_lua(lua_State *lua, const char *name)
{
    lua_getglobal(lua, "require");
    lua_pushstring(lua, name);
    lua_call(lua, 1, 1);
}

/* The module that code under test sees in place of llmproxy.time. */
static int open_time(lua_State *lua)
{
    open_in_lua(lua, "llmproxy.testing.clock");
    lua_getfield(lua, -1, "time");
    return 1;
}

/* Loads the spec and begins its tests; the protected part. Its argument is the run. */
static int start(lua_State *lua)
{
    struct run *run = lua_touserdata(lua, 1);
    open_in_lua(lua, "llmproxy.testing");
    lua_getfield(lua, -1, "start");
    plugin_host_push(lua);
    lua_pushlightuserdata(lua, run);
    lua_pushcclosure(lua, done, 1);
    lua_setfield(lua, -2, "done");
    lua_pushlightuserdata(lua, run);
    lua_pushcclosure(lua, folder, 1);
    lua_setfield(lua, -2, "folder");
    lua_newtable(lua);
    lua_pushstring(lua, run->path);
    lua_setfield(lua, -2, "path");
    lua_pushstring(lua, run->filter);
    lua_setfield(lua, -2, "filter");
    lua_pushinteger(lua, (lua_Integer)run->first);
    lua_setfield(lua, -2, "first");
    lua_newtable(lua);
    for (int i = 0; run->folders[i] != NULL; i++) {
        lua_pushstring(lua, run->folders[i]);
        lua_rawseti(lua, -2, i + 1);
    }
    lua_setfield(lua, -2, "folders");
    lua_call(lua, 2, 0);
    return 0;
}

static void run_spec(struct run *run, const char *lua_folder)
{
    struct loop_timer timer;
    run->loop = loop_new();
    struct script *script = script_new(
        &(struct script_settings){
            .lua_folder = lua_folder,
            .plugin_folders = (const char *const *)run->folders,
            .memory_limit = MEMORY_LIMIT,
            .memory_limit_name = "the limit of a spec",
            .loop = run->loop,
            .name = "test",
            .watchdog_seconds = WATCHDOG_SECONDS,
        },
        &run->error);
    if (script != NULL) {
        lua_State *lua = script_lua(script);
        script_add_module(script, "llmproxy.time.real", script_open_time);
        script_add_module(script, "llmproxy.time", open_time);
        lua_pushcfunction(lua, start);
        lua_pushlightuserdata(lua, run);
        if (script_call(script, 1, 0, WATCHDOG_SECONDS, &run->error)) {
            loop_timer_init(&timer, run->loop, on_too_long, run);
            loop_timer_set(&timer, LONGEST_SPEC_S * UINT64_C(1000000000));
            loop_run(run->loop);
            loop_timer_release(&timer);
        }
    }
    script_free(script);
    loop_free(run->loop);
    if (run->folder[0] != '\0') {
        nftw(run->folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    }
}

static int run(const struct options *options)
{
    struct paths specs = {0};
    unsigned passed = 0, failed = 0;
    if (options->argument_count == 0) {
        command_error("test: expected the files or folders of specs");
        fprintf(stderr, "see llm-proxy test --help\n");
        return EXIT_USAGE;
    }
    if (!collect(options, &specs)) {
        free_paths(&specs);
        return EXIT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    if (getenv("LOG_LEVEL") == NULL) {
        log_configure(LOG_NOTHING, LOG_TEXT); /* tries that fail, as they shall, are no news */
    }
    char *share = config_share_folder(NULL);
    char *lua_folder = xprintf("%s/lua", share), *stock_folder = xprintf("%s/plugins", share);
    printf("TAP version 14\n");
    for (size_t i = 0; i < specs.count; i++) {
        struct run one = {
            .path = specs.list[i], .filter = options->values[OPTION_FILTER], .first = passed + failed + 1};
        one.folders = plugin_folders(one.path, stock_folder);
        printf("# %s\n", one.path);
        run_spec(&one, lua_folder);
        if (one.error.message[0] != '\0') {
            printf("not ok %u - %s\n  ---\n  message: |\n    %s\n  ...\n",
                   one.first + one.passed + one.failed, one.path, one.error.message);
            one.failed++;
        }
        passed += one.passed;
        failed += one.failed;
        for (char **folder = one.folders; *folder != NULL; folder++) {
            free(*folder);
        }
        free(one.folders);
    }
    printf("1..%u\n%u passed, %u failed\n", passed + failed, passed, failed);
    free(stock_folder);
    free(lua_folder);
    free(share);
    free_paths(&specs);
    if (passed + failed == 0) {
        command_error("test: no test was run");
        return EXIT_USAGE;
    }
    return failed > 0 ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_test = {
    .name = "test",
    .summary = "runs tests of plugins",
    .synopsis = "test [--filter TEXT] PATH...",
    .details = "Runs specs, Lua files named *_spec.lua (a file, or all in a folder and below), in the host "
               "that plugins "
               "run in.\nPrints TAP, and last \"N passed, N failed\". Plugins are found in "
               "LLM_PROXY_PLUGINS, in the "
               "plugin folder that\nthe spec is in, and among those that come along.",
    .takes = TAKES(OPTION_FILTER),
    .most_arguments = MOST_ARGUMENTS,
    .run = run,
};
