/* Rotation of files of lines: when they are moved away, what is kept of them, and that nothing is lost or deleted that should not be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/file.h"
#include "script/compress.h"
#include "script/line_file.h"

#define LONGEST_WAIT_MS 30000

struct place {
    char folder[64], path[80];
};

static int set_up(void **state)
{
    static struct place place;
    snprintf(place.folder, sizeof place.folder, "/tmp/test_rotated_files_XXXXXX");
    assert_non_null(mkdtemp(place.folder));
    snprintf(place.path, sizeof place.path, "%s/events.jsonl", place.folder);
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

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static struct line_file *open_rotated(const char *path, struct rotation rotation)
{
    struct error error;
    struct line_file *file = line_file_open(path, &rotation, &error);
    if (file == NULL) {
        fail_msg("%s", error.message);
    }
    return file;
}

static void write_line(struct line_file *file, const char *text)
{
    struct error error;
    if (!line_file_write(file, slice_of(text), &error)) {
        fail_msg("%s", error.message);
    }
}

static void put(const char *folder, const char *name, struct slice content)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fwrite(content.data, 1, content.size, file);
    fclose(file);
}

static void expect_content(const char *folder, const char *name, const char *expected)
{
    char path[300];
    struct error error;
    struct buffer content = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!file_read(path, 1 << 20, &content, &error)) {
        fail_msg("%s", error.message);
    }
    char *text = buffer_take_string(&content);
    assert_string_equal(text, expected);
    free(text);
}

static bool exists(const char *folder, const char *name)
{
    char path[300];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return lstat(path, &status) == 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The names that begin with this, sorted. */
static size_t list(const char *folder, const char *prefix, char names[][64], size_t room)
{
    size_t count = 0;
    DIR *stream = opendir(folder);
    assert_non_null(stream);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && count < room) {
            snprintf(names[count++], 64, "%.63s", entry->d_name);
        }
    }
    closedir(stream);
    qsort(names, count, 64, compare_names);
    return count;
}

/* Until there are so many rotated files that end so. */
static void wait_for_files(const char *folder, size_t wanted, const char *ending, char names[][64])
{
    for (int waited = 0; waited < LONGEST_WAIT_MS; waited += 5) {
        size_t count = list(folder, "events.jsonl-", names, 20), right = 0;
        for (size_t i = 0; i < count; i++) {
            size_t size = strlen(names[i]);
            right += size >= strlen(ending) && strcmp(names[i] + size - strlen(ending), ending) == 0;
        }
        if (count == wanted && right == wanted) {
            return;
        }
        sleep_ms(5);
    }
    fail_msg("there never were %zu files that end in %s", wanted, ending);
}

static void a_file_is_moved_away_before_it_grows_too_large(void **state)
{
    struct place *place = *state;
    char names[20][64];
    struct line_file *file = open_rotated(place->path, (struct rotation){.max_bytes = 8});
    write_line(file, "one\n");
    write_line(file, "two\n");
    assert_int_equal(list(place->folder, "events.jsonl-", names, 20), 0);
    write_line(file, "a line larger than that\nand another\n");
    write_line(file, "3\n");
    line_file_close(file);
    file = open_rotated(place->path, (struct rotation){.max_bytes = 8});
    write_line(file, "4\n");
    write_line(file, "fifth\n");
    line_file_close(file);
    assert_int_equal(list(place->folder, "events.jsonl-", names, 20), 3);
    expect_content(place->folder, names[0], "one\ntwo\n");
    expect_content(place->folder, names[1], "a line larger than that\nand another\n");
    expect_content(place->folder, names[2], "3\n4\n");
    expect_content(place->folder, "events.jsonl", "fifth\n");
    assert_int_equal(strlen(names[0]), strlen("events.jsonl-20251009T085322.678Z"));
}

static void a_name_is_not_used_again_when_its_file_is_gone(void **state)
{
    struct place *place = *state;
    char *latest = NULL;
    struct rotated_files *files = rotated_files_new(place->path, &(struct rotation){.max_bytes = 1});
    for (int i = 0; i < 1000; i++) { /* many within a millisecond */
        char *name = rotated_files_next_name(files);
        assert_true(latest == NULL || strcmp(latest, name) < 0);
        free(latest);
        latest = name;
    }
    free(latest);
    rotated_files_free(files);
}

