/*
 * Undoing content codings. Each coding is one function from pieces to a buffer; they share the end conditions: too much content, bytes that are not the coding's, and an end that
 * comes early, which is a fault only of a body that should be whole.
 */
#include <brotli/decode.h>
#include <zlib.h>
#include <zstd.h>

#include "event/content.h"

#define MAX_CODINGS   2
#define OUT_STEP      (64u * 1024)
#define LARGEST_PIECE (1024u * 1024)
/* RFC 9659: no more than 8 MiB of window for zstd in HTTP. */
#define ZSTD_WINDOW_LOG 23

/* Where a decoder reads from: a chain of blocks, or bytes in one piece. */
struct source {
    const struct body_block *block;
    struct slice single;
};

static bool source_next(struct source *source, struct slice *piece)
{
    if (source->block != NULL) {
        *piece = (struct slice){source->block->data, source->block->size};
        source->block = source->block->next;
        return true;
    }
    if (source->single.size == 0)
        return false;
    size_t size = source->single.size < LARGEST_PIECE ? source->single.size : LARGEST_PIECE;
    *piece = (struct slice){source->single.data, size};
    source->single = (struct slice){piece->data + size, source->single.size - size};
    return true;
}

/* Where it writes to. */
struct sink {
    struct buffer *out;
    size_t limit;
};

/* Room for the next bytes: one more than the limit allows, so that reaching it can be told from passing it. */
static char *sink_room(const struct sink *sink, size_t *room)
{
    size_t left = sink->limit - sink->out->size;
    *room = left < OUT_STEP ? left + 1 : OUT_STEP;
    return buffer_reserve(sink->out, *room);
}

/* False when the content is over the limit. */
static bool sink_take(const struct sink *sink, size_t size)
{
    buffer_commit(sink->out, size);
    return sink->out->size <= sink->limit;
}

enum verdict { WHOLE, EARLY_END, BROKEN };

/* One piece through zlib. *ended: the stream is at its end (of a member); zeros behind a gzip member are padding. */
static bool inflate_piece(z_stream *stream, struct slice piece, bool members, const struct sink *sink,
                          bool *ended)
{
    stream->next_in = (Bytef *)(uintptr_t)piece.data;
    stream->avail_in = (uInt)piece.size;
    for (;;) {
        if (*ended) {
            while (members && stream->avail_in > 0 && *stream->next_in == 0) {
                stream->next_in++;
                stream->avail_in--;
            }
            if (stream->avail_in == 0)
                return true;
            if (!members || inflateReset(stream) != Z_OK)
                return false;
            *ended = false;
        }
        size_t room;
        stream->next_out = (Bytef *)sink_room(sink, &room);
        stream->avail_out = (uInt)room;
        int result = inflate(stream, Z_NO_FLUSH);
        if (!sink_take(sink, room - stream->avail_out))
            return false;
        if (result == Z_STREAM_END)
            *ended = true;
        else if (result == Z_BUF_ERROR || (result == Z_OK && stream->avail_in == 0 && stream->avail_out > 0))
            return true;
        else if (result != Z_OK)
            return false;
    }
}

static enum verdict inflate_all(struct source source, int window_bits, bool members, const struct sink *sink)
{
    z_stream stream = {0};
    if (inflateInit2(&stream, window_bits) != Z_OK)
        return BROKEN;
    bool ended = false;
    struct slice piece;
    enum verdict verdict = EARLY_END;
    while (verdict != BROKEN && source_next(&source, &piece))
        if (!inflate_piece(&stream, piece, members, sink, &ended))
            verdict = BROKEN;
    if (verdict != BROKEN && ended)
        verdict = WHOLE;
    inflateEnd(&stream);
    return verdict;
}

static enum verdict decode_gzip(struct source source, const struct sink *sink)
{
    return inflate_all(source, 16 + MAX_WBITS, true, sink);
}

/* RFC 9110 says zlib's format; some servers send what is inside it. */
static enum verdict decode_deflate(struct source source, const struct sink *sink)
{
    enum verdict verdict = inflate_all(source, MAX_WBITS, false, sink);
    bool too_large = sink->out->size > sink->limit;
    if (verdict != BROKEN || too_large)
        return verdict;
    buffer_clear(sink->out);
    return inflate_all(source, -MAX_WBITS, false, sink);
}

static enum verdict decode_brotli(struct source source, const struct sink *sink)
{
    BrotliDecoderState *state = BrotliDecoderCreateInstance(NULL, NULL, NULL);
    if (state == NULL)
        return BROKEN;
    BrotliDecoderResult result = BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT;
    struct slice piece;
    bool broken = false;
    while (!broken && source_next(&source, &piece)) {
        const uint8_t *next = (const uint8_t *)piece.data;
        size_t left = piece.size;
        broken = result == BROTLI_DECODER_RESULT_SUCCESS;
        while (!broken && (left > 0 || result == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT)) {
            size_t room, free_room;
            uint8_t *out = (uint8_t *)sink_room(sink, &room);
            free_room = room;
            result = BrotliDecoderDecompressStream(state, &left, &next, &free_room, &out, NULL);
            broken = !sink_take(sink, room - free_room) || result == BROTLI_DECODER_RESULT_ERROR ||
                     (result == BROTLI_DECODER_RESULT_SUCCESS && left > 0);
        }
    }
    BrotliDecoderDestroyInstance(state);
    if (broken)
        return BROKEN;
    return result == BROTLI_DECODER_RESULT_SUCCESS ? WHOLE : EARLY_END;
}

