/* Content codings undone: whole, cut, broken, nested, and bombs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "event/content.h"

#define LIMIT (1u << 20)

/* 8 lines of "N: grüße from the br coding", compressed by brotli's own library. */
static const unsigned char brotli_lines[] = {
    0x13, 0xef, 0x00, 0x00, 0xc4, 0xcf, 0x1d, 0xef, 0x27, 0xf4, 0x00, 0xef, 0x5b, 0x5b, 0x86, 0xb5, 0x16,
    0xb6, 0x1d, 0x4a, 0x24, 0xd9, 0x35, 0x13, 0xaa, 0x50, 0x73, 0xd0, 0xb4, 0xb6, 0xee, 0xf1, 0xc0, 0xc9,
    0xfa, 0xf5, 0x36, 0xe2, 0x9a, 0x89, 0x75, 0xb7, 0xec, 0x24, 0xc2, 0xd5, 0xcd, 0xdd, 0xc3, 0x9b, 0x77,
};
/* 16 MiB of zeros. */
static const unsigned char brotli_bomb[] = {
    0xcb, 0xff, 0xff, 0x3f, 0x00, 0x24, 0x00, 0xe2, 0xb1, 0x40, 0x72, 0xef, 0xff,
    0xf2, 0xff, 0xff, 0x0f, 0x80, 0x04, 0x40, 0x1c, 0x16, 0x80, 0xee, 0xfd, 0x1f,
};

static struct buffer lines(unsigned count)
{
    struct buffer text = {0};
    for (unsigned i = 0; i < count; i++)
        buffer_printf(&text,
                      "%u: gr\xc3\xbc\xc3\x9f"
                      "e from the br coding\n",
                      i);
    return text;
}

static struct buffer deflated(struct slice text, int window_bits)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    struct buffer out = {0};
    size_t bound = deflateBound(&stream, text.size);
    stream.next_in = (Bytef *)(uintptr_t)text.data;
    stream.avail_in = (uInt)text.size;
    stream.next_out = (Bytef *)buffer_reserve(&out, bound);
    stream.avail_out = (uInt)bound;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    buffer_commit(&out, stream.total_out);
    deflateEnd(&stream);
    return out;
}

static struct buffer gzipped(struct slice text)
{
    return deflated(text, 31);
}

static struct buffer zlibbed(struct slice text)
{
    return deflated(text, 15);
}

static struct buffer raw_deflated(struct slice text)
{
    return deflated(text, -15);
}

static struct buffer zstandarded(struct slice text)
{
    struct buffer out = {0};
    size_t bound = ZSTD_compressBound(text.size);
    size_t size = ZSTD_compress(buffer_reserve(&out, bound), bound, text.data, text.size, 3);
    assert_false(ZSTD_isError(size));
    buffer_commit(&out, size);
    return out;
}

static enum content_result decode(struct slice bytes, const char *coding, bool truncated, size_t limit,
                                  struct buffer *out)
{
    struct body body;
    body_init(&body, NULL);
    assert_true(body_append(&body, bytes));
    enum content_result result = content_decode(&body, slice_of(coding), truncated, limit, out);
    if (result != CONTENT_DECODED)
        assert_int_equal(out->size, 0);
    body_free(&body);
    return result;
}

static void assert_decodes_to(struct slice bytes, const char *coding, struct slice text)
{
    struct buffer out = {0};
    assert_int_equal(decode(bytes, coding, false, LIMIT, &out), CONTENT_DECODED);
    assert_true(slice_equal(buffer_slice(&out), text));
    buffer_free(&out);
}

static void assert_kept(struct slice bytes, const char *coding, bool truncated)
{
    struct buffer out = {0};
    assert_int_equal(decode(bytes, coding, truncated, LIMIT, &out), CONTENT_KEPT);
    buffer_free(&out);
}

typedef struct buffer (*encoder)(struct slice text);

static const struct {
    const char *coding;
    encoder encode;
} codings[] = {
    {"gzip", gzipped},         {"x-gzip", gzipped},   {"deflate", zlibbed},
    {"deflate", raw_deflated}, {"zstd", zstandarded},
};
#define CODING_COUNT (sizeof codings / sizeof codings[0])

