/*
 * pipelines: see pipelines.h. All that live are in one list, the older ones first, so that whoever is freed before its end leaves what it has to one that still lives.
 */
#include "command/pipelines.h"

#include <stdlib.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/memory.h"
#include "spool/dead_letters.h"

#define LOOK_NS          NANOSECONDS_PER_SECOND
#define SHORTEST_LIFE_NS (5 * NANOSECONDS_PER_SECOND) /* of a state that is worn out, before it is replaced */

struct member {
    TAILQ_ENTRY(member) entry;
    struct pipelines *owner;
    struct pipeline *pipeline;
    char *identity; /* of its definition, see config.h */
    uint64_t made_ns;
    bool leaving; /* of an old generation */
    struct loop_call ended;
    struct loop_timer timer;
};

TAILQ_HEAD(members, member);

/* One for each name there ever was: its generations share it, and nobody else gets the folder. */
struct letters {
    SLIST_ENTRY(letters) entry;
    char *pipeline;
    struct dead_letters *dead_letters;
};

struct pipelines {
    struct loop *loop;
    struct metrics *metrics;
    struct bus *bus, *inbox;
    struct config *config;  /* the newest; NULL: none yet */
    struct loop_timer look; /* for pipelines that are worn out */
    struct members members;
    SLIST_HEAD(, letters) letters;
    void (*drained)(void *argument);
    void *drained_argument;
};

static void remove_member(struct member *member)
{
    struct pipelines *pipelines = member->owner;
    TAILQ_REMOVE(&pipelines->members, member, entry);
    pipeline_free(member->pipeline);
    loop_call_cancel(pipelines->loop, &member->ended);
    loop_timer_release(&member->timer);
    free(member->identity);
    free(member);
}

static void on_ended(void *argument)
{
    struct member *member = argument;
    struct pipelines *pipelines = member->owner;
    remove_member(member);
    if (pipelines->drained != NULL && TAILQ_EMPTY(&pipelines->members)) {
        pipelines->drained(pipelines->drained_argument);
    }
}

static void on_timer(void *argument)
{
    struct member *member = argument;
    log_warn("a pipeline from before the reload did not end within shutdown_timeout and is stopped",
             log_string("pipeline", pipeline_name(member->pipeline)));
    on_ended(member);
}

/* On the pipeline's thread. */
static void post_ended(void *argument)
{
    struct member *member = argument;
    loop_call_post(member->owner->loop, &member->ended);
}

static void look_for_worn(void *argument);

struct pipelines *pipelines_new(struct loop *loop, struct metrics *metrics, struct bus *bus,
                                struct bus *inbox)
{
    struct pipelines *pipelines = xcalloc(1, sizeof *pipelines);
    pipelines->loop = loop;
    pipelines->metrics = metrics;
    pipelines->bus = bus;
    pipelines->inbox = inbox;
    TAILQ_INIT(&pipelines->members);
    SLIST_INIT(&pipelines->letters);
    loop_timer_init(&pipelines->look, loop, look_for_worn, pipelines);
    return pipelines;
}

/* *found: the pipeline's dead letters, NULL where none are kept. False: *error says why. */
static bool open_letters(struct pipelines *pipelines, const struct config *config, const char *name,
                         struct dead_letters **found, struct error *error)
{
    const struct config_dead_letters *configured = &config->dead_letters;
    const struct metric_label label[] = {{"pipeline", name}, {NULL, NULL}};
    struct letters *letters;
    *found = NULL;
    if (configured->path == NULL) {
        return true;
    }
    SLIST_FOREACH(letters, &pipelines->letters, entry)
    {
        if (strcmp(letters->pipeline, name) == 0) {
            *found = letters->dead_letters;
            return true;
        }
    }
    struct dead_letters_settings settings = {
        .folder = configured->path,
        .pipeline = name,
        .without_bodies = configured->without_bodies,
        .max_bytes = configured->max_bytes,
        .max_age_ns = configured->max_age_ns,
        .trimmed = metrics_counter(pipelines->metrics, "llm_proxy_dead_letters_trimmed_total",
                                   "Dead letters that were too old or too many.", label),
        .kept =
            metrics_gauge(pipelines->metrics, "llm_proxy_dead_letters", "Dead letters that are kept.", label),
    };
    *found = dead_letters_open(&settings, error);
    if (*found == NULL) {
        error_prefix(error, "observability.dead_letters: ");
        return false;
    }
    letters = xcalloc(1, sizeof *letters);
    letters->pipeline = xstrdup(name);
    letters->dead_letters = *found;
    SLIST_INSERT_HEAD(&pipelines->letters, letters, entry);
    return true;
}

