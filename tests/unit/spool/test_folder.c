/* Folders that are made are there after a loss of power as well. */
#define SPOOL_TEST_OWN_SYNC
#include "spool_test.h"

#include "spool/folder.h"

static char synced[8][128]; /* paths, in the order of the calls */
static size_t sync_count;

/* Instead of libc's. */
int fsync(int fd)
{
    char link[64];
    assert_true(sync_count < sizeof synced / sizeof synced[0]);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, synced[sync_count], sizeof synced[0] - 1);
    assert_true(size > 0);
    synced[sync_count++][size] = '\0';
    return 0;
}

static void a_new_folder_is_durable_in_the_one_it_is_in(void **state)
{
    (void)state;
    struct error error;
    char *deep = xprintf("%s/a/b", log_folder), *a = xprintf("%s/a", log_folder);
    const char *expected[] = {test_folder, log_folder, a};
    sync_count = 0;
    assert_true(folder_make(deep, &error));
    assert_int_equal(sync_count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(synced[i], expected[i]);
    assert_true(folder_make(deep, &error));
    assert_int_equal(sync_count, 3); /* it was there */
    char *deeper = xprintf("%s/c", deep);
    int fd = folder_open(deeper, true, &error);
    assert_true(fd >= 0);
    assert_int_equal(sync_count, 4);
    assert_string_equal(synced[3], deep);
    close(fd);
    free(deeper);
    free(deep);
    free(a);
}

static void what_cannot_be_made_is_told(void **state)
{
    (void)state;
    struct error error;
    char *below = xprintf("%s/file/below/it", test_folder), *file = xprintf("%s/file", test_folder);
    write_file(file, "x", 1);
    assert_false(folder_make(below, &error));
    assert_non_null(strstr(error.message, "/file/below: cannot be created: Not a directory"));
    free(below);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPOOL_TEST(a_new_folder_is_durable_in_the_one_it_is_in),
        SPOOL_TEST(what_cannot_be_made_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
