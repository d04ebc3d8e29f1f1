/*
 * What the bus on disk costs: publishes events of one size for some seconds, as workers do, and has one subscriber (or none) fetch and acknowledge them. Several rounds, one row, each figure that of the round in
 * which it was best, for what else runs on the machine only ever makes it worse:
 *
 *     events/s     durable ones
 *     us CPU       per event, user and system, of all threads: publishing, log, reading back, cursor
 *     us bus       of which in the bus's own threads: the rest is the publishers' and the subscriber's
 *     ns 1%, median, 99%
 *                  what a publish takes in a worker's thread, waiting for the mutex included; percentiles of the times of 64 together
 *     syncs/s      commits of the log, each an fdatasync
 *
 * Nothing is dropped (else the exit status is 1): publishers wait while the bus has no room, or the subscriber is far behind, and that time is not the publish's. Each event is a record of its own, and they are many
 * enough to be cold, as those are that a worker publishes.
 */
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "base/memory.h"
#include "bus/disk_bus.h"

#define GROUP           64u
#define MOST_PUBLISHERS 16u
#define MOST_GROUPS     1000000u
#define RECORD_BYTES    ((size_t)64 << 20) /* of a publisher's records together */
#define BEHIND_BYTES    ((size_t)1 << 30)  /* that the subscriber may have yet to fetch */

struct publisher {
    pthread_t thread;
    struct event_record **records;
    uint64_t *times; /* nanoseconds per publish, of each group */
    size_t groups;
    double cpu_seconds;
};

struct row {
    double events, cpu, bus_cpu, syncs;
    uint64_t lowest, median, highest;
};

static struct {
    const char *folder;
    size_t body_bytes, publishers, rounds;
    uint64_t round_ns, commit_interval_ns;
    bool subscribes;
} settings = {.body_bytes = 4096,
              .publishers = 1,
              .rounds = 3,
              .round_ns = NANOSECONDS_PER_SECOND,
              .commit_interval_ns = 5 * NANOSECONDS_PER_MILLISECOND,
              .subscribes = true};

static struct bus *bus;
static struct subscriber *subscriber;
static size_t record_count, most_behind;
static uint64_t round_end_ns;
static atomic_bool consumer_ends;
static atomic_ulong stored, lost, consumed;
static unsigned long missed; /* by the subscriber */

static double cpu_seconds(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / (double)NANOSECONDS_PER_SECOND;
}

static struct event_record *make_event(void)
{
    char id[UUID_TEXT_SIZE];
    struct body request, response, tail;
    body_init(&request, NULL);
    body_init(&response, NULL);
    body_init(&tail, NULL);
    char *bytes = xmalloc(settings.body_bytes + 1);
    memset(bytes, 'x', settings.body_bytes);
    if (!body_append(&response, (struct slice){bytes, settings.body_bytes}))
        abort();
    free(bytes);
    uuid7(id);
    struct event_fields fields = {.id = slice_of(id),
                                  .method = SLICE("POST"),
                                  .path = SLICE("/v1/chat/completions"),
                                  .status = 200,
                                  .response_kept = true};
    return event_record_new(&fields, &request, &response, &tail);
}

/* ---- threads ---- */

static void count_done(void *argument, bool is_stored)
{
    (void)argument;
    atomic_fetch_add(is_stored ? &stored : &lost, 1);
}

static void *publish(void *argument)
{
    struct publisher *publisher = argument;
    size_t next = 0;
    double cpu = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    while (clock_monotonic_ns() < round_end_ns && publisher->groups < MOST_GROUPS) {
        if (!bus_has_room(bus) || (settings.subscribes && bus_depth(subscriber) > most_behind)) {
            usleep(200);
            continue;
        }
        uint64_t before = clock_monotonic_ns();
        for (size_t i = 0; i < GROUP; i++)
            bus_publish(bus, publisher->records[(next + i) % record_count], count_done, NULL);
        publisher->times[publisher->groups++] = (clock_monotonic_ns() - before) / GROUP;
        next += GROUP;
    }
    publisher->cpu_seconds = cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
    return NULL;
}

