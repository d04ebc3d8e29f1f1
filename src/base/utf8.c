/*
 * utf8: see utf8.h. A character is judged by its first two bytes: the second one's range rules out overlong forms, surrogates and
 * what lies beyond U+10FFFF (Unicode, table 3-7).
 */
#include "base/utf8.h"

/* The length of a character that begins with this byte; 0 when none does. */
static size_t character_size(unsigned char first)
{
    if (first < 0x80)
        return 1;
    if (first < 0xC2)
        return 0;
    if (first < 0xE0)
        return 2;
    if (first < 0xF0)
        return 3;
    return first < 0xF5 ? 4 : 0;
}

static bool second_is_valid(unsigned char first, unsigned char second)
{
    unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    return second >= low && second <= high;
}

static bool is_continuation(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

/* Whether the first count bytes (2 to 4) can begin a character. */
static bool begins_character(const unsigned char *bytes, size_t count)
{
    if (!second_is_valid(bytes[0], bytes[1]))
        return false;
    for (size_t i = 2; i < count; i++)
        if (!is_continuation(bytes[i]))
            return false;
    return true;
}

size_t utf8_valid_prefix(struct slice s)
{
    const unsigned char *bytes = (const unsigned char *)s.data;
    size_t at = 0;
    while (at < s.size) {
        uint64_t eight;
        if (s.size - at >= sizeof eight) {
            memcpy(&eight, bytes + at, sizeof eight);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        size_t size = character_size(bytes[at]);
        if (size == 0 || size > s.size - at || (size > 1 && !begins_character(bytes + at, size)))
            return at;
        at += size;
    }
    return at;
}

size_t utf8_incomplete_tail(struct slice s)
{
    const unsigned char *end = (const unsigned char *)s.data + s.size;
    for (size_t back = 1; back <= 3 && back <= s.size; back++) {
        unsigned char byte = *(end - back);
        if (is_continuation(byte))
            continue;
        if (character_size(byte) <= back)
            return 0;
        return back == 1 || begins_character(end - back, back) ? back : 0;
    }
    return 0;
}

size_t utf8_incomplete_head(struct slice s)
{
    size_t count = 0;
    while (count < 3 && count < s.size && is_continuation((unsigned char)s.data[count]))
        count++;
    return count;
}

size_t utf8_encode(uint32_t code_point, char out[4])
{
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = (char)(0xC0 | code_point >> 6);
        out[1] = (char)(0x80 | (code_point & 0x3F));
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = (char)(0xE0 | code_point >> 12);
        out[1] = (char)(0x80 | (code_point >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code_point & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code_point >> 18);
    out[1] = (char)(0x80 | (code_point >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code_point >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code_point & 0x3F));
    return 4;
}
