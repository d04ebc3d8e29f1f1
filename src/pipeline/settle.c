/* Letters that were written and are not durable wait in a list of the host's, still in hand: a process that dies now finds their events on the bus again, if that keeps them. */
#include "pipeline/settle.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "spool/dead_letters.h"

/* One sync for what gathers in this time. */
#define SYNC_DELAY_NS (5 * NANOSECONDS_PER_MILLISECOND)

struct unsynced {
    struct unsynced *next;
    struct ticket ticket;
    char *reason, *error;
};

static void finish(struct host *host, const struct ticket *ticket, enum outcome outcome, const char *reason,
                   const char *error)
{
    counters_add(&host->counters, outcome, reason, 1);
    if (host->settled != NULL)
        host->settled(host->settled_argument, slice_of(ticket->id), ticket->sequence, outcome_name(outcome),
                      reason, error);
    atomic_fetch_sub_explicit(&host->in_hand, 1, memory_order_relaxed);
    bus_acknowledge(host->subscriber, ticket->sequence);
    source_wake(&host->source);
}

void settle(struct host *host, const struct ticket *ticket, enum outcome outcome)
{
    if (outcome == OUTCOME_DELIVERED) {
        uint64_t now_us = clock_realtime_us();
        metric_observe(host->counters.age,
                       now_us > ticket->time_us ? (double)(now_us - ticket->time_us) / 1e6 : 0);
    }
    finish(host, ticket, outcome, NULL, NULL);
}

static void complain(struct host *host, const struct error *error)
{
    uint64_t suppressed;
    if (log_limit_pass(&host->letters_log, &suppressed))
        log_error("events dropped: the dead letters cannot be written",
                  log_string("pipeline", host->pipeline_name), log_string("error", error->message),
                  log_string("setting", "observability.dead_letters"), log_suppressed(suppressed));
}

void settle_failed(struct host *host, const struct ticket *ticket, struct event_record *event,
                   const struct failure *failure)
{
    struct error error;
    const struct dead_letter letter = {
        .reason = slice_of(failure->reason),
        .error = slice_of(failure->error),
        .where = slice_of(failure->where),
        .tries = failure->tries,
        .first_us = failure->first_us,
        .last_us = failure->last_us,
        .event = event,
    };
    bool written = host->dead_letters != NULL && event != NULL;
    if (written && !dead_letters_add(host->dead_letters, &letter, &error)) {
        complain(host, &error);
        written = false;
    }
    if (!written) {
        finish(host, ticket, OUTCOME_DROPPED, failure->reason, failure->error);
        return;
    }
    struct unsynced *unsynced = xcalloc(1, sizeof *unsynced);
    unsynced->ticket = *ticket;
    unsynced->reason = xstrdup(failure->reason);
    unsynced->error = failure->error != NULL ? xstrdup(failure->error) : NULL;
    if (host->unsynced == NULL)
        loop_timer_set(&host->letters_timer, SYNC_DELAY_NS);
    unsynced->next = host->unsynced;
    host->unsynced = unsynced;
}

void settle_letters(struct host *host)
{
    struct unsynced *unsynced = host->unsynced;
    struct error error;
    if (unsynced == NULL)
        return;
    host->unsynced = NULL;
    bool durable = dead_letters_sync(host->dead_letters, &error);
    if (!durable)
        complain(host, &error);
    while (unsynced != NULL) {
        struct unsynced *next = unsynced->next;
        finish(host, &unsynced->ticket, durable ? OUTCOME_DEAD_LETTERED : OUTCOME_DROPPED, unsynced->reason,
               unsynced->error);
        free(unsynced->reason);
        free(unsynced->error);
        free(unsynced);
        unsynced = next;
    }
}
