/* Appending whole lines; the promises are in line_file.h. */
#include "script/line_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "base/memory.h"

#define STALL_MS       5000
#define MAX_LINE_BYTES (64 << 20)
#define BLOCK_BYTES    65536
#define DEVICES        "/dev/"

struct line_file {
    char *path;
    int fd;                        /* -1: opened before the next write */
    bool regular;                  /* and ours: can be cut back */
    struct buffer unfinished;      /* the rest of a line that a pipe took the beginning of */
    struct rotated_files *rotated; /* NULL: not rotated */
    double born;                   /* seconds since 1970 */
};

static pthread_mutex_t stdout_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct line_file standard_output = {.path = (char *)"the standard output", .fd = STDOUT_FILENO};

static bool fail(struct error *error, const char *path, const char *doing)
{
    error_set(error, "%s: cannot %s: %s", path, doing, strerror(errno));
    return false;
}

/* Opening */

static bool fail_open(struct error *error, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (errno == ENOENT && slash != NULL && slash != path) {
        error_set(error, "%s: the folder %.*s does not exist", path, (int)(slash - path), path);
    } else if (errno == ELOOP) {
        error_set(error, "%s: is a symbolic link, which is not followed", path);
    } else if (errno == ENXIO) {
        error_set(error, "%s: nobody reads this pipe", path);
    } else {
        return fail(error, path, "open");
    }
    return false;
}

/* The offset behind the last newline before size, 0 when there is none; -1: *error. */
static off_t find_line_end(int fd, off_t size, const char *path, struct error *error)
{
    char block[BLOCK_BYTES];
    off_t end = size;
    while (end > 0) {
        if (size - end > MAX_LINE_BYTES) {
            error_set(error,
                      "%s: the last line has no end and more than 64 MiB: this is no file of lines, and is "
                      "left as it is",
                      path);
            return -1;
        }
        off_t begin = end > BLOCK_BYTES ? end - BLOCK_BYTES : 0;
        ssize_t got = pread(fd, block, (size_t)(end - begin), begin);
        if (got != end - begin) {
            fail(error, path, "read");
            return -1;
        }
        const char *newline = memrchr(block, '\n', (size_t)got);
        if (newline != NULL) {
            return begin + (newline - block) + 1;
        }
        end = begin;
    }
    return 0;
}

static bool cut_torn_line(int fd, const char *path, struct error *error)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return fail(error, path, "look at it");
    }
    off_t end = find_line_end(fd, status.st_size, path, error);
    if (end < 0) {
        return false;
    }
    if (end < status.st_size) {
        if (ftruncate(fd, end) != 0) {
            return fail(error, path, "cut off its torn last line");
        }
        log_warn("cut off a torn last line", log_string("path", path),
                 log_integer("bytes", status.st_size - end));
    }
    return true;
}

/* Whether the path leads to the open file with this status. */
static bool is_in_place(const char *path, const struct stat *status)
{
    struct stat there;
    return lstat(path, &there) == 0 && there.st_dev == status->st_dev && there.st_ino == status->st_ino;
}

static bool set_up_regular(int fd, const char *path, struct error *error)
{
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) {
            return fail(error, path, "lock");
        }
        error_set(error, "%s: another process, pipeline or handle writes to it", path);
        return false;
    }
    return cut_torn_line(fd, path, error);
}

/* Of the open file: when it was made, or now, where the file system does not know. */
static double time_of_birth(int fd)
{
    struct statx status;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &status) == 0 && (status.stx_mask & STATX_BTIME) != 0) {
        return (double)status.stx_btime.tv_sec + status.stx_btime.tv_nsec / 1e9;
    }
    return (double)clock_realtime_us() / 1e6;
}

