/* llmproxy.file, llmproxy.log and llmproxy.time as Lua code meets them. */
#include "fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include "base/buffer.h"
#include "base/file.h"
#include "base/log.h"

struct place {
    struct fixture fixture;
    char folder[64];
};

static int set_up(void **state)
{
    static struct place place;
    fixture_set_up(&place.fixture, (struct script_settings){0});
    snprintf(place.folder, sizeof place.folder, "/tmp/test_modules_XXXXXX");
    assert_non_null(mkdtemp(place.folder));
    lua_pushstring(script_lua(place.fixture.script), place.folder);
    lua_setglobal(script_lua(place.fixture.script), "folder");
    *state = &place;
    return 0;
}

static int tear_down(void **state)
{
    char command[100];
    struct place *place = *state;
    fixture_tear_down(&place->fixture);
    snprintf(command, sizeof command, "rm -r %s", place->folder);
    return system(command);
}

static void files_are_appended_read_and_replaced(void **state)
{
    struct place *place = *state;
    expect_task(
        &place->fixture,
        "local file = require 'llmproxy.file' local path = folder .. '/lines' "
        "local handle = assert(file.append(path)) assert(handle:write 'one\\n' == true and "
        "handle:write 'two\\n') "
        "assert(file.read(path) == 'one\\ntwo\\n') "
        "local none, message = file.append(path) assert(none == nil and message:find('another "
        "process, pipeline or handle', 1, true), message) "
        "handle:close() handle:close() "
        "local wrote, reason = pcall(handle.write, handle, 'x') assert(not wrote and "
        "reason:find('file:write: the file is closed', 1, true), reason) "
        "assert(file.replace(path, 'new\\0content') == true and file.read(path) == 'new\\0content') "
        "none, message = file.read(folder .. '/missing') assert(none == nil and "
        "message:find('missing: No such file', 1, true), message) "
        "none, message = file.replace(folder .. '/missing/file', 'x') assert(none == nil and "
        "message:find('does not exist', 1, true), message) "
        "none, message = file.append(folder) assert(none == nil and message:find('directory', 1, true), "
        "message)");
}

static void a_handle_that_is_forgotten_gives_the_file_free(void **state)
{
    struct place *place = *state;
    expect_task(&place->fixture, "assert(require('llmproxy.file').append(folder .. '/lines'))");
    lua_gc(script_lua(place->fixture.script), LUA_GCCOLLECT, 0);
    lua_gc(script_lua(place->fixture.script), LUA_GCCOLLECT, 0);
    expect_task(&place->fixture, "assert(require('llmproxy.file').append(folder .. '/lines')):close()");
}

static void files_are_opened_anew_when_asked(void **state)
{
    struct place *place = *state;
    char from[100], to[100];
    snprintf(from, sizeof from, "%s/lines", place->folder);
    snprintf(to, sizeof to, "%s/lines.1", place->folder);
    expect_task(
        &place->fixture,
        "handle = assert(require('llmproxy.file').append(folder .. '/lines')) assert(handle:write 'one\\n')");
    assert_int_equal(rename(from, to), 0);
    script_reopen_files(place->fixture.script);
    expect_task(
        &place->fixture,
        "assert(handle:write 'two\\n') assert(handle:write 'three\\n') local file = require 'llmproxy.file' "
        "assert(file.read(folder .. '/lines.1') == 'one\\n' and file.read(folder .. '/lines') == "
        "'two\\nthree\\n')");
}

static void *read_late(void *argument)
{
    char bytes[4096];
    int fd = open(argument, O_RDONLY);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    while (read(fd, bytes, sizeof bytes) > 0) {
    }
    close(fd);
    return NULL;
}

static void a_slow_reader_does_not_make_code_run_away(void **state)
{
    struct place *place = *state;
    struct fixture fixture;
    char path[100];
    pthread_t reader;
    snprintf(path, sizeof path, "%s/pipe", place->folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(pthread_create(&reader, NULL, read_late, path), 0);
    fixture_set_up(&fixture, (struct script_settings){.watchdog_seconds = 0.1});
    lua_pushstring(script_lua(fixture.script), path);
    lua_setglobal(script_lua(fixture.script), "path");
    expect_task(&fixture, "local file, time, handle = require 'llmproxy.file', require 'llmproxy.time' "
                          "repeat handle = file.append(path) time.sleep(0) until handle "
                          "assert(handle:write(('x'):rep(300000) .. '\\n')) local n = 0 "
                          "for i = 1, 1000 do n = n + i end handle:close()");
    assert_int_equal(pthread_join(reader, NULL), 0);
    fixture_tear_down(&fixture);
}

static void no_file_is_touched_while_plugins_are_loaded(void **state)
{
    static const char *const calls[] = {"append(folder .. '/lines')", "read(folder .. '/lines')",
                                        "replace(folder .. '/lines', 'x')", "stdout():write('x')"};
    struct place *place = *state;
    expect_call(&place->fixture, "require('llmproxy.file').stdout():close()");
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        char code[100];
        snprintf(code, sizeof code, "require('llmproxy.file').%s", calls[i]);
        assert_false(fixture_call(&place->fixture, code));
        expect_message(&place->fixture, "cannot be called here: only while a pipeline runs");
    }
    assert_int_equal(rmdir(place->folder), 0);
    assert_int_equal(mkdir(place->folder, 0700), 0);
}

