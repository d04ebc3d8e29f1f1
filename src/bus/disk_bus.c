/*
 * The disk bus: publishing, and its beginning and end. disk_state.h tells how the parts fit together.
 *
 * Publishing puts a reference into a ring that was allocated at the start, counts, and looks whether the writer sleeps: nothing in it depends on the disk.
 */
#include <assert.h>
#include <signal.h>
#include <stdlib.h>

#include "bus/disk_state.h"
#include "spool/folder.h"

#define LARGEST_SEGMENT   (UINT64_C(64) << 20)
#define SMALLEST_SEGMENT  (UINT64_C(64) << 10)
#define SEGMENTS_AT_LEAST 16u
#define GATHERED_BYTES    (1u << 20)
#define LONGEST_ROUND_NS  NANOSECONDS_PER_SECOND
#define SHORTEST_ROUND_NS (10 * NANOSECONDS_PER_MILLISECOND)
#define ABSENT_AFTER_NS   (60 * NANOSECONDS_PER_SECOND)
#define ABSENT_KEPT_US    (UINT64_C(24) * 3600 * 1000000)
#define MICROSECONDS      1000000

/* ---- publishing ---- */

static bool may_queue(const struct disk_bus *bus, size_t memory, bool *by_bytes)
{
    size_t held = atomic_load_explicit(&bus->held_memory, memory_order_relaxed);
    size_t limit = bus->settings.queue_bytes;
    *by_bytes = held > limit || memory > limit - held;
    return !*by_bytes &&
           atomic_load_explicit(&bus->queued, memory_order_relaxed) < bus->settings.queue_events;
}

static void enqueue(struct disk_bus *bus, const struct pending *pending, size_t stored, size_t memory)
{
    size_t queued = atomic_load_explicit(&bus->queued, memory_order_relaxed);
    size_t at = bus->queue_first + queued;
    bus->queue[at < bus->settings.queue_events ? at : at - bus->settings.queue_events] = *pending;
    atomic_store_explicit(&bus->queued, queued + 1, memory_order_relaxed);
    bus->queued_stored += stored;
    atomic_fetch_add_explicit(&bus->held_memory, memory, memory_order_relaxed);
    bus->unwritten++;
}

/* Under the mutex. */
static void count_published(struct disk_bus *bus, bool dropped, enum bus_drop drop)
{
    for (struct disk_subscriber *subscriber = bus->subscribers; subscriber != NULL;
         subscriber = subscriber->next) {
        if (subscriber->closed)
            continue;
        if (subscriber->settings.received != NULL)
            metric_add(subscriber->settings.received, 1);
        if (dropped)
            bus_count_drop(&subscriber->settings, drop, 1);
    }
}

static void publish(struct bus *handle, struct event_record *event, bus_done done, void *argument)
{
    struct disk_bus *bus = disk_bus_of(handle);
    size_t stored = disk_stored_size(event), memory = event_memory(event);
    struct pending pending = {.event = event_record_reference(event), .done = done, .argument = argument};
    bool dropped = true, wake = false, by_bytes = false;
    enum bus_drop drop = BUS_DROP_BUFFER_FULL;
    pthread_mutex_lock(&bus->mutex);
    if (stored - EVENT_LOG_FRAME_HEAD > bus->largest_event)
        drop = BUS_DROP_TOO_LARGE;
    else if (atomic_load_explicit(&bus->failed, memory_order_relaxed))
        drop = BUS_DROP_DISK_FAILED;
    else if (atomic_load_explicit(&bus->full, memory_order_relaxed))
        drop = BUS_DROP_DISK_FULL;
    else if (may_queue(bus, memory, &by_bytes))
        dropped = false;
    count_published(bus, dropped, drop);
    if (!dropped) {
        enqueue(bus, &pending, stored, memory);
        wake = bus->writer_sleep == WRITER_IDLE || (bus->writer_sleep == WRITER_DOZES && disk_is_much(bus));
        if (wake)
            bus->writer_sleep = WRITER_AWAKE;
    }
    const char *setting = drop == BUS_DROP_DISK_FULL ? disk_full_setting(bus) : NULL;
    pthread_mutex_unlock(&bus->mutex);
    if (wake)
        pthread_cond_signal(&bus->writer_condition);
    if (!dropped)
        return;
    if (drop == BUS_DROP_BUFFER_FULL)
        setting = by_bytes ? "observability.buffer_bytes" : "observability.buffer_size";
    else if (drop == BUS_DROP_TOO_LARGE)
        setting = bus->largest_event < EVENT_LOG_MAX_PAYLOAD ? "observability.bus.max_bytes"
                                                             : "observability.max_response_body_bytes";
    disk_report_drop(bus, drop, 1, setting, NULL, 0);
    event_record_release(event);
    if (done != NULL)
        done(argument, false);
}

