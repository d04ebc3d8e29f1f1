/* Writing: what was written is there in order, also after opening again; segments begin, end, are given up and go away; one process at a time. */
#include "spool_test.h"

#include <sys/wait.h>

#include "base/clock.h"

#define MOST 400

static void records_come_back_in_order(void **state)
{
    (void)state;
    struct event_log *log = open_log(4096);
    assert_int_equal(event_log_last(log), 0);
    assert_int_equal(event_log_next(log), 1);
    assert_int_equal(event_log_first(log), 1);
    append(log, 100, MOST);
    assert_int_equal(event_log_last(log), 100);
    struct seen seen = read_all(MOST);
    assert_int_equal(seen.records, 100);
    assert_int_equal(seen.first, 1);
    assert_int_equal(seen.missing, 0);
    event_log_close(log);
    assert_true(count_names(".log") > 3);

    struct event_log_recovery recovery;
    log = open_log_with(4096, &recovery);
    assert_int_equal(recovery.records, 100);
    assert_int_equal(recovery.torn_bytes, 0);
    assert_int_equal(recovery.damaged_records, 0);
    assert_int_equal(recovery.damaged_segments, 0);
    assert_int_equal(event_log_next(log), 101);
    append(log, 10, MOST);
    event_log_close(log);
    assert_int_equal(read_all(MOST).records, 110);
}

static void a_segment_stays_below_its_size(void **state)
{
    (void)state;
    struct event_log *log = open_log(2000);
    struct event_log_segment segments[64];
    append(log, 50, MOST);
    size_t count = event_log_segments(log, segments, 64);
    uint64_t next = 1, bytes = 0;
    assert_true(count > 3 && count <= 64);
    for (size_t i = 0; i < count; i++) {
        char *path = segment_path(segments[i].first);
        assert_int_equal(segments[i].first, next);
        assert_int_equal(size_of(path), segments[i].bytes);
        assert_true(segments[i].bytes <= 2000);
        next = segments[i].last + 1;
        bytes += segments[i].bytes;
        free(path);
    }
    assert_int_equal(next, 51);
    assert_int_equal(event_log_bytes(log), bytes);
    assert_int_equal(event_log_segments(log, segments, 1), count);
    event_log_close(log);
}

static void one_record_may_be_larger_than_a_segment(void **state)
{
    (void)state;
    struct event_log *log = open_log(1000);
    append(log, 30, MAX_TEST_PAYLOAD);
    event_log_close(log);
    assert_int_equal(read_all(MAX_TEST_PAYLOAD).records, 30);
}

static void the_largest_record_is_kept(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 20);
    char *large = xcalloc(1, EVENT_LOG_MAX_PAYLOAD);
    memset(large, 'x', EVENT_LOG_MAX_PAYLOAD);
    assert_true(event_log_add(log, &(struct iovec){large, EVENT_LOG_MAX_PAYLOAD}, 1));
    assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    struct event_log_record record;
    assert_true(event_log_read(reader, UINT64_MAX, &record, NULL));
    assert_int_equal(record.payload.size, EVENT_LOG_MAX_PAYLOAD);
    assert_true(memcmp(record.payload.data, large, EVENT_LOG_MAX_PAYLOAD) == 0);
    event_log_reader_free(reader);
    event_log_close(log);
    free(large);
}

static void more_pieces_than_one_call_takes_are_written(void **state)
{
    (void)state;
    static char payloads[1000][MAX_TEST_PAYLOAD];
    struct event_log *log = open_log(1 << 20);
    for (size_t i = 0; i < 1000; i++)
        assert_true(stage(log, MOST, payloads[i]));
    assert_int_equal(event_log_last(log), 0);
    assert_int_equal(event_log_next(log), 1001);
    assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
    assert_int_equal(event_log_last(log), 1000);
    assert_int_equal(read_all(MOST).records, 1000);
    event_log_close(log);
}

