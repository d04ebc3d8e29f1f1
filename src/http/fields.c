/*
 * fields: the list is a plain array in the order of arrival. A message has some twenty fields, so looking through them beats any index.
 */
#include "http/fields.h"

#include <stdlib.h>

#include "base/memory.h"
#include "http/octets.h"
#include "http/parse.h"

#define FIRST_CAPACITY 32

void http_fields_add(struct http_fields *fields, struct slice name, struct slice value)
{
    if (fields->count == fields->capacity) {
        fields->capacity = fields->capacity > 0 ? fields->capacity * 2 : FIRST_CAPACITY;
        fields->items = xrealloc(fields->items, fields->capacity * sizeof(*fields->items));
    }
    fields->items[fields->count++] = (struct name_value){name, value};
}

void http_fields_free(struct http_fields *fields)
{
    free(fields->items);
    *fields = (struct http_fields){0};
}

/* For names, which are never empty: the size and the last letter tell most of them apart without a call. */
static inline bool is_same_name(struct slice a, struct slice b)
{
    return a.size == b.size && a.size > 0 && ((a.data[a.size - 1] ^ b.data[a.size - 1]) & ~0x20) == 0 &&
           slice_equal_nocase(a, b);
}

/* The next field of this name from *index on, and the index behind it. */
static const struct name_value *find_next(const struct http_fields *fields, struct slice name, size_t *index)
{
    while (*index < fields->count) {
        const struct name_value *field = &fields->items[(*index)++];
        if (is_same_name(field->name, name)) {
            return field;
        }
    }
    return NULL;
}

const struct name_value *http_fields_find(const struct http_fields *fields, struct slice name)
{
    size_t index = 0;
    return find_next(fields, name, &index);
}

size_t http_fields_count(const struct http_fields *fields, struct slice name)
{
    size_t index = 0, count = 0;
    while (find_next(fields, name, &index) != NULL) {
        count++;
    }
    return count;
}

bool http_list_next(struct slice *rest, struct slice *member)
{
    while (rest->size > 0) {
        bool quoted = false;
        size_t i = 0;
        for (; i < rest->size && (quoted || rest->data[i] != ','); i++) {
            if (rest->data[i] == '"') {
                quoted = !quoted;
            } else if (quoted && rest->data[i] == '\\' && i + 1 < rest->size) {
                i++;
            }
        }
        *member = slice_trim((struct slice){rest->data, i});
        size_t used = i < rest->size ? i + 1 : i;
        *rest = (struct slice){rest->data + used, rest->size - used};
        if (member->size > 0) {
            return true;
        }
    }
    return false;
}

/* A list member without its parameters. */
static struct slice without_parameters(struct slice member)
{
    const char *semicolon = memchr(member.data, ';', member.size);
    return semicolon != NULL ? slice_trim(slice_range(member.data, semicolon)) : member;
}

bool http_fields_has_member(const struct http_fields *fields, struct slice name, struct slice member)
{
    size_t index = 0;
    const struct name_value *field;
    while ((field = find_next(fields, name, &index)) != NULL) {
        struct slice rest = field->value, found;
        while (rest.size >= member.size && http_list_next(&rest, &found)) {
            if (slice_equal_nocase(without_parameters(found), member)) {
                return true;
            }
        }
    }
    return false;
}

static bool is_one_of(struct slice name, const struct slice *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_same_name(names[i], name)) {
            return true;
        }
    }
    return false;
}

bool http_field_is_connection_bound(struct slice name)
{
    static const struct slice names[] = {
        {"connection", 10},
        {"keep-alive", 10},
        {"proxy-connection", 16},
        {"te", 2},
        {"trailer", 7},
        {"transfer-encoding", 17},
        {"upgrade", 7},
        {"http2-settings", 14},
        {"proxy-authenticate", 18},
        {"proxy-authorization", 19},
        {"proxy-authentication-info", 25},
        {"close", 5},
    };
    return is_one_of(name, names, sizeof(names) / sizeof(names[0]));
}

bool http_field_is_protected(struct slice name)
{
    static const struct slice names[] = {
        {"host", 4},      {"content-length", 14}, {"authorization", 13},  {"cookie", 6}, {"x-request-id", 12},
        {"x-api-key", 9}, {"api-key", 7},         {"x-goog-api-key", 14}, {"via", 3},    {"forwarded", 9},
    };
    static const struct slice forwarded = {"x-forwarded-", 12};
    return is_one_of(name, names, sizeof(names) / sizeof(names[0])) ||
           (name.size > forwarded.size &&
            slice_equal_nocase((struct slice){name.data, forwarded.size}, forwarded));
}

bool http_fields_is_hop_by_hop(const struct http_fields *fields, struct slice name)
{
    return http_field_is_connection_bound(name) ||
           (http_fields_has_member(fields, SLICE("connection"), name) && !http_field_is_protected(name));
}

bool http_is_token(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (!octet_is(s.data[i], OCTET_TOKEN)) {
            return false;
        }
    }
    return s.size > 0;
}

bool http_is_field_value(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (!octet_is(s.data[i], OCTET_FIELD)) {
            return false;
        }
    }
    return true;
}
