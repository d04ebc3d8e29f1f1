/*
 * folder: see folder.h.
 */
#include "spool/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"

#define LOCK_NAME "lock"

static const char *reason(int code)
{
    return code == ELOOP ? "is a symbolic link, which is not followed here: name the place itself"
                         : strerror(code);
}

/* A new folder is durable when the one it is in was synced. Where we may not read that one, the file system has to see to it. */
static void sync_parent(const char *path)
{
    char *copy = xstrdup(path), *parent = dirname(copy);
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(copy);
}

/* Its parent is there. False: *error, and errno. */
static bool make_one(const char *path, struct error *error)
{
    if (mkdir(path, 0700) == 0) {
        sync_parent(path);
        return true;
    }
    int code = errno;
    if (code != EEXIST)
        error_set(error, "%s: cannot be created: %s", path, strerror(code));
    errno = code;
    return code == EEXIST;
}

bool folder_make(const char *path, struct error *error)
{
    char *partial = xstrdup(path);
    bool made = true;
    for (char *at = partial + 1; made && *at != '\0'; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        made = make_one(partial, error);
        *at = '/';
    }
    made = made && make_one(path, error);
    free(partial);
    return made;
}

int folder_open(const char *path, bool create, struct error *error)
{
    struct stat status;
    if (create && !make_one(path, error))
        return -1;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        int code = errno;
        if (code == ENOTDIR && lstat(path, &status) == 0 && S_ISLNK(status.st_mode))
            code = ELOOP;
        error_set(error, "%s: %s", path, reason(code));
        errno = code;
    }
    return fd;
}

int folder_open_file(int folder, const char *path, const char *name, int flags, struct error *error)
{
    struct stat status;
    int code = 0;
    /* O_NONBLOCK: a pipe of that name does not hold us up. */
    int fd = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0 || fstat(fd, &status) != 0) {
        code = errno;
    } else if (!S_ISREG(status.st_mode)) {
        code = EINVAL;
    }
    if (code == 0)
        return fd;
    error_set(error, "%s/%s: %s", path, name, code == EINVAL ? "is no plain file" : reason(code));
    if (fd >= 0)
        close(fd);
    errno = code;
    return -1;
}

bool folder_sync(int folder, const char *path, struct error *error)
{
    if (fsync(folder) == 0)
        return true;
    error_set(error, "%s: fsync: %s", path, strerror(errno));
    return false;
}

bool folder_list(int folder, const char *path, void (*visit)(void *argument, const char *name),
                 void *argument, struct error *error)
{
    /* A descriptor of its own: the position in a folder belongs to the open file. */
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *names = fd >= 0 ? fdopendir(fd) : NULL;
    if (names == NULL) {
        error_set(error, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    struct dirent *entry;
    while (errno = 0, (entry = readdir(names)) != NULL) {
        visit(argument, entry->d_name);
    }
    int code = errno;
    closedir(names);
    if (code != 0)
        error_set(error, "%s: %s", path, strerror(code));
    return code == 0;
}

int folder_lock(int folder, const char *path, struct error *error)
{
    char pid[24] = "";
    int fd = folder_open_file(folder, path, LOCK_NAME, O_RDWR | O_CREAT, error);
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int code = errno;
        ssize_t got = pread(fd, pid, sizeof pid - 1, 0);
        pid[got > 0 ? strcspn(pid, "\n") : 0] = '\0';
        if (code == EWOULDBLOCK)
            error_set(error, "%s is used by another process (pid %s): stop it, or use another folder", path,
                      pid[0] != '\0' ? pid : "unknown");
        else
            error_set(error, "%s/%s: cannot be locked: %s", path, LOCK_NAME, strerror(code));
        close(fd);
        return -1;
    }
    int size = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)size, 0) != size)
        log_warn("the lock file does not tell our process id", log_string("folder", path),
                 log_string("error", strerror(errno)));
    return fd;
}
