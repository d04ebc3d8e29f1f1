/*
 * replay: sends stored events through a pipeline again: from JSON lines as the stock dispatchers write them, or from the folder of a bus on disk.
 *
 * How far it is, is kept beside the source (SOURCE.replay-PIPELINE, gone when it is through): a replay that was stopped goes on there when it is run again. Kept is the place behind which something is not finished, at
 * most a second old, so after a kill the last events may be delivered twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "bus/acknowledgements.h"
#include "command/replayer.h"
#include "command/tools.h"
#include "pipeline/event_read.h"
#include "script/json.h"
#include "script/script.h"
#include "spool/event_log.h"

#define STATE_INTERVAL_NS NANOSECONDS_PER_SECOND
#define MOST_TOLD_FAULTS  10

/* Where in the source the events that are under way begin and end: a byte of the file, or a sequence of the log. */
struct places {
    uint64_t *ends; /* by the number of the event, from the first one on */
    uint64_t first, count;
    size_t capacity;
};

struct job {
    const struct options *options;
    struct config *config;
    struct replayer *replayer;
    const char *source;
    char *state_file; /* NULL: none, the source is the standard input */
    uint64_t inode;   /* of the source: a file that was rotated is another one of the same name */
    uint64_t since_us;
    uint64_t position; /* everything before is finished */
    uint64_t next_state_ns;
    uint64_t faults, left_out;

    pthread_mutex_t mutex; /* for the two below */
    struct acknowledgements outstanding;
    struct places places;

    /* Of a file. */
    FILE *file;
    uint64_t size; /* 0: not known */
    struct script *script;
    /* Of a folder. */
    struct event_log_reader *reader;
};

/* How far it is ------------------------------------------------------------------------------------------------------------------------------------------------------- */

static void note_place(struct job *job, uint64_t number, uint64_t end)
{
    struct places *places = &job->places;
    pthread_mutex_lock(&job->mutex);
    if (places->count == places->capacity) {
        places->capacity = places->capacity > 0 ? places->capacity * 2 : 1024;
        places->ends = xrealloc(places->ends, places->capacity * sizeof *places->ends);
    }
    if (places->count == 0) {
        places->first = number;
    }
    places->ends[places->count++] = end;
    acknowledgements_add(&job->outstanding, number);
    pthread_mutex_unlock(&job->mutex);
}

/* Forgets the places of what is finished, from the front on. */
static uint64_t finished_position(struct job *job)
{
    struct places *places = &job->places;
    pthread_mutex_lock(&job->mutex);
    uint64_t lowest = acknowledgements_lowest(&job->outstanding), finished = 0;
    while (finished < places->count && places->first + finished < lowest) {
        job->position = places->ends[finished++];
    }
    if (finished > 0) {
        places->first += finished;
        places->count -= finished;
        memmove(places->ends, places->ends + finished, places->count * sizeof *places->ends);
    }
    uint64_t position = job->position;
    pthread_mutex_unlock(&job->mutex);
    return position;
}

/* On the pipeline's thread. */
static void on_settled(void *argument, uint64_t number, struct slice event_id, const char *result,
                       const char *reason, const char *error)
{
    struct job *job = argument;
    if (strcmp(result, "delivered") != 0 && strcmp(result, "filtered") != 0) {
        command_error("event %.*s failed: %s%s%s", SLICE_ARGUMENTS(event_id),
                      reason != NULL ? reason : result, error != NULL ? ": " : "",
                      error != NULL ? error : "");
    }
    pthread_mutex_lock(&job->mutex);
    acknowledgements_remove(&job->outstanding, number);
    pthread_mutex_unlock(&job->mutex);
}

static bool keeps_state(const struct job *job)
{
    return job->state_file != NULL && job->options->values[OPTION_DRY_RUN] == NULL;
}

