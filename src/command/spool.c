/*
 * spool: looks into the folder of a bus on disk, also while a proxy uses it, and changes nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/json_write.h"
#include "base/memory.h"
#include "command/tools.h"
#include "event/event_view.h"
#include "spool/cursor.h"
#include "spool/event_log.h"

struct job {
    const struct options *options;
    char *folder;
    size_t first_event; /* of the arguments */
    struct buffer out;
    struct error error;
    bool json, any;
    uint64_t last; /* the newest record's sequence */
    size_t faults;
};

static bool is_folder(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static void count_segment(void *argument, const char *file, const struct event_log_segment *segment)
{
    (void)file;
    (void)segment;
    ++*(uint64_t *)argument;
}

/* From the arguments, of which others may name events, --path, or the configuration. False: an error was said, *status is set. */
static bool find_folder(struct job *job, bool takes_events, int *status)
{
    const struct options *options = job->options;
    const char *named = options->values[OPTION_PATH];
    uint64_t segments = 0;
    *status = EXIT_USAGE;
    job->first_event = 1;
    if (named == NULL && options->argument_count > 1 &&
        (!takes_events || is_folder(options->arguments[1]) || strchr(options->arguments[1], '/') != NULL)) {
        named = options->arguments[1];
        job->first_event = 2;
    }
    if (named != NULL) {
        job->folder = xstrdup(named);
    } else {
        struct config *config = tools_load_config(options);
        if (config == NULL) {
            return false;
        }
        job->folder = config->bus.path != NULL ? xstrdup(config->bus.path) : NULL;
        config_free(config);
        if (job->folder == NULL) {
            command_error("the configuration has no bus on disk: name the folder (--path FOLDER)");
            return false;
        }
    }
    *status = EXIT_FAILED;
    errno = 0;
    if (!is_folder(job->folder)) {
        command_error("%s: %s", job->folder, errno != 0 ? strerror(errno) : "is no folder");
        return false;
    }
    if (!event_log_list(job->folder, count_segment, &segments, &job->error)) {
        command_error("%s", job->error.message);
        return false;
    }
    if (segments == 0) { /* a bus has one from its first moment: what is not there must not pass for sound */
        command_error("%s: is not the folder of a bus on disk: there are no segments in it", job->folder);
        return false;
    }
    return true;
}

/* Begins an element of a list in JSON. */
static void next_element(struct job *job)
{
    buffer_append_string(&job->out, job->any ? ",\n    " : "\n    ");
    job->any = true;
}

/* ls ------------------------------------------------------------------------------------------------------------------------------------------------------------------ */

static void list_segment(void *argument, const char *file, const struct event_log_segment *segment)
{
    struct job *job = argument;
    uint64_t records = segment->last + 1 - segment->first;
    job->last = segment->last;
    if (job->json) {
        next_element(job);
        buffer_append_string(&job->out, "{\"file\": ");
        json_write_string(&job->out, slice_of(file));
        buffer_printf(&job->out,
                      ", \"first\": %" PRIu64 ", \"records\": %" PRIu64 ", \"bytes\": %" PRIu64
                      ", \"changed\": ",
                      segment->first, records, segment->bytes);
        tools_append_json_time(&job->out, segment->changed_us);
        buffer_append_char(&job->out, '}');
        return;
    }
    buffer_printf(&job->out, "%s  %10" PRIu64 " events  ", file, records);
    tools_append_size(&job->out, segment->bytes);
    buffer_append_string(&job->out, "  last written ");
    tools_append_time(&job->out, segment->changed_us);
    buffer_append_char(&job->out, '\n');
}

static void list_cursor(void *argument, const char *name, const struct cursor *cursor)
{
    struct job *job = argument;
    uint64_t waiting = job->last > cursor->sequence ? job->last - cursor->sequence : 0;
    if (job->json) {
        next_element(job);
        buffer_append_string(&job->out, "{\"pipeline\": ");
        json_write_string(&job->out, slice_of(name));
        buffer_printf(&job->out, ", \"sequence\": %" PRIu64 ", \"waiting\": %" PRIu64 ", \"removed\": ",
                      cursor->sequence, waiting);
        tools_append_json_time(&job->out, cursor->removed_us);
        buffer_append_char(&job->out, '}');
        return;
    }
    buffer_printf(&job->out, "pipeline %s  is through with %" PRIu64 ", %" PRIu64 " waiting", name,
                  cursor->sequence, waiting);
    if (cursor->removed_us > 0) {
        buffer_append_string(&job->out, ", not in use since ");
        tools_append_time(&job->out, cursor->removed_us);
    }
    buffer_append_char(&job->out, '\n');
}

static bool list(struct job *job)
{
    char *cursors = xprintf("%s/cursors", job->folder);
    buffer_append_string(&job->out, job->json ? "{\n  \"segments\": [" : "");
    bool fine = event_log_list(job->folder, list_segment, job, &job->error);
    buffer_append_string(&job->out, job->json ? "],\n  \"cursors\": [" : "");
    job->any = false;
    fine = fine && (!is_folder(cursors) || cursor_files_list(cursors, list_cursor, job, &job->error));
    buffer_append_string(&job->out, job->json ? "]\n}\n" : "");
    free(cursors);
    return fine;
}

/* show ---------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static bool show(struct job *job)
{
    uint64_t since, missing = 0;
    bool found[MOST_ARGUMENTS] = {false};
    if (!tools_parse_since(job->options, &since)) {
        return false;
    }
    struct event_log_reader *reader = event_log_reader_new(job->folder);
    struct event_log_record record;
    bool fine = true;
    while (fine && event_log_read(reader, UINT64_MAX, &record, &job->error)) {
        missing += record.missing;
        struct event_record *event = event_decode(record.payload, &job->error);
        if (event == NULL) {
            command_error("%s/%s: event %" PRIu64 ": %s", job->folder, record.segment, record.sequence,
                          job->error.message);
            job->faults++;
            continue;
        }
        const struct event_fields *fields = event_get(event);
        if (fields->time_us >= since &&
            tools_is_chosen(job->options, job->first_event, record.sequence, fields->id, found)) {
            event_write_json(event, TOOLS_MAX_DECODED_BYTES, &job->out);
            buffer_append_char(&job->out, '\n');
            fine = tools_flush(&job->out);
        }
        event_record_release(event);
    }
    event_log_reader_free(reader);
    if (missing > 0) {
        command_error("%" PRIu64 " events are damaged or gone: see llm-proxy spool verify", missing);
        job->faults++;
    }
    if (!tools_all_found(job->options, job->first_event, found, job->folder)) {
        job->faults++;
    }
    return fine && job->error.message[0] == '\0';
}

/* verify -------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static void verify_segment(void *argument, const char *file, const struct event_log_segment *segment,
                           uint64_t records, const char *fault)
{
    struct job *job = argument;
    (void)segment;
    job->faults += fault != NULL;
    job->last += records;
    if (job->json) {
        next_element(job);
        buffer_append_string(&job->out, "{\"file\": ");
        json_write_string(&job->out, slice_of(file));
        buffer_printf(&job->out, ", \"records\": %" PRIu64 ", \"fault\": ", records);
        if (fault != NULL) {
            json_write_string(&job->out, slice_of(fault));
        } else {
            buffer_append_string(&job->out, "null");
        }
        buffer_append_char(&job->out, '}');
    } else {
        buffer_printf(&job->out, "%s  %10" PRIu64 " events  %s\n", file, records,
                      fault != NULL ? fault : "ok");
    }
    tools_flush(&job->out);
}

static bool verify(struct job *job)
{
    buffer_append_string(&job->out, job->json ? "{\n  \"segments\": [" : "");
    bool fine = event_log_verify(job->folder, verify_segment, job, &job->error);
    if (job->json) {
        buffer_printf(&job->out, "],\n  \"records\": %" PRIu64 ",\n  \"faults\": %zu\n}\n", job->last,
                      job->faults);
    } else {
        buffer_printf(&job->out, "%" PRIu64 " events, %zu %s with a fault\n", job->last, job->faults,
                      job->faults == 1 ? "segment" : "segments");
    }
    return fine;
}

/* --------------------------------------------------------------------------------------------------------------------------------------------------------------------- */

#define TAKEN_BY_ALL (TAKES(OPTION_CONFIG) | TAKES(OPTION_PATH) | TAKES(OPTION_JSON))

static int run(const struct options *options)
{
    static const struct {
        const char *name, *full_name;
        bool (*run)(struct job *job);
        unsigned takes;
        bool takes_events;
    } actions[] = {{"ls", "spool ls", list, 0, false},
                   {"show", "spool show", show, TAKES(OPTION_SINCE), true},
                   {"verify", "spool verify", verify, 0, false}};
    const char *wanted = options->argument_count > 0 ? options->arguments[0] : "ls";
    struct job job = {.options = options, .json = options->values[OPTION_JSON] != NULL};
    int status = EXIT_USAGE;
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(wanted, actions[i].name) != 0) {
            continue;
        }
        size_t most_arguments = actions[i].takes_events                ? MOST_ARGUMENTS
                                : options->values[OPTION_PATH] != NULL ? 1
                                                                       : 2;
        if (command_fits_action(options, actions[i].full_name, actions[i].takes | TAKEN_BY_ALL,
                                most_arguments) &&
            find_folder(&job, actions[i].takes_events, &status)) {
            bool fine = actions[i].run(&job);
            fine = tools_flush(&job.out) && fine;
            if (!fine && job.error.message[0] != '\0') {
                command_error("%s", job.error.message);
            }
            status = fine && job.faults == 0 ? EXIT_DONE : EXIT_FAILED;
        }
        buffer_free(&job.out);
        free(job.folder);
        return status;
    }
    command_error("spool: expected ls, show or verify, got '%s'", wanted);
    return status;
}

const struct command command_spool = {
    .name = "spool",
    .summary = "looks into the folder of a bus on disk",
    .synopsis =
        "spool ls|verify [FOLDER] [--json]\n       llm-proxy spool show [FOLDER] [--since TIME] [EVENT...]",
    .details =
        "ls      segments with their events, and how far each pipeline is\n"
        "show    events as JSON lines: all, or those named by number or id\n"
        "verify  reads everything, and says what is damaged\n\n"
        "Without a folder it is the one of the configuration. A proxy may be using it meanwhile. The exit "
        "status is 1 when something\n"
        "is damaged or cannot be read.",
    .takes = TAKEN_BY_ALL | TAKES(OPTION_SINCE),
    .most_arguments = MOST_ARGUMENTS,
    .run = run,
};
