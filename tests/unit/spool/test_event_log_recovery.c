/* Opening a log whose files were cut, changed, lost or made by others: what is good is still there, nothing else is, and what is missing is told. */
#include "spool_test.h"

#include "spool/crc32c.h"

#define MOST 60

struct layout {
    uint64_t first, last;
    size_t end[64]; /* of each record's frame */
};

/* A log of two segments, the second with `count` records; its files' bytes. */
static struct layout make_two_segments(size_t count)
{
    struct layout layout = {0};
    struct event_log *log = open_log(1 << 16);
    append(log, 5, MOST);
    assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
    append(log, count, MOST);
    event_log_close(log);
    layout.first = 6;
    layout.last = 5 + count;
    char payload[MAX_TEST_PAYLOAD];
    size_t at = 64;
    for (uint64_t sequence = 6; sequence <= layout.last; sequence++) {
        at += EVENT_LOG_FRAME_HEAD + make_payload(sequence, MOST, payload);
        layout.end[sequence - 6] = at;
    }
    return layout;
}

static size_t without_zeros(const char *bytes, size_t size)
{
    while (size > 0 && bytes[size - 1] == 0)
        size--;
    return size;
}

static void a_last_segment_may_be_cut_at_every_byte(void **state)
{
    (void)state;
    struct layout layout = make_two_segments(8);
    char *path = segment_path(6), *bytes;
    size_t size;
    bytes = read_file(path, &size);
    assert_int_equal(size, layout.end[7]);
    for (size_t cut = 0; cut <= size; cut++) {
        struct event_log_recovery recovery;
        uint64_t whole = 0;
        while (whole < 8 && layout.end[whole] <= cut)
            whole++;
        size_t good = whole > 0 ? layout.end[whole - 1] : 64;
        for (int zeros = 0; zeros < 2; zeros++) {
            /* Zeros: room that was taken, and not yet written. */
            write_file(path, bytes, cut);
            if (zeros == 1)
                assert_int_equal(truncate(path, (off_t)cut + 5000), 0);
            struct event_log *log = open_log_with(1 << 16, &recovery);
            assert_int_equal(recovery.records, 5 + whole);
            assert_int_equal(recovery.damaged_records, 0);
            if (cut >= 64) {
                assert_int_equal(recovery.damaged_segments, 0);
                assert_int_equal(recovery.torn_bytes, without_zeros(bytes + good, cut - good));
                assert_int_equal(size_of(path), good);
            }
            assert_int_equal(event_log_next(log), 6 + whole);
            append(log, 2, MOST);
            event_log_close(log);
            struct seen seen = read_all(MOST);
            assert_int_equal(seen.records, 5 + whole + 2);
            assert_int_equal(seen.missing, 0);
            char *aside = path_of("00000000000000000006.log.corrupt");
            unlink(aside);
            free(aside);
        }
    }
    free(path);
    free(bytes);
}

static void garbage_at_the_end_is_cut(void **state)
{
    (void)state;
    struct layout layout = make_two_segments(8);
    char *path = segment_path(6), garbage[3000];
    struct event_log_recovery recovery;
    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (char)(mix(i) | 1);
    size_t end = layout.end[4];
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, garbage, sizeof garbage, (off_t)end), sizeof garbage);
    close(fd);
    struct event_log *log = open_log_with(1 << 16, &recovery);
    assert_int_equal(recovery.records, 10);
    assert_int_equal(recovery.torn_bytes, sizeof garbage);
    assert_int_equal(size_of(path), end);
    append(log, 1, MOST);
    event_log_close(log);
    assert_int_equal(read_all(MOST).records, 11);
    free(path);
}

