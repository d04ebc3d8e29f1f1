/* Unknown tags are skipped, so that a field can be added. */
#include "spool/letter.h"

#include "base/little_endian.h"

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
    little_endian_put32(buffer_data(out) + before + strlen(MAGIC), (uint32_t)(out->size - before));
}

static bool get_number(struct slice value, uint64_t *number)
{
    if (value.size != sizeof *number)
        return false;
    *number = little_endian_get64(value.data);
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
    size_t head = little_endian_get32(stored.data + strlen(MAGIC)), at = PREFIX_SIZE;
    if (head < PREFIX_SIZE || head > stored.size)
        return false;
    while (at < head) {
        if (head - at < FIELD_HEAD_SIZE)
            return false;
        uint32_t tag = little_endian_get32(stored.data + at),
                 size = little_endian_get32(stored.data + at + 4);
        at += FIELD_HEAD_SIZE;
        if (size > head - at || !set_field(letter, (uint16_t)tag, (struct slice){stored.data + at, size}))
            return false;
        at += size;
    }
    letter->event = event_decode((struct slice){stored.data + head, stored.size - head}, &error);
    return letter->event != NULL;
}