static void every_coding_is_undone(void **state)
{
    (void)state;
    for (unsigned size = 0; size <= 8000; size += 2000) {
        struct buffer text = lines(size);
        for (size_t i = 0; i < CODING_COUNT; i++) {
            struct buffer encoded = codings[i].encode(buffer_slice(&text));
            assert_decodes_to(buffer_slice(&encoded), codings[i].coding, buffer_slice(&text));
            buffer_free(&encoded);
        }
        buffer_free(&text);
    }
    struct buffer text = lines(8);
    assert_decodes_to((struct slice){(const char *)brotli_lines, sizeof brotli_lines}, "br",
                      buffer_slice(&text));
    buffer_free(&text);
}

static void nothing_is_to_do_without_a_coding(void **state)
{
    (void)state;
    struct buffer out = {0};
    assert_int_equal(decode(SLICE("text"), "", false, LIMIT, &out), CONTENT_PLAIN);
    assert_int_equal(decode(SLICE("text"), "identity", false, LIMIT, &out), CONTENT_PLAIN);
    assert_int_equal(decode(SLICE("text"), " , Identity ,", false, LIMIT, &out), CONTENT_PLAIN);
    buffer_free(&out);
}

static void names_are_compared_in_any_case(void **state)
{
    (void)state;
    struct buffer encoded = gzipped(SLICE("hello"));
    assert_decodes_to(buffer_slice(&encoded), " GZip , identity", SLICE("hello"));
    buffer_free(&encoded);
}

static void two_codings_are_undone_in_either_order(void **state)
{
    (void)state;
    struct buffer text = lines(5000);
    for (size_t i = 0; i < CODING_COUNT; i++)
        for (size_t j = 0; j < CODING_COUNT; j++) {
            struct buffer inner = codings[i].encode(buffer_slice(&text));
            struct buffer outer = codings[j].encode(buffer_slice(&inner));
            char both[40];
            snprintf(both, sizeof both, "%s, %s", codings[i].coding, codings[j].coding);
            assert_decodes_to(buffer_slice(&outer), both, buffer_slice(&text));
            buffer_free(&inner);
            buffer_free(&outer);
        }
    buffer_free(&text);
    struct buffer outer = gzipped((struct slice){(const char *)brotli_lines, sizeof brotli_lines});
    text = lines(8);
    assert_decodes_to(buffer_slice(&outer), "br,gzip", buffer_slice(&text));
    assert_kept(buffer_slice(&outer), "gzip,br", false);
    buffer_free(&outer);
    buffer_free(&text);
}

static void unknown_codings_and_more_than_two_are_kept(void **state)
{
    (void)state;
    struct buffer one = gzipped(SLICE("hello")), two = gzipped(buffer_slice(&one)),
                  three = gzipped(buffer_slice(&two));
    assert_kept(buffer_slice(&one), "compress", false);
    assert_kept(buffer_slice(&one), "gzip, aes128gcm", false);
    assert_kept(buffer_slice(&three), "gzip, gzip, gzip", false);
    assert_decodes_to(buffer_slice(&two), "gzip, gzip", SLICE("hello"));
    buffer_free(&one);
    buffer_free(&two);
    buffer_free(&three);
}

static void members_and_frames_that_follow_each_other_are_one_content(void **state)
{
    (void)state;
    static const encoder encoders[] = {gzipped, zstandarded};
    static const char *const names[] = {"gzip", "zstd"};
    for (size_t i = 0; i < 2; i++) {
        struct buffer first = encoders[i](SLICE("hello ")), second = encoders[i](SLICE("")),
                      third = encoders[i](SLICE("world"));
        buffer_append_slice(&first, buffer_slice(&second));
        buffer_append_slice(&first, buffer_slice(&third));
        assert_decodes_to(buffer_slice(&first), names[i], SLICE("hello world"));
        buffer_free(&first);
        buffer_free(&second);
        buffer_free(&third);
    }
}

