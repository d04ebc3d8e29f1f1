/*
 * Plugins: found in order of the folders, validated when loaded, and described. The code is lua/llmproxy/plugins.lua, seen through the configuration.
 */
#include "fixture.h"

#define TRANSFORM                                                                                            \
    "return { kind = 'transform', api = 1, summary = 'Mine.', new = function() return function(event) "      \
    "return event end end }"

/* A configuration whose one pipeline uses this transform, with a plugin folder beside it. */
static const char *using(const char *transform)
{
    static char text[500];
    snprintf(text, sizeof text,
             "return { plugin_path = { 'plugins' }, observability = { pipelines = { { name = 'a', transforms "
             "= { %s }, dispatcher = 'stdout' } } } }",
             transform);
    return text;
}

static void a_folder_of_ones_own_comes_before_the_stock_plugins(void **state)
{
    (void)state;
    write_file("plugins/transforms/llm.lua", TRANSFORM);
    struct config *config = load_well(using("'llm'"));
    assert_string_equal(config->plugin_folders[0], path_of("plugins"));
    assert_string_equal(config->plugin_folders[1], SOURCE_DIR "/plugins");
    assert_null(config->plugin_folders[2]);
    config_free(config);

    struct buffer text = {0};
    buffer_clear(&errors);
    assert_true(config_describe_plugins(
        &(struct config_source){.file = path_of("config.lua"), .folder = SOURCE_DIR}, "llm", &text, &errors));
    buffer_append_char(&text, '\0');
    assert_contains(buffer_data(&text), "Mine.");
    assert_contains(buffer_data(&text), "/plugins/transforms/llm.lua");
    buffer_free(&text);
    remove(path_of("plugins/transforms/llm.lua"));
}

static void the_environments_folders_come_first(void **state)
{
    (void)state;
    write_file("other/transforms/own.lua", TRANSFORM);
    write_file("other/lib/names.lua", "return { level = 'warn' }");
    setenv("LLM_PROXY_PLUGINS", path_of("other"), 1);
    struct config *config = load_well("return { log = { level = require('names').level }, observability = { "
                                      "pipelines = { { name = 'a', transforms = { 'own' },"
                                      " dispatcher = 'stdout' } } } }");
    assert_string_equal(config->plugin_folders[0], path_of("other"));
    assert_int_equal(config->log_level, LOG_WARN);
    config_free(config);
    setenv("LLM_PROXY_PLUGINS", path_of("missing"), 1);
    assert_one_error("return {}", "LLM_PROXY_PLUGINS: expected a folder, '");
}

static void a_plugin_can_require_from_lib_of_its_folder(void **state)
{
    (void)state;
    write_file("plugins/lib/a/b.lua", "return { run = function(event) return event end }");
    write_file("plugins/transforms/library.lua",
               "local b = require 'a.b' assert(b == require('a.b'))\n"
               "return { kind = 'transform', api = 1, new = function() return b.run end }");
    config_free(load_well(using("'library'")));
    write_file("plugins/transforms/circle.lua", "require 'one'");
    write_file("plugins/lib/one.lua", "return require 'two'");
    write_file("plugins/lib/two.lua", "return require 'one'");
    assert_one_error(using("'circle'"), "module 'one' requires itself");
    write_file("plugins/transforms/lost.lua", "\nrequire 'nowhere'");
    assert_one_error(using("'lost'"), "/lost.lua:2: module 'nowhere' not found");
}

static void a_broken_plugin_is_told_with_file_and_line(void **state)
{
    (void)state;
    write_file("plugins/transforms/syntax.lua", "return {\n kind = = }");
    assert_one_error(using("'syntax'"), "/plugins/transforms/syntax.lua:2: ");
    write_file("plugins/transforms/raises.lua", "\nlocal nothing; return nothing.x");
    assert_one_error(using("'raises'"), "/plugins/transforms/raises.lua:2: ");
    write_file(
        "plugins/transforms/new.lua",
        "return { kind = 'transform', api = 1, new = function(settings)\n error('no such thing') end }");
    assert_one_error(
        using("'new'"),
        "/plugins/transforms/new.lua:2: no such thing (new of observability.pipelines[1].transforms[1])");
    write_file(
        "plugins/transforms/waits.lua",
        "return { kind = 'transform', api = 1, new = function() require('llmproxy.time').sleep(1) end }");
    assert_one_error(using("'waits'"), "cannot wait here");
}

