/*
 * Dead letters are there as they were given until they are removed, too many or too old, whoever reads and writes meanwhile.
 */
#include <endian.h>
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
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "spool/crc32c.h"
#include "spool/event_log.h"
#include "spool/letter.h"
#include "spool/name.h"

struct place {
    char *folder; /* of all pipelines: not there yet, nor is its parent */
    char root[64];
    struct metrics *metrics;
    struct metric *trimmed, *kept;
    struct dead_letters *letters;
};

static atomic_int failing_syncs; /* how many are to fail yet */

/* In the place of the C library's. */
int fdatasync(int fd)
{
    if (failing_syncs > 0) {
        failing_syncs--;
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static const struct metric_label no_labels[] = {{NULL, NULL}};

static void set_up(struct place *place)
{
    log_configure(LOG_ERROR + 1, LOG_TEXT);
    snprintf(place->root, sizeof place->root, "%s/letters-XXXXXX",
             getenv("TMPDIR") != NULL && strlen(getenv("TMPDIR")) < 40 ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(place->root));
    place->folder = xprintf("%s/spool/dlq", place->root);
    place->metrics = metrics_new();
    place->trimmed = metrics_counter(place->metrics, "trimmed", "", no_labels);
    place->kept = metrics_gauge(place->metrics, "kept", "", no_labels);
}

static void tear_down(struct place *place)
{
    char *command = xprintf("rm -rf '%s'", place->root);
    dead_letters_close(place->letters);
    assert_int_equal(system(command), 0);
    free(command);
    free(place->folder);
    metrics_free(place->metrics);
}

static struct dead_letters_settings settings_of(const struct place *place)
{
    return (struct dead_letters_settings){.folder = place->folder,
                                          .pipeline = "a pipeline/ä",
                                          .max_bytes = 1 << 30,
                                          .max_age_ns = 3600 * NANOSECONDS_PER_SECOND,
                                          .trimmed = place->trimmed,
                                          .kept = place->kept};
}

static void open_with(struct place *place, const struct dead_letters_settings *settings)
{
    struct error error;
    place->letters = dead_letters_open(settings, &error);
    if (place->letters == NULL)
        fail_msg("%s", error.message);
}

static void open_letters(struct place *place)
{
    const struct dead_letters_settings settings = settings_of(place);
    open_with(place, &settings);
}

static void close_letters(struct place *place)
{
    dead_letters_close(place->letters);
    place->letters = NULL;
}

static struct event_record *event_of(const char *id, size_t body_size)
{
    struct body request, response, tail;
    body_init(&request, NULL);
    body_init(&response, NULL);
    body_init(&tail, NULL);
    char *bytes = xcalloc(1, body_size + 1);
    memset(bytes, 'b', body_size);
    assert_true(body_append(&request, (struct slice){bytes, body_size}));
    assert_true(body_append(&response, SLICE("an answer")));
    free(bytes);
    const struct event_fields fields = {.id = slice_of(id),
                                        .time_us = UINT64_C(1767323045678901),
                                        .method = SLICE("POST"),
                                        .path = SLICE("/v1/chat"),
                                        .status = 200,
                                        .request_bytes = body_size,
                                        .request_kept = true,
                                        .response_kept = true};
    return event_record_new(&fields, &request, &response, &tail);
}

static void add_sized(struct place *place, const char *id, size_t body_size)
{
    struct error error;
    const struct dead_letter letter = {.reason = SLICE("rejected"),
                                       .error = SLICE("answered 422"),
                                       .where = SLICE("webhook"),
                                       .tries = 3,
                                       .first_us = 1000001,
                                       .last_us = 2000002,
                                       .event = event_of(id, body_size)};
    if (!dead_letters_add(place->letters, &letter, &error))
        fail_msg("%s", error.message);
    event_record_release(letter.event);
}

static void add(struct place *place, const char *id)
{
    add_sized(place, id, 10);
}

static void sync_letters(struct place *place)
{
    struct error error;
    if (!dead_letters_sync(place->letters, &error))
        fail_msg("%s", error.message);
}

static struct dead_letters_reader *reader_of(const struct place *place)
{
    struct error error;
    struct dead_letters_reader *reader =
        dead_letters_reader_new(place->folder, settings_of(place).pipeline, &error);
    if (reader == NULL)
        fail_msg("%s", error.message);
    return reader;
}

/* Their ids, one after the other, and how many were damaged; sequences of all, if wanted. */
static char *ids_of(const struct place *place, uint64_t *damaged, uint64_t *sequences)
{
    struct buffer ids = {0};
    struct dead_letter letter;
    struct error error;
    struct dead_letters_reader *reader = reader_of(place);
    for (size_t i = 0; dead_letters_read(reader, &letter, damaged, &error); i++) {
        buffer_append_slice(&ids, event_get(letter.event)->id);
        if (sequences != NULL)
            sequences[i] = letter.sequence;
    }
    dead_letters_reader_free(reader);
    return buffer_take_string(&ids);
}

static void assert_ids(const struct place *place, const char *expected)
{
    char *ids = ids_of(place, NULL, NULL);
    assert_string_equal(ids, expected);
    free(ids);
}

static void remove_letters(const struct place *place, const uint64_t *sequences, size_t count)
{
    struct error error;
    if (!dead_letters_remove(place->folder, settings_of(place).pipeline, sequences, count, &error))
        fail_msg("%s", error.message);
}

static void sweep(const struct place *place)
{
    dead_letters_sweep(place->folder, settings_of(place).pipeline);
}

static char *path_of(const struct place *place, const char *name)
{
    return xprintf("%s/a%%20pipeline%%2F%%C3%%A4/%s", place->folder, name);
}

static bool is_there(const struct place *place, const char *name)
{
    struct stat status;
    char *path = path_of(place, name);
    bool there = stat(path, &status) == 0;
    free(path);
    return there;
}

#define FIRST_SEGMENT "00000000000000000001.log"

static void a_letter_is_read_as_it_was_given(void **state)
{
    (void)state;
    struct place place = {0};
    struct dead_letter letter;
    struct error error;
    uint64_t damaged = 0;
    set_up(&place);
    open_letters(&place);
    add_sized(&place, "a", 100000);
    sync_letters(&place);
    close_letters(&place);
    struct dead_letters_reader *reader = reader_of(&place);
    assert_true(dead_letters_read(reader, &letter, &damaged, &error));
    assert_true(slice_equal(letter.reason, SLICE("rejected")));
    assert_true(slice_equal(letter.error, SLICE("answered 422")));
    assert_true(slice_equal(letter.where, SLICE("webhook")));
    assert_int_equal(letter.tries, 3);
    assert_int_equal(letter.first_us, 1000001);
    assert_int_equal(letter.last_us, 2000002);
    assert_int_equal(letter.sequence, 1);
    assert_true(slice_equal(event_get(letter.event)->path, SLICE("/v1/chat")));
    assert_int_equal(event_request_body(letter.event)->size, 100000);
    assert_int_equal(event_response_body(letter.event)->size, 9);
    assert_false(dead_letters_read(reader, &letter, &damaged, &error));
    assert_int_equal(damaged, 0);
    dead_letters_reader_free(reader);
    tear_down(&place);
}

static void without_bodies_none_is_kept(void **state)
{
    (void)state;
    struct place place = {0};
    struct dead_letter letter;
    struct error error;
    set_up(&place);
    struct dead_letters_settings settings = settings_of(&place);
    settings.without_bodies = true;
    open_with(&place, &settings);
    add_sized(&place, "a", 5000);
    sync_letters(&place);
    struct dead_letters_reader *reader = reader_of(&place);
    assert_true(dead_letters_read(reader, &letter, NULL, &error));
    assert_int_equal(event_request_body(letter.event)->size, 0);
    assert_int_equal(event_response_body(letter.event)->size, 0);
    assert_int_equal(event_get(letter.event)->request_bytes, 5000);
    assert_false(event_get(letter.event)->request_kept);
    dead_letters_reader_free(reader);
    tear_down(&place);
}

/* As by a later version of the program: no letters is not the answer. */
static void a_segment_that_cannot_be_read_is_told(void **state)
{
    (void)state;
    struct place place = {0};
    struct dead_letter letter;
    struct error error;
    char header[64];
    set_up(&place);
    char *path = path_of(&place, FIRST_SEGMENT);
    open_letters(&place);
    add(&place, "a");
    sync_letters(&place);
    close_letters(&place);
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, header, sizeof header, 0), sizeof header);
    header[8] = 2;
    uint32_t crc = htole32(crc32c(0, (struct slice){header, 60}));
    memcpy(header + 60, &crc, sizeof crc);
    assert_int_equal(pwrite(fd, header, sizeof header, 0), sizeof header);
    close(fd);
    struct dead_letters_reader *reader = reader_of(&place);
    assert_false(dead_letters_read(reader, &letter, NULL, &error));
    assert_non_null(strstr(error.message, "has format version 2"));
    dead_letters_reader_free(reader);
    free(path);
    tear_down(&place);
}

