/* Names, compression and retention of rotated files; the promises are in rotated_files.h. */
#include "script/rotated_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

#define STAMP                                                                                                \
    "dddddddd"                                                                                               \
    "T"                                                                                                      \
    "dddddd"                                                                                                 \
    "."                                                                                                      \
    "ddd"                                                                                                    \
    "Z" /* the moment of rotation, UTC */
#define STAMP_SIZE  (sizeof STAMP - 1)
#define COMPRESSED  ".gz"
#define UNFINISHED  ".gz.part"
#define BLOCK_BYTES 65536

struct rotated_files {
    char *path, *folder;
    const char *base; /* the path's last part */
    struct rotation rotation;
    uint64_t latest_ms; /* in a name; also one that was deleted since is not used again */
    atomic_bool stop;
    bool started; /* thread is to be joined */
    pthread_t thread;
    pthread_mutex_t mutex; /* of the two below */
    bool running, wanted;
};

struct rotated_files *rotated_files_new(const char *path, const struct rotation *rotation)
{
    struct rotated_files *files = xcalloc(1, sizeof *files);
    files->path = xstrdup(path);
    const char *slash = strrchr(files->path, '/');
    files->base = slash != NULL ? slash + 1 : files->path;
    files->folder = slash == NULL ? xstrdup(".") : xmemdup(path, (size_t)(files->base - files->path));
    files->rotation = *rotation;
    pthread_mutex_init(&files->mutex, NULL);
    return files;
}

void rotated_files_free(struct rotated_files *files)
{
    if (files == NULL) {
        return;
    }
    atomic_store(&files->stop, true);
    if (files->started) {
        pthread_join(files->thread, NULL);
    }
    pthread_mutex_destroy(&files->mutex);
    free(files->path);
    free(files->folder);
    free(files);
}

const struct rotation *rotated_files_rotation(const struct rotated_files *files)
{
    return &files->rotation;
}

/* Names */

static bool is_taken(const char *name)
{
    struct stat status;
    char *compressed = xprintf("%s" COMPRESSED, name);
    bool taken = lstat(name, &status) == 0 || lstat(compressed, &status) == 0;
    free(compressed);
    return taken;
}

char *rotated_files_next_name(struct rotated_files *files)
{
    uint64_t now_ms = clock_realtime_us() / 1000;
    for (now_ms = now_ms > files->latest_ms ? now_ms : files->latest_ms + 1;; now_ms++) {
        char seconds[32];
        struct tm parts;
        time_t now = (time_t)(now_ms / 1000);
        gmtime_r(&now, &parts);
        strftime(seconds, sizeof seconds, "%Y%m%dT%H%M%S", &parts);
        char *name = xprintf("%s-%s.%03uZ", files->path, seconds, (unsigned)(now_ms % 1000));
        if (!is_taken(name)) {
            files->latest_ms = now_ms;
            return name;
        }
        free(name);
    }
}

/* What stands behind the moment in the name of a rotated file of ours; NULL: it is none. */
static const char *suffix_of(const struct rotated_files *files, const char *name)
{
    size_t base_size = strlen(files->base);
    if (strncmp(name, files->base, base_size) != 0 || name[base_size] != '-') {
        return NULL;
    }
    const char *stamp = name + base_size + 1;
    for (size_t i = 0; i < STAMP_SIZE; i++) {
        bool digit = stamp[i] >= '0' && stamp[i] <= '9';
        if (STAMP[i] == 'd' ? !digit : stamp[i] != STAMP[i]) {
            return NULL;
        }
    }
    const char *suffix = stamp + STAMP_SIZE;
    return *suffix == '\0' || strcmp(suffix, COMPRESSED) == 0 || strcmp(suffix, UNFINISHED) == 0 ? suffix
                                                                                                 : NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of our rotated files, the oldest first; each and the list are new strings. */
static char **list_names(const struct rotated_files *files, int folder, size_t *count)
{
    struct buffer names = {0};
    int fd = dup(folder);
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
    if (stream == NULL && fd >= 0) {
        close(fd);
    }
    for (struct dirent *entry; stream != NULL && (entry = readdir(stream)) != NULL;) {
        if (suffix_of(files, entry->d_name) != NULL) {
            char *name = xstrdup(entry->d_name);
            buffer_append(&names, &name, sizeof name);
        }
    }
    if (stream != NULL) {
        closedir(stream);
    }
    *count = names.size / sizeof(char *);
    if (*count > 0) {
        qsort(buffer_data(&names), *count, sizeof(char *), compare_names);
    }
    return (char **)(void *)names.block;
}

/* Compressing */

static bool is_regular(int folder, const char *name)
{
    struct stat status;
    return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode);
}

static void tell_failure(const struct rotated_files *files, const char *message, const char *name)
{
    const char *reason = strerror(errno);
    log_warn(message, log_string("folder", files->folder), log_string("name", name),
             log_string("reason", reason));
}

