/*
 * config: where settings come from, which one wins, and that every fault is told.
 */
#include "fixture.h"

#include <openssl/sha.h>

#include "script/script.h"

static void without_anything_the_defaults_hold(void **state)
{
    (void)state;
    struct config *config = load_well(NULL);
    char address[ADDRESS_TEXT_SIZE];
    assert_int_equal(config->listen_count, 1);
    address_format(&config->listen[0], address);
    assert_string_equal(address, "127.0.0.1:8080");
    address_format(&config->admin, address);
    assert_true(config->has_admin);
    assert_string_equal(address, "127.0.0.1:9080");
    assert_int_equal(config->shutdown_timeout_ns, UINT64_C(30000000000));
    assert_int_equal(config->shutdown_delay_ns, 0);
    assert_int_equal(config->buffer_bytes, 128 << 20);
    assert_true(config->random_fingerprint_key);
    const struct proxy_settings *proxy = config->proxy;
    assert_false(proxy->observe);
    assert_int_equal(proxy->http.max_head_bytes, 65536);
    assert_int_equal(proxy->http.max_headers, 100);
    assert_int_equal(proxy->http.max_target_bytes, 16384);
    assert_int_equal(proxy->max_body_bytes, 0);
    assert_int_equal(proxy->max_connections, 10000);
    assert_int_equal(proxy->max_request_body_bytes, 1048576);
    assert_int_equal(proxy->max_response_body_bytes, 8388608);
    assert_int_equal(proxy->route_count, 1);
    const struct route *route = &proxy->routes[0];
    assert_string_equal(route->name, "/");
    assert_string_equal(route->prefix, "");
    assert_string_equal(route->host, "api.openai.com");
    assert_string_equal(route->authority, "api.openai.com");
    assert_int_equal(route->port, 443);
    assert_non_null(route->tls);
    assert_int_equal(route->timeouts.upstream_idle, UINT64_C(30000000000));
    assert_int_equal(route->timeouts.response, UINT64_C(600000000000));
    assert_int_equal(config->pipeline_count, 1);
    assert_string_equal(config->pipelines[0].name, "default");
    assert_string_equal(config->pipelines[0].transforms, "llm");
    assert_string_equal(config->pipelines[0].dispatcher, "stdout");
    assert_int_equal(config->pipelines[0].buffer_events, 100);
    config_free(config);
}

static void the_environment_is_stronger_than_the_file(void **state)
{
    (void)state;
    const char *text =
        "return { listen = '127.0.0.1:1', admin = false, log = { level = 'error' },"
        " observability = { enabled = true, buffer_size = 7, max_request_body_bytes = '2KiB' } }";
    struct config *config = load_well(text);
    assert_false(config->has_admin);
    assert_int_equal(config->log_level, LOG_ERROR);
    assert_true(config->proxy->observe);
    assert_int_equal(config->pipelines[0].buffer_events, 7);
    assert_int_equal(config->proxy->max_request_body_bytes, 2048);
    config_free(config);

    setenv("LISTEN_ADDR", ":2", 1);
    setenv("ADMIN_ADDR", "localhost:3", 1);
    setenv("LOG_LEVEL", "debug", 1);
    setenv("LOG_FORMAT", "json", 1);
    setenv("OBSERVABILITY_ENABLED", "OFF", 1);
    setenv("OBSERVABILITY_BUFFER_SIZE", "8", 1);
    setenv("OBSERVABILITY_MAX_REQUEST_BODY_BYTES", "0", 1);
    setenv("OBSERVABILITY_MAX_RESPONSE_BODY_BYTES", "1MiB", 1);
    setenv("OBSERVABILITY_BUS", "memory", 1);
    config = load_well(text);
    char address[ADDRESS_TEXT_SIZE];
    assert_false(address_is_loopback(&config->listen[0]));
    address_format(&config->admin, address);
    assert_string_equal(address, "127.0.0.1:3");
    assert_int_equal(config->log_level, LOG_DEBUG);
    assert_int_equal(config->log_format, LOG_JSON);
    assert_false(config->proxy->observe);
    assert_int_equal(config->pipelines[0].buffer_events, 8);
    assert_int_equal(config->proxy->max_request_body_bytes, 0);
    assert_int_equal(config->proxy->max_response_body_bytes, 1048576);
    config_free(config);
    clear_environment();
}

