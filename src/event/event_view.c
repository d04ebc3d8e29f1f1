/* Views of an event's bodies. Nothing is copied where a body lies in one block and has no coding. */
#include "event/event_view.h"
#include "base/utf8.h"
#include "event/content.h"

/* The value of Content-Encoding in lower case, all lines joined; empty when there is none. */
static struct slice content_coding(const struct name_value *headers, size_t count, struct buffer *storage)
{
    for (size_t i = 0; i < count; i++) {
        if (!slice_equal_nocase(headers[i].name, SLICE("content-encoding")))
            continue;
        if (storage->size > 0)
            buffer_append_string(storage, ", ");
        for (size_t j = 0; j < headers[i].value.size; j++)
            buffer_append_char(storage, ascii_lower(headers[i].value.data[j]));
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
    struct slice coding =
        content_coding(fields->request_headers, fields->request_header_count, &view->request_coding);
    view_body(&view->request, event_request_body(event), fields->request_kept, coding,
              fields->request_truncated || failed, max_decoded, &view->request_storage, &all);
    coding = content_coding(fields->response_headers, fields->response_header_count, &view->response_coding);
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

/* Is there an earlier header of this name? */
static bool came_before(const struct name_value *headers, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (slice_equal_nocase(headers[i].name, headers[index].name))
            return true;
    return false;
}

void event_headers_joined(const struct name_value *headers, size_t count,
                          void (*visit)(void *argument, struct slice name, struct slice value),
                          void *argument)
{
    struct buffer name = {0}, value = {0};
    for (size_t i = 0; i < count; i++) {
        if (came_before(headers, i))
            continue;
        const char *separator = slice_equal_nocase(headers[i].name, SLICE("cookie")) ? "; " : ", ";
        buffer_clear(&name);
        for (size_t j = 0; j < headers[i].name.size; j++)
            buffer_append_char(&name, ascii_lower(headers[i].name.data[j]));
        buffer_clear(&value);
        buffer_append_slice(&value, headers[i].value);
        for (size_t j = i + 1; j < count; j++)
            if (slice_equal_nocase(headers[j].name, headers[i].name)) {
                buffer_append_string(&value, separator);
                buffer_append_slice(&value, headers[j].value);
            }
        visit(argument, buffer_slice(&name), buffer_slice(&value));
    }
    buffer_free(&name);
    buffer_free(&value);
}
