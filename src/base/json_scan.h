/* json_scan: the inner loop of reading and writing JSON strings: how far do bytes go that stand for themselves. */
#ifndef BASE_JSON_SCAN_H
#define BASE_JSON_SCAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define EACH_BYTE(b) (UINT64_C(0x0101010101010101) * (b))

/* To the first quote, backslash or control character, eight bytes at a time. *high is not 0 when a byte beyond ASCII was passed: then it is still to be seen whether it is UTF-8. */
static inline const char *json_scan_plain(const char *at, const char *end, uint64_t *high)
{
    uint64_t seen = 0;
    while (end - at >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        word = le64toh(word);
        uint64_t quote = word ^ EACH_BYTE('"'), backslash = word ^ EACH_BYTE('\\');
        uint64_t special = ((quote - EACH_BYTE(1)) & ~quote) | ((backslash - EACH_BYTE(1)) & ~backslash) |
                           ((word - EACH_BYTE(0x20)) & ~word);
        special &= EACH_BYTE(0x80);
        if (special != 0) { /* a borrow spoils only bytes behind a true find: the lowest is one */
            unsigned bits = (unsigned)__builtin_ctzll(special) & ~7u;
            *high = (seen | (word & ((UINT64_C(1) << bits) - 1))) & EACH_BYTE(0x80);
            return at + bits / 8;
        }
        seen |= word;
        at += 8;
    }
    while (at < end && *at != '"' && *at != '\\' && (unsigned char)*at >= 0x20) {
        seen |= (unsigned char)*at++;
    }
    *high = seen & EACH_BYTE(0x80);
    return at;
}

#endif