static void zeros_behind_a_gzip_member_are_padding_but_other_bytes_are_a_fault(void **state)
{
    (void)state;
    struct buffer encoded = gzipped(SLICE("hello"));
    buffer_append(&encoded, "\0\0\0\0", 4);
    assert_decodes_to(buffer_slice(&encoded), "gzip", SLICE("hello"));
    buffer_append(&encoded, "junk", 4);
    assert_kept(buffer_slice(&encoded), "gzip", false);
    buffer_free(&encoded);

    struct buffer others[] = {zlibbed(SLICE("hello")), raw_deflated(SLICE("hello")),
                              zstandarded(SLICE("hello"))};
    static const char *const names[] = {"deflate", "deflate", "zstd"};
    for (size_t i = 0; i < 3; i++) {
        buffer_append(&others[i], "junk", 4);
        assert_kept(buffer_slice(&others[i]), names[i], false);
        buffer_free(&others[i]);
    }
    buffer_append(&encoded, brotli_lines, sizeof brotli_lines);
    buffer_append(&encoded, "junk", 4);
    assert_kept(buffer_slice(&encoded), "br", false);
    buffer_free(&encoded);
}

static void assert_prefix_decodes(struct slice bytes, size_t size, const char *coding, struct slice text,
                                  size_t *decoded)
{
    struct buffer out = {0};
    struct slice prefix = {bytes.data, size};
    assert_int_equal(decode(prefix, coding, true, LIMIT, &out), CONTENT_DECODED);
    assert_true(slice_starts_with(text, buffer_slice(&out)));
    assert_true(out.size >= *decoded);
    *decoded = out.size;
    buffer_free(&out);
    assert_kept(prefix, coding, false);
}

static void a_truncated_capture_gives_what_could_be_decoded(void **state)
{
    (void)state;
    struct buffer text = lines(3000);
    for (size_t i = 0; i < CODING_COUNT; i++) {
        struct buffer encoded = codings[i].encode(buffer_slice(&text));
        size_t decoded = 0;
        for (size_t size = 0; size < encoded.size; size += 1 + encoded.size / 50)
            assert_prefix_decodes(buffer_slice(&encoded), size, codings[i].coding, buffer_slice(&text),
                                  &decoded);
        assert_prefix_decodes(buffer_slice(&encoded), encoded.size - 1, codings[i].coding,
                              buffer_slice(&text), &decoded);
        assert_true(decoded > text.size / 2 ||
                    codings[i].encode == zstandarded); /* zstd gives whole blocks only */
        buffer_free(&encoded);
    }
    buffer_free(&text);
    text = lines(8);
    size_t decoded = 0;
    for (size_t size = 0; size < sizeof brotli_lines; size++)
        assert_prefix_decodes((struct slice){(const char *)brotli_lines, sizeof brotli_lines}, size, "br",
                              buffer_slice(&text), &decoded);
    assert_true(decoded > 20);
    buffer_free(&text);
}

static void a_cut_falls_through_both_of_two_codings(void **state)
{
    (void)state;
    struct buffer text = lines(5000), inner = zlibbed(buffer_slice(&text)),
                  outer = gzipped(buffer_slice(&inner)), out = {0};
    assert_int_equal(
        decode((struct slice){buffer_data(&outer), outer.size / 2}, "deflate, gzip", true, LIMIT, &out),
        CONTENT_DECODED);
    assert_true(out.size > 1000 && slice_starts_with(buffer_slice(&text), buffer_slice(&out)));
    buffer_free(&text);
    buffer_free(&inner);
    buffer_free(&outer);
    buffer_free(&out);
}

static void broken_bytes_are_kept_even_of_a_truncated_capture(void **state)
{
    (void)state;
    static const char *const names[] = {"gzip", "deflate", "br", "zstd"};
    for (size_t i = 0; i < 4; i++)
        for (int truncated = 0; truncated < 2; truncated++)
            assert_kept(SLICE("\xff{\"this is\": \"no compressed body at all\"}"), names[i], truncated);
    struct buffer encoded = gzipped(SLICE("hello"));
    buffer_data(&encoded)[encoded.size - 8] ^= 1; /* its checksum */
    assert_kept(buffer_slice(&encoded), "gzip", true);
    buffer_free(&encoded);
}

