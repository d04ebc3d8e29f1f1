/*
 * A connection of messages, heads and bodies: the bytes are the same messages however they arrive, and the same messages again when each was written anew. This is where one server
 * could see other messages than the next. The input is read as a client's requests and as an upstream's responses.
 *
 * What cannot follow a head is read as well: a body of every framing, of lengths around the size of the input.
 */
#include "heads.h"
#include "stream.h"

static struct stream read_stream(struct slice input, enum stream_side side, enum fuzz_cut cut)
{
    struct stream stream = stream_begin(side, &fuzz_no_limits);
    struct fuzz_cutter cutter = fuzz_cutter(cut, input, 0);
    struct slice piece;
    while (stream.end == STREAM_ENDED && (piece = fuzz_next_piece(&cutter)).size > 0)
        stream_read(&stream, piece);
    stream_close(&stream);
    fuzz_show_rest(&cutter);
    return stream;
}

static void check_stream(struct slice input, enum stream_side side)
{
    struct stream whole = read_stream(input, side, FUZZ_WHOLE);
    for (enum fuzz_cut cut = FUZZ_BYTES; cut < FUZZ_CUTS; cut++) {
        struct stream stream = read_stream(input, side, cut);
        REQUIRE_MESSAGE(stream_is_equal(&whole, &stream), stream.reason);
        stream_free(&stream);
    }
    struct stream again = read_stream(buffer_slice(&whole.messages), side, FUZZ_PIECES);
    REQUIRE_MESSAGE(again.end == STREAM_ENDED, again.reason);
    REQUIRE(slice_equal(buffer_slice(&again.messages), buffer_slice(&whole.messages)));
    stream_free(&again);
    stream_free(&whole);
}

static void check_body(struct slice input, enum http_body kind, uint64_t length, enum fuzz_cut cut)
{
    struct http_body_reader reader;
    struct fuzz_cutter cutter = fuzz_cutter(cut, input, 0);
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
        struct slice piece = fuzz_next_piece(&cutter);
        const char *next = piece.data;
        while ((result = http_body_next(&reader, &piece, &data, &reason)) == HTTP_CHUNKED_DATA) {
            REQUIRE(data.data == next && data.size > 0 && piece.data == next + data.size);
            next = piece.data;
        }
        at = (size_t)(piece.data - input.data);
    } while (result == HTTP_CHUNKED_MORE && at < input.size);
    fuzz_show_rest(&cutter);
    REQUIRE(at == expected && result == (ends ? HTTP_CHUNKED_END : HTTP_CHUNKED_MORE));
    REQUIRE(http_body_next(&reader, &nothing, &data, &reason) == result);
    REQUIRE(http_body_at_close(&reader) == (kind == HTTP_BODY_UNTIL_CLOSE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = fuzz_copy((struct slice){(const char *)data, size});
    const uint64_t lengths[] = {0, 1, size / 2, size, (uint64_t)size + 1, UINT64_C(999999999999999999)};
    for (enum stream_side side = STREAM_REQUESTS; side < STREAM_SIDES; side++)
        check_stream(input, side);
    for (enum fuzz_cut cut = FUZZ_WHOLE; cut < FUZZ_CUTS; cut++) {
        check_body(input, HTTP_BODY_NONE, 0, cut);
        check_body(input, HTTP_BODY_UNTIL_CLOSE, 0, cut);
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            check_body(input, HTTP_BODY_LENGTH, lengths[i], cut);
    }
    free((char *)(uintptr_t)input.data);
    return 0;
}
