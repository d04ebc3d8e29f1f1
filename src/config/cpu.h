/*
 * cpu: how many CPUs this process may use: the smaller of its affinity and its cgroups' quota (version 1 or 2, of any cgroup above as well), rounded up.
 */
#ifndef CONFIG_CPU_H
#define CONFIG_CPU_H

#include <stddef.h>

/* At least 1. */
size_t cpu_count(void);

/* CPUs' worth of time that the cgroups allow, 0 when they do not limit it. membership: the text of /proc/self/cgroup; root: where the cgroup file systems are mounted, "/sys/fs/cgroup". */
double cpu_quota(const char *root, const char *membership);

#endif