/* What the log should hold, beside it: random batches, ends of segments, removals and openings. */
static void a_log_does_what_a_list_does(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        uint64_t random = seed, first = 1, last = 0;
        static char payloads[40][MAX_TEST_PAYLOAD];
        struct event_log *log = open_log(3000);
        for (int step = 0; step < 60; step++) {
            random = mix(random + 1);
            size_t batch = random / 8 % 40;
            switch (random % 8) {
            case 0:
                event_log_close(log);
                log = open_log(3000);
                break;
            case 1:
                assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
                break;
            case 2:
                event_log_unlink_before(log, first + batch);
                assert_true(event_log_first(log) <= first + batch || event_log_first(log) == last + 1);
                first = event_log_first(log);
                break;
            default:
                for (size_t i = 0; i < batch && stage(log, MOST, payloads[i]); i++)
                    last++;
                assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
            }
            assert_int_equal(event_log_last(log), last);
            assert_int_equal(event_log_first(log), first);
            struct seen seen = read_all(MOST);
            assert_int_equal(seen.records, last + 1 - first);
            assert_int_equal(seen.missing, 0);
            assert_true(seen.records == 0 || (seen.first == first && seen.last == last));
        }
        event_log_close(log);
        remove_folder(log_folder);
    }
}

static void segments_are_removed_from_the_oldest_on(void **state)
{
    (void)state;
    struct event_log *log = open_log(2000);
    struct event_log_segment segments[64];
    append(log, 60, MOST);
    size_t count = event_log_segments(log, segments, 64);
    assert_int_equal(event_log_unlink_before(log, segments[0].last), 0);
    assert_int_equal(event_log_unlink_before(log, segments[0].last + 1), 1);
    assert_int_equal(event_log_first(log), segments[1].first);
    assert_int_equal(event_log_unlink_before(log, UINT64_MAX), count - 2);
    assert_int_equal(count_names(".log"), 1);
    struct seen seen = read_all(MOST);
    assert_int_equal(seen.first, segments[count - 1].first);
    assert_int_equal(seen.last, 60);
    event_log_close(log);
}

static void an_empty_segment_tells_the_next_sequence(void **state)
{
    (void)state;
    struct event_log *log = open_log(2000);
    append(log, 7, MOST);
    assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
    assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE); /* nothing to end */
    assert_int_equal(event_log_unlink_before(log, 8), 1);
    assert_int_equal(event_log_first(log), 8);
    event_log_close(log);
    log = open_log(2000);
    assert_int_equal(event_log_next(log), 8);
    assert_int_equal(event_log_first(log), 8);
    event_log_close(log);
}

static void a_higher_next_sequence_can_be_asked_for(void **state)
{
    (void)state;
    struct event_log_recovery recovery;
    struct error error;
    struct event_log_settings settings = {log_folder, 2000, 1000};
    struct event_log *log = event_log_open(&settings, &recovery, &error);
    assert_int_equal(event_log_next(log), 1000);
    append(log, 3, MOST);
    event_log_close(log);
    log = event_log_open(&settings, &recovery, &error);
    assert_int_equal(event_log_next(log), 1003);
    event_log_close(log);
    settings.next_at_least = 2000;
    log = event_log_open(&settings, &recovery, &error);
    append(log, 1, MOST);
    struct seen seen = read_all(MOST);
    assert_int_equal(seen.records, 4);
    assert_int_equal(seen.missing, 2000 - 1003);
    assert_int_equal(event_log_first(log), 1000);
    assert_int_equal(event_log_unlink_before(log, 1003), 1);
    event_log_close(log);
}

/* From `durable` on, other records with the same sequences: as after a sync that failed. */
static void check_retirement(uint64_t durable)
{
    struct event_log_recovery recovery;
    struct event_log *log = open_log(1 << 20);
    struct event_log_reader *reader = event_log_reader_new(log_folder);
    struct event_log_record record;
    char old[100];
    append(log, durable, MOST);
    assert_int_equal(read_on(reader, durable, MOST).records, durable);
    for (int i = 0; i < 5; i++) {
        memset(old, 'o', sizeof old);
        assert_true(event_log_add(log, &(struct iovec){old, sizeof old}, 1));
    }
    assert_int_equal(event_log_write(log), EVENT_LOG_DONE);
    assert_false(event_log_read(reader, durable, &record, NULL));
    assert_int_equal(event_log_retire(log, durable), EVENT_LOG_DONE);
    assert_int_equal(event_log_last(log), durable);
    assert_int_equal(event_log_next(log), durable + 1);
    append(log, 3, MOST);
    struct seen seen = read_on(reader, durable + 3, MOST);
    assert_int_equal(seen.records, 3);
    assert_int_equal(seen.missing, 0);
    assert_int_equal(read_all(MOST).records, durable + 3);
    event_log_close(log);
    log = open_log_with(1 << 20, &recovery);
    assert_int_equal(recovery.records, durable + 3);
    assert_int_equal(event_log_next(log), durable + 4);
    assert_int_equal(count_names(".log"), durable > 0 ? 2 : 1);
    assert_int_equal(count_names(".new"), 0);
    event_log_close(log);
    event_log_reader_free(reader);
}

