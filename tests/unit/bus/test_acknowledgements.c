/* What a subscriber has fetched and not acknowledged: the lowest is known in any order of acknowledging, and memory follows what is outstanding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bus/acknowledgements.h"

static void nothing_is_outstanding_at_first_and_when_all_is_acknowledged(void **state)
{
    (void)state;
    struct acknowledgements outstanding = {0};
    assert_int_equal(acknowledgements_lowest(&outstanding), NOTHING_OUTSTANDING);
    assert_false(acknowledgements_remove(&outstanding, 1));
    acknowledgements_add(&outstanding, 7);
    assert_int_equal(acknowledgements_lowest(&outstanding), 7);
    assert_true(acknowledgements_remove(&outstanding, 7));
    assert_int_equal(acknowledgements_lowest(&outstanding), NOTHING_OUTSTANDING);
    acknowledgements_free(&outstanding);
}

static void the_lowest_unfinished_counts_in_any_order(void **state)
{
    (void)state;
    struct acknowledgements outstanding = {0};
    for (uint64_t sequence = 1; sequence <= 5; sequence++)
        acknowledgements_add(&outstanding, sequence);
    assert_true(acknowledgements_remove(&outstanding, 3));
    assert_true(acknowledgements_remove(&outstanding, 2));
    assert_int_equal(acknowledgements_lowest(&outstanding), 1);
    assert_true(acknowledgements_remove(&outstanding, 1));
    assert_int_equal(acknowledgements_lowest(&outstanding), 4);
    assert_true(acknowledgements_remove(&outstanding, 5));
    assert_int_equal(acknowledgements_lowest(&outstanding), 4);
    assert_int_equal(acknowledgements_count(&outstanding), 1);
    acknowledgements_free(&outstanding);
}

static void what_is_unknown_or_acknowledged_twice_changes_nothing(void **state)
{
    (void)state;
    struct acknowledgements outstanding = {0};
    acknowledgements_add(&outstanding, 10);
    acknowledgements_add(&outstanding, 20);
    acknowledgements_add(&outstanding, 30);
    assert_true(acknowledgements_remove(&outstanding, 20));
    const uint64_t strange[] = {0, 9, 15, 20, 25, 31, UINT64_MAX};
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++)
        assert_false(acknowledgements_remove(&outstanding, strange[i]));
    assert_int_equal(acknowledgements_count(&outstanding), 2);
    assert_int_equal(acknowledgements_lowest(&outstanding), 10);
    acknowledgements_free(&outstanding);
}

static void one_that_is_never_finished_costs_no_memory_for_those_that_pass_it(void **state)
{
    (void)state;
    struct acknowledgements outstanding = {0};
    acknowledgements_add(&outstanding, 1);
    for (uint64_t sequence = 2; sequence < 1000000; sequence++) {
        acknowledgements_add(&outstanding, sequence);
        if (sequence >= 12)
            assert_true(acknowledgements_remove(&outstanding, sequence - 10));
    }
    assert_int_equal(acknowledgements_lowest(&outstanding), 1);
    assert_int_equal(acknowledgements_count(&outstanding), 11);
    assert_true(outstanding.capacity <= 64);
    acknowledgements_free(&outstanding);
}

static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

enum { SEQUENCES = 4000 };

static void random_interleavings_agree_with_a_naive_list(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        random_state = seed * 0x9E3779B97F4A7C15u;
        struct acknowledgements outstanding = {0};
        static bool there[SEQUENCES];
        memset(there, 0, sizeof there);
        uint64_t next = 1, lowest_possible = 1, window = 1 + random_below(400);
        size_t count = 0;
        while (next < SEQUENCES) {
            if (random_below(2) == 0) {
                uint64_t batch = 1 + random_below(20);
                for (; batch > 0 && next < SEQUENCES; batch--, next++) {
                    if (random_below(10) == 0)
                        continue; /* skipped by the subscriber */
                    acknowledgements_add(&outstanding, next);
                    there[next] = true;
                    count++;
                }
            } else {
                for (uint64_t tries = random_below(25); tries > 0; tries--) {
                    uint64_t from = next > window ? next - window : 1;
                    if (random_below(20) == 0)
                        from = lowest_possible;
                    uint64_t sequence = from + random_below(next - from + 1);
                    bool known = sequence < SEQUENCES && there[sequence];
                    assert_int_equal(acknowledgements_remove(&outstanding, sequence), known);
                    if (known) {
                        there[sequence] = false;
                        count--;
                    }
                }
            }
            while (lowest_possible < next && !there[lowest_possible])
                lowest_possible++;
            assert_int_equal(acknowledgements_lowest(&outstanding),
                             lowest_possible < next ? lowest_possible : NOTHING_OUTSTANDING);
            assert_int_equal(acknowledgements_count(&outstanding), count);
        }
        acknowledgements_free(&outstanding);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_outstanding_at_first_and_when_all_is_acknowledged),
        cmocka_unit_test(the_lowest_unfinished_counts_in_any_order),
        cmocka_unit_test(what_is_unknown_or_acknowledged_twice_changes_nothing),
        cmocka_unit_test(one_that_is_never_finished_costs_no_memory_for_those_that_pass_it),
        cmocka_unit_test(random_interleavings_agree_with_a_naive_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
