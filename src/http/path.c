/*
 * path: one pass that decodes in the mind only. A segment is judged at its end or at its first ';', plain or encoded: servers that know path
 * parameters cut them off before they look for dots.
 */
#include "http/head.h"
#include "http/octets.h"

bool http_path_is_safe(struct slice path)
{
    const char *end = path.data + path.size;
    int dots = 0; /* the segment so far is this many dots; -1: it is something else */

    if (path.size == 0 || path.data[0] != '/' || (path.size > 1 && path.data[1] == '/')) {
        return false;
    }
    for (const char *p = path.data + 1; p < end; p++) {
        char c = *p;
        if (!octet_is(c, OCTET_PATH)) {
            return false;
        }
        bool encoded = c == '%';
        if (encoded) {
            if (end - p < 3 || !octet_is(p[1], OCTET_HEX) || !octet_is(p[2], OCTET_HEX)) {
                return false;
            }
            c = (char)(octet_hex_value(p[1]) << 4 | octet_hex_value(p[2]));
            p += 2;
            if (c == '/' || c == '\\' || c == 0) {
                return false;
            }
        }
        if (c == '/' || c == ';') {
            if (dots == 1 || dots == 2) {
                return false;
            }
            dots = c == '/' ? 0 : -1;
        } else if (c != '.') {
            dots = -1;
        } else if (dots >= 0 && dots < 3) {
            dots++;
        }
    }
    return dots != 1 && dots != 2;
}
