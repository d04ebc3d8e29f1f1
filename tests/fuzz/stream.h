/*
 * stream: reads what one side of a connection says, head after head and body after body, as it arrives. What was understood is written in two ways: anew, as the next server would
 * read it; and in notes of every detail, so that two readings can be held against each other.
 *
 * The requests of a client, or the responses of an upstream that is asked again and again (GET, or HEAD). What must be last on a real connection is followed by more here.
 */
#ifndef TEST_FUZZ_STREAM_H
#define TEST_FUZZ_STREAM_H

#include "fuzz.h"
#include "http/body.h"
#include "http/write.h"

enum stream_side { STREAM_REQUESTS, STREAM_RESPONSES, STREAM_HEAD_RESPONSES, STREAM_SIDES };

enum stream_end { STREAM_ENDED, STREAM_UNFINISHED, STREAM_HEAD_REFUSED, STREAM_BODY_REFUSED };

struct stream {
    enum stream_side side;
    const struct http_limits *limits;
    struct slice arrived; /* and not taken yet; what follows arrives right behind it */
    struct http_scan scan;
    bool in_body;
    struct http_request request;
    struct http_response response;
    struct http_body_reader body;
    struct buffer content; /* of the body being read */

    struct buffer messages, notes;
    enum stream_end end;
    const char *reason; /* of a refusal */
};

static inline struct stream stream_begin(enum stream_side side, const struct http_limits *limits)
{
    return (struct stream){.side = side, .limits = limits, .reason = ""};
}

static inline void stream_free(struct stream *stream)
{
    http_request_free(&stream->request);
    http_response_free(&stream->response);
    buffer_free(&stream->content);
    buffer_free(&stream->messages);
    buffer_free(&stream->notes);
}

/* Every detail of two readings is the same. */
static inline bool stream_is_equal(const struct stream *a, const struct stream *b)
{
    return a->end == b->end && strcmp(a->reason, b->reason) == 0 &&
           (a->end != STREAM_UNFINISHED || a->arrived.size == b->arrived.size) &&
           slice_equal(buffer_slice(&a->notes), buffer_slice(&b->notes)) &&
           slice_equal(buffer_slice(&a->messages), buffer_slice(&b->messages)) &&
           slice_equal(buffer_slice(&a->content), buffer_slice(&b->content));
}

static inline enum http_body stream_framing(const struct stream *stream)
{
    return stream->side == STREAM_REQUESTS ? stream->request.body : stream->response.body;
}

static inline uint64_t stream_content_length(const struct stream *stream)
{
    return stream->side == STREAM_REQUESTS ? stream->request.content_length : stream->response.content_length;
}

/* Notes ------------------------------------------------------------------------------------------------------------------------------------ */

static inline void stream_note(struct stream *stream, struct slice text)
{
    buffer_append_uint64(&stream->notes, text.size);
    buffer_append_char(&stream->notes, ':');
    buffer_append_slice(&stream->notes, text);
}

static inline void stream_note_request(struct stream *stream)
{
    const struct http_request *request = &stream->request;
    const struct slice parts[] = {request->method, request->target, request->path, request->query,
                                  request->authority};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        stream_note(stream, parts[i]);
    buffer_printf(&stream->notes, "%d %d %d %d\n", request->minor_version, request->has_query,
                  request->keep_alive, request->expect_continue);
}

static inline void stream_note_response(struct stream *stream)
{
    const struct http_response *response = &stream->response;
    stream_note(stream, response->reason);
    buffer_printf(&stream->notes, "%d %d %d %d\n", response->status, response->minor_version,
                  response->has_content_length, response->keep_alive);
}

static inline void stream_note_head(struct stream *stream)
{
    const struct http_fields *fields =
        stream->side == STREAM_REQUESTS ? &stream->request.fields : &stream->response.fields;
    if (stream->side == STREAM_REQUESTS)
        stream_note_request(stream);
    else
        stream_note_response(stream);
    for (size_t i = 0; i < fields->count; i++) {
        stream_note(stream, fields->items[i].name);
        stream_note(stream, fields->items[i].value);
    }
    buffer_printf(&stream->notes, "body %d %llu\n", (int)stream_framing(stream),
                  (unsigned long long)stream_content_length(stream));
}

/* Anew ------------------------------------------------------------------------------------------------------------------------------------- */

static inline void stream_write_start(struct stream *stream)
{
    struct buffer *out = &stream->messages;
    struct slice authority = stream->request.authority;
    if (stream->side != STREAM_REQUESTS) {
        http_write_status_line(out, stream->response.status);
        return;
    }
    http_write_request_line(out, stream->request.method, stream->request.target);
    http_write_field(out, SLICE("Host"), authority.size > 0 ? authority : SLICE("none.test"));
}