static void what_a_plugin_must_be_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"return 5", "expected the file to return a table, got 5"},
        {"return { kind = 'dispatcher', api = 1, new = print }",
         "kind: expected \"transform\" in this folder, got \"dispatcher\""},
        {"return { kind = 'transform', api = 2, other = true }",
         "api: expected 1, got 2: the plugin was written for a newer llm-proxy"},
        {"return { kind = 'transform', new = print }", "api: expected 1, got nothing"},
        {"return { kind = 'transform', api = 1 }", "new: expected a function, got nothing"},
        {"return { kind = 'transform', api = 1, new = print, summary = 5 }",
         "summary: expected a string, got 5"},
        {"return { kind = 'transform', api = 1, new = print, batch = {} }",
         "batch: only a dispatcher or a bus has batches"},
        {"return { kind = 'transform', api = 1, new = print, setings = {} }",
         "setings: unknown key, did you mean 'settings'?"},
        {"return { kind = 'transform', api = 1, new = print, settings = { a = { type = 'strin' } } }",
         "did you mean 'string'?"},
        {"return { kind = 'transform', api = 1, new = function() return 1 end }",
         "new: expected it to return a function of an event, got a number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file("plugins/transforms/case.lua", cases[i].text);
        assert_one_error(using("'case'"), cases[i].expected);
        assert_contains(buffer_data(&errors), "/plugins/transforms/case.lua: ");
    }
}

static void a_dispatcher_must_be_able_to_deliver(void **state)
{
    (void)state;
    const char *text = "return { plugin_path = { 'plugins' }, observability = { pipelines = { { name = 'a', "
                       "dispatcher = 'case' } } } }";
    write_file("plugins/dispatchers/case.lua",
               "return { kind = 'dispatcher', api = 1, new = function() return {} end }");
    assert_one_error(text, "case.lua: new: expected deliver to be a function, got nothing");
    write_file("plugins/dispatchers/case.lua",
               "return { kind = 'dispatcher', api = 1, new = function() end }");
    assert_one_error(text,
                     "case.lua: new: expected it to return a table with the function deliver, got nothing");
    write_file("plugins/dispatchers/case.lua", "return { kind = 'dispatcher', api = 1, new = function() "
                                               "return { deliver = print, close = 1 } end }");
    assert_one_error(text, "case.lua: new: expected close to be a function, got a number");
    write_file("plugins/dispatchers/case.lua", "return { kind = 'dispatcher', api = 1, batch = { max_event = "
                                               "1 }, new = function() return { deliver = print } end }");
    assert_one_error(text, "case.lua: batch.max_event: unknown key, did you mean 'max_events'?");
}

static void a_reference_must_name_a_plugin_there_is(void **state)
{
    (void)state;
    write_file("plugins/transforms/own.lua", TRANSFORM);
    assert_one_error(using("'onw'"), "no transform 'onw', did you mean 'own'? (searched: ");
    assert_one_error(using("'webhook'"), "no transform 'webhook', it is a dispatcher");
    assert_one_error(using("'../transforms/own'"), "no transform '../transforms/own'");
    assert_one_error(using("{ 5 }"), "got a table without a name as its first value");
    assert_one_error(using("true"), "observability.pipelines[1].transforms[1]: expected a transform");
    assert_one_error(using("{ 'own', 'extra' }"), "observability.pipelines[1].transforms[1][2]: unknown key");
}

static void paths_in_settings_are_below_the_files_folder(void **state)
{
    (void)state;
    write_file("plugins/transforms/path.lua",
               "return { kind = 'transform', api = 1, settings = { path = { type = 'path' } },"
               " new = function(settings) error(settings.path, 0) end }");
    assert_one_error(using("{ 'path', path = 'x/y' }"), path_of("x/y"));
}

static void the_list_leaves_out_broken_plugins_and_says_so(void **state)
{
    (void)state;
    write_file("list/transforms/good.lua", TRANSFORM);
    write_file("list/transforms/broken.lua", "return");
    write_file("list/transforms/notes.txt", "no plugin");
    setenv("LLM_PROXY_PLUGINS", path_of("list"), 1);
    struct buffer text = {0};
    buffer_clear(&errors);
    assert_false(
        config_describe_plugins(&(struct config_source){.folder = SOURCE_DIR}, NULL, &text, &errors));
    buffer_append_char(&text, '\0');
    buffer_append_char(&errors, '\0');
    assert_contains(buffer_data(&text), "good ");
    assert_contains(buffer_data(&text), "webhook ");
    assert_lacks(buffer_data(&text), "notes");
    assert_lacks(buffer_data(&text), "broken");
    assert_contains(buffer_data(&errors), "/broken.lua: expected the file to return a table");
    buffer_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_folder_of_ones_own_comes_before_the_stock_plugins, clear_before),
        cmocka_unit_test_setup(the_environments_folders_come_first, clear_before),
        cmocka_unit_test_setup(a_plugin_can_require_from_lib_of_its_folder, clear_before),
        cmocka_unit_test_setup(a_broken_plugin_is_told_with_file_and_line, clear_before),
        cmocka_unit_test_setup(what_a_plugin_must_be_is_checked, clear_before),
        cmocka_unit_test_setup(a_dispatcher_must_be_able_to_deliver, clear_before),
        cmocka_unit_test_setup(a_reference_must_name_a_plugin_there_is, clear_before),
        cmocka_unit_test_setup(paths_in_settings_are_below_the_files_folder, clear_before),
        cmocka_unit_test_setup(the_list_leaves_out_broken_plugins_and_says_so, clear_before),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
