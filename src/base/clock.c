/*
 * clock: see clock.h. Dates are computed here and not by gmtime(), which takes the C library's time zone lock; log lines and events are
 * written by every thread.
 */
#include "base/clock.h"

#include <time.h>

#define MICROSECONDS_PER_SECOND UINT64_C(1000000)
#define SECONDS_PER_DAY         UINT64_C(86400)
#define LAST_SECOND             UINT64_C(253402300799) /* of the year 9999 */

static const char month_names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
static const char day_names[7][4] = {"Thu", "Fri", "Sat", "Sun",
                                     "Mon", "Tue", "Wed"}; /* 1970 began on a Thursday */

struct date {
    unsigned year, month, day;
    unsigned hour, minute, second;
};

static uint64_t now_ns(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * NANOSECONDS_PER_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return now_ns(CLOCK_MONOTONIC);
}

uint64_t clock_realtime_us(void)
{
    return now_ns(CLOCK_REALTIME) / 1000;
}

/*
 * Days are counted in years that begin with March, so that the leap day is a year's last one: the days before a month are then
 * (153 * month + 2) / 5. 719468 days lie between March of the year 0 and 1970.
 */
static uint64_t days_of(unsigned year, unsigned month, unsigned day)
{
    uint64_t from_march = (month + 9) % 12;
    uint64_t y = month <= 2 ? year - 1 : year;
    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * from_march + 2) / 5 + day - 1 - 719468;
}

static struct date date_of(uint64_t seconds)
{
    uint64_t days = seconds / SECONDS_PER_DAY + 719468;
    uint64_t era = days / 146097, day_of_era = days % 146097; /* 400 years */
    uint64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t from_march = (5 * day_of_year + 2) / 153;
    unsigned month = (unsigned)(from_march < 10 ? from_march + 3 : from_march - 9);
    unsigned second_of_day = (unsigned)(seconds % SECONDS_PER_DAY);
    return (struct date){
        .year = (unsigned)(era * 400 + year_of_era + (month <= 2 ? 1 : 0)),
        .month = month,
        .day = (unsigned)(day_of_year - (153 * from_march + 2) / 5 + 1),
        .hour = second_of_day / 3600,
        .minute = second_of_day / 60 % 60,
        .second = second_of_day % 60,
    };
}

static char *put_digits(char *out, unsigned number, int digits)
{
    for (int i = digits - 1; i >= 0; i--) {
        out[i] = (char)('0' + number % 10);
        number /= 10;
    }
    return out + digits;
}

static char *put_text(char *out, const char *text)
{
    size_t size = strlen(text);
    memcpy(out, text, size);
    return out + size;
}

static char *put_time(char *out, const struct date *date)
{
    out = put_digits(out, date->hour, 2);
    *out++ = ':';
    out = put_digits(out, date->minute, 2);
    *out++ = ':';
    return put_digits(out, date->second, 2);
}

void clock_format_rfc3339(uint64_t time_us, char out[CLOCK_RFC3339_SIZE])
{
    uint64_t seconds = time_us / MICROSECONDS_PER_SECOND;
    struct date date = date_of(seconds < LAST_SECOND ? seconds : LAST_SECOND);
    out = put_digits(out, date.year, 4);
    *out++ = '-';
    out = put_digits(out, date.month, 2);
    *out++ = '-';
    out = put_digits(out, date.day, 2);
    *out++ = 'T';
    out = put_time(out, &date);
    *out++ = '.';
    out = put_digits(out, (unsigned)(time_us % MICROSECONDS_PER_SECOND), 6);
    put_text(out, "Z")[0] = '\0';
}

void clock_format_http_date(uint64_t time_us, char out[CLOCK_HTTP_DATE_SIZE])
{
    uint64_t seconds = time_us / MICROSECONDS_PER_SECOND;
    if (seconds > LAST_SECOND)
        seconds = LAST_SECOND;
    struct date date = date_of(seconds);
    out = put_text(out, day_names[seconds / SECONDS_PER_DAY % 7]);
    out = put_text(out, ", ");
    out = put_digits(out, date.day, 2);
    *out++ = ' ';
    out = put_text(out, month_names[date.month - 1]);
    *out++ = ' ';
    out = put_digits(out, date.year, 4);
    *out++ = ' ';
    out = put_time(out, &date);
    put_text(out, " GMT")[0] = '\0';
}

