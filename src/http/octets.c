/*
 * octets: the table is computed by the compiler from the rules, so that the rules can be read here.
 */
#include "http/octets.h"

#define IS_DIGIT(c)   ((c) >= '0' && (c) <= '9')
#define IS_LETTER(c)  (((c) | 0x20) >= 'a' && ((c) | 0x20) <= 'z')
#define IS_VISIBLE(c) ((c) > 0x20 && (c) < 0x7f)
#define IS_TOKEN(c)                                                                                          \
    (IS_DIGIT(c) || IS_LETTER(c) || (c) == '!' || (c) == '#' || (c) == '$' || (c) == '%' || (c) == '&' ||    \
     (c) == '\'' || (c) == '*' || (c) == '+' || (c) == '-' || (c) == '.' || (c) == '^' || (c) == '_' ||      \
     (c) == '`' || (c) == '|' || (c) == '~')
#define IS_FIELD(c)  (IS_VISIBLE(c) || (c) == ' ' || (c) == '\t' || (c) >= 0x80)
#define IS_TARGET(c) (IS_VISIBLE(c) && (c) != '#')
#define IS_PATH(c)                                                                                           \
    (IS_TARGET(c) && (c) != '?' && (c) != '"' && (c) != '<' && (c) != '>' && (c) != '\\' && (c) != '`' &&    \
     (c) != '{' && (c) != '}')
#define IS_QUOTED(c) (IS_FIELD(c) && (c) != '"' && (c) != '\\')
#define IS_HEX(c)    (IS_DIGIT(c) || (((c) | 0x20) >= 'a' && ((c) | 0x20) <= 'f'))

#define CLASSES(c)                                                                                           \
    ((IS_TOKEN(c) ? OCTET_TOKEN : 0) | (IS_FIELD(c) ? OCTET_FIELD : 0) | (IS_TARGET(c) ? OCTET_TARGET : 0) | \
     (IS_PATH(c) ? OCTET_PATH : 0) | (IS_QUOTED(c) ? OCTET_QUOTED : 0) | (IS_HEX(c) ? OCTET_HEX : 0) |       \
     (IS_DIGIT(c) ? OCTET_DIGIT : 0))
#define FOUR(c)    CLASSES(c), CLASSES((c) + 1), CLASSES((c) + 2), CLASSES((c) + 3)
#define SIXTEEN(c) FOUR(c), FOUR((c) + 4), FOUR((c) + 8), FOUR((c) + 12)

const uint8_t http_octet_classes[256] = {
    SIXTEEN(0x00), SIXTEEN(0x10), SIXTEEN(0x20), SIXTEEN(0x30), SIXTEEN(0x40), SIXTEEN(0x50),
    SIXTEEN(0x60), SIXTEEN(0x70), SIXTEEN(0x80), SIXTEEN(0x90), SIXTEEN(0xa0), SIXTEEN(0xb0),
    SIXTEEN(0xc0), SIXTEEN(0xd0), SIXTEEN(0xe0), SIXTEEN(0xf0),
};
