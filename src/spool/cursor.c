/*
 * cursor: see cursor.h. A slot whose write or sync failed is written again by the next write: the other one is the only value that is sure to be there.
 */
#include "spool/cursor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/little_endian.h"
#include "base/log.h"
#include "base/memory.h"
#include "spool/crc32c.h"
#include "spool/folder.h"
#include "spool/name.h"

#define SLOT_SIZE  512
#define SLOT_CRC   508
#define SLOT_COUNT 2
#define SUFFIX     ".cursor"

static const char MAGIC[8] = "LPCUR";

struct cursor_file {
    int fd;
    char *path;          /* for messages */
    uint64_t generation; /* of the newest value that is durable */
    int slot;            /* where it is */
};

/* Names ---------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static char *file_name(const char *name)
{
    struct buffer text = {0};
    name_encode(slice_of(name), &text);
    buffer_append_string(&text, SUFFIX);
    return buffer_take_string(&text);
}

/* NULL: not the name of a cursor's file. */
static char *name_of(const char *file)
{
    size_t size = strlen(file), suffix = sizeof SUFFIX - 1;
    if (size < suffix || strcmp(file + size - suffix, SUFFIX) != 0)
        return NULL;
    return name_decode((struct slice){file, size - suffix});
}

/* Slots ---------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static uint32_t slot_crc(const char *slot)
{
    return crc32c(0, (struct slice){slot, SLOT_CRC});
}

static bool read_slot(int fd, int index, uint64_t *generation, struct cursor *value)
{
    char slot[SLOT_SIZE] = {0};
    ssize_t got;
    while ((got = pread(fd, slot, sizeof slot, (off_t)index * SLOT_SIZE)) < 0 && errno == EINTR) {
    }
    if (got != sizeof slot || memcmp(slot, MAGIC, sizeof MAGIC) != 0 ||
        little_endian_get32(slot + SLOT_CRC) != slot_crc(slot))
        return false;
    *generation = little_endian_get64(slot + 8);
    *value = (struct cursor){.sequence = little_endian_get64(slot + 16),
                             .removed_us = little_endian_get64(slot + 24)};
    return true;
}

/* The newer valid one. */
static bool read_slots(struct cursor_file *file, struct cursor *value)
{
    bool found = false;
    *value = (struct cursor){0};
    file->generation = 0;
    file->slot = SLOT_COUNT - 1;
    for (int i = 0; i < SLOT_COUNT; i++) {
        uint64_t generation;
        struct cursor here;
        if (read_slot(file->fd, i, &generation, &here) && (!found || generation > file->generation)) {
            found = true;
            *value = here;
            file->generation = generation;
            file->slot = i;
        }
    }
    return found;
}

/* Files ---------------------------------------------------------------------------------------------------------------------------------------------------------------- */

struct cursor_file *cursor_file_open(const char *folder, const char *name, struct cursor *value, bool *found,
                                     struct error *error)
{
    struct cursor_file *file = NULL;
    char *text = file_name(name);
    int folder_fd = folder_open(folder, true, error);
    int fd = folder_fd >= 0 ? folder_open_file(folder_fd, folder, text, O_RDWR | O_CREAT, error) : -1;
    if (fd < 0)
        goto end;
    file = xcalloc(1, sizeof *file);
    file->fd = fd;
    file->path = xprintf("%s/%s", folder, text);
    *found = read_slots(file, value);
    off_t size = lseek(fd, 0, SEEK_END);
    if (!*found && size > 0)
        log_error("a cursor is damaged: nothing is known of how far its reader has come",
                  log_string("file", file->path));
    if (size == 0 && !folder_sync(folder_fd, folder, error)) {
        cursor_file_close(file);
        file = NULL;
    }
end:
    free(text);
    if (folder_fd >= 0)
        close(folder_fd);
    return file;
}

bool cursor_file_write(struct cursor_file *file, const struct cursor *value, struct error *error)
{
    char slot[SLOT_SIZE] = {0};
    int index = (file->slot + 1) % SLOT_COUNT;
    memcpy(slot, MAGIC, sizeof MAGIC);
    little_endian_put64(slot + 8, file->generation + 1);
    little_endian_put64(slot + 16, value->sequence);
    little_endian_put64(slot + 24, value->removed_us);
    little_endian_put32(slot + SLOT_CRC, slot_crc(slot));
    for (size_t done = 0; done < sizeof slot;) {
        off_t offset = (off_t)index * SLOT_SIZE + (off_t)done;
        ssize_t wrote = pwrite(file->fd, slot + done, sizeof slot - done, offset);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0) {
            error_set(error, "%s: cannot be written: %s", file->path, strerror(wrote < 0 ? errno : EIO));
            return false;
        }
        done += (size_t)wrote;
    }
    if (fdatasync(file->fd) != 0) {
        error_set(error, "%s: fdatasync: %s", file->path, strerror(errno));
        return false;
    }
    file->generation++;
    file->slot = index;
    return true;
}

void cursor_file_close(struct cursor_file *file)
{
    if (file == NULL)
        return;
    close(file->fd);
    free(file->path);
    free(file);
}

bool cursor_file_remove(const char *folder, const char *name, struct error *error)
{
    char *text = file_name(name);
    int fd = folder_open(folder, false, error);
    bool done = fd >= 0;
    if (done && unlinkat(fd, text, 0) != 0 && errno != ENOENT) {
        error_set(error, "%s/%s: cannot be removed: %s", folder, text, strerror(errno));
        done = false;
    }
    done = done && folder_sync(fd, folder, error);
    if (fd >= 0)
        close(fd);
    free(text);
    return done;
}

struct listing {
    int fd;
    const char *folder;
    void (*visit)(void *argument, const char *name, const struct cursor *value);
    void *argument;
};

static void visit_file(void *argument, const char *name)
{
    const struct listing *listing = argument;
    struct cursor value;
    struct error error;
    char *cursor = name_of(name);
    if (cursor == NULL)
        return;
    int fd = folder_open_file(listing->fd, listing->folder, name, O_RDONLY, &error);
    if (fd >= 0) {
        read_slots(&(struct cursor_file){.fd = fd}, &value);
        listing->visit(listing->argument, cursor, &value);
        close(fd);
    } else if (errno != ENOENT) {
        log_error("a cursor cannot be read", log_string("error", error.message));
    }
    free(cursor);
}

bool cursor_files_list(const char *folder,
                       void (*visit)(void *argument, const char *name, const struct cursor *value),
                       void *argument, struct error *error)
{
    struct listing listing = {folder_open(folder, false, error), folder, visit, argument};
    bool done = listing.fd >= 0 && folder_list(listing.fd, folder, visit_file, &listing, error);
    if (listing.fd >= 0)
        close(listing.fd);
    return done;
}