static void a_new_file_has_the_mode_of_the_old_one(void **state)
{
    struct place *place = *state;
    struct stat status;
    struct line_file *file = open_rotated(place->path, (struct rotation){.max_bytes = 1});
    write_line(file, "one\n");
    assert_int_equal(chmod(place->path, 0640), 0);
    write_line(file, "two\n");
    line_file_close(file);
    assert_int_equal(stat(place->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
    expect_content(place->folder, "events.jsonl", "two\n");
}

static void a_file_is_moved_away_when_it_is_old(void **state)
{
    struct place *place = *state;
    char names[20][64];
    struct line_file *file = open_rotated(place->path, (struct rotation){.max_age = 3600});
    write_line(file, "one\n");
    write_line(file, "two\n");
    line_file_close(file);
    assert_int_equal(list(place->folder, "events.jsonl-", names, 20), 0);
    file = open_rotated(place->path, (struct rotation){.max_age = 0.05});
    sleep_ms(60);
    write_line(file, "three\n");
    line_file_close(file);
    assert_int_equal(list(place->folder, "events.jsonl-", names, 20), 1);
    expect_content(place->folder, names[0], "one\ntwo\n");
    expect_content(place->folder, "events.jsonl", "three\n");
}

static void the_newest_are_kept_and_nothing_else_is_deleted(void **state)
{
    static const char *const others[] = {
        "events.jsonl.1",
        "events.jsonl-20200101",
        "events.jsonl-20200101T000000.000Z.bak",
        "events.jsonl-20200101T000000Z",
        "events.jsonl-2020x101T000000.000Z",
        "other.jsonl-20200101T000000.000Z",
        "1events.jsonl-20200101T000000.000Z",
    };
    struct place *place = *state;
    char names[20][64], target[120], link_path[120];
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        put(place->folder, others[i], SLICE("kept"));
    }
    snprintf(target, sizeof target, "%s/target", place->folder);
    snprintf(link_path, sizeof link_path, "%s/events.jsonl-20200202T000000.000Z", place->folder);
    put(place->folder, "target", SLICE("kept"));
    assert_int_equal(symlink(target, link_path), 0);
    put(place->folder, "events.jsonl-20200101T000000.000Z", SLICE("old"));
    put(place->folder, "events.jsonl-20200101T000000.001Z.gz", SLICE("old"));
    put(place->folder, "events.jsonl-20200101T000000.001Z.gz.part", SLICE("old"));

    struct line_file *file = open_rotated(place->path, (struct rotation){.max_bytes = 1, .keep = 2});
    for (int i = 0; i < 5; i++) {
        char line[8];
        snprintf(line, sizeof line, "%d\n", i);
        write_line(file, line);
    }
    for (int waited = 0; list(place->folder, "events.jsonl-2", names, 20) != 7; waited += 5) {
        assert_true(waited < LONGEST_WAIT_MS); /* four of others, the link, two kept */
        sleep_ms(5);
    }
    line_file_close(file);
    expect_content(place->folder, names[5], "2\n");
    expect_content(place->folder, names[6], "3\n");
    expect_content(place->folder, "events.jsonl", "4\n");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        expect_content(place->folder, others[i], "kept");
    }
    expect_content(place->folder, "target", "kept");
    assert_true(exists(place->folder, "events.jsonl-20200202T000000.000Z"));
    assert_false(exists(place->folder, "events.jsonl-20200101T000000.001Z.gz.part"));
}

static void expect_compressed(const char *folder, const char *name, const char *expected)
{
    char path[300];
    struct error error;
    struct buffer content = {0}, plain = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_true(file_read(path, 1 << 20, &content, &error));
    assert_null(gzip_decode(buffer_slice(&content), 1 << 20, &plain));
    assert_true(slice_equal(buffer_slice(&plain), slice_of(expected)));
    buffer_free(&content);
    buffer_free(&plain);
}

