/*
 * json_write: see json_write.h. Strings are copied in runs of bytes that need no escape, and looked at once: only a run with bytes beyond ASCII is checked for UTF-8.
 */
#include "base/json_write.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json_scan.h"
#include "base/utf8.h"

static void write_escape(struct buffer *out, char c)
{
    static const char hex[] = "0123456789abcdef";
    switch (c) {
    case '"':
        buffer_append(out, "\\\"", 2);
        return;
    case '\\':
        buffer_append(out, "\\\\", 2);
        return;
    case '\b':
        buffer_append(out, "\\b", 2);
        return;
    case '\f':
        buffer_append(out, "\\f", 2);
        return;
    case '\n':
        buffer_append(out, "\\n", 2);
        return;
    case '\r':
        buffer_append(out, "\\r", 2);
        return;
    case '\t':
        buffer_append(out, "\\t", 2);
        return;
    default:
        buffer_append(out, (char[]){'\\', 'u', '0', '0', hex[c >> 4 & 15], hex[c & 15]}, 6);
    }
}

/* Without quotes and whatever else is escaped. */
static void write_utf8(struct buffer *out, struct slice text)
{
    size_t valid;
    while ((valid = utf8_valid_prefix(text)) < text.size) {
        buffer_append(out, text.data, valid);
        buffer_append(out, "\xEF\xBF\xBD", 3);
        text = slice_range(text.data + valid + 1, text.data + text.size);
    }
    buffer_append_slice(out, text);
}

void json_write_string(struct buffer *out, struct slice text)
{
    const char *at = text.data, *end = text.size > 0 ? at + text.size : at;
    buffer_reserve(out, text.size + 2);
    buffer_append_char(out, '"');
    while (at < end) {
        uint64_t high;
        const char *run = at;
        at = json_scan_plain(at, end, &high);
        if (high == 0)
            buffer_append(out, run, (size_t)(at - run));
        else
            write_utf8(out, slice_range(run, at));
        if (at < end)
            write_escape(out, *at++);
    }
    buffer_append_char(out, '"');
}

void json_write_latin1(struct buffer *out, struct slice text)
{
    if (utf8_valid(text)) {
        json_write_string(out, text);
        return;
    }
    struct buffer utf8 = {0};
    for (size_t i = 0; i < text.size; i++) {
        char character[4];
        buffer_append(&utf8, character, utf8_encode((unsigned char)text.data[i], character));
    }
    json_write_string(out, buffer_slice(&utf8));
    buffer_free(&utf8);
}

/* printf follows LC_NUMERIC: whatever stands for the decimal point becomes a point. */
static void append_without_locale(struct buffer *out, const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        if ((*c >= '0' && *c <= '9') || *c == '-' || *c == '+' || *c == 'e')
            buffer_append_char(out, *c);
        else if (c[1] >= '0' && c[1] <= '9') /* the last byte of the separator */
            buffer_append_char(out, '.');
    }
}

/* Not a whole number. */
static void write_thousandths(struct buffer *out, int64_t thousandths)
{
    uint64_t size = thousandths < 0 ? 0 - (uint64_t)thousandths : (uint64_t)thousandths;
    unsigned decimals = (unsigned)(size % 1000);
    if (thousandths < 0)
        buffer_append_char(out, '-');
    buffer_append_uint64(out, size / 1000);
    buffer_append_char(out, '.');
    for (unsigned unit = 100; decimals > 0; decimals %= unit, unit /= 10)
        buffer_append_char(out, (char)('0' + decimals / unit));
}

void json_write_number(struct buffer *out, double number)
{
    if (!isfinite(number)) {
        buffer_append_string(out, "null");
        return;
    }
    if (fabs(number) <= 1e15 && number == (double)(int64_t)number && !(number == 0 && signbit(number))) {
        json_write_integer(out, (int64_t)number);
        return;
    }
    /* Times and settings have at most three decimals: no search for the digits is needed. */
    int64_t thousandths = fabs(number) < 1e12 ? (int64_t)(number * 1000 + (number < 0 ? -0.5 : 0.5)) : 0;
    if (thousandths != 0 && (double)thousandths / 1000 == number) {
        write_thousandths(out, thousandths);
        return;
    }
    /* 15 digits always survive in a normal double, 17 always suffice; a subnormal one may have far fewer. */
    char text[64];
    for (int digits = fabs(number) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    append_without_locale(out, text);
}

void json_write_integer(struct buffer *out, int64_t number)
{
    if (number < 0)
        buffer_append_char(out, '-');
    buffer_append_uint64(out, number < 0 ? 0 - (uint64_t)number : (uint64_t)number);
}
