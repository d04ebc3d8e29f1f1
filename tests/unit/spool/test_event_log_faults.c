/* A disk that is full, fails or does half of what it is asked: what the log says is true, and it goes on where it can. */
#define SPOOL_TEST_OWN_SYNC
#include "spool_test.h"

#include <limits.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define MOST 300

/* Instead of libc's: the call that is due fails, from then on or so many times. */
enum call { NO_CALL, ALLOCATE, WRITE_PIECES, WRITE, SYNC_DATA, SYNC, RENAME, TRUNCATE, UNLINK, CALLS };
static enum call failing;
static int failing_code;
static int fail_after; /* so many calls go well first */
static int fail_times;
static bool truncate_fails;
static size_t most_at_once; /* a write does no more than this; 0: all */
static int interruptions;   /* so many calls are interrupted first */
static unsigned syncs;

static bool fails(enum call call)
{
    if (interruptions > 0 && call != SYNC && call != SYNC_DATA && call != RENAME && call != TRUNCATE &&
        call != UNLINK) {
        interruptions--;
        errno = EINTR;
        return true;
    }
    if (failing != call || fail_after-- > 0 || fail_times-- <= 0)
        return false;
    errno = failing_code;
    return true;
}

static void fail_call(enum call call, int code, int after)
{
    failing = call;
    failing_code = code;
    fail_after = after;
    fail_times = INT_MAX;
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return fails(ALLOCATE) ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    if (fails(WRITE_PIECES))
        return -1;
    if (most_at_once > 0) {
        size_t size = pieces[0].iov_len < most_at_once ? pieces[0].iov_len : most_at_once;
        return syscall(SYS_pwrite64, fd, pieces[0].iov_base, size, offset);
    }
    return syscall(SYS_pwritev, fd, pieces, count, offset, 0);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    if (fails(WRITE))
        return -1;
    return syscall(SYS_pwrite64, fd, data, most_at_once > 0 && size > most_at_once ? most_at_once : size,
                   offset);
}

int fdatasync(int fd)
{
    (void)fd;
    syncs++;
    return fails(SYNC_DATA) ? -1 : 0;
}

int fsync(int fd)
{
    (void)fd;
    return fails(SYNC) ? -1 : 0;
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    return fails(RENAME) ? -1 : (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, 0);
}

int unlinkat(int folder, const char *name, int flags)
{
    return fails(UNLINK) ? -1 : (int)syscall(SYS_unlinkat, folder, name, flags);
}

int ftruncate(int fd, off_t size)
{
    return truncate_fails || fails(TRUNCATE) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

static int begin_test(void **state)
{
    fail_call(NO_CALL, 0, 0);
    most_at_once = 0;
    interruptions = 0;
    truncate_fails = false;
    return make_test_folder(state);
}

static size_t stage_some(struct event_log *log, size_t count, char payloads[][MAX_TEST_PAYLOAD])
{
    size_t staged = 0;
    while (staged < count && stage(log, MOST, payloads[staged]))
        staged++;
    return staged;
}

static char payloads[20][MAX_TEST_PAYLOAD];

static void assert_log_holds(uint64_t last)
{
    struct seen seen = read_all(MOST);
    assert_int_equal(seen.records, last);
    assert_int_equal(seen.missing, 0);
}

static void writes_in_small_pieces_become_whole(void **state)
{
    (void)state;
    for (most_at_once = 1; most_at_once < 40; most_at_once += 6) {
        struct event_log *log = open_log(1 << 16);
        uint64_t last = event_log_last(log);
        interruptions = 5;
        stage_some(log, 3, payloads);
        assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
        assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
        event_log_close(log);
        assert_log_holds(last + 3);
    }
}

static uint64_t size_of_segments(const struct event_log *log)
{
    struct event_log_segment segments[64];
    size_t count = event_log_segments(log, segments, 64);
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        char *path = segment_path(segments[i].first);
        bytes += size_of(path);
        free(path);
    }
    return bytes;
}