static void files_are_for_their_owner_only(void **state)
{
    (void)state;
    struct place place = {0};
    struct stat status;
    set_up(&place);
    open_letters(&place);
    add(&place, "a");
    sync_letters(&place);
    remove_letters(&place, (uint64_t[]){7}, 1);
    static const char *const names[] = {"", FIRST_SEGMENT, "removed", "lock"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_of(&place, names[i]);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_mode & 0777, i == 0 ? 0700 : 0600);
        free(path);
    }
    tear_down(&place);
}

static void one_process_writes(void **state)
{
    (void)state;
    struct place place = {0};
    struct error error;
    set_up(&place);
    open_letters(&place);
    const struct dead_letters_settings settings = settings_of(&place);
    assert_null(dead_letters_open(&settings, &error));
    assert_non_null(strstr(error.message, "dlq"));
    tear_down(&place);
}

/* By a tool, while the writer runs. */
static void removed_letters_are_not_read_again(void **state)
{
    (void)state;
    struct place place = {0};
    set_up(&place);
    open_letters(&place);
    add(&place, "a");
    add(&place, "b");
    add(&place, "c");
    sync_letters(&place);
    assert_int_equal(metric_value(place.kept), 3);
    remove_letters(&place, (uint64_t[]){2}, 1);
    assert_ids(&place, "ac");
    dead_letters_tidy(place.letters);
    assert_int_equal(metric_value(place.kept), 2);
    add(&place, "d");
    sync_letters(&place);
    assert_ids(&place, "acd");
    close_letters(&place);
    assert_ids(&place, "acd");
    open_letters(&place);
    assert_int_equal(metric_value(place.kept), 3);
    assert_int_equal(metric_value(place.trimmed), 0);
    tear_down(&place);
}

