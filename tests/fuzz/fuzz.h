/*
 * fuzz: what the harnesses share. A harness is one function over any bytes (libFuzzer's); REQUIRE says what must hold for all of them.
 *
 * Inputs are the bytes under test and nothing else, so that seeds can be read and written by hand. Where a harness cuts them into pieces follows from the bytes themselves.
 */
#ifndef TEST_FUZZ_H
#define TEST_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "base/buffer.h"

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(from, size)   ((void)(from), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(from, size) ((void)(from), (void)(size))
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(promise) ((promise) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #promise, ""))
#define REQUIRE_MESSAGE(promise, message)                                                                    \
    ((promise) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #promise, message))

static inline void fuzz_fail(const char *file, int line, const char *promise, const char *message)
{
    fprintf(stderr, "%s:%d: not kept: %s %s\n", file, line, promise, message);
    abort();
}

/* A copy in a block of its own size: what is read beyond it is seen by the address sanitizer. The caller frees its data. */
static inline struct slice fuzz_copy(struct slice bytes)
{
    char *copy = malloc(bytes.size > 0 ? bytes.size : 1);
    REQUIRE(copy != NULL);
    if (bytes.size > 0)
        memcpy(copy, bytes.data, bytes.size);
    return (struct slice){copy, bytes.size};
}

/* Ways to cut an input into pieces. */
enum fuzz_cut { FUZZ_WHOLE, FUZZ_BYTES, FUZZ_PIECES, FUZZ_CUTS };

/* An input that arrives piece by piece. What has not arrived is hidden: the address sanitizer sees when it is read all the same. */
struct fuzz_cutter {
    enum fuzz_cut cut;
    uint64_t state;
    struct slice rest;
};

/* FNV-1a. */
static inline uint64_t fuzz_hash(struct slice bytes)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes.size; i++)
        hash = (hash ^ (unsigned char)bytes.data[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* Hides the input; show it again with fuzz_show_rest(). seed: another one, other pieces. */
static inline struct fuzz_cutter fuzz_cutter(enum fuzz_cut cut, struct slice input, uint64_t seed)
{
    uint64_t state = (fuzz_hash(input) + seed) | 1;
    ASAN_POISON_MEMORY_REGION(input.data, input.size);
    return (struct fuzz_cutter){cut, state, input};
}

static inline void fuzz_show_rest(const struct fuzz_cutter *cutter)
{
    ASAN_UNPOISON_MEMORY_REGION(cutter->rest.data, cutter->rest.size);
}

/* Shows size bytes more. */
static inline struct slice fuzz_arrive(struct fuzz_cutter *cutter, size_t size)
{
    struct slice piece = {cutter->rest.data, size};
    if (size > 0)
        cutter->rest = (struct slice){piece.data + size, cutter->rest.size - size};
    ASAN_UNPOISON_MEMORY_REGION(piece.data, piece.size);
    return piece;
}

/* The next piece; empty at the end, and only there. */
static inline struct slice fuzz_next_piece(struct fuzz_cutter *cutter)
{
    size_t size = cutter->rest.size;
    if (cutter->cut == FUZZ_BYTES) {
        size = 1;
    } else if (cutter->cut == FUZZ_PIECES) {
        cutter->state = cutter->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        size = 1 + (size_t)(cutter->state >> 33) % 23;
    }
    return fuzz_arrive(cutter, size < cutter->rest.size ? size : cutter->rest.size);
}

#endif
