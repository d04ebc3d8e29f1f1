/*
 * What the tests of the disk bus share: a bus in a folder of its own, events known by a number, and a disk that does as it is told: fdatasync, fallocate and pwritev take the places of libc's.
 *
 * Nothing is timed: tests wait for what must become true, as long as a loaded machine needs.
 */
#ifndef DISK_BUS_TEST_H
#define DISK_BUS_TEST_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "../remove_folder.h"
#include "base/clock.h"
#include "base/log.h"
#include "bus/disk_bus.h"
#include "spool/cursor.h"

#define UNUSED __attribute__((unused))

/* The disk ------------------------------------------------------------------------------------------------------------------------------------------------------------ */

static pthread_mutex_t disk_moves = PTHREAD_MUTEX_INITIALIZER; /* no record is written while it is held */
static atomic_int failing_syncs;                               /* of segments: that many fail */
static atomic_bool hanging_syncs;                              /* of segments: they do not return */
static atomic_int failing_writes;                              /* of records: that many fail */
static atomic_bool disk_is_full;                               /* no record finds room */
static atomic_size_t segments_fit;   /* no record finds room while there are more; 0: any number */
static atomic_int syncs_of_segments; /* that succeeded */

static bool is_segment(int fd)
{
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path);
    return size > 4 && memcmp(path + size - 4, ".log", 4) == 0;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static char test_folder[64], bus_folder[96];

static size_t count_segments(void)
{
    DIR *names = opendir(bus_folder);
    struct dirent *entry;
    size_t count = 0;
    while (names != NULL && (entry = readdir(names)) != NULL) {
        size_t size = strlen(entry->d_name);
        count += size > 4 && strcmp(entry->d_name + size - 4, ".log") == 0;
    }
    if (names != NULL)
        closedir(names);
    return count;
}

static bool is_full(void)
{
    size_t fit = atomic_load(&segments_fit);
    return atomic_load(&disk_is_full) || (fit > 0 && count_segments() > fit);
}

static bool take_one(atomic_int *left)
{
    int count = atomic_load(left);
    while (count > 0)
        if (atomic_compare_exchange_weak(left, &count, count - 1))
            return true;
    return false;
}

int fdatasync(int fd)
{
    if (!is_segment(fd))
        return 0;
    while (atomic_load(&hanging_syncs))
        sleep_ms(1);
    if (take_one(&failing_syncs)) {
        errno = EIO;
        return -1;
    }
    atomic_fetch_add(&syncs_of_segments, 1);
    return 0;
}

