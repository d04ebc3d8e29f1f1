/*
 * The writer's side.
 *
 * Letters that are not durable yet are held in memory as well: when a sync fails they are written once more, into a new segment. If that fails too they are lost for each thread that wrote some, which hears it from its next
 * dead_letters_sync().
 *
 * Room is won by whole segments, the oldest first, so segments are small beside max_bytes, and none is written to for longer than a part of max_age.
 */
#include "spool/dead_letters.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "spool/event_log.h"
#include "spool/folder.h"
#include "spool/letter.h"
#include "spool/name.h"
#include "spool/removed.h"

#define SEGMENTS_OF_MAX_BYTES 16u
#define SMALLEST_SEGMENT      (64u << 10)
#define LARGEST_SEGMENT       (16u << 20)
#define SEGMENTS_OF_MAX_AGE   16u
#define TIDY_INTERVAL_NS      (10 * NANOSECONDS_PER_SECOND)

struct unsynced {
    struct unsynced *next;
    struct buffer head;
    struct event_record *event; /* NULL: given back, the letter is lost */
    pthread_t owner;
};

struct dead_letters {
    char *pipeline, *path;
    bool without_bodies;
    uint64_t max_bytes, max_age_us;
    struct metric *trimmed, *kept;
    int folder;

    pthread_mutex_t mutex; /* for all below */
    struct event_log *log;
    struct removed removed;
    struct unsynced *unsynced, **unsynced_end;
    uint64_t durable;  /* everything up to this sequence */
    uint64_t begun_us; /* the present segment, or later: then this process did not begin it */
    bool given_up;     /* the present segment must not be written to: it is to be retired */
    uint64_t next_tidy_ns;
};

static void remember(struct dead_letters *letters, struct buffer *head, struct event_record *event)
{
    struct unsynced *unsynced = xcalloc(1, sizeof *unsynced);
    unsynced->head = *head;
    *head = (struct buffer){0};
    unsynced->event = event_record_reference(event);
    unsynced->owner = pthread_self();
    *letters->unsynced_end = unsynced;
    letters->unsynced_end = &unsynced->next;
}

/* Forgets those that are durable, or (lost) keeps only whose they were. */
static void end_unsynced(struct dead_letters *letters, bool lost)
{
    struct unsynced **link = &letters->unsynced;
    while (*link != NULL) {
        struct unsynced *unsynced = *link;
        if (unsynced->event == NULL || lost) {
            event_record_release(unsynced->event);
            unsynced->event = NULL;
            link = &unsynced->next;
        } else {
            *link = unsynced->next;
            event_record_release(unsynced->event);
            buffer_free(&unsynced->head);
            free(unsynced);
        }
    }
    letters->unsynced_end = link;
}

/* Whether this thread has lost letters; forgets them. */
static bool take_lost(struct dead_letters *letters)
{
    struct unsynced **link = &letters->unsynced;
    bool any = false;
    while (*link != NULL) {
        struct unsynced *unsynced = *link;
        if (unsynced->event == NULL && pthread_equal(unsynced->owner, pthread_self())) {
            any = true;
            *link = unsynced->next;
            buffer_free(&unsynced->head);
            free(unsynced);
        } else {
            link = &unsynced->next;
        }
    }
    letters->unsynced_end = link;
    return any;
}

static bool has_unsynced(const struct dead_letters *letters)
{
    for (const struct unsynced *unsynced = letters->unsynced; unsynced != NULL; unsynced = unsynced->next)
        if (unsynced->event != NULL)
            return true;
    return false;
}

static bool explain(const struct dead_letters *letters, enum event_log_result result, const char *what,
                    struct error *error)
{
    if (result == EVENT_LOG_DONE)
        return true;
    error_set(error, "%s: %s", letters->path, result == EVENT_LOG_FULL ? "the disk is full" : what);
    return false;
}

static bool stage(struct event_log *log, const struct buffer *head, const struct event_record *event)
{
    size_t count = event_pieces(event, NULL, 0);
    struct iovec *pieces = xcalloc(count + 1, sizeof *pieces);
    pieces[0] = (struct iovec){buffer_data(head), head->size};
    event_pieces(event, pieces + 1, count);
    bool staged = event_log_add(log, pieces, count + 1);
    /* Its bytes are borrowed until they are written: the pieces' own array is not. */
    free(pieces);
    return staged;
}

/* After a failure of the disk's: what is not durable goes to a new segment. */
static bool write_anew(struct dead_letters *letters, struct error *error)
{
    letters->given_up = true;
    if (!explain(letters, event_log_retire(letters->log, letters->durable), "no new segment can be begun",
                 error))
        return false;
    letters->given_up = false;
    letters->begun_us = clock_realtime_us();
    for (const struct unsynced *unsynced = letters->unsynced; unsynced != NULL; unsynced = unsynced->next) {
        if (unsynced->event == NULL)
            continue;
        bool staged = stage(letters->log, &unsynced->head, unsynced->event);
        enum event_log_result result =
            staged ? event_log_write(letters->log) : EVENT_LOG_FULL; /* more than a segment: cannot be */
        if (!explain(letters, result, "write failed", error)) {
            letters->given_up = result == EVENT_LOG_FAILED;
            return false;
        }
    }
    return true;
}