static bool open_path(struct line_file *file, struct error *error)
{
    struct stat status;
    bool stream = stat(file->path, &status) == 0 && !S_ISREG(status.st_mode);
    int flags = O_APPEND | O_CLOEXEC | (stream ? O_WRONLY | O_NONBLOCK | O_NOCTTY : O_RDWR | O_CREAT);
    if (strncmp(file->path, DEVICES, strlen(DEVICES)) != 0) {
        flags |= O_NOFOLLOW;
    }
    int fd = open(file->path, flags, 0600);
    if (fd < 0) {
        return fail_open(error, file->path);
    }
    bool regular = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    if (regular && !set_up_regular(fd, file->path, error)) {
        close(fd);
        return false;
    }
    if (regular && (flags & O_NOFOLLOW) != 0 && !is_in_place(file->path, &status)) {
        close(fd); /* its writer rotated it before the lock was ours */
        error_set(error, "%s: was moved away while it was opened", file->path);
        return false;
    }
    file->fd = fd;
    file->regular = regular;
    file->born = time_of_birth(fd);
    return true;
}

/* Rotating */

static bool is_due(struct line_file *file, const struct stat *status, size_t more)
{
    const struct rotation *rotation = rotated_files_rotation(file->rotated);
    double now = (double)clock_realtime_us() / 1e6;
    if (status->st_size == 0) {
        file->born = now;
        return false;
    }
    return (rotation->max_bytes > 0 && (uint64_t)status->st_size + more > rotation->max_bytes) ||
           (rotation->max_age > 0 && now - file->born >= rotation->max_age);
}

/* Moves the file away when it is full or old; the new one has its mode. False: there is no file to write to. */
static bool rotate_when_due(struct line_file *file, size_t more, struct error *error)
{
    static struct log_limit limit;
    struct stat status;
    if (!file->regular || file->rotated == NULL || fstat(file->fd, &status) != 0 ||
        !is_due(file, &status, more)) {
        return true;
    }
    if (is_in_place(file->path, &status)) {
        char *name = rotated_files_next_name(file->rotated);
        bool moved = rename(file->path, name) == 0;
        free(name);
        uint64_t suppressed;
        if (!moved) {
            if (log_limit_pass(&limit, &suppressed)) {
                const char *reason = strerror(errno);
                log_warn("cannot rotate a file: it grows", log_string("path", file->path),
                         log_string("reason", reason), log_suppressed(suppressed));
            }
            return true;
        }
    } /* else another tool has moved it, and its signal is not here yet */
    line_file_reopen(file);
    if (!open_path(file, error)) {
        return false;
    }
    fchmod(file->fd, status.st_mode & 0777);
    rotated_files_tidy(file->rotated);
    return true;
}

/* Writing */

/* Bytes written; less than all: errno says why. */
static size_t write_all(int fd, struct slice text)
{
    size_t written = 0;
    while (written < text.size) {
        ssize_t n = write(fd, text.data + written, text.size - written);
        if (n >= 0) {
            written += (size_t)n;
        } else if (errno != EINTR) {
            break;
        }
    }
    return written;
}

static bool write_regular(struct line_file *file, struct slice text, struct error *error)
{
    struct stat before;
    if (fstat(file->fd, &before) != 0) {
        return fail(error, file->path, "look at it");
    }
    if (write_all(file->fd, text) == text.size) {
        return true;
    }
    fail(error, file->path, "write");
    if (ftruncate(file->fd, before.st_size) != 0) {
        line_file_reopen(file); /* which cuts off what is left of a line */
    }
    return false;
}

static bool wait_for_room(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    int ready;
    do {
        ready = poll(&poll_fd, 1, STALL_MS);
    } while (ready < 0 && errno == EINTR);
    if (ready == 0) {
        errno = ETIMEDOUT;
    }
    return ready > 0;
}

/* Pieces that a pipe with room takes without blocking, whatever the mode of the descriptor, which others may share. */
static size_t write_stream(int fd, struct slice text)
{
    struct stat status;
    bool may_block = fstat(fd, &status) != 0 || !S_ISREG(status.st_mode);
    if (!may_block) {
        return write_all(fd, text);
    }
    size_t written = 0;
    while (written < text.size && wait_for_room(fd)) {
        size_t size = text.size - written < PIPE_BUF ? text.size - written : PIPE_BUF;
        ssize_t n = write(fd, text.data + written, size);
        if (n >= 0) {
            written += (size_t)n;
        } else if (errno != EINTR && errno != EAGAIN) {
            break;
        }
    }
    return written;
}

