/*
 * fault: the codes and statuses are promised to clients and in events.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/fault.h"

static void codes_and_statuses_are_those_promised(void **state)
{
    (void)state;
    static const struct {
        enum http_fault fault;
        const char *code;
        int status;
    } promised[] = {
        {HTTP_BAD_REQUEST, "bad_request", 400},
        {HTTP_UNAUTHORIZED, "unauthorized", 401},
        {HTTP_NO_ROUTE, "no_route", 404},
        {HTTP_METHOD_NOT_ALLOWED, "method_not_allowed", 405},
        {HTTP_REQUEST_TIMEOUT, "request_timeout", 408},
        {HTTP_REQUEST_TOO_LARGE, "request_too_large", 413},
        {HTTP_URI_TOO_LONG, "uri_too_long", 414},
        {HTTP_EXPECTATION_FAILED, "expectation_failed", 417},
        {HTTP_MISDIRECTED_REQUEST, "misdirected_request", 421},
        {HTTP_HEADERS_TOO_LARGE, "headers_too_large", 431},
        {HTTP_UNSUPPORTED, "unsupported", 501},
        {HTTP_UPSTREAM_UNREACHABLE, "upstream_unreachable", 502},
        {HTTP_UPSTREAM_INVALID_RESPONSE, "upstream_invalid_response", 502},
        {HTTP_OVERLOADED, "overloaded", 503},
        {HTTP_UPSTREAM_TIMEOUT, "upstream_timeout", 504},
        {HTTP_VERSION_NOT_SUPPORTED, "version_not_supported", 505},
        {HTTP_LOOP_DETECTED, "loop_detected", 508},
    };
    size_t count = sizeof(promised) / sizeof(promised[0]);
    assert_int_equal(count, HTTP_FAULT_COUNT - 1);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(http_fault_code(promised[i].fault), promised[i].code);
        assert_int_equal(http_fault_status(promised[i].fault), promised[i].status);
        assert_true(strlen(http_fault_message(promised[i].fault)) > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(codes_and_statuses_are_those_promised)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
