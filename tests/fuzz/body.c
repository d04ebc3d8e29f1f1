/*
 * A connection of requests, heads and bodies: the bytes are the same messages however they arrive, and the same messages again when each was written anew. This is where one server
 * could see other messages than the next.
 *
 * What cannot follow a request is read as well: a body of every framing, of lengths around the size of the input.
 */
#include "http/body.h"
#include "heads.h"
#include "http/write.h"

enum ending { ENDED, UNFINISHED, HEAD_REFUSED, BODY_REFUSED };

/* All that was understood, written in one way. */
struct seen {
    struct buffer messages;
    enum ending ending;
    const char *reason;
};

struct connection {
    struct seen *seen;
    size_t taken; /* of the input */
    struct http_scan scan;
    bool in_body;
    struct http_request request;
    struct http_body_reader body;
    struct buffer content;
};

static void write_message(struct connection *connection)
{
    struct buffer *out = &connection->seen->messages;
    struct slice authority = connection->request.authority;
    http_write_request_line(out, connection->request.method, connection->request.target);
    http_write_field(out, SLICE("Host"), authority.size > 0 ? authority : SLICE("none.test"));
    if (connection->request.body == HTTP_BODY_CHUNKED) {
        char header[HTTP_CHUNK_HEADER_SIZE];
        http_write_field(out, SLICE("Transfer-Encoding"), SLICE("chunked"));
        http_write_end(out);
        if (connection->content.size > 0) {
            buffer_append(out, header, http_chunk_header(header, connection->content.size));
            buffer_append_slice(out, buffer_slice(&connection->content));
            buffer_append_string(out, "\r\n");
        }
        buffer_append_string(out, "0\r\n\r\n");
    } else {
        if (connection->request.body == HTTP_BODY_LENGTH)
            http_write_field_uint64(out, SLICE("Content-Length"), connection->request.content_length);
        http_write_end(out);
        buffer_append_slice(out, buffer_slice(&connection->content));
    }
    buffer_clear(&connection->content);
}

/* True: a body follows. */
static bool read_head(struct connection *connection, struct slice arrived)
{
    struct http_problem problem = {.reason = ""};
    switch (http_scan_head(&connection->scan, arrived, false, &fuzz_no_limits, &problem)) {
    case HTTP_SCAN_INCOMPLETE:
        return false;
    case HTTP_SCAN_COMPLETE:
        if (http_parse_request((struct slice){arrived.data, connection->scan.offset}, &fuzz_no_limits,
                               &connection->request, &problem))
            break;
        /* fall through */
    case HTTP_SCAN_REFUSED:
        connection->seen->ending = HEAD_REFUSED;
        connection->seen->reason = problem.reason;
        return false;
    }
    connection->taken += connection->scan.offset;
    connection->scan = (struct http_scan){0};
    http_body_begin(&connection->body, connection->request.body, connection->request.content_length);
    return true;
}

/* True: the message is complete. */
static bool read_body(struct connection *connection, struct slice arrived)
{
    struct slice rest = arrived, data;
    const char *reason = "";
    enum http_chunked_result result;
    while ((result = http_body_next(&connection->body, &rest, &data, &reason)) == HTTP_CHUNKED_DATA) {
        REQUIRE(data.size > 0);
        buffer_append_slice(&connection->content, data);
    }
    connection->taken += arrived.size - rest.size;
    if (result == HTTP_CHUNKED_ERROR) {
        connection->seen->ending = BODY_REFUSED;
        connection->seen->reason = reason;
    }
    return result == HTTP_CHUNKED_END;
}

