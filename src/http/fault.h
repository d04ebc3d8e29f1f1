/*
 * fault: the errors this proxy answers by itself, one row each: code, status, and the sentence clients see by default.
 * The codes are a contract (docs/events.md); they are also the kinds of `error` in an event.
 */
#ifndef HTTP_FAULT_H
#define HTTP_FAULT_H

enum http_fault {
    HTTP_OK, /* no fault */
    HTTP_BAD_REQUEST,
    HTTP_UNAUTHORIZED,
    HTTP_NO_ROUTE,
    HTTP_METHOD_NOT_ALLOWED,
    HTTP_REQUEST_TIMEOUT,
    HTTP_REQUEST_TOO_LARGE,
    HTTP_URI_TOO_LONG,
    HTTP_EXPECTATION_FAILED,
    HTTP_MISDIRECTED_REQUEST,
    HTTP_HEADERS_TOO_LARGE,
    HTTP_UNSUPPORTED,
    HTTP_UPSTREAM_UNREACHABLE,
    HTTP_UPSTREAM_INVALID_RESPONSE,
    HTTP_OVERLOADED,
    HTTP_UPSTREAM_TIMEOUT,
    HTTP_VERSION_NOT_SUPPORTED,
    HTTP_LOOP_DETECTED,
    HTTP_FAULT_COUNT
};

/* "bad_request", "upstream_timeout", … */
const char *http_fault_code(enum http_fault fault);
/* 400, 504, … */
int http_fault_status(enum http_fault fault);
/* The sentence for clients when there is nothing better to say. */
const char *http_fault_message(enum http_fault fault);

#endif