/* Do these bytes begin a frame, or a skippable one (RFC 8878 3.1), as far as they go? */
static bool begins_zstd_frame(struct slice bytes)
{
    static const char frame[4] = "\x28\xb5\x2f\xfd", skippable[3] = "\x2a\x4d\x18";
    size_t size = bytes.size < 4 ? bytes.size : 4;
    return memcmp(bytes.data, frame, size) == 0 || (((unsigned char)bytes.data[0] & 0xf0) == 0x50 &&
                                                    memcmp(bytes.data + 1, skippable, size - 1) == 0);
}

/* In one piece, for at the beginning of a frame the library also takes what comes first in a piece for one of its formats before the RFC, which know no limit of the window. */
static enum verdict decode_zstd(struct source source, const struct sink *sink)
{
    ZSTD_DStream *stream = ZSTD_createDStream();
    if (stream == NULL)
        return BROKEN;
    ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
    struct buffer all = {0};
    struct slice piece;
    while (source_next(&source, &piece))
        buffer_append_slice(&all, piece);
    ZSTD_inBuffer in = {buffer_slice(&all).data, all.size, 0};
    size_t hint = 1; /* 0: at the end of a frame */
    bool broken = false;
    bool filled = false; /* the room was used up: there may be more without more input */
    while (!broken && (in.pos < in.size || filled)) {
        struct slice rest = {(const char *)in.src + in.pos, in.size - in.pos};
        ZSTD_outBuffer out = {0};
        bool begins = rest.size > 0 && (in.pos == 0 || hint == 0);
        if (begins && !begins_zstd_frame(rest)) {
            broken = true;
            break;
        }
        out.dst = sink_room(sink, &out.size);
        size_t result = ZSTD_decompressStream(stream, &out, &in);
        broken = ZSTD_isError(result) || !sink_take(sink, out.pos);
        filled = out.pos == out.size;
        /* Asked for more after the end of a frame it names what the next one would need. */
        if (in.size - in.pos < rest.size || out.pos > 0)
            hint = result;
    }
    buffer_free(&all);
    ZSTD_freeDStream(stream);
    if (broken)
        return BROKEN;
    return hint == 0 ? WHOLE : EARLY_END;
}

typedef enum verdict (*decode_function)(struct source source, const struct sink *sink);

static decode_function find_decoder(struct slice coding)
{
    static const struct {
        struct slice name;
        decode_function decode;
    } decoders[] = {
        {{"gzip", 4}, decode_gzip}, {{"x-gzip", 6}, decode_gzip}, {{"deflate", 7}, decode_deflate},
        {{"br", 2}, decode_brotli}, {{"zstd", 4}, decode_zstd},
    };
    for (size_t i = 0; i < sizeof decoders / sizeof decoders[0]; i++)
        if (slice_equal_nocase(coding, decoders[i].name))
            return decoders[i].decode;
    return NULL;
}

/* The decoders in the order in which the codings were applied; false when one is unknown or there are too many. */
static bool find_decoders(struct slice codings, decode_function decoders[MAX_CODINGS], size_t *count)
{
    struct slice name;
    *count = 0;
    while (slice_split(&codings, ',', &name)) {
        name = slice_trim(name);
        if (name.size == 0 || slice_equal_nocase(name, SLICE("identity")))
            continue;
        decode_function decode = find_decoder(name);
        if (decode == NULL || *count == MAX_CODINGS)
            return false;
        decoders[(*count)++] = decode;
    }
    return true;
}

enum content_result content_decode(const struct body *body, struct slice coding, bool truncated, size_t limit,
                                   struct buffer *out)
{
    decode_function decoders[MAX_CODINGS];
    size_t count;
    buffer_clear(out);
    if (!find_decoders(coding, decoders, &count))
        return CONTENT_KEPT;
    if (count == 0)
        return CONTENT_PLAIN;
    struct buffer encoded = {0};
    struct source source = {.block = body->first};
    struct sink sink = {.out = out, .limit = limit};
    bool good = true;
    for (size_t i = count; good && i-- > 0;) {
        enum verdict verdict = decoders[i](source, &sink);
        good = verdict == WHOLE || (verdict == EARLY_END && truncated);
        if (good && i > 0) {
            encoded = *out;
            *out = (struct buffer){0};
            source = (struct source){.single = buffer_slice(&encoded)};
        }
    }
    buffer_free(&encoded);
    if (!good)
        buffer_clear(out);
    return good ? CONTENT_DECODED : CONTENT_KEPT;
}