static void what_all_was_removed_is_off_the_disk_after_a_sweep_where_nobody_writes(void **state)
{
    (void)state;
    struct place place = {0};
    set_up(&place);
    open_letters(&place);
    add(&place, "a");
    add(&place, "b");
    sync_letters(&place);
    close_letters(&place);
    assert_true(is_there(&place, FIRST_SEGMENT));
    remove_letters(&place, (uint64_t[]){1, 2}, 2);
    assert_true(is_there(
        &place, FIRST_SEGMENT)); /* whoever wants to open the folder is not in the way of a long replay */
    assert_ids(&place, "");
    sweep(&place);
    assert_false(is_there(&place, FIRST_SEGMENT));
    open_letters(&place);
    add(&place, "c");
    sync_letters(&place);
    assert_ids(&place, "c");
    tear_down(&place);
}

static void what_all_was_removed_is_off_the_disk_soon_where_somebody_writes(void **state)
{
    (void)state;
    struct place place = {0};
    struct stat status;
    set_up(&place);
    open_letters(&place);
    add(&place, "a");
    sync_letters(&place);
    remove_letters(&place, (uint64_t[]){1}, 1);
    sweep(&place);
    assert_true(is_there(&place, FIRST_SEGMENT));
    dead_letters_tidy(place.letters);
    char *removed = path_of(&place, "removed");
    assert_false(is_there(&place, FIRST_SEGMENT));
    assert_int_equal(stat(removed, &status), 0);
    assert_int_equal(status.st_size, 0);
    free(removed);
    assert_int_equal(metric_value(place.kept), 0);
    add(&place, "b");
    sync_letters(&place);
    assert_ids(&place, "b");
    tear_down(&place);
}

