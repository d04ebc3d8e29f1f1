/*
 * file: whole files or a clear error, and nothing half read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

static char path[] = "/tmp/llm-proxy-test-file-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    char bytes[40000];
    memset(bytes, 'a', sizeof bytes);
    ssize_t written = fd >= 0 ? write(fd, bytes, sizeof bytes) : -1;
    return written == (ssize_t)sizeof bytes ? close(fd) : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void the_whole_file_is_appended(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    struct error error;
    buffer_append_string(&buffer, "x");
    assert_true(file_read(path, 40000, &buffer, &error));
    assert_int_equal(buffer.size, 40001);
    assert_memory_equal(buffer_data(&buffer), "xaaa", 4);
    buffer_free(&buffer);
}

static void failures_name_the_path_and_append_nothing(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    struct error error;
    buffer_append_string(&buffer, "x");
    assert_false(file_read(path, 39999, &buffer, &error));
    assert_non_null(strstr(error.message, "is larger than 39999 bytes"));
    assert_non_null(strstr(error.message, path));
    assert_false(file_read("/tmp", 100, &buffer, &error));
    assert_string_equal(error.message, "/tmp: is a folder");
    assert_false(file_read("/nowhere/at/all", 100, &buffer, &error));
    assert_string_equal(error.message, "/nowhere/at/all: No such file or directory");
    assert_int_equal(buffer.size, 1);
    buffer_free(&buffer);
}

static void relative_paths_lie_below_the_folder(void **state)
{
    (void)state;
    static const char *const cases[][3] = {{"/etc", "x/y", "/etc/x/y"},
                                           {"/etc/", "x", "/etc/x"},
                                           {"/etc", "/x", "/x"},
                                           {"", "x", "x"},
                                           {"/", "x", "/x"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *joined = file_path_below(cases[i][0], cases[i][1]);
        assert_string_equal(joined, cases[i][2]);
        free(joined);
    }
}

static void the_program_knows_its_folder(void **state)
{
    (void)state;
    char *folder = file_program_folder();
    assert_non_null(folder);
    char *program = file_path_below(folder, "base_test_file");
    assert_int_equal(access(program, X_OK), 0);
    free(program);
    free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_whole_file_is_appended),
        cmocka_unit_test(failures_name_the_path_and_append_nothing),
        cmocka_unit_test(relative_paths_lie_below_the_folder),
        cmocka_unit_test(the_program_knows_its_folder),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
