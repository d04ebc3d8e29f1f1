/* Listing a log's segments: quick, and right about all but damage. */
#include "spool_test.h"

struct listed {
    size_t segments;
    uint64_t records, next;
};

static void note_listed(void *argument, const char *file, const struct event_log_segment *segment)
{
    struct listed *listed = argument;
    assert_int_equal(strtoull(file, NULL, 10), segment->first);
    assert_true(listed->segments == 0 || segment->first == listed->next);
    assert_true(segment->bytes >= 64);
    assert_true(segment->changed_us > 0);
    listed->segments++;
    listed->records += segment->last + 1 - segment->first;
    listed->next = segment->last + 1;
}

static struct listed list(void)
{
    struct listed listed = {0};
    struct error error;
    if (!event_log_list(log_folder, note_listed, &listed, &error)) {
        fail_msg("%s", error.message);
    }
    return listed;
}

static void segments_are_listed_while_they_are_written_and_later(void **state)
{
    (void)state;
    struct listed listed = {0};
    struct error error;
    assert_false(event_log_list(log_folder, note_listed, &listed, &error));
    assert_non_null(strstr(error.message, log_folder));

    struct event_log *log = open_log(2000);
    assert_int_equal(list().records, 0);
    for (size_t count = 1; count <= 40; count++) {
        append(log, 1, 300);
        assert_int_equal(list().records, count);
    }
    assert_true(list().segments > 2);
    event_log_close(log);
    listed = list();
    assert_int_equal(listed.records, 40);

    log = open_log(2000);
    event_log_unlink_before(log, 20);
    struct listed rest = list();
    assert_true(rest.segments < listed.segments);
    assert_int_equal(rest.next, 41);
    event_log_close(log);
}

static void a_torn_end_does_not_count(void **state)
{
    (void)state;
    struct event_log *log = open_log(1 << 20);
    append(log, 5, 300);
    event_log_close(log);
    char *path = segment_path(1);
    assert_int_equal(truncate(path, (off_t)size_of(path) - 1), 0);
    free(path);
    assert_int_equal(list().records, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPOOL_TEST(segments_are_listed_while_they_are_written_and_later),
        SPOOL_TEST(a_torn_end_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
