/*
 * segment_file: see segment_file.h.
 */
#include "spool/segment_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "spool/folder.h"
#include "spool/segment.h"

#define STEP                  ((uint64_t)4 << 20)
#define MICROS_PER_SECOND     UINT64_C(1000000)
#define NANOS_PER_MICROSECOND 1000

bool segment_disk_is_full(int code)
{
    return code == ENOSPC || code == EDQUOT;
}

static bool take(int fd, struct segment_room *room, uint64_t size)
{
    int result;
    do {
        result = fallocate(fd, 0, (off_t)room->size, (off_t)(size - room->size));
    } while (result != 0 && errno == EINTR);
    if (result == 0)
        room->size = size;
    return result == 0;
}

enum event_log_result segment_take_room(int fd, struct segment_room *room, uint64_t size)
{
    uint64_t ahead = room->size + STEP < room->limit ? room->size + STEP : room->limit;
    if (room->impossible || size <= room->size)
        return EVENT_LOG_DONE;
    if (take(fd, room, ahead > size ? ahead : size))
        return EVENT_LOG_DONE;
    if (segment_disk_is_full(errno) && ahead > size && take(fd, room, size))
        return EVENT_LOG_DONE;
    int code = errno;
    if (code == EOPNOTSUPP || code == ENOSYS) {
        room->impossible = true;
        return EVENT_LOG_DONE;
    }
    /* A part may have been had: it is given back. */
    if (!segment_disk_is_full(code) || ftruncate(fd, (off_t)room->size) != 0)
        return EVENT_LOG_FAILED;
    errno = code;
    return EVENT_LOG_FULL;
}

static bool write_header(int fd, uint64_t first)
{
    char header[SEGMENT_HEADER_SIZE];
    segment_write_header(header, first, clock_realtime_us());
    for (size_t done = 0; done < sizeof header;) {
        ssize_t wrote = pwrite(fd, header + done, sizeof header - done, (off_t)done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return false;
        done += (size_t)wrote;
    }
    return true;
}

int segment_make(int folder, const char *path, uint64_t first, bool durable, struct segment_room *room)
{
    char name[SEGMENT_NAME_SIZE], making[SEGMENT_NAME_SIZE + sizeof SEGMENT_NEW_SUFFIX];
    const char *made = making;
    struct error error;
    segment_name(first, name);
    snprintf(making, sizeof making, "%s%s", name, SEGMENT_NEW_SUFFIX);
    unlinkat(folder, making, 0);
    int fd = folder_open_file(folder, path, making, O_RDWR | O_CREAT | O_EXCL, &error);
    if (fd < 0)
        return -1;
    room->size = 0;
    if (segment_take_room(fd, room, SEGMENT_HEADER_SIZE) != EVENT_LOG_DONE || !write_header(fd, first) ||
        (durable && fdatasync(fd) != 0) || renameat(folder, making, folder, name) != 0)
        goto fail;
    made = name;
    if (durable && !folder_sync(folder, path, &error))
        goto fail;
    if (room->size < SEGMENT_HEADER_SIZE)
        room->size = SEGMENT_HEADER_SIZE;
    return fd;
fail:;
    int code = errno;
    unlinkat(folder, made, 0);
    close(fd);
    errno = code;
    return -1;
}

bool segment_cut(int fd, uint64_t size, uint64_t changed_us)
{
    struct timespec changed = {.tv_sec = (time_t)(changed_us / MICROS_PER_SECOND),
                               .tv_nsec = (long)(changed_us % MICROS_PER_SECOND) * NANOS_PER_MICROSECOND};
    bool cut = ftruncate(fd, (off_t)size) == 0;
    if (cut)
        futimens(fd, (struct timespec[]){changed, changed});
    return cut;
}
