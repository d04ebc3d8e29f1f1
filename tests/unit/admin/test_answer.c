/*
 * answer: who may see which page, and what it looks like.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "admin/answer.h"

static const char *not_ready; /* NULL: ready */

static bool is_ready(void *argument, const char **reason)
{
    assert_ptr_equal(argument, &not_ready);
    if (not_ready != NULL) {
        *reason = not_ready;
    }
    return not_ready == NULL;
}

static const char *const hosts[] = {"proxy.internal", NULL};
static void write_stats(void *argument, struct buffer *out)
{
    assert_ptr_equal(argument, &not_ready);
    buffer_append_string(out, "{}");
}

static struct admin_settings settings = {
    .hosts = hosts, .is_ready = is_ready, .write_stats = write_stats, .argument = &not_ready};

static int make_metrics(void **state)
{
    (void)state;
    settings.metrics = metrics_new();
    metric_add(metrics_counter(settings.metrics, "a_total", "Help.", (struct metric_label[]){{0}}), 7);
    return 0;
}

static int free_metrics(void **state)
{
    (void)state;
    metrics_free(settings.metrics);
    return 0;
}

static struct http_response response;
static struct slice body;
static bool kept;
static struct buffer out;

/* Parses the request, answers it, reads the answer back. */
static int answer(const char *head)
{
    static const struct http_limits limits = {
        .max_head_bytes = 4096, .max_headers = 20, .max_target_bytes = 1000};
    struct http_request request = {0};
    struct http_problem problem;
    struct http_scan scan = {0};

    if (!http_parse_request(slice_of(head), &limits, &request, &problem)) {
        fail_msg("%s: %s", problem.reason, head);
    }
    buffer_clear(&out);
    kept = admin_answer(&settings, &request, &out);
    bool head_only = slice_equal(request.method, SLICE("HEAD"));
    http_request_free(&request);
    struct slice whole = buffer_slice(&out);
    assert_int_equal(http_scan_head(&scan, whole, true, &limits, &problem), HTTP_SCAN_COMPLETE);
    assert_true(http_parse_response((struct slice){whole.data, scan.offset}, head_only, &limits, &response,
                                    &problem));
    body = (struct slice){whole.data + scan.offset, whole.size - scan.offset};
    assert_int_equal(response.keep_alive, kept);
    assert_int_equal(body.size, head_only ? 0 : response.content_length);
    return response.status;
}

static void assert_field(const char *name, const char *value)
{
    const struct name_value *field = http_fields_find(&response.fields, slice_of(name));
    assert_non_null(field);
    assert_true(slice_equal(field->value, slice_of(value)));
}

static void assert_body(const char *text)
{
    if (!slice_equal(body, slice_of(text))) {
        fail_msg("%.*s", SLICE_ARGUMENTS(body));
    }
}

static int free_answer(void **state)
{
    (void)state;
    http_response_free(&response);
    buffer_free(&out);
    not_ready = NULL;
    settings.token = NULL;
    return 0;
}

#define HOST "Host: localhost\r\n"