static void write_state(struct job *job)
{
    char text[96];
    int size = snprintf(text, sizeof text, "llm-proxy replay 1\nposition %" PRIu64 "\ninode %" PRIu64 "\n",
                        finished_position(job), job->inode);
    char *next = xprintf("%s.new", job->state_file);
    int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool fine = fd >= 0 && write(fd, text, (size_t)size) == size;
    if (fd >= 0) {
        fine = close(fd) == 0 && fine;
    }
    fine = fine && rename(next, job->state_file) == 0;
    if (!fine) {
        command_error("%s: %s: this replay cannot be gone on with after a stop", job->state_file,
                      strerror(errno));
        free(job->state_file);
        job->state_file = NULL;
    }
    free(next);
}

/* Called again and again. */
static void keep_state(void *argument)
{
    struct job *job = argument;
    uint64_t now = clock_monotonic_ns();
    if (now < job->next_state_ns) {
        return;
    }
    job->next_state_ns = now + STATE_INTERVAL_NS;
    if (keeps_state(job)) {
        write_state(job);
    } else {
        finished_position(job); /* or their places would gather */
    }
}

static void now_and_then(struct job *job, uint64_t done, uint64_t total)
{
    replayer_show_progress(job->replayer, done, total);
    keep_state(job);
}

/* Where an earlier run was stopped. */
static void read_state(struct job *job)
{
    FILE *file = keeps_state(job) && job->options->values[OPTION_RESTART] == NULL
                     ? fopen(job->state_file, "re")
                     : NULL;
    uint64_t position, inode;
    if (file == NULL) {
        return;
    }
    if (fscanf(file, "llm-proxy replay 1 position %" SCNu64 " inode %" SCNu64, &position, &inode) != 2) {
        command_error("%s is not what a replay left behind: begun at the beginning", job->state_file);
    } else if (inode != job->inode) {
        command_error("%s is not the one it was when a replay was stopped: begun at the beginning",
                      job->source);
    } else if (job->file != NULL && position > job->size) {
        command_error("%s is shorter than it was: begun at the beginning", job->source);
    } else if (position > 0) {
        job->position = position;
        command_error("an earlier replay was stopped: gone on behind %s %" PRIu64
                      " (--restart begins at the beginning)",
                      job->file != NULL ? "byte" : "event", position);
    }
    fclose(file);
}

/* A file of JSON lines ------------------------------------------------------------------------------------------------------------------------------------------------ */

static void tell_fault(struct job *job, uint64_t line, const char *message)
{
    if (++job->faults <= MOST_TOLD_FAULTS) {
        command_error("%s: line %" PRIu64 ": %s", job->source, line, message);
    } else if (job->faults == MOST_TOLD_FAULTS + 1) {
        command_error("%s: more lines are no events; they are counted", job->source);
    }
}

static struct event_record *read_line(struct job *job, struct slice line, struct error *error)
{
    lua_State *lua = script_lua(job->script);
    struct event_record *event = NULL;
    if (script_json_decode(lua, line, error)) {
        event = event_read(lua, -1, error);
    }
    lua_settop(lua, 0);
    return event;
}

/* False: a signal ended it. */
static bool replay_file(struct job *job)
{
    char *text = NULL;
    size_t capacity = 0;
    ssize_t got;
    uint64_t offset = job->position, number = 0, line_number = 0;
    bool goes_on = job->position == 0 || fseeko(job->file, (off_t)job->position, SEEK_SET) == 0;
    while (goes_on && (got = getline(&text, &capacity, job->file)) > 0) {
        struct error error;
        struct slice line = slice_trim((struct slice){text, (size_t)got - (text[got - 1] == '\n')});
        offset += (uint64_t)got;
        line_number++;
        if (line.size == 0) {
            continue;
        }
        struct event_record *event = read_line(job, line, &error);
        if (event == NULL) {
            tell_fault(job, line_number, error.message);
            continue;
        }
        if (event_get(event)->time_us < job->since_us) {
            job->left_out++;
        } else {
            note_place(job, ++number, offset);
            goes_on = replayer_add(job->replayer, event);
        }
        event_record_release(event);
        now_and_then(job, offset, job->size);
    }
    if (goes_on && ferror(job->file) != 0) {
        command_error("%s: %s", job->source, strerror(errno));
        job->faults++;
    }
    free(text);
    return goes_on;
}