/* A line was begun if what was written does not end in a newline: keeps the rest of it. */
static void keep_unfinished(struct line_file *file, struct slice text, size_t written)
{
    if (written == 0 || text.data[written - 1] == '\n') {
        return;
    }
    const char *newline = memchr(text.data + written, '\n', text.size - written);
    size_t end = newline != NULL ? (size_t)(newline - text.data) + 1 : text.size;
    buffer_append(&file->unfinished, text.data + written, end - written);
}

static bool write_lines(struct line_file *file, struct slice text, struct error *error)
{
    size_t finished = write_stream(file->fd, buffer_slice(&file->unfinished));
    buffer_consume(&file->unfinished, finished);
    if (file->unfinished.size == 0) {
        size_t written = write_stream(file->fd, text);
        if (written == text.size) {
            return true;
        }
        keep_unfinished(file, text, written);
    }
    if (errno == ETIMEDOUT) {
        error_set(error, "%s: its reader took nothing for %d s", file->path, STALL_MS / 1000);
        return false;
    }
    if (errno == EPIPE) { /* the next reader begins with a line of its own */
        buffer_clear(&file->unfinished);
    }
    fail(error, file->path, "write");
    if (file != &standard_output) {
        line_file_reopen(file);
    }
    return false;
}

struct line_file *line_file_open(const char *path, const struct rotation *rotation, struct error *error)
{
    struct line_file *file = xcalloc(1, sizeof *file);
    file->path = xstrdup(path);
    if (!open_path(file, error)) {
        file->fd = -1;
        line_file_close(file);
        return NULL;
    }
    if (rotation != NULL && strncmp(path, DEVICES, strlen(DEVICES)) != 0) {
        file->rotated = rotated_files_new(path, rotation);
        rotated_files_tidy(file->rotated);
    }
    return file;
}

struct line_file *line_file_stdout(void)
{
    return &standard_output;
}

bool line_file_write(struct line_file *file, struct slice text, struct error *error)
{
    if (file == &standard_output) {
        pthread_mutex_lock(&stdout_mutex);
        bool written = write_lines(file, text, error);
        pthread_mutex_unlock(&stdout_mutex);
        return written;
    }
    if ((file->fd < 0 && !open_path(file, error)) || !rotate_when_due(file, text.size, error)) {
        return false;
    }
    return file->regular ? write_regular(file, text, error) : write_lines(file, text, error);
}

void line_file_reopen(struct line_file *file)
{
    if (file != &standard_output && file->fd >= 0) {
        close(file->fd);
        file->fd = -1;
    }
}

void line_file_close(struct line_file *file)
{
    if (file == NULL || file == &standard_output) {
        return;
    }
    line_file_reopen(file);
    rotated_files_free(file->rotated);
    buffer_free(&file->unfinished);
    free(file->path);
    free(file);
}

/* Replacing */

static bool write_durably(const char *path, struct slice text, const char *shown_path, struct error *error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return fail_open(error, shown_path);
    }
    bool written = write_all(fd, text) == text.size && fsync(fd) == 0;
    if (!written) {
        fail(error, shown_path, "write");
    }
    close(fd);
    return written;
}

static void sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? xstrdup(".") : xmemdup(path, (size_t)(slash - path) + 1);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

bool line_file_replace(const char *path, struct slice text, struct error *error)
{
    char id[UUID_TEXT_SIZE];
    uuid4(id);
    char *temporary = xprintf("%s.%s", path, id);
    bool replaced = write_durably(temporary, text, path, error);
    if (replaced && rename(temporary, path) != 0) {
        replaced = fail(error, path, "replace");
    }
    if (replaced) {
        sync_folder_of(path);
    } else {
        unlink(temporary);
    }
    free(temporary);
    return replaced;
}
