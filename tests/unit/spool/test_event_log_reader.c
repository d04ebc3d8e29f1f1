/* Reading beside a writer: what is final is there, what is not yet is not, and segments may go away meanwhile. */
#include "spool_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "spool/segment.h"

#define MOST 400

static _Atomic uint64_t bytes_read;

/* Instead of libc's: counts. */
ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    ssize_t got = syscall(SYS_pread64, fd, data, size, offset);
    if (got > 0)
        bytes_read += (uint64_t)got;
    return got;
}

static int open_code; /* why segments cannot be opened; 0: they can */

int openat(int folder, const char *name, int flags, ...)
{
    size_t size = strlen(name);
    if (open_code != 0 && (flags & O_ACCMODE) == O_RDONLY && size > 4 &&
        strcmp(name + size - 4, ".log") == 0) {
        errno = open_code;
        return -1;
    }
    va_list arguments;
    va_start(arguments, flags);
    int mode = (flags & O_CREAT) != 0 ? va_arg(arguments, int) : 0;
    va_end(arguments);
    return (int)syscall(SYS_openat, folder, name, flags, mode);
}

static void a_folder_may_come_later(void **state)
{
    (void)state;
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    struct event_log_record record;
    struct error error;
    for (int i = 0; i < 2; i++) {
        assert_false(event_log_read(reader, UINT64_MAX, &record, &error));
        assert_string_equal(error.message, "");
    }
    struct event_log *log = open_log(4096);
    assert_false(event_log_read(reader, UINT64_MAX, &record, &error));
    append(log, 3, MOST);
    assert_int_equal(read_on(reader, UINT64_MAX, MOST).records, 3);
    event_log_close(log);
    /* … and go, and come again with other records. */
    remove_folder(log_folder);
    assert_false(event_log_read(reader, UINT64_MAX, &record, &error));
    struct event_log_recovery recovery;
    log = event_log_open(&(struct event_log_settings){log_folder, 4096, 9}, &recovery, &error);
    append(log, 2, MOST);
    assert_true(event_log_read(reader, UINT64_MAX, &record, &error));
    assert_int_equal(record.sequence, 9);
    assert_int_equal(record.missing, 5);
    event_log_close(log);
    event_log_reader_free(reader);
}

static void no_more_is_read_than_was_asked_for(void **state)
{
    (void)state;
    struct event_log *log = open_log(3000);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    struct event_log_record record;
    append(log, 100, MOST);
    for (uint64_t last = 0; last <= 100; last++) {
        if (last > 0) {
            assert_true(event_log_read(reader, last, &record, NULL));
            assert_int_equal(record.sequence, last);
            assert_int_equal(record.missing, 0);
        }
        assert_false(event_log_read(reader, last, &record, NULL));
    }
    event_log_reader_free(reader);
    event_log_close(log);
}

static void a_record_tells_where_it_is(void **state)
{
    (void)state;
    struct event_log *log = open_log(3000);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    struct event_log_record record;
    append(log, 50, MOST);
    while (event_log_read(reader, UINT64_MAX, &record, NULL)) {
        size_t size;
        char *path = path_of(record.segment), *bytes = read_file(path, &size);
        assert_true(record.offset + EVENT_LOG_FRAME_HEAD + record.payload.size <= size);
        assert_memory_equal(bytes + record.offset + EVENT_LOG_FRAME_HEAD, record.payload.data,
                            record.payload.size);
        free(bytes);
        free(path);
    }
    event_log_reader_free(reader);
    event_log_close(log);
}

/* A batch that was taken back may have been seen by a reader: it reads again what it was not told to be final. */
static void what_was_not_final_is_read_again(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 16);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    append(log, 3, MOST);
    char *path = segment_path(1), *wrong = xcalloc(1, 300), *before, head[EVENT_LOG_FRAME_HEAD];
    size_t size;
    before = read_file(path, &size);
    size_t end = 64;
    for (uint64_t sequence = 1; sequence <= 3; sequence++) {
        char payload[MAX_TEST_PAYLOAD];
        end += EVENT_LOG_FRAME_HEAD + make_payload(sequence, MOST, payload);
    }
    segment_write_head(head, 4, &(struct iovec){wrong, 300}, 1, 300);
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, head, sizeof head, (off_t)end), sizeof head);
    assert_int_equal(pwrite(fd, wrong, 300, (off_t)(end + sizeof head)), 300);
    assert_int_equal(read_on(reader, 3, MOST).records, 3);
    assert_int_equal(pwrite(fd, before + end, sizeof head + 300, (off_t)end), sizeof head + 300);
    close(fd);
    append(log, 2, MOST);
    struct seen seen = read_on(reader, 5, MOST);
    assert_int_equal(seen.records, 2);
    assert_int_equal(seen.missing, 0);
    free(before);
    free(wrong);
    free(path);
    event_log_reader_free(reader);
    event_log_close(log);
}