static bool sync_log(struct dead_letters *letters, struct error *error)
{
    if (!has_unsynced(letters))
        return true;
    bool durable = !letters->given_up && event_log_sync(letters->log) == EVENT_LOG_DONE;
    if (!durable && write_anew(letters, error)) {
        durable = explain(letters, event_log_sync(letters->log), "fsync failed", error);
        letters->given_up = !durable;
    }
    if (durable)
        letters->durable = event_log_last(letters->log);
    end_unsynced(letters, !durable);
    return durable;
}

/* With everything durable. */
static bool rotate(struct dead_letters *letters, struct error *error)
{
    if (!sync_log(letters, error) ||
        !explain(letters, event_log_rotate(letters->log), "no new segment can be begun", error))
        return false;
    letters->begun_us = clock_realtime_us();
    return true;
}

static uint64_t letters_in(const struct dead_letters *letters, const struct event_log_segment *segment)
{
    if (segment->last < segment->first)
        return 0;
    return segment->last - segment->first + 1 -
           removed_between(&letters->removed, segment->first, segment->last);
}

static struct event_log_segment *list_segments(const struct dead_letters *letters, size_t *count)
{
    *count = event_log_segments(letters->log, NULL, 0);
    struct event_log_segment *segments = xcalloc(*count + 1, sizeof *segments);
    event_log_segments(letters->log, segments, *count);
    return segments;
}

/* Begins a new segment when the present one is to go, or is in use for long. */
static void leave_segment(struct dead_letters *letters, uint64_t now_us)
{
    struct error error;
    size_t count;
    struct event_log_segment *segments = list_segments(letters, &count);
    const struct event_log_segment *present = count > 0 ? &segments[count - 1] : NULL;
    bool leave = present != NULL && present->last >= present->first && !has_unsynced(letters) &&
                 !letters->given_up &&
                 (letters_in(letters, present) == 0 ||
                  now_us - letters->begun_us > letters->max_age_us / SEGMENTS_OF_MAX_AGE ||
                  present->changed_us + letters->max_age_us < now_us);
    if (leave && !rotate(letters, &error))
        log_warn("the dead letters cannot begin a new segment", log_string("pipeline", letters->pipeline),
                 log_string("error", error.message));
    free(segments);
}

static void report_trimmed(const struct dead_letters *letters, uint64_t trimmed, bool for_room)
{
    if (letters->trimmed != NULL)
        metric_add(letters->trimmed, (int64_t)trimmed);
    log_warn("dead letters dropped: the oldest have to go", log_string("pipeline", letters->pipeline),
             log_integer("letters", (int64_t)trimmed),
             log_string("setting", for_room ? "dead_letters.max_bytes" : "dead_letters.max_age"));
}

/* Unlinks the oldest segments as long as there is a reason. The last one is the present one, and stays. */
static void unlink_segments(struct dead_letters *letters, uint64_t now_us)
{
    size_t count;
    struct event_log_segment *segments = list_segments(letters, &count);
    for (size_t i = 0; i + 1 < count; i++) {
        uint64_t inside = letters_in(letters, &segments[i]);
        bool too_many = event_log_bytes(letters->log) > letters->max_bytes;
        if (inside > 0 && !too_many && segments[i].changed_us + letters->max_age_us >= now_us)
            break;
        if (event_log_unlink_before(letters->log, segments[i + 1].first) == 0)
            break;
        if (inside > 0)
            report_trimmed(letters, inside, too_many);
    }
    free(segments);
}

static void tell_kept(const struct dead_letters *letters)
{
    size_t count;
    uint64_t kept = 0;
    struct event_log_segment *segments = list_segments(letters, &count);
    for (size_t i = 0; i < count; i++)
        kept += letters_in(letters, &segments[i]);
    if (letters->kept != NULL)
        metric_set(letters->kept, (int64_t)kept);
    free(segments);
}

static void tidy(struct dead_letters *letters)
{
    struct error error;
    uint64_t now_us = clock_realtime_us(), last = event_log_last(letters->log);
    letters->next_tidy_ns = clock_monotonic_ns() + TIDY_INTERVAL_NS;
    bool fine = removed_read(&letters->removed, letters->folder, letters->path, &error);
    leave_segment(letters, now_us);
    unlink_segments(letters, now_us);
    uint64_t first = event_log_first(letters->log);
    if (fine && removed_between(&letters->removed, first, last) < letters->removed.count)
        fine = removed_forget(&letters->removed, letters->folder, letters->path, first, last, &error);
    if (!fine)
        log_warn("it cannot be told which dead letters were removed",
                 log_string("pipeline", letters->pipeline), log_string("error", error.message));
    tell_kept(letters);
}

static uint64_t segment_bytes(uint64_t max_bytes)
{
    uint64_t bytes = max_bytes / SEGMENTS_OF_MAX_BYTES;
    return bytes < SMALLEST_SEGMENT ? SMALLEST_SEGMENT : bytes > LARGEST_SEGMENT ? LARGEST_SEGMENT : bytes;
}

