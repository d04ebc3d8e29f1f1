/*
 * config: runs lua/llmproxy/config.lua, in a state of its own on the main thread or in a pipeline's, and takes what it returns. All of Lua runs inside script_call(), for an error outside a protected call would end
 * the process.
 */
#include "config/config.h"

#include <lauxlib.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "config/convert.h"
#include "config/host.h"
#include "config/replay.h"
#include "script/script.h"

#define LOAD_SECONDS      5.0
#define LOAD_MEMORY_BYTES (256 << 20)

/* To list plugins, each of which may take LOAD_SECONDS. */
#define DESCRIBE_SECONDS 60.0

/* One use of the Lua side on the main thread. */
struct job {
    const struct config_source *source;
    const char *plugin_name; /* config_describe_plugins only; may be NULL */
    char *lua_folder, *stock_folder;
    struct config *config; /* NULL: plugins are to be described */
    struct buffer *text, *errors;
};

char *config_share_folder(const struct config_source *source)
{
    if (source != NULL && source->folder != NULL) {
        return xstrdup(source->folder);
    }
    char *program = file_program_folder();
    char *slash = program != NULL ? strrchr(program, '/') : NULL;
    if (slash != NULL) {
        *slash = '\0';
    }
    char *folder = xprintf("%s/share/llm-proxy", program != NULL ? program : ".");
    free(program);
    return folder;
}

static void push_config_function(lua_State *lua, const char *name)
{
    lua_getglobal(lua, "require");
    lua_pushliteral(lua, "llmproxy.config");
    lua_call(lua, 1, 1);
    lua_getfield(lua, -1, name);
    lua_remove(lua, -2);
}

static void push_source(lua_State *lua, const struct job *job)
{
    static const char *const describe[] = {[CONFIG_DESCRIBE_NOTHING] = NULL,
                                           [CONFIG_DESCRIBE_TEXT] = "text",
                                           [CONFIG_DESCRIBE_JSON] = "json",
                                           [CONFIG_DESCRIBE_MARKDOWN] = "markdown"};
    lua_newtable(lua);
    lua_pushstring(lua, job->source->file);
    lua_setfield(lua, -2, "flag");
    lua_pushstring(lua, job->stock_folder);
    lua_setfield(lua, -2, "stock");
    lua_pushstring(lua, describe[job->source->describe]);
    lua_setfield(lua, -2, "describe");
}

/* One line each, whatever is in a message. */
static void add_error(struct buffer *errors, const char *message)
{
    for (; *message != '\0'; message++) {
        buffer_append_char(errors, *message == '\n' ? ' ' : *message);
    }
    buffer_append_char(errors, '\n');
}

static void read_pipelines(lua_State *lua, struct config *config)
{
    lua_getfield(lua, -1, "pipelines");
    size_t count = lua_objlen(lua, -1);
    config->pipelines = xcalloc(count, sizeof *config->pipelines);
    for (; config->pipeline_count < count; config->pipeline_count++) {
        struct config_pipeline *pipeline = &config->pipelines[config->pipeline_count];
        lua_rawgeti(lua, -1, (int)config->pipeline_count + 1);
        pipeline->name = convert_string(lua, "name");
        pipeline->buffer_events = convert_size(lua, "buffer_size");
        pipeline->memory_limit = convert_size(lua, "memory_limit");
        lua_getfield(lua, -1, "watchdog");
        pipeline->watchdog_seconds = lua_tonumber(lua, -1);
        lua_pop(lua, 1);
        pipeline->from_oldest = convert_boolean(lua, "from_oldest");
        pipeline->publishes = convert_boolean(lua, "publishes");
        pipeline->transforms = convert_string(lua, "transforms");
        pipeline->dispatcher = convert_string(lua, "dispatcher");
        pipeline->identity = convert_string(lua, "identity");
        lua_pop(lua, 1);
    }
    lua_pop(lua, 1);
}

static void read_fixed(lua_State *lua, struct config *config)
{
    lua_getfield(lua, -1, "fixed");
    size_t count = lua_objlen(lua, -1);
    config->fixed = xcalloc(count, sizeof *config->fixed);
    for (; config->fixed_count < count; config->fixed_count++) {
        lua_rawgeti(lua, -1, (int)config->fixed_count + 1);
        config->fixed[config->fixed_count].name = convert_string(lua, "name");
        config->fixed[config->fixed_count].identity = convert_string(lua, "identity");
        lua_pop(lua, 1);
    }
    lua_pop(lua, 1);
}

/* The result is on top of the stack. */
static void read_result(lua_State *lua, struct config *config)
{
    size_t count;
    config->file = convert_string(lua, "file");
    config->description = convert_string(lua, "description");
    config->plugin_folders = convert_strings(lua, "folders", &count);
    config->replay = replay_new();
    replay_read(lua, config->replay);
    read_pipelines(lua, config);
    read_fixed(lua, config);
    config->warnings = convert_strings(lua, "warnings", &count);
    lua_getfield(lua, -1, "settings");
    convert_settings(lua, config);
    lua_pop(lua, 1);
}

/* The protected part: argument is the job. */
static int run_job(lua_State *lua)
{
    struct job *job = lua_touserdata(lua, 1);
    push_config_function(lua, job->config != NULL ? "load" : "plugins");
    config_push_host(lua, job->config != NULL ? 0 : LOAD_SECONDS);
    push_source(lua, job);
    lua_pushstring(lua, job->plugin_name);
    lua_call(lua, 3, 1);

    size_t count;
    char **errors = convert_strings(lua, "errors", &count);
    for (size_t i = 0; i < count; i++) {
        add_error(job->errors, errors[i]);
    }
    convert_free_strings(errors);
    if (job->text != NULL) {
        char *text = convert_string(lua, "text");
        buffer_append_string(job->text, text != NULL ? text : "");
        free(text);
    } else if (count == 0) {
        read_result(lua, job->config);
    }
    return 0;
}

