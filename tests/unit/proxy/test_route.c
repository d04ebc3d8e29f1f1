/* Which route a path takes, and what the upstream sees of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "proxy/route.h"

static struct route routes[] = {
    {.name = (char *)"chat", .prefix = (char *)"/v1/chat", .base_path = (char *)""},
    {.name = (char *)"stripped", .prefix = (char *)"/ollama", .base_path = (char *)"", .strip_prefix = true},
    {.name = (char *)"based",
     .prefix = (char *)"/azure",
     .base_path = (char *)"/openai/v1",
     .strip_prefix = true},
    {.name = (char *)"v1", .prefix = (char *)"/v1", .base_path = (char *)"/api"},
};
static const struct proxy_settings settings = {.routes = routes, .route_count = 4};

static void expect_route(const char *path, const char *name)
{
    const struct route *route = route_find(&settings, slice_of(path));
    if (name == NULL) {
        assert_null(route);
    } else {
        assert_non_null(route);
        assert_string_equal(route->name, name);
    }
}

static void the_longest_prefix_wins_on_segment_boundaries(void **state)
{
    (void)state;
    expect_route("/v1", "v1");
    expect_route("/v1/", "v1");
    expect_route("/v1/models", "v1");
    expect_route("/v1/chat", "chat");
    expect_route("/v1/chat/completions", "chat");
    expect_route("/v1/chatter", "v1");
    expect_route("/v1x", NULL);
    expect_route("/", NULL);
    expect_route("*", NULL);
}

static void the_root_takes_everything_else(void **state)
{
    (void)state;
    struct route root = {.name = (char *)"/", .prefix = (char *)"", .base_path = (char *)""};
    const struct proxy_settings all = {.routes = &root, .route_count = 1};
    assert_ptr_equal(route_find(&all, SLICE("/anything")), &root);
    assert_ptr_equal(route_find(&all, SLICE("/")), &root);
    assert_null(route_find(&all, SLICE("*")));
}

static void expect_target(const char *path, const char *query, const char *expected)
{
    struct http_request request = {
        .path = slice_of(path), .query = slice_of(query), .has_query = query != NULL};
    struct buffer out = {0};
    route_write_target(route_find(&settings, request.path), &request, &out);
    char *got = buffer_take_string(&out);
    assert_string_equal(got, expected);
    free(got);
}

static void the_target_is_forwarded_as_received_but_for_the_prefix(void **state)
{
    (void)state;
    expect_target("/v1/chat/a%20b", "x=%26", "/v1/chat/a%20b?x=%26");
    expect_target("/v1/models", "", "/api/v1/models?");
    expect_target("/ollama/api/chat", NULL, "/api/chat");
    expect_target("/ollama", NULL, "/");
    expect_target("/ollama/", NULL, "/");
    expect_target("/azure", NULL, "/openai/v1");
    expect_target("/azure/", NULL, "/openai/v1/");
    expect_target("/azure/chat", "a", "/openai/v1/chat?a");
}

static void what_is_left_of_a_path_never_names_a_host(void **state)
{
    (void)state;
    assert_false(route_target_is_safe(&routes[1], SLICE("/ollama//evil.test/x")));
    assert_true(route_target_is_safe(&routes[1], SLICE("/ollama/a//b")));
    assert_true(route_target_is_safe(&routes[3], SLICE("/v1//b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_prefix_wins_on_segment_boundaries),
        cmocka_unit_test(the_root_takes_everything_else),
        cmocka_unit_test(what_is_left_of_a_path_never_names_a_host),
        cmocka_unit_test(the_target_is_forwarded_as_received_but_for_the_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