static void a_half_written_record_is_not_yet_there(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 16);
    append(log, 2, MOST);
    event_log_close(log);
    char *path = segment_path(1), *bytes;
    size_t size;
    bytes = read_file(path, &size);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    char payload[MAX_TEST_PAYLOAD];
    size_t first = 64 + EVENT_LOG_FRAME_HEAD + make_payload(1, MOST, payload);
    assert_int_equal(truncate(path, (off_t)first), 0);
    struct event_log_record record;
    assert_true(event_log_read(reader, UINT64_MAX, &record, NULL));
    int fd = open(path, O_RDWR);
    assert_int_equal(ftruncate(fd, 8192), 0);
    for (size_t at = first; at < size; at++) {
        assert_false(event_log_read(reader, UINT64_MAX, &record, NULL));
        assert_int_equal(pwrite(fd, bytes + at, 1, (off_t)at), 1);
    }
    close(fd);
    assert_true(event_log_read(reader, UINT64_MAX, &record, NULL));
    assert_payload(2, MOST, record.payload);
    event_log_reader_free(reader);
    free(bytes);
    free(path);
}

static void segments_may_go_away_while_they_are_read(void **state)
{
    (void)state;
    struct event_log *log = open_log(3000);
    struct event_log_segment segments[64];
    struct event_log_record record;
    append(log, 100, MOST);
    size_t count = event_log_segments(log, segments, 64);
    assert_true(count > 5 && count <= 64);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    assert_true(event_log_read(reader, 100, &record, NULL));
    assert_int_equal(event_log_unlink_before(log, segments[3].last + 1), 4);
    /* What is open is read to its end, then comes what there is. */
    for (uint64_t sequence = 2; sequence <= segments[0].last; sequence++) {
        assert_true(event_log_read(reader, 100, &record, NULL));
        assert_int_equal(record.sequence, sequence);
        assert_int_equal(record.missing, 0);
    }
    assert_true(event_log_read(reader, 100, &record, NULL));
    assert_int_equal(record.sequence, segments[4].first);
    assert_int_equal(record.missing, segments[4].first - segments[1].first);
    struct seen seen = read_on(reader, 100, MOST);
    assert_int_equal(seen.last, 100);
    assert_int_equal(seen.missing, 0);
    event_log_unlink_before(log, UINT64_MAX);
    append(log, 5, MOST);
    assert_int_equal(read_on(reader, UINT64_MAX, MOST).records, 5);
    event_log_reader_free(reader);
    event_log_close(log);
}

/* Whether a folder has changed is seen by its time: that must not depend on the clock's going forward. */
static void the_clock_may_be_set(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 16);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    const time_t shifts[] = {0, -10, 3600, -100000, 0, 100000};
    for (size_t i = 0; i < sizeof shifts / sizeof shifts[0]; i++) {
        struct timespec changed[] = {{.tv_sec = time(NULL) + shifts[i]}, {.tv_sec = time(NULL) + shifts[i]}};
        append(log, 3, MOST);
        assert_int_equal(utimensat(AT_FDCWD, log_folder, changed, 0), 0);
        assert_int_equal(read_on(reader, UINT64_MAX, MOST).records, 3);
        assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
        append(log, 3, MOST);
        /* A change so shortly after another one may have the same time. */
        if (shifts[i] >= 0)
            assert_int_equal(utimensat(AT_FDCWD, log_folder, changed, 0), 0);
        assert_int_equal(read_on(reader, UINT64_MAX, MOST).records, 3);
    }
    event_log_reader_free(reader);
    event_log_close(log);
}

