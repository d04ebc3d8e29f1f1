/*
 * replayer: see replayer.h. The caller's thread hands in, the pipeline's thread works. What waits in the pipeline's queue is bounded in events and bytes: the queue is first in, first out, so what is in it are the
 * last ones handed in, and their sizes are kept for as many.
 */
#include "command/replayer.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "bus/memory_bus.h"
#include "command/command.h"
#include "command/pipelines.h"

#define MOST_QUEUED_EVENTS 512u
#define MOST_QUEUED_BYTES  (64u << 20)
#define PROGRESS_NS        (200 * NANOSECONDS_PER_MILLISECOND)
#define POLL_NS            (50 * NANOSECONDS_PER_MILLISECOND)

struct replayer {
    struct replayer_settings settings;
    struct metrics *metrics;
    struct bus *bus;
    struct pipeline *pipeline;
    uint64_t
        totals[MOST_QUEUED_EVENTS + 1];    /* bytes handed in by the number of the event, for the last ones */
    struct sigaction interrupt, terminate; /* as they were */

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct replayer_counts counts; /* under the mutex */
    bool drained;                  /* likewise */

    uint64_t next_progress_ns;
    bool shown;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    if (interrupted != 0) {
        _exit(128 + number);
    }
    interrupted = 1;
}

/* Waits for a change, a signal, or a moment. The mutex is held, but for the call of whoever wants to know. */
static void wait_a_moment(struct replayer *replayer)
{
    if (replayer->settings.waits != NULL) {
        pthread_mutex_unlock(&replayer->mutex);
        replayer->settings.waits(replayer->settings.argument);
        pthread_mutex_lock(&replayer->mutex);
    }
    uint64_t until = clock_realtime_us() + POLL_NS / 1000;
    struct timespec limit = {.tv_sec = (time_t)(until / 1000000), .tv_nsec = (long)(until % 1000000) * 1000};
    pthread_cond_timedwait(&replayer->changed, &replayer->mutex, &limit);
}

/* On the pipeline's thread. */
static void on_settled(void *argument, struct slice event_id, uint64_t sequence, const char *result,
                       const char *reason, const char *error)
{
    struct replayer *replayer = argument;
    if (replayer->settings.settled != NULL) {
        replayer->settings.settled(replayer->settings.argument, sequence, event_id, result, reason, error);
    }
    pthread_mutex_lock(&replayer->mutex);
    bool delivered = strcmp(result, "delivered") == 0, filtered = strcmp(result, "filtered") == 0;
    replayer->counts.delivered += delivered;
    replayer->counts.filtered += filtered;
    replayer->counts.failed += !delivered && !filtered;
    pthread_cond_signal(&replayer->changed);
    pthread_mutex_unlock(&replayer->mutex);
}

static void on_drained(void *argument)
{
    struct replayer *replayer = argument;
    pthread_mutex_lock(&replayer->mutex);
    replayer->drained = true;
    pthread_cond_signal(&replayer->changed);
    pthread_mutex_unlock(&replayer->mutex);
}

struct replayer *replayer_new(const struct replayer_settings *settings, struct error *error)
{
    struct replayer *replayer = xcalloc(1, sizeof *replayer);
    replayer->settings = *settings;
    pthread_mutex_init(&replayer->mutex, NULL);
    pthread_cond_init(&replayer->changed, NULL);
    interrupted = 0;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, &replayer->interrupt);
    sigaction(SIGTERM, &action, &replayer->terminate);
    log_configure(settings->config->log_level, settings->config->log_format);

    replayer->metrics = metrics_new();
    replayer->bus = memory_bus_new();
    struct pipeline_settings pipeline = pipelines_settings(settings->config, settings->index);
    pipeline.buffer_events = MOST_QUEUED_EVENTS;
    pipeline.buffer_bytes = SIZE_MAX;
    pipeline.metrics = replayer->metrics;
    pipeline.bus = replayer->bus;
    pipeline.no_delivery = settings->dry_run;
    pipeline.settled = on_settled;
    pipeline.settled_argument = replayer;
    replayer->pipeline = pipeline_new(&pipeline, error);
    if (replayer->pipeline == NULL || !pipeline_start(replayer->pipeline, error)) {
        error_prefix(error, "pipeline '%s': ", settings->config->pipelines[settings->index].name);
        replayer_free(replayer);
        return NULL;
    }
    return replayer;
}

