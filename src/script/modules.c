/* The table of host modules; see modules.h. */
#include "script/modules.h"

#include <stddef.h>

const struct script_module script_modules[] = {
    {"llmproxy.json", script_open_json},   {"llmproxy.log", script_open_log},
    {"llmproxy.time", script_open_time},   {"llmproxy.file", script_open_file},
    {"llmproxy.http", script_open_http},   {"llmproxy.crypto", script_open_crypto},
    {"llmproxy.codec", script_open_codec}, {"llmproxy.metrics.series", script_open_metrics_series},
    {"llmproxy.regex", script_open_regex}, {NULL, NULL},
};
