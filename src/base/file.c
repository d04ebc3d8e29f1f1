/*
 * file: see file.h.
 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

bool file_read(const char *path, size_t limit, struct buffer *out, struct error *error)
{
    enum { PIECE = 16384 };
    struct stat status;
    bool done = false;
    size_t total = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) {
        error_set(error, "%s: %s", path, strerror(errno));
        goto end;
    }
    if (S_ISDIR(status.st_mode)) {
        error_set(error, "%s: is a folder", path);
        goto end;
    }
    for (;;) {
        ssize_t got = read(fd, buffer_reserve(out, PIECE), PIECE);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            error_set(error, "%s: %s", path, strerror(errno));
            break;
        }
        if (got == 0) {
            done = true;
            break;
        }
        buffer_commit(out, (size_t)got);
        total += (size_t)got;
        if (total > limit) {
            error_set(error, "%s: is larger than %zu bytes", path, limit);
            break;
        }
    }
end:
    if (!done)
        out->size -= total;
    if (fd >= 0)
        close(fd);
    return done;
}

char *file_program_folder(void)
{
    char path[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path);
    if (size <= 0 || (size_t)size == sizeof path)
        return NULL;
    const char *slash = memrchr(path, '/', (size_t)size);
    return slash != NULL ? xmemdup(path, slash > path ? (size_t)(slash - path) : 1) : NULL;
}

char *file_path_below(const char *folder, const char *path)
{
    if (path[0] == '/' || folder[0] == '\0')
        return xstrdup(path);
    bool has_slash = folder[strlen(folder) - 1] == '/';
    return xprintf("%s%s%s", folder, has_slash ? "" : "/", path);
}