static void rotated_files_are_compressed(void **state)
{
    struct place *place = *state;
    struct stat status;
    char names[20][64], path[300];
    struct line_file *file =
        open_rotated(place->path, (struct rotation){.max_bytes = 1, .keep = 2, .compress = true});
    write_line(file, "one\n");
    assert_int_equal(chmod(place->path, 0640), 0);
    write_line(file, "two\n");
    wait_for_files(place->folder, 1, "Z.gz", names);
    expect_compressed(place->folder, names[0], "one\n");
    snprintf(path, sizeof path, "%s/%s", place->folder, names[0]);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
    write_line(file, "three\n");
    wait_for_files(place->folder, 2, "Z.gz", names);
    write_line(file, "four\n");
    for (int waited = 0; exists(place->folder, names[0]); waited += 5) {
        assert_true(waited < LONGEST_WAIT_MS);
        sleep_ms(5);
    }
    wait_for_files(place->folder, 2, "Z.gz", names);
    expect_compressed(place->folder, names[0], "two\n");
    expect_compressed(place->folder, names[1], "three\n");
    line_file_close(file);
}

static void what_an_end_interrupted_is_finished_by_the_next_start(void **state)
{
    struct place *place = *state;
    struct buffer whole = {0};
    char names[20][64];
    assert_null(gzip_encode(SLICE("second\n"), 6, &whole));
    put(place->folder, "events.jsonl-20200101T000000.001Z", SLICE("first\n"));
    put(place->folder, "events.jsonl-20200101T000000.001Z.gz.part", SLICE("half of it"));
    put(place->folder, "events.jsonl-20200101T000000.002Z", SLICE("second\n"));
    put(place->folder, "events.jsonl-20200101T000000.002Z.gz", buffer_slice(&whole));
    put(place->folder, "events.jsonl-20200101T000000.003Z", SLICE(""));
    struct line_file *file = open_rotated(place->path, (struct rotation){.max_age = 3600, .compress = true});
    wait_for_files(place->folder, 3, "Z.gz", names);
    line_file_close(file);
    expect_compressed(place->folder, names[0], "first\n");
    expect_compressed(place->folder, names[1], "second\n");
    expect_compressed(place->folder, names[2], "");
    buffer_free(&whole);
}

/* Writes lines with ascending numbers, and a byte to the pipe behind each, until it is killed. */
static _Noreturn void write_until_killed(const char *path, int first, int pipe)
{
    struct error error;
    struct line_file *file =
        line_file_open(path, &(struct rotation){.max_bytes = 100, .compress = true}, &error);
    for (int i = first; file != NULL; i++) {
        char line[16];
        snprintf(line, sizeof line, "%d\n", i);
        if (!line_file_write(file, slice_of(line), &error) || write(pipe, ".", 1) != 1) {
            break;
        }
    }
    _exit(1);
}

/* Kills a writer when so many lines are known to be written. */
static void kill_after(const char *path, int first, int lines)
{
    int ends[2], status;
    char byte;
    assert_int_equal(pipe(ends), 0);
    fcntl(ends[1], F_SETPIPE_SZ, 4096); /* how far the writer can get ahead */
    pid_t child = fork();
    if (child == 0) {
        write_until_killed(path, first, ends[1]);
    }
    close(ends[1]);
    for (int i = 0; i < lines; i++) {
        assert_int_equal(read(ends[0], &byte, 1), 1);
    }
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(ends[0]);
}

/* Checks that the lines of all files are ascending numbers; returns how many there are. */
static int count_lines(const char *folder, char names[][64], size_t count)
{
    int lines = 0;
    for (size_t i = 0; i <= count; i++) {
        char path[200];
        struct error error;
        struct buffer content = {0}, plain = {0};
        bool current = i == count;
        snprintf(path, sizeof path, "%s/%s", folder, current ? "events.jsonl" : names[i]);
        assert_true(file_read(path, 1 << 20, &content, &error));
        if (!current) {
            assert_null(gzip_decode(buffer_slice(&content), 1 << 20, &plain));
        }
        char *text = buffer_take_string(current ? &content : &plain), *end;
        for (char *at = text; *at != '\0'; at = end + 1) {
            assert_int_equal(strtol(at, &end, 10), lines++);
            assert_int_equal(*end, '\n');
        }
        free(text);
        buffer_free(&content);
    }
    return lines;
}