static uint64_t *total_at(struct replayer *replayer, uint64_t number)
{
    return &replayer->totals[number % (MOST_QUEUED_EVENTS + 1)];
}

/* For one more of that many bytes; alone there is room for any. */
static bool has_room(struct replayer *replayer, uint64_t added, size_t bytes)
{
    size_t queued = (size_t)pipeline_queued(replayer->pipeline);
    if (queued == 0) {
        return true;
    }
    return queued < MOST_QUEUED_EVENTS &&
           *total_at(replayer, added) - *total_at(replayer, added - queued) + bytes <= MOST_QUEUED_BYTES;
}

bool replayer_add(struct replayer *replayer, struct event_record *event)
{
    size_t bytes = event_memory(event);
    pthread_mutex_lock(&replayer->mutex);
    while (interrupted == 0 && !has_room(replayer, replayer->counts.added, bytes)) {
        wait_a_moment(replayer);
    }
    uint64_t added = ++replayer->counts.added;
    pthread_mutex_unlock(&replayer->mutex);
    *total_at(replayer, added) = *total_at(replayer, added - 1) + bytes;
    if (interrupted != 0) {
        return false;
    }
    bus_publish(replayer->bus, event, NULL, NULL);
    return true;
}

bool replayer_finish(struct replayer *replayer)
{
    pipeline_drain(replayer->pipeline, on_drained, replayer);
    pthread_mutex_lock(&replayer->mutex);
    while (interrupted == 0 && !replayer->drained) {
        struct replayer_counts counts = replayer->counts;
        pthread_mutex_unlock(&replayer->mutex);
        replayer_show_progress(replayer, counts.delivered + counts.filtered + counts.failed, counts.added);
        pthread_mutex_lock(&replayer->mutex);
        wait_a_moment(replayer);
    }
    bool drained = replayer->drained;
    pthread_mutex_unlock(&replayer->mutex);
    return drained;
}

struct replayer_counts replayer_counts(struct replayer *replayer)
{
    pthread_mutex_lock(&replayer->mutex);
    struct replayer_counts counts = replayer->counts;
    pthread_mutex_unlock(&replayer->mutex);
    return counts;
}

void replayer_free(struct replayer *replayer)
{
    log_configure(LOG_ERROR, LOG_TEXT); /* that it did not deliver everything is told by its counts */
    pipeline_free(replayer->pipeline);
    bus_free(replayer->bus);
    metrics_free(replayer->metrics);
    sigaction(SIGINT, &replayer->interrupt, NULL);
    sigaction(SIGTERM, &replayer->terminate, NULL);
    pthread_mutex_destroy(&replayer->mutex);
    pthread_cond_destroy(&replayer->changed);
    free(replayer);
}

bool replayer_find_pipeline(const struct config *config, const char *name, size_t *index)
{
    struct buffer names = {0};
    for (size_t i = 0; i < config->pipeline_count; i++) {
        const char *known = config->pipelines[i].name;
        bool is_only = config->pipeline_count == 1 || (i == 0 && config->pipelines[1].publishes);
        if (name != NULL ? strcmp(known, name) == 0 : is_only) {
            *index = i;
            buffer_free(&names);
            return true;
        }
        buffer_printf(&names, "%s'%s'", i > 0 ? ", " : "", known);
    }
    char *list = buffer_take_string(&names);
    if (name != NULL) {
        command_error("the configuration has no pipeline '%s', but %s", name, list);
    } else {
        command_error("the configuration has several pipelines: name one of %s", list);
    }
    free(list);
    return false;
}

void replayer_show_progress(struct replayer *replayer, uint64_t done, uint64_t total)
{
    uint64_t now = clock_monotonic_ns();
    if (now < replayer->next_progress_ns || isatty(STDERR_FILENO) == 0) {
        return;
    }
    replayer->next_progress_ns = now + PROGRESS_NS;
    replayer->shown = true;
    struct replayer_counts counts = replayer_counts(replayer);
    fprintf(stderr, "\r\033[K%" PRIu64, done);
    if (total > 0) {
        fprintf(stderr, " of %" PRIu64 " (%u %%)", total, (unsigned)(done * 100 / total));
    }
    fprintf(stderr, ": %" PRIu64 " delivered, %" PRIu64 " filtered, %" PRIu64 " failed", counts.delivered,
            counts.filtered, counts.failed);
}

void replayer_end_progress(struct replayer *replayer)
{
    if (replayer->shown) {
        fputs("\r\033[K", stderr);
    }
    replayer->shown = false;
}
