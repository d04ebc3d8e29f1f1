/*
 * The record of one exchange: one allocation holds the struct, the header views and the flat block. A new event is written and then read back by the code that reads
 * stored ones, so that what is published and what is stored cannot differ.
 *
 * The two tables are the format: writing, measuring and reading walk the same lines.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/little_endian.h"
#include "base/reference.h"
#include "event/event.h"

#define MAGIC            "LPE1"
#define PREFIX_SIZE      32u /* magic, size of the block, sizes of three bodies */
#define FIELD_HEAD_SIZE  8u
#define NUMBER_SIZE      8u
#define HEADER_NAME_SIZE 4u /* a header's value in the block: u32 size of the name | name | value */
#define LARGEST_STATUS   999u

/* Tags are for ever: a new field takes the next free one, one that is no longer written keeps its own. */
enum {
    TAG_REQUEST_HEADER = 1,
    TAG_RESPONSE_HEADER = 2,
    TAG_STATUS = 3,
    TAG_WITHHELD = 4,
    TAG_FLAGS = 5,
    TAG_FIRST_TEXT = 16,
    TAG_FIRST_NUMBER = 48,
    TAG_END = 64
};

/* Fields of struct event_fields by tag, counted from TAG_FIRST_TEXT. */
static const size_t text_offsets[] = {
    offsetof(struct event_fields, id),
    offsetof(struct event_fields, request_id),
    offsetof(struct event_fields, method),
    offsetof(struct event_fields, path),
    offsetof(struct event_fields, query),
    offsetof(struct event_fields, client),
    offsetof(struct event_fields, client_name),
    offsetof(struct event_fields, route),
    offsetof(struct event_fields, upstream),
    offsetof(struct event_fields, credential_kind),
    offsetof(struct event_fields, credential_fingerprint),
    offsetof(struct event_fields, error_kind),
    offsetof(struct event_fields, error_message),
    offsetof(struct event_fields, trace_id),
    offsetof(struct event_fields, span_id),
    offsetof(struct event_fields, version),
    offsetof(struct event_fields, instance),
};
/* The same, counted from TAG_FIRST_NUMBER. */
static const size_t number_offsets[] = {
    offsetof(struct event_fields, time_us),        offsetof(struct event_fields, duration_us),
    offsetof(struct event_fields, ttfb_us),        offsetof(struct event_fields, request_bytes),
    offsetof(struct event_fields, response_bytes), offsetof(struct event_fields, chunks),
};
#define TEXT_COUNT   (sizeof text_offsets / sizeof text_offsets[0])
#define NUMBER_COUNT (sizeof number_offsets / sizeof number_offsets[0])
static_assert(TAG_FIRST_TEXT + TEXT_COUNT <= TAG_FIRST_NUMBER && TAG_FIRST_NUMBER + NUMBER_COUNT <= TAG_END,
              "tags must not overlap");

enum {
    FLAG_REQUEST_TRUNCATED = 1,
    FLAG_RESPONSE_TRUNCATED = 2,
    FLAG_STREAMED = 4,
    FLAG_REQUEST_KEPT = 8,
    FLAG_RESPONSE_KEPT = 16,
    FLAG_REQUEST_DECODED = 32,
    FLAG_RESPONSE_DECODED = 64
};

struct event_record {
    struct reference references;
    struct event_fields fields; /* views into the flat block */
    struct body request, response, tail;
    size_t flat_size;
    const char *flat;
    struct name_value headers[]; /* the request's, then the response's; the flat block behind them */
};

static struct slice *text_at(struct event_fields *fields, size_t index)
{
    return (struct slice *)(void *)((char *)fields + text_offsets[index]);
}

static uint64_t *number_at(struct event_fields *fields, size_t index)
{
    return (uint64_t *)(void *)((char *)fields + number_offsets[index]);
}

/* ---- writing ---- */

static char *put_bytes(char *at, const void *data, size_t size)
{
    if (size > 0)
        memcpy(at, data, size);
    return at + size;
}

static char *put_u16(char *at, uint16_t number)
{
    number = htole16(number);
    return put_bytes(at, &number, sizeof number);
}

static char *put_u32(char *at, size_t number)
{
    assert(number <= UINT32_MAX);
    uint32_t stored = htole32((uint32_t)number);
    return put_bytes(at, &stored, sizeof stored);
}

static char *put_u64(char *at, uint64_t number)
{
    number = htole64(number);
    return put_bytes(at, &number, sizeof number);
}

