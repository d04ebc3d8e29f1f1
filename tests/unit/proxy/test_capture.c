/* What is kept of bodies of any size, in pieces of any size, under any limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/memory.h"
#include "proxy/capture.h"

static char content[300000];

static void fill(void)
{
    for (size_t i = 0; i < sizeof content; i++) {
        content[i] = (char)('a' + i % 23);
    }
}

static void expect_body(const struct body *body, const char *expected, size_t size)
{
    struct buffer copy = {0};
    body_copy(body, &copy);
    assert_int_equal(copy.size, size);
    if (size > 0) {
        assert_memory_equal(buffer_data(&copy), expected, size);
    }
    buffer_free(&copy);
}

static void run(size_t total, size_t piece, size_t limit)
{
    struct memory_budget budget = {.limit = 1u << 30};
    struct capture capture;
    struct body tail;
    capture_begin(&capture, true, 0, limit, &budget);
    capture.keep_tail = true;
    for (size_t sent = 0; sent < total; sent += piece) {
        size_t left = total - sent;
        capture_response(&capture, (struct slice){content + sent, piece < left ? piece : left});
    }
    size_t kept = total < limit ? total : limit;
    size_t tail_size = total > limit ? (total < CAPTURE_TAIL_SIZE ? total : CAPTURE_TAIL_SIZE) : 0;
    assert_int_equal(capture.response.bytes, total);
    assert_int_equal(capture.response.truncated, total > limit);
    capture_take_tail(&capture, &tail);
    expect_body(&capture.response.kept, content, kept);
    expect_body(&tail, content + total - tail_size, tail_size);
    body_free(&tail);
    capture_end(&capture);
    assert_int_equal(budget.used, 0);
}

static void keeps_a_prefix_and_the_last_32_kib(void **state)
{
    (void)state;
    static const size_t totals[] = {0, 1, 1000, 32767, 32768, 32769, 65537, 299999};
    static const size_t pieces[] = {1, 7, 4096, 100000};
    static const size_t limits[] = {1, 1000, 32768, 50000, 299999};
    fill();
    for (size_t t = 0; t < sizeof totals / sizeof totals[0]; t++) {
        for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; p++) {
            for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
                run(totals[t], pieces[p], limits[l]);
            }
        }
    }
}

static void keeps_nothing_when_it_is_off_or_memory_is_used_up(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = 100, .used = 100};
    struct capture capture;
    capture_begin(&capture, true, 10, 10, &budget);
    assert_int_equal(capture.withheld, EVENT_WITHHELD_MEMORY);
    capture_request(&capture, SLICE("hello"));
    assert_int_equal(capture.request.bytes, 5);
    assert_int_equal(capture.request.kept.size, 0);
    capture_end(&capture);
    capture_begin(&capture, false, 10, 10, &budget);
    assert_int_equal(capture.withheld, EVENT_WITHHELD_OFF);
    capture_end(&capture);
    assert_int_equal(budget.used, 100);
}

static void a_body_that_outgrows_memory_is_truncated(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = 70000};
    struct capture capture;
    fill();
    capture_begin(&capture, true, 0, 1u << 20, &budget);
    for (size_t i = 0; i < 100; i++) {
        capture_response(&capture, (struct slice){content + i * 1000, 1000});
    }
    assert_true(capture.response.truncated);
    assert_true(capture.response.kept.size < 70000);
    expect_body(&capture.response.kept, content, capture.response.kept.size);
    capture_end(&capture);
    assert_int_equal(budget.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_a_prefix_and_the_last_32_kib),
        cmocka_unit_test(keeps_nothing_when_it_is_off_or_memory_is_used_up),
        cmocka_unit_test(a_body_that_outgrows_memory_is_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
