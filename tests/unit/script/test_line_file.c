/* Appending whole lines: one writer, torn lines, full disks, pipes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/file.h"
#include "script/line_file.h"

struct place {
    char folder[64], path[80];
};

static int set_up(void **state)
{
    static struct place place;
    snprintf(place.folder, sizeof place.folder, "/tmp/test_line_file_XXXXXX");
    assert_non_null(mkdtemp(place.folder));
    snprintf(place.path, sizeof place.path, "%s/events.jsonl", place.folder);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    *state = &place;
    return 0;
}

static int tear_down(void **state)
{
    char command[100];
    struct place *place = *state;
    snprintf(command, sizeof command, "rm -r %s", place->folder);
    return system(command);
}

static void expect_content(const char *path, struct slice expected)
{
    struct error error;
    struct buffer content = {0};
    assert_true(file_read(path, 1 << 28, &content, &error));
    assert_int_equal(content.size, expected.size);
    assert_true(slice_equal(buffer_slice(&content), expected));
    buffer_free(&content);
}

static void put(const char *path, struct slice content)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(content.data, 1, content.size, file), content.size);
    fclose(file);
}

static struct line_file *open_file(const char *path)
{
    struct error error;
    struct line_file *file = line_file_open(path, NULL, &error);
    if (file == NULL) {
        fail_msg("%s", error.message);
    }
    return file;
}

static void expect_refused(const char *path, const char *part)
{
    struct error error;
    struct line_file *file = line_file_open(path, NULL, &error);
    assert_null(file);
    if (strstr(error.message, part) == NULL || strstr(error.message, path) == NULL) {
        fail_msg("'%s' is not in '%s'", part, error.message);
    }
}

static void lines_are_appended_to_a_private_file(void **state)
{
    struct place *place = *state;
    struct error error;
    struct stat status;
    mode_t mask = umask(0);
    struct line_file *file = open_file(place->path);
    umask(mask);
    assert_true(line_file_write(file, SLICE("one\n"), &error));
    assert_true(line_file_write(file, SLICE(""), &error));
    assert_true(line_file_write(file, SLICE("two\nthree\n"), &error));
    line_file_close(file);
    file = open_file(place->path);
    assert_true(line_file_write(file, SLICE("four\n"), &error));
    line_file_close(file);
    expect_content(place->path, SLICE("one\ntwo\nthree\nfour\n"));
    assert_int_equal(stat(place->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void a_file_has_one_writer(void **state)
{
    struct place *place = *state;
    struct error error;
    struct line_file *file = open_file(place->path);
    expect_refused(place->path, "another process, pipeline or handle writes to it");
    pid_t child = fork();
    if (child == 0) {
        _exit(line_file_open(place->path, NULL, &error) == NULL ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    line_file_close(file);
    line_file_close(open_file(place->path));
}

static void what_cannot_be_opened_is_said(void **state)
{
    struct place *place = *state;
    char path[120], target[120];
    snprintf(path, sizeof path, "%s/missing/events.jsonl", place->folder);
    snprintf(target, sizeof target, "the folder %s/missing does not exist", place->folder);
    expect_refused(path, target);
    expect_refused(place->folder, "Is a directory");
    snprintf(target, sizeof target, "%s/target", place->folder);
    snprintf(path, sizeof path, "%s/link", place->folder);
    assert_int_equal(symlink(target, path), 0);
    expect_refused(path, "is a symbolic link, which is not followed");
    put(target, SLICE("kept"));
    expect_refused(path, "is a symbolic link, which is not followed");
    expect_content(target, SLICE("kept"));
}

static void a_torn_last_line_is_cut_off_at_opening(void **state)
{
    struct place *place = *state;
    struct error error;
    static const struct {
        struct slice before, after;
    } cases[] = {
        {{"", 0}, {"", 0}},
        {{"whole\n", 6}, {"whole\n", 6}},
        {{"whole\ntorn", 10}, {"whole\n", 6}},
        {{"torn", 4}, {"", 0}},
        {{"\n", 1}, {"\n", 1}},
        {{"\nx", 2}, {"\n", 1}},
        {{"a\nb\n\0\0", 6}, {"a\nb\n", 4}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put(place->path, cases[i].before);
        struct line_file *file = open_file(place->path);
        expect_content(place->path, cases[i].after);
        assert_true(line_file_write(file, SLICE("next\n"), &error));
        line_file_close(file);
        struct buffer expected = {0};
        buffer_append_slice(&expected, cases[i].after);
        buffer_append_string(&expected, "next\n");
        expect_content(place->path, buffer_slice(&expected));
        buffer_free(&expected);
    }
}

static void a_torn_line_may_be_long(void **state)
{
    struct place *place = *state;
    struct buffer content = {0};
    buffer_append_string(&content, "whole\n");
    memset(buffer_reserve(&content, 300000), 'x', 300000);
    buffer_commit(&content, 300000);
    for (size_t size = 65530; size < 65545; size++) { /* around the size of the blocks it reads */
        put(place->path, (struct slice){buffer_data(&content), size});
        line_file_close(open_file(place->path));
        expect_content(place->path, SLICE("whole\n"));
    }
    put(place->path, buffer_slice(&content));
    line_file_close(open_file(place->path));
    expect_content(place->path, SLICE("whole\n"));
    buffer_free(&content);
}

