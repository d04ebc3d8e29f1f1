/* Unknown tags are skipped, so that a field can be added. */
#include "spool/letter.h"

#include <endian.h>
#include <stdlib.h>

#include "base/memory.h"

#define MAGIC           "LPD1"
#define PREFIX_SIZE     8u /* magic, size of the head with it */
#define FIELD_HEAD_SIZE 8u

/* Tags are for ever. */
enum { TAG_REASON = 1, TAG_ERROR = 2, TAG_WHERE = 3, TAG_TRIES = 4, TAG_FIRST = 5, TAG_LAST = 6 };

static void put_u32(struct buffer *out, size_t number)
{
    uint32_t stored = htole32((uint32_t)number);
    buffer_append(out, &stored, sizeof stored);
}

static void put_field(struct buffer *out, uint16_t tag, const void *data, size_t size)
{
    uint16_t stored[2] = {htole16(tag), 0};
    buffer_append(out, stored, sizeof stored);
    put_u32(out, size);
    buffer_append(out, data, size);
}

static void put_number(struct buffer *out, uint16_t tag, uint64_t number)
{
    number = htole64(number);
    put_field(out, tag, &number, sizeof number);
}

void letter_encode_head(const struct dead_letter *letter, struct buffer *out)
{
    size_t before = out->size;
    buffer_append(out, MAGIC "\0\0\0\0", PREFIX_SIZE);
    put_field(out, TAG_REASON, letter->reason.data, letter->reason.size);
    put_field(out, TAG_ERROR, letter->error.data, letter->error.size);
    put_field(out, TAG_WHERE, letter->where.data, letter->where.size);
    put_number(out, TAG_TRIES, letter->tries);
    put_number(out, TAG_FIRST, letter->first_us);
    put_number(out, TAG_LAST, letter->last_us);
    uint32_t size = htole32((uint32_t)(out->size - before));
    memcpy(buffer_data(out) + before + strlen(MAGIC), &size, sizeof size);
}

static uint32_t get_u32(const char *at)
{
    uint32_t number;
    memcpy(&number, at, sizeof number);
    return le32toh(number);
}

static bool get_number(struct slice value, uint64_t *number)
{
    if (value.size != sizeof *number)
        return false;
    memcpy(number, value.data, sizeof *number);
    *number = le64toh(*number);
    return true;
}

static bool set_field(struct dead_letter *letter, uint16_t tag, struct slice value)
{
    uint64_t tries;
    switch (tag) {
    case TAG_REASON:
        letter->reason = value;
        return true;
    case TAG_ERROR:
        letter->error = value;
        return true;
    case TAG_WHERE:
        letter->where = value;
        return true;
    case TAG_TRIES:
        if (!get_number(value, &tries) || tries > UINT32_MAX)
            return false;
        letter->tries = (uint32_t)tries;
        return true;
    case TAG_FIRST:
        return get_number(value, &letter->first_us);
    case TAG_LAST:
        return get_number(value, &letter->last_us);
    default:
        return true;
    }
}

bool letter_decode(struct slice stored, struct dead_letter *letter)
{
    struct error error;
    *letter = (struct dead_letter){0};
    if (stored.size < PREFIX_SIZE || memcmp(stored.data, MAGIC, strlen(MAGIC)) != 0)
        return false;
    size_t head = get_u32(stored.data + strlen(MAGIC)), at = PREFIX_SIZE;
    if (head < PREFIX_SIZE || head > stored.size)
        return false;
    while (at < head) {
        if (head - at < FIELD_HEAD_SIZE)
            return false;
        uint32_t tag = get_u32(stored.data + at), size = get_u32(stored.data + at + 4);
        at += FIELD_HEAD_SIZE;
        if (size > head - at || !set_field(letter, (uint16_t)tag, (struct slice){stored.data + at, size}))
            return false;
        at += size;
    }
    letter->event = event_decode((struct slice){stored.data + head, stored.size - head}, &error);
    return letter->event != NULL;
}

static bool is_plain(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

void letter_encode_name(struct slice name, struct buffer *out)
{
    for (size_t i = 0; i < name.size; i++) {
        if (is_plain(name.data[i]))
            buffer_append_char(out, name.data[i]);
        else
            buffer_printf(out, "%%%02X", (unsigned char)name.data[i]);
    }
}

char *letter_decode_name(struct slice encoded)
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
