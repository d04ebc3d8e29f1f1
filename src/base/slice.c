/*
 * slice: see slice.h.
 */
#include "base/slice.h"

#include "base/memory.h"

bool slice_equal_nocase(struct slice a, struct slice b)
{
    if (a.size != b.size)
        return false;
    for (size_t i = 0; i < a.size; i++)
        if (ascii_lower(a.data[i]) != ascii_lower(b.data[i]))
            return false;
    return true;
}

bool slice_starts_with(struct slice s, struct slice prefix)
{
    return s.size >= prefix.size && (prefix.size == 0 || memcmp(s.data, prefix.data, prefix.size) == 0);
}

bool slice_ends_with_nocase(struct slice s, struct slice suffix)
{
    if (s.size < suffix.size)
        return false;
    if (suffix.size == 0)
        return true;
    return slice_equal_nocase((struct slice){s.data + (s.size - suffix.size), suffix.size}, suffix);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct slice slice_trim(struct slice s)
{
    while (s.size > 0 && is_blank(s.data[0])) {
        s.data++;
        s.size--;
    }
    while (s.size > 0 && is_blank(s.data[s.size - 1]))
        s.size--;
    return s;
}

bool slice_split(struct slice *rest, char separator, struct slice *piece)
{
    if (rest->data == NULL)
        return false;
    const char *at = rest->size > 0 ? memchr(rest->data, separator, rest->size) : NULL;
    if (at == NULL) {
        *piece = *rest;
        *rest = (struct slice){NULL, 0};
    } else {
        *piece = slice_range(rest->data, at);
        *rest = slice_range(at + 1, rest->data + rest->size);
    }
    return true;
}

bool slice_to_uint64(struct slice s, uint64_t *number)
{
    uint64_t value = 0;
    if (s.size == 0)
        return false;
    for (size_t i = 0; i < s.size; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.data[i] - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *number = value;
    return true;
}

char *slice_to_string(struct slice s)
{
    return xmemdup(s.data, s.size);
}
