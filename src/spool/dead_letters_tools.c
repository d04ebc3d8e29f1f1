/* The other side of dead_letters.h: reading, removing, listing, by a process that need not be the one that writes. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "spool/event_log.h"
#include "spool/folder.h"
#include "spool/letter.h"
#include "spool/name.h"
#include "spool/removed.h"

struct dead_letters_reader {
    struct event_log_reader *log;
    struct removed removed;
    struct event_record *event; /* of the letter read last */
};

static char *folder_of(const char *folder, const char *pipeline)
{
    struct buffer path = {0};
    buffer_printf(&path, "%s/", folder);
    name_encode(slice_of(pipeline), &path);
    return buffer_take_string(&path);
}

struct dead_letters_reader *dead_letters_reader_new(const char *folder, const char *pipeline,
                                                    struct error *error)
{
    char *path = folder_of(folder, pipeline);
    struct dead_letters_reader *reader = xcalloc(1, sizeof *reader);
    int opened = folder_open(path, false, error);
    bool fine = opened >= 0 && removed_read(&reader->removed, opened, path, error);
    if (opened >= 0)
        close(opened);
    if (fine) {
        reader->log = event_log_reader_new(path);
    } else {
        removed_release(&reader->removed);
        free(reader);
        reader = NULL;
    }
    free(path);
    return reader;
}

bool dead_letters_read(struct dead_letters_reader *reader, struct dead_letter *letter, uint64_t *damaged,
                       struct error *error)
{
    struct event_log_record record;
    uint64_t bad = 0;
    bool found = false;
    event_record_release(reader->event);
    reader->event = NULL;
    while (!found && event_log_read(reader->log, UINT64_MAX, &record, error)) {
        bad += record.missing;
        if (removed_has(&reader->removed, record.sequence))
            continue;
        found = letter_decode(record.payload, letter);
        bad += !found;
    }
    if (found) {
        letter->sequence = record.sequence;
        reader->event = letter->event;
    }
    if (damaged != NULL)
        *damaged += bad;
    return found;
}

void dead_letters_reader_free(struct dead_letters_reader *reader)
{
    if (reader == NULL)
        return;
    event_log_reader_free(reader->log);
    event_record_release(reader->event);
    removed_release(&reader->removed);
    free(reader);
}

bool dead_letters_remove(const char *folder, const char *pipeline, const uint64_t *sequences, size_t count,
                         struct error *error)
{
    char *path = folder_of(folder, pipeline);
    int opened = folder_open(path, false, error);
    bool fine = opened >= 0 && removed_append(opened, path, sequences, count, error);
    if (opened >= 0)
        close(opened);
    free(path);
    return fine;
}

void dead_letters_sweep(const char *folder, const char *pipeline)
{
    /* Opening tidies up. Who has it does so now and then. */
    struct error busy;
    const struct dead_letters_settings settings = {
        .folder = folder, .pipeline = pipeline, .max_bytes = UINT64_MAX, .max_age_ns = UINT64_MAX};
    dead_letters_close(dead_letters_open(&settings, &busy));
}

struct listing {
    const char *folder;
    void (*visit)(void *argument, const char *pipeline);
    void *argument;
};

static void visit_name(void *argument, const char *name)
{
    const struct listing *listing = argument;
    struct stat status;
    char *path = xprintf("%s/%s", listing->folder, name), *pipeline = name_decode(slice_of(name));
    if (pipeline != NULL && lstat(path, &status) == 0 && S_ISDIR(status.st_mode))
        listing->visit(listing->argument, pipeline);
    free(pipeline);
    free(path);
}

bool dead_letters_list(const char *folder, void (*visit)(void *argument, const char *pipeline),
                       void *argument, struct error *error)
{
    struct listing listing = {folder, visit, argument};
    int opened = folder_open(folder, false, error);
    bool fine = opened >= 0 && folder_list(opened, folder, visit_name, &listing, error);
    if (opened >= 0)
        close(opened);
    return fine;
}
