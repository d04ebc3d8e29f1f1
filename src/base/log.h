/*
 * log: one line an entry, to stderr, as text or JSON, from any thread. An entry is written by one write(2), so lines never mix.
 * Bytes below 0x20 and what is not UTF-8 are escaped in both formats. Nothing secret, no body and no header value is ever given to it.
 *
 *     log_info("listening", log_string("address", "127.0.0.1:8080"));
 *     text: 2026-01-02T03:04:05.678Z info  listening address=127.0.0.1:8080
 *     json: {"time":"…","level":"info","message":"listening","address":"127.0.0.1:8080"}
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/slice.h"

/* LOG_NOTHING: of a configuration that writes none. */
enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_NOTHING };
enum log_format { LOG_TEXT, LOG_JSON };

struct log_field {
    const char *name; /* NULL ends a list */
    enum { LOG_FIELD_STRING, LOG_FIELD_INTEGER, LOG_FIELD_NUMBER, LOG_FIELD_JSON } kind;
    struct slice string;
    int64_t integer;
    double number;
};

static inline struct log_field log_slice(const char *name, struct slice value)
{
    return (struct log_field){.name = name, .kind = LOG_FIELD_STRING, .string = value};
}

static inline struct log_field log_string(const char *name, const char *value)
{
    return log_slice(name, slice_of(value));
}

static inline struct log_field log_integer(const char *name, int64_t value)
{
    return (struct log_field){.name = name, .kind = LOG_FIELD_INTEGER, .integer = value};
}

static inline struct log_field log_number(const char *name, double value)
{
    return (struct log_field){.name = name, .kind = LOG_FIELD_NUMBER, .number = value};
}

/* A value of any kind, as JSON text, which must be valid: part of a line that is JSON, and a string in one that is text. */
static inline struct log_field log_json(const char *name, struct slice text)
{
    return (struct log_field){.name = name, .kind = LOG_FIELD_JSON, .string = text};
}

/* How many lines a log_limit held back. It ends the list when there are none: the last field of a call. */
static inline struct log_field log_suppressed(uint64_t count)
{
    return log_integer(count > 0 ? "suppressed" : NULL, (int64_t)count);
}

/* May be called again at any time (reload). Defaults: info, text. */
void log_configure(enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, struct slice message, const struct log_field *fields);

#define log_at(level, message, ...)                                                                          \
    log_write((level), slice_of(message),                                                                    \
              (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.name = NULL}})
#define log_debug(message, ...) log_at(LOG_DEBUG, message __VA_OPT__(, ) __VA_ARGS__)
#define log_info(message, ...)  log_at(LOG_INFO, message __VA_OPT__(, ) __VA_ARGS__)
#define log_warn(message, ...)  log_at(LOG_WARN, message __VA_OPT__(, ) __VA_ARGS__)
#define log_error(message, ...) log_at(LOG_ERROR, message __VA_OPT__(, ) __VA_ARGS__)

/*
 * At most one line a second for one reason. True when the caller may log now; *suppressed is how many were held back since the last
 * one. All zero to begin with; any thread.
 */
struct log_limit {
    _Atomic uint64_t next_ns;
    _Atomic uint64_t held_back;
};
bool log_limit_pass(struct log_limit *limit, uint64_t *suppressed);

#endif