struct pipeline_settings pipelines_settings(struct config *config, size_t index)
{
    const struct config_pipeline *configured = &config->pipelines[index];
    return (struct pipeline_settings){
        .name = configured->name,
        .index = index,
        .buffer_events = configured->buffer_events,
        .buffer_bytes = config->buffer_bytes,
        .from_oldest = configured->from_oldest,
        .max_decoded_bytes = config->max_decoded_bytes,
        .memory_limit = configured->memory_limit,
        .watchdog_seconds = configured->watchdog_seconds,
        .lua_folder = config->lua_folder,
        .plugin_folders = (const char *const *)config->plugin_folders,
        .load = config_load_pipeline,
        .load_argument = config,
    };
}

static struct pipeline *load(struct pipelines *pipelines, struct config *config, size_t index,
                             struct error *error)
{
    struct pipeline_settings settings = pipelines_settings(config, index);
    struct pipeline *pipeline = NULL;
    settings.metrics = pipelines->metrics;
    settings.fetches = pipelines->inbox != NULL && !config->pipelines[index].publishes;
    settings.bus = settings.fetches ? pipelines->inbox : pipelines->bus;
    if (open_letters(pipelines, config, settings.name, &settings.dead_letters, error)) {
        pipeline = pipeline_new(&settings, error);
    }
    if (pipeline == NULL) {
        error_prefix(error, "pipeline '%s': ", settings.name);
    }
    return pipeline;
}

static void add_member(struct pipelines *pipelines, struct pipeline *pipeline, const char *identity)
{
    struct member *member = xcalloc(1, sizeof *member);
    member->owner = pipelines;
    member->pipeline = pipeline;
    member->identity = xstrdup(identity);
    member->made_ns = clock_monotonic_ns();
    member->ended = (struct loop_call){.function = on_ended, .argument = member};
    loop_timer_init(&member->timer, pipelines->loop, on_timer, member);
    TAILQ_INSERT_TAIL(&pipelines->members, member, entry);
}

/* Of the present generation; NULL: none has the name. */
static struct member *find(const struct pipelines *pipelines, const char *name)
{
    struct member *member;
    TAILQ_FOREACH(member, &pipelines->members, entry)
    {
        if (!member->leaving && strcmp(pipeline_name(member->pipeline), name) == 0) {
            return member;
        }
    }
    return NULL;
}

static void leave(struct member *member, uint64_t timeout_ns)
{
    member->leaving = true;
    loop_timer_set(&member->timer, timeout_ns);
}

static void succeed(struct pipeline *pipeline, struct member *predecessor, uint64_t timeout_ns)
{
    if (pipeline_succeed(pipeline, predecessor->pipeline, post_ended, predecessor)) {
        leave(predecessor, timeout_ns);
    } else {
        remove_member(predecessor);
    }
}

/* Runs already, as the configuration wants it. */
static struct member *find_unchanged(const struct pipelines *pipelines, const struct config_pipeline *wanted)
{
    struct member *member = find(pipelines, wanted->name);
    return member != NULL && strcmp(member->identity, wanted->identity) == 0 ? member : NULL;
}