/* A full disk at each of the first calls of a write: nothing of the batch stays, and later it goes on. */
static void check_full(enum call call, int code, int after)
{
    struct event_log *log = open_log(2000);
    append(log, 2, MOST);
    assert_int_equal(event_log_sync(log), EVENT_LOG_DONE);
    for (int round = 0; round < 8; round++) {
        uint64_t last = event_log_last(log), bytes = event_log_bytes(log);
        size_t staged = stage_some(log, 3, payloads);
        most_at_once = 50;
        fail_call(call, code, after);
        enum event_log_result result = event_log_write(log);
        bool was_due = fail_after < 0;
        fail_call(NO_CALL, 0, 0);
        most_at_once = 0;
        assert_int_equal(result, was_due ? EVENT_LOG_FULL : EVENT_LOG_DONE);
        if (was_due) {
            assert_int_equal(event_log_last(log), last);
            assert_int_equal(event_log_next(log), last + 1);
            assert_true(event_log_bytes(log) <= bytes);
            assert_int_equal(event_log_bytes(log), size_of_segments(log));
        } else {
            last += staged;
        }
        assert_log_holds(last);
        append(log, 1, MOST);
        assert_log_holds(last + 1);
    }
    uint64_t last = event_log_last(log);
    event_log_close(log);
    struct event_log_recovery recovery;
    log = open_log_with(2000, &recovery);
    assert_int_equal(recovery.records, last);
    assert_int_equal(recovery.torn_bytes, 0);
    assert_int_equal(recovery.damaged_segments, 0);
    event_log_close(log);
}

static void a_full_disk_takes_nothing_of_a_batch(void **state)
{
    (void)state;
    for (int after = 0; after < 12; after++) {
        check_full(WRITE_PIECES, after % 2 == 0 ? ENOSPC : EDQUOT, after);
        remove_folder(log_folder);
    }
    check_full(ALLOCATE, ENOSPC, 0);
}

static void room_is_taken_before_anything_is_written(void **state)
{
    (void)state;
    struct event_log *log = open_log(UINT64_C(64) << 20);
    char *path = segment_path(1);
    append(log, 1, MOST);
    assert_int_equal(size_of(path), 4 << 20);
    assert_int_equal(event_log_bytes(log), 4 << 20);
    /* A batch for which there is room is written without asking for more. */
    fail_call(ALLOCATE, ENOSPC, 0);
    append(log, 100, MOST);
    char *large = xcalloc(1, 5 << 20);
    struct iovec piece = {large, 5 << 20};
    assert_true(event_log_add(log, &piece, 1));
    assert_int_equal(event_log_write(log), EVENT_LOG_FULL);
    assert_int_equal(size_of(path), 4 << 20);
    /* Where there is no room ahead, the batch's own is enough. */
    fail_times = 1;
    assert_true(event_log_add(log, &piece, 1));
    assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
    assert_true(size_of(path) > 5 << 20 && size_of(path) < 6 << 20);
    free(large);
    free(path);
    event_log_close(log);
}

static void a_file_system_may_be_unable_to_take_room(void **state)
{
    (void)state;
    fail_call(ALLOCATE, EOPNOTSUPP, 0);
    struct event_log *log = open_log(5000);
    append(log, 100, MOST);
    assert_log_holds(100);
    event_log_close(log);
    assert_log_holds(100);
}

/* Each call of a rotation fails in turn: nothing has changed, and the present segment goes on. */
static void a_rotation_that_fails_changes_nothing(void **state)
{
    (void)state;
    const enum call calls[] = {ALLOCATE, WRITE, RENAME};
    const struct {
        int code;
        enum event_log_result result;
    } errors[] = {{EIO, EVENT_LOG_FAILED}, {ENOSPC, EVENT_LOG_FULL}, {EMFILE, EVENT_LOG_BUSY}};
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < sizeof errors / sizeof errors[0]; j++) {
            struct event_log *log = open_log(1 << 16);
            append(log, 3, MOST);
            uint64_t last = event_log_last(log);
            size_t segments = count_names(".log");
            fail_call(calls[i], errors[j].code, 0);
            assert_int_equal(event_log_rotate(log), errors[j].result);
            fail_call(NO_CALL, 0, 0);
            assert_int_equal(count_names(".log"), segments);
            assert_int_equal(count_names(".new"), 0);
            append(log, 3, MOST);
            assert_log_holds(last + 3);
            assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
            append(log, 1, MOST);
            event_log_close(log);
            assert_log_holds(last + 4);
        }
    }
}