/* Any one byte changed, in either segment: at most that record is lost, and it is told. */
static void check_changed_byte(uint64_t first, const char *bytes, size_t size, size_t offset,
                               unsigned char bits, size_t records)
{
    struct event_log_recovery recovery;
    char *path = segment_path(first);
    write_file(path, bytes, size);
    change_byte(path, offset, bits);
    bool in_header = offset < 64;

    struct seen seen = read_all(MOST);
    assert_int_equal(seen.records, in_header ? records : records - 1);
    bool last_one = seen.last < records;
    assert_int_equal(seen.missing, in_header || last_one ? 0 : 1);

    struct event_log *log = open_log_with(1 << 16, &recovery);
    assert_true(recovery.records == records || first > 1);
    if (first > 1) {
        assert_int_equal(recovery.records, seen.records);
        assert_int_equal(recovery.damaged_records, in_header || last_one ? 0 : 1);
        assert_int_equal(recovery.torn_bytes > 0, last_one);
        assert_int_equal(recovery.damaged_segments, last_one ? 0 : 1);
        assert_int_equal(count_names(".corrupt"), last_one ? 0 : 1);
        assert_int_equal(event_log_next(log), last_one ? records : records + 1);
    } else {
        assert_int_equal(recovery.damaged_segments, in_header ? 1 : 0);
    }
    uint64_t next = event_log_next(log);
    append(log, 2, MOST);
    event_log_close(log);
    struct seen after = read_all(MOST);
    assert_int_equal(after.records, seen.records + 2);
    assert_int_equal(after.last, next + 1);
    /* Once more: nothing new is found. */
    struct event_log_recovery again;
    log = open_log_with(1 << 16, &again);
    assert_int_equal(again.damaged_segments, recovery.damaged_segments);
    assert_int_equal(again.torn_bytes, 0);
    assert_int_equal(event_log_next(log), next + 2);
    event_log_close(log);
    free(path);
}

static void any_byte_may_be_changed(void **state)
{
    (void)state;
    make_two_segments(6);
    size_t sizes[2];
    uint64_t firsts[2] = {1, 6};
    char *files[2];
    for (size_t i = 0; i < 2; i++) {
        char *path = segment_path(firsts[i]);
        files[i] = read_file(path, &sizes[i]);
        free(path);
    }
    for (size_t i = 0; i < 2; i++) {
        for (size_t offset = 0; offset < sizes[i]; offset++) {
            /* Each bit of some bytes, all bits of the others. */
            bool each = offset % 16 == 0 || offset < 110;
            for (unsigned bits = each ? 1 : 0xff; bits <= 0xff; bits = each ? bits << 1 : 0x100) {
                remove_folder(log_folder);
                assert_int_equal(mkdir(log_folder, 0700), 0);
                char *other = segment_path(firsts[1 - i]);
                write_file(other, files[1 - i], sizes[1 - i]);
                free(other);
                check_changed_byte(firsts[i], files[i], sizes[i], offset, (unsigned char)bits, 11);
            }
        }
    }
    free(files[0]);
    free(files[1]);
}

static void a_missing_segment_is_told(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 16);
    for (int i = 0; i < 4; i++) {
        append(log, 5, MOST);
        assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
    }
    event_log_close(log);
    char *path = segment_path(6);
    assert_int_equal(unlink(path), 0);
    free(path);
    struct seen seen = read_all(MOST);
    assert_int_equal(seen.records, 15);
    assert_int_equal(seen.missing, 5);
    event_log_close(open_log(1 << 16));
}

static void at_most_eight_files_are_kept_aside(void **state)
{
    (void)state;
    struct event_log_recovery recovery;
    for (int i = 0; i < 10; i++) {
        struct event_log *log = open_log(1 << 16);
        uint64_t first = event_log_next(log);
        append(log, 3, MOST);
        assert_int_equal(event_log_rotate(log), EVENT_LOG_DONE);
        event_log_close(log);
        char *path = segment_path(first);
        change_byte(path, 0, 1);
        free(path);
    }
    event_log_close(open_log_with(1 << 16, &recovery));
    assert_int_equal(recovery.damaged_segments, 10);
    assert_int_equal(count_names(".corrupt"), 8);
    assert_int_equal(read_all(MOST).records, 30);
}

static void set_version(const char *path, uint32_t version)
{
    size_t size;
    char *bytes = read_file(path, &size);
    memcpy(bytes + 8, &version, sizeof version);
    uint32_t crc = crc32c(0, (struct slice){bytes, 60});
    memcpy(bytes + 60, &crc, sizeof crc);
    write_file(path, bytes, size);
    free(bytes);
}

