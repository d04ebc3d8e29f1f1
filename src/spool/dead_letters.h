/*
 * dead_letters: the events of one pipeline that could not be delivered, as they entered it, with the reason; kept in a log of their own (spool/event_log.h) until somebody replays or purges them, or they are too
 * many or too old.
 *
 *     FOLDER/PIPELINE/….log      one record a letter: "LPD1" | u32 size of the head | fields { u16 tag, u16 zero, u32 size, bytes }… | the event as event_pieces() gives it
 *     FOLDER/PIPELINE/removed    sequences of letters that were replayed or purged: frames of u64 sequence | u32 crc32c; appended by whoever removed them. What a segment has lost entirely goes with it
 *
 * The pipeline's name is a folder's name with bytes outside of [A-Za-z0-9_-] as %XX.
 *
 * Threads: any, one lock; all of it blocks (pipelines' threads and tools, never a worker).
 */
#ifndef SPOOL_DEAD_LETTERS_H
#define SPOOL_DEAD_LETTERS_H

#include "base/metrics.h"
#include "event/event.h"

struct dead_letters_settings {
    const char *folder;   /* of all pipelines; created if missing, with its parents */
    const char *pipeline; /* its name */
    bool without_bodies;  /* events are kept without their bodies */
    uint64_t max_bytes;   /* of one pipeline's; the oldest segments go first */
    uint64_t max_age_ns;
    struct metric *trimmed; /* counts letters that went for want of room, or by age; may be NULL */
    struct metric *kept;    /* a gauge of the letters there; may be NULL */
};

struct dead_letter {
    struct slice reason;        /* rejected, transform_error, expired */
    struct slice error;         /* the last error's text */
    struct slice where;         /* the transform or dispatcher it came from */
    uint32_t tries;             /* to deliver it */
    uint64_t first_us, last_us; /* of the first and the last try (or of the failure), since 1970 */
    struct event_record *event; /* reading: valid until the next call on the reader */
    uint64_t sequence;          /* reading: its number in the log */
};

struct dead_letters;

/* Locks the pipeline's folder. NULL: *error says why. Strings are copied. */
struct dead_letters *dead_letters_open(const struct dead_letters_settings *settings, struct error *error);
void dead_letters_close(struct dead_letters *letters);
/* Written, and durable with the next dead_letters_sync(). False: *error says why; nothing was kept. */
bool dead_letters_add(struct dead_letters *letters, const struct dead_letter *letter, struct error *error);
bool dead_letters_sync(struct dead_letters *letters, struct error *error);
/* Trims by age. Also done by dead_letters_add(), now and then. */
void dead_letters_tidy(struct dead_letters *letters);

/* For tools: they need no lock, and a process that writes may run meanwhile. */
struct dead_letters_reader;
struct dead_letters_reader *dead_letters_reader_new(const char *folder, const char *pipeline,
                                                    struct error *error);
/* The next letter that was not removed; damaged ones are left out and counted in *damaged (may be NULL). False: no more, or *error (else empty) says why no more can be read. */
bool dead_letters_read(struct dead_letters_reader *reader, struct dead_letter *letter, uint64_t *damaged,
                       struct error *error);
void dead_letters_reader_free(struct dead_letters_reader *reader);
/* Removes letters by their sequences: replayed or purged. */
bool dead_letters_remove(const char *folder, const char *pipeline, const uint64_t *sequences, size_t count,
                         struct error *error);
/* Unlinks the segments that have lost all their letters, where no other process has the folder (else that does it). Has it itself for a moment, in which no other can open it: to be called once, at the end. */
void dead_letters_sweep(const char *folder, const char *pipeline);
/* Calls visit with the name of each pipeline that has a folder. */
bool dead_letters_list(const char *folder, void (*visit)(void *argument, const char *pipeline),
                       void *argument, struct error *error);

#endif
