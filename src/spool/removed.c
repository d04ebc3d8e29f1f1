/*
 * A new file is written beside the old one and takes its name. Whoever waited for the lock of the old one looks whether it still has the name.
 */
#include "spool/removed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/little_endian.h"
#include "base/memory.h"
#include "spool/crc32c.h"
#include "spool/folder.h"

#define NAME       "removed"
#define NEW_NAME   "removed.new"
#define FRAME_SIZE 12u

/* Locked, and the one that has the name. -1: *error. */
static int open_locked(int folder, const char *path, struct error *error)
{
    struct stat opened, named;
    for (;;) {
        int fd = folder_open_file(folder, path, NAME, O_RDWR | O_CREAT | O_APPEND, error);
        if (fd < 0)
            return -1;
        int result;
        do
            result = flock(fd, LOCK_EX);
        while (result != 0 && errno == EINTR);
        if (result != 0 || fstat(fd, &opened) != 0) {
            error_set(error, "%s/" NAME ": %s", path, strerror(errno));
            close(fd);
            return -1;
        }
        if (fstatat(folder, NAME, &named, AT_SYMLINK_NOFOLLOW) == 0 && named.st_ino == opened.st_ino &&
            named.st_dev == opened.st_dev)
            return fd;
        close(fd);
    }
}

static bool write_all(int fd, struct slice data)
{
    while (data.size > 0) {
        ssize_t written = write(fd, data.data, data.size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        data.data += written;
        data.size -= (size_t)written;
    }
    return true;
}

static void put_frames(struct buffer *out, const uint64_t *sequences, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char frame[FRAME_SIZE];
        little_endian_put64(frame, sequences[i]);
        little_endian_put32(frame + 8, crc32c(0, (struct slice){frame, 8}));
        buffer_append(out, frame, sizeof frame);
    }
}

static int compare(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;
    return *left < *right ? -1 : *left > *right;
}

/* A torn write may have shifted what follows it, so frames are looked for at every byte. */
static void parse(struct removed *removed, struct slice data)
{
    removed->count = 0;
    removed->sequences = xrealloc(removed->sequences, (data.size / FRAME_SIZE + 1) * sizeof(uint64_t));
    for (size_t at = 0; data.size - at >= FRAME_SIZE;) {
        const char *frame = data.data + at;
        if (little_endian_get32(frame + 8) == crc32c(0, (struct slice){frame, 8})) {
            removed->sequences[removed->count++] = little_endian_get64(frame);
            at += FRAME_SIZE;
        } else {
            at++;
        }
    }
    qsort(removed->sequences, removed->count, sizeof(uint64_t), compare);
    size_t kept = 0;
    for (size_t i = 0; i < removed->count; i++)
        if (kept == 0 || removed->sequences[i] != removed->sequences[kept - 1])
            removed->sequences[kept++] = removed->sequences[i];
    removed->count = kept;
}

static bool read_open(struct removed *removed, int fd, const char *path, struct error *error)
{
    struct stat status;
    struct buffer data = {0};
    bool fine = fstat(fd, &status) == 0;
    if (fine && (uint64_t)status.st_ino == removed->inode && (uint64_t)status.st_size == removed->size)
        return true;
    size_t size = fine ? (size_t)status.st_size : 0;
    while (fine && data.size < size) {
        ssize_t got = pread(fd, buffer_reserve(&data, size - data.size), size - data.size, (off_t)data.size);
        if (got < 0 && errno == EINTR)
            continue;
        fine = got >= 0;
        if (got <= 0)
            break;
        buffer_commit(&data, (size_t)got);
    }
    if (fine) {
        parse(removed, buffer_slice(&data));
        removed->inode = (uint64_t)status.st_ino;
        removed->size = (uint64_t)status.st_size;
    } else {
        error_set(error, "%s/" NAME ": %s", path, strerror(errno));
    }
    buffer_free(&data);
    return fine;
}

bool removed_read(struct removed *removed, int folder, const char *path, struct error *error)
{
    int fd = folder_open_file(folder, path, NAME, O_RDONLY, error);
    if (fd < 0 && errno == ENOENT) {
        removed->count = 0;
        removed->inode = removed->size = 0;
        return true;
    }
    bool fine = fd >= 0 && read_open(removed, fd, path, error);
    if (fd >= 0)
        close(fd);
    return fine;
}

bool removed_append(int folder, const char *path, const uint64_t *sequences, size_t count,
                    struct error *error)
{
    int fd = open_locked(folder, path, error);
    if (fd < 0)
        return false;
    struct buffer frames = {0};
    put_frames(&frames, sequences, count);
    bool fine = write_all(fd, buffer_slice(&frames)) && fsync(fd) == 0;
    if (!fine)
        error_set(error, "%s/" NAME ": %s", path, strerror(errno));
    buffer_free(&frames);
    close(fd);
    return fine && folder_sync(folder, path, error);
}

static bool write_anew(const struct removed *removed, int folder, const char *path, struct error *error)
{
    struct buffer frames = {0};
    int fd = folder_open_file(folder, path, NEW_NAME, O_WRONLY | O_CREAT | O_TRUNC, error);
    if (fd < 0)
        return false;
    put_frames(&frames, removed->sequences, removed->count);
    bool fine = write_all(fd, buffer_slice(&frames)) && fsync(fd) == 0 &&
                renameat(folder, NEW_NAME, folder, NAME) == 0;
    if (!fine)
        error_set(error, "%s/" NEW_NAME ": %s", path, strerror(errno));
    close(fd);
    buffer_free(&frames);
    return fine && folder_sync(folder, path, error);
}

bool removed_forget(struct removed *removed, int folder, const char *path, uint64_t first, uint64_t last,
                    struct error *error)
{
    struct stat status;
    if (fstatat(folder, NAME, &status, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT)
        return removed_read(removed, folder, path, error);
    int fd = open_locked(folder, path, error);
    if (fd < 0)
        return false;
    bool fine = read_open(removed, fd, path, error);
    size_t kept = 0;
    for (size_t i = 0; fine && i < removed->count; i++)
        if (removed->sequences[i] >= first && removed->sequences[i] <= last)
            removed->sequences[kept++] = removed->sequences[i];
    if (fine && kept < removed->count) {
        removed->count = kept;
        removed->inode = removed->size = 0;
        fine = write_anew(removed, folder, path, error);
    }
    close(fd);
    return fine;
}

/* How many are below. */
static size_t position(const struct removed *removed, uint64_t sequence)
{
    size_t low = 0, high = removed->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (removed->sequences[middle] < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool removed_has(const struct removed *removed, uint64_t sequence)
{
    size_t at = position(removed, sequence);
    return at < removed->count && removed->sequences[at] == sequence;
}

uint64_t removed_between(const struct removed *removed, uint64_t first, uint64_t last)
{
    if (last < first)
        return 0;
    size_t end = last == UINT64_MAX ? removed->count : position(removed, last + 1);
    return end - position(removed, first);
}

void removed_release(struct removed *removed)
{
    free(removed->sequences);
    *removed = (struct removed){0};
}