static void another_version_is_refused_and_left_alone(void **state)
{
    (void)state;
    for (uint64_t first = 1; first <= 6; first += 5) {
        remove_folder(log_folder);
        make_two_segments(6);
        char *path = segment_path(first), expected[400];
        set_version(path, 7);
        size_t size, after_size;
        char *before = read_file(path, &size);
        struct event_log_recovery recovery;
        struct error error;
        assert_null(event_log_open(&(struct event_log_settings){log_folder, 4096, 0}, &recovery, &error));
        snprintf(expected, sizeof expected,
                 "%s has format version 7, this program knows version 1 only: use the version of the program "
                 "that wrote it, or another folder",
                 path);
        assert_string_equal(error.message, expected);
        char *after = read_file(path, &after_size);
        assert_int_equal(size, after_size);
        assert_memory_equal(before, after, size);

        struct event_log_reader *reader = event_log_reader_new(log_folder);
        struct event_log_record record;
        uint64_t records = 0;
        bool told = false;
        while (event_log_read(reader, UINT64_MAX, &record, &error)) {
            told = told || strcmp(error.message, expected) == 0;
            records++;
        }
        told = told || strcmp(error.message, expected) == 0;
        assert_true(told);
        assert_int_equal(records, first == 1 ? 6 : 5);
        event_log_reader_free(reader);
        free(before);
        free(after);
        free(path);
    }
}

static void what_is_no_segment_is_left_alone(void **state)
{
    (void)state;
    make_two_segments(3);
    const char *names[] = {"notes.txt",
                           "1.log",
                           "0000000000000000000a.log",
                           "00000000000000000000.log",
                           "00000000000000000006.log.bak",
                           "99999999999999999999.log"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = path_of(names[i]);
        write_file(path, "text", 4);
        free(path);
    }
    char *making = path_of("00000000000000000009.log.new");
    write_file(making, "half a header", 13);
    struct event_log *log = open_log(1 << 16);
    assert_int_equal(event_log_next(log), 9);
    event_log_close(log);
    assert_int_equal(read_all(MOST).records, 8);
    assert_false(exists(making));
    free(making);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = path_of(names[i]);
        assert_int_equal(size_of(path), 4);
        free(path);
    }
}

struct verified {
    size_t segments, faults;
    uint64_t records;
    char fault[512];
};

static void note_verified(void *argument, const char *file, const struct event_log_segment *segment,
                          uint64_t records, const char *fault)
{
    struct verified *verified = argument;
    uint64_t first = strtoull(file, NULL, 10);
    assert_int_equal(segment->first, first);
    verified->segments++;
    verified->records += records;
    verified->faults += fault != NULL;
    if (fault != NULL)
        snprintf(verified->fault, sizeof verified->fault, "%s", fault);
}

static void verifying_tells_what_is_wrong(void **state)
{
    (void)state;
    struct verified verified = {0};
    struct error error;
    assert_false(event_log_verify(log_folder, note_verified, &verified, &error));
    assert_non_null(strstr(error.message, log_folder));
    struct layout layout = make_two_segments(6);
    assert_true(event_log_verify(log_folder, note_verified, &verified, &error));
    assert_int_equal(verified.segments, 2);
    assert_int_equal(verified.records, 11);
    assert_int_equal(verified.faults, 0);

    char *path = segment_path(6), expected[100];
    change_byte(path, layout.end[0] + 16, 1);
    verified = (struct verified){0};
    assert_true(event_log_verify(log_folder, note_verified, &verified, &error));
    assert_int_equal(verified.records, 10);
    assert_int_equal(verified.faults, 1);
    snprintf(expected, sizeof expected, "offset %zu: bytes that are no record", layout.end[0]);
    assert_string_equal(verified.fault, expected);

    char *first = segment_path(1);
    assert_int_equal(truncate(first, (off_t)size_of(first) - 1), 0);
    change_byte(path, layout.end[0] + 16, 1);
    verified = (struct verified){0};
    assert_true(event_log_verify(log_folder, note_verified, &verified, &error));
    assert_int_equal(verified.records, 10);
    assert_int_equal(verified.faults, 1);
    set_version(path, 2);
    verified = (struct verified){0};
    assert_true(event_log_verify(log_folder, note_verified, &verified, &error));
    assert_non_null(strstr(verified.fault, "format version 2"));
    free(first);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPOOL_TEST(a_last_segment_may_be_cut_at_every_byte),
        SPOOL_TEST(garbage_at_the_end_is_cut),
        SPOOL_TEST(any_byte_may_be_changed),
        SPOOL_TEST(a_missing_segment_is_told),
        SPOOL_TEST(at_most_eight_files_are_kept_aside),
        SPOOL_TEST(another_version_is_refused_and_left_alone),
        SPOOL_TEST(what_is_no_segment_is_left_alone),
        SPOOL_TEST(verifying_tells_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
