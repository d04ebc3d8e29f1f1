/*
 * log: see log.h. A line is put together in a buffer and leaves in one write(2), so that lines of several threads never mix. What
 * cannot be printed is shown as \n, \t or \xNN, in JSON by its escapes: a log line is one line and moves no terminal's cursor.
 */
#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/json_write.h"
#include "base/utf8.h"

static atomic_int lowest_level = LOG_INFO;
static atomic_int current_format = LOG_TEXT;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_configure(enum log_level level, enum log_format format)
{
    atomic_store_explicit(&lowest_level, (int)level, memory_order_relaxed);
    atomic_store_explicit(&current_format, (int)format, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&lowest_level, memory_order_relaxed);
}

static void append_escape(struct buffer *out, char c)
{
    static const char hex[] = "0123456789abcdef";
    if (c == '\n')
        buffer_append(out, "\\n", 2);
    else if (c == '\t')
        buffer_append(out, "\\t", 2);
    else
        buffer_append(out, (char[]){'\\', 'x', hex[c >> 4 & 15], hex[c & 15]}, 4);
}

/* C0, DEL, and C1 in its two bytes. */
static bool is_control(struct slice text, size_t at)
{
    unsigned char c = (unsigned char)text.data[at];
    unsigned char before = at > 0 ? (unsigned char)text.data[at - 1] : 0;
    return c < 0x20 || c == 0x7F || (before == 0xC2 && c >= 0x80 && c < 0xA0);
}

/* Appends text so that it is valid UTF-8 without control characters. */
static void append_printable(struct buffer *out, struct slice text, bool quoted)
{
    while (text.size > 0) {
        size_t valid = utf8_valid_prefix(text);
        for (size_t i = 0; i < valid; i++) {
            char c = text.data[i];
            if (is_control((struct slice){text.data, valid}, i)) {
                if ((unsigned char)c >= 0x80) { /* its first byte is out already */
                    out->size--;
                    append_escape(out, '\xC2');
                }
                append_escape(out, c);
            } else {
                if (quoted && (c == '"' || c == '\\'))
                    buffer_append_char(out, '\\');
                buffer_append_char(out, c);
            }
        }
        if (valid == text.size)
            return;
        append_escape(out, text.data[valid]);
        text = slice_range(text.data + valid + 1, text.data + text.size);
    }
}

/* JSON has escapes of its own, but demands them for C0 only. */
static void append_json(struct buffer *out, struct slice json)
{
    for (size_t i = 0; i < json.size; i++) {
        unsigned char c = (unsigned char)json.data[i];
        if (!is_control(json, i)) {
            buffer_append_char(out, (char)c);
            continue;
        }
        if (c >= 0x80) /* the code point is its second byte; the first one is out already */
            out->size--;
        buffer_printf(out, "\\u%04x", c);
    }
}

static void append_json_string(struct buffer *out, struct slice text)
{
    struct buffer json = {0};
    json_write_string(&json, text);
    append_json(out, buffer_slice(&json));
    buffer_free(&json);
}

static void append_number(struct buffer *out, const struct log_field *field)
{
    if (field->kind == LOG_FIELD_INTEGER)
        json_write_integer(out, field->integer);
    else
        json_write_number(out, field->number);
}

static void append_time(struct buffer *out)
{
    char time[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(clock_realtime_us(), time);
    buffer_append(out, time, sizeof "2026-01-02T03:04:05.678" - 1);
    buffer_append_char(out, 'Z');
}

static bool needs_quotes(struct slice value)
{
    for (size_t i = 0; i < value.size; i++)
        if (value.data[i] == ' ' || value.data[i] == '"' || value.data[i] == '=')
            return true;
    return value.size == 0;
}

static void format_text(struct buffer *out, enum log_level level, struct slice message,
                        const struct log_field *fields)
{
    append_time(out);
    buffer_printf(out, " %-5s ", level_names[level]);
    append_printable(out, message, false);
    for (; fields->name != NULL; fields++) {
        buffer_append_char(out, ' ');
        append_printable(out, slice_of(fields->name), false);
        buffer_append_char(out, '=');
        if (fields->kind == LOG_FIELD_INTEGER || fields->kind == LOG_FIELD_NUMBER) {
            append_number(out, fields);
        } else if (needs_quotes(fields->string)) {
            buffer_append_char(out, '"');
            append_printable(out, fields->string, true);
            buffer_append_char(out, '"');
        } else {
            append_printable(out, fields->string, false);
        }
    }
}

static void format_json(struct buffer *out, enum log_level level, struct slice message,
                        const struct log_field *fields)
{
    buffer_append_string(out, "{\"time\":\"");
    append_time(out);
    buffer_printf(out, "\",\"level\":\"%s\",\"message\":", level_names[level]);
    append_json_string(out, message);
    for (; fields->name != NULL; fields++) {
        buffer_append_char(out, ',');
        append_json_string(out, slice_of(fields->name));
        buffer_append_char(out, ':');
        if (fields->kind == LOG_FIELD_STRING)
            append_json_string(out, fields->string);
        else if (fields->kind == LOG_FIELD_JSON)
            append_json(out, fields->string);
        else
            append_number(out, fields);
    }
    buffer_append_char(out, '}');
}

void log_write(enum log_level level, struct slice message, const struct log_field *fields)
{
    if (!log_enabled(level))
        return;
    struct buffer line = {0};
    if (atomic_load_explicit(&current_format, memory_order_relaxed) == LOG_JSON)
        format_json(&line, level, message, fields);
    else
        format_text(&line, level, message, fields);
    buffer_append_char(&line, '\n');
    int saved = errno; /* a log line changes nothing for its caller */
    ssize_t written;
    do
        written = write(STDERR_FILENO, buffer_data(&line), line.size);
    while (written < 0 && errno == EINTR);
    errno = saved;
    buffer_free(&line);
}

bool log_limit_pass(struct log_limit *limit, uint64_t *suppressed)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t next = atomic_load_explicit(&limit->next_ns, memory_order_relaxed);
    if (now < next ||
        !atomic_compare_exchange_strong_explicit(&limit->next_ns, &next, now + NANOSECONDS_PER_SECOND,
                                                 memory_order_relaxed, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&limit->held_back, 1, memory_order_relaxed);
        return false;
    }
    *suppressed = atomic_exchange_explicit(&limit->held_back, 0, memory_order_relaxed);
    return true;
}
