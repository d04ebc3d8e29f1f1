/*
 * clock: what time it is. Durations come from the monotonic clock in nanoseconds, moments from the real-time clock in microseconds
 * since 1970; the two are never mixed. Any thread.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include "base/slice.h"

#define NANOSECONDS_PER_SECOND      UINT64_C(1000000000)
#define NANOSECONDS_PER_MILLISECOND UINT64_C(1000000)

uint64_t clock_monotonic_ns(void);
uint64_t clock_realtime_us(void);

#define CLOCK_RFC3339_SIZE 28 /* "2026-01-02T03:04:05.678901Z" and NUL */
void clock_format_rfc3339(uint64_t time_us, char out[CLOCK_RFC3339_SIZE]);
/* RFC 3339 with any fraction and offset, to microseconds since 1970; false when it is no valid moment from 1970 to 9999 (UTC). */
bool clock_parse_rfc3339(struct slice text, uint64_t *time_us);

#define CLOCK_HTTP_DATE_SIZE 30 /* "Fri, 02 Jan 2026 03:04:05 GMT" and NUL */
void clock_format_http_date(uint64_t time_us, char out[CLOCK_HTTP_DATE_SIZE]);
/* IMF-fixdate only (RFC 9110 5.6.7). */
bool clock_parse_http_date(struct slice text, uint64_t *time_us);

#endif