static void a_relative_socket_is_below_the_files_folder(void **state)
{
    (void)state;
    struct config *config =
        load_well("return { listen = 'unix:proxy.sock', admin = 'unix:/run/admin.sock' }");
    assert_string_equal(config->listen[0].socket.path.sun_path, path_of("proxy.sock"));
    assert_string_equal(config->admin.socket.path.sun_path, "/run/admin.sock");
    config_free(config);
    assert_one_error("return { listen = 'unix:' .. ('x'):rep(100) }", "listen: ");
}

static void an_empty_variable_counts_as_unset(void **state)
{
    (void)state;
    setenv("OBSERVABILITY_ENABLED", "", 1);
    setenv("LISTEN_ADDR", "", 1);
    setenv("TEST_VALUE", "", 1);
    struct config *config = load_well(
        "return { observability = { enabled = true }, log = { level = env('TEST_VALUE', 'warn') } }");
    assert_true(config->proxy->observe);
    assert_int_equal(config->log_level, LOG_WARN);
    config_free(config);
    clear_environment();
}

static void the_flag_is_stronger_than_the_variable(void **state)
{
    (void)state;
    setenv("LLM_PROXY_CONFIG", write_file("other.lua", "return { workers = 1 }"), 1);
    struct config *config = load_well("return { workers = 2 }");
    assert_int_equal(config->workers, 2);
    config_free(config);
    config = load_well(NULL);
    assert_int_equal(config->workers, 1);
    config_free(config);
    clear_environment();
}

static void routes_are_complete_and_the_longest_prefix_comes_first(void **state)
{
    (void)state;
    struct config *config = load_well("return { timeouts = { connect = '3s', upstream_idle = 9 }, routes = {"
                                      " { prefix = '/', upstream = 'http://127.0.0.1:11434' },"
                                      " { name = 'long', prefix = '/v1/chat/', upstream = "
                                      "'https://[::1]:8443/base/', strip_prefix = true, capture = false,"
                                      "   headers = { ['X-Api-Key'] = 'secret', Cookie = false }, timeouts = "
                                      "{ connect = '500ms' }, tls = { verify = false } } } }");
    const struct route *route = &config->proxy->routes[0];
    assert_string_equal(route->name, "long");
    assert_string_equal(route->prefix, "/v1/chat");
    assert_string_equal(route->upstream, "https://[::1]:8443/base/");
    assert_string_equal(route->host, "::1");
    assert_string_equal(route->authority, "[::1]:8443");
    assert_string_equal(route->base_path, "/base");
    assert_true(route->strip_prefix);
    assert_false(route->capture);
    assert_true(route->sets_credential);
    assert_int_equal(route->header_count, 2);
    assert_string_equal(route->headers[0].name, "Cookie");
    assert_null(route->headers[0].value);
    assert_string_equal(route->headers[1].value, "secret");
    assert_int_equal(route->timeouts.connect, 500000000);
    assert_int_equal(route->timeouts.upstream_idle, UINT64_C(9000000000));
    assert_non_null(route->tls);
    route = &config->proxy->routes[1];
    assert_string_equal(route->prefix, "");
    assert_int_equal(route->port, 11434);
    assert_null(route->tls);
    assert_true(route->capture);
    assert_false(route->sets_credential);
    assert_int_equal(route->timeouts.connect, UINT64_C(3000000000));
    config_free(config);
}

