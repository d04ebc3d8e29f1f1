/*
 * octets: which bytes may stand where, one table lookup a byte (RFC 9110 5.5, 5.6.2; RFC 9112 7.1.1). Only for src/http/.
 */
#ifndef HTTP_OCTETS_H
#define HTTP_OCTETS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    OCTET_TOKEN = 1 << 0,  /* tchar: methods, field names */
    OCTET_FIELD = 1 << 1,  /* field values, reason phrases: HTAB, SP, VCHAR, obs-text */
    OCTET_TARGET = 1 << 2, /* request-target: VCHAR but '#' */
    OCTET_PATH = 1 << 3,   /* path: VCHAR but '#' '?' and what every client encodes: " < > \ ` { } */
    OCTET_QUOTED = 1 << 4, /* inside a quoted string without escape */
    OCTET_HEX = 1 << 5,
    OCTET_DIGIT = 1 << 6,
};

extern const uint8_t http_octet_classes[256];

static inline bool octet_is(char octet, unsigned class)
{
    return (http_octet_classes[(unsigned char)octet] & class) != 0;
}

static inline bool octet_is_blank(char octet)
{
    return octet == ' ' || octet == '\t';
}

/* The first octet from p on that is not OCTET_FIELD, or end. Eight at a time, as long as all are from 0x20 on and none is DEL: most of a head. */
static inline const char *octets_skip_field(const char *p, const char *end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones * 0x80;
    for (;;) {
        for (; end - p >= 8; p += 8) {
            uint64_t word, del;
            memcpy(&word, p, 8);
            del = word ^ ones * 0x7f;
            if ((((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & high) {
                break;
            }
        }
        for (int i = 0; i < 8; i++, p++) {
            if (p == end || !octet_is(*p, OCTET_FIELD)) {
                return p;
            }
        }
    }
}

/* Of a hexadecimal digit. */
static inline unsigned octet_hex_value(char digit)
{
    return digit <= '9' ? (unsigned)(digit - '0') : (unsigned)((digit | 0x20) - 'a' + 10);
}

#endif
