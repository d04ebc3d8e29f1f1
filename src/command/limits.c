/*
 * limits: see limits.h.
 */
#include "command/limits.h"

#include <stdint.h>
#include <sys/resource.h>

/* Standard streams, the main loop, resolver, admin and a handful of its connections. */
#define FILES_OF_THE_PROCESS 32
/* Loop, mailbox, listening sockets. */
#define FILES_OF_A_WORKER 8
/* Loop, files, connections of dispatchers. */
#define FILES_OF_A_PIPELINE 16

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