static void any_sequence_can_be_sought(void **state)
{
    (void)state;
    struct event_log *log = open_log(3000);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    struct event_log_record record;
    append(log, 60, MOST);
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t sequence = 1 + mix(i) % 62;
        event_log_reader_seek(reader, sequence);
        assert_int_equal(event_log_read(reader, UINT64_MAX, &record, NULL), sequence <= 60);
        if (sequence > 60)
            continue;
        assert_int_equal(record.sequence, sequence);
        assert_int_equal(record.missing, 0);
        assert_payload(sequence, MOST, record.payload);
    }
    event_log_reader_seek(reader, 62);
    append(log, 3, MOST);
    assert_true(event_log_read(reader, UINT64_MAX, &record, NULL));
    assert_int_equal(record.sequence, 62);
    event_log_unlink_before(log, 30);
    uint64_t first = event_log_first(log);
    event_log_reader_seek(reader, 5);
    assert_true(event_log_read(reader, UINT64_MAX, &record, NULL));
    assert_int_equal(record.sequence, first);
    assert_int_equal(record.missing, first - 5);
    event_log_reader_free(reader);
    event_log_close(log);
}

static void what_is_sought_may_be_damaged(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 16);
    append(log, 20, MOST);
    event_log_close(log);
    char *path = segment_path(1), payload[MAX_TEST_PAYLOAD];
    size_t at = 64;
    for (uint64_t damaged = 1; damaged < 20; damaged++) {
        size_t size = make_payload(damaged, MOST, payload);
        for (size_t byte = 0; byte < EVENT_LOG_FRAME_HEAD + 1; byte++) {
            change_byte(path, at + byte, 0x11);
            for (uint64_t sought = 1; sought <= 20; sought++) {
                struct event_log_record record;
                struct event_log_reader *reader = event_log_reader_new(log_folder);
                event_log_reader_seek(reader, sought);
                assert_true(event_log_read(reader, UINT64_MAX, &record, NULL));
                assert_int_equal(record.sequence, sought == damaged ? sought + 1 : sought);
                assert_int_equal(record.missing, sought == damaged ? 1 : 0);
                assert_payload(record.sequence, MOST, record.payload);
                event_log_reader_free(reader);
            }
            change_byte(path, at + byte, 0x11);
        }
        at += EVENT_LOG_FRAME_HEAD + size;
    }
    free(path);
}

/* Payloads of what looks like heads, of frames that reach far: behind a damaged head each could be one. */
static void hostile_bytes_do_not_hold_up_a_reader(void **state)
{
    (void)state;
    const size_t size = 2 << 20, count = 3;
    struct event_log *log = open_log(UINT64_C(32) << 20);
    char *heads = xmalloc(size);
    for (size_t at = 0; at + 16 <= size; at += 16) {
        segment_write_head(heads + at, 1, &(struct iovec){heads, 1}, 1, 1 << 20);
    }
    for (size_t i = 0; i < count; i++) {
        assert_true(event_log_add(log, &(struct iovec){heads, size}, 1));
        assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
    }
    assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
    append(log, 1, MOST);
    char *path = segment_path(1);
    change_byte(path, 64, 1);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    struct event_log_record record;
    bytes_read = 0;
    uint64_t last = 0;
    while (event_log_read(reader, UINT64_MAX, &record, NULL)) {
        assert_true(record.sequence <= count ? record.payload.size == size : record.sequence == count + 1);
        last = record.sequence;
    }
    assert_int_equal(last, count + 1);
    assert_true(bytes_read < 40 * size * count);
    event_log_reader_free(reader);
    event_log_close(log);
    free(heads);
    free(path);
}

