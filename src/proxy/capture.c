/*
 * capture: a prefix of each body in blocks that the event takes over, and of a response that was cut the last bytes in a ring: a stream's usage and end are there.
 */
#include "proxy/capture.h"

#include <stdlib.h>

#include "base/memory.h"

bool capture_has_room(const struct memory_budget *budget)
{
    uint64_t used = budget->used;
    return used == 0 || used + CAPTURE_TAIL_SIZE < budget->limit;
}

void capture_begin(struct capture *capture, bool wanted, size_t request_limit, size_t response_limit,
                   struct memory_budget *budget)
{
    *capture = (struct capture){.budget = budget};
    body_init(&capture->request.kept, budget);
    body_init(&capture->response.kept, budget);
    if (budget == NULL || !wanted) {
        capture->withheld = EVENT_WITHHELD_OFF;
    } else if (budget->used >= budget->limit) {
        capture->withheld = EVENT_WITHHELD_MEMORY;
    } else {
        capture->request.limit = request_limit;
        capture->response.limit = response_limit;
    }
}

/* True when all of data was kept, or nothing is to be kept at all. */
static bool keep(struct capture_body *body, struct slice data)
{
    body->bytes += data.size;
    if (body->truncated) {
        return false;
    }
    size_t room = body->limit - body->kept.size;
    struct slice part = {data.data, data.size < room ? data.size : room};
    bool stored = part.size == 0 || body_append(&body->kept, part);
    body->truncated = part.size < data.size || !stored;
    return !body->truncated;
}

static void add_to_tail(struct capture *capture, struct slice data)
{
    if (data.size > CAPTURE_TAIL_SIZE) {
        data = (struct slice){data.data + data.size - CAPTURE_TAIL_SIZE, CAPTURE_TAIL_SIZE};
    }
    size_t first = CAPTURE_TAIL_SIZE - capture->tail_next;
    first = first < data.size ? first : data.size;
    if (data.size > 0) {
        memcpy(capture->tail + capture->tail_next, data.data, first);
        memcpy(capture->tail, data.data + first, data.size - first);
    }
    capture->tail_next = (capture->tail_next + data.size) % CAPTURE_TAIL_SIZE;
    capture->tail_size += data.size;
    if (capture->tail_size > CAPTURE_TAIL_SIZE) {
        capture->tail_size = CAPTURE_TAIL_SIZE;
    }
}

/* The tail may reach back into what was kept. */
static void begin_tail(struct capture *capture)
{
    if (!memory_budget_take(capture->budget, CAPTURE_TAIL_SIZE)) {
        capture->keep_tail = false;
        return;
    }
    capture->tail = xmalloc(CAPTURE_TAIL_SIZE);
    size_t before = capture->response.kept.size;
    for (const struct body_block *block = capture->response.kept.first; block != NULL; block = block->next) {
        before -= block->size;
        if (before < CAPTURE_TAIL_SIZE) {
            add_to_tail(capture, (struct slice){block->data, block->size});
        }
    }
}

void capture_request(struct capture *capture, struct slice data)
{
    keep(&capture->request, data);
}

void capture_response(struct capture *capture, struct slice data)
{
    size_t kept_before = capture->response.kept.size;
    if (keep(&capture->response, data) || !capture->keep_tail || capture->response.limit == 0) {
        return;
    }
    if (capture->tail == NULL) {
        begin_tail(capture);
        size_t kept_now = capture->response.kept.size - kept_before;
        data = (struct slice){data.data + kept_now, data.size - kept_now};
    }
    if (capture->tail != NULL) {
        add_to_tail(capture, data);
    }
}

static void free_tail(struct capture *capture)
{
    if (capture->tail != NULL) {
        free(capture->tail);
        capture->tail = NULL;
        memory_budget_give_back(capture->budget, CAPTURE_TAIL_SIZE);
    }
}

void capture_take_tail(struct capture *capture, struct body *tail)
{
    body_init(tail, capture->budget);
    if (capture->tail == NULL) {
        return;
    }
    size_t begin = (capture->tail_next + CAPTURE_TAIL_SIZE - capture->tail_size) % CAPTURE_TAIL_SIZE;
    size_t first =
        CAPTURE_TAIL_SIZE - begin < capture->tail_size ? CAPTURE_TAIL_SIZE - begin : capture->tail_size;
    bool stored = body_append(tail, (struct slice){capture->tail + begin, first}) &&
                  (first == capture->tail_size ||
                   body_append(tail, (struct slice){capture->tail, capture->tail_size - first}));
    if (!stored) {
        body_free(tail);
        body_init(tail, capture->budget);
    }
    free_tail(capture);
}

void capture_end(struct capture *capture)
{
    body_free(&capture->request.kept);
    body_free(&capture->response.kept);
    free_tail(capture);
}