/* Takes digits off the front of *text. */
static bool take_digits(struct slice *text, size_t digits, unsigned *number)
{
    uint64_t value;
    if (text->size < digits || !slice_to_uint64((struct slice){text->data, digits}, &value))
        return false;
    *number = (unsigned)value;
    text->data += digits;
    text->size -= digits;
    return true;
}

/* Takes one character off the front of *text if it is one of these. */
static bool take_one_of(struct slice *text, const char *characters, char *taken)
{
    if (text->size == 0 || text->data[0] == '\0' || strchr(characters, text->data[0]) == NULL)
        return false;
    *taken = text->data[0];
    text->data++;
    text->size--;
    return true;
}

static bool take_text(struct slice *text, const char *expected)
{
    struct slice prefix = slice_of(expected);
    if (!slice_starts_with(*text, prefix))
        return false;
    text->data += prefix.size;
    text->size -= prefix.size;
    return true;
}

static bool take_time(struct slice *text, struct date *date)
{
    return take_digits(text, 2, &date->hour) && take_text(text, ":") && take_digits(text, 2, &date->minute) &&
           take_text(text, ":") && take_digits(text, 2, &date->second);
}

/* To seconds since 1970. A leap second is the next minute's first. */
static bool date_to_seconds(const struct date *date, uint64_t *seconds)
{
    static const unsigned char month_days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (date->year < 1970 || date->month < 1 || date->month > 12 || date->day < 1 || date->hour > 23 ||
        date->minute > 59 || date->second > 60)
        return false;
    bool leap = (date->year % 4 == 0 && date->year % 100 != 0) || date->year % 400 == 0;
    if (date->day > month_days[date->month - 1] + (date->month == 2 && leap ? 1u : 0u))
        return false;
    *seconds = days_of(date->year, date->month, date->day) * SECONDS_PER_DAY + date->hour * 3600 +
               date->minute * 60 + date->second;
    return true;
}

bool clock_parse_rfc3339(struct slice text, uint64_t *time_us)
{
    struct date date;
    char taken;
    uint64_t seconds, fraction = 0;
    unsigned offset_hours = 0, offset_minutes = 0;
    if (!take_digits(&text, 4, &date.year) || !take_text(&text, "-") || !take_digits(&text, 2, &date.month) ||
        !take_text(&text, "-") || !take_digits(&text, 2, &date.day) || !take_one_of(&text, "Tt ", &taken) ||
        !take_time(&text, &date) || !date_to_seconds(&date, &seconds))
        return false;
    if (take_text(&text, ".")) {
        uint64_t unit = MICROSECONDS_PER_SECOND / 10;
        if (!take_one_of(&text, "0123456789", &taken))
            return false;
        do {
            fraction += (uint64_t)(taken - '0') * unit;
            unit /= 10;
        } while (take_one_of(&text, "0123456789", &taken));
    }
    if (!take_one_of(&text, "Zz+-", &taken))
        return false;
    if (taken == '+' || taken == '-') {
        if (!take_digits(&text, 2, &offset_hours) || !take_text(&text, ":") ||
            !take_digits(&text, 2, &offset_minutes) || offset_hours > 23 || offset_minutes > 59)
            return false;
    }
    uint64_t offset = offset_hours * 3600 + offset_minutes * 60;
    if (text.size > 0 || (taken == '+' && offset > seconds))
        return false;
    seconds = taken == '+' ? seconds - offset : seconds + offset;
    if (seconds > LAST_SECOND)
        return false;
    *time_us = seconds * MICROSECONDS_PER_SECOND + fraction;
    return true;
}

bool clock_parse_http_date(struct slice text, uint64_t *time_us)
{
    struct date date;
    uint64_t seconds;
    size_t day = 0, month = 0;
    while (day < 7 && !take_text(&text, day_names[day]))
        day++;
    if (day == 7 || !take_text(&text, ", ") || !take_digits(&text, 2, &date.day) || !take_text(&text, " "))
        return false;
    while (month < 12 && !take_text(&text, month_names[month]))
        month++;
    date.month = (unsigned)month + 1;
    if (!take_text(&text, " ") || !take_digits(&text, 4, &date.year) || !take_text(&text, " ") ||
        !take_time(&text, &date) || !take_text(&text, " GMT") || text.size > 0 ||
        !date_to_seconds(&date, &seconds) || seconds > LAST_SECOND)
        return false;
    *time_us = seconds * MICROSECONDS_PER_SECOND;
    return true;
}
