/*
 * disk_faults: a library to preload (LD_PRELOAD) that makes the disk fail for a running program, when a test says so.
 *
 *     DISK_FAULTS_FOLDER    files below this folder are concerned, no others
 *     DISK_FAULTS_CONTROL   a folder in which the test puts:
 *         full         while it is there, nothing can be written or allocated: ENOSPC
 *         sync_fails   a number: so many calls of fdatasync and fsync fail with EIO; the file counts down, and is gone when they have
 *         sync_takes   milliseconds that each of these calls takes longer while it is there
 *
 * Under a sanitizer's runtime: ASAN_OPTIONS=verify_asan_link_order=0.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static bool is_concerned(int fd)
{
    const char *folder = getenv("DISK_FAULTS_FOLDER");
    char link[32], path[PATH_MAX];
    if (folder == NULL || getenv("DISK_FAULTS_CONTROL") == NULL)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    size_t length = strlen(folder);
    return size >= (ssize_t)length && memcmp(path, folder, length) == 0 &&
           (size == (ssize_t)length || path[length] == '/');
}

static void control_path(const char *name, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s", getenv("DISK_FAULTS_CONTROL"), name);
}

/* Its number; 0: there is no such file. */
static long read_control(const char *name)
{
    char path[PATH_MAX], text[24] = "";
    control_path(name, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    return got > 0 ? strtol(text, NULL, 10) : 0;
}

static bool is_full(int fd)
{
    char path[PATH_MAX];
    if (!is_concerned(fd))
        return false;
    control_path("full", path);
    if (access(path, F_OK) != 0)
        return false;
    errno = ENOSPC;
    return true;
}

static void count_down(long left)
{
    char path[PATH_MAX], making[PATH_MAX], text[24];
    control_path("sync_fails", path);
    if (left == 0) {
        unlink(path);
        return;
    }
    control_path("sync_fails.new", making);
    int fd = open(making, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int size = snprintf(text, sizeof text, "%ld\n", left);
    if (fd < 0 || syscall(SYS_write, fd, text, (size_t)size) != size || rename(making, path) != 0)
        abort();
    close(fd);
}

static bool sync_fails(int fd)
{
    if (!is_concerned(fd))
        return false;
    long milliseconds = read_control("sync_takes");
    if (milliseconds > 0)
        nanosleep(&(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000}, NULL);
    pthread_mutex_lock(&mutex);
    long left = read_control("sync_fails");
    if (left > 0)
        count_down(left - 1);
    pthread_mutex_unlock(&mutex);
    if (left > 0)
        errno = EIO;
    return left > 0;
}

int fdatasync(int fd)
{
    return sync_fails(fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return sync_fails(fd) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return is_full(fd) ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    return fallocate(fd, 0, offset, size) == 0 ? 0 : errno;
}

ssize_t write(int fd, const void *data, size_t size)
{
    return is_full(fd) ? -1 : syscall(SYS_write, fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return is_full(fd) ? -1 : syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    return is_full(fd) ? -1 : syscall(SYS_writev, fd, pieces, count);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    return is_full(fd) ? -1 : syscall(SYS_pwritev, fd, pieces, count, offset, 0);
}

/* The same under the names that programs with _FILE_OFFSET_BITS=64 call. */
int fallocate64(int fd, int mode, off64_t offset, off64_t size) __attribute__((alias("fallocate")));
int posix_fallocate64(int fd, off64_t offset, off64_t size) __attribute__((alias("posix_fallocate")));
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) __attribute__((alias("pwrite")));
ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset)
    __attribute__((alias("pwritev")));
