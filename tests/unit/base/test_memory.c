/*
 * memory: a budget is never exceeded, whoever takes from it.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"

static void allocation_gives_what_it_says(void **state)
{
    (void)state;
    unsigned char *zero = xcalloc(100, 3);
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(zero[i], 0);
    free(zero);
    free(xmalloc(0));
    free(xcalloc(0, 8));
    char *text = xprintf("%s-%d", "a", 5);
    assert_string_equal(text, "a-5");
    text = xrealloc(text, 1000);
    assert_string_equal(text, "a-5");
    free(text);
    text = xmemdup("a\0b", 3);
    assert_memory_equal(text, "a\0b", 4);
    free(text);
}

static void a_budget_is_all_or_nothing(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = 100};
    assert_true(memory_budget_take(&budget, 60));
    assert_false(memory_budget_take(&budget, 41));
    assert_false(memory_budget_take(&budget, SIZE_MAX));
    assert_true(memory_budget_take(&budget, 40));
    assert_false(memory_budget_take(&budget, 1));
    memory_budget_give_back(&budget, 60);
    assert_true(memory_budget_take(&budget, 60));
    assert_int_equal(budget.used, 100);
}

static void *take_and_give_back(void *argument)
{
    struct memory_budget *budget = argument;
    for (int i = 0; i < 20000; i++) {
        if (!memory_budget_take(budget, 3))
            continue;
        if (budget->used > budget->limit)
            return budget;
        memory_budget_give_back(budget, 3);
    }
    return NULL;
}

static void threads_never_exceed_a_budget(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = 7};
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give_back, &budget), 0);
    for (size_t i = 0; i < 4; i++) {
        void *exceeded;
        pthread_join(threads[i], &exceeded);
        assert_null(exceeded);
    }
    assert_int_equal(budget.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocation_gives_what_it_says),
        cmocka_unit_test(a_budget_is_all_or_nothing),
        cmocka_unit_test(threads_never_exceed_a_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
