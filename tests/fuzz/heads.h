/* heads: what the harnesses of request and response heads have in common. */
#ifndef TEST_FUZZ_HEADS_H
#define TEST_FUZZ_HEADS_H

#include "fuzz.h"
#include "http/head.h"

/* Small enough to be met by short inputs, and those of a proxy as it comes. */
static const struct http_limits fuzz_limits[] = {
    {.max_head_bytes = 300, .max_headers = 4, .max_target_bytes = 40},
    {.max_head_bytes = 65536, .max_headers = 100, .max_target_bytes = 16384},
};
#define FUZZ_LIMITS (sizeof fuzz_limits / sizeof *fuzz_limits)

/* Of what the proxy itself writes: nothing is too large. */
static const struct http_limits fuzz_no_limits = {1 << 20, 1000, 1 << 20};

struct scanned {
    enum http_scan_result result;
    size_t size; /* of the head, when complete */
    struct http_problem problem;
};

static inline struct scanned scan_cut(struct slice data, bool response, const struct http_limits *limits,
                                      enum fuzz_cut cut)
{
    struct http_scan scan = {0};
    struct scanned scanned = {.result = HTTP_SCAN_INCOMPLETE};
    struct fuzz_cutter cutter = fuzz_cutter(cut, data, 0);
    size_t arrived = 0;
    while (scanned.result == HTTP_SCAN_INCOMPLETE && arrived < data.size) {
        arrived += fuzz_next_piece(&cutter).size;
        scanned.result =
            http_scan_head(&scan, (struct slice){data.data, arrived}, response, limits, &scanned.problem);
    }
    fuzz_show_rest(&cutter);
    scanned.size = scanned.result == HTTP_SCAN_COMPLETE ? scan.offset : 0;
    REQUIRE(scan.offset <= arrived);
    return scanned;
}

static inline void require_problem(const struct http_problem *problem)
{
    REQUIRE(problem->fault > HTTP_OK && problem->fault < HTTP_FAULT_COUNT);
    REQUIRE(problem->reason[0] != 0 && problem->message[0] != 0);
}

/* Finds the end of the head; the outcome is the same however it arrives. */
static inline struct scanned scan_any_way(struct slice data, bool response, const struct http_limits *limits)
{
    struct scanned whole = scan_cut(data, response, limits, FUZZ_WHOLE);
    for (enum fuzz_cut cut = FUZZ_BYTES; cut < FUZZ_CUTS; cut++) {
        struct scanned scanned = scan_cut(data, response, limits, cut);
        REQUIRE(scanned.result == whole.result && scanned.size == whole.size);
        if (whole.result == HTTP_SCAN_REFUSED) {
            require_problem(&scanned.problem);
            REQUIRE_MESSAGE(scanned.problem.fault == whole.problem.fault &&
                                strcmp(scanned.problem.reason, whole.problem.reason) == 0,
                            scanned.problem.reason);
        }
    }
    return whole;
}

static inline void require_fields(const struct http_fields *fields, const struct http_limits *limits)
{
    REQUIRE(fields->count <= limits->max_headers);
    for (size_t i = 0; i < fields->count; i++)
        REQUIRE(http_is_token(fields->items[i].name) && http_is_field_value(fields->items[i].value));
}

static inline bool field_equals(const struct http_fields *fields, size_t index, struct slice name,
                                struct slice value)
{
    return index < fields->count && slice_equal(fields->items[index].name, name) &&
           slice_equal(fields->items[index].value, value);
}

#endif