/* A bus on disk ------------------------------------------------------------------------------------------------------------------------------------------------------- */

struct extent {
    size_t segments;
    uint64_t last; /* record */
};

static void note_extent(void *argument, const char *file, const struct event_log_segment *segment)
{
    (void)file;
    struct extent *extent = argument;
    extent->segments++;
    extent->last = segment->last;
}

/* Up to what is there at the beginning: a proxy may go on writing. False: a signal ended it. */
static bool replay_folder(struct job *job)
{
    struct event_log_record record;
    struct error error;
    struct extent extent = {0};
    uint64_t number = 0;
    bool goes_on = true;
    if (!event_log_list(job->source, note_extent, &extent, &error)) {
        command_error("%s", error.message);
        job->faults++;
        return true;
    }
    if (extent.segments == 0) {
        command_error("%s: is not the folder of a bus on disk: there are no segments in it", job->source);
        job->faults++;
        return true;
    }
    event_log_reader_seek(job->reader, job->position + 1);
    bool begun = job->position > 0;
    while (goes_on && event_log_read(job->reader, extent.last, &record, &error)) {
        if (record.missing > 0 && begun) {
            command_error("%s: %" PRIu64 " events before number %" PRIu64 " are damaged or gone", job->source,
                          record.missing, record.sequence);
            job->faults += record.missing;
        }
        begun = true;
        struct event_record *event = event_decode(record.payload, &error);
        if (event == NULL) {
            command_error("%s: event %" PRIu64 ": %s", job->source, record.sequence, error.message);
            job->faults++;
            continue;
        }
        if (event_get(event)->time_us < job->since_us) {
            job->left_out++;
        } else {
            note_place(job, ++number, record.sequence);
            goes_on = replayer_add(job->replayer, event);
        }
        event_record_release(event);
        now_and_then(job, record.sequence, extent.last);
    }
    if (goes_on && error.message[0] != '\0') {
        command_error("%s", error.message);
        job->faults++;
    }
    return goes_on;
}

/* --------------------------------------------------------------------------------------------------------------------------------------------------------------------- */

/* False: an error was said. */
static bool open_source(struct job *job, const char *pipeline)
{
    struct stat status;
    struct error error;
    if (strcmp(job->source, "-") == 0) {
        job->file = stdin;
    } else if (stat(job->source, &status) != 0) {
        command_error("%s: %s", job->source, strerror(errno));
        return false;
    } else if (S_ISDIR(status.st_mode)) {
        job->reader = event_log_reader_new(job->source);
    } else {
        job->file = fopen(job->source, "re");
        job->size = S_ISREG(status.st_mode) ? (uint64_t)status.st_size : 0;
        if (job->file == NULL) {
            command_error("%s: %s", job->source, strerror(errno));
            return false;
        }
    }
    if (job->file != stdin) {
        size_t size = strlen(job->source);
        while (size > 1 && job->source[size - 1] == '/') {
            size--;
        }
        job->state_file = xprintf("%.*s.replay-%s", (int)size, job->source, pipeline);
        job->inode = (uint64_t)status.st_ino;
    }
    if (job->file != NULL) {
        job->script = script_new(
            &(struct script_settings){.lua_folder = job->config->lua_folder, .name = "replay"}, &error);
        if (job->script == NULL) {
            command_error("%s", error.message);
            return false;
        }
    }
    return true;
}