static void health_is_ok(void **state)
{
    (void)state;
    not_ready = "stopping";
    assert_int_equal(answer("GET /healthz HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_body("ok\n");
    assert_true(kept);
    assert_field("Cache-Control", "no-store");
    assert_field("X-Content-Type-Options", "nosniff");
    assert_null(http_fields_find(&response.fields, SLICE("Access-Control-Allow-Origin")));
}

static void readiness_tells_why_not(void **state)
{
    (void)state;
    assert_int_equal(answer("GET /readyz HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_body("ready\n");
    not_ready = "shutting down";
    assert_int_equal(answer("GET /readyz HTTP/1.1\r\n" HOST "\r\n"), 503);
    assert_body("shutting down\n");
}

static void metrics_are_prometheus_text(void **state)
{
    (void)state;
    assert_int_equal(answer("GET /metrics?x=y HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_field("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    assert_non_null(memmem(body.data, body.size, "\na_total 7\n", 11));
}

static void head_has_the_head_of_get(void **state)
{
    (void)state;
    assert_int_equal(answer("GET /metrics HTTP/1.1\r\n" HOST "\r\n"), 200);
    uint64_t length = body.size;
    assert_int_equal(answer("HEAD /metrics HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_int_equal(response.content_length, length);
    assert_true(kept);
    assert_int_equal(answer("HEAD /nothing HTTP/1.1\r\n" HOST "\r\n"), 404);
}

static void unknown_pages_and_methods_are_refused_in_json(void **state)
{
    (void)state;
    assert_int_equal(answer("GET /healthz/ HTTP/1.1\r\n" HOST "\r\n"), 404);
    assert_field("Content-Type", "application/json");
    assert_body("{\"error\":{\"message\":\"there is no such "
                "page\",\"type\":\"proxy_error\",\"code\":\"no_route\",\"request_id\":null}}");
    assert_true(kept);
    assert_int_equal(answer("POST /healthz HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n"), 405);
    assert_field("Allow", "GET, HEAD");
    assert_true(kept);
    assert_int_equal(answer("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"), 404);
}

static void a_body_is_refused_and_ends_the_connection(void **state)
{
    (void)state;
    assert_int_equal(answer("GET /healthz HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\n"), 413);
    assert_false(kept);
    assert_int_equal(answer("GET /healthz HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"), 413);
    assert_false(kept);
    assert_int_equal(answer("POST /nothing HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\n"), 404);
    assert_false(kept);
}

static void only_own_hosts_are_served(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        int status;
    } cases[] = {{"127.0.0.1", 200},
                 {"127.0.0.1:9080", 200},
                 {"10.1.2.3", 200},
                 {"[::1]", 200},
                 {"[2001:db8::1]:80", 200},
                 {"LocalHost:1", 200},
                 {"proxy.internal", 200},
                 {"PROXY.internal:9080", 200},
                 {"evil.example", 421},
                 {"127.0.0.1.evil.example", 421},
                 {"localhost.evil.example:80", 421},
                 {"1.2.3", 421},
                 {"proxy.internal.", 421}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char head[200];
        snprintf(head, sizeof(head), "GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n", cases[i].host);
        if (answer(head) != cases[i].status) {
            fail_msg("%s: %d", cases[i].host, response.status);
        }
    }
    assert_int_equal(answer("GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 421);
    assert_int_equal(answer("GET /healthz HTTP/1.0\r\n\r\n"), 200);
    assert_false(kept);
}

static void a_token_guards_everything_but_the_three_pages(void **state)
{
    (void)state;
    settings.token = "s3cret";
    assert_int_equal(answer("GET /healthz HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_int_equal(answer("GET /readyz HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_int_equal(answer("GET /metrics HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_int_equal(answer("GET /stats HTTP/1.1\r\n" HOST "\r\n"), 401);
    assert_field("WWW-Authenticate", "Bearer");
    static const char *const wrong[] = {
        "Bearer",       "Bearer s3cre", "Bearer s3cretx", "Bearer S3cret", "Bearer s3crets3cret",
        "Basic s3cret", "s3cret",       "Bearer ",        "Bearers3cret"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char head[200];
        snprintf(head, sizeof(head), "GET /stats HTTP/1.1\r\n" HOST "Authorization: %s\r\n\r\n", wrong[i]);
        assert_int_equal(answer(head), 401);
    }
    assert_int_equal(answer("GET /stats HTTP/1.1\r\n" HOST "Authorization: bearer  s3cret\r\n\r\n"), 200);
    assert_int_equal(
        answer("GET /stats HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer s3cret\r\n\r\n"), 421);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, free_answer)
    const struct CMUnitTest tests[] = {
        TEST(health_is_ok),
        TEST(readiness_tells_why_not),
        TEST(metrics_are_prometheus_text),
        TEST(head_has_the_head_of_get),
        TEST(unknown_pages_and_methods_are_refused_in_json),
        TEST(a_body_is_refused_and_ends_the_connection),
        TEST(only_own_hosts_are_served),
        TEST(a_token_guards_everything_but_the_three_pages),
    };
    return cmocka_run_group_tests(tests, make_metrics, free_metrics);
}
