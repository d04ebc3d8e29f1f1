/*
 * event: the record of one exchange (struct event_record: libevent has an event of its own). Built once at its end by the worker, immutable from then on, shared by reference count between all subscribers and threads.
 *
 * An event is a flat, versioned, pointer-free block (scalars, headers) and up to three bodies (request, response, response tail) that stay in the very blocks
 * they were captured in. What is published is what a log stores: event_pieces() gives the bytes for one writev, event_decode() makes an event of them again.
 *
 *     flat block: "LPE1" | u32 size of the block | u64 request body | u64 response body | u64 tail | { u16 tag, u16 zero, u32 size, bytes }…
 *     then the bytes of the three bodies, in this order. Integers are little-endian. Unknown tags are skipped.
 *
 * Everything in it is redacted already. No libevent, no Lua, no HTTP parsing here.
 */
#ifndef EVENT_EVENT_H
#define EVENT_EVENT_H

#include <sys/uio.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/slice.h"

/*
 * Body bytes as captured: a chain of blocks, charged to a budget as they are added. Owned by one holder until it moves into an event.
 */
struct body_block {
    struct body_block *next;
    uint32_t size, capacity;
    char data[];
};

struct body {
    struct body_block *first, *last;
    size_t size;                  /* bytes in all blocks */
    size_t charged;               /* what was taken from the budget, block heads included */
    struct memory_budget *budget; /* NULL: not counted */
};

void body_init(struct body *body, struct memory_budget *budget);
/* Copies data to the end. Blocks grow from 1 KiB to 64 KiB. False when the budget is used up: nothing was added. */
bool body_append(struct body *body, struct slice data) __attribute__((warn_unused_result));
void body_free(struct body *body);
/* A copy in one piece, appended to out. */
void body_copy(const struct body *body, struct buffer *out);

enum event_withheld { EVENT_KEPT, EVENT_WITHHELD_OFF, EVENT_WITHHELD_MEMORY };

#define EVENT_NO_TIME UINT64_MAX

/* Everything an event says, as the exchange knows it (building), or as views into the event (reading). Empty slices with NULL data mean null. */
struct event_fields {
    struct slice id; /* UUIDv7 */
    struct slice request_id;
    uint64_t time_us; /* first byte of the request, since 1970 */
    struct slice method, path;
    struct slice query; /* data NULL: no query */
    int status;         /* 0: none was sent */
    uint64_t duration_us;
    uint64_t ttfb_us; /* EVENT_NO_TIME: nothing came from the upstream */
    struct slice client, client_name, route, upstream;
    struct slice credential_kind, credential_fingerprint;
    /* As sent, in order, neither in lower case nor joined; secrets already replaced. */
    const struct name_value *request_headers, *response_headers;
    size_t request_header_count, response_header_count;
    uint64_t request_bytes, response_bytes; /* body bytes that passed */
    bool request_truncated, response_truncated;
    enum event_withheld withheld;
    bool streamed;
    uint64_t chunks;
    struct slice error_kind, error_message;
    struct slice trace_id, span_id;
    struct slice version, instance;
    /* Whether the body was kept at all: an empty body that was kept is "", one that was not (by configuration, for want of memory, or because there was no exchange of bodies) is
     * null. A body with bytes in it counts as kept whatever these say. */
    bool request_kept, response_kept;
    /* The kept body has lost the coding that its headers tell of: an event that was read back from its JSON. */
    bool request_decoded, response_decoded;
};

struct event_record;

/* Takes over the bodies (they are empty afterwards); copies the rest. The tail is the last bytes of a truncated response, whatever part of the body they overlap (see event_view.h). The
 * caller owns the one reference. */
struct event_record *event_record_new(const struct event_fields *fields, struct body *request_body,
                                      struct body *response_body, struct body *response_tail);
struct event_record *event_record_reference(struct event_record *event);
void event_record_release(struct event_record *event); /* NULL is allowed */

/* The views live as long as the event; header arrays as well. */
const struct event_fields *event_get(const struct event_record *event);
const struct body *event_request_body(const struct event_record *event);
const struct body *event_response_body(const struct event_record *event);
const struct body *event_response_tail(const struct event_record *event);
/* What it takes in memory: for queue bounds. */
size_t event_memory(const struct event_record *event);

/* Its serialised form: total size, and the pieces for writev (all of them when max is large enough; returns how many there are). */
size_t event_stored_size(const struct event_record *event);
size_t event_pieces(const struct event_record *event, struct iovec *pieces, size_t max);
/* From stored bytes (copied). NULL and *error for anything malformed; never reads beyond stored. */
struct event_record *event_decode(struct slice stored, struct error *error);

#endif