/* A rotation waits for no sync: the next one is about all segments since the last. */
static void a_sync_covers_the_segments_that_were_closed_since(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 16);
    for (int i = 0; i < 3; i++) {
        stage_some(log, 2, payloads);
        assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
        unsigned before = syncs;
        assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
        assert_int_equal(syncs, before);
    }
    unsigned before = syncs;
    assert_int_equal(event_log_sync(log), EVENT_LOG_DONE);
    assert_int_equal(syncs, before + 4); /* three closed ones, the present one */
    before = syncs;
    assert_int_equal(event_log_sync(log), EVENT_LOG_DONE);
    assert_int_equal(syncs, before + 1);
    assert_log_holds(6);
    assert_int_equal(size_of_segments(log), event_log_bytes(log));
    event_log_close(log);
    assert_log_holds(6);
}

static void an_emptied_segment_gives_its_room_to_the_next(void **state)
{
    (void)state;
    char payload[MAX_TEST_PAYLOAD];
    struct event_log *log = open_log(1 << 16);
    assert_false(event_log_empty(log)); /* it is */
    append(log, 5, MOST);
    assert_true(event_log_empty(log));
    assert_int_equal(event_log_bytes(log), 64);
    assert_int_equal(size_of_segments(log), 64);
    assert_false(stage(log, MOST, payload));
    fail_call(ALLOCATE, ENOSPC, 0);
    assert_int_equal(event_log_rotate(log), EVENT_LOG_FULL);
    fail_call(NO_CALL, 0, 0);
    assert_false(stage(log, MOST, payload));
    append(log, 3, MOST);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    event_log_reader_seek(reader, 6);
    struct seen seen = read_on(reader, UINT64_MAX, MOST);
    assert_int_equal(seen.records, 3);
    assert_int_equal(seen.missing, 0);
    assert_int_equal(seen.last, 8);
    event_log_reader_free(reader);
    assert_int_equal(event_log_unlink_before(log, 6), 1);
    event_log_close(log);
}

/* What was not durable is written again, and is there once, wherever it was before. */
static void giving_up_takes_back_the_segments_begun_since(void **state)
{
    (void)state;
    for (uint64_t durable = 0; durable <= 6; durable++) {
        struct event_log *log = open_log(1 << 16);
        uint64_t first = event_log_next(log);
        append(log, durable, MOST);
        for (uint64_t written = durable; written < 6; written++) {
            if (written % 2 == 0)
                assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
            stage_some(log, 1, payloads);
            assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
        }
        fail_call(SYNC_DATA, EIO, 0);
        assert_int_equal(event_log_sync(log), EVENT_LOG_FAILED);
        fail_call(NO_CALL, 0, 0);
        assert_int_equal(event_log_retire(log, first + durable - 1), EVENT_LOG_DONE);
        assert_int_equal(event_log_next(log), first + durable);
        append(log, 8, MOST);
        assert_log_holds(first + durable + 7);
        event_log_close(log);
        assert_log_holds(first + durable + 7);
    }
}

/* The file of a segment that was given up must not be taken for one that goes on from the new one. */
static void giving_up_needs_the_files_gone(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 16);
    append(log, 3, MOST);
    for (int i = 0; i < 3; i++) {
        stage_some(log, 2, payloads);
        assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
        assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
    }
    fail_call(SYNC_DATA, EIO, 0);
    assert_int_equal(event_log_sync(log), EVENT_LOG_FAILED);
    for (int after = 0; after < 3; after++) {
        fail_call(UNLINK, EIO, after);
        assert_int_equal(event_log_retire(log, 3), EVENT_LOG_FAILED);
    }
    fail_call(NO_CALL, 0, 0);
    assert_int_equal(event_log_retire(log, 3), EVENT_LOG_DONE);
    append(log, 9, MOST);
    assert_log_holds(12);
    event_log_close(log);
    assert_log_holds(12);
}

