/*
 * The chunked coding: any bytes give the same content and the same end however they arrive; the tolerant decoder agrees with the strict one on whatever that takes; content that is
 * encoded again decodes to itself.
 */
#include "http/chunked.h"
#include "fuzz.h"

struct decoded {
    enum http_chunked_result result;
    const char *reason;
    size_t used;
    bool tolerated;
    struct buffer content;
};

static struct decoded decode(struct slice input, bool tolerant, enum fuzz_cut cut)
{
    struct http_chunked decoder = {.tolerant = tolerant};
    struct decoded decoded = {.result = HTTP_CHUNKED_MORE, .reason = ""};
    struct fuzz_cutter cutter = fuzz_cutter(cut, input, 0);
    struct slice piece;
    while (decoded.result == HTTP_CHUNKED_MORE && (piece = fuzz_next_piece(&cutter)).size > 0) {
        const char *next = piece.data, *end = piece.data + piece.size;
        struct slice data = {NULL, 0};
        while ((decoded.result = http_chunked_next(&decoder, &piece, &data, &decoded.reason)) ==
               HTTP_CHUNKED_DATA) {
            REQUIRE(data.size > 0 && data.data >= next && data.data + data.size == piece.data);
            buffer_append_slice(&decoded.content, data);
            next = piece.data;
        }
        REQUIRE(piece.data >= next && piece.data + piece.size == end);
        REQUIRE(decoded.result != HTTP_CHUNKED_MORE || piece.size == 0);
        decoded.used = (size_t)(piece.data - input.data);
    }
    fuzz_show_rest(&cutter);
    decoded.tolerated = decoder.tolerated;
    return decoded;
}

static void require_equal(const struct decoded *a, const struct decoded *b)
{
    REQUIRE(a->result == b->result && a->used == b->used && a->tolerated == b->tolerated);
    REQUIRE(strcmp(a->reason, b->reason) == 0);
    REQUIRE(slice_equal(buffer_slice(&a->content), buffer_slice(&b->content)));
}

static struct decoded decode_any_way(struct slice input, bool tolerant)
{
    struct decoded whole = decode(input, tolerant, FUZZ_WHOLE);
    for (enum fuzz_cut cut = FUZZ_BYTES; cut < FUZZ_CUTS; cut++) {
        struct decoded decoded = decode(input, tolerant, cut);
        require_equal(&whole, &decoded);
        buffer_free(&decoded.content);
    }
    REQUIRE(whole.result != HTTP_CHUNKED_ERROR || whole.reason[0] != 0);
    return whole;
}

static void encode_again(struct slice content, enum fuzz_cut cut)
{
    struct buffer out = {0};
    struct fuzz_cutter cutter = fuzz_cutter(cut, content, 0);
    struct slice piece;
    char header[HTTP_CHUNK_HEADER_SIZE];
    while ((piece = fuzz_next_piece(&cutter)).size > 0) {
        buffer_append(&out, header, http_chunk_header(header, piece.size));
        buffer_append_slice(&out, piece);
        buffer_append_string(&out, "\r\n");
    }
    buffer_append_string(&out, "0\r\n\r\n");
    struct decoded decoded = decode(buffer_slice(&out), false, cut);
    REQUIRE(decoded.result == HTTP_CHUNKED_END && decoded.used == out.size);
    REQUIRE(slice_equal(buffer_slice(&decoded.content), content));
    buffer_free(&decoded.content);
    buffer_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = fuzz_copy((struct slice){(const char *)data, size});
    struct decoded strict = decode_any_way(input, false), tolerant = decode_any_way(input, true);
    REQUIRE(!strict.tolerated);
    if (strict.result != HTTP_CHUNKED_ERROR)
        require_equal(&strict, &tolerant);
    else if (!tolerant.tolerated)
        REQUIRE(tolerant.result == HTTP_CHUNKED_ERROR);
    for (enum fuzz_cut cut = FUZZ_WHOLE; cut < FUZZ_CUTS; cut++)
        encode_again(buffer_slice(&tolerant.content), cut);
    buffer_free(&strict.content);
    buffer_free(&tolerant.content);
    free((char *)(uintptr_t)input.data);
    return 0;
}
