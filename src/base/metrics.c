/*
 * metrics: see metrics.h. Families hang in a list, series in a list below their family, found by their rendered labels. Nothing is ever taken out, so a
 * series can be counted in without the lock.
 *
 * Two locks, taken in this order: collecting (one metrics_write at a time, and no collector is taken back while it may run), then
 * registry (the lists).
 */
#include "base/metrics.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/json_write.h"
#include "base/memory.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

static const char *const kind_names[] = {"counter", "gauge", "histogram"};

struct family {
    struct family *next;
    enum metric_kind kind;
    char *name, *help;
    double *bounds;
    size_t bound_count;
    struct metric *first, *last;
};

struct metric {
    struct metric *next;
    const struct family *family;
    char *labels;               /* a="1",b="2", without braces */
    struct metric_label *pairs; /* the same one by one */
    _Atomic int64_t value;
    _Atomic double sum;        /* histogram; else what was counted in numbers that need not be whole */
    _Atomic uint64_t *buckets; /* histogram: not cumulative, the last one is +Inf */
};

struct collector {
    struct collector *next;
    void (*collect)(void *argument);
    void *argument;
};

struct metrics {
    pthread_mutex_t collecting, registry;
    struct collector *collectors;
    struct family *first, *last;
};

struct metrics *metrics_new(void)
{
    struct metrics *metrics = xcalloc(1, sizeof *metrics);
    pthread_mutex_init(&metrics->collecting, NULL);
    pthread_mutex_init(&metrics->registry, NULL);
    return metrics;
}

static void family_free(struct family *family)
{
    while (family->first != NULL) {
        struct metric *metric = family->first;
        family->first = metric->next;
        for (const struct metric_label *pair = metric->pairs; pair->name != NULL; pair++) {
            free((void *)(uintptr_t)pair->name);
            free((void *)(uintptr_t)pair->value);
        }
        free(metric->pairs);
        free(metric->labels);
        free(metric->buckets);
        free(metric);
    }
    free(family->name);
    free(family->help);
    free(family->bounds);
    free(family);
}

void metrics_free(struct metrics *metrics)
{
    if (metrics == NULL)
        return;
    while (metrics->first != NULL) {
        struct family *family = metrics->first;
        metrics->first = family->next;
        family_free(family);
    }
    while (metrics->collectors != NULL) {
        struct collector *collector = metrics->collectors;
        metrics->collectors = collector->next;
        free(collector);
    }
    pthread_mutex_destroy(&metrics->collecting);
    pthread_mutex_destroy(&metrics->registry);
    free(metrics);
}

static void append_escaped(struct buffer *out, const char *text, bool quoted)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n') {
            buffer_append(out, "\\n", 2);
            continue;
        }
        if (*text == '\\' || (quoted && *text == '"'))
            buffer_append_char(out, '\\');
        buffer_append_char(out, *text);
    }
}

static char *render_labels(const struct metric_label *labels)
{
    struct buffer text = {0};
    for (; labels != NULL && labels->name != NULL; labels++) {
        if (text.size > 0)
            buffer_append_char(&text, ',');
        buffer_append_string(&text, labels->name);
        buffer_append_string(&text, "=\"");
        append_escaped(&text, labels->value, true);
        buffer_append_char(&text, '"');
    }
    return buffer_take_string(&text);
}

static struct metric_label *copy_labels(const struct metric_label *labels)
{
    size_t count = 0;
    while (labels != NULL && labels[count].name != NULL)
        count++;
    struct metric_label *copy = xcalloc(count + 1, sizeof *copy);
    for (size_t i = 0; i < count; i++)
        copy[i] = (struct metric_label){xstrdup(labels[i].name), xstrdup(labels[i].value)};
    return copy;
}

static struct family *find_family(struct metrics *metrics, enum metric_kind kind, const char *name,
                                  const char *help, const double *bounds, size_t bound_count)
{
    struct family *family = metrics->first;
    while (family != NULL && strcmp(family->name, name) != 0)
        family = family->next;
    if (family != NULL) {
        bool same = family->kind == kind && family->bound_count == bound_count &&
                    (bound_count == 0 || memcmp(family->bounds, bounds, bound_count * sizeof *bounds) == 0);
        return same ? family : NULL;
    }
    family = xcalloc(1, sizeof *family);
    *family = (struct family){
        .kind = kind, .name = xstrdup(name), .help = xstrdup(help), .bound_count = bound_count};
    if (bound_count > 0) {
        family->bounds = xcalloc(bound_count, sizeof *bounds);
        memcpy(family->bounds, bounds, bound_count * sizeof *bounds);
    }
    if (metrics->last != NULL)
        metrics->last->next = family;
    else
        metrics->first = family;
    metrics->last = family;
    return family;
}