/* A letter that was written and never durable may be gone after a power loss; its sequence comes again. */
static void what_was_removed_hides_no_letter_that_comes_later(void **state)
{
    (void)state;
    struct place place = {0};
    set_up(&place);
    open_letters(&place);
    add(&place, "a");
    sync_letters(&place);
    close_letters(&place);
    remove_letters(&place, (uint64_t[]){2, 3}, 2);
    open_letters(&place);
    add(&place, "b");
    add(&place, "c");
    sync_letters(&place);
    assert_ids(&place, "abc");
    tear_down(&place);
}

static void a_damaged_list_of_what_was_removed_costs_only_what_is_damaged(void **state)
{
    (void)state;
    struct place place = {0};
    set_up(&place);
    open_letters(&place);
    for (const char *id = "abcd"; *id != '\0'; id++)
        add(&place, (char[]){*id, '\0'});
    sync_letters(&place);
    remove_letters(&place, (uint64_t[]){1}, 1);
    char *path = path_of(&place, "removed");
    int fd = open(path, O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "torn", 4), 4);
    close(fd);
    free(path);
    remove_letters(&place, (uint64_t[]){3}, 1);
    assert_ids(&place, "bd");
    tear_down(&place);
}

static void the_oldest_go_when_there_are_too_many(void **state)
{
    (void)state;
    struct place place = {0};
    set_up(&place);
    struct dead_letters_settings settings = settings_of(&place);
    settings.max_bytes = 1 << 20;
    open_with(&place, &settings);
    for (int i = 0; i < 100; i++)
        add_sized(&place, "x", 30000);
    add(&place, "z");
    sync_letters(&place);
    dead_letters_tidy(place.letters);
    char *ids = ids_of(&place, NULL, NULL);
    size_t kept = strlen(ids);
    assert_true(kept > 10 && kept < 40);
    assert_int_equal(ids[kept - 1], 'z');
    free(ids);
    assert_int_equal(metric_value(place.kept), kept);
    assert_int_equal(metric_value(place.trimmed), 101 - kept);
    tear_down(&place);
}

static void those_too_old_go(void **state)
{
    (void)state;
    struct place place = {0};
    set_up(&place);
    struct dead_letters_settings settings = settings_of(&place);
    open_with(&place, &settings);
    add(&place, "a");
    sync_letters(&place);
    close_letters(&place);
    assert_ids(&place, "a");
    settings.max_age_ns = 1000;
    usleep(1000);
    open_with(&place, &settings);
    assert_ids(&place, "");
    assert_int_equal(metric_value(place.trimmed), 1);
    assert_int_equal(metric_value(place.kept), 0);
    tear_down(&place);
}

