/*
 * counters: the metrics of one pipeline, by its name. Generations of one name share them.
 */
#ifndef PIPELINE_COUNTERS_H
#define PIPELINE_COUNTERS_H

#include "base/metrics.h"
#include "bus/bus.h"

/* What an event comes to. */
enum outcome { OUTCOME_DELIVERED, OUTCOME_FILTERED, OUTCOME_DROPPED, OUTCOME_DEAD_LETTERED, OUTCOME_COUNT };

/* As it is called in metrics: "delivered". */
const char *outcome_name(enum outcome outcome);

struct counters {
    struct metrics *metrics;
    const char *pipeline; /* borrowed */
    struct metric *received, *results[OUTCOME_COUNT], *dropped_by[BUS_DROP_COUNT];
    struct metric *waiting, *depth, *oldest, *state;           /* gauges */
    struct metric *seconds, *batch_events, *batch_bytes, *age; /* histograms */
};

/* fetches: from a bus where something else than events may be. */
void counters_make(struct counters *counters, struct metrics *metrics, const char *pipeline, bool fetches);
/* So many events come to this; reason: why they are dropped. */
void counters_add(const struct counters *counters, enum outcome outcome, const char *reason, size_t count);

#endif
