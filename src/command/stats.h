/*
 * stats: what /metrics counts, as one JSON object for people and scripts: grouped by what it is about, and without the prefix and suffix that Prometheus wants.
 *
 *     { "version", "uptime_seconds", "ready", "reason",
 *       "pipelines": { NAME: { "received", "delivered", "filtered", "dropped", "dead_lettered", "waiting", "dropped_by": { REASON: … }, … } },
 *       "bus": { … }, "requests": { ROUTE: { STATUS: … } }, "bad_requests": { REASON: … }, … }
 *
 * A histogram is { "count", "sum" }.
 */
#ifndef COMMAND_STATS_H
#define COMMAND_STATS_H

#include "base/metrics.h"

/* Appends the object to out. reason: why it is not ready, NULL when it is. */
void stats_write(struct metrics *metrics, double uptime_seconds, const char *reason, struct buffer *out);

#endif
