/*
 * write: straight into the buffer, the status lines' phrases from one table.
 */
#include "http/write.h"

#include "base/clock.h"
#include "base/json_write.h"

static const char *const phrases[512] = {
    [100] = "Continue",
    [101] = "Switching Protocols",
    [102] = "Processing",
    [103] = "Early Hints",
    [200] = "OK",
    [201] = "Created",
    [202] = "Accepted",
    [203] = "Non-Authoritative Information",
    [204] = "No Content",
    [205] = "Reset Content",
    [206] = "Partial Content",
    [207] = "Multi-Status",
    [208] = "Already Reported",
    [226] = "IM Used",
    [300] = "Multiple Choices",
    [301] = "Moved Permanently",
    [302] = "Found",
    [303] = "See Other",
    [304] = "Not Modified",
    [305] = "Use Proxy",
    [307] = "Temporary Redirect",
    [308] = "Permanent Redirect",
    [400] = "Bad Request",
    [401] = "Unauthorized",
    [402] = "Payment Required",
    [403] = "Forbidden",
    [404] = "Not Found",
    [405] = "Method Not Allowed",
    [406] = "Not Acceptable",
    [407] = "Proxy Authentication Required",
    [408] = "Request Timeout",
    [409] = "Conflict",
    [410] = "Gone",
    [411] = "Length Required",
    [412] = "Precondition Failed",
    [413] = "Content Too Large",
    [414] = "URI Too Long",
    [415] = "Unsupported Media Type",
    [416] = "Range Not Satisfiable",
    [417] = "Expectation Failed",
    [421] = "Misdirected Request",
    [422] = "Unprocessable Content",
    [423] = "Locked",
    [424] = "Failed Dependency",
    [425] = "Too Early",
    [426] = "Upgrade Required",
    [428] = "Precondition Required",
    [429] = "Too Many Requests",
    [431] = "Request Header Fields Too Large",
    [451] = "Unavailable For Legal Reasons",
    [500] = "Internal Server Error",
    [501] = "Not Implemented",
    [502] = "Bad Gateway",
    [503] = "Service Unavailable",
    [504] = "Gateway Timeout",
    [505] = "HTTP Version Not Supported",
    [506] = "Variant Also Negotiates",
    [507] = "Insufficient Storage",
    [508] = "Loop Detected",
    [511] = "Network Authentication Required",
};

const char *http_reason_phrase(int status)
{
    const char *phrase = status >= 0 && status < 512 ? phrases[status] : NULL;
    return phrase != NULL ? phrase : "";
}

void http_write_request_line(struct buffer *out, struct slice method, struct slice target)
{
    buffer_append_slice(out, method);
    buffer_append_char(out, ' ');
    buffer_append_slice(out, target);
    buffer_append_slice(out, SLICE(" HTTP/1.1\r\n"));
}

void http_write_status_line(struct buffer *out, int status)
{
    buffer_append_slice(out, SLICE("HTTP/1.1 "));
    buffer_append_uint64(out, (uint64_t)status);
    buffer_append_char(out, ' ');
    buffer_append_string(out, http_reason_phrase(status));
    buffer_append_slice(out, SLICE("\r\n"));
}

void http_write_field(struct buffer *out, struct slice name, struct slice value)
{
    char *p = buffer_reserve(out, name.size + value.size + 4);
    memcpy(p, name.data, name.size);
    p += name.size;
    *p++ = ':';
    *p++ = ' ';
    if (value.size > 0) {
        memcpy(p, value.data, value.size);
    }
    p += value.size;
    *p++ = '\r';
    *p++ = '\n';
    buffer_commit(out, name.size + value.size + 4);
}

void http_write_field_uint64(struct buffer *out, struct slice name, uint64_t value)
{
    buffer_append_slice(out, name);
    buffer_append_slice(out, SLICE(": "));
    buffer_append_uint64(out, value);
    buffer_append_slice(out, SLICE("\r\n"));
}

void http_write_date(struct buffer *out)
{
    static _Thread_local uint64_t second;
    static _Thread_local char text[CLOCK_HTTP_DATE_SIZE];
    uint64_t now = clock_realtime_us() / 1000000;

    if (now != second) {
        clock_format_http_date(now * 1000000, text);
        second = now;
    }
    http_write_field(out, SLICE("Date"), (struct slice){text, CLOCK_HTTP_DATE_SIZE - 1});
}

void http_write_end(struct buffer *out)
{
    buffer_append_slice(out, SLICE("\r\n"));
}

void http_write_fault_body(struct buffer *out, enum http_fault fault, const char *message,
                           struct slice request_id)
{
    buffer_append_slice(out, SLICE("{\"error\":{\"message\":"));
    json_write_string(out, slice_of(message != NULL ? message : http_fault_message(fault)));
    buffer_append_slice(out, SLICE(",\"type\":\"proxy_error\",\"code\":\""));
    buffer_append_string(out, http_fault_code(fault));
    buffer_append_slice(out, SLICE("\",\"request_id\":"));
    if (request_id.size > 0) {
        json_write_latin1(out, request_id);
    } else {
        buffer_append_slice(out, SLICE("null"));
    }
    buffer_append_slice(out, SLICE("}}"));
}

size_t http_write_fault(struct buffer *out, enum http_fault fault, const char *message,
                        struct slice request_id, bool close, bool head_only)
{
    struct buffer body = {0};
    size_t size = 0;
    int status = http_fault_status(fault);

    http_write_fault_body(&body, fault, message, request_id);
    http_write_status_line(out, status);
    http_write_date(out);
    http_write_field(out, SLICE("Content-Type"), SLICE("application/json"));
    http_write_field(out, SLICE("X-Content-Type-Options"), SLICE("nosniff"));
    http_write_field_uint64(out, SLICE("Content-Length"), body.size);
    if (request_id.size > 0) {
        http_write_field(out, SLICE("X-Request-Id"), request_id);
    }
    if (status == 401) {
        http_write_field(out, SLICE("WWW-Authenticate"), SLICE("Bearer"));
    } else if (status == 405) {
        http_write_field(out, SLICE("Allow"), SLICE("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    } else if (status == 503) {
        http_write_field(out, SLICE("Retry-After"), SLICE("1"));
    }
    if (close) {
        http_write_field(out, SLICE("Connection"), SLICE("close"));
    }
    http_write_end(out);
    if (!head_only) {
        buffer_append_slice(out, buffer_slice(&body));
        size = body.size;
    }
    buffer_free(&body);
    return size;
}
