/*
 * llmproxy.metrics.series: single series of the program's metrics, for lua/llmproxy/metrics.lua, which checks everything; plugins use that one.
 *
 *     find(kind, name, help, { name, value, … }, bounds, overflow) -> series | nil: its metric has too many | series that counts nothing, message: the pipeline has too many |
 *         nil, message: it is another metric
 *     add(series, number), set(series, number), observe(series, number)
 *
 * The registry never forgets a series, so it is asked how many there are: a pipeline's Lua state may be made anew again and again, and would count from 0. overflow: one more will do.
 *
 * Where there are no metrics (while a configuration is checked) a series counts nothing.
 */
#include "base/metrics.h"

#include "base/utf8.h"
#include "script/host.h"
#include "script/modules.h"
#include "script/state.h"

#define MAX_LABELS 16
#define MAX_BOUNDS 64
#define PREFIX     "llm_proxy_plugin_"
/* Of one pipeline: of a metric, and of all that plugins have. */
#define MOST_SERIES     500
#define MOST_ALL_SERIES 10000

/* A label is written into a text that is UTF-8 and has no room for NUL. */
static const char *clean(lua_State *lua, int index)
{
    struct slice text = script_check_string(lua, index, "label");
    if (utf8_valid(text) && memchr(text.data, '\0', text.size) == NULL) {
        return text.data;
    }
    struct buffer *buffer = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        buffer_append_char(buffer, c >= ' ' && c < 0x7f ? c : '?');
    }
    lua_pushlstring(lua, buffer_data(buffer), buffer->size);
    lua_replace(lua, index);
    return lua_tostring(lua, index);
}

/* The labels of the table at index, the pipeline's first; the strings stay on the stack. */
static void read_labels(lua_State *lua, int index, const char *pipeline, struct metric_label *labels)
{
    size_t count = 0, length = lua_objlen(lua, index);
    labels[count++] = (struct metric_label){"pipeline", pipeline};
    if (length > 2 * MAX_LABELS) {
        script_raise(lua, "labels: expected at most %d", MAX_LABELS);
    }
    luaL_checkstack(lua, 2 * MAX_LABELS + 4, NULL);
    for (size_t i = 1; i + 1 <= length; i += 2) {
        lua_rawgeti(lua, index, (int)i);
        lua_rawgeti(lua, index, (int)i + 1);
        labels[count].name = script_check_text(lua, lua_gettop(lua) - 1, "label");
        labels[count++].value = clean(lua, lua_gettop(lua));
    }
    labels[count] = (struct metric_label){NULL, NULL};
}

static size_t read_bounds(lua_State *lua, int index, double *bounds)
{
    size_t count = lua_istable(lua, index) ? lua_objlen(lua, index) : 0;
    if (count > MAX_BOUNDS) {
        script_raise(lua, "buckets: expected at most %d", MAX_BOUNDS);
    }
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(lua, index, (int)i + 1);
        bounds[i] = lua_tonumber(lua, -1);
        lua_pop(lua, 1);
    }
    return count;
}

static int find(lua_State *lua)
{
    struct metrics *metrics = script_of(lua)->metrics;
    const char *kind = script_check_text(lua, 1, "kind"), *name = script_check_text(lua, 2, "name");
    const char *help = script_check_text(lua, 3, "help");
    script_check_table(lua, 4, "labels");
    struct metric_label labels[MAX_LABELS + 2];
    double bounds[MAX_BOUNDS];
    lua_settop(lua, 6);
    size_t bound_count = read_bounds(lua, 5, bounds);
    read_labels(lua, 4, script_name(script_of(lua)), labels);
    struct metric **series = lua_newuserdata(lua, sizeof(struct metric *));
    *series = NULL;
    if (metrics == NULL) {
        return 1;
    }
    if (!metrics_has(metrics, name, labels)) {
        if (!lua_toboolean(lua, 6) && metrics_count(metrics, name, true, labels[0]) >= MOST_SERIES) {
            lua_pushnil(lua);
            return 1;
        }
        if (metrics_count(metrics, PREFIX, false, labels[0]) >= MOST_ALL_SERIES) {
            lua_pushfstring(lua, "name: %s cannot be added: the pipeline's plugins have %d series already",
                            name, MOST_ALL_SERIES);
            return 2;
        }
    }
    if (strcmp(kind, "histogram") == 0) {
        *series = metrics_histogram(metrics, name, help, labels, bounds, bound_count);
    } else if (strcmp(kind, "gauge") == 0) {
        *series = metrics_gauge(metrics, name, help, labels);
    } else {
        *series = metrics_counter(metrics, name, help, labels);
    }
    if (*series == NULL) {
        return script_fail(lua, "name: %s exists already, of another kind or with other buckets", name);
    }
    return 1;
}

static struct metric *series_of(lua_State *lua)
{
    if (lua_type(lua, 1) != LUA_TUSERDATA || lua_objlen(lua, 1) != sizeof(struct metric *)) {
        script_argument_error(lua, 1, "series", "what find returned");
    }
    return *(struct metric **)lua_touserdata(lua, 1);
}

static int add(lua_State *lua)
{
    struct metric *series = series_of(lua);
    double number = script_check_number(lua, 2, "number");
    if (series != NULL) {
        metric_add_number(series, number);
    }
    return 0;
}

static int set(lua_State *lua)
{
    struct metric *series = series_of(lua);
    double number = script_check_number(lua, 2, "number");
    if (series != NULL) {
        metric_set_number(series, number);
    }
    return 0;
}

static int observe(lua_State *lua)
{
    struct metric *series = series_of(lua);
    double number = script_check_number(lua, 2, "number");
    if (series != NULL) {
        metric_observe(series, number);
    }
    return 0;
}

int script_open_metrics_series(lua_State *lua)
{
    script_new_module(
        lua, "llmproxy.metrics.series",
        (const luaL_Reg[]){{"find", find}, {"add", add}, {"set", set}, {"observe", observe}, {NULL, NULL}});
    return 1;
}
