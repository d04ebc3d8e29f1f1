/*
 * new: begins a plugin: a file that works, and its test, made from lua/llmproxy/templates.
 */
#include "command/new.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "command/command.h"

#define MAX_TEMPLATE_BYTES (1 << 20)

static const struct {
    const char *name, *folder;
} kinds[] = {{"transform", "transforms"}, {"dispatcher", "dispatchers"}, {"bus", "buses"}};

static const char *folder_of(const char *kind)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kind, kinds[i].name) == 0) {
            return kinds[i].folder;
        }
    }
    return NULL;
}

static bool is_name(const char *name)
{
    return name[0] != '\0' && name[0] != '-' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == strlen(name);
}

/* The folder and those above it. */
static bool make_folder(const char *path)
{
    char *copy = xstrdup(path);
    bool fine = true;
    for (char *end = strchr(copy + 1, '/'); fine && end != NULL; end = strchr(end + 1, '/')) {
        *end = '\0';
        fine = mkdir(copy, 0777) == 0 || errno == EEXIST;
        *end = '/';
    }
    fine = fine && (mkdir(copy, 0777) == 0 || errno == EEXIST);
    if (!fine) {
        command_error("%s: %s", path, strerror(errno));
    }
    free(copy);
    return fine;
}

/* The template with the plugin's name in it. */
static bool fill_in(const char *template, const char *name, struct buffer *out)
{
    struct buffer text = {0};
    struct error error;
    bool fine = file_read(template, MAX_TEMPLATE_BYTES, &text, &error);
    struct slice rest = buffer_slice(&text), line;
    while (fine && rest.size > 0) {
        slice_split(&rest, '\n', &line);
        const char *mark = memmem(line.data, line.size, "NAME", 4);
        while (mark != NULL) {
            buffer_append(out, line.data, (size_t)(mark - line.data));
            buffer_append_string(out, name);
            line.size -= (size_t)(mark - line.data) + 4;
            line.data = mark + 4;
            mark = memmem(line.data, line.size, "NAME", 4);
        }
        buffer_append(out, line.data, line.size);
        buffer_append_char(out, '\n');
    }
    if (!fine) {
        command_error("%s", error.message);
    }
    buffer_free(&text);
    return fine;
}

static bool write_new(const char *path, const struct buffer *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    bool fine = fd >= 0 && write(fd, buffer_data(text), text->size) == (ssize_t)text->size;
    if (!fine) {
        command_error("%s: %s", path,
                      errno == EEXIST ? "is there already, and nothing is written over it" : strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return fine;
}

static bool is_free(const char *path)
{
    if (access(path, F_OK) == 0) {
        command_error("%s: is there already, and nothing is written over it", path);
        return false;
    }
    return true;
}

int new_plugin(const char *kind, const char *name, const char *folder)
{
    if (folder_of(kind) == NULL) {
        command_error("plugins new: expected transform, dispatcher or bus, got '%s'", kind);
        return EXIT_USAGE;
    }
    if (!is_name(name)) {
        command_error("plugins new: expected a name of small letters, digits, '_' and '-', got '%s'", name);
        return EXIT_USAGE;
    }
    char *share = config_share_folder(NULL);
    char *templates = xprintf("%s/lua/llmproxy/templates/%s", share, kind);
    char *template = xprintf("%s.lua", templates), *spec_template = xprintf("%s_spec.lua", templates);
    char *plugins = xprintf("%s/%s", folder, folder_of(kind)), *tests = xprintf("%s/tests", folder);
    char *path = xprintf("%s/%s.lua", plugins, name), *spec = xprintf("%s/%s_spec.lua", tests, name);
    struct buffer text = {0}, spec_text = {0};
    bool fine = is_free(path) && is_free(spec) && fill_in(template, name, &text) &&
                fill_in(spec_template, name, &spec_text) && make_folder(plugins) && make_folder(tests) &&
                write_new(path, &text) && write_new(spec, &spec_text);
    int status = EXIT_FAILED;
    if (fine) {
        char *done = xprintf(
            "%s\n%s\n\nTry it:  llm-proxy test %s\nUse it:  plugin_path = { \"%s\" } in the configuration, "
            "and \"%s\" in a pipeline\n",
            path, spec, spec, folder, name);
        status = command_print(done);
        free(done);
    }
    buffer_free(&text);
    buffer_free(&spec_text);
    free(spec);
    free(path);
    free(tests);
    free(plugins);
    free(spec_template);
    free(template);
    free(templates);
    free(share);
    return status;
}