/* A sync that failed once is never believed again for this segment. */
static void a_failed_sync_ends_the_segment(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 16);
    append(log, 5, MOST);
    stage_some(log, 3, payloads);
    assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
    fail_call(SYNC_DATA, EIO, 0);
    assert_int_equal(event_log_sync(log), EVENT_LOG_FAILED);
    fail_call(NO_CALL, 0, 0);
    unsigned before = syncs;
    assert_int_equal(event_log_sync(log), EVENT_LOG_FAILED);
    assert_int_equal(syncs, before);
    stage_some(log, 1, payloads);
    assert_int_equal(event_log_write(log), EVENT_LOG_FAILED);
    assert_int_equal(event_log_next(log), 9);
    assert_int_equal(event_log_rotate(log), EVENT_LOG_FAILED);
    fail_call(SYNC_DATA, EIO, 0);
    assert_int_equal(event_log_retire(log, 5), EVENT_LOG_FAILED);
    fail_call(NO_CALL, 0, 0);
    assert_int_equal(event_log_retire(log, 5), EVENT_LOG_DONE);
    append(log, 3, MOST);
    assert_log_holds(8);
    event_log_close(log);
    assert_log_holds(8);
}

static void a_write_that_fails_ends_the_segment(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 16);
    append(log, 5, MOST);
    most_at_once = 30;
    stage_some(log, 3, payloads);
    fail_call(WRITE_PIECES, EIO, 7);
    assert_int_equal(event_log_write(log), EVENT_LOG_FAILED);
    fail_call(NO_CALL, 0, 0);
    most_at_once = 0;
    assert_int_equal(event_log_last(log), 5);
    assert_int_equal(event_log_next(log), 6);
    assert_int_equal(event_log_retire(log, 5), EVENT_LOG_DONE);
    append(log, 3, MOST);
    assert_log_holds(8);
    /* A full disk from which the beginning of a batch cannot be taken back. */
    stage_some(log, 3, payloads);
    most_at_once = 30;
    fail_call(WRITE_PIECES, ENOSPC, 7);
    truncate_fails = true;
    assert_int_equal(event_log_write(log), EVENT_LOG_FAILED);
    truncate_fails = false;
    most_at_once = 0;
    fail_call(NO_CALL, 0, 0);
    assert_int_equal(event_log_retire(log, 8), EVENT_LOG_DONE);
    append(log, 1, MOST);
    event_log_close(log);
    assert_log_holds(9);
}

/* Each call of an opening fails in turn: a clear error, nothing lost, and the next one succeeds. */
static void an_opening_that_fails_loses_nothing(void **state)
{
    (void)state;
    const enum call calls[] = {SYNC_DATA, SYNC, TRUNCATE};
    struct event_log_recovery recovery;
    struct error error;
    uint64_t last = 0;
    for (size_t i = 0; i < 3; i++) {
        struct event_log *log = open_log(1 << 16);
        append(log, 3, MOST);
        last += 3;
        uint64_t first = event_log_first(log);
        event_log_close(log);
        char *path = segment_path(first);
        assert_int_equal(truncate(path, (off_t)size_of(path) + 100), 0);
        fail_call(calls[i], EIO, calls[i] == TRUNCATE ? 1 : 0);
        error.message[0] = '\0';
        log = event_log_open(&(struct event_log_settings){log_folder, 1 << 16, 0}, &recovery, &error);
        fail_call(NO_CALL, 0, 0);
        assert_null(log);
        assert_non_null(strstr(error.message, log_folder));
        event_log_close(open_log(1 << 16));
        assert_log_holds(last);
        free(path);
    }
}

#define FAULT_TEST(test) cmocka_unit_test_setup_teardown(test, begin_test, remove_test_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(writes_in_small_pieces_become_whole),
        FAULT_TEST(a_full_disk_takes_nothing_of_a_batch),
        FAULT_TEST(room_is_taken_before_anything_is_written),
        FAULT_TEST(a_file_system_may_be_unable_to_take_room),
        FAULT_TEST(a_rotation_that_fails_changes_nothing),
        FAULT_TEST(a_sync_covers_the_segments_that_were_closed_since),
        FAULT_TEST(an_emptied_segment_gives_its_room_to_the_next),
        FAULT_TEST(giving_up_takes_back_the_segments_begun_since),
        FAULT_TEST(giving_up_needs_the_files_gone),
        FAULT_TEST(a_failed_sync_ends_the_segment),
        FAULT_TEST(a_write_that_fails_ends_the_segment),
        FAULT_TEST(an_opening_that_fails_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
