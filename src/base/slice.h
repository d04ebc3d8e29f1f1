/*
 * slice: a borrowed piece of bytes, pointer and length, never assumed to end in NUL. An empty slice may have a NULL
 * pointer. Comparison of names is ASCII only: no locale is ever asked.
 */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const char *data;
    size_t size;
};

/* A name and its value: a header field, a query parameter, a label. */
struct name_value {
    struct slice name, value;
};

#define SLICE(literal) ((struct slice){("" literal), sizeof(literal) - 1})
/* For printf's "%.*s". */
#define SLICE_ARGUMENTS(s) (int)(s).size, (s).data != NULL ? (s).data : ""

static inline struct slice slice_of(const char *text)
{
    return (struct slice){text, text != NULL ? strlen(text) : 0};
}

static inline struct slice slice_range(const char *from, const char *to)
{
    return (struct slice){from, (size_t)(to - from)};
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* Of a hexadecimal digit; -1: it is none. */
static inline int ascii_hex_value(char c)
{
    c = ascii_lower(c);
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Equal but for the case of ASCII letters. */
bool slice_equal_nocase(struct slice a, struct slice b);
bool slice_starts_with(struct slice s, struct slice prefix);
bool slice_ends_with_nocase(struct slice s, struct slice suffix);
/* Without spaces and tabs at both ends. */
struct slice slice_trim(struct slice s);
/* Cuts the piece before the first separator off *rest, and the separator; false when *rest was used up (its data is NULL). */
bool slice_split(struct slice *rest, char separator, struct slice *piece);
/* A decimal number of digits only; false when empty, odd or too large. */
bool slice_to_uint64(struct slice s, uint64_t *number);
/* A new string, the caller's. */
char *slice_to_string(struct slice s);

#endif