static bool open_log(struct dead_letters *letters, struct error *error)
{
    struct event_log_recovery recovery;
    const struct event_log_settings settings = {.folder = letters->path,
                                                .segment_bytes = segment_bytes(letters->max_bytes)};
    letters->log = event_log_open(&settings, &recovery, error);
    if (letters->log == NULL)
        return false;
    letters->folder = folder_open(letters->path, false, error);
    if (letters->folder < 0)
        return false;
    letters->durable = event_log_last(letters->log);
    letters->begun_us = clock_realtime_us();
    /* Sequences that are gone may be given again: what was removed must not hide what comes. */
    return removed_forget(&letters->removed, letters->folder, letters->path, event_log_first(letters->log),
                          letters->durable, error);
}

struct dead_letters *dead_letters_open(const struct dead_letters_settings *settings, struct error *error)
{
    struct dead_letters *letters = xcalloc(1, sizeof *letters);
    struct buffer path = {0};
    buffer_printf(&path, "%s/", settings->folder);
    name_encode(slice_of(settings->pipeline), &path);
    letters->path = buffer_take_string(&path);
    letters->pipeline = xstrdup(settings->pipeline);
    letters->without_bodies = settings->without_bodies;
    letters->max_bytes = settings->max_bytes;
    letters->max_age_us = settings->max_age_ns / 1000;
    letters->trimmed = settings->trimmed;
    letters->kept = settings->kept;
    letters->folder = -1;
    letters->unsynced_end = &letters->unsynced;
    pthread_mutex_init(&letters->mutex, NULL);
    if (!folder_make(settings->folder, error) || !open_log(letters, error)) {
        dead_letters_close(letters);
        return NULL;
    }
    tidy(letters);
    return letters;
}

void dead_letters_close(struct dead_letters *letters)
{
    if (letters == NULL)
        return;
    end_unsynced(letters, true);
    while (letters->unsynced != NULL) {
        struct unsynced *next = letters->unsynced->next;
        buffer_free(&letters->unsynced->head);
        free(letters->unsynced);
        letters->unsynced = next;
    }
    if (letters->log != NULL)
        event_log_close(letters->log);
    if (letters->folder >= 0)
        close(letters->folder);
    removed_release(&letters->removed);
    pthread_mutex_destroy(&letters->mutex);
    free(letters->pipeline);
    free(letters->path);
    free(letters);
}

static struct event_record *without_bodies(const struct event_record *event)
{
    struct event_fields fields = *event_get(event);
    struct body none[3];
    for (size_t i = 0; i < 3; i++)
        body_init(&none[i], NULL);
    fields.request_kept = fields.response_kept = false;
    fields.withheld = EVENT_WITHHELD_OFF;
    return event_record_new(&fields, &none[0], &none[1], &none[2]);
}

static bool append(struct dead_letters *letters, struct buffer *head, struct event_record *event,
                   bool is_second_try, struct error *error)
{
    if (letters->given_up && !write_anew(letters, error)) {
        end_unsynced(letters, true);
        return false;
    }
    if (!stage(letters->log, head, event)) {
        if (!rotate(letters, error))
            return false;
        tidy(letters);
        bool staged = stage(letters->log, head, event);
        assert(staged); /* any letter has a place in an empty segment */
        (void)staged;
    }
    enum event_log_result result = event_log_write(letters->log);
    letters->given_up = result == EVENT_LOG_FAILED;
    if (letters->given_up && !is_second_try)
        return append(letters, head, event, true, error);
    return explain(letters, result, "write failed", error);
}

bool dead_letters_add(struct dead_letters *letters, const struct dead_letter *letter, struct error *error)
{
    struct buffer head = {0};
    struct event_record *event =
        letters->without_bodies ? without_bodies(letter->event) : event_record_reference(letter->event);
    letter_encode_head(letter, &head);
    bool fine = head.size + event_stored_size(event) <= EVENT_LOG_MAX_PAYLOAD;
    if (!fine)
        error_set(error, "%s: an event of %zu bytes is too large", letters->path, event_stored_size(event));
    pthread_mutex_lock(&letters->mutex);
    if (fine && append(letters, &head, event, false, error)) {
        remember(letters, &head, event);
        if (letters->kept != NULL)
            metric_add(letters->kept, 1);
    } else {
        fine = false;
    }
    if (clock_monotonic_ns() >= letters->next_tidy_ns)
        tidy(letters);
    pthread_mutex_unlock(&letters->mutex);
    event_record_release(event);
    buffer_free(&head);
    return fine;
}

bool dead_letters_sync(struct dead_letters *letters, struct error *error)
{
    pthread_mutex_lock(&letters->mutex);
    error_set(error, "%s: the disk failed", letters->path);
    sync_log(letters, error);
    bool fine = !take_lost(letters);
    pthread_mutex_unlock(&letters->mutex);
    return fine;
}

void dead_letters_tidy(struct dead_letters *letters)
{
    pthread_mutex_lock(&letters->mutex);
    tidy(letters);
    pthread_mutex_unlock(&letters->mutex);
}