static void arguments_are_named_when_they_are_wrong(void **state)
{
    static const struct {
        const char *code, *message;
    } cases[] = {
        {"require('llmproxy.time').sleep('1')",
         "llmproxy.time.sleep: seconds: expected a number, got string"},
        {"require('llmproxy.time').sleep()", "llmproxy.time.sleep: seconds: expected a number, got nothing"},
        {"require('llmproxy.time').sleep(-1)", "llmproxy.time.sleep: seconds: expected 0 or more"},
        {"require('llmproxy.time').sleep(0 / 0)", "llmproxy.time.sleep: seconds: expected 0 or more"},
        {"require('llmproxy.time').sleep(math.huge)", "llmproxy.time.sleep: seconds: expected 0 or more"},
        {"require('llmproxy.time').rfc3339(-1)", "llmproxy.time.rfc3339: t: expected seconds since 1970"},
        {"require('llmproxy.time').rfc3339(1e300)", "llmproxy.time.rfc3339: t: expected seconds since 1970"},
        {"require('llmproxy.time').parse({})", "llmproxy.time.parse: text: expected a string, got table"},
        {"require('llmproxy.file').append(nil)", "llmproxy.file.append: path: expected a string, got nil"},
        {"require('llmproxy.file').append('a\\0b')", "llmproxy.file.append: path: must not contain NUL"},
        {"require('llmproxy.file').append('a', 1)",
         "llmproxy.file.append: options: expected a table, got number"},
        {"require('llmproxy.file').append('a', { keeps = 1 })",
         "llmproxy.file.append: options: unknown 'keeps'; there are max_bytes, max_age, keep, compress"},
        {"require('llmproxy.file').append('a', { 1 })", "llmproxy.file.append: options: a name is a number"},
        {"require('llmproxy.file').append('a', { max_bytes = '1MiB' })",
         "llmproxy.file.append: max_bytes: expected a number, got string"},
        {"require('llmproxy.file').append('a', { max_age = 0 })",
         "llmproxy.file.append: max_age: expected a number from 0.001 to 1000000000"},
        {"require('llmproxy.file').append('a', { max_bytes = 1, keep = 0 })",
         "llmproxy.file.append: keep: expected a number from 1 to 1000000"},
        {"require('llmproxy.file').append('a', { max_bytes = 1, compress = true })",
         "llmproxy.file.append: compress: expected \"gzip\""},
        {"require('llmproxy.file').append('a', { keep = 1 })",
         "llmproxy.file.append: options: keep and compress need max_bytes or max_age"},
        {"require('llmproxy.file').replace('x')",
         "llmproxy.file.replace: text: expected a string, got nothing"},
        {"require('llmproxy.file').stdout().write('x')",
         "file:write: call it with a colon, as in handle:write(text)"},
        {"require('llmproxy.log').info()", "llmproxy.log.info: message: expected a string, got nothing"},
        {"require('llmproxy.log').warn('x', 1)", "llmproxy.log.warn: fields: expected a table, got number"},
        {"require('llmproxy.log').error('x', { a = print })",
         "llmproxy.log.error: fields.a: expected a string, a number, a boolean or a table, got function"},
        {"require('llmproxy.log').debug('x', { a = print })",
         "llmproxy.log.debug: fields.a: expected a string, a number, a boolean or a table, got function"},
        {"require('llmproxy.log').debug('x', { 1 })", "llmproxy.log.debug: fields: a name is a number"},
        {"local many = {} for i = 1, 33 do many['f' .. i] = i end require('llmproxy.log').info('x', many)",
         "llmproxy.log.info: fields: more than 32"},
    };
    struct place *place = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_false(fixture_task(&place->fixture, cases[i].code));
        expect_message(&place->fixture, cases[i].message);
    }
}

static void times_are_written_and_read(void **state)
{
    struct place *place = *state;
    expect_call(&place->fixture, "local time = require 'llmproxy.time' "
                                 "assert(time.rfc3339(0) == '1970-01-01T00:00:00.000000Z' and "
                                 "time.rfc3339(1767323045.678901) == '2026-01-02T03:04:05.678901Z') "
                                 "assert(time.parse '2026-01-02T03:04:05.678901Z' == 1767323045.678901 and "
                                 "time.parse '2026-01-02T04:04:05+01:00' == 1767323045) "
                                 "assert(time.parse 'Fri, 02 Jan 2026 03:04:05 GMT' == 1767323045) "
                                 "local t, message = time.parse 'yesterday' assert(t == nil and "
                                 "message:find(\"'yesterday'\", 1, true)) "
                                 "local now = time.now() assert(now > 1.7e9 and now < 2.5e11 and "
                                 "math.abs(time.parse(time.rfc3339(now)) - now) < 2e-6) "
                                 "local before = time.monotonic() assert(time.monotonic() >= before)");
}