/* The place in a message is one of ours, not of a file that was loaded, unless it tells where code was stopped. */
static const char *without_our_place(const char *message)
{
    const char *ours = strstr(message, "stopped: ran") == NULL ? strstr(message, "llmproxy/") : NULL;
    const char *line = ours != NULL ? strstr(ours, ".lua:") : NULL;
    const char *end = line != NULL ? strstr(line, ": ") : NULL;
    return end != NULL ? end + 2 : message;
}

/* What no line of a file is to blame for: too much time or memory, or a broken installation. */
static void add_general_error(const struct job *job, const struct error *error)
{
    const char *file = job->source->file != NULL ? job->source->file : getenv("LLM_PROXY_CONFIG");
    const char *limits = "file and plugins together may take 5 seconds and 256 MiB";
    const char *message = without_our_place(error->message);
    bool named = file != NULL && file[0] != '\0' && strncmp(message, file, strlen(file)) != 0;
    char *line = named ? xprintf("%s: %s (%s)", file, message, limits) : xprintf("%s (%s)", message, limits);
    add_error(job->errors, line);
    free(line);
}

/* False: there are errors. */
static bool perform(struct job *job)
{
    size_t errors_before = job->errors->size;
    char *folder = config_share_folder(job->source);
    job->lua_folder = xprintf("%s/lua", folder);
    job->stock_folder = xprintf("%s/plugins", folder);
    free(folder);

    struct error error;
    struct script *script = script_new(&(struct script_settings){.lua_folder = job->lua_folder,
                                                                 .memory_limit = LOAD_MEMORY_BYTES,
                                                                 .memory_limit_name = "the limit of loading",
                                                                 .name = "configuration"},
                                       &error);
    if (script != NULL) {
        lua_State *lua = script_lua(script);
        lua_pushcfunction(lua, run_job);
        lua_pushlightuserdata(lua, job);
    }
    if (script == NULL ||
        !script_call(script, 1, 0, job->config != NULL ? LOAD_SECONDS : DESCRIBE_SECONDS, &error)) {
        add_general_error(job, &error);
    }
    script_free(script);
    free(job->stock_folder);
    return job->errors->size == errors_before;
}

struct config *config_load(const struct config_source *source, struct buffer *errors)
{
    struct config *config = xcalloc(1, sizeof *config);
    struct job job = {.source = source, .config = config, .errors = errors};
    bool fine = perform(&job);
    config->lua_folder = job.lua_folder;
    if (!fine) {
        config_free(config);
        return NULL;
    }
    return config;
}

bool config_describe_plugins(const struct config_source *source, const char *name, struct buffer *text,
                             struct buffer *errors)
{
    struct job job = {.source = source, .plugin_name = name, .text = text, .errors = errors};
    bool fine = perform(&job);
    free(job.lua_folder);
    return fine;
}

void config_free(struct config *config)
{
    if (config == NULL) {
        return;
    }
    free(config->file);
    free(config->listen);
    free(config->admin_token);
    convert_free_strings(config->admin_hosts);
    proxy_settings_release(config->proxy);
    for (size_t i = 0; i < config->pipeline_count; i++) {
        free(config->pipelines[i].name);
        free(config->pipelines[i].transforms);
        free(config->pipelines[i].dispatcher);
        free(config->pipelines[i].identity);
    }
    free(config->pipelines);
    free(config->bus.plugin);
    free(config->bus.path);
    free(config->dead_letters.path);
    free(config->lua_folder);
    convert_free_strings(config->plugin_folders);
    convert_free_strings(config->warnings);
    for (size_t i = 0; i < config->fixed_count; i++) {
        free(config->fixed[i].name);
        free(config->fixed[i].identity);
    }
    free(config->fixed);
    free(config->description);
    replay_free(config->replay);
    free(config);
}

/* The protected part of config_load_pipeline: the configuration and the index. Returns the definition. */
static int run_pipeline(lua_State *lua)
{
    const struct config *config = lua_touserdata(lua, 1);
    push_config_function(lua, "pipeline");
    config_push_host(lua, 0);
    lua_newtable(lua);
    replay_write(lua, config->replay);
    lua_newtable(lua);
    for (int i = 0; config->plugin_folders[i] != NULL; i++) {
        lua_pushstring(lua, config->plugin_folders[i]);
        lua_rawseti(lua, -2, i + 1);
    }
    lua_setfield(lua, -2, "folders");
    lua_pushvalue(lua, 2);
    lua_call(lua, 3, 1);
    return 1;
}

bool config_load_pipeline(void *argument, lua_State *lua, size_t index, struct error *error)
{
    lua_pushcfunction(lua, run_pipeline);
    lua_pushlightuserdata(lua, argument);
    lua_pushinteger(lua, (lua_Integer)index + 1);
    return script_call(script_of(lua), 2, 1, LOAD_SECONDS, error);
}

const char *config_next_fixed_difference(const struct config *before, const struct config *after,
                                         size_t *index)
{
    assert(before->fixed_count == after->fixed_count);
    while (*index < before->fixed_count) {
        size_t i = (*index)++;
        if (strcmp(before->fixed[i].identity, after->fixed[i].identity) != 0) {
            return after->fixed[i].name;
        }
    }
    return NULL;
}
