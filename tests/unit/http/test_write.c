/*
 * write: what is written is HTTP/1.1 to the byte, and our own parser reads it back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "http/head.h"
#include "http/write.h"

static void assert_written(struct buffer *out, const char *text)
{
    char *string = buffer_take_string(out);
    assert_string_equal(string, text);
    free(string);
    buffer_free(out);
}

static void lines_and_fields_have_their_exact_form(void **state)
{
    (void)state;
    struct buffer out = {0};
    http_write_request_line(&out, SLICE("GET"), SLICE("/a?b"));
    http_write_field(&out, SLICE("Host"), SLICE("x:1"));
    http_write_field(&out, SLICE("Empty"), (struct slice){NULL, 0});
    http_write_field_uint64(&out, SLICE("Content-Length"), UINT64_MAX);
    http_write_end(&out);
    assert_written(
        &out, "GET /a?b HTTP/1.1\r\nHost: x:1\r\nEmpty: \r\nContent-Length: 18446744073709551615\r\n\r\n");
    http_write_status_line(&out, 200);
    http_write_status_line(&out, 431);
    http_write_status_line(&out, 299);
    http_write_status_line(&out, 599);
    assert_written(&out, "HTTP/1.1 200 OK\r\nHTTP/1.1 431 Request Header Fields Too Large\r\nHTTP/1.1 299 "
                         "\r\nHTTP/1.1 599 \r\n");
    assert_string_equal(http_reason_phrase(-1), "");
    assert_string_equal(http_reason_phrase(100000), "");
}

static void date_is_now(void **state)
{
    (void)state;
    struct buffer out = {0};
    uint64_t before = clock_realtime_us() / 1000000, date = 0;
    http_write_date(&out);
    http_write_date(&out);
    uint64_t after = clock_realtime_us() / 1000000;
    struct slice text = buffer_slice(&out);
    assert_int_equal(text.size, 2 * (6 + 29 + 2));
    assert_true(slice_starts_with(text, SLICE("Date: ")));
    assert_true(clock_parse_http_date((struct slice){text.data + 6, 29}, &date));
    assert_true(date / 1000000 >= before && date / 1000000 <= after);
    buffer_free(&out);
}

static struct http_response response;

/* Writes a fault, reads its head back, gives the body. */
static struct slice write_and_read(struct buffer *out, enum http_fault fault, const char *message,
                                   const char *request_id, bool close, bool head_only)
{
    static const struct http_limits limits = {
        .max_head_bytes = 4096, .max_headers = 20, .max_target_bytes = 100};
    struct http_problem problem;
    struct http_scan scan = {0};
    size_t size = http_write_fault(out, fault, message, slice_of(request_id), close, head_only);
    struct slice whole = buffer_slice(out);
    assert_int_equal(http_scan_head(&scan, whole, true, &limits, &problem), HTTP_SCAN_COMPLETE);
    assert_true(http_parse_response((struct slice){whole.data, scan.offset}, head_only, &limits, &response,
                                    &problem));
    assert_int_equal(whole.size - scan.offset, size);
    assert_int_equal(response.keep_alive, !close);
    assert_int_equal(response.status, http_fault_status(fault));
    return (struct slice){whole.data + scan.offset, size};
}

static void assert_field(const char *name, const char *value)
{
    const struct name_value *field = http_fields_find(&response.fields, slice_of(name));
    if (value == NULL) {
        assert_null(field);
        return;
    }
    assert_non_null(field);
    assert_true(slice_equal(field->value, slice_of(value)));
}

static void a_fault_is_json_that_openai_clients_parse(void **state)
{
    (void)state;
    struct buffer out = {0};
    struct slice body = write_and_read(&out, HTTP_UPSTREAM_TIMEOUT, "said \"no\"\n", "abc-1", true, false);
    assert_true(slice_equal(
        body, SLICE("{\"error\":{\"message\":\"said \\\"no\\\"\\n\",\"type\":\"proxy_error\",\"code\":"
                    "\"upstream_timeout\",\"request_id\":\"abc-1\"}}")));
    assert_int_equal(response.content_length, body.size);
    assert_field("Content-Type", "application/json");
    assert_field("X-Content-Type-Options", "nosniff");
    assert_field("X-Request-Id", "abc-1");
    assert_field("Connection", "close");
    assert_non_null(http_fields_find(&response.fields, SLICE("Date")));
    assert_field("Retry-After", NULL);

    buffer_clear(&out);
    body = write_and_read(&out, HTTP_NO_ROUTE, NULL, "", false, false);
    assert_true(slice_equal(
        body,
        SLICE("{\"error\":{\"message\":\"no route matches this path\",\"type\":\"proxy_error\",\"code\":"
              "\"no_route\",\"request_id\":null}}")));
    assert_field("X-Request-Id", NULL);
    assert_field("Connection", NULL);
    buffer_free(&out);
    http_response_free(&response);
}

static void a_fault_to_head_has_the_same_head_and_no_body(void **state)
{
    (void)state;
    struct buffer out = {0};
    struct slice body = write_and_read(&out, HTTP_NO_ROUTE, NULL, "", false, false);
    uint64_t length = body.size;
    buffer_clear(&out);
    body = write_and_read(&out, HTTP_NO_ROUTE, NULL, "", false, true);
    assert_int_equal(body.size, 0);
    assert_int_equal(response.content_length, length);
    buffer_free(&out);
    http_response_free(&response);
}

static void statuses_bring_the_field_they_need(void **state)
{
    (void)state;
    struct buffer out = {0};
    write_and_read(&out, HTTP_METHOD_NOT_ALLOWED, NULL, "", true, false);
    assert_non_null(http_fields_find(&response.fields, SLICE("Allow")));
    buffer_clear(&out);
    write_and_read(&out, HTTP_OVERLOADED, NULL, "", false, false);
    assert_field("Retry-After", "1");
    buffer_clear(&out);
    write_and_read(&out, HTTP_UNAUTHORIZED, NULL, "", false, false);
    assert_field("WWW-Authenticate", "Bearer");
    buffer_free(&out);
    http_response_free(&response);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_and_fields_have_their_exact_form),
        cmocka_unit_test(date_is_now),
        cmocka_unit_test(a_fault_is_json_that_openai_clients_parse),
        cmocka_unit_test(a_fault_to_head_has_the_same_head_and_no_body),
        cmocka_unit_test(statuses_bring_the_field_they_need),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
