/*
 * event_table: an event as Lua code sees it, a plain table with the keys of the canonical JSON, and that table as canonical JSON again, whatever a transform did to it.
 *
 * In the table bodies are bytes (already content-decoded), nil stands for null, and texts are UTF-8. Encoded it is what event_view_write_json() writes: the documented keys first and in their order, null where
 * one is missing, then all others, sorted. A table that was not touched gives the same bytes.
 */
#ifndef PIPELINE_EVENT_TABLE_H
#define PIPELINE_EVENT_TABLE_H

#include <lua.h>

#include "event/event_view.h"

/* Places for bytes while Lua runs, which may leave by an error. One for each state, all zero to begin with. */
struct event_scratch {
    struct buffer text, headers, names;
};

void event_scratch_free(struct event_scratch *scratch);

/* Pushes a new table. Raises only when Lua's memory runs out. */
void event_table_push(lua_State *lua, const struct event_view *view, struct event_scratch *scratch);

/*
 * Appends the table at index. event tells the order of its headers; NULL: they are sorted. A body is text or base64 by what its bytes are now; one that is no string any more is written as the JSON value it is, with the
 * encoding null. False: nothing is appended, *error names the key. Raises only when Lua's memory runs out.
 */
bool event_table_encode(lua_State *lua, int index, const struct event_record *event,
                        struct event_scratch *scratch, struct buffer *out, struct error *error);

/* Headers joined by name in scratch->headers, in UTF-8: event_headers_joined() itself would leak when its visitor raises. */
void event_table_collect_headers(const struct name_value *headers, size_t count,
                                 struct event_scratch *scratch);
/* Cuts the first one off *rest (of scratch->headers); false at the end. */
bool event_table_next_header(struct slice *rest, struct name_value *header);

#endif