/* Runs code with the standard error in a file; returns what was logged. */
static char *logged(struct place *place, const char *code)
{
    struct error error;
    struct buffer content = {0};
    char path[100];
    snprintf(path, sizeof path, "%s/log", place->folder);
    int saved = dup(STDERR_FILENO), fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(fd, STDERR_FILENO);
    bool called = fixture_call(&place->fixture, code);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fd);
    if (!called) {
        fail_msg("%s", place->fixture.message);
    }
    assert_true(file_read(path, 1 << 20, &content, &error));
    return buffer_take_string(&content);
}

static void log_lines_have_the_pipeline_and_sorted_fields(void **state)
{
    struct place *place = *state;
    log_configure(LOG_INFO, LOG_JSON);
    char *text =
        logged(place, "local log, json = require 'llmproxy.log', require 'llmproxy.json' "
                      "log.debug('hidden') log.warn('seen', { number = 1.5, count = 3, name = 'a b', flag "
                      "= true, nothing = json.null }) print('printed', 1, nil, { } ~= nil)");
    log_configure(LOG_INFO, LOG_TEXT);
    assert_null(strstr(text, "hidden"));
    assert_non_null(strstr(text, "\"level\":\"warn\",\"message\":\"seen\",\"pipeline\":\"test\",\"count\":3,"
                                 "\"flag\":true,\"name\":\"a b\",\"nothing\":null,\"number\":1.5}"));
    const char *printed = strstr(text, "\"level\":\"info\",\"message\":\"printed");
    assert_non_null(printed);
    assert_non_null(strstr(printed, "nil"));
    assert_non_null(strstr(printed, "true\",\"pipeline\":\"test\"}"));
    free(text);
}

static void log_fields_may_be_nested_within_limits(void **state)
{
    static const char code[] =
        "local log, json = require 'llmproxy.log', require 'llmproxy.json' local itself = {} itself.a = "
        "itself "
        "log.info('nested', { a = { b = { 1, true, json.null }, c = 'x\\ty' }, e = {}, f = json.array(), g = "
        "{ print }, "
        "h = itself }) log.info('long', { json = { ('x'):rep(5000) }, text = ('ü'):rep(3000) })";
    struct place *place = *state;
    log_configure(LOG_INFO, LOG_JSON);
    char *text = logged(place, code);
    log_configure(LOG_INFO, LOG_TEXT);
    assert_non_null(strstr(text, "\"message\":\"nested\",\"pipeline\":\"test\",\"a\":{\"b\":[1,true,null],"
                                 "\"c\":\"x\\ty\"},\"e\":{},\"f\":[],"
                                 "\"g\":\"[1]: cannot be written as JSON: a function\","
                                 "\"h\":\"a: cannot be written as JSON: a table that contains itself\"}"));
    const char *line = strstr(text, "\"message\":\"long\"");
    assert_non_null(line);
    assert_non_null(strstr(line, "\"json\":\"[\\\"xxx"));
    assert_non_null(strstr(line, "xxx…\",\"text\":\"üüü"));
    assert_non_null(strstr(line, "üüü…\"}"));
    assert_in_range(strlen(line), 8192, 8400);
    free(text);
    text = logged(place, code);
    assert_non_null(strstr(text, "nested pipeline=test a=\"{\\\"b\\\":[1,true,null],\\\"c\\\":"));
    free(text);
}

static void log_lines_are_limited(void **state)
{
    struct place *place = *state;
    char *text = logged(place, "local log = require 'llmproxy.log' for i = 1, 5000 do log.info('flood') end");
    size_t lines = 0;
    for (const char *at = text; (at = strstr(at, "flood")) != NULL; at++) {
        lines++;
    }
    assert_in_range(lines, 100, 1000); /* more than 100 only when a slow machine took seconds */
    free(text);
    text = logged(place, "for i = 1, 5000 do print('flood') end");
    lines = 0;
    for (const char *at = text; (at = strstr(at, "flood")) != NULL; at++) {
        lines++;
    }
    assert_in_range(lines, 100, 1000);
    free(text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(files_are_appended_read_and_replaced),
        TEST(a_handle_that_is_forgotten_gives_the_file_free),
        TEST(files_are_opened_anew_when_asked),
        TEST(a_slow_reader_does_not_make_code_run_away),
        TEST(no_file_is_touched_while_plugins_are_loaded),
        TEST(arguments_are_named_when_they_are_wrong),
        TEST(times_are_written_and_read),
        TEST(log_lines_have_the_pipeline_and_sorted_fields),
        TEST(log_fields_may_be_nested_within_limits),
        TEST(log_lines_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
