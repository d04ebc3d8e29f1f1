/*
 * limits: see limits.h.
 */
#include "command/limits.h"

#include <stdint.h>
#include <sys/resource.h>

/* Standard streams, log, admin and its 64 connections, the main loop. */
#define FILES_OF_THE_PROCESS 96
/* Loop, mailbox, listening sockets. */
#define FILES_OF_A_WORKER 16
/* Loop, files, connections of dispatchers. */
#define FILES_OF_A_PIPELINE 64

size_t limits_raise_open_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 1024;
    }
    struct rlimit raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) {
        limit = raised;
    }
    return limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > SIZE_MAX ? SIZE_MAX : (size_t)limit.rlim_cur;
}

size_t limits_connections(size_t open_files, size_t workers, size_t pipelines)
{
    size_t others = FILES_OF_THE_PROCESS + workers * FILES_OF_A_WORKER + pipelines * FILES_OF_A_PIPELINE;
    return open_files > others + 2 ? (open_files - others) / 2 : 1;
}
