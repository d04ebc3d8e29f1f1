/*
 * event_view: an event's bodies as people read them: content-decoded, cut between whole characters, told apart into text and bytes. Made on the pipeline side, once for each event and
 * pipeline; the basis of both the canonical JSON and the Lua table.
 *
 * text or base64: a body whose bytes (after decoding) are valid UTF-8 is text. A body that was truncated, or belongs to an exchange that failed, may end within a character: then the cut is moved back
 * to the last whole one. A tail begins with a whole character likewise. A body that still has its coding, or is not UTF-8, is base64. A response and its tail are told apart together: both are
 * text, or both are base64.
 */
#ifndef EVENT_EVENT_VIEW_H
#define EVENT_EVENT_VIEW_H

#include "event/event.h"

struct event_body_view {
    bool
        kept; /* false: null (nothing kept, or no body at all was kept by configuration); an empty body that was kept is kept with size 0 */
    struct slice bytes;
    bool text;           /* "utf8", else "base64" */
    struct slice coding; /* the coding bytes still have; data NULL: none */
};

struct event_view {
    const struct event_fields *fields; /* of the event, which must outlive the view */
    struct event_body_view request, response;
    struct event_body_view tail; /* only when the response was truncated and had no content coding */
    struct buffer request_storage, response_storage, tail_storage; /* private */
    struct buffer request_coding, response_coding;                 /* private */
};

/* max_decoded: the setting max_decoded_bytes, for each body. */
void event_view_make(struct event_view *view, const struct event_record *event, size_t max_decoded);
void event_view_free(struct event_view *view);

/*
 * The canonical JSON of docs/events.md, one object without a newline, appended to out. Keys in the documented order, null where there is nothing to say. Header names in lower case, repeated
 * ones joined by ", " (cookie by "; "); order of first appearance.
 */
void event_view_write_json(const struct event_view *view, struct buffer *out);
/* Makes a view, writes, frees it. */
void event_write_json(const struct event_record *event, size_t max_decoded, struct buffer *out);

/* Walks headers joined: calls visit once for each distinct lower-case name with the joined value. Used by the JSON and the Lua form. */
void event_headers_joined(const struct name_value *headers, size_t count,
                          void (*visit)(void *argument, struct slice name, struct slice value),
                          void *argument);

#endif
