/*
 * settle: the end of an entry. It is counted, told to whoever asked, and acknowledged to the bus; one that cannot be delivered goes to the dead letters before, where there are any: written at once, and for all that
 * gathered within a few milliseconds made durable together. What cannot be kept there is dropped with its reason, as it would be without dead letters.
 */
#ifndef PIPELINE_SETTLE_H
#define PIPELINE_SETTLE_H

#include "pipeline/host.h"

/* Why an event cannot be delivered. Strings may be NULL where there is nothing to say, but for the reason. */
struct failure {
    const char *reason; /* rejected, transform_error, expired */
    const char *error;
    const char *where; /* the transform's or dispatcher's name */
    uint32_t tries;
    uint64_t first_us, last_us; /* of the first and the last try, or of the failure */
};

/* Delivered or filtered. */
void settle(struct host *host, const struct ticket *ticket, enum outcome outcome);
/* event: as it entered the pipeline, borrowed; NULL: it is not there any more, and so will be dropped. */
void settle_failed(struct host *host, const struct ticket *ticket, struct event_record *event,
                   const struct failure *failure);
/* Makes the letters that were written durable and is through with their events. Blocks. */
void settle_letters(struct host *host);

#endif