static bool is_wanted(const struct config *config, size_t wanted, const char *name)
{
    for (size_t i = 0; i < wanted; i++) {
        if (strcmp(config->pipelines[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Those of the present generation give way to those of their name, some of which are started already, or to none. fresh: one for each wanted pipeline, NULL where the present one stays. */
static void replace(struct pipelines *pipelines, struct config *config, struct pipeline **fresh,
                    size_t wanted)
{
    struct member *member;
    for (size_t i = 0; i < wanted; i++) {
        struct member *predecessor = fresh[i] != NULL ? find(pipelines, config->pipelines[i].name) : NULL;
        if (predecessor != NULL) {
            log_info("pipeline replaced", log_string("pipeline", config->pipelines[i].name));
            succeed(fresh[i], predecessor, config->shutdown_timeout_ns);
        }
    }
    TAILQ_FOREACH(member, &pipelines->members, entry)
    {
        if (!member->leaving && !is_wanted(config, wanted, pipeline_name(member->pipeline))) {
            log_info("pipeline removed: it delivers what waits",
                     log_string("pipeline", pipeline_name(member->pipeline)));
            pipeline_drain(member->pipeline, post_ended, member);
            leave(member, config->shutdown_timeout_ns);
        }
    }
    for (size_t i = 0; i < wanted; i++) {
        if (fresh[i] != NULL) {
            add_member(pipelines, fresh[i], config->pipelines[i].identity);
        }
    }
}

bool pipelines_renew(struct pipelines *pipelines, struct config *config, struct error *error)
{
    size_t wanted = config->proxy->observe ? config->pipeline_count : 0, looked_at = 0;
    struct pipeline **fresh = xcalloc(wanted, sizeof(struct pipeline *));
    bool fine = true;
    for (; fine && looked_at < wanted; looked_at++) {
        if (find_unchanged(pipelines, &config->pipelines[looked_at]) == NULL) {
            fresh[looked_at] = load(pipelines, config, looked_at, error);
            fine = fresh[looked_at] != NULL;
        }
    }
    for (size_t i = 0; fine && i < wanted; i++) {
        if (fresh[i] != NULL && find(pipelines, config->pipelines[i].name) == NULL) {
            fine = pipeline_start(fresh[i], error);
        }
    }
    if (fine) {
        replace(pipelines, config, fresh, wanted);
        pipelines->config = config;
        loop_timer_set(&pipelines->look, LOOK_NS);
    }
    for (size_t i = 0; !fine && i < wanted; i++) {
        if (fresh[i] != NULL) {
            pipeline_free(fresh[i]);
        }
    }
    free(fresh);
    return fine;
}

/* A new state in the place of one in which plugins keep so much that nothing can be done any more. */
static void replace_worn(struct pipelines *pipelines, struct member *member)
{
    struct error error;
    struct pipeline *fresh = NULL;
    const char *name = pipeline_name(member->pipeline);
    struct config *config = pipelines->config;
    member->made_ns = clock_monotonic_ns(); /* when it fails it is tried again later */
    for (size_t i = 0; fresh == NULL && i < config->pipeline_count; i++) {
        if (strcmp(config->pipelines[i].name, name) == 0) {
            fresh = load(pipelines, config, i, &error);
            if (fresh == NULL) {
                log_error("the pipeline's Lua state cannot be replaced", log_string("error", error.message));
                return;
            }
        }
    }
    if (fresh == NULL) {
        return;
    }
    log_warn("the pipeline's Lua state is replaced: its plugins kept too much memory",
             log_string("pipeline", name));
    metric_add(
        metrics_counter(pipelines->metrics, "llm_proxy_lua_states_replaced_total",
                        "Lua states that were given up for new ones.",
                        (struct metric_label[]){{"pipeline", name}, {"reason", "memory"}, {NULL, NULL}}),
        1);
    char *identity = xstrdup(member->identity);
    succeed(fresh, member, config->shutdown_timeout_ns);
    add_member(pipelines, fresh, identity);
    free(identity);
}

/* One at a time: the list changes. */
static void look_for_worn(void *argument)
{
    struct pipelines *pipelines = argument;
    struct member *member;
    uint64_t now_ns = clock_monotonic_ns();
    if (pipelines->drained != NULL) {
        return;
    }
    TAILQ_FOREACH(member, &pipelines->members, entry)
    {
        if (!member->leaving && pipeline_is_worn(member->pipeline) &&
            now_ns - member->made_ns >= SHORTEST_LIFE_NS) {
            replace_worn(pipelines, member);
            break;
        }
    }
    loop_timer_set(&pipelines->look, LOOK_NS);
}

void pipelines_reopen_files(struct pipelines *pipelines)
{
    struct member *member;
    TAILQ_FOREACH(member, &pipelines->members, entry)
    {
        pipeline_reopen_files(member->pipeline);
    }
}

void pipelines_drain(struct pipelines *pipelines, void (*done)(void *argument), void *argument)
{
    pipelines->drained = done;
    pipelines->drained_argument = argument;
    if (TAILQ_EMPTY(&pipelines->members)) {
        done(argument);
        return;
    }
    struct member *member;
    TAILQ_FOREACH(member, &pipelines->members, entry)
    {
        if (!member->leaving) {
            pipeline_drain(member->pipeline, post_ended, member);
        }
    }
}

void pipelines_free(struct pipelines *pipelines)
{
    loop_timer_release(&pipelines->look);
    while (!TAILQ_EMPTY(&pipelines->members)) {
        remove_member(TAILQ_FIRST(&pipelines->members));
    }
    while (!SLIST_EMPTY(&pipelines->letters)) {
        struct letters *letters = SLIST_FIRST(&pipelines->letters);
        SLIST_REMOVE_HEAD(&pipelines->letters, entry);
        dead_letters_close(letters->dead_letters);
        free(letters->pipeline);
        free(letters);
    }
    free(pipelines);
}
