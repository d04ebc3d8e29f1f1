/*
 * config: the configuration, from flag, environment, file and defaults (in this order of strength) to what the parts of the program are started with.
 *
 * The checking is done in Lua (lua/llmproxy/config.lua), in a sandboxed state of its own that lives as long as the loading; here is what comes out of it, as C. A configuration is complete and free of
 * faults, or there is none: all faults are reported together. It is immutable once loaded; config_load_pipeline() may read it from the pipelines' threads.
 */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <lua.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/log.h"
#include "net/address.h"
#include "proxy/settings.h"

struct config_pipeline {
    char *name;
    size_t buffer_events, memory_limit;
    double watchdog_seconds;
    bool from_oldest; /* a new name begins with what the bus has kept */
    bool
        publishes; /* no pipeline of the file: takes events from the queue in front of the bus, which is a plugin, and its dispatcher publishes them */
    char *transforms; /* names, for people: "llm, redact" */
    char *dispatcher;
    char
        *identity; /* equal in two configurations exactly when nothing that the pipeline depends on differs */
};

enum config_bus_kind { CONFIG_BUS_MEMORY, CONFIG_BUS_DISK };

struct config_bus {
    char *plugin;              /* NULL: it is one of the built-in ones, else that one is in front of it */
    enum config_bus_kind kind; /* of what the workers publish to */
    /* Of a bus on disk. */
    char *path;
    uint64_t max_bytes, max_age_ns, commit_interval_ns;
    bool drop_oldest;
};

struct config_dead_letters {
    char *path; /* NULL: none are kept */
    bool without_bodies;
    uint64_t max_bytes, max_age_ns;
};

/* Something that only a restart can change, and a text that is equal for two configurations exactly when it is the same in both. */
struct config_part {
    char *name;
    char *identity;
};

struct config {
    char *file; /* NULL: environment and defaults only */
    struct address *listen;
    size_t listen_count;
    bool has_admin;
    struct address admin;
    char *admin_token;  /* NULL: none */
    char **admin_hosts; /* NULL-terminated */
    size_t workers;     /* 0: as many as there are CPUs to use */
    uint64_t shutdown_timeout_ns, shutdown_delay_ns;
    enum log_level log_level;
    enum log_format log_format;

    struct proxy_settings *proxy;                         /* one reference */
    bool random_fingerprint_key, default_max_connections; /* nobody asked for another */
    char **warnings; /* NULL-terminated; lines about what is no fault but hardly meant */

    size_t buffer_events, buffer_bytes, max_decoded_bytes;
    struct config_bus bus;
    struct config_dead_letters dead_letters;
    struct config_pipeline *pipelines; /* those that publish come last */
    size_t pipeline_count;
    char *lua_folder;      /* of the runtime library */
    char **plugin_folders; /* NULL-terminated, in order of search */

    struct config_part *fixed;
    size_t fixed_count;
    char *description; /* as asked for; NULL when not */

    /* What the pipelines' states need to evaluate the file once more: its text, and what env and read_file answered. */
    struct config_replay *replay;
};

/* CONFIG_DESCRIBE_MARKDOWN: of plugins. */
enum config_describe {
    CONFIG_DESCRIBE_NOTHING,
    CONFIG_DESCRIBE_TEXT,
    CONFIG_DESCRIBE_JSON,
    CONFIG_DESCRIBE_MARKDOWN
};

struct config_source {
    const char *file;   /* named by a flag; NULL: LLM_PROXY_CONFIG says, or there is none */
    const char *folder; /* with lua/ and plugins/ in it; NULL: ../share/llm-proxy, seen from the binary */
    enum config_describe describe;
};

/* Where lua/ and plugins/ lie: ../share/llm-proxy, seen from the binary; a new string. source may be NULL. */
char *config_share_folder(const struct config_source *source);
/* Loads and checks everything, `new` of every plugin included. NULL: errors has one line for each fault, each ended by a newline. */
struct config *config_load(const struct config_source *source, struct buffer *errors);
void config_free(struct config *config);

/* For struct pipeline_settings: argument is the configuration. */
bool config_load_pipeline(void *argument, lua_State *lua, size_t index, struct error *error);

/* The name of the first part at or behind *index that only a restart can change and that differs, NULL when there is none (more). Goes on from *index at the next call. */
const char *config_next_fixed_difference(const struct config *before, const struct config *after,
                                         size_t *index);

/* What is known about plugins: a list of all, or (name) what one of them does and takes, appended to text. False: errors has lines, as above. A list may have both: the broken plugins are not in it. */
bool config_describe_plugins(const struct config_source *source, const char *name, struct buffer *text,
                             struct buffer *errors);

#endif
