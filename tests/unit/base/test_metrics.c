/*
 * metrics: the text is what Prometheus reads, and no count is lost between threads.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/metrics.h"

static void assert_metrics(struct metrics *metrics, const char *expected)
{
    struct buffer out = {0};
    metrics_write(metrics, &out);
    char *text = buffer_take_string(&out);
    assert_string_equal(text, expected);
    free(text);
}

static void counters_and_gauges_are_written_by_family(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    struct metric *a = metrics_counter(metrics, "events_total", "Events.",
                                       (struct metric_label[]){{"pipeline", "a"}, {"result", "ok"}, {0}});
    struct metric *depth = metrics_gauge(metrics, "depth", "Depth.", NULL);
    struct metric *b = metrics_counter(metrics, "events_total", "Events.",
                                       (struct metric_label[]){{"pipeline", "b"}, {"result", "ok"}, {0}});
    metric_add(a, 3);
    metric_add(b, 1);
    metric_set(depth, 5);
    metric_add(depth, -7);
    assert_int_equal(metric_value(depth), -2);
    assert_metrics(metrics, "# HELP events_total Events.\n"
                            "# TYPE events_total counter\n"
                            "events_total{pipeline=\"a\",result=\"ok\"} 3\n"
                            "events_total{pipeline=\"b\",result=\"ok\"} 1\n"
                            "# HELP depth Depth.\n"
                            "# TYPE depth gauge\n"
                            "depth -2\n");
    metrics_free(metrics);
}

static void append_sample(void *argument, const struct metrics_sample *sample)
{
    struct buffer *out = argument;
    buffer_append_string(out, sample->family);
    for (const struct metric_label *label = sample->labels; label->name != NULL; label++)
        buffer_printf(out, " %s=%s", label->name, label->value);
    buffer_printf(out, " %lld", (long long)sample->value);
    if (sample->is_histogram)
        buffer_printf(out, " %g", sample->sum);
    buffer_append_char(out, ';');
}

static void every_series_is_visited_with_its_labels(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    metric_add(metrics_counter(metrics, "a", "A.", (struct metric_label[]){{"x", "\"1"}, {"y", "2"}, {0}}),
               4);
    struct metric *seconds = metrics_histogram(metrics, "s", "S.", NULL, (double[]){1, 2}, 2);
    metric_observe(seconds, 0.5);
    metric_observe(seconds, 5);
    metric_set(metrics_gauge(metrics, "g", "G.", NULL), -3);
    struct buffer out = {0};
    metrics_each(metrics, append_sample, &out);
    char *text = buffer_take_string(&out);
    assert_string_equal(text, "a x=\"1 y=2 4;s 2 5.5;g -3;");
    free(text);
    metrics_free(metrics);
}

static void the_same_labels_are_the_same_series(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    struct metric *first = metrics_counter(metrics, "a", "A.", (struct metric_label[]){{"x", "1"}, {0}});
    assert_ptr_equal(first, metrics_counter(metrics, "a", "A.", (struct metric_label[]){{"x", "1"}, {0}}));
    assert_ptr_not_equal(first,
                         metrics_counter(metrics, "a", "A.", (struct metric_label[]){{"x", "2"}, {0}}));
    metrics_free(metrics);
}

static void histogram_buckets_are_cumulative(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    static const double bounds[] = {0.1, 1, 10};
    struct metric *plain = metrics_histogram(metrics, "seconds", "Time.", NULL, bounds, 3);
    struct metric *labelled =
        metrics_histogram(metrics, "seconds", "Time.", (struct metric_label[]){{"p", "x"}, {0}}, bounds, 3);
    metric_observe(plain, 0.1);
    metric_observe(plain, 0.5);
    metric_observe(plain, 100);
    metric_observe(labelled, 10);
    assert_metrics(metrics, "# HELP seconds Time.\n"
                            "# TYPE seconds histogram\n"
                            "seconds_bucket{le=\"0.1\"} 1\n"
                            "seconds_bucket{le=\"1\"} 2\n"
                            "seconds_bucket{le=\"10\"} 2\n"
                            "seconds_bucket{le=\"+Inf\"} 3\n"
                            "seconds_sum 100.6\n"
                            "seconds_count 3\n"
                            "seconds_bucket{p=\"x\",le=\"0.1\"} 0\n"
                            "seconds_bucket{p=\"x\",le=\"1\"} 0\n"
                            "seconds_bucket{p=\"x\",le=\"10\"} 1\n"
                            "seconds_bucket{p=\"x\",le=\"+Inf\"} 1\n"
                            "seconds_sum{p=\"x\"} 10\n"
                            "seconds_count{p=\"x\"} 1\n");
    metrics_free(metrics);
}

static void texts_are_escaped(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    metric_add(metrics_counter(metrics, "a", "Two\nlines \"and\" \\.",
                               (struct metric_label[]){{"x", "q\"b\\n\n"}, {0}}),
               1);
    assert_metrics(metrics,
                   "# HELP a Two\\nlines \"and\" \\\\.\n# TYPE a counter\na{x=\"q\\\"b\\\\n\\n\"} 1\n");
    metrics_free(metrics);
}

static void set_to_seven(void *gauge)
{
    metric_set(gauge, 7);
}

static void collectors_run_until_they_are_taken_back(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    struct metric *gauge = metrics_gauge(metrics, "g", "G.", NULL);
    metrics_on_collect(metrics, set_to_seven, gauge);
    assert_metrics(metrics, "# HELP g G.\n# TYPE g gauge\ng 7\n");
    metrics_remove_collect(metrics, set_to_seven, gauge);
    metric_set(gauge, 1);
    assert_metrics(metrics, "# HELP g G.\n# TYPE g gauge\ng 1\n");
    metrics_on_collect(metrics, set_to_seven, gauge); /* freed with the registry */
    metrics_free(metrics);
}

static void *count(void *argument)
{
    static const double bounds[] = {1};
    struct metrics *metrics = argument;
    struct metric *counter = metrics_counter(metrics, "c", "C.", NULL);
    struct metric *histogram = metrics_histogram(metrics, "h", "H.", NULL, bounds, 1);
    for (int i = 0; i < 10000; i++) {
        metric_add(counter, 1);
        metric_observe(histogram, 0.5);
    }
    return NULL;
}

static void threads_lose_no_count(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    metrics_counter(metrics, "c", "C.", NULL); /* fixes the order of the families */
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, metrics), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_metrics(metrics, "# HELP c C.\n# TYPE c counter\nc 40000\n"
                            "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} "
                            "40000\nh_bucket{le=\"+Inf\"} 40000\nh_sum 20000\nh_count 40000\n");
    metrics_free(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_and_gauges_are_written_by_family),
        cmocka_unit_test(every_series_is_visited_with_its_labels),
        cmocka_unit_test(the_same_labels_are_the_same_series),
        cmocka_unit_test(histogram_buckets_are_cumulative),
        cmocka_unit_test(texts_are_escaped),
        cmocka_unit_test(collectors_run_until_they_are_taken_back),
        cmocka_unit_test(threads_lose_no_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