/* The argument is where it leaves its CPU seconds. */
static void *consume(void *argument)
{
    struct bus_entry entries[GROUP];
    for (;;) {
        bool last = atomic_load(&consumer_ends);
        size_t count = bus_fetch(subscriber, entries, GROUP, 1 << 20);
        for (size_t i = 0; i < count; i++) {
            event_record_release(entries[i].event);
            bus_acknowledge(subscriber, entries[i].sequence);
        }
        atomic_fetch_add(&consumed, count);
        if (count == 0 && last)
            break;
        if (count == 0)
            usleep(1000);
    }
    *(double *)argument = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    return NULL;
}

/* ---- rounds ---- */

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void set_percentiles(struct row *row, struct publisher *publishers, size_t groups)
{
    uint64_t *times = xcalloc(groups, sizeof *times);
    size_t count = 0;
    for (size_t i = 0; i < settings.publishers; i++) {
        memcpy(times + count, publishers[i].times, publishers[i].groups * sizeof *times);
        count += publishers[i].groups;
    }
    qsort(times, count, sizeof *times, compare);
    row->lowest = times[count / 100];
    row->median = times[count / 2];
    row->highest = times[count - 1 - count / 100];
    free(times);
}

static struct row run_round(struct publisher *publishers, const struct metric *syncs)
{
    int64_t syncs_before = metric_value(syncs);
    unsigned long done_before = stored + lost, consumed_before = consumed;
    double cpu = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID), consumer_cpu = 0;
    uint64_t begin = clock_monotonic_ns();
    round_end_ns = begin + settings.round_ns;
    consumer_ends = false;
    pthread_t consumer;
    if (settings.subscribes)
        pthread_create(&consumer, NULL, consume, &consumer_cpu);
    for (size_t i = 0; i < settings.publishers; i++) {
        publishers[i].groups = 0;
        pthread_create(&publishers[i].thread, NULL, publish, &publishers[i]);
    }
    size_t groups = 0;
    double callers_cpu = 0;
    for (size_t i = 0; i < settings.publishers; i++) {
        pthread_join(publishers[i].thread, NULL);
        groups += publishers[i].groups;
        callers_cpu += publishers[i].cpu_seconds;
    }
    unsigned long published = groups * GROUP;
    while (stored + lost - done_before < published)
        usleep(1000);
    double took = (double)(clock_monotonic_ns() - begin) / (double)NANOSECONDS_PER_SECOND;
    double syncs_done = (double)(metric_value(syncs) - syncs_before);
    consumer_ends = true;
    if (settings.subscribes) {
        pthread_join(consumer, NULL);
        missed += published - (consumed - consumed_before);
    }
    callers_cpu += consumer_cpu;
    cpu = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    double microseconds = 1e6 / (double)published;
    struct row row = {.events = (double)published / took,
                      .cpu = cpu * microseconds,
                      .bus_cpu = (cpu - callers_cpu) * microseconds,
                      .syncs = syncs_done / took};
    set_percentiles(&row, publishers, groups);
    return row;
}

static void keep_best(struct row *best, struct row row)
{
#define LESS(member)                                                                                         \
    if (row.member < best->member)                                                                           \
    best->member = row.member
    LESS(cpu);
    LESS(bus_cpu);
    LESS(lowest);
    LESS(median);
    LESS(highest);
#undef LESS
    if (row.events > best->events) {
        best->events = row.events;
        best->syncs = row.syncs;
    }
}

/* ---- beginning and end ---- */