static void the_limit_is_what_may_come_out_not_one_byte_more(void **state)
{
    (void)state;
    struct buffer text = lines(3000);
    for (size_t i = 0; i < CODING_COUNT; i++) {
        struct buffer encoded = codings[i].encode(buffer_slice(&text)), out = {0};
        assert_int_equal(decode(buffer_slice(&encoded), codings[i].coding, false, text.size, &out),
                         CONTENT_DECODED);
        assert_int_equal(out.size, text.size);
        assert_int_equal(decode(buffer_slice(&encoded), codings[i].coding, false, text.size - 1, &out),
                         CONTENT_KEPT);
        assert_int_equal(decode(buffer_slice(&encoded), codings[i].coding, false, 0, &out), CONTENT_KEPT);
        buffer_free(&encoded);
        buffer_free(&out);
    }
    buffer_free(&text);
}

static void a_bomb_takes_no_more_memory_than_the_limit(void **state)
{
    (void)state;
    size_t size = 16u << 20;
    char *zeros = calloc(1, size);
    assert_non_null(zeros);
    for (size_t i = 0; i <= CODING_COUNT; i++) {
        struct buffer encoded = {0}, out = {0};
        if (i < CODING_COUNT)
            encoded = codings[i].encode((struct slice){zeros, size});
        else
            buffer_append(&encoded, brotli_bomb, sizeof brotli_bomb);
        assert_int_equal(
            decode(buffer_slice(&encoded), i < CODING_COUNT ? codings[i].coding : "br", false, LIMIT, &out),
            CONTENT_KEPT);
        assert_true(out.capacity <= 4 * LIMIT);
        buffer_free(&encoded);
        buffer_free(&out);
    }
    free(zeros);
}

static void mutations_never_break_a_decoder(void **state)
{
    (void)state;
    struct buffer text = lines(60);
    uint32_t random = 88172645u;
    for (size_t i = 0; i <= CODING_COUNT; i++) {
        struct buffer encoded = {0}, out = {0};
        if (i < CODING_COUNT)
            encoded = codings[i].encode(buffer_slice(&text));
        else
            buffer_append(&encoded, brotli_lines, sizeof brotli_lines);
        for (unsigned round = 0; round < 400; round++) {
            random ^= random << 13, random ^= random >> 17, random ^= random << 5;
            char *byte = buffer_data(&encoded) + random % encoded.size, before = *byte;
            *byte = (char)(random >> 24);
            enum content_result result = decode(
                buffer_slice(&encoded), i < CODING_COUNT ? codings[i].coding : "br", round & 1, 65536, &out);
            assert_true(result != CONTENT_PLAIN && out.size <= 65536);
            if (round & 2)
                *byte = before;
        }
        buffer_free(&encoded);
        buffer_free(&out);
    }
    buffer_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_coding_is_undone),
        cmocka_unit_test(nothing_is_to_do_without_a_coding),
        cmocka_unit_test(names_are_compared_in_any_case),
        cmocka_unit_test(two_codings_are_undone_in_either_order),
        cmocka_unit_test(unknown_codings_and_more_than_two_are_kept),
        cmocka_unit_test(members_and_frames_that_follow_each_other_are_one_content),
        cmocka_unit_test(zeros_behind_a_gzip_member_are_padding_but_other_bytes_are_a_fault),
        cmocka_unit_test(a_truncated_capture_gives_what_could_be_decoded),
        cmocka_unit_test(a_cut_falls_through_both_of_two_codings),
        cmocka_unit_test(broken_bytes_are_kept_even_of_a_truncated_capture),
        cmocka_unit_test(the_limit_is_what_may_come_out_not_one_byte_more),
        cmocka_unit_test(a_bomb_takes_no_more_memory_than_the_limit),
        cmocka_unit_test(mutations_never_break_a_decoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