static char *put_field_head(char *at, size_t tag, size_t size)
{
    at = put_u16(at, (uint16_t)tag);
    at = put_u16(at, 0);
    return put_u32(at, size);
}

static char *put_number(char *at, size_t tag, uint64_t number)
{
    at = put_field_head(at, tag, NUMBER_SIZE);
    return put_u64(at, number);
}

static char *put_headers(char *at, size_t tag, const struct name_value *headers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        at = put_field_head(at, tag, HEADER_NAME_SIZE + headers[i].name.size + headers[i].value.size);
        at = put_u32(at, headers[i].name.size);
        at = put_bytes(at, headers[i].name.data, headers[i].name.size);
        at = put_bytes(at, headers[i].value.data, headers[i].value.size);
    }
    return at;
}

static size_t headers_size(const struct name_value *headers, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += FIELD_HEAD_SIZE + HEADER_NAME_SIZE + headers[i].name.size + headers[i].value.size;
    return size;
}

static size_t flat_size_of(struct event_fields *fields)
{
    size_t size = PREFIX_SIZE + (3 + NUMBER_COUNT) * (FIELD_HEAD_SIZE + NUMBER_SIZE);
    for (size_t i = 0; i < TEXT_COUNT; i++) {
        const struct slice *text = text_at(fields, i);
        if (text->data != NULL)
            size += FIELD_HEAD_SIZE + text->size;
    }
    return size + headers_size(fields->request_headers, fields->request_header_count) +
           headers_size(fields->response_headers, fields->response_header_count);
}

static uint64_t flags_of(const struct event_fields *fields)
{
    return (fields->request_truncated ? FLAG_REQUEST_TRUNCATED : 0u) |
           (fields->response_truncated ? FLAG_RESPONSE_TRUNCATED : 0u) |
           (fields->streamed ? FLAG_STREAMED : 0u) | (fields->request_kept ? FLAG_REQUEST_KEPT : 0u) |
           (fields->response_kept ? FLAG_RESPONSE_KEPT : 0u) |
           (fields->request_decoded ? FLAG_REQUEST_DECODED : 0u) |
           (fields->response_decoded ? FLAG_RESPONSE_DECODED : 0u);
}

static char *put_flat(char *at, struct event_fields *fields, size_t size, const struct event_record *event)
{
    at = put_bytes(at, MAGIC, 4);
    at = put_u32(at, size);
    at = put_u64(at, event->request.size);
    at = put_u64(at, event->response.size);
    at = put_u64(at, event->tail.size);
    for (size_t i = 0; i < TEXT_COUNT; i++) {
        const struct slice *text = text_at(fields, i);
        if (text->data == NULL)
            continue;
        at = put_field_head(at, TAG_FIRST_TEXT + i, text->size);
        at = put_bytes(at, text->data, text->size);
    }
    for (size_t i = 0; i < NUMBER_COUNT; i++)
        at = put_number(at, TAG_FIRST_NUMBER + i, *number_at(fields, i));
    at = put_number(at, TAG_STATUS, (uint64_t)fields->status);
    at = put_number(at, TAG_WITHHELD, (uint64_t)fields->withheld);
    at = put_number(at, TAG_FLAGS, flags_of(fields));
    at = put_headers(at, TAG_REQUEST_HEADER, fields->request_headers, fields->request_header_count);
    return put_headers(at, TAG_RESPONSE_HEADER, fields->response_headers, fields->response_header_count);
}

/* ---- reading ---- */

/* Takes one field off *rest, which is not empty. False when it is not all there. */
static bool get_field(struct slice *rest, uint16_t *tag, struct slice *value)
{
    if (rest->size < FIELD_HEAD_SIZE || little_endian_get16(rest->data + 2) != 0)
        return false;
    *tag = little_endian_get16(rest->data);
    *value = (struct slice){rest->data + FIELD_HEAD_SIZE, little_endian_get32(rest->data + 4)};
    if (value->size > rest->size - FIELD_HEAD_SIZE)
        return false;
    *rest = (struct slice){value->data + value->size, rest->size - FIELD_HEAD_SIZE - value->size};
    return true;
}

static bool get_header(struct slice value, struct name_value *header)
{
    if (value.size < HEADER_NAME_SIZE)
        return false;
    size_t name_size = little_endian_get32(value.data);
    if (name_size > value.size - HEADER_NAME_SIZE)
        return false;
    header->name = (struct slice){value.data + HEADER_NAME_SIZE, name_size};
    header->value = (struct slice){header->name.data + name_size, value.size - HEADER_NAME_SIZE - name_size};
    return true;
}

