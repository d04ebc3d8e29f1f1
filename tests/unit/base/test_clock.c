/*
 * clock: dates are written and read as the C library does it, and nothing that is no date is read as one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

#define LAST_MOMENT_US UINT64_C(253402300799999999)

static void monotonic_time_never_goes_back(void **state)
{
    (void)state;
    uint64_t before = clock_monotonic_ns();
    for (int i = 0; i < 1000; i++) {
        uint64_t now = clock_monotonic_ns();
        assert_true(now >= before);
        before = now;
    }
    assert_true(clock_realtime_us() > UINT64_C(1700000000000000));
}

static void dates_agree_with_the_c_library(void **state)
{
    (void)state;
    for (uint64_t seconds = 0; seconds < LAST_MOMENT_US / 1000000; seconds += 9999991) {
        struct tm expected;
        time_t time = (time_t)seconds;
        char text[CLOCK_RFC3339_SIZE], date[CLOCK_HTTP_DATE_SIZE], want[64];
        gmtime_r(&time, &expected);
        clock_format_rfc3339(seconds * 1000000 + 42, text);
        strftime(want, sizeof want, "%Y-%m-%dT%H:%M:%S.000042Z", &expected);
        assert_string_equal(text, want);
        clock_format_http_date(seconds * 1000000, date);
        strftime(want, sizeof want, "%a, %d %b %Y %H:%M:%S GMT", &expected);
        assert_string_equal(date, want);
        uint64_t again;
        assert_true(clock_parse_rfc3339(slice_of(text), &again));
        assert_int_equal(again, seconds * 1000000 + 42);
        assert_true(clock_parse_http_date(slice_of(date), &again));
        assert_int_equal(again, seconds * 1000000);
    }
}

static void a_moment_beyond_the_year_9999_stays_in_its_buffer(void **state)
{
    (void)state;
    char text[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(UINT64_MAX, text);
    assert_int_equal(strlen(text), CLOCK_RFC3339_SIZE - 1);
    assert_memory_equal(text, "9999-12-31T23:59:59.", 20);
}

static void rfc3339_offsets_and_fractions_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t time_us;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01T01:00:00+01:00", 0},
        {"1969-12-31T", UINT64_MAX},
        {"1970-01-01T00:00:00+00:01", UINT64_MAX},
        {"1970-01-01T00:00:00-00:30", UINT64_C(1800000000)},
        {"1970-01-01t00:00:01.5z", 1500000},
        {"1970-01-01 00:00:00.123456789Z", 123456},
        {"2016-12-31T23:59:60Z", UINT64_C(1483228800000000)},
        {"2000-02-29T00:00:00Z", UINT64_C(951782400000000)},
        {"1900-02-29T00:00:00Z", UINT64_MAX},
        {"2001-02-29T00:00:00Z", UINT64_MAX},
        {"2001-13-01T00:00:00Z", UINT64_MAX},
        {"2001-00-01T00:00:00Z", UINT64_MAX},
        {"2001-01-00T00:00:00Z", UINT64_MAX},
        {"2001-01-01T24:00:00Z", UINT64_MAX},
        {"2001-01-01T00:60:00Z", UINT64_MAX},
        {"2001-01-01T00:00:00", UINT64_MAX},
        {"2001-01-01T00:00:00.Z", UINT64_MAX},
        {"2001-01-01T00:00:00+0100", UINT64_MAX},
        {"2001-01-01T00:00:00+24:00", UINT64_MAX},
        {"2001-01-01T00:00:00Z ", UINT64_MAX},
        {"9999-12-31T23:59:59.999999Z", LAST_MOMENT_US},
        {"9999-12-31T23:59:60Z", UINT64_MAX},
        {"9999-12-31T23:59:59-00:01", UINT64_MAX},
        {"", UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t time_us = UINT64_MAX;
        bool read = clock_parse_rfc3339(slice_of(cases[i].text), &time_us);
        if (read != (cases[i].time_us != UINT64_MAX) || time_us != cases[i].time_us)
            fail_msg("%s", cases[i].text);
    }
}

static void only_imf_fixdate_is_an_http_date(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 UTC",  "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",  "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Fri, 31 Dec 9999 23:59:60 GMT",  "",
    };
    uint64_t time_us;
    assert_true(clock_parse_http_date(SLICE("Sun, 06 Nov 1994 08:49:37 GMT"), &time_us));
    assert_int_equal(time_us, UINT64_C(784111777000000));
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (clock_parse_http_date(slice_of(refused[i]), &time_us))
            fail_msg("%s", refused[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(monotonic_time_never_goes_back),
        cmocka_unit_test(dates_agree_with_the_c_library),
        cmocka_unit_test(a_moment_beyond_the_year_9999_stays_in_its_buffer),
        cmocka_unit_test(rfc3339_offsets_and_fractions_are_read),
        cmocka_unit_test(only_imf_fixdate_is_an_http_date),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
