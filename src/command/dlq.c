/*
 * dlq: the dead letters: lists, shows, replays and purges them, also while a proxy uses their folder.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/json_write.h"
#include "base/memory.h"
#include "command/replayer.h"
#include "command/tools.h"
#include "event/event_view.h"
#include "spool/dead_letters.h"

#define LONGEST_SHOWN 80 /* bytes of an error, in a list */

struct summary {
    uint64_t letters, oldest_us, newest_us;
};

/* Letters by their numbers. */
struct numbers {
    uint64_t *items;
    size_t count, capacity;
};

struct job {
    const struct options *options;
    struct config *config; /* NULL: --path says where */
    char *folder;
    char *pipeline;      /* NULL: all */
    size_t first_letter; /* of the arguments */
    struct buffer out;
    bool json, any;
    bool fine; /* false: an error was said */

    struct summary summary; /* ls: of the pipeline that is being read */
    struct numbers chosen;  /* purge; replay: in the order in which they were handed in */
    /* Of a replay. */
    struct replayer *replayer;
    pthread_mutex_t mutex;  /* for chosen and through */
    struct numbers through; /* delivered or filtered, and not removed yet */
};

/* Calls visit for each letter that the arguments name. */
static void each_letter(struct job *job, const char *pipeline,
                        bool (*visit)(struct job *job, const char *pipeline,
                                      const struct dead_letter *letter))
{
    struct error error;
    struct dead_letter letter;
    uint64_t damaged = 0, since;
    bool found[MOST_ARGUMENTS] = {false};
    struct dead_letters_reader *reader = NULL;
    if (tools_parse_since(job->options, &since)) {
        reader = dead_letters_reader_new(job->folder, pipeline, &error);
        if (reader == NULL) {
            command_error("dead letters of pipeline '%s': %s", pipeline, error.message);
        }
    }
    job->fine = job->fine && reader != NULL;
    bool goes_on = reader != NULL;
    while (goes_on && dead_letters_read(reader, &letter, &damaged, &error)) {
        if (letter.last_us >= since && tools_is_chosen(job->options, job->first_letter, letter.sequence,
                                                       event_get(letter.event)->id, found)) {
            goes_on = visit(job, pipeline, &letter);
        }
    }
    if (goes_on && error.message[0] != '\0') {
        command_error("%s", error.message);
        job->fine = false;
    }
    dead_letters_reader_free(reader);
    if (damaged > 0) {
        command_error("pipeline '%s': %" PRIu64 " dead letters are damaged or gone", pipeline, damaged);
        job->fine = false;
    }
    if (goes_on &&
        !tools_all_found(job->options, job->first_letter, found, "the dead letters of the pipeline")) {
        job->fine = false;
    }
}

/* ls ------------------------------------------------------------------------------------------------------------------------------------------------------------------ */

static bool summarize(struct job *job, const char *pipeline, const struct dead_letter *letter)
{
    (void)pipeline;
    struct summary *summary = &job->summary;
    if (summary->letters++ == 0 || letter->last_us < summary->oldest_us) {
        summary->oldest_us = letter->last_us;
    }
    if (letter->last_us > summary->newest_us) {
        summary->newest_us = letter->last_us;
    }
    return true;
}

/* Control characters would end the line, or worse. */
static void append_one_line(struct buffer *out, struct slice text)
{
    for (size_t i = 0; i < text.size && i < LONGEST_SHOWN; i++) {
        unsigned char c = (unsigned char)text.data[i];
        buffer_append_char(out, c < ' ' || c == 0x7f ? ' ' : (char)c);
    }
}

static void write_head(struct buffer *out, const char *pipeline, const struct dead_letter *letter)
{
    buffer_append_string(out, "{\"pipeline\": ");
    json_write_latin1(out, slice_of(pipeline));
    buffer_printf(out, ", \"sequence\": %" PRIu64 ", \"reason\": ", letter->sequence);
    json_write_latin1(out, letter->reason);
    buffer_append_string(out, ", \"error\": ");
    json_write_latin1(out, letter->error);
    buffer_append_string(out, ", \"where\": ");
    json_write_latin1(out, letter->where);
    buffer_printf(out, ", \"tries\": %" PRIu32 ", \"first\": ", letter->tries);
    tools_append_json_time(out, letter->first_us);
    buffer_append_string(out, ", \"last\": ");
    tools_append_json_time(out, letter->last_us);
}

/* An error that Lua raises begins with its place itself, as "…/folder/llm-proxy.lua:1: ". */
static struct slice without_place(struct slice error, struct slice where)
{
    const char *place = where.size > 0 ? memmem(error.data, error.size, where.data, where.size) : NULL;
    struct slice rest =
        place != NULL ? slice_range(place + where.size, error.data + error.size) : (struct slice){0};
    return slice_starts_with(rest, SLICE(": ")) ? slice_range(rest.data + 2, rest.data + rest.size) : error;
}