static void upstream_url_is_for_those_without_routes(void **state)
{
    (void)state;
    setenv("UPSTREAM_URL", "http://localhost:1/x", 1);
    struct config *config = load_well(NULL);
    assert_string_equal(config->proxy->routes[0].upstream, "http://localhost:1/x");
    assert_int_equal(config->proxy->routes[0].timeouts.upstream_idle, UINT64_C(4000000000));
    config_free(config);
    config = load_well("return { routes = { { prefix = '/', upstream = 'http://localhost:2' } } }");
    assert_string_equal(config->proxy->routes[0].upstream, "http://localhost:2");
    config_free(config);
    clear_environment();
}

static void all_faults_are_told_with_path_and_nearest_name(void **state)
{
    (void)state;
    setenv("OBSERVABILITY_ENABLED", "maybe", 1);
    setenv("OBSERVABILITY_BUFFER_SIZE", "0", 1);
    setenv("OBSERVABILITY_BUS", "redis://user:hunter2@host", 1);
    assert_null(load("return { lisen = 1, workers = 'x', routes = { { prefix = 'v1', upstream = "
                     "'https://u:hunter2@h' } },"
                     " observability = { pipelines = { { name = 'a', transforms = { 'lm' }, dispatcher = { "
                     "'file', pat = 'x' } } } } }"));
    const char *lines = buffer_data(&errors);
    assert_contains(lines, "/config.lua:1: lisen: unknown key, did you mean 'listen'?");
    assert_contains(lines, "workers: expected a whole number from 0 to 1024, got \"x\"");
    assert_contains(lines, "routes[1].prefix: expected a path that begins with '/', got \"v1\"");
    assert_contains(lines, "routes[1].upstream: ");
    assert_contains(lines,
                    "observability.pipelines[1].transforms[1]: no transform 'lm', did you mean 'llm'?");
    assert_contains(lines, "observability.pipelines[1].dispatcher.pat: unknown key, did you mean 'path'?");
    assert_contains(lines, "observability.pipelines[1].dispatcher.path: expected a path, got nothing");
    assert_contains(
        lines,
        "OBSERVABILITY_ENABLED: expected true or false (true, false, 1, 0, yes, no, on, off), got \"maybe\"");
    assert_contains(lines, "OBSERVABILITY_BUFFER_SIZE: expected an integer from 1 to 1000000, got 0");
    assert_contains(lines, "OBSERVABILITY_BUS: expected \"memory\"");
    assert_lacks(lines, "hunter2");
    clear_environment();
}

static void each_broken_file_has_one_clear_error(void **state)
{
    (void)state;
    assert_one_error("return {\n listen = = 1 }", "/config.lua:2: ");
    assert_one_error("\n\nerror('no key')", "/config.lua:3: no key");
    assert_one_error("error('no key', 0)", "/config.lua: no key");
    assert_one_error("local x = 1", "/config.lua: expected the file to return a table, got nothing");
    assert_one_error("return 'x'", "got a string");
    assert_one_error("\x1bLJ\x02", "/config.lua: ");
    assert_one_error("return io.open('/etc/passwd')", "/config.lua:1: ");
    assert_one_error("return { log = { level = read_file('missing') } }",
                     "/missing: No such file or directory");
    assert_null(load_described(folder, CONFIG_DESCRIBE_NOTHING));
    assert_contains(buffer_data(&errors), ": is a folder\n");
    assert_null(load_described(path_of("missing.lua"), CONFIG_DESCRIBE_NOTHING));
    assert_contains(buffer_data(&errors), "missing.lua: No such file or directory\n");
}

static void a_long_name_is_told_whole(void **state)
{
    (void)state;
    const char *path = write_file("a_folder_with_a_name_of_many_letters/and_one_more_in_it/config.lua",
                                  "\nlocal x; return x.y");
    assert_null(load_described(path, CONFIG_DESCRIBE_NOTHING));
    assert_int_equal(strncmp(buffer_data(&errors), path, strlen(path)), 0);
    assert_contains(buffer_data(&errors), "config.lua:2: ");
}

