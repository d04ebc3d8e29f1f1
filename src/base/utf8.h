/*
 * utf8: is it UTF-8 (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF), and where does the last whole character end.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "base/slice.h"

/* The length of the longest valid prefix; s.size when all of it is valid. */
size_t utf8_valid_prefix(struct slice s);
static inline bool utf8_valid(struct slice s)
{
    return utf8_valid_prefix(s) == s.size;
}
/* How many bytes at the end are the beginning of a character that is not complete (0 to 3). */
size_t utf8_incomplete_tail(struct slice s);
/* How many bytes at the beginning are the end of a character that began earlier (0 to 3). */
size_t utf8_incomplete_head(struct slice s);
/* Writes the code point's 1 to 4 bytes to out, returns their number. */
size_t utf8_encode(uint32_t code_point, char out[4]);

#endif
