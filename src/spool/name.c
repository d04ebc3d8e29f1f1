/* See name.h. */
#include "spool/name.h"

static bool is_plain(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

void name_encode(struct slice name, struct buffer *out)
{
    for (size_t i = 0; i < name.size; i++) {
        if (is_plain(name.data[i]))
            buffer_append_char(out, name.data[i]);
        else
            buffer_printf(out, "%%%02X", (unsigned char)name.data[i]);
    }
}

char *name_decode(struct slice encoded)
{
    struct buffer name = {0};
    for (size_t i = 0; i < encoded.size; i++) {
        int high, low;
        if (is_plain(encoded.data[i])) {
            buffer_append_char(&name, encoded.data[i]);
        } else if (encoded.data[i] == '%' && encoded.size - i > 2 &&
                   (high = ascii_hex_value(encoded.data[i + 1])) >= 0 &&
                   (low = ascii_hex_value(encoded.data[i + 2])) >= 0 && high + low > 0) {
            buffer_append_char(&name, (char)(high * 16 + low));
            i += 2;
        } else {
            buffer_free(&name);
            return NULL;
        }
    }
    if (name.size == 0)
        return NULL;
    return buffer_take_string(&name);
}