static void too_much_memory_is_a_broken_file(void **state)
{
    (void)state;
    assert_one_error("return { log = { level = ('x'):rep(2^29) } }",
                     "not enough memory: more than the limit of loading of 256 MiB");
}

static void clients_are_kept_as_digests_and_networks(void **state)
{
    (void)state;
    struct config *config = load_well(
        "return { clients = { tokens = { alice = 'hush' }, networks = { '10.0.0.0/8', '::1' } },"
        " trusted_proxies = { '192.0.2.1', 'unix:' }, limits = { max_connections_per_client = 7 } }");
    const struct proxy_settings *proxy = config->proxy;
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)"hush", 4, digest);
    assert_int_equal(proxy->token_count, 1);
    assert_string_equal(proxy->tokens[0].name, "alice");
    assert_memory_equal(proxy->tokens[0].digest, digest, sizeof digest);
    assert_int_equal(proxy->networks.count, 2);
    assert_int_equal(proxy->networks.items[0].prefix, 8);
    assert_int_equal(proxy->networks.items[1].family, AF_INET6);
    assert_int_equal(proxy->trusted_proxies.count, 2);
    assert_int_equal(proxy->trusted_proxies.items[1].family, AF_UNIX);
    assert_int_equal(proxy->max_connections_per_client, 7);
    config_free(config);

    config = load_well(NULL);
    assert_int_equal(config->proxy->token_count, 0);
    assert_int_equal(config->proxy->networks.count, 0);
    assert_int_equal(config->proxy->trusted_proxies.count, 0);
    assert_int_equal(config->proxy->max_connections_per_client, 0);
    config_free(config);
}

static void what_would_let_in_nobody_or_anybody_is_refused(void **state)
{
    (void)state;
    assert_one_error("return { clients = {} }", "clients: expected tokens or networks");
    assert_one_error("return { clients = { tokens = { alice = nil } } }",
                     "clients.tokens: expected at least one token");
    assert_one_error("return { clients = { tokens = { alice = '' } } }",
                     "clients.tokens.alice: expected a secret");
    assert_one_error("return { clients = { tokens = { b = 'hush', a = 'hush' } } }",
                     "clients.tokens: 'a' and 'b' have the same secret");
    assert_one_error("return { clients = { tokens = 'hush' } }", "clients.tokens: ");
    assert_lacks(buffer_data(&errors), "hush");
    assert_one_error("return { clients = { networks = { '10.0.0.0/33' } } }",
                     "clients.networks[1]: expected a network");
    assert_one_error("return { clients = { networks = {} } }",
                     "clients.networks: expected at least one network");
    assert_one_error("return { trusted_proxies = { 'proxy' } }", "trusted_proxies[1]: expected a network");
    /* One fault is one error, and not also a route without clients. */
    assert_one_error("return { listen = ':1', clients = { tokens = {} }, routes = { { prefix = '/', upstream "
                     "= 'http://x', "
                     "headers = { authorization = 'Bearer x' } } } }",
                     "clients.tokens: ");
    config_free(load_well("return { listen = ':1', clients = { tokens = { alice = 'hush' } }, routes = { { "
                          "prefix = '/', upstream = "
                          "'http://x', headers = { authorization = 'Bearer x' } } } }"));
}