static void a_segment_can_be_given_up_in_its_middle(void **state)
{
    (void)state;
    check_retirement(4);
}

static void a_segment_can_be_given_up_at_its_beginning(void **state)
{
    (void)state;
    check_retirement(0);
}

static void a_second_process_is_told_who_has_the_folder(void **state)
{
    (void)state;
    int ready[2], done[2];
    char byte = 0, expected[300];
    struct event_log_recovery recovery;
    struct error error;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(done), 0);
    pid_t child = fork();
    if (child == 0) {
        struct event_log *log =
            event_log_open(&(struct event_log_settings){log_folder, 2000, 0}, &recovery, &error);
        ssize_t count = write(ready[1], &byte, log != NULL);
        close(done[1]);
        count += read(done[0], &byte, 1);
        _exit(count == 1 ? 0 : 1);
    }
    close(done[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_null(event_log_open(&(struct event_log_settings){log_folder, 2000, 0}, &recovery, &error));
    snprintf(expected, sizeof expected,
             "%s is used by another process (pid %d): stop it, or use another folder", log_folder,
             (int)child);
    assert_string_equal(error.message, expected);
    close(done[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    event_log_close(open_log(2000));
    close(ready[0]);
    close(ready[1]);
}

static void links_are_refused_and_files_are_private(void **state)
{
    (void)state;
    struct event_log_recovery recovery;
    struct error error;
    struct stat status;
    struct event_log_settings settings = {log_folder, 2000, 0};
    char *aside = xprintf("%s/aside", test_folder), *segment = segment_path(1), *lock = path_of("lock");
    event_log_close(open_log(2000));
    assert_int_equal(stat(log_folder, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    assert_int_equal(stat(segment, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);

    char *links[] = {segment, lock, log_folder};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(rename(links[i], aside), 0);
        assert_int_equal(symlink(aside, links[i]), 0);
        assert_null(event_log_open(&settings, &recovery, &error));
        assert_non_null(strstr(error.message, links[i]));
        assert_non_null(strstr(error.message, "is a symbolic link"));
        unlink(links[i]);
        assert_int_equal(rename(aside, links[i]), 0);
    }
    /* A folder that is there stays as it is. */
    assert_int_equal(chmod(log_folder, 0755), 0);
    event_log_close(open_log(2000));
    assert_int_equal(stat(log_folder, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0755);
    unlink(segment);
    assert_int_equal(mkfifo(segment, 0600), 0);
    assert_null(event_log_open(&settings, &recovery, &error));
    assert_non_null(strstr(error.message, "is no plain file"));
    free(aside);
    free(segment);
    free(lock);
}

static void the_time_of_the_last_record_is_kept(void **state)
{
    (void)state;
    struct event_log_segment before, after;
    uint64_t started = clock_realtime_us();
    struct event_log *log = open_log(1 << 20);
    append(log, 3, MOST);
    event_log_segments(log, &before, 1);
    assert_true(before.changed_us >= started && before.changed_us <= clock_realtime_us());
    event_log_close(log);
    log = open_log(1 << 20);
    event_log_segments(log, &after, 1);
    assert_int_equal(after.changed_us, before.changed_us);
    event_log_close(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPOOL_TEST(records_come_back_in_order),
        SPOOL_TEST(a_segment_stays_below_its_size),
        SPOOL_TEST(one_record_may_be_larger_than_a_segment),
        cmocka_unit_test_setup_teardown(the_largest_record_is_kept, make_large_test_folder,
                                        remove_test_folder),
        SPOOL_TEST(more_pieces_than_one_call_takes_are_written),
        SPOOL_TEST(a_log_does_what_a_list_does),
        SPOOL_TEST(segments_are_removed_from_the_oldest_on),
        SPOOL_TEST(an_empty_segment_tells_the_next_sequence),
        SPOOL_TEST(a_higher_next_sequence_can_be_asked_for),
        SPOOL_TEST(a_segment_can_be_given_up_in_its_middle),
        SPOOL_TEST(a_segment_can_be_given_up_at_its_beginning),
        SPOOL_TEST(a_second_process_is_told_who_has_the_folder),
        SPOOL_TEST(links_are_refused_and_files_are_private),
        SPOOL_TEST(the_time_of_the_last_record_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
