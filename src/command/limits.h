/*
 * limits: what the system lets this process have.
 */
#ifndef COMMAND_LIMITS_H
#define COMMAND_LIMITS_H

#include <stddef.h>

/* Raises the limit of open files to its hard limit; gives what is allowed now. */
size_t limits_raise_open_files(void);
/* How many client connections that many open files are enough for: each may have one to an upstream, and some are needed for everything else. At least 1. */
size_t limits_connections(size_t open_files, size_t workers, size_t pipelines);

#endif
