/*
 * metrics: counters, gauges and histograms, written by any thread, read as Prometheus text.
 *
 * A metric is named once (family), and has one series for each set of label values. Asking for a series that exists gives the same series again.
 * Series live as long as their registry; keep the pointer, then counting is one relaxed atomic addition. Asking takes a lock: not for
 * every request.
 *
 *     struct metric *delivered = metrics_counter(registry, "llm_proxy_events_total", "Events by outcome.",
 *                                                (struct metric_label[]){{"pipeline", name}, {"result", "delivered"}, {0}});
 *     metric_add(delivered, 1);
 */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include "base/buffer.h"

struct metrics;
struct metric;

struct metric_label {
    const char *name, *value; /* a name of NULL ends the list */
};

struct metrics *metrics_new(void);
void metrics_free(struct metrics *metrics);

/* The strings are copied. NULL: the family exists as another kind, or with other bounds. */
struct metric *metrics_counter(struct metrics *metrics, const char *name, const char *help,
                               const struct metric_label *labels);
struct metric *metrics_gauge(struct metrics *metrics, const char *name, const char *help,
                             const struct metric_label *labels);
/* bounds: ascending upper bounds, bound_count of them; +Inf is added. */
struct metric *metrics_histogram(struct metrics *metrics, const char *name, const char *help,
                                 const struct metric_label *labels, const double *bounds, size_t bound_count);

/* Whether there is this series. */
bool metrics_has(struct metrics *metrics, const char *name, const struct metric_label *labels);
/* How many series there are that have this as their first label: of the metric of that name, or of all whose names begin with it. */
size_t metrics_count(struct metrics *metrics, const char *name, bool whole_name, struct metric_label first);

/* Counter or gauge. A gauge takes negative amounts. */
void metric_add(struct metric *metric, int64_t amount);
/* Gauge. */
void metric_set(struct metric *metric, int64_t value);
/* The same for what is no whole number; a series is written with the one kind or the other. */
void metric_add_number(struct metric *metric, double amount);
void metric_set_number(struct metric *metric, double value);
int64_t metric_value(const struct metric *metric);
/* Histogram. */
void metric_observe(struct metric *metric, double value);

/* A function called at the beginning of every metrics_write(), on the thread that calls it: sets gauges that are derived from elsewhere. */
void metrics_on_collect(struct metrics *metrics, void (*collect)(void *argument), void *argument);
/* Takes a collector back; returns when it is not running and will not run again. */
void metrics_remove_collect(struct metrics *metrics, void (*collect)(void *argument), void *argument);
/* One series, or of a histogram how many values there were and their sum. */
struct metrics_sample {
    const char *family;
    const struct metric_label *labels; /* ended by a name of NULL */
    bool is_histogram;
    int64_t value; /* or the count */
    double sum;    /* or the value that is no whole number */
};

/* Collects, then calls visit for every series, families in the order of their first registration. visit must not ask for series. */
void metrics_each(struct metrics *metrics, void (*visit)(void *argument, const struct metrics_sample *sample),
                  void *argument);
/* Prometheus text exposition format 0.0.4, families in the order of their first registration. */
void metrics_write(struct metrics *metrics, struct buffer *out);

#endif