static struct metric *find_metric(struct metrics *metrics, enum metric_kind kind, const char *name,
                                  const char *help, const struct metric_label *labels, const double *bounds,
                                  size_t bound_count)
{
    char *rendered = render_labels(labels);
    pthread_mutex_lock(&metrics->registry);
    struct family *family = find_family(metrics, kind, name, help, bounds, bound_count);
    struct metric *metric = family != NULL ? family->first : NULL;
    while (metric != NULL && strcmp(metric->labels, rendered) != 0)
        metric = metric->next;
    if (metric != NULL || family == NULL) {
        free(rendered);
    } else {
        metric = xcalloc(1, sizeof *metric);
        metric->family = family;
        metric->labels = rendered;
        metric->pairs = copy_labels(labels);
        if (kind == METRIC_HISTOGRAM)
            metric->buckets = xcalloc(bound_count + 1, sizeof *metric->buckets);
        if (family->last != NULL)
            family->last->next = metric;
        else
            family->first = metric;
        family->last = metric;
    }
    pthread_mutex_unlock(&metrics->registry);
    return metric;
}

struct metric *metrics_counter(struct metrics *metrics, const char *name, const char *help,
                               const struct metric_label *labels)
{
    return find_metric(metrics, METRIC_COUNTER, name, help, labels, NULL, 0);
}

struct metric *metrics_gauge(struct metrics *metrics, const char *name, const char *help,
                             const struct metric_label *labels)
{
    return find_metric(metrics, METRIC_GAUGE, name, help, labels, NULL, 0);
}

struct metric *metrics_histogram(struct metrics *metrics, const char *name, const char *help,
                                 const struct metric_label *labels, const double *bounds, size_t bound_count)
{
    return find_metric(metrics, METRIC_HISTOGRAM, name, help, labels, bounds, bound_count);
}

bool metrics_has(struct metrics *metrics, const char *name, const struct metric_label *labels)
{
    char *rendered = render_labels(labels);
    pthread_mutex_lock(&metrics->registry);
    const struct family *family = metrics->first;
    while (family != NULL && strcmp(family->name, name) != 0)
        family = family->next;
    const struct metric *metric = family != NULL ? family->first : NULL;
    while (metric != NULL && strcmp(metric->labels, rendered) != 0)
        metric = metric->next;
    pthread_mutex_unlock(&metrics->registry);
    free(rendered);
    return metric != NULL;
}

size_t metrics_count(struct metrics *metrics, const char *name, bool whole_name, struct metric_label first)
{
    size_t count = 0, compared = strlen(name) + (whole_name ? 1 : 0);
    pthread_mutex_lock(&metrics->registry);
    for (const struct family *family = metrics->first; family != NULL; family = family->next) {
        if (strncmp(family->name, name, compared) != 0)
            continue;
        for (const struct metric *metric = family->first; metric != NULL; metric = metric->next) {
            const struct metric_label *pair = metric->pairs;
            if (pair->name != NULL && strcmp(pair->name, first.name) == 0 &&
                strcmp(pair->value, first.value) == 0)
                count++;
        }
    }
    pthread_mutex_unlock(&metrics->registry);
    return count;
}

void metric_add(struct metric *metric, int64_t amount)
{
    atomic_fetch_add_explicit(&metric->value, amount, memory_order_relaxed);
}

void metric_set(struct metric *metric, int64_t value)
{
    atomic_store_explicit(&metric->value, value, memory_order_relaxed);
}

int64_t metric_value(const struct metric *metric)
{
    return atomic_load_explicit(&metric->value, memory_order_relaxed);
}