static bool list_letter(struct job *job, const char *pipeline, const struct dead_letter *letter)
{
    const struct event_fields *fields = event_get(letter->event);
    struct buffer *out = &job->out;
    if (job->json) {
        buffer_append_string(out, job->any ? ",\n    " : "\n    ");
        job->any = true;
        write_head(out, pipeline, letter);
        buffer_append_string(out, ", \"event_id\": ");
        json_write_latin1(out, fields->id);
        buffer_append_char(out, '}');
        return tools_flush(out);
    }
    buffer_printf(out, "%" PRIu64 "  ", letter->sequence);
    tools_append_time(out, letter->last_us);
    buffer_printf(out, "  %.*s  %.*s", SLICE_ARGUMENTS(fields->id), SLICE_ARGUMENTS(letter->reason));
    buffer_printf(out, "  %" PRIu32 " %s  ", letter->tries, letter->tries == 1 ? "try" : "tries");
    append_one_line(out, letter->where);
    buffer_append_string(out, ": ");
    append_one_line(out, without_place(letter->error, letter->where));
    buffer_append_char(out, '\n');
    return tools_flush(out);
}

static void list_pipeline(void *argument, const char *pipeline)
{
    struct job *job = argument;
    struct buffer *out = &job->out;
    job->summary = (struct summary){0};
    each_letter(job, pipeline, summarize);
    struct summary summary = job->summary;
    if (job->json) {
        buffer_append_string(out, job->any ? ",\n    " : "\n    ");
        job->any = true;
        buffer_append_string(out, "{\"pipeline\": ");
        json_write_latin1(out, slice_of(pipeline));
        buffer_printf(out, ", \"letters\": %" PRIu64 ", \"oldest\": ", summary.letters);
        tools_append_json_time(out, summary.oldest_us);
        buffer_append_string(out, ", \"newest\": ");
        tools_append_json_time(out, summary.newest_us);
        buffer_append_char(out, '}');
        return;
    }
    buffer_printf(out, "%s  %" PRIu64 " dead %s", pipeline, summary.letters,
                  summary.letters == 1 ? "letter" : "letters");
    if (summary.letters > 0) {
        buffer_append_string(out, ", from ");
        tools_append_time(out, summary.oldest_us);
        buffer_append_string(out, " to ");
        tools_append_time(out, summary.newest_us);
    }
    buffer_append_char(out, '\n');
}

/* Says an error when the folder of all cannot be read. */
static void each_pipeline(struct job *job, void (*visit)(void *argument, const char *pipeline),
                          void *argument)
{
    struct error error;
    if (!dead_letters_list(job->folder, visit, argument, &error)) {
        command_error("%s", error.message);
        job->fine = false;
    }
}

static void list(struct job *job)
{
    buffer_append_string(&job->out, job->json && job->pipeline != NULL ? "{\n  \"letters\": [" : "");
    buffer_append_string(&job->out, job->json && job->pipeline == NULL ? "{\n  \"pipelines\": [" : "");
    if (job->pipeline != NULL) {
        each_letter(job, job->pipeline, list_letter);
    } else {
        each_pipeline(job, list_pipeline, job);
    }
    buffer_append_string(&job->out, job->json ? "]\n}\n" : "");
    if (!job->json && job->pipeline == NULL && job->out.size == 0 && job->fine) {
        buffer_append_string(&job->out, "no dead letters\n");
    }
}

/* show ---------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static bool show_letter(struct job *job, const char *pipeline, const struct dead_letter *letter)
{
    write_head(&job->out, pipeline, letter);
    buffer_append_string(&job->out, ", \"event\": ");
    event_write_json(letter->event,
                     job->config != NULL ? job->config->max_decoded_bytes : TOOLS_MAX_DECODED_BYTES,
                     &job->out);
    buffer_append_string(&job->out, "}\n");
    return tools_flush(&job->out);
}

static void show_pipeline(void *argument, const char *pipeline)
{
    each_letter(argument, pipeline, show_letter);
}

static void show(struct job *job)
{
    if (job->pipeline != NULL) {
        each_letter(job, job->pipeline, show_letter);
    } else {
        each_pipeline(job, show_pipeline, job);
    }
}

/* The only pipeline with a folder, when none is named. False: an error was said. */
struct names {
    struct buffer text;
    char *only;
    size_t count;
};

static void note_name(void *argument, const char *pipeline)
{
    struct names *names = argument;
    buffer_printf(&names->text, "%s'%s'", names->count++ > 0 ? ", " : "", pipeline);
    free(names->only);
    names->only = xstrdup(pipeline);
}

