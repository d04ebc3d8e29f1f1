/* Chains of captured blocks: content, growth, and the budget they are charged to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "event/event.h"

static struct buffer copy_of(const struct body *body)
{
    struct buffer copy = {0};
    body_copy(body, &copy);
    return copy;
}

static void what_was_appended_comes_out_in_order(void **state)
{
    (void)state;
    struct body body;
    body_init(&body, NULL);
    struct buffer expected = {0};
    for (unsigned i = 0; i < 3000; i++) {
        char piece[400];
        size_t size = (i * 7919u) % sizeof piece;
        memset(piece, (int)('a' + i % 26), size);
        assert_true(body_append(&body, (struct slice){piece, size}));
        buffer_append(&expected, piece, size);
    }
    struct buffer copy = copy_of(&body);
    assert_int_equal(body.size, expected.size);
    assert_true(slice_equal(buffer_slice(&copy), buffer_slice(&expected)));
    buffer_free(&copy);
    buffer_free(&expected);
    body_free(&body);
    assert_null(body.first);
    assert_int_equal(body.size, 0);
}

static void blocks_grow_from_one_kib_to_64_kib(void **state)
{
    (void)state;
    struct body body;
    body_init(&body, NULL);
    char piece[100] = {0};
    for (unsigned i = 0; i < 5000; i++)
        assert_true(body_append(&body, (struct slice){piece, sizeof piece}));
    size_t last = 0;
    for (const struct body_block *block = body.first; block != NULL; block = block->next) {
        size_t memory = sizeof *block + block->capacity;
        assert_in_range(memory, last, 65536);
        last = memory;
    }
    assert_int_equal(sizeof *body.first + body.first->capacity, 1024);
    assert_int_equal(last, 65536);
    body_free(&body);
}

static void a_piece_larger_than_a_block_is_spread_over_several(void **state)
{
    (void)state;
    struct body body;
    body_init(&body, NULL);
    size_t size = 300000;
    char *piece = malloc(size);
    assert_non_null(piece);
    for (size_t i = 0; i < size; i++)
        piece[i] = (char)(i * 31);
    assert_true(body_append(&body, (struct slice){piece, size}));
    assert_non_null(body.first->next);
    struct buffer copy = copy_of(&body);
    assert_true(slice_equal(buffer_slice(&copy), (struct slice){piece, size}));
    buffer_free(&copy);
    free(piece);
    body_free(&body);
}

static void the_budget_is_charged_for_whole_blocks_and_given_back(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = 100000};
    struct body body;
    body_init(&body, &budget);
    assert_true(body_append(&body, SLICE("hello")));
    assert_int_equal(budget.used, 1024);
    assert_int_equal(body.charged, 1024);
    assert_true(body_append(&body, SLICE(" again")));
    assert_int_equal(budget.used, 1024);
    body_free(&body);
    assert_int_equal(budget.used, 0);
}

static void nothing_is_added_when_the_budget_is_used_up(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = 70000};
    struct body body;
    body_init(&body, &budget);
    assert_true(body_append(&body, SLICE("first")));
    char *piece = calloc(1, 200000);
    assert_non_null(piece);
    assert_false(body_append(&body, (struct slice){piece, 200000}));
    assert_int_equal(body.size, 5);
    assert_null(body.first->next);
    assert_int_equal(budget.used, 1024);
    /* What fits into the last block needs no more memory. */
    assert_true(body_append(&body, (struct slice){piece, 500}));
    assert_int_equal(body.size, 505);
    free(piece);
    body_free(&body);
    assert_int_equal(budget.used, 0);
}

static void appending_nothing_takes_nothing(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = 0};
    struct body body;
    body_init(&body, &budget);
    assert_true(body_append(&body, (struct slice){NULL, 0}));
    assert_null(body.first);
    body_free(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_appended_comes_out_in_order),
        cmocka_unit_test(blocks_grow_from_one_kib_to_64_kib),
        cmocka_unit_test(a_piece_larger_than_a_block_is_spread_over_several),
        cmocka_unit_test(the_budget_is_charged_for_whole_blocks_and_given_back),
        cmocka_unit_test(nothing_is_added_when_the_budget_is_used_up),
        cmocka_unit_test(appending_nothing_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
