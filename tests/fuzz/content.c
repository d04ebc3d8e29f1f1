/*
 * Content codings of captured bodies: of any bytes, whatever coding they are said to have, no more comes out than allowed, and the same however they lie in memory; and a body that was cut off is the beginning of
 * the whole.
 */
#include "event/content.h"

#include "fuzz.h"

#define LIMIT (64 * 1024)
/* Each byte is a block: more of them show nothing new. */
#define MOST_SINGLE_BYTES 256

static const char *const codings[] = {"gzip", "deflate", "br", "zstd", "deflate, identity, X-GZIP"};

/* One block for each piece, of its own size. */
static struct body body_of(struct slice input, enum fuzz_cut cut)
{
    struct body body;
    struct fuzz_cutter cutter = fuzz_cutter(cut, input, 0);
    struct slice piece;
    body_init(&body, NULL);
    for (struct body_block **place = &body.first; (piece = fuzz_next_piece(&cutter)).size > 0;) {
        struct body_block *block = malloc(sizeof *block + piece.size);
        REQUIRE(block != NULL);
        *block = (struct body_block){.size = (uint32_t)piece.size, .capacity = (uint32_t)piece.size};
        memcpy(block->data, piece.data, piece.size);
        *place = body.last = block;
        place = &block->next;
        body.size += piece.size;
    }
    return body;
}

/* Into out, which is used again and again: large blocks of fresh memory are what takes the time here. */
static bool decode(struct slice input, const char *coding, bool truncated, size_t limit, enum fuzz_cut cut,
                   struct buffer *out)
{
    struct body body = body_of(input, cut);
    enum content_result result = content_decode(&body, slice_of(coding), truncated, limit, out);
    REQUIRE(result != CONTENT_PLAIN && out->size <= limit);
    REQUIRE(result == CONTENT_DECODED || out->size == 0);
    body_free(&body);
    return result == CONTENT_DECODED;
}

/* content: NULL when it cannot be decoded. */
static void require(const struct slice *content, struct slice input, const char *coding, bool truncated,
                    size_t limit, enum fuzz_cut cut)
{
    static struct buffer out;
    if (cut == FUZZ_BYTES && input.size > MOST_SINGLE_BYTES)
        return;
    REQUIRE_MESSAGE(decode(input, coding, truncated, limit, cut, &out) == (content != NULL), coding);
    REQUIRE_MESSAGE(content == NULL || slice_equal(buffer_slice(&out), *content), coding);
}

/* What was cut off at half is the beginning of the whole. (Not so of deflate: its two kinds may be told apart by the second half only.) */
static void check_half(struct slice input, const char *coding, struct slice content)
{
    static struct buffer out;
    struct slice half = {input.data, input.size / 2};
    REQUIRE_MESSAGE(decode(half, coding, true, LIMIT, FUZZ_PIECES, &out), coding);
    REQUIRE_MESSAGE(slice_starts_with(content, buffer_slice(&out)), coding);
}

/* Without its last byte a whole body is none any more, but for the zeros behind gzip. */
static void check_cut_off(struct slice input, const char *coding)
{
    static struct buffer out;
    struct slice most = {input.data, input.size - 1};
    bool padded = strcmp(coding, "gzip") == 0 && input.data[most.size] == 0;
    REQUIRE_MESSAGE(!decode(most, coding, false, LIMIT, FUZZ_WHOLE, &out) || padded, coding);
}

static void check_content(struct slice input, const char *coding, struct slice content)
{
    static struct buffer out;
    /* Of two codings, what comes out of the first must be within the limit as well. */
    bool single = strchr(coding, ',') == NULL;
    size_t limit = single ? content.size : LIMIT;
    bool whole = decode(input, coding, false, LIMIT, FUZZ_WHOLE, &out);
    require(whole ? &content : NULL, input, coding, false, limit, FUZZ_PIECES);
    require(&content, input, coding, true, limit, FUZZ_BYTES);
    if (single)
        require(NULL, input, coding, true, content.size - 1, FUZZ_WHOLE);
    if (strcmp(coding, "deflate") != 0)
        check_half(input, coding, content);
    if (whole && single && strcmp(coding, "deflate") != 0)
        check_cut_off(input, coding);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buffer out;
    struct slice input = fuzz_copy((struct slice){(const char *)data, size});
    for (size_t i = 0; i < sizeof codings / sizeof *codings; i++) {
        bool decoded = decode(input, codings[i], true, LIMIT, FUZZ_WHOLE, &out);
        struct slice content = buffer_slice(&out);
        require(decoded ? &content : NULL, input, codings[i], true, LIMIT, FUZZ_PIECES);
        if (content.size > 0)
            check_content(input, codings[i], content);
    }
    free((char *)(uintptr_t)input.data);
    return 0;
}