static bool set_number(struct event_fields *fields, uint16_t tag, uint64_t number)
{
    if (tag == TAG_STATUS) {
        fields->status = (int)number;
        return number <= LARGEST_STATUS;
    }
    if (tag == TAG_WITHHELD) {
        fields->withheld = (enum event_withheld)number;
        return number <= EVENT_WITHHELD_MEMORY;
    }
    if (tag == TAG_FLAGS) {
        fields->request_truncated = number & FLAG_REQUEST_TRUNCATED;
        fields->response_truncated = number & FLAG_RESPONSE_TRUNCATED;
        fields->streamed = number & FLAG_STREAMED;
        fields->request_kept = number & FLAG_REQUEST_KEPT;
        fields->response_kept = number & FLAG_RESPONSE_KEPT;
        fields->request_decoded = number & FLAG_REQUEST_DECODED;
        fields->response_decoded = number & FLAG_RESPONSE_DECODED;
        return true;
    }
    *number_at(fields, (size_t)tag - TAG_FIRST_NUMBER) = number;
    return true;
}

static bool is_number(uint16_t tag)
{
    return (tag >= TAG_STATUS && tag <= TAG_FLAGS) ||
           (tag >= TAG_FIRST_NUMBER && tag < TAG_FIRST_NUMBER + NUMBER_COUNT);
}

static bool is_text(uint16_t tag)
{
    return tag >= TAG_FIRST_TEXT && tag < TAG_FIRST_TEXT + TEXT_COUNT;
}

static struct slice fields_of(const char *flat, size_t size)
{
    return (struct slice){flat + PREFIX_SIZE, size - PREFIX_SIZE};
}

/* How many headers the block has; false when the fields do not fill it exactly. */
static bool count_headers(struct slice rest, size_t *request, size_t *response)
{
    *request = *response = 0;
    while (rest.size > 0) {
        uint16_t tag;
        struct slice value;
        if (!get_field(&rest, &tag, &value))
            return false;
        *request += tag == TAG_REQUEST_HEADER;
        *response += tag == TAG_RESPONSE_HEADER;
    }
    return true;
}

/* Makes the views; the header array has the room. */
static bool read_flat(struct event_record *event, size_t request_headers)
{
    struct event_fields *fields = &event->fields;
    struct name_value *next_request = event->headers, *next_response = event->headers + request_headers;
    *fields = (struct event_fields){
        .ttfb_us = EVENT_NO_TIME, .request_headers = next_request, .response_headers = next_response};
    struct slice rest = fields_of(event->flat, event->flat_size);
    uint64_t seen = 0;
    while (rest.size > 0) {
        uint16_t tag;
        struct slice value;
        if (!get_field(&rest, &tag, &value))
            return false;
        if (tag == TAG_REQUEST_HEADER || tag == TAG_RESPONSE_HEADER) {
            if (!get_header(value, tag == TAG_REQUEST_HEADER ? next_request++ : next_response++))
                return false;
            continue;
        }
        if (!is_text(tag) && !is_number(tag))
            continue;
        if (seen & UINT64_C(1) << tag)
            return false;
        seen |= UINT64_C(1) << tag;
        if (is_text(tag))
            *text_at(fields, (size_t)tag - TAG_FIRST_TEXT) = value;
        else if (value.size != NUMBER_SIZE || !set_number(fields, tag, little_endian_get64(value.data)))
            return false;
    }
    fields->request_header_count = (size_t)(next_request - fields->request_headers);
    fields->response_header_count = (size_t)(next_response - fields->response_headers);
    return fields->id.size > 0;
}

/* ---- events ---- */

static struct event_record *allocate(size_t header_count, size_t flat_size)
{
    struct event_record *event = xmalloc(sizeof *event + header_count * sizeof event->headers[0] + flat_size);
    reference_init(&event->references);
    event->flat_size = flat_size;
    event->flat = (const char *)&event->headers[header_count];
    return event;
}

static struct body move_body(struct body *body)
{
    struct body moved;
    body_init(&moved, NULL);
    if (body != NULL) {
        moved = *body;
        body_init(body, body->budget);
    }
    return moved;
}