/* ---- health ---- */

static bool is_healthy(struct bus *handle, const char **reason)
{
    if (!atomic_load_explicit(&disk_bus_of(handle)->failed, memory_order_relaxed))
        return true;
    *reason = "the log on disk has failed";
    return false;
}

/* Half of the queue is left to the requests that were let in before and have yet to end. */
static bool has_room(struct bus *handle)
{
    struct disk_bus *bus = disk_bus_of(handle);
    return !atomic_load_explicit(&bus->failed, memory_order_relaxed) &&
           !atomic_load_explicit(&bus->full, memory_order_relaxed) &&
           atomic_load_explicit(&bus->queued, memory_order_relaxed) <= bus->settings.queue_events / 2 &&
           atomic_load_explicit(&bus->held_memory, memory_order_relaxed) <= bus->settings.queue_bytes / 2;
}

static void collect(void *argument)
{
    struct disk_bus *bus = argument;
    struct event_log_segment oldest;
    size_t count = event_log_segments(bus->log, &oldest, 1);
    uint64_t now_us = clock_realtime_us();
    bool some = count > 0 && oldest.last >= oldest.first && now_us > oldest.changed_us;
    metric_set(bus->bytes, (int64_t)event_log_bytes(bus->log));
    metric_set(bus->segments, (int64_t)count);
    metric_set(bus->oldest_seconds, some ? (int64_t)((now_us - oldest.changed_us) / MICROSECONDS) : 0);
    metric_set(bus->healthy, !atomic_load_explicit(&bus->failed, memory_order_relaxed));
}

static void make_metrics(struct disk_bus *bus)
{
    struct metrics *metrics = bus->settings.metrics;
    static const struct metric_label none[] = {{0}};
    static const double bounds[] = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5};
    bus->bytes = metrics_gauge(metrics, "llm_proxy_bus_bytes", "Bytes of the bus on disk.", none);
    bus->segments = metrics_gauge(metrics, "llm_proxy_bus_segments", "Files of the bus on disk.", none);
    bus->oldest_seconds = metrics_gauge(metrics, "llm_proxy_bus_oldest_seconds",
                                        "Age of the oldest file of the bus on disk.", none);
    bus->healthy =
        metrics_gauge(metrics, "llm_proxy_bus_healthy", "Whether the bus on disk takes events.", none);
    bus->syncs = metrics_counter(metrics, "llm_proxy_bus_syncs_total", "Commits of the bus on disk.", none);
    bus->sync_failures =
        metrics_counter(metrics, "llm_proxy_bus_sync_failures_total", "Commits that failed.", none);
    bus->sync_seconds = metrics_histogram(metrics, "llm_proxy_bus_sync_seconds", "What a commit takes.", none,
                                          bounds, sizeof bounds / sizeof bounds[0]);
    metrics_on_collect(metrics, collect, bus);
}

/* ---- beginning and end ---- */

static void note_cursor(void *argument, const char *name, const struct cursor *cursor)
{
    disk_add_absent(argument, name, cursor);
}

/* What cursors are past is not given again, whatever became of the log. */
static uint64_t next_at_least(const struct disk_bus *bus)
{
    uint64_t next = 0;
    for (const struct absent *absent = bus->absent; absent != NULL; absent = absent->next)
        if (absent->cursor.sequence >= next)
            next = absent->cursor.sequence + 1;
    return next;
}

static bool open_log(struct disk_bus *bus, struct error *error)
{
    if (!folder_make(bus->cursors, error) || !cursor_files_list(bus->cursors, note_cursor, bus, error))
        return false;
    struct event_log_settings settings = {.folder = bus->settings.path,
                                          .segment_bytes = bus->segment_bytes,
                                          .next_at_least = next_at_least(bus)};
    struct event_log_recovery recovery;
    bus->log = event_log_open(&settings, &recovery, error);
    if (bus->log == NULL)
        return false;
    if (event_log_sync(bus->log) != EVENT_LOG_DONE) {
        error_set(error, "%s: cannot be synced", bus->settings.path);
        return false;
    }
    bus->last = bus->durable = event_log_last(bus->log);
    log_info("the bus on disk is open", log_string("path", bus->settings.path),
             log_integer("events", (int64_t)recovery.records),
             log_integer("torn_bytes", (int64_t)recovery.torn_bytes),
             log_integer("damaged_events", (int64_t)recovery.damaged_records));
    return true;
}

static void init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void release(struct disk_bus *bus)
{
    event_log_close(bus->log);
    while (bus->absent != NULL)
        disk_remove_absent(bus, bus->absent->name);
    pthread_cond_destroy(&bus->writer_condition);
    pthread_cond_destroy(&bus->syncer_condition);
    pthread_cond_destroy(&bus->keeper_condition);
    pthread_cond_destroy(&bus->settled);
    pthread_mutex_destroy(&bus->mutex);
    pthread_mutex_destroy(&bus->waking);
    pthread_mutex_destroy(&bus->keeping);
    free(bus->queue);
    free(bus->cursors);
    free((void *)(uintptr_t)bus->settings.path);
    free(bus);
}

