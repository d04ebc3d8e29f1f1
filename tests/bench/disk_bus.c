/*
 * What the bus on disk costs: publishes events of one size for some seconds, as a worker does, and has one subscriber fetch and acknowledge them. Prints one row:
 *
 *     body bytes | events a second, durable | CPU us per event, of all threads | ns per publish, lowest percentile and median | syncs a second
 *
 * Nothing is dropped: the publisher waits while the bus has no room, and that time is not the publish's.
 *
 *     disk_bus FOLDER BODY_BYTES SECONDS
 */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "bus/disk_bus.h"

#define GROUP      64 /* events for which the time of publishing is taken together */
#define MOST_TIMES 1000000

static struct bus *bus;
static struct subscriber *subscriber;
static atomic_bool ends;
static atomic_ulong stored, lost;

static void count_done(void *argument, bool is_stored)
{
    (void)argument;
    atomic_fetch_add(is_stored ? &stored : &lost, 1);
}

static void *consume(void *argument)
{
    struct bus_entry entries[64];
    (void)argument;
    for (;;) {
        bool last = ends;
        size_t count = bus_fetch(subscriber, entries, 64, 1 << 20);
        for (size_t i = 0; i < count; i++) {
            event_record_release(entries[i].event);
            bus_acknowledge(subscriber, entries[i].sequence);
        }
        if (count == 0 && last)
            return NULL;
        if (count == 0)
            usleep(1000);
    }
}

static struct event_record *make_event(size_t body_bytes)
{
    char id[UUID_TEXT_SIZE];
    struct body request, response, tail;
    body_init(&request, NULL);
    body_init(&response, NULL);
    body_init(&tail, NULL);
    char *bytes = calloc(1, body_bytes + 1);
    memset(bytes, 'x', body_bytes);
    bool kept = body_append(&response, (struct slice){bytes, body_bytes});
    assert(kept);
    (void)kept;
    free(bytes);
    uuid7(id);
    struct event_fields fields = {.id = slice_of(id),
                                  .method = SLICE("POST"),
                                  .path = SLICE("/v1/chat/completions"),
                                  .status = 200,
                                  .response_kept = true};
    return event_record_new(&fields, &request, &response, &tail);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

int main(int argc, char **argv)
{
    struct error error;
    if (argc != 4) {
        fprintf(stderr, "usage: disk_bus FOLDER BODY_BYTES SECONDS\n");
        return 2;
    }
    log_configure(LOG_WARN, LOG_TEXT);
    size_t body_bytes = strtoul(argv[2], NULL, 10);
    uint64_t seconds = strtoul(argv[3], NULL, 10);
    struct metrics *metrics = metrics_new();
    bus = disk_bus_new(&(struct disk_bus_settings){.path = argv[1],
                                                   .max_bytes = UINT64_C(8) << 30,
                                                   .max_age_ns = UINT64_C(86400) * NANOSECONDS_PER_SECOND,
                                                   .commit_interval_ns = 5 * NANOSECONDS_PER_MILLISECOND,
                                                   .queue_events = 16384,
                                                   .queue_bytes = 256 << 20,
                                                   .metrics = metrics},
                       &error);
    if (bus != NULL)
        subscriber = bus_subscribe(bus, &(struct subscriber_settings){.name = "bench"}, &error);
    if (subscriber == NULL) {
        fprintf(stderr, "disk_bus: %s\n", error.message);
        return 1;
    }
    pthread_t consumer;
    pthread_create(&consumer, NULL, consume, NULL);
    uint64_t *times = calloc(MOST_TIMES, sizeof *times), published = 0;
    size_t groups = 0;
    uint64_t begin = clock_monotonic_ns(), end = begin + seconds * NANOSECONDS_PER_SECOND;
    double cpu = cpu_seconds();
    struct event_record *event = make_event(body_bytes);
    while (clock_monotonic_ns() < end && groups < MOST_TIMES) {
        while (!bus_has_room(bus))
            usleep(200);
        uint64_t before = clock_monotonic_ns();
        for (int i = 0; i < GROUP; i++)
            bus_publish(bus, event, count_done, NULL);
        times[groups++] = (clock_monotonic_ns() - before) / GROUP;
        published += GROUP;
    }
    while (stored + lost < published)
        usleep(1000);
    double took = (double)(clock_monotonic_ns() - begin) / (double)NANOSECONDS_PER_SECOND;
    ends = true;
    pthread_join(consumer, NULL);
    cpu = cpu_seconds() - cpu;
    qsort(times, groups, sizeof *times, compare);
    const struct metric *syncs = metrics_counter(metrics, "llm_proxy_bus_syncs_total", "", NULL);
    printf("%8zu %12.0f %10.2f %10llu %10llu %10.0f\n", body_bytes, (double)stored / took,
           cpu * 1e6 / (double)published, (unsigned long long)times[groups / 100],
           (unsigned long long)times[groups / 2], (double)metric_value(syncs) / took);
    int status = lost == 0 ? 0 : 1;
    if (status != 0)
        fprintf(stderr, "disk_bus: %lu events were dropped\n", (unsigned long)lost);
    event_record_release(event);
    bus_unsubscribe(subscriber);
    bus_free(bus);
    metrics_free(metrics);
    free(times);
    return status;
}