static void a_crash_loses_no_line_and_doubles_none(void **state)
{
    static char names[4000][64];
    struct place *place = *state;
    int lines = 0;
    for (int round = 0; round < 12; round++) {
        kill_after(place->path, lines, 40 + 13 * round);
        struct line_file *file =
            open_rotated(place->path, (struct rotation){.max_bytes = 100, .compress = true});
        size_t rotated;
        for (int waited = 0;; waited += 5) { /* until all are compressed */
            size_t left = 0;
            rotated = list(place->folder, "events.jsonl-", names, 4000);
            for (size_t i = 0; i < rotated; i++) {
                left += strcmp(names[i] + strlen(names[i]) - 4, "Z.gz") != 0;
            }
            if (left == 0) {
                break;
            }
            assert_true(waited < LONGEST_WAIT_MS);
            sleep_ms(5);
        }
        line_file_close(file);
        int now = count_lines(place->folder, names, rotated);
        assert_true(now >= lines + 40 + 13 * round);
        lines = now;
    }
}

static void a_rotated_file_that_is_in_use_is_left_alone(void **state)
{
    struct place *place = *state;
    char names[20][64], path[300];
    put(place->folder, "events.jsonl-20200101T000000.001Z", SLICE("in use\n"));
    put(place->folder, "events.jsonl-20200101T000000.002Z", SLICE("not in use\n"));
    snprintf(path, sizeof path, "%s/events.jsonl-20200101T000000.001Z", place->folder);
    int user = open(path, O_RDONLY);
    assert_int_equal(flock(user, LOCK_EX), 0);
    struct line_file *file = open_rotated(place->path, (struct rotation){.max_bytes = 1, .compress = true});
    for (int waited = 0; exists(place->folder, "events.jsonl-20200101T000000.002Z"); waited += 5) {
        assert_true(waited < LONGEST_WAIT_MS);
        sleep_ms(5);
    }
    expect_content(place->folder, "events.jsonl-20200101T000000.001Z", "in use\n");
    close(user);
    write_line(file, "one\n");
    write_line(file, "two\n");
    wait_for_files(place->folder, 3, "Z.gz", names);
    line_file_close(file);
}

static void where_nothing_can_be_moved_lines_are_written_all_the_same(void **state)
{
    struct place *place = *state;
    char name[251], path[400];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0'; /* with a moment behind it, it is too long for a file system */
    snprintf(path, sizeof path, "%s/%s", place->folder, name);
    struct line_file *file = open_rotated(path, (struct rotation){.max_bytes = 1, .keep = 1});
    write_line(file, "one\n");
    write_line(file, "two\n");
    line_file_close(file);
    expect_content(place->folder, name, "one\ntwo\n");
}

static void what_another_tool_moved_is_not_moved_again(void **state)
{
    struct place *place = *state;
    char names[20][64], path[120];
    struct line_file *file = open_rotated(place->path, (struct rotation){.max_bytes = 1});
    write_line(file, "one\n");
    snprintf(path, sizeof path, "%s.1", place->path);
    assert_int_equal(rename(place->path, path), 0);
    put(place->folder, "events.jsonl", SLICE("made by that tool\n"));
    write_line(file, "two\n");
    line_file_close(file);
    expect_content(place->folder, "events.jsonl.1", "one\n");
    expect_content(place->folder, "events.jsonl", "made by that tool\ntwo\n");
    assert_int_equal(list(place->folder, "events.jsonl-", names, 20), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_moved_away_before_it_grows_too_large),
        TEST(a_name_is_not_used_again_when_its_file_is_gone),
        TEST(a_new_file_has_the_mode_of_the_old_one),
        TEST(a_file_is_moved_away_when_it_is_old),
        TEST(the_newest_are_kept_and_nothing_else_is_deleted),
        TEST(rotated_files_are_compressed),
        TEST(what_an_end_interrupted_is_finished_by_the_next_start),
        TEST(a_crash_loses_no_line_and_doubles_none),
        TEST(a_rotated_file_that_is_in_use_is_left_alone),
        TEST(where_nothing_can_be_moved_lines_are_written_all_the_same),
        TEST(what_another_tool_moved_is_not_moved_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
