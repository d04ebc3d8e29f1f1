/*
 * Each series becomes a row: the path of its value in the object. Rows are sorted by their paths, then objects begin and end where paths part.
 */
#include "command/stats.h"

#include <stdlib.h>
#include <string.h>

#include "base/json_write.h"
#include "base/memory.h"

#define DEEPEST 5

struct row {
    char *path[DEEPEST]; /* the rest is NULL */
    size_t depth;
    double value;
};

struct rows {
    struct row *items;
    size_t count, capacity;
};

static struct row *add_row(struct rows *rows, double value)
{
    if (rows->count == rows->capacity) {
        rows->capacity = rows->capacity > 0 ? rows->capacity * 2 : 64;
        rows->items = xrealloc(rows->items, rows->capacity * sizeof *rows->items);
    }
    struct row *row = &rows->items[rows->count++];
    *row = (struct row){.value = value};
    return row;
}

static void descend(struct row *row, const char *key)
{
    if (row->depth < DEEPEST) {
        row->path[row->depth++] = xstrdup(key);
    }
}

/* The family's name between a prefix, if it has it, and "_total". A new string. */
static char *plain_name(const char *family, const char *prefix)
{
    size_t skipped = strncmp(family, prefix, strlen(prefix)) == 0 ? strlen(prefix) : 0;
    char *name = xstrdup(family + skipped);
    char *end = strstr(name, "_total");
    if (end != NULL) {
        *end = '\0';
    }
    return name;
}

static const char *label_value(const struct metrics_sample *sample, const char *name)
{
    for (const struct metric_label *label = sample->labels; label->name != NULL; label++) {
        if (strcmp(label->name, name) == 0) {
            return label->value;
        }
    }
    return NULL;
}

/* "events" are what a pipeline is about: its own are called by what became of them. */
static void place_in_pipeline(struct row *row, const struct metrics_sample *sample, const char *pipeline)
{
    const char *result = label_value(sample, "result"), *reason = label_value(sample, "reason");
    char *name = plain_name(sample->family, "llm_proxy_events_");
    char *other = plain_name(name, "llm_proxy_");
    descend(row, "pipelines");
    descend(row, pipeline);
    if (reason != NULL) {
        char *by = xprintf("%s_by", other);
        descend(row, by);
        descend(row, reason);
        free(by);
    } else {
        descend(row, result != NULL ? result : other);
    }
    free(other);
    free(name);
}

static void place(struct row *row, const struct metrics_sample *sample)
{
    const char *pipeline = label_value(sample, "pipeline");
    pipeline = pipeline != NULL ? pipeline : label_value(sample, "subscriber");
    if (pipeline != NULL) {
        place_in_pipeline(row, sample, pipeline);
        return;
    }
    char *name = plain_name(sample->family, "llm_proxy_");
    if (strncmp(name, "bus_", 4) == 0) {
        descend(row, "bus");
        descend(row, name + 4);
    } else {
        descend(row, name);
    }
    for (const struct metric_label *label = sample->labels; label->name != NULL; label++) {
        descend(row, label->value);
    }
    free(name);
}

static void visit(void *argument, const struct metrics_sample *sample)
{
    struct rows *rows = argument;
    struct row *row = add_row(rows, (double)sample->value);
    place(row, sample);
    if (sample->is_histogram) {
        descend(row, "count");
        row = add_row(rows, sample->sum);
        place(row, sample);
        descend(row, "sum");
    }
}

static int compare(const void *left, const void *right)
{
    const struct row *a = left, *b = right;
    for (size_t i = 0; i < DEEPEST; i++) {
        if (a->path[i] == NULL || b->path[i] == NULL) {
            return (a->path[i] != NULL) - (b->path[i] != NULL);
        }
        int order = strcmp(a->path[i], b->path[i]);
        if (order != 0) {
            return order;
        }
    }
    return 0;
}

static size_t common_depth(const struct row *a, const struct row *b)
{
    size_t depth = 0;
    while (depth + 1 < a->depth && depth + 1 < b->depth && strcmp(a->path[depth], b->path[depth]) == 0) {
        depth++;
    }
    return depth;
}

static void new_line(struct buffer *out, size_t depth)
{
    buffer_append_char(out, '\n');
    for (size_t i = 0; i <= depth; i++) {
        buffer_append_string(out, "  ");
    }
}

static void write_rows(const struct rows *rows, struct buffer *out)
{
    static const struct row none = {.depth = 0};
    const struct row *before = &none;
    for (size_t i = 0; i <= rows->count; i++) {
        const struct row *row = i < rows->count ? &rows->items[i] : &none;
        size_t common = common_depth(before, row);
        for (size_t depth = before->depth > 0 ? before->depth - 1 : 0; depth > common; depth--) {
            new_line(out, depth - 1);
            buffer_append_char(out, '}');
        }
        for (size_t depth = common; depth < row->depth; depth++) {
            if (depth == common) {
                buffer_append_char(out, ','); /* behind a sibling, or what stands first of all */
            }
            new_line(out, depth);
            json_write_latin1(out, slice_of(row->path[depth]));
            buffer_append_string(out, depth + 1 < row->depth ? ": {" : ": ");
        }
        if (row->depth > 0) {
            json_write_number(out, row->value);
        }
        before = row;
    }
}

void stats_write(struct metrics *metrics, double uptime_seconds, const char *reason, struct buffer *out)
{
    struct rows rows = {0};
    metrics_each(metrics, visit, &rows);
    qsort(rows.items, rows.count, sizeof *rows.items, compare);
    buffer_append_string(out, "{\n  \"version\": \"" LLM_PROXY_VERSION "\",\n  \"uptime_seconds\": ");
    json_write_number(out, uptime_seconds);
    buffer_append_string(out, reason == NULL ? ",\n  \"ready\": true,\n  \"reason\": null"
                                             : ",\n  \"ready\": false,\n  \"reason\": ");
    if (reason != NULL) {
        json_write_string(out, slice_of(reason));
    }
    write_rows(&rows, out);
    buffer_append_string(out, "\n}\n");
    for (size_t i = 0; i < rows.count; i++) {
        for (size_t depth = 0; depth < rows.items[i].depth; depth++) {
            free(rows.items[i].path[depth]);
        }
    }
    free(rows.items);
}
