/* Cursors: one whole value is always there, whatever becomes of a write; any name is a file's name. */
#define SPOOL_TEST_OWN_SYNC
#include "spool_test.h"

#include "spool/cursor.h"

static int failing_syncs;

int fsync(int fd)
{
    (void)fd;
    return 0;
}

int fdatasync(int fd)
{
    (void)fd;
    if (failing_syncs == 0)
        return 0;
    failing_syncs--;
    errno = EIO;
    return -1;
}

static struct cursor_file *open_cursor(const char *name, struct cursor *value, bool *found)
{
    struct error error;
    struct cursor_file *file = cursor_file_open(log_folder, name, value, found, &error);
    if (file == NULL)
        fail_msg("%s", error.message);
    return file;
}

static void write_cursor(const char *name, uint64_t sequence)
{
    struct cursor value;
    bool found;
    struct error error;
    struct cursor_file *file = open_cursor(name, &value, &found);
    assert_true(cursor_file_write(file, &(struct cursor){.sequence = sequence}, &error));
    cursor_file_close(file);
}

static struct cursor read_cursor(const char *name, bool *found)
{
    struct cursor value;
    cursor_file_close(open_cursor(name, &value, found));
    return value;
}

static void a_value_is_there_after_opening_again(void **state)
{
    (void)state;
    bool found;
    struct error error;
    struct cursor value = {1, 1};
    struct stat status;
    struct cursor_file *file = open_cursor("a", &value, &found);
    assert_false(found);
    assert_int_equal(value.sequence, 0);
    assert_int_equal(value.removed_us, 0);
    assert_true(cursor_file_write(file, &(struct cursor){7, 123456}, &error));
    cursor_file_close(file);
    value = read_cursor("a", &found);
    assert_true(found);
    assert_int_equal(value.sequence, 7);
    assert_int_equal(value.removed_us, 123456);
    char *path = path_of("a.cursor");
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    free(path);
}

static void a_thousand_values_follow_each_other(void **state)
{
    (void)state;
    bool found;
    struct error error;
    struct cursor value;
    struct cursor_file *file = open_cursor("a", &value, &found);
    for (uint64_t i = 1; i <= 1000; i++) {
        assert_true(cursor_file_write(file, &(struct cursor){.sequence = i}, &error));
        value = read_cursor("a", &found);
        assert_true(found && value.sequence == i);
    }
    cursor_file_close(file);
    char *path = path_of("a.cursor");
    assert_int_equal(size_of(path), 1024);
    free(path);
}

/* A write that reached the disk up to any byte leaves the value before, or is whole. */
static void a_torn_slot_leaves_the_value_before(void **state)
{
    (void)state;
    char *path = path_of("a.cursor");
    write_cursor("a", 1);
    for (uint64_t sequence = 2; sequence <= 3; sequence++) {
        size_t size;
        char *before = read_file(path, &size), *after, torn[1024] = {0};
        write_cursor("a", sequence);
        after = read_file(path, &size);
        assert_int_equal(size, 1024);
        size_t slot = sequence % 2 == 0 ? 512 : 0, last = slot + 512;
        memcpy(torn, before, sequence == 2 ? 512 : 1024);
        while (last > slot && after[last - 1] == torn[last - 1])
            last--;
        for (size_t cut = slot; cut <= slot + 512; cut++) {
            bool found;
            memcpy(torn + slot, after + slot, cut - slot);
            write_file(path, torn, 1024);
            struct cursor value = read_cursor("a", &found);
            assert_true(found);
            assert_int_equal(value.sequence, cut >= last ? sequence : sequence - 1);
        }
        write_file(path, after, 1024);
        free(before);
        free(after);
    }
    /* A file that ends in a slot. */
    size_t size;
    char *whole = read_file(path, &size);
    for (size_t cut = 0; cut < 1024; cut++) {
        bool found;
        write_file(path, whole, cut);
        struct cursor value = read_cursor("a", &found);
        assert_int_equal(found, cut >= 512);
        assert_int_equal(value.sequence, cut >= 512 ? 3 : 0);
    }
    free(whole);
    free(path);
}

