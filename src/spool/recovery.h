/*
 * recovery: what the writer of a log finds when it opens the folder, and mends: event_log.h tells what is done with a torn tail and with damage. Private to the log.
 */
#ifndef SPOOL_RECOVERY_H
#define SPOOL_RECOVERY_H

#include "spool/event_log.h"

struct recovered_log {
    struct event_log_segment *segments; /* the oldest first */
    size_t count;
    int fd;        /* the last segment, to write on in it; -1: there is none, or nothing may be added to it */
    uint64_t end;  /* where in it */
    uint64_t next; /* the sequence of the next record */
};

/* folder is locked, path is its name. False: *error, and nothing to free. */
bool log_recover(int folder, const char *path, struct recovered_log *found,
                 struct event_log_recovery *recovery, struct error *error);

#endif
