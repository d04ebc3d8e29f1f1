/*
 * forward proxy: which one is on the way to a route's upstream, what it is asked, and that nothing wrong or secret gets through.
 */
#include "fixture.h"

/* A configuration whose one route goes to upstream, with more keys in rest. */
static const char *one_route(const char *upstream, const char *rest)
{
    static char text[512];
    snprintf(text, sizeof text, "return { routes = { { prefix = '/', upstream = '%s', %s } } }", upstream,
             rest);
    return text;
}

static void assert_proxy(const char *upstream, const char *rest, const char *host, uint16_t port,
                         const char *request)
{
    struct config *config = load_well(one_route(upstream, rest));
    const struct tunnel_proxy *proxy = config->proxy->routes[0].proxy;
    assert_non_null(proxy);
    assert_string_equal(proxy->host, host);
    assert_int_equal(proxy->port, port);
    assert_string_equal(proxy->request, request);
    config_free(config);
}

/* With these routes the environment names a forward proxy for all of the upstreams, or for none. */
static void assert_through_proxy(const char *const *upstreams, bool through)
{
    struct buffer text = {0};
    buffer_append_string(&text, "return { routes = {");
    for (size_t i = 0; upstreams[i] != NULL; i++) {
        bool is_https = strncmp(upstreams[i], "https:", 6) == 0;
        buffer_printf(&text, " { prefix = '/%zu', upstream = '%s'%s },", i, upstreams[i],
                      is_https ? ", tls = { verify = false }" : ""); /* no bundle to load */
    }
    buffer_append_string(&text, " } }");
    char *file = buffer_take_string(&text);
    struct config *config = load_well(file);
    free(file);
    for (size_t i = 0; i < config->proxy->route_count; i++) {
        const struct route *route = &config->proxy->routes[i];
        if ((route->proxy != NULL) != through) {
            const char *list = getenv("NO_PROXY");
            fail_msg("NO_PROXY=%s and %s", list != NULL ? list : "", route->upstream);
        }
    }
    config_free(config);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void a_route_names_its_proxy(void **state)
{
    (void)state;
    assert_proxy("https://api.example/v1", "proxy = 'http://Proxy.example:3128'", "proxy.example", 3128,
                 "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n");
    assert_proxy("http://API.example", "proxy = 'HTTP://proxy.example/'", "proxy.example", 80,
                 "CONNECT api.example:80 HTTP/1.1\r\nHost: api.example:80\r\n\r\n");
    assert_proxy("https://[2001:db8::1]:8443", "proxy = 'http://[::1]:3128'", "::1", 3128,
                 "CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\r\n");
    /* Loopback, too, when the route says so. */
    assert_proxy("http://127.0.0.1:1", "proxy = 'http://127.0.0.1:2'", "127.0.0.1", 2,
                 "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n");
}

static void credentials_are_decoded_and_sent(void **state)
{
    (void)state;
    assert_proxy("https://x.example", "proxy = 'http://Aladdin:open%20sesame@p.example:1'", "p.example", 1,
                 "CONNECT x.example:443 HTTP/1.1\r\nHost: x.example:443\r\n"
                 "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n");
    assert_proxy("https://x.example", "proxy = 'http://user@p.example:1'", "p.example", 1,
                 "CONNECT x.example:443 HTTP/1.1\r\nHost: x.example:443\r\n"
                 "Proxy-Authorization: Basic dXNlcjo=\r\n\r\n");
    assert_proxy("https://x.example", "proxy = 'http://u%40v:a%3Ab:c@p.example:1'", "p.example", 1,
                 "CONNECT x.example:443 HTTP/1.1\r\nHost: x.example:443\r\n"
                 "Proxy-Authorization: Basic dUB2OmE6Yjpj\r\n\r\n");
}

static void what_is_no_proxy_is_refused_without_repeating_it(void **state)
{
    (void)state;
    static const char *const values[] = {
        "'hush'",
        "'hush:hush@p.example:1'",
        "'https://u:hush@p.example:1'",
        "'socks5://u:hush@p.example:1'",
        "'http://u:hush@p.example:1/path'",
        "'http://u:hu/sh@p.example:1'",
        "'http://u:hush@p.example:1?a'",
        "'http://u:hush@p.example:0'",
        "'http://u:hush@p.example:65536'",
        "'http://u:hush@'",
        "'http://u:hush@p.exa mple:1'",
        "'http://u:hush@p.example:1\\r\\nX: y'",
        "'http://u:hush%0d%0aX: y@p.example:1'",
        "'http://u:hush\\0@p.example:1'",
        "'http://u%3Av:hush@p.example:1'",
        "'http://:hush@p.example:1'",
        "'http://u:hush%4@p.example:1'",
        "'http://u:hush%zz@p.example:1'",
        "''",
        "true",
        "3128",
        "{ 'hush' }",
    };
    size_t count = sizeof values / sizeof *values;
    struct buffer text = {0};
    buffer_append_string(&text, "return { routes = {");
    for (size_t i = 0; i < count; i++) {
        buffer_printf(
            &text,
            " { prefix = '/%zu', upstream = 'https://x.example', tls = { verify = false }, proxy = %s },", i,
            values[i]);
    }
    buffer_append_string(&text, " } }");
    char *file = buffer_take_string(&text);
    assert_null(load(file));
    free(file);
    for (size_t i = 0; i < count; i++) {
        char expected[100];
        snprintf(expected, sizeof expected, "routes[%zu].proxy: expected a forward proxy's URL", i + 1);
        assert_contains(buffer_data(&errors), expected);
    }
    assert_lacks(buffer_data(&errors), "hush");
}

static void the_environment_names_one_for_https(void **state)
{
    (void)state;
    assert_through_proxy(LIST("https://x.example"), false);
    setenv("HTTPS_PROXY", "upper.example:3128", 1);
    assert_proxy("https://x.example", "", "upper.example", 3128,
                 "CONNECT x.example:443 HTTP/1.1\r\nHost: x.example:443\r\n\r\n");
    setenv("https_proxy", "http://u:p@lower.example:1/", 1);
    assert_proxy("https://x.example", "", "lower.example", 1,
                 "CONNECT x.example:443 HTTP/1.1\r\nHost: x.example:443\r\n"
                 "Proxy-Authorization: Basic dTpw\r\n\r\n");
    setenv("https_proxy", "", 1); /* as if unset */
    assert_through_proxy(LIST("https://x.example"), true);
    assert_through_proxy(LIST("http://x.example"), false);
    assert_proxy("https://x.example", "proxy = 'http://own.example:2'", "own.example", 2,
                 "CONNECT x.example:443 HTTP/1.1\r\nHost: x.example:443\r\n\r\n");
    struct config *config = load_well(one_route("https://x.example", "proxy = false"));
    assert_null(config->proxy->routes[0].proxy);
    config_free(config);
    config = load_well(NULL); /* the route there is without a file */
    assert_non_null(config->proxy->routes[0].proxy);
    config_free(config);
}

static void this_machine_is_reached_directly(void **state)
{
    (void)state;
    setenv("HTTPS_PROXY", "http://p.example:1", 1);
    assert_through_proxy(LIST("https://localhost", "https://LOCALHOST.:1", "https://127.0.0.1",
                              "https://127.9.9.9", "https://[::1]:8443", "https://a.localhost"),
                         false);
    assert_through_proxy(LIST("https://localhost.example", "https://128.0.0.1"), true);
}

static void no_proxy_excepts(void **state)
{
    (void)state;
    setenv("HTTPS_PROXY", "http://p.example:1", 1);

    setenv("NO_PROXY", "*", 1);
    assert_through_proxy(LIST("https://x.example", "https://10.1.2.3", "https://[fd00::1]:1"), false);

    /* Names, and what lies below them. */
    setenv("NO_PROXY", "One.Example, .two.example three.example.,*.four.example,tld", 1);
    assert_through_proxy(LIST("https://one.example", "https://oNe.example.", "https://a.b.one.example",
                              "https://two.example", "https://a.two.example", "https://three.example",
                              "https://a.four.example", "https://four.example", "https://any.tld:1"),
                         false);
    assert_through_proxy(LIST("https://example", "https://x-one.example", "https://one-example",
                              "https://one.example.com", "https://tlds", "https://atld"),
                         true);

    /* For one port only. */
    setenv("NO_PROXY", "a.example:443,b.example:444,10.1.2.3:443,[fd12::1]:443", 1);
    assert_through_proxy(
        LIST("https://a.example", "https://b.example:444", "https://10.1.2.3", "https://[fd12::1]"), false);
    assert_through_proxy(
        LIST("https://a.example:444", "https://b.example", "https://10.1.2.3:1", "https://[fd12::1]:1"),
        true);

    /* Addresses and networks. */
    setenv("NO_PROXY", "10.0.0.0/8 172.16.2.0/23 192.0.2.1 192.0.2.2/32 fd00::/8 2001:db8::1", 1);
    assert_through_proxy(LIST("https://10.1.2.3", "https://172.16.2.255", "https://172.16.3.9",
                              "https://192.0.2.1", "https://192.0.2.2", "https://[fd12:3456::1]",
                              "https://[2001:db8:0::0:1]"),
                         false);
    assert_through_proxy(LIST("https://11.1.2.3", "https://172.16.4.0", "https://172.16.1.255",
                              "https://192.0.2.3", "https://[fe80::1]", "https://[2001:db8::2]",
                              "https://x.example"),
                         true);
    setenv("NO_PROXY", "0.0.0.0/0", 1);
    assert_through_proxy(LIST("https://192.0.2.1"), false);
    assert_through_proxy(LIST("https://x.example", "https://[fd00::1]"), true);

    /* What is not understood excepts nothing; the end of an address is no name. */
    setenv("NO_PROXY", ". 2.3 10.1.2.3/33 10.0.0.0/ 10.0.0.0/x x/8 :443 / ,,", 1);
    assert_through_proxy(LIST("https://10.1.2.3", "https://x.example", "https://x"), true);

    setenv("NO_PROXY", "*", 1);
    setenv("no_proxy", "other.example", 1); /* is stronger */
    assert_through_proxy(LIST("https://x.example"), true);
    assert_proxy("https://other.example", "proxy = 'http://own.example:2'", "own.example", 2,
                 "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n");
}

static void a_broken_variable_is_named_once_and_not_repeated(void **state)
{
    (void)state;
    setenv("HTTPS_PROXY", "https://u:hush@p.example:1", 1);
    assert_one_error("return { routes = { { prefix = '/', upstream = 'https://x.example' },"
                     " { prefix = '/y', upstream = 'https://y.example' } } }",
                     "HTTPS_PROXY: expected a forward proxy's URL");
    assert_lacks(buffer_data(&errors), "hush");
    assert_through_proxy(LIST("http://x.example"), false); /* nobody asks for it */
}

#define forward_proxy_test(name) cmocka_unit_test_setup(name, clear_before)

int main(void)
{
    const struct CMUnitTest tests[] = {
        forward_proxy_test(a_route_names_its_proxy),
        forward_proxy_test(credentials_are_decoded_and_sent),
        forward_proxy_test(what_is_no_proxy_is_refused_without_repeating_it),
        forward_proxy_test(the_environment_names_one_for_https),
        forward_proxy_test(this_machine_is_reached_directly),
        forward_proxy_test(no_proxy_excepts),
        forward_proxy_test(a_broken_variable_is_named_once_and_not_repeated),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
