/* cpucount.h - how many threads this process should use, and how many can run at the same time. Asked anew each time:
 * affinity and quotas may change. */
#ifndef PM_BASE_CPUCOUNT_H
#define PM_BASE_CPUCOUNT_H

#define PM_MAX_CPUS 4096 /* CPUs with larger numbers are not seen */

/* The default number of threads, 1..256: one for each physical performance core that the process may run on (affinity,
 * cpuset), not more than the CPU quotas of its control groups and their parents give, rounded up. */
int pm_cpu_count(void);
/* CPUs the process can keep busy: affinity and quota, hardware threads and slow cores included; at least 1. */
int pm_cpu_limit(void);

/* The same from a tree of files (root/sys, root/proc) and the CPUs allowed: allowed[cpu] != 0. For tests. */
int pm_cpu_count_in(const char *root, const unsigned char allowed[PM_MAX_CPUS]);
int pm_cpu_limit_in(const char *root, const unsigned char allowed[PM_MAX_CPUS]);

#endif