static void any_changed_bit_is_seen(void **state)
{
    (void)state;
    char *path = path_of("a.cursor");
    bool found;
    write_cursor("a", 1);
    write_cursor("a", 2);
    for (size_t bit = 0; bit < 8192; bit++) {
        change_byte(path, bit / 8, (unsigned char)(1u << bit % 8));
        struct cursor value = read_cursor("a", &found);
        assert_true(found);
        assert_int_equal(value.sequence, bit < 4096 ? 2 : 1);
        change_byte(path, bit / 8, (unsigned char)(1u << bit % 8));
    }
    change_byte(path, 20, 1);
    change_byte(path, 600, 1);
    struct cursor value = read_cursor("a", &found);
    assert_false(found);
    assert_int_equal(value.sequence, 0);
    write_cursor("a", 5);
    assert_int_equal(read_cursor("a", &found).sequence, 5);
    free(path);
}

/* The kernel may have dropped what could not be synced: the durable value must not be overwritten by the next one. */
static void a_failed_sync_keeps_the_durable_value(void **state)
{
    (void)state;
    bool found;
    struct error error;
    struct cursor value;
    write_cursor("a", 1);
    struct cursor_file *file = open_cursor("a", &value, &found);
    char *path = path_of("a.cursor"), *before, *after;
    size_t size;
    before = read_file(path, &size);
    failing_syncs = 2;
    for (uint64_t i = 2; i <= 4; i++) {
        assert_int_equal(cursor_file_write(file, &(struct cursor){.sequence = i}, &error), i == 4);
        if (i < 4)
            assert_non_null(strstr(error.message, path));
        after = read_file(path, &size);
        assert_memory_equal(before, after, 512);
        free(after);
    }
    cursor_file_close(file);
    assert_int_equal(read_cursor("a", &found).sequence, 4);
    free(before);
    free(path);
}

struct listed {
    size_t count;
    uint64_t sequences;
    char names[8][64];
};

static void note_cursor(void *argument, const char *name, const struct cursor *value)
{
    struct listed *listed = argument;
    snprintf(listed->names[listed->count++], sizeof listed->names[0], "%s", name);
    listed->sequences += value->sequence;
}

static void any_name_is_kept(void **state)
{
    (void)state;
    const char *names[] = {"plain-Name_1", "..", "a/b", "100%", "caf\xc3\xa9 \n\xff", ".cursor", "%41"};
    struct listed listed = {0};
    struct error error;
    bool found;
    for (size_t i = 0; i < 7; i++)
        write_cursor(names[i], i + 1);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(read_cursor(names[i], &found).sequence, i + 1);
    char *path = path_of("%2E%2E.cursor"), *other = path_of("note.txt");
    assert_true(exists(path));
    write_file(other, "x", 1);
    free(path);
    free(other);
    assert_true(cursor_files_list(log_folder, note_cursor, &listed, &error));
    assert_int_equal(listed.count, 7);
    assert_int_equal(listed.sequences, 28);
    for (size_t i = 0; i < 7; i++) {
        bool there = false;
        for (size_t j = 0; j < 7; j++)
            there = there || strcmp(names[i], listed.names[j]) == 0;
        assert_true(there);
    }
}

static void a_cursor_can_be_removed(void **state)
{
    (void)state;
    struct listed listed = {0};
    struct error error;
    bool found;
    assert_false(cursor_files_list(log_folder, note_cursor, &listed, &error));
    write_cursor("a", 1);
    assert_true(cursor_file_remove(log_folder, "a", &error));
    assert_true(cursor_file_remove(log_folder, "a", &error));
    assert_true(cursor_files_list(log_folder, note_cursor, &listed, &error));
    assert_int_equal(listed.count, 0);
    read_cursor("a", &found);
    assert_false(found);
}

static void a_link_is_refused(void **state)
{
    (void)state;
    struct error error;
    struct cursor value;
    bool found;
    write_cursor("a", 1);
    char *path = path_of("a.cursor"), *aside = path_of("aside");
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink(aside, path), 0);
    assert_null(cursor_file_open(log_folder, "a", &value, &found, &error));
    assert_non_null(strstr(error.message, "a.cursor: is a symbolic link"));
    free(path);
    free(aside);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPOOL_TEST(a_value_is_there_after_opening_again),
        SPOOL_TEST(a_thousand_values_follow_each_other),
        SPOOL_TEST(a_torn_slot_leaves_the_value_before),
        SPOOL_TEST(any_changed_bit_is_seen),
        SPOOL_TEST(a_failed_sync_keeps_the_durable_value),
        SPOOL_TEST(any_name_is_kept),
        SPOOL_TEST(a_cursor_can_be_removed),
        SPOOL_TEST(a_link_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
