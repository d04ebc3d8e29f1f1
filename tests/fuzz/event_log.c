/*
 * A segment of the log on disk: whatever its bytes are, as they are and with checksums that are right, what is read of it is in it and ascends, what stands whole at its beginning is read, and a writer that opens
 * it finds what a reader found, and goes on behind.
 */
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"
#include "fuzz.h"
#include "spool/crc32c.h"
#include "spool/event_log.h"

#define HEADER 64

static char folder[64];
static char segment[128];

static void remove_files(void)
{
    DIR *names = opendir(folder);
    struct dirent *entry;
    REQUIRE(names != NULL);
    while ((entry = readdir(names)) != NULL)
        unlinkat(dirfd(names), entry->d_name, 0);
    closedir(names);
}

static void remove_folder(void)
{
    remove_files();
    rmdir(folder);
}

static void make_folder(void)
{
    log_configure(LOG_ERROR + 1, LOG_TEXT);
    snprintf(folder, sizeof folder, "%s/fuzz-log-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    REQUIRE(mkdtemp(folder) != NULL);
    snprintf(segment, sizeof segment, "%s/%020d.log", folder, 1);
    atexit(remove_folder);
}

static void write_segment(struct slice bytes)
{
    int fd = open(segment, O_WRONLY | O_CREAT | O_EXCL, 0600);
    REQUIRE(fd >= 0 && write(fd, bytes.data, bytes.size) == (ssize_t)bytes.size);
    close(fd);
}

static uint32_t get32(const char *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

/* The size of the frame that stands there; 0: none does. */
static size_t frame_size(struct slice bytes, size_t at, uint64_t sequence)
{
    uint64_t found;
    if (at + EVENT_LOG_FRAME_HEAD > bytes.size)
        return 0;
    size_t length = get32(bytes.data + at);
    memcpy(&found, bytes.data + at + 8, sizeof found);
    if (length == 0 || length > bytes.size - at - EVENT_LOG_FRAME_HEAD || found != sequence)
        return 0;
    uint32_t crc = crc32c(0, (struct slice){bytes.data + at, 4});
    crc = crc32c(crc, (struct slice){bytes.data + at + 8, 8 + length});
    return crc == get32(bytes.data + at + 4) ? EVENT_LOG_FRAME_HEAD + length : 0;
}

/* Each record must be in the bytes. Returns how many there are. */
static uint64_t read_records(struct slice bytes, uint64_t from, uint64_t *last)
{
    struct event_log_reader *reader = event_log_reader_new(folder);
    struct event_log_record record;
    struct error error;
    uint64_t records = 0, next = from > 0 ? from : 1;
    if (from > 0)
        event_log_reader_seek(reader, from);
    while (event_log_read(reader, UINT64_MAX, &record, &error)) {
        REQUIRE(record.sequence == next + record.missing && record.sequence >= next);
        if (strcmp(record.segment, segment + strlen(folder) + 1) == 0) {
            REQUIRE(frame_size(bytes, (size_t)record.offset, record.sequence) ==
                    EVENT_LOG_FRAME_HEAD + record.payload.size);
            REQUIRE(memcmp(bytes.data + record.offset + EVENT_LOG_FRAME_HEAD, record.payload.data,
                           record.payload.size) == 0);
        }
        next = record.sequence + 1;
        records++;
    }
    *last = next - 1;
    event_log_reader_free(reader);
    return records;
}

static struct event_log *open_log(struct event_log_recovery *recovery, struct error *error)
{
    struct event_log_settings settings = {.folder = folder, .segment_bytes = 4096};
    return event_log_open(&settings, recovery, error);
}

static void count_records(void *argument, const char *file, const struct event_log_segment *found,
                          uint64_t records, const char *fault)
{
    uint64_t *count = argument;
    (void)file;
    (void)found;
    REQUIRE(fault == NULL || fault[0] != 0);
    *count += records;
}

static void see_segment(void *argument, const char *file, const struct event_log_segment *found)
{
    uint64_t *last = argument;
    (void)file;
    *last = found->last;
}

/* What tools say of it: checked, and believed. */
static void check_tools(uint64_t records)
{
    struct error error = {.message = ""};
    uint64_t verified = 0, last = 0;
    REQUIRE_MESSAGE(event_log_verify(folder, count_records, &verified, &error), error.message);
    REQUIRE(verified == records);
    event_log_list(folder, see_segment, &last, &error);
}

static void check_segment(struct slice bytes)
{
    struct event_log_recovery recovery, again;
    struct error error = {.message = ""};
    uint64_t last, whole = 0, same;
    for (size_t at = HEADER, size; (size = frame_size(bytes, at, whole + 1)) > 0; at += size)
        whole++;
    write_segment(bytes);
    uint64_t records = read_records(bytes, 0, &last);
    for (uint64_t from = 1; from <= last + 1 && from < 40; from++)
        REQUIRE(read_records(bytes, from, &same) <= records);
    check_tools(records);

    struct event_log *log = open_log(&recovery, &error);
    if (log == NULL) {
        REQUIRE(records == 0 && strstr(error.message, "format version") != NULL);
        remove_files();
        return;
    }
    REQUIRE(records >= whole);
    REQUIRE(recovery.records == records);
    REQUIRE(event_log_last(log) == last);
    REQUIRE(event_log_add(log, &(struct iovec){"more", 4}, 1));
    REQUIRE(event_log_write(log) == EVENT_LOG_DONE && event_log_sync(log) == EVENT_LOG_DONE);
    event_log_close(log);

    log = open_log(&again, &error);
    REQUIRE_MESSAGE(log != NULL, error.message);
    REQUIRE(event_log_last(log) == last + 1);
    REQUIRE(again.torn_bytes == 0 && again.damaged_segments == recovery.damaged_segments);
    event_log_close(log);
    struct event_log_reader *reader = event_log_reader_new(folder);
    struct event_log_record record;
    uint64_t now = 0;
    while (event_log_read(reader, UINT64_MAX, &record, NULL))
        now++;
    REQUIRE(now == records + 1);
    event_log_reader_free(reader);
    remove_files();
}

/* Makes a header of it, and frames of what could be heads. */
static void correct(char *data, size_t size)
{
    if (size < HEADER)
        return;
    uint32_t crc = crc32c(0, (struct slice){data, 60});
    memcpy(data + 60, &crc, sizeof crc);
    for (size_t at = HEADER; at + EVENT_LOG_FRAME_HEAD < size;) {
        size_t length = get32(data + at);
        if (length == 0 || length > size - at - EVENT_LOG_FRAME_HEAD) {
            at++;
            continue;
        }
        crc = crc32c(0, (struct slice){data + at, 4});
        crc = crc32c(crc, (struct slice){data + at + 8, 8 + length});
        memcpy(data + at + 4, &crc, sizeof crc);
        at += EVENT_LOG_FRAME_HEAD + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (folder[0] == '\0')
        make_folder();
    struct slice bytes = {(const char *)data, size};
    check_segment(bytes);
    struct slice copy = fuzz_copy(bytes);
    correct((char *)(uintptr_t)copy.data, size);
    check_segment(copy);
    free((char *)(uintptr_t)copy.data);
    return 0;
}
