/*
 * replayer: one pipeline of the configuration, run in this process over events that somebody hands in: what `replay` and `dlq replay` have in common. The pipeline works as in the proxy, with a memory bus of its own;
 * what it cannot deliver is told, not kept.
 *
 * SIGINT and SIGTERM end the waiting, and with it the replay, from replayer_new() to replayer_free(); a second one ends the process.
 */
#ifndef COMMAND_REPLAYER_H
#define COMMAND_REPLAYER_H

#include "config/config.h"
#include "event/event.h"

struct replayer;

struct replayer_settings {
    struct config *config; /* borrowed */
    size_t index;          /* of the pipeline */
    bool dry_run;          /* transforms run, nothing is delivered */
    /* What became of the event that was handed in as the number-th one (from 1), on another thread, one call at a time. result: delivered, filtered or dropped. reason and error may be NULL. */
    void (*settled)(void *argument, uint64_t number, struct slice event_id, const char *result,
                    const char *reason, const char *error);
    void (*waits)(
        void *
            argument); /* called now and then while replayer_add() and replayer_finish() wait; NULL: nobody asks */
    void *argument; /* of both */
};

/* NULL: *error says why. */
struct replayer *replayer_new(const struct replayer_settings *settings, struct error *error);
/* Hands in an event, when there is room for it. False: a signal ended it. */
bool replayer_add(struct replayer *replayer, struct event_record *event);
/* Waits until the pipeline is through with all of them. False: a signal ended it. */
bool replayer_finish(struct replayer *replayer);

struct replayer_counts {
    uint64_t added, delivered, filtered, failed;
};

struct replayer_counts replayer_counts(struct replayer *replayer);
/* What is not through is given up. No call of settled comes after it. */
void replayer_free(struct replayer *replayer);

/* The index of the pipeline of that name; of the only one, where name is NULL. False: an error was said. */
bool replayer_find_pipeline(const struct config *config, const char *name, size_t *index);

/* Writes how far it is to the standard error when that is a terminal, at most five times a second. total: 0 where it is not known. */
void replayer_show_progress(struct replayer *replayer, uint64_t done, uint64_t total);
/* Ends the line of the progress, if there is one. */
void replayer_end_progress(struct replayer *replayer);

#endif
