/*
 * process: the running proxy: its parts are started, reloaded and stopped here, all on the main thread.
 *
 *     RUNNING --SIGTERM, SIGINT--> LEAVING (not ready, still accepting) --shutdown_delay--> EXCHANGES (accepts no more, running ones end) --all ended, or late--> PIPELINES (deliver what waits)
 *             --all delivered, or late--> ENDED
 *
 * EXCHANGES and PIPELINES together take at most shutdown_timeout; a tenth of it (at most 3 s) is kept for the pipelines, so that the events of exchanges that had to be cut off are delivered as well. A second signal
 * ends the process at once, with status 1. SIGHUP reopens files and reads the configuration again.
 */
#ifndef COMMAND_PROCESS_H
#define COMMAND_PROCESS_H

#include "config/config.h"

struct process;

/* Signals that are handled are blocked from here on: call before any other thread exists. */
void process_block_signals(void);
/* Takes over config, which was loaded from source (its strings outlive the process). NULL: it could not start, which was said on stderr; *status is the exit status. */
struct process *process_start(struct config *config, const struct config_source *source, int *status);
/* Until a signal ends it. */
void process_run(struct process *process);
/* Stops what still runs. */
void process_free(struct process *process);

#endif
