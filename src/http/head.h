/*
 * head: the head of an HTTP/1.1 message, from bytes to a struct; requests and responses alike. Strict: what RFC 9110 and 9112 call invalid or leave
 * to repair is refused, never repaired (requests), or refused unless harmless (responses, see http_parse_response).
 *
 * Two steps, so that a head that trickles in costs one look at each byte:
 *
 *     http_scan_head()     finds the end of the head, incrementally, and enforces the limits while it is incomplete
 *     http_parse_request() / http_parse_response()   take the complete head apart, once
 *
 * Slices in the results point into the caller's bytes, which must stay as long as the result is used. No sockets, no clock.
 */
#ifndef HTTP_HEAD_H
#define HTTP_HEAD_H

#include "http/fault.h"
#include "http/fields.h"

struct http_limits {
    size_t max_head_bytes;   /* whole head: 431 (also of a response: invalid) */
    size_t max_headers;      /* fields: 431 */
    size_t max_target_bytes; /* request-target: 414 */
};

/* Why a message was refused. */
struct http_problem {
    enum http_fault fault; /* what to answer */
    const char *reason;    /* snake_case and static, for counters: "bare_lf", "host_missing" */
    const char *message;   /* one static sentence for the peer: "bare LF in the message head" */
};

/* Progress through a request line. */
struct http_request_line {
    int part;         /* private */
    size_t part_size; /* bytes of the current part */
    size_t method_size, target_size;
    int major_version, minor_version;
};

/* Progress through a head that is not complete yet. All zero to begin with, and again for the next message. */
struct http_scan {
    size_t offset;      /* bytes looked at */
    size_t line_start;  /* where the current line begins */
    size_t lines;       /* lines complete */
    size_t empty_lines; /* CRLFs skipped before a request line (at most 2) */
    bool cr;            /* the last byte looked at was a CR */
    struct http_request_line request_line;
};

enum http_scan_result {
    HTTP_SCAN_INCOMPLETE, /* need more bytes */
    HTTP_SCAN_COMPLETE,   /* scan->offset is the size of the head, all its empty lines included */
    HTTP_SCAN_REFUSED     /* *problem says why */
};

/* Looks on in data (the same bytes as before and more behind them). response: a response head is scanned (no empty lines before it; bare LF still refused).
 * What can stand in no head is refused at the byte where it stands: junk, control characters, bare CR and LF, a bad request line, folded lines, too many
 * fields, a target or a head over its limit. The outcome does not depend on how the bytes were split over calls. */
enum http_scan_result http_scan_head(struct http_scan *scan, struct slice data, bool response,
                                     const struct http_limits *limits, struct http_problem *problem);

enum http_body {
    HTTP_BODY_NONE,
    HTTP_BODY_LENGTH, /* exactly content_length bytes (may be 0) */
    HTTP_BODY_CHUNKED,
    HTTP_BODY_UNTIL_CLOSE /* responses only */
};

struct http_request {
    struct slice method;
    struct slice target; /* as received */
    struct slice path;   /* of the target, without query: begins with '/', or is "*"; empty for CONNECT */
    struct slice query;  /* behind the first '?' */
    bool has_query;
    struct slice authority; /* of an absolute-form target, else the Host field's value; may be empty */
    int minor_version;      /* 0 or 1 */
    struct http_fields fields;
    enum http_body body; /* NONE, LENGTH or CHUNKED */
    uint64_t content_length;
    bool keep_alive;      /* the client lets the connection be used again */
    bool expect_continue; /* HTTP/1.1 with a body and Expect: 100-continue */
};

/*
 * head: the complete head as the scan found it; what the scan refuses is refused here again. Fills *request (its fields list is emptied first and keeps its array for the next
 * use; free with http_request_free). False: refused, *problem tells.
 *
 * Refused with 400 unless said otherwise: grammar errors of any kind; obs-fold; space before the colon; control characters; an empty or missing or repeated or odd Host (HTTP/1.0 may leave it out);
 * user info; a fragment; absolute-form whose authority is not the Host's; absolute-form other than http(s); authority-form and '*' where they
 * do not belong; Content-Length that is repeated, a list, or not 1 to 18 digits; Content-Length with Transfer-Encoding; HTTP/1.0 with Transfer-Encoding; a Transfer-Encoding other than exactly "chunked"
 * (501 when it ends in chunked, 400 else); Authorization twice; a field name with '_' that without it would name a framing, forwarding or credential field; an unsafe path (http_path_is_safe);
 * Another major version: 505. A method over 32 bytes: 501. Then, when all else is fine and *request is filled in all the same: CONNECT and TRACE: 405; Expect other
 * than 100-continue: 417 (HTTP/1.0: ignored).
 */
bool http_parse_request(struct slice head, const struct http_limits *limits, struct http_request *request,
                        struct http_problem *problem);
void http_request_free(struct http_request *request);

struct http_response {
    int status;          /* 100 to 599 */
    struct slice reason; /* as received; may be empty */
    int minor_version;
    struct http_fields fields;
    enum http_body body; /* as the status, the method and the fields say */
    uint64_t content_length;
    bool has_content_length; /* also where there is no body (HEAD, 304) */
    bool keep_alive;         /* may the connection be used again? Not after an oddity that was tolerated */
};

/*
 * As http_parse_request; every refusal is upstream_invalid_response. head_request: the request was HEAD. Harmless oddities of upstreams are tolerated, and cost the
 * connection its reuse: a status line without the space before an empty reason, identical repeated Content-Length (collapses to one: send content_length, not the fields), chunked in
 * HTTP/1.0, a body announced where none can be (1xx, 204). Refused: obs-fold, space before the colon, Content-Length with
 * Transfer-Encoding, a malformed length, a coding other than chunked, a status line that does not fit, control characters, versions other than 1.0 and 1.1, status below 100 or above 599.
 * A 1xx has no body; 101 is reported like any status, the caller decides.
 */
bool http_parse_response(struct slice head, bool head_request, const struct http_limits *limits,
                         struct http_response *response, struct http_problem *problem);
void http_response_free(struct http_response *response);

/*
 * Can this path mean something else to the next server than to our routes? False for '.' and '..' segments (plain or percent-encoded, also before ';'), encoded '/' '\' and NUL, '%' without
 * two hexadecimal digits, an empty first segment ("//", which reads as a host elsewhere), and what every client encodes: control characters, blanks, bytes from 0x80, and " < > \ ` { }. The path is
 * otherwise opaque; further empty segments are segments.
 */
bool http_path_is_safe(struct slice path);

#endif
