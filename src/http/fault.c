/*
 * fault: the table behind fault.h.
 */
#include "http/fault.h"

#include <assert.h>

static const struct {
    const char *code;
    int status;
    const char *message;
} faults[HTTP_FAULT_COUNT] = {
    [HTTP_OK] = {"ok", 200, "no fault"},
    [HTTP_BAD_REQUEST] = {"bad_request", 400, "the request is malformed"},
    [HTTP_UNAUTHORIZED] = {"unauthorized", 401, "a valid access token is required"},
    [HTTP_NO_ROUTE] = {"no_route", 404, "no route matches this path"},
    [HTTP_METHOD_NOT_ALLOWED] = {"method_not_allowed", 405, "this method is not allowed"},
    [HTTP_REQUEST_TIMEOUT] = {"request_timeout", 408, "the request did not arrive in time"},
    [HTTP_REQUEST_TOO_LARGE] = {"request_too_large", 413, "the request body is too large"},
    [HTTP_URI_TOO_LONG] = {"uri_too_long", 414, "the request target is too long"},
    [HTTP_EXPECTATION_FAILED] = {"expectation_failed", 417, "the expectation cannot be met"},
    [HTTP_MISDIRECTED_REQUEST] = {"misdirected_request", 421, "this host is not served here"},
    [HTTP_HEADERS_TOO_LARGE] = {"headers_too_large", 431, "the request head is too large"},
    [HTTP_UNSUPPORTED] = {"unsupported", 501, "the request needs something that is not supported"},
    [HTTP_UPSTREAM_UNREACHABLE] = {"upstream_unreachable", 502, "the upstream could not be reached"},
    [HTTP_UPSTREAM_INVALID_RESPONSE] = {"upstream_invalid_response", 502,
                                        "the upstream's response is invalid"},
    [HTTP_OVERLOADED] = {"overloaded", 503, "too much is going on, try again later"},
    [HTTP_UPSTREAM_TIMEOUT] = {"upstream_timeout", 504, "the upstream did not answer in time"},
    [HTTP_VERSION_NOT_SUPPORTED] = {"version_not_supported", 505, "only HTTP/1.0 and HTTP/1.1 are supported"},
    [HTTP_LOOP_DETECTED] = {"loop_detected", 508, "the request has passed this proxy before"},
};

const char *http_fault_code(enum http_fault fault)
{
    assert(fault < HTTP_FAULT_COUNT);
    return faults[fault].code;
}

int http_fault_status(enum http_fault fault)
{
    assert(fault < HTTP_FAULT_COUNT);
    return faults[fault].status;
}

const char *http_fault_message(enum http_fault fault)
{
    assert(fault < HTTP_FAULT_COUNT);
    return faults[fault].message;
}