static void a_file_that_is_none_of_lines_is_left_alone(void **state)
{
    struct place *place = *state;
    struct stat status;
    put(place->path, SLICE("x"));
    assert_int_equal(truncate(place->path, (64 << 20) + 100000), 0);
    expect_refused(place->path, "this is no file of lines");
    assert_int_equal(stat(place->path, &status), 0);
    assert_int_equal(status.st_size, (64 << 20) + 100000);
}

/* A limit on the size of files is a full disk that writes a part first. */
static void a_write_that_fails_is_undone_and_works_later(void **state)
{
    struct place *place = *state;
    struct error error;
    struct rlimit before, limit;
    struct line_file *file = open_file(place->path);
    assert_true(line_file_write(file, SLICE("whole line\n"), &error));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 20;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 0; i < 3; i++) {
        assert_false(line_file_write(file, SLICE("a line too long for it\n"), &error));
        assert_non_null(strstr(error.message, "cannot write: File too large"));
        expect_content(place->path, SLICE("whole line\n"));
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_true(line_file_write(file, SLICE("a line too long for it\n"), &error));
    line_file_close(file);
    expect_content(place->path, SLICE("whole line\na line too long for it\n"));
}

static void a_full_device_is_an_error(void **state)
{
    (void)state;
    struct error error;
    struct line_file *file = open_file("/dev/full");
    for (int i = 0; i < 3; i++) {
        assert_false(line_file_write(file, SLICE("line\n"), &error));
        assert_string_equal(error.message, "/dev/full: cannot write: No space left on device");
    }
    line_file_close(file);
    file = open_file("/dev/null");
    assert_true(line_file_write(file, SLICE("line\n"), &error));
    line_file_close(file);
}

static void after_reopen_the_path_is_written_anew(void **state)
{
    struct place *place = *state;
    struct error error;
    char rotated[120];
    struct line_file *file = open_file(place->path);
    assert_true(line_file_write(file, SLICE("one\n"), &error));
    snprintf(rotated, sizeof rotated, "%s.1", place->path);
    assert_int_equal(rename(place->path, rotated), 0);
    assert_true(line_file_write(file, SLICE("two\n"), &error));
    line_file_reopen(file);
    assert_int_equal(access(place->path, F_OK), -1);
    assert_true(line_file_write(file, SLICE("three\n"), &error));
    line_file_reopen(file);
    assert_true(line_file_write(file, SLICE("four\n"), &error));
    line_file_reopen(file);
    line_file_reopen(file);
    struct line_file *other = open_file(place->path);
    assert_false(line_file_write(file, SLICE("five\n"), &error));
    line_file_close(other);
    assert_true(line_file_write(file, SLICE("five\n"), &error));
    line_file_close(file);
    expect_content(rotated, SLICE("one\ntwo\n"));
    expect_content(place->path, SLICE("three\nfour\nfive\n"));
}

static void *read_to_end(void *argument)
{
    struct buffer *content = argument;
    char block[777];
    int fd = (int)content->start;
    ssize_t got;
    content->start = 0;
    while ((got = read(fd, block, sizeof block)) > 0) {
        buffer_append(content, block, (size_t)got);
    }
    close(fd);
    return NULL;
}

static void a_named_pipe_takes_more_than_fits_into_it(void **state)
{
    struct place *place = *state;
    struct error error;
    struct buffer text = {0}, content = {0};
    pthread_t reader;
    assert_int_equal(mkfifo(place->path, 0600), 0);
    expect_refused(place->path, "nobody reads this pipe");
    content.start = (size_t)open(place->path, O_RDONLY | O_NONBLOCK);
    assert_int_equal(fcntl((int)content.start, F_SETFL, 0), 0);
    struct line_file *file = open_file(place->path);
    for (int i = 0; i < 50000; i++) {
        buffer_printf(&text, "{\"line\":%d}\n", i);
    }
    assert_int_equal(pthread_create(&reader, NULL, read_to_end, &content), 0);
    assert_true(line_file_write(file, buffer_slice(&text), &error));
    line_file_close(file);
    pthread_join(reader, NULL);
    assert_true(slice_equal(buffer_slice(&content), buffer_slice(&text)));
    buffer_free(&text);
    buffer_free(&content);
}

