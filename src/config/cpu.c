/*
 * cpu: see cpu.h. In a container the path of /proc/self/cgroup may be one of the host that cannot be seen from inside, while the files of the container's own cgroup lie at the root: so every folder from the path up
 * to the root is looked into, which is also how the kernel applies quotas.
 */
#include "config/cpu.h"

#include <sched.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/slice.h"

#define MAX_FILE_BYTES 65536

/* The file's text; NULL when there is none. */
static char *read_text(const char *path)
{
    struct buffer text = {0};
    struct error error;
    if (!file_read(path, MAX_FILE_BYTES, &text, &error)) {
        buffer_free(&text);
        return NULL;
    }
    return buffer_take_string(&text);
}

static double quota_of_2(const char *folder)
{
    char *path = xprintf("%s/cpu.max", folder);
    char *text = read_text(path), *rest;
    double quota = text != NULL ? strtod(text, &rest) : 0; /* "max 100000": 0 */
    double period = quota > 0 ? strtod(rest, NULL) : 0;
    free(text);
    free(path);
    return period > 0 ? quota / period : 0;
}

static double number_in(const char *folder, const char *name)
{
    char *path = xprintf("%s/%s", folder, name);
    char *text = read_text(path);
    double number = text != NULL ? strtod(text, NULL) : 0;
    free(text);
    free(path);
    return number;
}

static double quota_of_1(const char *folder)
{
    double quota = number_in(folder, "cpu.cfs_quota_us"); /* -1: none */
    double period = quota > 0 ? number_in(folder, "cpu.cfs_period_us") : 0;
    return period > 0 ? quota / period : 0;
}

/* 0 is no limit. */
static double smaller(double a, double b)
{
    return b > 0 && (a <= 0 || b < a) ? b : a;
}

static double smallest_above(const char *mount, struct slice path, double (*quota_of)(const char *folder))
{
    double quota = 0;
    for (;;) {
        while (path.size > 0 && path.data[path.size - 1] == '/') {
            path.size--;
        }
        char *folder = xprintf("%s%.*s", mount, SLICE_ARGUMENTS(path));
        quota = smaller(quota, quota_of(folder));
        free(folder);
        if (path.size == 0) {
            return quota;
        }
        while (path.size > 0 && path.data[path.size - 1] != '/') {
            path.size--;
        }
    }
}

static bool names_cpu(struct slice controllers)
{
    struct slice name;
    while (slice_split(&controllers, ',', &name)) {
        if (slice_equal(name, SLICE("cpu"))) {
            return true;
        }
    }
    return false;
}

double cpu_quota(const char *root, const char *membership)
{
    double quota = 0;
    struct slice text = slice_of(membership), line;
    while (slice_split(&text, '\n', &line)) {
        struct slice hierarchy, controllers;
        if (!slice_split(&line, ':', &hierarchy) || !slice_split(&line, ':', &controllers) ||
            line.data == NULL) {
            continue;
        }
        if (controllers.size == 0) {
            quota = smaller(quota, smallest_above(root, line, quota_of_2));
        } else if (names_cpu(controllers)) {
            char *mount = xprintf("%s/%.*s", root, SLICE_ARGUMENTS(controllers));
            quota = smaller(quota, smallest_above(mount, line, quota_of_1));
            free(mount);
        }
    }
    return quota;
}

size_t cpu_count(void)
{
    cpu_set_t set;
    size_t count = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        count = (size_t)CPU_COUNT(&set);
    }
    char *membership = read_text("/proc/self/cgroup");
    double quota = membership != NULL ? cpu_quota("/sys/fs/cgroup", membership) : 0;
    free(membership);
    if (quota > 0 && quota < (double)count) {
        size_t whole = (size_t)quota;
        count = whole + ((double)whole < quota ? 1 : 0);
    }
    return count > 0 ? count : 1;
}