static void damage_costs_the_damaged_letters_only(void **state)
{
    (void)state;
    struct place place = {0};
    uint64_t damaged = 0;
    set_up(&place);
    open_letters(&place);
    add(&place, "a");
    add_sized(&place, "b", 1000);
    add(&place, "c");
    sync_letters(&place);
    char *path = path_of(&place, FIRST_SEGMENT), bytes[8192];
    int fd = open(path, O_RDWR);
    ssize_t size = read(fd, bytes, sizeof bytes);
    char *body = memmem(bytes, (size_t)size, "bbbbbbbbbbbbbbbbbbbb", 20);
    assert_non_null(body);
    assert_int_equal(pwrite(fd, "X", 1, body - bytes), 1);
    close(fd);
    free(path);
    char *ids = ids_of(&place, &damaged, NULL);
    assert_string_equal(ids, "ac");
    assert_int_equal(damaged, 1);
    free(ids);
    tear_down(&place);
}

static void a_sync_that_fails_once_costs_nothing(void **state)
{
    (void)state;
    struct place place = {0};
    set_up(&place);
    open_letters(&place);
    add(&place, "a");
    sync_letters(&place);
    add(&place, "b");
    add(&place, "c");
    failing_syncs = 1;
    sync_letters(&place);
    assert_int_equal(failing_syncs, 0);
    assert_ids(&place, "abc");
    close_letters(&place);
    open_letters(&place);
    add(&place, "d");
    sync_letters(&place);
    assert_ids(&place, "abcd");
    assert_int_equal(metric_value(place.kept), 4);
    tear_down(&place);
}

static void *sync_of_another(void *argument)
{
    struct place *place = argument;
    struct error error;
    add(place, "other");
    failing_syncs = 2;
    assert_false(dead_letters_sync(place->letters, &error));
    assert_true(dead_letters_sync(place->letters, &error));
    return NULL;
}

/* What is lost is so for each thread that wrote some, whoever noticed it. */
static void a_disk_that_fails_is_told_to_all_whose_letters_are_lost(void **state)
{
    (void)state;
    struct place place = {0};
    struct error error;
    pthread_t thread;
    set_up(&place);
    open_letters(&place);
    add(&place, "a");
    sync_letters(&place);
    add(&place, "lost");
    assert_int_equal(pthread_create(&thread, NULL, sync_of_another, &place), 0);
    pthread_join(thread, NULL);
    assert_false(dead_letters_sync(place.letters, &error));
    assert_non_null(strstr(error.message, "fail"));
    add(&place, "b");
    sync_letters(&place);
    assert_ids(&place, "ab");
    dead_letters_tidy(place.letters);
    assert_int_equal(metric_value(place.kept), 2);
    tear_down(&place);
}

static void only_letters_are_read_as_such(void **state)
{
    (void)state;
    struct buffer stored = {0};
    struct dead_letter letter, given = {.reason = SLICE("expired"), .tries = 2, .event = event_of("a", 20)};
    letter_encode_head(&given, &stored);
    struct iovec pieces[16];
    size_t count = event_pieces(given.event, pieces, 16);
    for (size_t i = 0; i < count; i++)
        buffer_append(&stored, pieces[i].iov_base, pieces[i].iov_len);
    for (size_t size = 0; size < stored.size; size++) {
        char *part = xmemdup(buffer_data(&stored), size);
        assert_false(letter_decode((struct slice){part, size}, &letter));
        free(part);
    }
    assert_true(letter_decode(buffer_slice(&stored), &letter));
    assert_true(slice_equal(letter.reason, SLICE("expired")));
    assert_int_equal(letter.tries, 2);
    event_record_release(letter.event);
    event_record_release(given.event);
    buffer_free(&stored);
}