static inline void stream_write_message(struct stream *stream)
{
    struct buffer *out = &stream->messages;
    char header[HTTP_CHUNK_HEADER_SIZE];
    bool chunked = stream_framing(stream) == HTTP_BODY_CHUNKED;
    stream_write_start(stream);
    if (chunked)
        http_write_field(out, SLICE("Transfer-Encoding"), SLICE("chunked"));
    if (stream_framing(stream) == HTTP_BODY_LENGTH)
        http_write_field_uint64(out, SLICE("Content-Length"), stream_content_length(stream));
    http_write_end(out);
    if (chunked && stream->content.size > 0) {
        buffer_append(out, header, http_chunk_header(header, stream->content.size));
        buffer_append_slice(out, buffer_slice(&stream->content));
        buffer_append_string(out, "\r\n");
    } else {
        buffer_append_slice(out, buffer_slice(&stream->content));
    }
    if (chunked)
        buffer_append_string(out, "0\r\n\r\n");
    buffer_printf(&stream->notes, "odd %d\n", http_body_was_odd(&stream->body));
    buffer_clear(&stream->content);
}

/* Reading ---------------------------------------------------------------------------------------------------------------------------------- */

static inline void stream_refuse(struct stream *stream, enum stream_end end, const char *reason)
{
    stream->end = end;
    stream->reason = reason;
}

static inline bool stream_parse_head(struct stream *stream, struct slice head, struct http_problem *problem)
{
    return stream->side == STREAM_REQUESTS
               ? http_parse_request(head, stream->limits, &stream->request, problem)
               : http_parse_response(head, stream->side == STREAM_HEAD_RESPONSES, stream->limits,
                                     &stream->response, problem);
}

static inline void stream_take(struct stream *stream, size_t size)
{
    stream->arrived = (struct slice){stream->arrived.data + size, stream->arrived.size - size};
}

/* True: the head is complete, a body follows. */
static inline bool stream_read_head(struct stream *stream)
{
    struct http_problem problem = {.reason = ""};
    enum http_scan_result result = http_scan_head(&stream->scan, stream->arrived,
                                                  stream->side != STREAM_REQUESTS, stream->limits, &problem);
    if (result == HTTP_SCAN_INCOMPLETE)
        return false;
    struct slice head = {stream->arrived.data, stream->scan.offset};
    if (result == HTTP_SCAN_REFUSED || !stream_parse_head(stream, head, &problem)) {
        stream_refuse(stream, STREAM_HEAD_REFUSED, problem.reason);
        return false;
    }
    stream_take(stream, head.size);
    stream->scan = (struct http_scan){0};
    stream_note_head(stream);
    http_body_begin(&stream->body, stream_framing(stream), stream_content_length(stream));
    if (stream->side != STREAM_REQUESTS)
        http_body_be_tolerant(&stream->body);
    return true;
}

/* True: the message is complete. */
static inline bool stream_read_body(struct stream *stream)
{
    struct slice rest = stream->arrived, data;
    const char *reason = "";
    enum http_chunked_result result;
    while ((result = http_body_next(&stream->body, &rest, &data, &reason)) == HTTP_CHUNKED_DATA) {
        REQUIRE(data.size > 0);
        buffer_append_slice(&stream->content, data);
    }
    stream_take(stream, stream->arrived.size - rest.size);
    if (result == HTTP_CHUNKED_ERROR)
        stream_refuse(stream, STREAM_BODY_REFUSED, reason);
    return result == HTTP_CHUNKED_END;
}

/* The piece follows the one before in memory, too. Nothing more is read behind what was refused. */
static inline void stream_read(struct stream *stream, struct slice piece)
{
    stream->arrived = stream->arrived.size > 0
                          ? (struct slice){stream->arrived.data, stream->arrived.size + piece.size}
                          : piece;
    while (stream->end == STREAM_ENDED) {
        if (stream->in_body && stream_read_body(stream)) {
            stream_write_message(stream);
            stream->in_body = false;
        } else if (!stream->in_body && stream->arrived.size > 0 && stream_read_head(stream)) {
            stream->in_body = true;
        } else {
            break;
        }
    }
}

static inline void stream_close(struct stream *stream)
{
    if (stream->end == STREAM_ENDED && stream->in_body && http_body_at_close(&stream->body)) {
        stream_write_message(stream);
        stream->in_body = false;
    }
    if (stream->end == STREAM_ENDED && (stream->in_body || stream->arrived.size > 0))
        stream->end = STREAM_UNFINISHED;
}

#endif