static void impossible_together_is_refused(void **state)
{
    (void)state;
    assert_one_error("return { admin = '0.0.0.0:9080' }", "set ADMIN_TOKEN");
    assert_one_error("return { listen = '0.0.0.0:1', routes = { { prefix = '/', upstream = 'http://x', "
                     "headers = { authorization = 'Bearer x' } } } }",
                     "open = true");
    assert_one_error("return { routes = { { prefix = '/v1', upstream = 'http://x' }, { prefix = '/v1/', name "
                     "= 'b', upstream = 'http://y' } } }",
                     "routes[2].prefix: ");
    assert_one_error("return { routes = { { prefix = '/a', name = 'n', upstream = 'http://x' }, { prefix = "
                     "'/b', name = 'n', upstream = 'http://y' } } }",
                     "routes[2].name: ");
    assert_one_error(
        "return { routes = { { prefix = '/', upstream = 'http://x', tls = { verify = false } } } }",
        "routes[1].tls: ");
    assert_one_error(
        "return { routes = { { prefix = '/', upstream = 'https://x', tls = { ca_file = 'missing.pem' } } } }",
        "/missing.pem: ");
    assert_one_error("return { routes = { { prefix = '/', upstream = 'http://x', headers = { "
                     "['Content-Length'] = '1' } } } }",
                     "routes[1].headers: the proxy writes the header 'Content-Length' itself");
    assert_one_error("return { observability = { max_response_body_bytes = '48MiB' } }",
                     "at most 48 MiB together");
    assert_one_error("return { observability = { pipelines = { { name = 'a', dispatcher = 'stdout' }, { name "
                     "= 'a', dispatcher = 'stdout' } } } }",
                     "observability.pipelines[2].name: ");
    assert_one_error("return { tokens = {} }", "tokens: unknown key");
}

static void what_is_safe_needs_no_token_and_no_consent(void **state)
{
    (void)state;
    setenv("ADMIN_TOKEN", "token", 1);
    struct config *config = load_well(
        "return { admin = '0.0.0.0:9080', listen = { '0.0.0.0:1', 'unix:/tmp/x' }, routes = {"
        " { prefix = '/', upstream = 'http://x', headers = { authorization = false, ['x-team'] = 'a' } },"
        " { prefix = '/open', upstream = 'http://x', headers = { authorization = 'Bearer x' }, open = true } "
        "} }");
    assert_string_equal(config->admin_token, "token");
    assert_int_equal(config->listen_count, 2);
    config_free(config);
    clear_environment();
    config_free(load_well("return { routes = { { prefix = '/', upstream = 'http://x', headers = { "
                          "authorization = 'Bearer x' } } } }"));
}

static void what_is_described_holds_no_secret(void **state)
{
    (void)state;
    setenv("ADMIN_TOKEN", "hush-token", 1);
    setenv("LISTEN_ADDR", "127.0.0.1:5", 1);
    const char *path =
        write_file("config.lua", "return { workers = 3, clients = { tokens = { alice = 'hush' } }, routes = "
                                 "{ { prefix = '/', upstream = 'http://x', "
                                 "headers = { authorization = 'hush' } } },"
                                 " observability = { fingerprint_key = 'hush', pipelines = { { name = 'a', "
                                 "transforms = { function(event) return event end },"
                                 " dispatcher = { 'webhook', url = 'http://x', headers = { a = 'hush' }, "
                                 "secret = 'whsec_aHVzaGh1c2hodXNoaHVzaGh1c2g=' } } } } }");
    struct config *config = load_described(path, CONFIG_DESCRIBE_TEXT);
    assert_non_null(config);
    assert_contains(config->description, "workers = 3  (file)\n");
    assert_contains(config->description, "listen = { \"127.0.0.1:5\" }  (env LISTEN_ADDR)\n");
    assert_contains(config->description, "shutdown_timeout = 30  (default)\n");
    assert_contains(config->description, "admin_token = [secret]  (env ADMIN_TOKEN)\n");
    assert_contains(config->description, "(flag)\n");
    assert_contains(config->description, "clients.tokens.alice = [secret]  (file)\n");
    assert_contains(config->description, "trusted_proxies = {}  (default)\n");
    assert_contains(config->description, "routes[1].headers.authorization = [secret]  (file)\n");
    assert_contains(config->description,
                    "observability.pipelines[1].transforms[1] = \"function config.lua:1\"  (file)\n");
    assert_contains(config->description, "observability.pipelines[1].dispatcher.timeout = 15  (default)\n");
    assert_lacks(config->description, "hush");
    assert_lacks(config->description, "whsec");
    config_free(config);
    config = load_described(path, CONFIG_DESCRIBE_JSON);
    assert_non_null(config);
    assert_contains(config->description, "\"workers\": {\"value\": 3, \"source\": \"file\"}");
    assert_contains(config->description, "\"admin_hosts\": {\"value\": [], \"source\": \"default\"}");
    assert_lacks(config->description, "hush");
    config_free(config);
    clear_environment();
}

