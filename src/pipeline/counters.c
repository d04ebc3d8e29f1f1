/* All series of a pipeline are made at once, so that whoever watches sees zeros and not gaps. */
#include "pipeline/counters.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

const char *outcome_name(enum outcome outcome)
{
    static const char *const names[OUTCOME_COUNT] = {
        [OUTCOME_DELIVERED] = "delivered",
        [OUTCOME_FILTERED] = "filtered",
        [OUTCOME_DROPPED] = "dropped",
        [OUTCOME_DEAD_LETTERED] = "dead_lettered",
    };
    return names[outcome];
}

static struct metric *dropped_by(const struct counters *counters, const char *reason)
{
    return metrics_counter(
        counters->metrics, "llm_proxy_events_dropped_total", "Events that were not delivered, by reason.",
        (struct metric_label[]){{"pipeline", counters->pipeline}, {"reason", reason}, {NULL, NULL}});
}

static void make_histograms(struct counters *counters, const struct metric_label *label)
{
    static const double seconds[] = {0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30};
    static const double ages[] = {0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400};
    static const double events[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000};
    static const double bytes[] = {1 << 10,   4 << 10, 16 << 10, 64 << 10,
                                   256 << 10, 1 << 20, 4 << 20,  16 << 20};
    counters->seconds =
        metrics_histogram(counters->metrics, "llm_proxy_delivery_seconds",
                          "How long a try to deliver a batch takes.", label, seconds, COUNT_OF(seconds));
    counters->age = metrics_histogram(counters->metrics, "llm_proxy_delivery_age_seconds",
                                      "Age of events when they are delivered.", label, ages, COUNT_OF(ages));
    counters->batch_events =
        metrics_histogram(counters->metrics, "llm_proxy_batch_events", "Events in what a try delivers.",
                          label, events, COUNT_OF(events));
    counters->batch_bytes =
        metrics_histogram(counters->metrics, "llm_proxy_batch_bytes", "Bytes of JSON in what a try delivers.",
                          label, bytes, COUNT_OF(bytes));
}

void counters_make(struct counters *counters, struct metrics *metrics, const char *pipeline, bool fetches)
{
    const struct metric_label label[] = {{"pipeline", pipeline}, {NULL, NULL}};
    counters->metrics = metrics;
    counters->pipeline = pipeline;
    counters->received =
        metrics_counter(metrics, "llm_proxy_events_received_total", "Events offered to the pipeline.", label);
    for (size_t i = 0; i < OUTCOME_COUNT; i++)
        counters->results[i] = metrics_counter(
            metrics, "llm_proxy_events_total", "Events by what became of them.",
            (struct metric_label[]){
                {"pipeline", pipeline}, {"result", outcome_name((enum outcome)i)}, {NULL, NULL}});
    for (size_t i = 0; i < BUS_DROP_COUNT; i++)
        counters->dropped_by[i] = dropped_by(counters, bus_drop_name((enum bus_drop)i));
    static const char *const reasons[] = {"rejected", "transform_error", "shutdown"};
    for (size_t i = 0; i < COUNT_OF(reasons); i++)
        dropped_by(counters, reasons[i]);
    if (fetches)
        dropped_by(counters, "unreadable");
    counters->waiting = metrics_gauge(metrics, "llm_proxy_events_waiting",
                                      "Events that the pipeline has and is not through with.", label);
    counters->oldest =
        metrics_gauge(metrics, "llm_proxy_oldest_waiting_seconds",
                      "Age of the event that the pipeline is not through with for longest.", label);
    counters->state = metrics_gauge(metrics, "llm_proxy_pipeline_state",
                                    "0: delivers, 1: tries again, 2: is paused.", label);
    counters->depth = metrics_gauge(metrics, "llm_proxy_bus_depth", "Events not yet fetched.",
                                    (struct metric_label[]){{"subscriber", pipeline}, {NULL, NULL}});
    make_histograms(counters, label);
}

void counters_add(const struct counters *counters, enum outcome outcome, const char *reason, size_t count)
{
    if (outcome == OUTCOME_DROPPED)
        metric_add(dropped_by(counters, reason), (int64_t)count);
    metric_add(counters->results[outcome], (int64_t)count);
}
