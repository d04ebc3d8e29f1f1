/*
 * fixture: a temporary folder with files for one test, and the environment variables of the configuration taken out of the way.
 */
#ifndef TESTS_CONFIG_FIXTURE_H
#define TESTS_CONFIG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "config/config.h"

static char folder[] = "/tmp/llm-proxy-config-XXXXXX";
static struct buffer errors __attribute__((unused)); /* of the last load */

static void clear_environment(void)
{
    static const char *const names[] = {"OBSERVABILITY_ENABLED",
                                        "OBSERVABILITY_BUFFER_SIZE",
                                        "OBSERVABILITY_MAX_REQUEST_BODY_BYTES",
                                        "OBSERVABILITY_MAX_RESPONSE_BODY_BYTES",
                                        "OBSERVABILITY_BUS",
                                        "OBSERVABILITY_FILE",
                                        "LISTEN_ADDR",
                                        "ADMIN_ADDR",
                                        "ADMIN_TOKEN",
                                        "UPSTREAM_URL",
                                        "LLM_PROXY_CONFIG",
                                        "LLM_PROXY_PLUGINS",
                                        "LOG_LEVEL",
                                        "LOG_FORMAT",
                                        "HTTPS_PROXY",
                                        "https_proxy",
                                        "NO_PROXY",
                                        "no_proxy",
                                        "TEST_VALUE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        unsetenv(names[i]);
    }
}

/* Before each test. */
static inline int clear_before(void **state)
{
    (void)state;
    clear_environment();
    return 0;
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/llm-proxy-config-XXXXXX");
    clear_environment();
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

static int remove_folder(void **state)
{
    (void)state;
    buffer_free(&errors);
    return nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* The path of a file in the folder; valid until the next call but three. */
static inline const char *path_of(const char *name)
{
    static char paths[4][300];
    static size_t next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* Folders on the way are made. */
static inline const char *write_file(const char *name, const char *text)
{
    const char *path = path_of(name);
    char part[300];
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        mkdir(part, 0700);
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

static inline struct config *load_described(const char *file, enum config_describe describe)
{
    buffer_clear(&errors);
    struct config *config = config_load(
        &(struct config_source){.file = file, .folder = SOURCE_DIR, .describe = describe}, &errors);
    buffer_append_char(&errors, '\0');
    return config;
}

/* Of a file with that text, or of none. */
static inline struct config *load(const char *text)
{
    return load_described(text != NULL ? write_file("config.lua", text) : NULL, CONFIG_DESCRIBE_NOTHING);
}

static inline struct config *load_well(const char *text)
{
    struct config *config = load(text);
    if (config == NULL) {
        fail_msg("unexpected errors: %s", buffer_data(&errors));
    }
    return config;
}

static inline void assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("expected \"%s\" in: %s", part, text);
    }
}

static inline void assert_lacks(const char *text, const char *part)
{
    if (strstr(text, part) != NULL) {
        fail_msg("expected no \"%s\" in: %s", part, text);
    }
}

/* Loading a file with that text fails with exactly one error, which has the part in it. */
static inline void assert_one_error(const char *text, const char *part)
{
    struct config *config = load(text);
    if (config != NULL) {
        config_free(config);
        fail_msg("expected an error with \"%s\"", part);
    }
    const char *lines = buffer_data(&errors);
    assert_contains(lines, part);
    assert_ptr_equal(strchr(lines, '\n'), strrchr(lines, '\n'));
}

#endif
