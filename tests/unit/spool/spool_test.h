/*
 * What the tests of the spool share: a folder of their own, records whose bytes follow from their sequence, and a log read from its beginning to its end.
 */
#ifndef SPOOL_TEST_H
#define SPOOL_TEST_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../remove_folder.h"
#include "base/log.h"
#include "base/memory.h"
#include "spool/event_log.h"

#define UNUSED __attribute__((unused))

/* These take the places of libc's: what a machine that loses its power does cannot be tested here, and a busy disk takes its time. */
#ifndef SPOOL_TEST_OWN_SYNC
int fsync(int fd)
{
    (void)fd;
    return 0;
}

int fdatasync(int fd)
{
    (void)fd;
    return 0;
}
#endif

/* Of the test that runs; the log is in FOLDER/log. */
static char test_folder[64];
static char log_folder[80];

static UNUSED int make_test_folder_in(const char *base)
{
    snprintf(test_folder, sizeof test_folder, "%.32s/spool-test-XXXXXX", base);
    log_configure(LOG_ERROR + 1, LOG_TEXT); /* damage is made on purpose here */
    if (mkdtemp(test_folder) == NULL)
        return -1;
    snprintf(log_folder, sizeof log_folder, "%s/log", test_folder);
    return 0;
}

/* In memory where there is such a place: a busy disk takes its time for each of thousands of small files. */
static UNUSED int make_test_folder(void **state)
{
    (void)state;
    return make_test_folder_in(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
}

static UNUSED int make_large_test_folder(void **state)
{
    (void)state;
    return make_test_folder_in("/tmp");
}

static UNUSED int remove_test_folder(void **state)
{
    (void)state;
    remove_folder(test_folder);
    return 0;
}

#define SPOOL_TEST(test) cmocka_unit_test_setup_teardown(test, make_test_folder, remove_test_folder)

/* Records ---------------------------------------------------------------------------------------------------------------------------------------------------------- */

static UNUSED uint64_t mix(uint64_t value)
{
    value = (value ^ value >> 31) * UINT64_C(0x9e3779b97f4a7c15);
    return (value ^ value >> 29) * UINT64_C(0xbf58476d1ce4e5b9) ^ value >> 32;
}

#define MAX_TEST_PAYLOAD 5000

/* 1 to `most` bytes that follow from the sequence. */
static UNUSED size_t make_payload(uint64_t sequence, size_t most, char payload[MAX_TEST_PAYLOAD])
{
    size_t size = 1 + mix(sequence) % most;
    for (size_t i = 0; i < size; i++)
        payload[i] = (char)mix(sequence * 31 + i / 8 + 7);
    return size;
}

static UNUSED void assert_payload(uint64_t sequence, size_t most, struct slice payload)
{
    char expected[MAX_TEST_PAYLOAD];
    size_t size = make_payload(sequence, most, expected);
    assert_int_equal(payload.size, size);
    assert_memory_equal(payload.data, expected, size);
}

static UNUSED struct event_log *open_log_with(uint64_t segment_bytes, struct event_log_recovery *recovery)
{
    struct error error;
    struct event_log *log = event_log_open(
        &(struct event_log_settings){.folder = log_folder, .segment_bytes = segment_bytes}, recovery, &error);
    if (log == NULL)
        fail_msg("%s", error.message);
    return log;
}

static UNUSED struct event_log *open_log(uint64_t segment_bytes)
{
    struct event_log_recovery recovery;
    return open_log_with(segment_bytes, &recovery);
}

/* Stages the record that is due, in three pieces; the bytes must stay until it is written. */
static UNUSED bool stage(struct event_log *log, size_t most, char payload[MAX_TEST_PAYLOAD])
{
    size_t size = make_payload(event_log_next(log), most, payload), first = size / 3;
    struct iovec pieces[] = {{payload, first}, {NULL, 0}, {payload + first, size - first}};
    return event_log_add(log, pieces, 3);
}

/* Writes so many records, one by one, syncs them, and goes to the next segment when one is full. */
static UNUSED void append(struct event_log *log, size_t count, size_t most)
{
    char payload[MAX_TEST_PAYLOAD];
    for (size_t i = 0; i < count; i++) {
        if (!stage(log, most, payload)) {
            assert_int_equal(event_log_sync(log), EVENT_LOG_DONE);
            assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
            assert_true(stage(log, most, payload));
        }
        assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
    }
    assert_int_equal(event_log_sync(log), EVENT_LOG_DONE);
}

struct seen {
    uint64_t records, first, last, missing;
};

/* Reads to the end: payloads must be those of their sequences, which ascend, and what is missing must be told. */
static UNUSED struct seen read_on(struct event_log_reader *reader, uint64_t last, size_t most)
{
    struct seen seen = {0};
    struct event_log_record record;
    struct error error;
    while (event_log_read(reader, last, &record, &error)) {
        assert_payload(record.sequence, most, record.payload);
        if (seen.records == 0)
            seen.first = record.sequence;
        else
            assert_int_equal(record.sequence, seen.last + 1 + record.missing);
        assert_true(record.sequence <= last);
        seen.records++;
        seen.missing += record.missing;
        seen.last = record.sequence;
    }
    return seen;
}

static UNUSED struct seen read_all(size_t most)
{
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    struct seen seen = read_on(reader, UINT64_MAX, most);
    event_log_reader_free(reader);
    return seen;
}

/* Files -------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static UNUSED char *path_of(const char *name)
{
    return xprintf("%s/%s", log_folder, name);
}

static UNUSED char *segment_path(uint64_t first)
{
    return xprintf("%s/%020llu.log", log_folder, (unsigned long long)first);
}

static UNUSED bool exists(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

static UNUSED size_t size_of(const char *path)
{
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return (size_t)status.st_size;
}

/* The caller frees. */
static UNUSED char *read_file(const char *path, size_t *size)
{
    *size = size_of(path);
    char *data = xmalloc(*size + 1);
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, data, *size, 0), *size);
    close(fd);
    return data;
}

static UNUSED void write_file(const char *path, const char *data, size_t size)
{
    unlink(path); /* truncating it instead makes some file systems wait for the disk */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
}

static UNUSED void change_byte(const char *path, size_t offset, unsigned char bits)
{
    unsigned char byte;
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

static UNUSED size_t count_names(const char *suffix)
{
    size_t count = 0;
    DIR *names = opendir(log_folder);
    struct dirent *entry;
    while (names != NULL && (entry = readdir(names)) != NULL) {
        size_t size = strlen(entry->d_name), end = strlen(suffix);
        count += size >= end && strcmp(entry->d_name + size - end, suffix) == 0;
    }
    if (names != NULL)
        closedir(names);
    return count;
}

#endif