static void observability_file_writes_beside_the_pipelines_of_the_file(void **state)
{
    (void)state;
    setenv("OBSERVABILITY_FILE", "events.jsonl", 1);
    struct config *config = load_well(NULL);
    assert_int_equal(config->pipeline_count, 1);
    assert_string_equal(config->pipelines[0].name, "default");
    assert_string_equal(config->pipelines[0].dispatcher, "file");
    config_free(config);
    config =
        load_well("return { observability = { pipelines = { { name = 'a', dispatcher = 'stdout' } } } }");
    assert_int_equal(config->pipeline_count, 2);
    assert_string_equal(config->pipelines[0].dispatcher, "stdout");
    assert_string_equal(config->pipelines[1].dispatcher, "file");
    config_free(config);
    clear_environment();
}

/* Differences that need a restart, as one text. */
static const char *differences(const char *before_text, const char *after_text)
{
    static char names[500];
    struct config *before = load_well(before_text), *after = load_well(after_text);
    const char *name;
    size_t index = 0;
    names[0] = '\0';
    while ((name = config_next_fixed_difference(before, after, &index)) != NULL) {
        strcat(strcat(names, name), " ");
    }
    config_free(before);
    config_free(after);
    return names;
}

static void a_reload_sees_what_needs_a_restart(void **state)
{
    (void)state;
    assert_string_equal(
        differences("return {}",
                    "return { routes = {}, limits = { max_headers = 5 }, log = { level = 'warn' }, "
                    "shutdown_timeout = 1, admin_hosts = { 'a' }, listen = { '127.0.0.1:8080' },\n"
                    "observability = { enabled = true, bus = 'memory', buffer_size = 5, "
                    "buffer_bytes = '1MiB', capture_memory = '1MiB', max_decoded_bytes = '1MiB',\n"
                    "pipelines = { { name = 'a', dispatcher = 'stdout' } } } }"),
        "");
    assert_string_equal(differences("return {}", "return { listen = ':1', workers = 1, admin = false }"),
                        "listen admin workers ");
}

/* In a state of its own, as a pipeline has it: the definition is left on the stack. */
static struct script *pipeline_state(struct config *config, size_t index)
{
    struct error error;
    struct script *script =
        script_new(&(struct script_settings){.lua_folder = config->lua_folder,
                                             .plugin_folders = (const char *const *)config->plugin_folders,
                                             .name = "test"},
                   &error);
    assert_non_null(script);
    if (!config_load_pipeline(config, script_lua(script), index, &error)) {
        fail_msg("%s", error.message);
    }
    return script;
}

static double number_at(lua_State *lua, const char *table, const char *key)
{
    lua_getfield(lua, -1, table);
    lua_getfield(lua, -1, key);
    double number = lua_tonumber(lua, -1);
    lua_pop(lua, 2);
    return number;
}

