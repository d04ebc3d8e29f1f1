/* Which bus there is, and where dead letters go: from file and environment. */
#include "fixture.h"

static void without_a_word_it_is_memory_and_no_letters_are_kept(void **state)
{
    (void)state;
    struct config *config = load_well("return {}");
    assert_int_equal(config->bus.kind, CONFIG_BUS_MEMORY);
    assert_null(config->dead_letters.path);
    assert_false(config->proxy->audit);
    config_free(config);
}

static void a_bus_on_disk_has_its_settings_and_letters_beside_it(void **state)
{
    (void)state;
    struct config *config = load_well("return { observability = { bus = { 'disk', path = 'spool' } } }");
    assert_int_equal(config->bus.kind, CONFIG_BUS_DISK);
    assert_string_equal(config->bus.path, path_of("spool"));
    assert_int_equal(config->bus.max_bytes, UINT64_C(10) << 30);
    assert_int_equal(config->bus.max_age_ns, 7 * 86400 * UINT64_C(1000000000));
    assert_int_equal(config->bus.commit_interval_ns, 5000000);
    assert_false(config->bus.drop_oldest);
    assert_string_equal(config->dead_letters.path, path_of("spool/dlq"));
    assert_false(config->dead_letters.without_bodies);
    assert_int_equal(config->dead_letters.max_bytes, 1 << 30);
    config_free(config);

    config = load_well(
        "return { observability = { bus = { 'disk', path = '/s', max_bytes = '1MiB', max_age = '1h', "
        "commit_interval = 0, overflow = 'drop_oldest' }, dead_letters = { path = 'letters', bodies = false, "
        "max_bytes = '2MiB', max_age = 60 } } }");
    assert_string_equal(config->bus.path, "/s");
    assert_int_equal(config->bus.max_bytes, 1 << 20);
    assert_int_equal(config->bus.commit_interval_ns, 0);
    assert_true(config->bus.drop_oldest);
    assert_string_equal(config->dead_letters.path, path_of("letters"));
    assert_true(config->dead_letters.without_bodies);
    assert_int_equal(config->dead_letters.max_age_ns, UINT64_C(60000000000));
    config_free(config);
}

static void letters_may_be_a_folder_or_off(void **state)
{
    (void)state;
    struct config *config = load_well("return { observability = { dead_letters = 'letters' } }");
    assert_string_equal(config->dead_letters.path, path_of("letters"));
    config_free(config);
    config =
        load_well("return { observability = { bus = { 'disk', path = 'spool' }, dead_letters = false } }");
    assert_null(config->dead_letters.path);
    config_free(config);
    assert_one_error("return { observability = { dead_letters = 5 } }",
                     "observability.dead_letters: expected a folder, a table");
}

static void the_environment_is_stronger_and_keeps_other_settings_of_the_same_bus(void **state)
{
    (void)state;
    setenv("OBSERVABILITY_BUS", "disk:/var/spool", 1);
    struct config *config = load_well("return {}");
    assert_int_equal(config->bus.kind, CONFIG_BUS_DISK);
    assert_string_equal(config->bus.path, "/var/spool");
    assert_string_equal(config->dead_letters.path, "/var/spool/dlq");
    config_free(config);
    config = load_well("return { observability = { bus = { 'disk', path = 'x', max_bytes = '2MiB' } } }");
    assert_string_equal(config->bus.path, "/var/spool");
    assert_int_equal(config->bus.max_bytes, 2 << 20);
    config_free(config);
    setenv("OBSERVABILITY_BUS", "memory", 1);
    config = load_well("return { observability = { bus = { 'disk', path = 'x' } } }");
    assert_int_equal(config->bus.kind, CONFIG_BUS_MEMORY);
    assert_null(config->dead_letters.path);
    config_free(config);
    clear_environment();
}

static void faults_name_the_key_and_never_a_password(void **state)
{
    (void)state;
    assert_one_error("return { observability = { bus = { 'dsk', path = 'x' } } }", "did you mean 'disk'?");
    assert_one_error("return { observability = { bus = { 'disk' } } }",
                     "observability.bus.path: expected a path, got nothing");
    assert_one_error("return { observability = { bus = { 'memory', path = 'x' } } }",
                     "observability.bus.path: unknown key");
    assert_one_error("return { observability = { bus = { 'disk', path = 'x', max_byte = 1 } } }",
                     "observability.bus.max_byte: unknown key, did you mean 'max_bytes'?");
    assert_one_error("return { observability = { bus = { 'disk', path = 'x', max_bytes = 1 } } }",
                     "observability.bus.max_bytes: expected");
    assert_one_error("return { observability = { bus = { 'redis://u:hunter2@h' } } }",
                     "observability.bus: expected a bus");
    assert_lacks(buffer_data(&errors), "hunter2");
    assert_one_error("return { observability = { bus = 'disk:spool' } }",
                     "expected a bus as { \"disk\", path = \"FOLDER\" }");
    assert_one_error("return { observability = { bus = { 'disk', path = 'x' }, dead_letters = 'x' } }",
                     "observability.dead_letters.path: expected a folder of its own");
}

static void audit_refuses_what_could_lose_an_exchange(void **state)
{
    (void)state;
    struct config *config =
        load_well("return { observability = { bus = { 'disk', path = 'x', audit = true } } }");
    assert_true(config->proxy->audit);
    config_free(config);
    assert_one_error("return { observability = { bus = { 'disk', path = 'x', audit = true, overflow = "
                     "'drop_oldest' } } }",
                     "observability.bus.overflow: expected \"drop_newest\" with audit");
    assert_one_error("return { routes = { { prefix = '/', upstream = 'http://x', capture = false } }, "
                     "observability = { bus = { 'disk', path = 'x', audit = true } } }",
                     "routes[1].capture: expected true with observability.bus.audit");
}

static void a_pipeline_may_begin_with_the_oldest(void **state)
{
    (void)state;
    struct config *config =
        load_well("return { observability = { pipelines = { { name = 'a', dispatcher = 'stdout', from = "
                  "'oldest' }, { name = 'b', dispatcher = 'stdout' } } } }");
    assert_true(config->pipelines[0].from_oldest);
    assert_false(config->pipelines[1].from_oldest);
    config_free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_word_it_is_memory_and_no_letters_are_kept),
        cmocka_unit_test(a_bus_on_disk_has_its_settings_and_letters_beside_it),
        cmocka_unit_test(letters_may_be_a_folder_or_off),
        cmocka_unit_test(the_environment_is_stronger_and_keeps_other_settings_of_the_same_bus),
        cmocka_unit_test(faults_name_the_key_and_never_a_password),
        cmocka_unit_test(audit_refuses_what_could_lose_an_exchange),
        cmocka_unit_test(a_pipeline_may_begin_with_the_oldest),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
