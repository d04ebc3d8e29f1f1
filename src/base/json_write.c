/*
 * json_write: see json_write.h. Strings are copied in runs of bytes that need no escape: almost all of a body is one such run.
 */
#include "base/json_write.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"

static bool needs_escape(char c)
{
    return (unsigned char)c < 0x20 || c == '"' || c == '\\';
}

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

static void write_escaped(struct buffer *out, struct slice text)
{
    size_t run = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (!needs_escape(text.data[i]))
            continue;
        buffer_append(out, text.data + run, i - run);
        write_escape(out, text.data[i]);
        run = i + 1;
    }
    if (run < text.size)
        buffer_append(out, text.data + run, text.size - run);
}

void json_write_string(struct buffer *out, struct slice text)
{
    buffer_reserve(out, text.size + 2);
    buffer_append_char(out, '"');
    while (text.size > 0) {
        size_t valid = utf8_valid_prefix(text);
        write_escaped(out, (struct slice){text.data, valid});
        if (valid == text.size)
            break;
        buffer_append(out, "\xEF\xBF\xBD", 3);
        text = slice_range(text.data + valid + 1, text.data + text.size);
    }
    buffer_append_char(out, '"');
}

void json_write_latin1(struct buffer *out, struct slice text)
{
    if (utf8_valid(text)) {
        json_write_string(out, text);
        return;
    }
    buffer_append_char(out, '"');
    for (size_t i = 0; i < text.size; i++) {
        char utf8[4];
        size_t size = utf8_encode((unsigned char)text.data[i], utf8);
        write_escaped(out, (struct slice){utf8, size});
    }
    buffer_append_char(out, '"');
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