int fsync(int fd)
{
    (void)fd;
    return 0;
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    if (is_segment(fd) && is_full()) {
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    bool full = is_full();
    if (full || take_one(&failing_writes)) {
        errno = full ? ENOSPC : EIO;
        return -1;
    }
    pthread_mutex_lock(&disk_moves);
    ssize_t wrote = syscall(SYS_pwritev, fd, pieces, count, offset, 0L);
    pthread_mutex_unlock(&disk_moves);
    return wrote;
}

/* The bus ------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static struct metrics *metrics;
static struct bus *bus;
static struct disk_bus_settings bus_settings;

#define SECOND_NS NANOSECONDS_PER_SECOND
#define LIMIT_MS  30000

/* Until it is true. */
#define WAIT_FOR(condition)                                                                                  \
    do {                                                                                                     \
        int waited_ms = 0;                                                                                   \
        while (!(condition)) {                                                                               \
            if (waited_ms++ > LIMIT_MS)                                                                      \
                fail_msg("never true: %s", #condition);                                                      \
            sleep_ms(1);                                                                                     \
        }                                                                                                    \
    } while (0)

static UNUSED int begin(void **state)
{
    (void)state;
    failing_syncs = failing_writes = 0;
    hanging_syncs = disk_is_full = false;
    segments_fit = 0;
    log_configure(LOG_ERROR + 1, LOG_TEXT); /* what is logged here is wanted */
    snprintf(test_folder, sizeof test_folder, "%s/bus-test-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(test_folder) == NULL)
        return -1;
    snprintf(bus_folder, sizeof bus_folder, "%s/deep/bus", test_folder);
    metrics = metrics_new();
    bus_settings = (struct disk_bus_settings){
        .path = bus_folder,
        .max_bytes = 64 << 20,
        .max_age_ns = 3600 * SECOND_NS,
        .commit_interval_ns = 5 * NANOSECONDS_PER_MILLISECOND,
        .queue_events = 100000,
        .queue_bytes = 64 << 20,
        .metrics = metrics,
    };
    bus = NULL;
    return 0;
}

static UNUSED int end(void **state)
{
    (void)state;
    bus_free(bus);
    bus = NULL;
    metrics_free(metrics);
    remove_folder(test_folder);
    return 0;
}

#define BUS_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

static UNUSED void open_bus(void)
{
    struct error error;
    bus = disk_bus_new(&bus_settings, &error);
    if (bus == NULL)
        fail_msg("%s", error.message);
}

static UNUSED struct metric *counter(const char *name, const char *subscriber)
{
    return metrics_counter(metrics, name, "help", (struct metric_label[]){{"pipeline", subscriber}, {0}});
}

static UNUSED int64_t count_of(const char *name, const char *subscriber)
{
    return metric_value(counter(name, subscriber));
}

static UNUSED struct subscriber_settings subscription(const char *name)
{
    struct subscriber_settings settings = {
        .name = name, .received = counter("received", name), .dropped = counter("dropped", name)};
    for (int i = 0; i < BUS_DROP_COUNT; i++)
        settings.dropped_by[i] = counter(bus_drop_name((enum bus_drop)i), name);
    return settings;
}

static UNUSED struct subscriber *subscribe_with(const struct subscriber_settings *settings)
{
    struct error error;
    struct subscriber *subscriber = bus_subscribe(bus, settings, &error);
    if (subscriber == NULL)
        fail_msg("%s", error.message);
    return subscriber;
}

static UNUSED struct subscriber *subscribe(const char *name)
{
    struct subscriber_settings settings = subscription(name);
    return subscribe_with(&settings);
}

/* Events -------------------------------------------------------------------------------------------------------------------------------------------------------------- */

/* The number is its time. */
static UNUSED struct event_record *event_with(uint64_t number, size_t body_bytes)
{
    static char filling[1 << 16];
    struct event_fields fields = {.id = SLICE("id"), .time_us = number, .request_kept = true};
    struct body body;
    body_init(&body, NULL);
    while (body_bytes > 0) {
        size_t piece = body_bytes < sizeof filling ? body_bytes : sizeof filling;
        assert_true(body_append(&body, (struct slice){filling, piece}));
        body_bytes -= piece;
    }
    return event_record_new(&fields, &body, NULL, NULL);
}

static atomic_int stored_events, lost_events; /* done was called with true and false */

static UNUSED void count_done(void *argument, bool stored)
{
    (void)argument;
    atomic_fetch_add(stored ? &stored_events : &lost_events, 1);
}

static UNUSED void publish_sized(uint64_t number, size_t body_bytes)
{
    struct event_record *event = event_with(number, body_bytes);
    bus_publish(bus, event, count_done, NULL);
    event_record_release(event);
}

static UNUSED void publish(uint64_t number)
{
    publish_sized(number, 0);
}

/* Publishes and waits until all of it is durable. */
static UNUSED void publish_durably(uint64_t first, uint64_t count, size_t body_bytes)
{
    stored_events = lost_events = 0;
    for (uint64_t i = 0; i < count; i++)
        publish_sized(first + i, body_bytes);
    WAIT_FOR(stored_events + lost_events == (int)count);
    assert_int_equal(lost_events, 0);
}

static UNUSED uint64_t number_of(const struct event_record *event)
{
    return event_get(event)->time_us;
}

/* The next event's number, or UINT64_MAX when there is none now. *sequence: to be acknowledged. */
static UNUSED uint64_t fetch_one(struct subscriber *subscriber, uint64_t *sequence)
{
    struct bus_entry entry;
    if (bus_fetch(subscriber, &entry, 1, SIZE_MAX) == 0)
        return UINT64_MAX;
    uint64_t number = number_of(entry.event);
    *sequence = entry.sequence;
    event_record_release(entry.event);
    return number;
}

/* Fetches what becomes durable, checks the numbers, acknowledges. */
static UNUSED void assert_gets(struct subscriber *subscriber, uint64_t first, uint64_t count)
{
    uint64_t sequence = 0, number;
    for (uint64_t i = 0; i < count; i++) {
        WAIT_FOR((number = fetch_one(subscriber, &sequence)) != UINT64_MAX);
        assert_int_equal(number, first + i);
        bus_acknowledge(subscriber, sequence);
    }
}

static UNUSED void assert_gets_nothing(struct subscriber *subscriber)
{
    uint64_t sequence;
    assert_int_equal(fetch_one(subscriber, &sequence), UINT64_MAX);
}

/* The folder ---------------------------------------------------------------------------------------------------------------------------------------------------------- */

struct sought {
    const char *name;
    struct cursor cursor;
    bool found;
};

static UNUSED void compare_name(void *argument, const char *name, const struct cursor *cursor)
{
    struct sought *sought = argument;
    if (strcmp(name, sought->name) != 0)
        return;
    sought->cursor = *cursor;
    sought->found = true;
}

static UNUSED struct sought cursor_on_disk(const char *name)
{
    struct sought sought = {.name = name};
    struct error error;
    char *folder = xprintf("%s/cursors", bus_folder);
    assert_true(cursor_files_list(folder, compare_name, &sought, &error));
    free(folder);
    return sought;
}

#endif