/* False: stopped, or errno says why not. */
static bool copy_compressed(const struct rotated_files *files, int in, gzFile out)
{
    char block[BLOCK_BYTES];
    for (;;) {
        ssize_t got = read(in, block, sizeof block);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got == 0;
        }
        errno = EIO;
        if (gzwrite(out, block, (unsigned)got) != got || atomic_load(&files->stop)) {
            return false;
        }
    }
}

/* The compressed bytes of in, durable, in the new file out. */
static bool write_compressed(const struct rotated_files *files, int in, int out)
{
    int fd = dup(out);
    gzFile stream = fd >= 0 ? gzdopen(fd, "wb") : NULL;
    if (stream == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    bool copied = copy_compressed(files, in, stream);
    int reason = errno;
    if (gzclose(stream) != Z_OK && copied) {
        return false;
    }
    errno = copied ? 0 : reason;
    return copied && fsync(out) == 0;
}

static bool compress_into(const struct rotated_files *files, int folder, int in, const char *unfinished,
                          const char *compressed)
{
    struct stat status;
    if (fstat(in, &status) != 0 || (unlinkat(folder, unfinished, 0) != 0 && errno != ENOENT)) {
        return false;
    }
    int out = openat(folder, unfinished, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out < 0) {
        return false;
    }
    bool written = write_compressed(files, in, out) && fchmod(out, status.st_mode & 0777) == 0 &&
                   renameat(folder, unfinished, folder, compressed) == 0 && fsync(folder) == 0;
    int reason = errno;
    if (!written) {
        unlinkat(folder, unfinished, 0);
    }
    close(out);
    errno = reason;
    return written;
}

/* The lock keeps away from a file that somebody still writes to, or another process compresses. */
static bool compress_file(const struct rotated_files *files, int folder, const char *name)
{
    int in = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (in < 0) {
        return errno == ELOOP || errno == ENOENT;
    }
    char *unfinished = xprintf("%s" UNFINISHED, name), *compressed = xprintf("%s" COMPRESSED, name);
    bool done = true;
    if (is_regular(folder, name) && flock(in, LOCK_EX | LOCK_NB) == 0) {
        bool there = is_regular(folder, compressed); /* an end came between the two last steps */
        done = there || compress_into(files, folder, in, unfinished, compressed);
        if (done) {
            unlinkat(folder, name, 0);
        } else if (!atomic_load(&files->stop)) {
            tell_failure(files, "cannot compress a rotated file", name);
        }
    }
    free(unfinished);
    free(compressed);
    close(in);
    return done;
}

/* Tidying */

static bool same_moment(const struct rotated_files *files, const char *a, const char *b)
{
    return strncmp(a, b, strlen(files->base) + 1 + STAMP_SIZE) == 0;
}

/* How many of the names, which are sorted, are of files older than those that are kept. */
static size_t count_surplus(const struct rotated_files *files, char **names, size_t count)
{
    unsigned moments = 0;
    for (size_t i = count; files->rotation.keep > 0 && i > 0; i--) {
        if (i == count || !same_moment(files, names[i - 1], names[i])) {
            if (moments == files->rotation.keep) {
                return i;
            }
            moments++;
        }
    }
    return 0;
}

static void delete_file(const struct rotated_files *files, int folder, const char *name)
{
    if (is_regular(folder, name) && unlinkat(folder, name, 0) != 0) {
        tell_failure(files, "cannot delete a rotated file", name);
    }
}

static void tidy_once(const struct rotated_files *files)
{
    int folder = open(files->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        tell_failure(files, "cannot tidy up rotated files", files->base);
        return;
    }
    size_t count;
    char **names = list_names(files, folder, &count);
    size_t surplus = count_surplus(files, names, count);
    bool going = true;
    for (size_t i = 0; i < count; i++) {
        if (i < surplus) {
            delete_file(files, folder, names[i]);
        } else if (going && files->rotation.compress && *suffix_of(files, names[i]) == '\0') {
            going = compress_file(files, folder, names[i]) && !atomic_load(&files->stop);
        }
        free(names[i]);
    }
    free(names);
    close(folder);
}

/* Until nothing is wanted any more. */
static void *tidy(void *argument)
{
    struct rotated_files *files = argument;
    for (;;) {
        pthread_mutex_lock(&files->mutex);
        bool done = !files->wanted || atomic_load(&files->stop);
        files->wanted = false;
        files->running = !done;
        pthread_mutex_unlock(&files->mutex);
        if (done) {
            return NULL;
        }
        tidy_once(files);
    }
}

void rotated_files_tidy(struct rotated_files *files)
{
    if (files->rotation.keep == 0 && !files->rotation.compress) {
        return;
    }
    pthread_mutex_lock(&files->mutex);
    bool running = files->running;
    files->wanted = files->running = true;
    pthread_mutex_unlock(&files->mutex);
    if (running) {
        return;
    }
    if (files->started) {
        pthread_join(files->thread, NULL);
    }
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the main thread */
    errno = pthread_create(&files->thread, NULL, tidy, files);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    files->started = errno == 0;
    if (!files->started) {
        files->running = false;
        tell_failure(files, "cannot tidy up rotated files", files->base);
    }
}