static void a_pipe_whose_reader_left_is_an_error_until_another_comes(void **state)
{
    struct place *place = *state;
    struct error error;
    char got[32];
    assert_int_equal(mkfifo(place->path, 0600), 0);
    int reader = open(place->path, O_RDONLY | O_NONBLOCK);
    struct line_file *file = open_file(place->path);
    assert_true(line_file_write(file, SLICE("one\n"), &error));
    close(reader);
    assert_false(line_file_write(file, SLICE("two\n"), &error));
    assert_non_null(strstr(error.message, "Broken pipe"));
    assert_false(line_file_write(file, SLICE("two\n"), &error));
    assert_non_null(strstr(error.message, "nobody reads this pipe"));
    reader = open(place->path, O_RDONLY | O_NONBLOCK);
    assert_true(line_file_write(file, SLICE("two\n"), &error));
    assert_int_equal(read(reader, got, sizeof got), 4);
    assert_memory_equal(got, "two\n", 4);
    close(reader);
    line_file_close(file);
}

/* Runs use() in a child whose standard output is a pipe that is read slowly; *content gets what arrived. */
static int with_stdout(int (*use)(void), struct buffer *content)
{
    int ends[2], status;
    pthread_t reader;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        _exit(use());
    }
    close(ends[1]);
    content->start = (size_t)ends[0];
    assert_int_equal(pthread_create(&reader, NULL, read_to_end, content), 0);
    pthread_join(reader, NULL);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void *write_many(void *argument)
{
    char line[10002];
    struct error error;
    memset(line, *(char *)argument, sizeof line - 2);
    line[sizeof line - 2] = '\n';
    for (int i = 0; i < 50; i++) {
        if (!line_file_write(line_file_stdout(), (struct slice){line, sizeof line - 1}, &error)) {
            _exit(1);
        }
    }
    return NULL;
}

static int write_from_two_threads(void)
{
    pthread_t threads[2];
    static char letters[] = {'a', 'b'};
    fcntl(STDOUT_FILENO, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, write_many, &letters[i]);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    return 0;
}

static void lines_of_threads_do_not_mix_on_the_standard_output(void **state)
{
    (void)state;
    struct buffer content = {0};
    assert_int_equal(with_stdout(write_from_two_threads, &content), 0);
    assert_int_equal(content.size, 100 * 10001);
    for (size_t line = 0; line < 100; line++) {
        const char *at = buffer_data(&content) + line * 10001;
        for (size_t i = 0; i < 10000; i++) {
            assert_int_equal(at[i], at[0]);
        }
        assert_int_equal(at[10000], '\n');
    }
    buffer_free(&content);
}

static int write_without_reader(void)
{
    int ends[2];
    struct error error;
    signal(SIGPIPE, SIG_IGN);
    if (pipe(ends) != 0) {
        return 1;
    }
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    bool written = line_file_write(line_file_stdout(), SLICE("line\n"), &error);
    line_file_close(line_file_stdout());
    line_file_reopen(line_file_stdout());
    return !written && strcmp(error.message, "the standard output: cannot write: Broken pipe") == 0 ? 0 : 1;
}

static void a_closed_standard_output_is_an_error(void **state)
{
    (void)state;
    struct buffer content = {0};
    assert_int_equal(with_stdout(write_without_reader, &content), 0);
    buffer_free(&content);
}

static void replacing_is_whole_and_private(void **state)
{
    struct place *place = *state;
    struct error error;
    struct stat status;
    char path[120], target[120];
    assert_true(line_file_replace(place->path, SLICE("first"), &error));
    expect_content(place->path, SLICE("first"));
    assert_true(line_file_replace(place->path, SLICE(""), &error));
    expect_content(place->path, SLICE(""));
    assert_int_equal(stat(place->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    snprintf(target, sizeof target, "%s/target", place->folder);
    snprintf(path, sizeof path, "%s/link", place->folder);
    put(target, SLICE("kept"));
    assert_int_equal(symlink(target, path), 0);
    assert_true(line_file_replace(path, SLICE("second"), &error));
    expect_content(target, SLICE("kept"));
    expect_content(path, SLICE("second"));
    snprintf(path, sizeof path, "%s/missing/file", place->folder);
    assert_false(line_file_replace(path, SLICE("x"), &error));
    assert_non_null(strstr(error.message, "does not exist"));
    assert_false(line_file_replace(place->folder, SLICE("x"), &error));
    assert_int_equal(stat(place->folder, &status), 0);
    assert_int_equal(status.st_nlink, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lines_are_appended_to_a_private_file),
        TEST(a_file_has_one_writer),
        TEST(what_cannot_be_opened_is_said),
        TEST(a_torn_last_line_is_cut_off_at_opening),
        TEST(a_torn_line_may_be_long),
        TEST(a_file_that_is_none_of_lines_is_left_alone),
        TEST(a_write_that_fails_is_undone_and_works_later),
        TEST(a_full_device_is_an_error),
        TEST(after_reopen_the_path_is_written_anew),
        TEST(a_named_pipe_takes_more_than_fits_into_it),
        TEST(a_pipe_whose_reader_left_is_an_error_until_another_comes),
        TEST(lines_of_threads_do_not_mix_on_the_standard_output),
        TEST(a_closed_standard_output_is_an_error),
        TEST(replacing_is_whole_and_private),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