/* A process that has too many files open for a moment must not pass over a segment full of events. */
static void what_cannot_be_opened_now_is_read_later(void **state)
{
    (void)state;
    const int codes[] = {EMFILE, ENFILE, ENOMEM, EACCES};
    struct event_log *log = open_log(3000);
    append(log, 60, MOST);
    assert_true(count_names(".log") > 3);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        struct event_log_reader *reader = event_log_reader_new(log_folder);
        struct event_log_record record;
        struct error error;
        uint64_t next = 1;
        while (next <= 60) {
            open_code = codes[i];
            while (event_log_read(reader, 60, &record, &error)) { /* to the end of a segment */
                assert_int_equal(record.sequence, next++);
                assert_int_equal(record.missing, 0);
            }
            assert_true(next > 60 || strstr(error.message, strerror(codes[i])) != NULL);
            open_code = 0;
            if (next <= 60) {
                assert_true(event_log_read(reader, 60, &record, &error));
                assert_int_equal(record.sequence, next++);
                assert_int_equal(record.missing, 0);
            }
        }
        event_log_reader_free(reader);
    }
    /* What is wrong with the file itself is passed over, and told. */
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    struct event_log_record record;
    struct error error;
    open_code = EIO;
    assert_false(event_log_read(reader, 60, &record, &error));
    assert_non_null(strstr(error.message, strerror(EIO)));
    open_code = 0;
    event_log_reader_free(reader);
    event_log_close(log);
}

struct beside {
    struct event_log *log;
    _Atomic uint64_t written, durable;
    atomic_bool done;
};

static void *sync_beside(void *argument)
{
    struct beside *beside = argument;
    while (!beside->done) {
        uint64_t written = beside->written;
        if (event_log_sync(beside->log) == EVENT_LOG_DONE)
            beside->durable = written;
        event_log_unlink_before(beside->log, written > 600 ? written - 600 : 0);
        event_log_bytes(beside->log);
    }
    return NULL;
}

static void *read_beside(void *argument)
{
    struct beside *beside = argument;
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    uint64_t records = 0;
    for (bool done = false; !done;) {
        done = beside->done;
        struct seen seen = read_on(reader, beside->durable, MOST);
        records += seen.records + seen.missing;
    }
    event_log_reader_free(reader);
    return (void *)(uintptr_t)records;
}

/* As another process does: it is not told what is final. */
static void *read_live(void *argument)
{
    struct beside *beside = argument;
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    while (!beside->done)
        read_on(reader, UINT64_MAX, MOST);
    event_log_reader_free(reader);
    return NULL;
}

static void readers_and_a_syncer_work_beside_the_writer(void **state)
{
    (void)state;
    enum { RECORDS = 6000 };
    static char payloads[50][MAX_TEST_PAYLOAD];
    struct beside beside = {.log = open_log(20000)};
    pthread_t threads[3];
    pthread_create(&threads[0], NULL, sync_beside, &beside);
    pthread_create(&threads[1], NULL, read_beside, &beside);
    pthread_create(&threads[2], NULL, read_live, &beside);
    while (event_log_last(beside.log) < RECORDS) {
        size_t staged = 0, batch = 1 + mix(event_log_last(beside.log)) % 50;
        while (staged < batch && stage(beside.log, MOST, payloads[staged]))
            staged++;
        assert_int_equal(event_log_write(beside.log), EVENT_LOG_DONE);
        beside.written = event_log_last(beside.log);
        if (staged < batch) {
            while (beside.durable < beside.written) {
                usleep(100);
            }
            assert_int_equal(event_log_rotate(beside.log), EVENT_LOG_DONE);
        }
    }
    while (beside.durable < beside.written) {
        usleep(100);
    }
    beside.done = true;
    void *records;
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], &records);
    pthread_join(threads[2], NULL);
    assert_int_equal((uintptr_t)records, event_log_last(beside.log));
    event_log_close(beside.log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPOOL_TEST(a_folder_may_come_later),
        SPOOL_TEST(no_more_is_read_than_was_asked_for),
        SPOOL_TEST(a_record_tells_where_it_is),
        SPOOL_TEST(what_was_not_final_is_read_again),
        SPOOL_TEST(a_half_written_record_is_not_yet_there),
        SPOOL_TEST(segments_may_go_away_while_they_are_read),
        SPOOL_TEST(the_clock_may_be_set),
        SPOOL_TEST(any_sequence_can_be_sought),
        SPOOL_TEST(what_is_sought_may_be_damaged),
        SPOOL_TEST(hostile_bytes_do_not_hold_up_a_reader),
        SPOOL_TEST(what_cannot_be_opened_now_is_read_later),
        SPOOL_TEST(readers_and_a_syncer_work_beside_the_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
