/* See compress.h. */
#include "script/compress.h"

#include <limits.h>
#include <zlib.h>
#include <zstd.h>

#define STEP_BYTES  (64 * 1024)
#define GZIP_WINDOW (15 + 16) /* zlib's way to say: gzip, not zlib's own wrapping */
#define ZLIB_WINDOW 15
#define RAW_WINDOW  (-15)

#define TOO_LARGE "the content is larger than max_bytes"
#define CUT_OFF   "the data ends too early"

static void set_input(z_stream *stream, struct slice *rest)
{
    if (stream->avail_in > 0 || rest->size == 0)
        return;
    size_t size = rest->size < UINT_MAX ? rest->size : UINT_MAX;
    stream->next_in = (Bytef *)(uintptr_t)rest->data;
    stream->avail_in = (uInt)size;
    *rest = (struct slice){rest->data + size, rest->size - size};
}

static const char *encode(struct slice text, int level, int window, struct buffer *out)
{
    z_stream stream = {0};
    if (deflateInit2(&stream, level, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return "zlib refuses to begin";
    int result = Z_OK;
    while (result != Z_STREAM_END) {
        set_input(&stream, &text);
        stream.next_out = (Bytef *)buffer_reserve(out, STEP_BYTES);
        stream.avail_out = STEP_BYTES;
        result = deflate(&stream, text.size == 0 ? Z_FINISH : Z_NO_FLUSH);
        buffer_commit(out, STEP_BYTES - stream.avail_out);
        if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
            break;
    }
    deflateEnd(&stream);
    return result == Z_STREAM_END ? NULL : "zlib failed";
}

const char *gzip_encode(struct slice text, int level, struct buffer *out)
{
    return encode(text, level, GZIP_WINDOW, out);
}

const char *zlib_encode(struct slice text, int level, struct buffer *out)
{
    return encode(text, level, ZLIB_WINDOW, out);
}

/* One step of inflate, but never more than one byte over the limit. */
static int inflate_step(z_stream *stream, size_t room, struct buffer *out)
{
    size_t step = room < STEP_BYTES ? room + 1 : STEP_BYTES;
    stream->next_out = (Bytef *)buffer_reserve(out, step);
    stream->avail_out = (uInt)step;
    int result = inflate(stream, Z_NO_FLUSH);
    buffer_commit(out, step - stream->avail_out);
    return result;
}

static const char *decode(struct slice text, size_t limit, int window, struct buffer *out)
{
    z_stream stream = {0};
    if (inflateInit2(&stream, window) != Z_OK)
        return "zlib refuses to begin";
    size_t before = out->size;
    const char *problem = NULL;
    for (;;) {
        set_input(&stream, &text);
        int result = inflate_step(&stream, limit - (out->size - before), out);
        if (out->size - before > limit) {
            problem = TOO_LARGE;
            break;
        }
        if (result == Z_STREAM_END) {
            if (stream.avail_in == 0 && text.size == 0)
                break;
            if (window != GZIP_WINDOW) {
                problem = "there is something behind the end of the data";
                break;
            }
            inflateReset(&stream);
        } else if (result == Z_BUF_ERROR && stream.avail_in == 0 && text.size == 0) {
            problem = CUT_OFF;
            break;
        } else if (result != Z_OK && result != Z_BUF_ERROR) {
            problem = window == GZIP_WINDOW ? "the data is not gzip, or damaged"
                                            : "the data is not zlib, or damaged";
            break;
        }
    }
    inflateEnd(&stream);
    return problem;
}

const char *gzip_decode(struct slice text, size_t limit, struct buffer *out)
{
    return decode(text, limit, GZIP_WINDOW, out);
}

/* RFC 1950: the first byte names deflate and the window, and both together are a multiple of 31. */
static bool has_wrapping(struct slice text)
{
    unsigned first = text.size > 0 ? (unsigned char)text.data[0] : 0,
             second = text.size > 1 ? (unsigned char)text.data[1] : 0;
    return (first & 15) == 8 && first >> 4 <= 7 && (text.size < 2 || (first << 8 | second) % 31 == 0);
}

const char *zlib_decode(struct slice text, size_t limit, struct buffer *out)
{
    return decode(text, limit, has_wrapping(text) ? ZLIB_WINDOW : RAW_WINDOW, out);
}

const char *zstd_encode(struct slice text, int level, struct buffer *out)
{
    size_t room = ZSTD_compressBound(text.size);
    size_t size = ZSTD_compress(buffer_reserve(out, room), room, text.data, text.size, level);
    if (ZSTD_isError(size))
        return ZSTD_getErrorName(size);
    buffer_commit(out, size);
    return NULL;
}

const char *zstd_decode(struct slice text, size_t limit, struct buffer *out)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (context == NULL)
        return "zstd refuses to begin";
    ZSTD_inBuffer input = {text.data, text.size, 0};
    size_t before = out->size, missing = 1;
    const char *problem = NULL;
    while (problem == NULL) {
        size_t room = limit - (out->size - before), step = room < STEP_BYTES ? room + 1 : STEP_BYTES;
        ZSTD_outBuffer output = {buffer_reserve(out, step), step, 0};
        missing = ZSTD_decompressStream(context, &output, &input);
        buffer_commit(out, output.pos);
        if (ZSTD_isError(missing))
            problem = "the data is not zstd, or damaged";
        else if (out->size - before > limit)
            problem = TOO_LARGE;
        else if (input.pos == input.size && output.pos < output.size)
            break; /* all was read and all was written */
    }
    if (problem == NULL && missing != 0)
        problem = CUT_OFF;
    ZSTD_freeDCtx(context);
    return problem;
}
