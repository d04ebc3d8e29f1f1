/*
 * octets: which bytes may stand where, one table lookup a byte (RFC 9110 5.5, 5.6.2; RFC 9112 7.1.1). Only for src/http/.
 */
#ifndef HTTP_OCTETS_H
#define HTTP_OCTETS_H

#include <stdbool.h>
#include <stdint.h>

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

/* Of a hexadecimal digit. */
static inline unsigned octet_hex_value(char digit)
{
    return digit <= '9' ? (unsigned)(digit - '0') : (unsigned)((digit | 0x20) - 'a' + 10);
}

#endif