/* Signals are for others. */
static void start(pthread_t *thread, void *(*function)(void *bus), struct disk_bus *bus)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(thread, NULL, function, bus);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert(failed == 0);
    (void)failed;
}

static void stop(struct disk_bus *bus, pthread_t thread, bool *flag, pthread_cond_t *condition)
{
    pthread_mutex_lock(&bus->mutex);
    *flag = true;
    if (thread == bus->writer)
        bus->retry_ns = 0;
    pthread_cond_signal(condition);
    pthread_mutex_unlock(&bus->mutex);
    pthread_join(thread, NULL);
}

static void free_bus(struct bus *handle)
{
    struct disk_bus *bus = disk_bus_of(handle);
    assert(bus->subscribers == NULL);
    if (bus->settings.metrics != NULL)
        metrics_remove_collect(bus->settings.metrics, collect, bus);
    stop(bus, bus->writer, &bus->stopping, &bus->writer_condition);
    stop(bus, bus->syncer, &bus->syncer_stops, &bus->syncer_condition);
    stop(bus, bus->keeper, &bus->keeper_stops, &bus->keeper_condition);
    release(bus);
}

static uint64_t clamp(uint64_t value, uint64_t low, uint64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static void init(struct disk_bus *bus, const struct disk_bus_settings *settings)
{
    static const struct bus_operations operations = {
        .publish = publish,
        .subscribe = disk_subscribe,
        .renew = disk_renew,
        .close = disk_close,
        .unsubscribe = disk_unsubscribe,
        .fetch = disk_fetch,
        .await = disk_await,
        .acknowledge = disk_acknowledge,
        .depth = disk_depth,
        .is_healthy = is_healthy,
        .has_room = has_room,
        .free = free_bus,
    };
    bus->bus = (struct bus){.operations = &operations, .keeps_events = true};
    bus->settings = *settings;
    bus->settings.path = xstrdup(settings->path);
    if (bus->settings.absent_after_ns == 0)
        bus->settings.absent_after_ns = ABSENT_AFTER_NS;
    if (bus->settings.absent_kept_us == 0)
        bus->settings.absent_kept_us = ABSENT_KEPT_US;
    bus->cursors = xprintf("%s/cursors", settings->path);
    bus->half_interval_ns = settings->commit_interval_ns / 2;
    bus->segment_bytes = clamp(settings->max_bytes / SEGMENTS_AT_LEAST, SMALLEST_SEGMENT, LARGEST_SEGMENT);
    /* Two of them, each in a segment alone, fit into max_bytes: the present segment never goes, and the next one must find room beside it. */
    uint64_t half = settings->max_bytes / 2, heads = EVENT_LOG_FRAME_HEAD + DISK_SEGMENT_HEAD;
    bus->largest_event = (size_t)clamp(half > heads ? half - heads : 0, 0, EVENT_LOG_MAX_PAYLOAD);
    bus->gathered = (size_t)clamp(settings->queue_bytes / 4, 1, GATHERED_BYTES);
    uint64_t shortest = settings->max_age_ns < bus->settings.absent_after_ns ? settings->max_age_ns
                                                                             : bus->settings.absent_after_ns;
    bus->round_ns = clamp(shortest / 4, SHORTEST_ROUND_NS, LONGEST_ROUND_NS);
    bus->queue = xcalloc(settings->queue_events, sizeof *bus->queue);
    batches_init(&bus->again);
    batches_init(&bus->held);
    pthread_mutex_init(&bus->mutex, NULL);
    pthread_mutex_init(&bus->waking, NULL);
    pthread_mutex_init(&bus->keeping, NULL);
    init_condition(&bus->writer_condition);
    init_condition(&bus->syncer_condition);
    init_condition(&bus->keeper_condition);
    init_condition(&bus->settled);
}

struct bus *disk_bus_new(const struct disk_bus_settings *settings, struct error *error)
{
    if (settings->queue_events == 0) {
        error_set(error, "a bus on disk needs room for at least one event in its queue");
        return NULL;
    }
    struct disk_bus *bus = xcalloc(1, sizeof *bus);
    init(bus, settings);
    if (!open_log(bus, error)) {
        release(bus);
        return NULL;
    }
    if (settings->metrics != NULL)
        make_metrics(bus);
    start(&bus->writer, disk_write_events, bus);
    start(&bus->syncer, disk_sync_events, bus);
    start(&bus->keeper, disk_keep, bus);
    return &bus->bus;
}
