/*
 * write: message heads as bytes, appended to a buffer. What is written is always our own serialisation of checked parts, never a copy of received lines.
 */
#ifndef HTTP_WRITE_H
#define HTTP_WRITE_H

#include "base/buffer.h"
#include "http/fault.h"

void http_write_request_line(struct buffer *out, struct slice method, struct slice target);
/* "HTTP/1.1 200 OK\r\n" with the standard reason phrase of the status (RFC 9110 15), or an empty one (the space stays). */
void http_write_status_line(struct buffer *out, int status);
void http_write_field(struct buffer *out, struct slice name, struct slice value);
void http_write_field_uint64(struct buffer *out, struct slice name, uint64_t value);
/* "Date: …\r\n" of now; formatted once a second per thread. */
void http_write_date(struct buffer *out);
/* The empty line. */
void http_write_end(struct buffer *out);
const char *http_reason_phrase(int status);

/*
 * A whole error response: status line, Date, Content-Type: application/json, X-Content-Type-Options: nosniff, Content-Length, X-Request-Id (unless empty),
 * Connection: close (if close), Allow, Retry-After or WWW-Authenticate where the status wants one, and the body that OpenAI clients parse:
 *     {"error":{"message":"…","type":"proxy_error","code":"upstream_timeout","request_id":"…"}}
 * message: NULL for the fault's own sentence. Empty request_id: null in the body. head_only (a HEAD request): the same head, no body. Returns the number of body bytes written.
 */
size_t http_write_fault(struct buffer *out, enum http_fault fault, const char *message,
                        struct slice request_id, bool close, bool head_only);

/* The body alone. */
void http_write_fault_body(struct buffer *out, enum http_fault fault, const char *message,
                           struct slice request_id);

#endif