static bool need_pipeline(struct job *job)
{
    struct names names = {0};
    if (job->pipeline != NULL) {
        return true;
    }
    each_pipeline(job, note_name, &names);
    char *text = buffer_take_string(&names.text);
    if (job->fine && names.count == 0) {
        command_error("there are no dead letters in %s", job->folder);
    } else if (job->fine && names.count > 1) {
        command_error("several pipelines have dead letters: name one of %s", text);
    }
    free(text);
    job->fine = job->fine && names.count == 1;
    if (job->fine) {
        job->pipeline = names.only;
    } else {
        free(names.only);
    }
    return job->fine;
}

/* purge --------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static void append_number(struct numbers *numbers, uint64_t number)
{
    if (numbers->count == numbers->capacity) {
        numbers->capacity = numbers->capacity > 0 ? numbers->capacity * 2 : 64;
        numbers->items = xrealloc(numbers->items, numbers->capacity * sizeof *numbers->items);
    }
    numbers->items[numbers->count++] = number;
}

static bool choose(struct job *job, const char *pipeline, const struct dead_letter *letter)
{
    (void)pipeline;
    append_number(&job->chosen, letter->sequence);
    return true;
}

static void remove_letters(struct job *job, const struct numbers *numbers)
{
    struct error error;
    if (numbers->count > 0 &&
        !dead_letters_remove(job->folder, job->pipeline, numbers->items, numbers->count, &error)) {
        command_error("%s", error.message);
        job->fine = false;
    }
}

static void purge(struct job *job)
{
    if (!need_pipeline(job)) {
        return;
    }
    each_letter(job, job->pipeline, choose);
    if (job->fine) { /* all that were named are there */
        remove_letters(job, &job->chosen);
        dead_letters_sweep(job->folder, job->pipeline);
    }
    if (job->fine) {
        buffer_printf(&job->out, "purged %zu dead %s of pipeline %s\n", job->chosen.count,
                      job->chosen.count == 1 ? "letter" : "letters", job->pipeline);
    }
}

/* replay -------------------------------------------------------------------------------------------------------------------------------------------------------------- */

#define REMOVED_AT_A_TIME 100

/* On the pipeline's thread. */
static void on_settled(void *argument, uint64_t number, struct slice event_id, const char *result,
                       const char *reason, const char *error)
{
    struct job *job = argument;
    pthread_mutex_lock(&job->mutex);
    uint64_t sequence = job->chosen.items[number - 1];
    if (strcmp(result, "delivered") == 0 || strcmp(result, "filtered") == 0) {
        append_number(&job->through, sequence);
    } else {
        command_error("letter %" PRIu64 " (event %.*s) stays: %s%s%s", sequence, SLICE_ARGUMENTS(event_id),
                      reason != NULL ? reason : result, error != NULL ? ": " : "",
                      error != NULL ? error : "");
    }
    pthread_mutex_unlock(&job->mutex);
}

/* Those that came through are removed as it goes: what was delivered is not delivered again after a kill, but for the last few. */
static void remove_through(struct job *job, size_t at_least)
{
    struct numbers through = {0};
    pthread_mutex_lock(&job->mutex);
    if (job->through.count >= at_least) {
        through = job->through;
        job->through = (struct numbers){0};
    }
    pthread_mutex_unlock(&job->mutex);
    if (job->options->values[OPTION_DRY_RUN] == NULL) {
        remove_letters(job, &through);
    }
    free(through.items);
}

static void on_waits(void *argument)
{
    remove_through(argument, 1);
}

static bool replay_letter(struct job *job, const char *pipeline, const struct dead_letter *letter)
{
    (void)pipeline;
    pthread_mutex_lock(&job->mutex);
    append_number(&job->chosen, letter->sequence);
    pthread_mutex_unlock(&job->mutex);
    bool added = replayer_add(job->replayer, letter->event);
    remove_through(job, REMOVED_AT_A_TIME);
    replayer_show_progress(job->replayer, job->chosen.count, 0);
    return added;
}

static void replay(struct job *job)
{
    struct error error;
    bool dry_run = job->options->values[OPTION_DRY_RUN] != NULL;
    struct replayer_settings settings = {
        .config = job->config, .dry_run = dry_run, .settled = on_settled, .waits = on_waits, .argument = job};
    if (job->config == NULL) {
        command_error("dlq replay needs the configuration: the letters go through its pipeline");
        job->fine = false;
        return;
    }
    if (!need_pipeline(job)) {
        return;
    }
    job->fine = replayer_find_pipeline(job->config, job->pipeline, &settings.index);
    if (!job->fine) {
        return;
    }
    struct replayer *replayer = job->replayer = replayer_new(&settings, &error);
    if (replayer == NULL) {
        command_error("%s", error.message);
        job->fine = false;
        return;
    }
    each_letter(job, job->pipeline, replay_letter);
    bool finished = replayer_finish(replayer);
    replayer_end_progress(replayer);
    struct replayer_counts counts = replayer_counts(replayer);
    replayer_free(replayer);
    remove_through(job, 0);
    if (!dry_run) {
        dead_letters_sweep(job->folder, job->pipeline);
    }
    buffer_printf(&job->out,
                  "%s %" PRIu64 " dead letters of pipeline %s: %" PRIu64 " delivered, %" PRIu64
                  " filtered, %" PRIu64 " failed and kept\n",
                  dry_run ? "tried" : "replayed", counts.added, job->pipeline, counts.delivered,
                  counts.filtered, counts.failed);
    if (!finished) {
        command_error("stopped before it was through: what was not delivered is kept");
    }
    job->fine = job->fine && finished && counts.failed == 0;
}