static void names_survive_as_folders(void **state)
{
    (void)state;
    static const char *const names[] = {"audit", "..", "a/b", "ä b", "100%", "_-A9"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct buffer encoded = {0};
        name_encode(slice_of(names[i]), &encoded);
        assert_null(memchr(buffer_data(&encoded), '/', encoded.size));
        assert_null(memchr(buffer_data(&encoded), '.', encoded.size));
        char *decoded = name_decode(buffer_slice(&encoded));
        assert_string_equal(decoded, names[i]);
        free(decoded);
        buffer_free(&encoded);
    }
    static const char *const odd[] = {"", ".", "a.b", "%", "%4", "%zz", "%00"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_null(name_decode(slice_of(odd[i])));
}

static void note_name(void *argument, const char *pipeline)
{
    buffer_printf(argument, "%s\n", pipeline);
}

static void pipelines_are_listed_by_name(void **state)
{
    (void)state;
    struct place place = {0};
    struct buffer names = {0};
    struct error error;
    set_up(&place);
    assert_false(dead_letters_list(place.folder, note_name, &names, &error));
    assert_null(dead_letters_reader_new(place.folder, "audit", &error));
    open_letters(&place);
    assert_true(dead_letters_list(place.folder, note_name, &names, &error));
    char *text = buffer_take_string(&names);
    assert_string_equal(text, "a pipeline/ä\n");
    free(text);
    tear_down(&place);
}

struct adder {
    struct place *place;
    char id;
};

static void *add_many(void *argument)
{
    const struct adder *adder = argument;
    for (int i = 0; i < 100; i++) {
        add(adder->place, (char[]){adder->id, '\0'});
        if (i % 20 == 0)
            sync_letters(adder->place);
    }
    sync_letters(adder->place);
    return NULL;
}

/* Two pipelines' threads write, a tool removes. */
static void threads_and_tools_do_not_disturb_each_other(void **state)
{
    (void)state;
    struct place place = {0};
    set_up(&place);
    struct dead_letters_settings settings = settings_of(&place);
    settings.max_bytes = 1 << 20; /* so that segments, which are read to their end, are small */
    open_with(&place, &settings);
    struct adder adders[] = {{&place, 'a'}, {&place, 'b'}};
    pthread_t threads[2];
    uint64_t sequences[200];
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, &adders[i]), 0);
    size_t removed = 0;
    while (removed < 20) {
        char *ids = ids_of(&place, NULL, sequences);
        if (ids[0] != '\0') {
            remove_letters(&place, sequences, 1);
            removed++;
        }
        free(ids);
        dead_letters_tidy(place.letters);
        usleep(1000);
    }
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    dead_letters_tidy(place.letters);
    assert_int_equal(metric_value(place.kept), 180);
    char *ids = ids_of(&place, NULL, NULL);
    assert_int_equal(strlen(ids), 180);
    free(ids);
    tear_down(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_letter_is_read_as_it_was_given),
        cmocka_unit_test(without_bodies_none_is_kept),
        cmocka_unit_test(a_segment_that_cannot_be_read_is_told),
        cmocka_unit_test(files_are_for_their_owner_only),
        cmocka_unit_test(one_process_writes),
        cmocka_unit_test(removed_letters_are_not_read_again),
        cmocka_unit_test(what_all_was_removed_is_off_the_disk_after_a_sweep_where_nobody_writes),
        cmocka_unit_test(what_all_was_removed_is_off_the_disk_soon_where_somebody_writes),
        cmocka_unit_test(what_was_removed_hides_no_letter_that_comes_later),
        cmocka_unit_test(a_damaged_list_of_what_was_removed_costs_only_what_is_damaged),
        cmocka_unit_test(the_oldest_go_when_there_are_too_many),
        cmocka_unit_test(those_too_old_go),
        cmocka_unit_test(damage_costs_the_damaged_letters_only),
        cmocka_unit_test(a_sync_that_fails_once_costs_nothing),
        cmocka_unit_test(a_disk_that_fails_is_told_to_all_whose_letters_are_lost),
        cmocka_unit_test(only_letters_are_read_as_such),
        cmocka_unit_test(names_survive_as_folders),
        cmocka_unit_test(pipelines_are_listed_by_name),
        cmocka_unit_test(threads_and_tools_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