static bool parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"bytes", required_argument, NULL, 'b'},
        {"publishers", required_argument, NULL, 'p'},
        {"rounds", required_argument, NULL, 'r'},
        {"milliseconds", required_argument, NULL, 'm'},
        {"interval-us", required_argument, NULL, 'i'},
        {"no-subscriber", no_argument, NULL, 'n'},
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        unsigned long value = optarg != NULL ? strtoul(optarg, NULL, 10) : 0;
        switch (option) {
        case 'b':
            settings.body_bytes = value;
            break;
        case 'p':
            settings.publishers = value;
            break;
        case 'r':
            settings.rounds = value;
            break;
        case 'm':
            settings.round_ns = value * NANOSECONDS_PER_MILLISECOND;
            break;
        case 'i':
            settings.commit_interval_ns = value * 1000;
            break;
        case 'n':
            settings.subscribes = false;
            break;
        default:
            return false;
        }
    }
    settings.folder = argv[optind];
    return argc == optind + 1 && settings.publishers >= 1 && settings.publishers <= MOST_PUBLISHERS &&
           settings.rounds >= 1 && settings.round_ns > 0;
}

static bool open_bus(struct metrics *metrics)
{
    struct error error;
    bus = disk_bus_new(&(struct disk_bus_settings){.path = settings.folder,
                                                   .max_bytes = UINT64_C(8) << 30,
                                                   .max_age_ns = UINT64_C(86400) * NANOSECONDS_PER_SECOND,
                                                   .commit_interval_ns = settings.commit_interval_ns,
                                                   .queue_events = 16384,
                                                   .queue_bytes = 256 << 20,
                                                   .metrics = metrics},
                       &error);
    if (bus != NULL && settings.subscribes)
        subscriber = bus_subscribe(bus, &(struct subscriber_settings){.name = "bench"}, &error);
    if (bus != NULL && (subscriber != NULL || !settings.subscribes))
        return true;
    fprintf(stderr, "disk_bus: %s\n", error.message);
    return false;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: disk_bus [--bytes N] [--publishers N] [--rounds N] [--milliseconds N] "
                        "[--interval-us N] [--no-subscriber] FOLDER\n");
        return 2;
    }
    log_configure(LOG_WARN, LOG_TEXT);
    struct metrics *metrics = metrics_new();
    if (!open_bus(metrics))
        return 1;
    const struct metric *syncs = metrics_counter(metrics, "llm_proxy_bus_syncs_total", "", NULL);
    struct publisher publishers[MOST_PUBLISHERS];
    record_count = RECORD_BYTES / (settings.body_bytes + 1024) + GROUP;
    most_behind = BEHIND_BYTES / (settings.body_bytes + 1024);
    for (size_t i = 0; i < settings.publishers; i++) {
        publishers[i].times = xcalloc(MOST_GROUPS, sizeof(uint64_t));
        publishers[i].records = xcalloc(record_count, sizeof(struct event_record *));
        for (size_t record = 0; record < record_count; record++)
            publishers[i].records[record] = make_event();
    }
    struct row best = run_round(publishers, syncs);
    for (size_t round = 1; round < settings.rounds; round++)
        keep_best(&best, run_round(publishers, syncs));
    printf("%6zu %10zu %10s %10.0f %8.2f %8.2f %7llu %7llu %7llu %8.0f\n", settings.body_bytes,
           settings.publishers, settings.subscribes ? "yes" : "no", best.events, best.cpu, best.bus_cpu,
           (unsigned long long)best.lowest, (unsigned long long)best.median, (unsigned long long)best.highest,
           best.syncs);
    for (size_t i = 0; i < settings.publishers; i++) {
        for (size_t record = 0; record < record_count; record++)
            event_record_release(publishers[i].records[record]);
        free(publishers[i].records);
        free(publishers[i].times);
    }
    if (subscriber != NULL)
        bus_unsubscribe(subscriber);
    bus_free(bus);
    metrics_free(metrics);
    if (lost == 0 && missed == 0)
        return 0;
    fprintf(stderr, "disk_bus: %lu events were dropped, %lu not fetched\n", (unsigned long)lost, missed);
    return 1;
}
