/* cpucount.c - counts cores from what Linux says in /sys and /proc, and macOS through sysctl. What a file does not say,
 * because it is missing or unreadable, limits nothing.
 *
 * Why one thread a core: hardware threads of one core share its arithmetic and its path to memory, and both are what a pass
 * is bound by. Why no efficiency cores: a job ends with its slowest thread. */
#include "base/cpucount.h"
#include "base/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#define MAX_DEFAULT 256 /* threads */
#define LINE_BYTES 4096

/* ---- files ---- */

/* The first line of a file; 0 when there is none. */
static int first_line(const char *root, const char *path, char line[LINE_BYTES]) {
    char full[LINE_BYTES];
    snprintf(full, sizeof full, "%s%s", root, path);
    FILE *f = fopen(full, "r");
    if (!f) return 0;
    const int ok = fgets(line, LINE_BYTES, f) != NULL;
    fclose(f);
    return ok;
}

static int cpu_line(const char *root, int cpu, const char *name, char line[LINE_BYTES]) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, name);
    return first_line(root, path, line);
}

/* A list such as "0-3,8,10-11", up to the first thing that is none. */
static void read_list(const char *text, unsigned char set[PM_MAX_CPUS]) {
    memset(set, 0, PM_MAX_CPUS);
    for (char *end;; text = end + 1) {
        const long first = strtol(text, &end, 10);
        long last = first;
        if (end == text) return;
        if (*end == '-') last = strtol(end + 1, &end, 10);
        for (long cpu = first < 0 ? 0 : first; cpu <= last && cpu < PM_MAX_CPUS; cpu++) set[cpu] = 1;
        if (*end != ',') return;
    }
}

/* ---- cores ---- */

static int size_of(const unsigned char set[PM_MAX_CPUS]) {
    int n = 0;
    for (int cpu = 0; cpu < PM_MAX_CPUS; cpu++) n += set[cpu] != 0;
    return n;
}

/* Hybrid x86: the kernel lists both kinds of cores. 0 when it does not, or none of the fast ones is allowed. */
static int keep_listed_fast(const char *root, unsigned char set[PM_MAX_CPUS]) {
    char line[LINE_BYTES];
    unsigned char fast[PM_MAX_CPUS];
    if (!first_line(root, "/sys/devices/cpu_atom/cpus", line) || !first_line(root, "/sys/devices/cpu_core/cpus", line)) return 0;
    read_list(line, fast);
    for (int cpu = 0; cpu < PM_MAX_CPUS; cpu++) fast[cpu] = fast[cpu] && set[cpu];
    if (!size_of(fast)) return 0;
    memcpy(set, fast, PM_MAX_CPUS);
    return 1;
}

/* Drops the CPUs that are less than half as fast as the fastest one by a number that every CPU has; 0 when one has none. */
static int keep_fast_by(const char *root, const char *name, unsigned char set[PM_MAX_CPUS]) {
    long speed[PM_MAX_CPUS], best = 0;
    char line[LINE_BYTES];
    for (int cpu = 0; cpu < PM_MAX_CPUS; cpu++) {
        if (!set[cpu]) continue;
        speed[cpu] = cpu_line(root, cpu, name, line) ? strtol(line, NULL, 10) : 0;
        if (speed[cpu] <= 0) return 0;
        if (speed[cpu] > best) best = speed[cpu];
    }
    for (int cpu = 0; cpu < PM_MAX_CPUS; cpu++) set[cpu] = set[cpu] && speed[cpu] >= best - best / 2;
    return 1;
}

static void keep_fast(const char *root, unsigned char set[PM_MAX_CPUS]) {
    if (keep_listed_fast(root, set) || keep_fast_by(root, "cpu_capacity", set)) return;
    keep_fast_by(root, "cpufreq/cpuinfo_max_freq", set);
}

/* CPUs of the set, those counted once that are hardware threads of one core. */
static int cores_of(const char *root, const unsigned char set[PM_MAX_CPUS]) {
    unsigned char siblings[PM_MAX_CPUS];
    char line[LINE_BYTES];
    int n = 0;
    for (int cpu = 0; cpu < PM_MAX_CPUS; cpu++) {
        if (!set[cpu]) continue;
        int first = cpu; /* of the core's threads in the set */
        if (cpu_line(root, cpu, "topology/core_cpus_list", line) || cpu_line(root, cpu, "topology/thread_siblings_list", line)) {
            read_list(line, siblings);
            for (first = 0; first < cpu && !(siblings[first] && set[first]);) first++;
        }
        n += first == cpu;
    }
    return n;
}

/* ---- quota ---- */

typedef struct quota { int cores; } quota;

/* Lowers the quota to what one control group gives: v2 "quota period" or "max period", v1 a file each, quota -1 for none. */
static void tighten(void *context, const char *folder, int v2) {
    quota *q = context;
    char line[LINE_BYTES];
    long long time = 0, period = 0;
    if (v2) {
        if (!first_line(folder, "/cpu.max", line) || sscanf(line, "%lld %lld", &time, &period) != 2) return;
    } else {
        if (!first_line(folder, "/cpu.cfs_quota_us", line)) return;
        time = strtoll(line, NULL, 10);
        if (!first_line(folder, "/cpu.cfs_period_us", line)) return;
        period = strtoll(line, NULL, 10);
    }
    if (time <= 0 || period <= 0) return;
    const long long cores = (time - 1) / period + 1;
    if (cores < q->cores) q->cores = (int)cores;
}

static int least(const char *root, int n, int most) {
    quota q = {n < most ? n : most};
    pm_cgroup_walk(root, "cpu", tighten, &q);
    return q.cores < 1 ? 1 : q.cores;
}

int pm_cpu_limit_in(const char *root, const unsigned char allowed[PM_MAX_CPUS]) { return least(root, size_of(allowed), INT_MAX); }

int pm_cpu_count_in(const char *root, const unsigned char allowed[PM_MAX_CPUS]) {
    unsigned char set[PM_MAX_CPUS];
    memcpy(set, allowed, sizeof set);
    keep_fast(root, set);
    return least(root, cores_of(root, set), MAX_DEFAULT);
}

/* ---- this process ---- */

static void allowed_here(unsigned char allowed[PM_MAX_CPUS]) {
    memset(allowed, 0, PM_MAX_CPUS);
#if defined(__linux__)
    cpu_set_t mask[PM_MAX_CPUS / CPU_SETSIZE];
    if (!sched_getaffinity(0, sizeof mask, mask)) {
        for (size_t cpu = 0; cpu < PM_MAX_CPUS; cpu++) allowed[cpu] = CPU_ISSET_S(cpu, sizeof mask, mask) != 0;
        return;
    }
#endif
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    memset(allowed, 1, n < 1 ? 1 : n > PM_MAX_CPUS ? PM_MAX_CPUS : (size_t)n);
}

int pm_cpu_limit(void) {
    unsigned char allowed[PM_MAX_CPUS];
    allowed_here(allowed);
    return pm_cpu_limit_in("", allowed);
}

int pm_cpu_count(void) {
#if defined(__APPLE__)
    int cores = 0;
    size_t bytes = sizeof cores;
    if (!sysctlbyname("hw.perflevel0.physicalcpu", &cores, &bytes, NULL, 0) && cores > 0) return least("", cores, MAX_DEFAULT);
    bytes = sizeof cores;
    if (!sysctlbyname("hw.physicalcpu", &cores, &bytes, NULL, 0) && cores > 0) return least("", cores, MAX_DEFAULT);
#endif
    unsigned char allowed[PM_MAX_CPUS];
    allowed_here(allowed);
    return pm_cpu_count_in("", allowed);
}
