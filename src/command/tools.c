/* See tools.h. */
#include "command/tools.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/json_write.h"

struct config *tools_load_config(const struct options *options)
{
    struct buffer errors = {0};
    struct config_source source = {.file = options->values[OPTION_CONFIG]};
    struct config *config = config_load(&source, &errors);
    command_errors(&errors);
    buffer_free(&errors);
    return config;
}

/* "30m" in seconds; 0: it is none. */
static uint64_t parse_age(const char *text)
{
    char *end;
    if (text[0] < '0' || text[0] > '9') {
        return 0;
    }
    unsigned long long number = strtoull(text, &end, 10);
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (end[0] == units[i].unit && end[1] == '\0' && number <= UINT32_MAX) {
            return number * units[i].seconds;
        }
    }
    return 0;
}

bool tools_parse_since(const struct options *options, uint64_t *since_us)
{
    const char *text = options->values[OPTION_SINCE];
    *since_us = 0;
    if (text == NULL || clock_parse_rfc3339(slice_of(text), since_us)) {
        return true;
    }
    uint64_t age = parse_age(text), now = clock_realtime_us();
    if (age == 0) {
        command_error("--since: expected a time as \"2026-01-31T10:00:00Z\", or an age as \"30m\", \"2h\" or "
                      "\"7d\", got \"%s\"",
                      text);
        return false;
    }
    *since_us = age < now / 1000000 ? now - age * 1000000 : 1;
    return true;
}

void tools_append_time(struct buffer *out, uint64_t time_us)
{
    char text[CLOCK_RFC3339_SIZE];
    if (time_us == 0) {
        buffer_append_char(out, '-');
        return;
    }
    clock_format_rfc3339(time_us, text);
    buffer_printf(out, "%.10s %.8sZ", text, text + 11);
}

void tools_append_json_time(struct buffer *out, uint64_t time_us)
{
    char text[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(time_us, text);
    if (time_us == 0) {
        buffer_append_string(out, "null");
    } else {
        json_write_string(out, slice_of(text));
    }
}

void tools_append_size(struct buffer *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double amount = (double)bytes;
    size_t unit = 0;
    for (; amount >= 1024 && unit + 1 < sizeof units / sizeof *units; unit++) {
        amount /= 1024;
    }
    buffer_printf(out, unit == 0 ? "%.0f %s" : "%.1f %s", amount, units[unit]);
}

bool tools_flush(struct buffer *out)
{
    size_t size = out->size;
    bool fine = (size == 0 || fwrite(buffer_data(out), 1, size, stdout) == size) && fflush(stdout) == 0;
    buffer_clear(out);
    if (!fine) {
        command_error("cannot write to the standard output");
    }
    return fine;
}

bool tools_is_chosen(const struct options *options, size_t first, uint64_t sequence, struct slice event_id,
                     bool *found)
{
    char number[24];
    bool chosen = options->argument_count <= first;
    snprintf(number, sizeof number, "%" PRIu64, sequence);
    for (size_t i = first; i < options->argument_count; i++) {
        struct slice wanted = slice_of(options->arguments[i]);
        if (slice_equal(wanted, slice_of(number)) || slice_equal(wanted, event_id)) {
            chosen = true;
            if (found != NULL) {
                found[i] = true;
            }
        }
    }
    return chosen;
}

bool tools_all_found(const struct options *options, size_t first, const bool *found, const char *where)
{
    bool all = true;
    for (size_t i = first; i < options->argument_count; i++) {
        if (!found[i]) {
            command_error("there is no event '%s' in %s", options->arguments[i], where);
            all = false;
        }
    }
    return all;
}