static void a_pipeline_gets_the_same_answers_again(void **state)
{
    (void)state;
    write_file("team.txt", "red");
    setenv("TEST_VALUE", "one", 1);
    struct config *config =
        load_well("local team, value = read_file('team.txt'), env('TEST_VALUE')\n"
                  "return { observability = { pipelines = { { name = 'first', dispatcher = 'stdout' },"
                  " { name = 'second', transforms = { 'llm', function() return team .. value end }, "
                  "dispatcher = function(batch) return batch end,"
                  "   batch = { max_events = 5 }, concurrency = 3, retry = { max_delay = '2s' } } } } }");
    write_file("team.txt", "blue");
    setenv("TEST_VALUE", "two", 1);
    struct script *script = pipeline_state(config, 1);
    lua_State *lua = script_lua(script);
    assert_int_equal(lua_gettop(lua), 1);
    assert_true(number_at(lua, "batch", "max_events") == 5);
    assert_true(number_at(lua, "batch", "max_bytes") == 1048576);
    assert_true(number_at(lua, "batch", "max_wait") == 1);
    assert_true(number_at(lua, "retry", "max_delay") == 2);
    assert_true(number_at(lua, "retry", "min_delay") == 0.5);
    assert_true(number_at(lua, "retry", "max_age") == 3600);
    lua_getfield(lua, 1, "transforms");
    assert_int_equal(lua_objlen(lua, -1), 2);
    lua_rawgeti(lua, -1, 2);
    lua_getfield(lua, -1, "run");
    struct error error;
    assert_true(script_call(script, 0, 1, 1, &error));
    assert_string_equal(lua_tostring(lua, -1), "redone");
    lua_settop(lua, 1);
    lua_getfield(lua, 1, "dispatcher");
    lua_getfield(lua, -1, "object");
    lua_getfield(lua, -1, "deliver");
    assert_true(lua_isfunction(lua, -1));
    script_free(script);

    script = pipeline_state(config, 0); /* a dispatcher's own defaults are stronger than the general ones */
    assert_true(number_at(script_lua(script), "batch", "max_wait") == 0.1);
    script_free(script);
    config_free(config);
    clear_environment();
}

static void env_and_read_file_end_with_the_loading(void **state)
{
    (void)state;
    struct config *config =
        load_well("return { observability = { pipelines = { { name = 'a', dispatcher = 'stdout',"
                  " transforms = { function() return env('HOME') end } } } } }");
    struct script *script = pipeline_state(config, 0);
    lua_State *lua = script_lua(script);
    lua_getfield(lua, 1, "transforms");
    lua_rawgeti(lua, -1, 1);
    lua_getfield(lua, -1, "run");
    struct error error;
    assert_false(script_call(script, 0, 1, 1, &error));
    assert_contains(error.message, "env works only while the configuration is loaded");
    script_free(script);
    config_free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(without_anything_the_defaults_hold, clear_before),
        cmocka_unit_test_setup(the_environment_is_stronger_than_the_file, clear_before),
        cmocka_unit_test_setup(a_relative_socket_is_below_the_files_folder, clear_before),
        cmocka_unit_test_setup(an_empty_variable_counts_as_unset, clear_before),
        cmocka_unit_test_setup(the_flag_is_stronger_than_the_variable, clear_before),
        cmocka_unit_test_setup(routes_are_complete_and_the_longest_prefix_comes_first, clear_before),
        cmocka_unit_test_setup(upstream_url_is_for_those_without_routes, clear_before),
        cmocka_unit_test_setup(all_faults_are_told_with_path_and_nearest_name, clear_before),
        cmocka_unit_test_setup(each_broken_file_has_one_clear_error, clear_before),
        cmocka_unit_test_setup(a_long_name_is_told_whole, clear_before),
        cmocka_unit_test_setup(too_much_memory_is_a_broken_file, clear_before),
        cmocka_unit_test_setup(impossible_together_is_refused, clear_before),
        cmocka_unit_test_setup(what_is_safe_needs_no_token_and_no_consent, clear_before),
        cmocka_unit_test_setup(what_is_described_holds_no_secret, clear_before),
        cmocka_unit_test_setup(clients_are_kept_as_digests_and_networks, clear_before),
        cmocka_unit_test_setup(what_would_let_in_nobody_or_anybody_is_refused, clear_before),
        cmocka_unit_test_setup(observability_file_writes_beside_the_pipelines_of_the_file, clear_before),
        cmocka_unit_test_setup(a_reload_sees_what_needs_a_restart, clear_before),
        cmocka_unit_test_setup(a_pipeline_gets_the_same_answers_again, clear_before),
        cmocka_unit_test_setup(env_and_read_file_end_with_the_loading, clear_before),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
