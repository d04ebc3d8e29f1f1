/*
 * splits: whatever one side of a connection says, and however broken, it means the same wherever the network cuts it. All hostile requests and responses, and all chunked bodies of the fuzz harness, are read
 * in one piece, in two with the cut at each place, byte by byte, and in many pieces of random sizes.
 *
 * What has not arrived yet is hidden from the decoders by the address sanitizer, and the inputs are the size of their memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <dirent.h>

#include "../../fuzz/heads.h"
#include "../../fuzz/stream.h"
#include "base/file.h"
#include "base/memory.h"

#define MAX_FILE      (1 << 20)
#define RANDOM_SPLITS 50
/* Cuts in two: everywhere near both ends, and at so many places between. */
#define NEAR_ENDS   256
#define MANY_PLACES 100

/* One way to cut. */
struct split {
    enum fuzz_cut cut;
    uint64_t seed;
    size_t first; /* the size of the first piece; 0: cut says it */
};

typedef void (*check_function)(struct slice input, const struct split *split);

/* ------------------------------------------------------------------------------------------------ the ways */

static struct slice next_piece(struct fuzz_cutter *cutter, const struct split *split, bool first)
{
    return first && split->first > 0 ? fuzz_arrive(cutter, split->first) : fuzz_next_piece(cutter);
}

static void check_all_splits(struct slice input, check_function check)
{
    check(input, &(struct split){FUZZ_WHOLE, 0, 0});
    check(input, &(struct split){FUZZ_BYTES, 0, 0});
    for (uint64_t seed = 0; seed < RANDOM_SPLITS; seed++) {
        check(input, &(struct split){FUZZ_PIECES, seed, 0});
    }
    size_t stride = input.size > 2 * NEAR_ENDS ? 1 + (input.size - 2 * NEAR_ENDS) / MANY_PLACES : 1;
    for (size_t at = 1; at < input.size;) {
        check(input, &(struct split){FUZZ_WHOLE, 0, at});
        bool between = at >= NEAR_ENDS && at + stride + NEAR_ENDS < input.size;
        at += between ? stride : 1;
    }
}

static void check_file(const char *folder, const char *name, check_function check)
{
    char *path = xprintf(SEED_DIR "/%s/%s", folder, name);
    struct buffer text = {0};
    struct error error = {.message = ""};
    if (!file_read(path, MAX_FILE, &text, &error)) {
        fail_msg("%s", error.message);
    }
    struct slice input = fuzz_copy(buffer_slice(&text));
    check_all_splits(input, check);
    free((char *)(uintptr_t)input.data);
    buffer_free(&text);
    free(path);
}

/* At least so many files, so that the test cannot pass for want of them. */
static void check_folder(const char *folder, int at_least, check_function check)
{
    char *path = xprintf(SEED_DIR "/%s", folder);
    DIR *entries = opendir(path);
    assert_non_null(entries);
    int files = 0;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (entry->d_name[0] != '.') {
            check_file(folder, entry->d_name, check);
            files++;
        }
    }
    closedir(entries);
    free(path);
    assert_true(files >= at_least);
}

/* ------------------------------------------------------------------------------------------------ messages */

static struct stream read_stream(struct slice input, enum stream_side side, const struct http_limits *limits,
                                 const struct split *split)
{
    struct stream stream = stream_begin(side, limits);
    struct fuzz_cutter cutter = fuzz_cutter(split->cut, input, split->seed);
    struct slice piece = next_piece(&cutter, split, true);
    while (piece.size > 0 && stream.end == STREAM_ENDED) {
        stream_read(&stream, piece);
        piece = next_piece(&cutter, split, false);
    }
    stream_close(&stream);
    fuzz_show_rest(&cutter);
    return stream;
}

static void check_messages(struct slice input, enum stream_side side, const struct split *split)
{
    static struct stream whole[STREAM_SIDES][FUZZ_LIMITS];
    for (size_t i = 0; i < FUZZ_LIMITS; i++) {
        struct stream stream = read_stream(input, side, &fuzz_limits[i], split);
        if (split->cut == FUZZ_WHOLE && split->first == 0) {
            stream_free(&whole[side][i]);
            whole[side][i] = stream;
            continue;
        }
        if (!stream_is_equal(&whole[side][i], &stream)) {
            fail_msg("cut %d (%zu, %llu): \"%s\", in one piece \"%s\", of: %.*s", split->cut, split->first,
                     (unsigned long long)split->seed, stream.reason, whole[side][i].reason,
                     SLICE_ARGUMENTS(input));
        }
        stream_free(&stream);
    }
}

static void check_requests(struct slice input, const struct split *split)
{
    check_messages(input, STREAM_REQUESTS, split);
}

static void check_responses(struct slice input, const struct split *split)
{
    check_messages(input, STREAM_RESPONSES, split);
    check_messages(input, STREAM_HEAD_RESPONSES, split);
}

static void requests_mean_the_same_however_they_are_cut(void **state)
{
    (void)state;
    check_folder("vectors/requests", 246, check_requests);
}

static void responses_mean_the_same_however_they_are_cut(void **state)
{
    (void)state;
    check_folder("vectors/responses", 71, check_responses);
}

/* ------------------------------------------------------------------------------------------------ chunked bodies */

static void note_decoded(struct slice input, bool tolerant, const struct split *split, struct buffer *notes)
{
    struct http_chunked decoder = {.tolerant = tolerant};
    struct fuzz_cutter cutter = fuzz_cutter(split->cut, input, split->seed);
    enum http_chunked_result result = HTTP_CHUNKED_MORE;
    const char *reason = "";
    size_t taken = 0;
    struct slice piece = next_piece(&cutter, split, true), data;
    while (piece.size > 0 && result == HTTP_CHUNKED_MORE) {
        while ((result = http_chunked_next(&decoder, &piece, &data, &reason)) == HTTP_CHUNKED_DATA) {
            buffer_append_slice(notes, data);
        }
        taken = (size_t)(piece.data - input.data);
        piece = next_piece(&cutter, split, false);
    }
    fuzz_show_rest(&cutter);
    buffer_printf(notes, "|%d %s %d %zu", result, reason, decoder.tolerated, taken);
}

static void check_chunked(struct slice input, const struct split *split)
{
    static struct buffer whole[2];
    for (int tolerant = 0; tolerant < 2; tolerant++) {
        struct buffer notes = {0};
        note_decoded(input, tolerant, split, &notes);
        if (split->cut == FUZZ_WHOLE && split->first == 0) {
            buffer_free(&whole[tolerant]);
            whole[tolerant] = notes;
            continue;
        }
        if (!slice_equal(buffer_slice(&notes), buffer_slice(&whole[tolerant]))) {
            fail_msg("cut %d (%zu, %llu): %.*s, in one piece %.*s, of: %.*s", split->cut, split->first,
                     (unsigned long long)split->seed, SLICE_ARGUMENTS(buffer_slice(&notes)),
                     SLICE_ARGUMENTS(buffer_slice(&whole[tolerant])), SLICE_ARGUMENTS(input));
        }
        buffer_free(&notes);
    }
}

static void chunked_bodies_are_the_same_however_they_are_cut(void **state)
{
    (void)state;
    check_folder("chunked", 100, check_chunked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_mean_the_same_however_they_are_cut),
        cmocka_unit_test(responses_mean_the_same_however_they_are_cut),
        cmocka_unit_test(chunked_bodies_are_the_same_however_they_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