/* --------------------------------------------------------------------------------------------------------------------------------------------------------------------- */

/* False: an error was said. */
static bool find_folder(struct job *job)
{
    const struct options *options = job->options;
    const char *path = options->values[OPTION_PATH], *pipeline = options->values[OPTION_PIPELINE];
    job->first_letter = 1;
    if (pipeline == NULL && options->argument_count > 1) {
        pipeline = options->arguments[1];
        job->first_letter = 2;
    }
    job->pipeline = pipeline != NULL ? xstrdup(pipeline) : NULL;
    if (path == NULL || strcmp(options->arguments[0], "replay") == 0) {
        job->config = tools_load_config(options);
        if (job->config == NULL) {
            return false;
        }
        path = path != NULL ? path : job->config->dead_letters.path;
        if (path == NULL) {
            command_error(
                "the configuration keeps no dead letters: set observability.dead_letters, or name the "
                "folder (--path FOLDER)");
            return false;
        }
    }
    job->folder = xstrdup(path);
    return true;
}

#define TAKEN_BY_ALL                                                                                         \
    (TAKES(OPTION_CONFIG) | TAKES(OPTION_PATH) | TAKES(OPTION_PIPELINE) | TAKES(OPTION_SINCE))

static int run(const struct options *options)
{
    static const struct {
        const char *name, *full_name;
        void (*run)(struct job *job);
        unsigned takes;
    } actions[] = {{"ls", "dlq ls", list, TAKEN_BY_ALL | TAKES(OPTION_JSON)},
                   {"show", "dlq show", show, TAKEN_BY_ALL | TAKES(OPTION_JSON)},
                   {"replay", "dlq replay", replay, TAKEN_BY_ALL | TAKES(OPTION_DRY_RUN)},
                   {"purge", "dlq purge", purge, TAKEN_BY_ALL}};
    const char *wanted = options->argument_count > 0 ? options->arguments[0] : "";
    struct job job = {.options = options, .json = options->values[OPTION_JSON] != NULL, .fine = true};
    pthread_mutex_init(&job.mutex, NULL);
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(wanted, actions[i].name) != 0) {
            continue;
        }
        int status = EXIT_USAGE;
        if (command_fits_action(options, actions[i].full_name, actions[i].takes, MOST_ARGUMENTS) &&
            find_folder(&job)) {
            actions[i].run(&job);
            status = tools_flush(&job.out) && job.fine ? EXIT_DONE : EXIT_FAILED;
        }
        config_free(job.config);
        buffer_free(&job.out);
        free(job.chosen.items);
        free(job.through.items);
        free(job.folder);
        free(job.pipeline);
        return status;
    }
    command_error(wanted[0] != '\0' ? "dlq: expected ls, show, replay or purge, got '%s'"
                                    : "dlq: expected ls, show, replay or purge%s",
                  wanted);
    return EXIT_USAGE;
}

const struct command command_dlq = {
    .name = "dlq",
    .summary = "looks after the dead letters: events that could not be delivered",
    .synopsis = "dlq ls [PIPELINE] [--json]\n       llm-proxy dlq show|purge [PIPELINE [LETTER...]]\n       "
                "llm-proxy "
                "dlq replay [PIPELINE [LETTER...]] [--dry-run]",
    .details =
        "ls      the pipelines that have dead letters, or the letters of one\n"
        "show    letters as JSON lines, with the event as it entered the pipeline\n"
        "replay  sends the events through the pipeline as it is configured now; what is delivered is "
        "removed\n"
        "purge   removes letters\n\n"
        "A LETTER is named by its number or its event's id; without one it is all of them. A proxy may be "
        "using the folder\n"
        "meanwhile; but a destination that only one process may use (a file) must be free for a replay. The "
        "exit status is 1\n"
        "when something failed.",
    .takes = TAKEN_BY_ALL | TAKES(OPTION_DRY_RUN) | TAKES(OPTION_JSON),
    .most_arguments = MOST_ARGUMENTS,
    .run = run,
};
