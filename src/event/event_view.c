/* Views of an event's bodies. Nothing is copied where a body lies in one block and has no coding. */
#include "event/event_view.h"
#include "base/utf8.h"
#include "event/content.h"

static void append_lower(struct buffer *out, struct slice text)
{
    char *room = buffer_reserve(out, text.size);
    for (size_t i = 0; i < text.size; i++)
        room[i] = ascii_lower(text.data[i]);
    buffer_commit(out, text.size);
}

/* The value of Content-Encoding in lower case, all lines joined; empty when there is none. */
static struct slice content_coding(const struct name_value *headers, size_t count, struct buffer *storage)
{
    for (size_t i = 0; i < count; i++) {
        if (!slice_equal_nocase(headers[i].name, SLICE("content-encoding")))
            continue;
        if (storage->size > 0)
            buffer_append_string(storage, ", ");
        append_lower(storage, headers[i].value);
    }
    return buffer_slice(storage);
}

/* The bytes in one piece. */
static struct slice body_in_one(const struct body *body, struct buffer *storage)
{
    if (body->first == NULL)
        return SLICE("");
    if (body->first->next == NULL)
        return (struct slice){body->first->data, body->first->size};
    body_copy(body, storage);
    return buffer_slice(storage);
}

static struct slice without_tail(struct slice bytes)
{
    return (struct slice){bytes.data, bytes.size - utf8_incomplete_tail(bytes)};
}

static struct slice without_head(struct slice bytes)
{
    size_t head = utf8_incomplete_head(bytes);
    return (struct slice){bytes.data + head, bytes.size - head};
}

/* cut: the bytes may end early. Returns whether a coding was, or should have been, undone. */
static bool view_body(struct event_body_view *view, const struct body *body, bool kept, struct slice coding,
                      bool cut, size_t max_decoded, struct buffer *storage, struct slice *all)
{
    *view = (struct event_body_view){.kept = kept};
    if (!kept)
        return false;
    /* Without a byte there is nothing that could have a coding: the answer to HEAD, a 304. */
    enum content_result result =
        body->size > 0 ? content_decode(body, coding, cut, max_decoded, storage) : CONTENT_PLAIN;
    *all = result == CONTENT_DECODED ? buffer_slice(storage) : body_in_one(body, storage);
    if (all->data == NULL)
        *all = SLICE("");
    struct slice text = cut ? without_tail(*all) : *all;
    if (result == CONTENT_KEPT)
        view->coding = coding;
    view->text = result != CONTENT_KEPT && utf8_valid(text);
    view->bytes = view->text ? text : *all;
    return result != CONTENT_PLAIN;
}

void event_view_make(struct event_view *view, const struct event_record *event, size_t max_decoded)
{
    const struct event_fields *fields = event_get(event);
    *view = (struct event_view){.fields = fields};
    bool failed = fields->error_kind.data != NULL;
    struct slice all = {NULL, 0};
    struct slice coding = SLICE("");
    if (!fields->request_decoded)
        coding = content_coding(fields->request_headers, fields->request_header_count, &view->request_coding);
    view_body(&view->request, event_request_body(event), fields->request_kept, coding,
              fields->request_truncated || failed, max_decoded, &view->request_storage, &all);
    coding = SLICE("");
    if (!fields->response_decoded)
        coding =
            content_coding(fields->response_headers, fields->response_header_count, &view->response_coding);
    bool coded = view_body(&view->response, event_response_body(event), fields->response_kept, coding,
                           fields->response_truncated || failed, max_decoded, &view->response_storage, &all);

    const struct body *tail = event_response_tail(event);
    if (!view->response.kept || !fields->response_truncated || coded || tail->size == 0)
        return;
    struct slice tail_all = body_in_one(tail, &view->tail_storage);
    struct slice tail_text = without_head(tail_all);
    if (failed)
        tail_text = without_tail(tail_text);
    bool text = view->response.text && utf8_valid(tail_text);
    view->tail = (struct event_body_view){.kept = true, .text = text, .bytes = text ? tail_text : tail_all};
    if (!text && view->response.text) {
        view->response.text = false;
        view->response.bytes = all;
    }
}

void event_view_free(struct event_view *view)
{
    buffer_free(&view->request_storage);
    buffer_free(&view->response_storage);
    buffer_free(&view->tail_storage);
    buffer_free(&view->request_coding);
    buffer_free(&view->response_coding);
}

/* The first header at or behind from that has this name; count when there is none. */
static size_t find_name(const struct name_value *headers, size_t from, size_t count, struct slice name)
{
    while (from < count && !slice_equal_nocase(headers[from].name, name))
        from++;
    return from;
}

void event_headers_joined(const struct name_value *headers, size_t count,
                          void (*visit)(void *argument, struct slice name, struct slice value),
                          void *argument)
{
    struct buffer lower = {0}, joined = {0};
    for (size_t i = 0; i < count; i++) {
        struct slice name = headers[i].name, value = headers[i].value;
        if (find_name(headers, 0, i, name) < i)
            continue;
        const char *separator = slice_equal_nocase(name, SLICE("cookie")) ? "; " : ", ";
        buffer_clear(&joined);
        for (size_t j = i; (j = find_name(headers, j + 1, count, name)) < count;) {
            if (joined.size == 0)
                buffer_append_slice(&joined, headers[i].value);
            buffer_append_string(&joined, separator);
            buffer_append_slice(&joined, headers[j].value);
            value = buffer_slice(&joined);
        }
        buffer_clear(&lower);
        append_lower(&lower, name);
        visit(argument, buffer_slice(&lower), value);
    }
    buffer_free(&lower);
    buffer_free(&joined);
}