static void add_to_sum(struct metric *metric, double amount)
{
    double sum = atomic_load_explicit(&metric->sum, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&metric->sum, &sum, sum + amount, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

void metric_add_number(struct metric *metric, double amount)
{
    add_to_sum(metric, amount);
}

void metric_set_number(struct metric *metric, double value)
{
    atomic_store_explicit(&metric->sum, value, memory_order_relaxed);
}

void metric_observe(struct metric *metric, double value)
{
    const struct family *family = metric->family;
    assert(family->kind == METRIC_HISTOGRAM);
    size_t bucket = 0;
    while (bucket < family->bound_count && value > family->bounds[bucket])
        bucket++;
    atomic_fetch_add_explicit(&metric->buckets[bucket], 1, memory_order_relaxed);
    add_to_sum(metric, value);
}

void metrics_on_collect(struct metrics *metrics, void (*collect)(void *argument), void *argument)
{
    struct collector *collector = xcalloc(1, sizeof *collector);
    collector->collect = collect;
    collector->argument = argument;
    pthread_mutex_lock(&metrics->collecting);
    collector->next = metrics->collectors;
    metrics->collectors = collector;
    pthread_mutex_unlock(&metrics->collecting);
}

void metrics_remove_collect(struct metrics *metrics, void (*collect)(void *argument), void *argument)
{
    pthread_mutex_lock(&metrics->collecting);
    struct collector **at = &metrics->collectors;
    while (*at != NULL && ((*at)->collect != collect || (*at)->argument != argument))
        at = &(*at)->next;
    struct collector *found = *at;
    if (found != NULL)
        *at = found->next;
    pthread_mutex_unlock(&metrics->collecting);
    free(found);
}

/* name + suffix + {labels,le="bound"} + space; labels and bound only where there are any. */
static void write_series(struct buffer *out, const struct metric *metric, const char *suffix,
                         const char *bound)
{
    buffer_append_string(out, metric->family->name);
    buffer_append_string(out, suffix);
    if (metric->labels[0] != '\0' || bound != NULL) {
        buffer_append_char(out, '{');
        buffer_append_string(out, metric->labels);
        if (bound != NULL) {
            buffer_append_string(out, metric->labels[0] != '\0' ? ",le=\"" : "le=\"");
            buffer_append_string(out, bound);
            buffer_append_char(out, '"');
        }
        buffer_append_char(out, '}');
    }
    buffer_append_char(out, ' ');
}

static void write_histogram(struct buffer *out, const struct metric *metric)
{
    const struct family *family = metric->family;
    uint64_t count = 0;
    for (size_t i = 0; i <= family->bound_count; i++) {
        struct buffer bound = {0};
        if (i < family->bound_count)
            json_write_number(&bound, family->bounds[i]);
        else
            buffer_append_string(&bound, "+Inf");
        char *text = buffer_take_string(&bound);
        count += atomic_load_explicit(&metric->buckets[i], memory_order_relaxed);
        write_series(out, metric, "_bucket", text);
        buffer_append_uint64(out, count);
        buffer_append_char(out, '\n');
        free(text);
    }
    write_series(out, metric, "_sum", NULL);
    json_write_number(out, atomic_load_explicit(&metric->sum, memory_order_relaxed));
    buffer_append_char(out, '\n');
    write_series(out, metric, "_count", NULL);
    buffer_append_uint64(out, count);
    buffer_append_char(out, '\n');
}

static void write_value(struct buffer *out, const struct metric *metric)
{
    double number = atomic_load_explicit(&metric->sum, memory_order_relaxed);
    if (number == 0)
        json_write_integer(out, metric_value(metric));
    else
        json_write_number(out, number);
}

static void write_family(struct buffer *out, const struct family *family)
{
    buffer_printf(out, "# HELP %s ", family->name);
    append_escaped(out, family->help, false);
    buffer_printf(out, "\n# TYPE %s %s\n", family->name, kind_names[family->kind]);
    for (const struct metric *metric = family->first; metric != NULL; metric = metric->next) {
        if (family->kind == METRIC_HISTOGRAM) {
            write_histogram(out, metric);
        } else {
            write_series(out, metric, "", NULL);
            write_value(out, metric);
            buffer_append_char(out, '\n');
        }
    }
}

/* Locks the registry when the collectors have run; to be unlocked by end_collecting(). */
static void begin_collecting(struct metrics *metrics)
{
    pthread_mutex_lock(&metrics->collecting);
    for (struct collector *collector = metrics->collectors; collector != NULL; collector = collector->next)
        collector->collect(collector->argument);
    pthread_mutex_lock(&metrics->registry);
}

static void end_collecting(struct metrics *metrics)
{
    pthread_mutex_unlock(&metrics->registry);
    pthread_mutex_unlock(&metrics->collecting);
}

void metrics_each(struct metrics *metrics, void (*visit)(void *argument, const struct metrics_sample *sample),
                  void *argument)
{
    begin_collecting(metrics);
    for (const struct family *family = metrics->first; family != NULL; family = family->next) {
        for (const struct metric *metric = family->first; metric != NULL; metric = metric->next) {
            struct metrics_sample sample = {.family = family->name,
                                            .labels = metric->pairs,
                                            .is_histogram = family->kind == METRIC_HISTOGRAM,
                                            .value = metric_value(metric),
                                            .sum = atomic_load_explicit(&metric->sum, memory_order_relaxed)};
            for (size_t i = 0; sample.is_histogram && i <= family->bound_count; i++)
                sample.value += (int64_t)atomic_load_explicit(&metric->buckets[i], memory_order_relaxed);
            visit(argument, &sample);
        }
    }
    end_collecting(metrics);
}

void metrics_write(struct metrics *metrics, struct buffer *out)
{
    begin_collecting(metrics);
    for (const struct family *family = metrics->first; family != NULL; family = family->next)
        write_family(out, family);
    end_collecting(metrics);
}