static struct seen read_connection(struct slice input, enum fuzz_cut cut)
{
    struct seen seen = {.ending = ENDED, .reason = ""};
    struct connection connection = {.seen = &seen};
    struct fuzz_cutter cutter = fuzz_cutter(cut, input);
    size_t arrived = 0;
    while (arrived < input.size && seen.ending == ENDED) {
        arrived += fuzz_next_piece(&cutter, input.size - arrived);
        bool more = true;
        while (more && seen.ending == ENDED) {
            struct slice rest = {input.data + connection.taken, arrived - connection.taken};
            if (!connection.in_body) {
                /* The request's slices point into the input, which stays. */
                more = connection.in_body = rest.size > 0 && read_head(&connection, rest);
            } else if ((more = read_body(&connection, rest))) {
                connection.in_body = false;
                write_message(&connection);
            }
        }
    }
    if (seen.ending == ENDED && (connection.in_body || connection.taken < input.size))
        seen.ending = UNFINISHED;
    http_request_free(&connection.request);
    buffer_free(&connection.content);
    return seen;
}

static void require_same(const struct seen *a, const struct seen *b)
{
    REQUIRE(a->ending == b->ending && strcmp(a->reason, b->reason) == 0);
    REQUIRE(slice_equal(buffer_slice(&a->messages), buffer_slice(&b->messages)));
}

static void check_connection(struct slice input)
{
    struct seen whole = read_connection(input, FUZZ_WHOLE);
    for (enum fuzz_cut cut = FUZZ_BYTES; cut < FUZZ_CUTS; cut++) {
        struct seen seen = read_connection(input, cut);
        require_same(&whole, &seen);
        buffer_free(&seen.messages);
    }
    struct seen again = read_connection(buffer_slice(&whole.messages), FUZZ_PIECES);
    REQUIRE_MESSAGE(again.ending == ENDED, again.reason);
    REQUIRE(slice_equal(buffer_slice(&again.messages), buffer_slice(&whole.messages)));
    buffer_free(&again.messages);
    buffer_free(&whole.messages);
}

static void check_body(struct slice input, enum http_body kind, uint64_t length, enum fuzz_cut cut)
{
    struct http_body_reader reader;
    struct fuzz_cutter cutter = fuzz_cutter(cut, input);
    struct slice data, nothing = {NULL, 0};
    enum http_chunked_result result;
    const char *reason;
    size_t expected = kind == HTTP_BODY_NONE                            ? 0
                      : kind == HTTP_BODY_LENGTH && length < input.size ? (size_t)length
                                                                        : input.size;
    bool ends = kind == HTTP_BODY_NONE || (kind == HTTP_BODY_LENGTH && length <= input.size);
    http_body_begin(&reader, kind, length);
    size_t at = 0;
    do {
        struct slice piece = {input.data + at,
                              at < input.size ? fuzz_next_piece(&cutter, input.size - at) : 0};
        const char *next = piece.data;
        while ((result = http_body_next(&reader, &piece, &data, &reason)) == HTTP_CHUNKED_DATA) {
            REQUIRE(data.data == next && data.size > 0 && piece.data == next + data.size);
            next = piece.data;
        }
        at = (size_t)(piece.data - input.data);
    } while (result == HTTP_CHUNKED_MORE && at < input.size);
    REQUIRE(at == expected && result == (ends ? HTTP_CHUNKED_END : HTTP_CHUNKED_MORE));
    REQUIRE(http_body_next(&reader, &nothing, &data, &reason) == result);
    REQUIRE(http_body_at_close(&reader) == (kind == HTTP_BODY_UNTIL_CLOSE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = fuzz_copy((struct slice){(const char *)data, size});
    const uint64_t lengths[] = {0, 1, size / 2, size, (uint64_t)size + 1, UINT64_C(999999999999999999)};
    check_connection(input);
    for (enum fuzz_cut cut = FUZZ_WHOLE; cut < FUZZ_CUTS; cut++) {
        check_body(input, HTTP_BODY_NONE, 0, cut);
        check_body(input, HTTP_BODY_UNTIL_CLOSE, 0, cut);
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            check_body(input, HTTP_BODY_LENGTH, lengths[i], cut);
    }
    free((char *)(uintptr_t)input.data);
    return 0;
}