struct event_record *event_record_new(const struct event_fields *fields, struct body *request_body,
                                      struct body *response_body, struct body *response_tail)
{
    assert(fields->id.size > 0 && fields->status >= 0 && fields->status <= (int)LARGEST_STATUS);
    struct event_fields copied = *fields;
    size_t header_count = copied.request_header_count + copied.response_header_count;
    struct event_record *event = allocate(header_count, flat_size_of(&copied));
    event->request = move_body(request_body);
    event->response = move_body(response_body);
    event->tail = move_body(response_tail);
    copied.request_kept |= event->request.size > 0;
    copied.response_kept |= event->response.size > 0;
    char *flat = (char *)&event->headers[header_count];
    char *end = put_flat(flat, &copied, event->flat_size, event);
    bool read = read_flat(event, copied.request_header_count);
    assert(read && end == flat + event->flat_size);
    (void)read;
    (void)end;
    return event;
}

struct event_record *event_record_reference(struct event_record *event)
{
    reference_take(&event->references);
    return event;
}

void event_record_release(struct event_record *event)
{
    if (event == NULL || !reference_release(&event->references))
        return;
    body_free(&event->request);
    body_free(&event->response);
    body_free(&event->tail);
    free(event);
}

const struct event_fields *event_get(const struct event_record *event)
{
    return &event->fields;
}

const struct body *event_request_body(const struct event_record *event)
{
    return &event->request;
}

const struct body *event_response_body(const struct event_record *event)
{
    return &event->response;
}

const struct body *event_response_tail(const struct event_record *event)
{
    return &event->tail;
}

size_t event_memory(const struct event_record *event)
{
    size_t header_count = event->fields.request_header_count + event->fields.response_header_count;
    return sizeof *event + header_count * sizeof event->headers[0] + event->flat_size +
           event->request.charged + event->response.charged + event->tail.charged;
}

/* ---- stored form ---- */

size_t event_stored_size(const struct event_record *event)
{
    return event->flat_size + event->request.size + event->response.size + event->tail.size;
}

static size_t body_pieces(const struct body *body, struct iovec *pieces, size_t max, size_t count)
{
    for (const struct body_block *block = body->first; block != NULL; block = block->next) {
        if (count < max)
            pieces[count] = (struct iovec){(void *)(uintptr_t)block->data, block->size};
        count++;
    }
    return count;
}

size_t event_pieces(const struct event_record *event, struct iovec *pieces, size_t max)
{
    if (max > 0)
        pieces[0] = (struct iovec){(void *)(uintptr_t)event->flat, event->flat_size};
    size_t count = body_pieces(&event->request, pieces, max, 1);
    count = body_pieces(&event->response, pieces, max, count);
    return body_pieces(&event->tail, pieces, max, count);
}

/* Takes size bytes off *rest; false when there are fewer. */
static bool take_bytes(struct slice *rest, uint64_t size, struct slice *taken)
{
    if (size > rest->size)
        return false;
    *taken = (struct slice){rest->data, (size_t)size};
    *rest = (struct slice){rest->data + size, rest->size - (size_t)size};
    return true;
}

static struct body body_of(struct slice bytes)
{
    struct body body;
    body_init(&body, NULL);
    bool appended = body_append(&body, bytes);
    assert(appended);
    (void)appended;
    return body;
}

struct event_record *event_decode(struct slice stored, struct error *error)
{
    if (stored.size < PREFIX_SIZE || memcmp(stored.data, MAGIC, 4) != 0) {
        error_set(error, "not an event");
        return NULL;
    }
    struct slice rest = stored, flat, request, response, tail;
    uint32_t flat_size = little_endian_get32(stored.data + 4);
    if (flat_size < PREFIX_SIZE || !take_bytes(&rest, flat_size, &flat) ||
        !take_bytes(&rest, little_endian_get64(stored.data + 8), &request) ||
        !take_bytes(&rest, little_endian_get64(stored.data + 16), &response) ||
        !take_bytes(&rest, little_endian_get64(stored.data + 24), &tail) || rest.size > 0) {
        error_set(error, "event: its sizes do not add up to the %zu bytes there are", stored.size);
        return NULL;
    }
    size_t request_headers, response_headers;
    if (!count_headers(fields_of(flat.data, flat.size), &request_headers, &response_headers)) {
        error_set(error, "event: a field does not fit into its block");
        return NULL;
    }
    struct event_record *event = allocate(request_headers + response_headers, flat.size);
    memcpy(&event->headers[request_headers + response_headers], flat.data, flat.size);
    event->request = body_of(request);
    event->response = body_of(response);
    event->tail = body_of(tail);
    if (!read_flat(event, request_headers)) {
        error_set(error, "event: a field is missing, repeated or has an impossible value");
        event_record_release(event);
        return NULL;
    }
    event->fields.request_kept |= event->request.size > 0;
    event->fields.response_kept |= event->response.size > 0;
    return event;
}