static void report(struct job *job, const char *pipeline, struct buffer *out)
{
    struct replayer_counts counts = replayer_counts(job->replayer);
    buffer_printf(out,
                  "%s %" PRIu64 " events through pipeline %s: %" PRIu64 " delivered, %" PRIu64
                  " filtered, %" PRIu64 " failed",
                  job->options->values[OPTION_DRY_RUN] != NULL ? "tried" : "replayed", counts.added, pipeline,
                  counts.delivered, counts.filtered, counts.failed);
    if (job->left_out > 0) {
        buffer_printf(out, ", %" PRIu64 " older ones left out", job->left_out);
    }
    if (job->faults > 0) {
        buffer_printf(out, ", %" PRIu64 " could not be read", job->faults);
    }
    buffer_append_char(out, '\n');
}

/* Gives the exit status. */
static int replay(struct job *job, size_t index)
{
    struct error error;
    struct buffer out = {0};
    const char *pipeline = job->config->pipelines[index].name;
    struct replayer_settings settings = {.config = job->config,
                                         .index = index,
                                         .dry_run = job->options->values[OPTION_DRY_RUN] != NULL,
                                         .settled = on_settled,
                                         .waits = keep_state,
                                         .argument = job};
    if (!open_source(job, pipeline)) {
        return EXIT_FAILED;
    }
    read_state(job);
    job->replayer = replayer_new(&settings, &error);
    if (job->replayer == NULL) {
        command_error("%s", error.message);
        return EXIT_FAILED;
    }
    bool finished = job->file != NULL ? replay_file(job) : replay_folder(job);
    finished = replayer_finish(job->replayer) && finished;
    replayer_end_progress(job->replayer);
    report(job, pipeline, &out);
    struct replayer_counts counts = replayer_counts(job->replayer);
    replayer_free(job->replayer);
    if (!finished) {
        command_error("stopped before it was through: run it again to go on");
        if (keeps_state(job)) {
            write_state(job);
        }
    } else if (keeps_state(job)) {
        unlink(job->state_file);
    }
    bool fine = tools_flush(&out) && finished && counts.failed == 0 && job->faults == 0;
    buffer_free(&out);
    return fine ? EXIT_DONE : EXIT_FAILED;
}

static int run(const struct options *options)
{
    struct job job = {.options = options, .source = options->values[OPTION_FROM]};
    size_t index;
    int status = EXIT_USAGE;
    if (job.source == NULL) {
        command_error("replay: name the events: --from FILE or --from FOLDER");
        return status;
    }
    pthread_mutex_init(&job.mutex, NULL);
    job.config = tools_load_config(options);
    if (job.config != NULL && tools_parse_since(options, &job.since_us) &&
        replayer_find_pipeline(job.config, options->values[OPTION_PIPELINE], &index)) {
        status = replay(&job, index);
    }
    if (job.file != NULL && job.file != stdin) {
        fclose(job.file);
    }
    script_free(job.script);
    event_log_reader_free(job.reader);
    acknowledgements_free(&job.outstanding);
    free(job.places.ends);
    free(job.state_file);
    config_free(job.config);
    return status;
}

const struct command command_replay = {
    .name = "replay",
    .summary = "sends stored events through a pipeline again",
    .synopsis =
        "replay --from FILE|FOLDER [-c FILE] [--pipeline NAME] [--since TIME] [--dry-run] [--restart]",
    .details =
        "FILE has events as JSON lines, as the dispatchers file and stdout write them (\"-\": the standard "
        "input); FOLDER is one of\n"
        "a bus on disk, which a proxy may be using. The events pass the transforms and the dispatcher of the "
        "pipeline as it is\n"
        "configured now. A replay that was stopped goes on where it was when it is run again. The exit "
        "status is 1 when an\n"
        "event could not be read or delivered.",
    .takes = TAKES(OPTION_CONFIG) | TAKES(OPTION_FROM) | TAKES(OPTION_PIPELINE) | TAKES(OPTION_SINCE) |
             TAKES(OPTION_DRY_RUN) | TAKES(OPTION_RESTART),
    .run = run,
};
