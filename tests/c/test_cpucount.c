/* test_cpucount.c - default threads and CPU limits from fake /sys and /proc trees. */
#include "base/cpucount.h"
#include "check.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *ftw) { return remove(path); }

static void clear(void) {
    if (root[0]) nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    strcpy(root, "/tmp/pymtp-cpucount-XXXXXX");
    CHECK(mkdtemp(root) != NULL, "temporary folder");
}

/* Writes a file of the tree, with its folders. */
static void put(const char *path, const char *text) {
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = 0;
        mkdir(full, 0700);
        *slash = '/';
    }
    FILE *f = fopen(full, "w");
    CHECK(f != NULL, "%s", full);
    if (!f) return;
    fputs(text, f);
    fclose(f);
}

static void put_cpu(int cpu, const char *name, const char *text) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, name);
    put(path, text);
}

static const unsigned char *cpus(int first, int last) {
    static unsigned char set[PM_MAX_CPUS];
    memset(set, 0, sizeof set);
    memset(set + first, 1, (size_t)(last - first + 1));
    return set;
}

static void expect(const char *what, const unsigned char *allowed, int count, int limit) {
    const int have_count = pm_cpu_count_in(root, allowed), have_limit = pm_cpu_limit_in(root, allowed);
    CHECK(have_count == count, "%s: %d threads, expected %d", what, have_count, count);
    CHECK(have_limit == limit, "%s: limit %d, expected %d", what, have_limit, limit);
}

static void nothing_there(void) {
    clear();
    expect("no files", cpus(0, 7), 8, 8);
    expect("one CPU", cpus(5, 5), 1, 1);
    expect("many CPUs", cpus(0, 4095), 256, 4096);
    static const unsigned char none[PM_MAX_CPUS];
    expect("no CPU", none, 1, 1);
}

/* 4 cores, 8 hardware threads; those of a core are 4 apart, as on many servers. */
static void hardware_threads(const char *file) {
    static const char *const lists[] = {"0,4\n", "1,5\n", "2,6\n", "3,7\n"};
    clear();
    for (int cpu = 0; cpu < 8; cpu++) put_cpu(cpu, file, lists[cpu % 4]);
    expect(file, cpus(0, 7), 4, 8);
    expect("both threads of two cores, and two cores", cpus(2, 7), 4, 6);
    expect("second threads only", cpus(4, 7), 4, 4);
    expect("one of each of two cores", cpus(3, 4), 2, 2);
    unsigned char pair[PM_MAX_CPUS] = {0};
    pair[1] = pair[5] = 1;
    expect("one core", pair, 1, 2);
}

/* 2 performance cores with two threads each (0-3), 4 efficiency cores (4-7). */
static void hybrid_x86(void) {
    clear();
    for (int cpu = 0; cpu < 8; cpu++) {
        char list[32];
        if (cpu < 4) snprintf(list, sizeof list, "%d-%d\n", cpu / 2 * 2, cpu / 2 * 2 + 1);
        else snprintf(list, sizeof list, "%d\n", cpu);
        put_cpu(cpu, "topology/core_cpus_list", list);
        put_cpu(cpu, "cpu_capacity", cpu < 4 ? "1024\n" : "700\n");
    }
    put("/sys/devices/cpu_core/cpus", "0-3\n");
    expect("only one kind listed", cpus(0, 7), 6, 8);
    put("/sys/devices/cpu_atom/cpus", "4-7\n");
    expect("hybrid", cpus(0, 7), 2, 8);
    expect("hybrid, one fast core allowed", cpus(2, 7), 1, 6);
    expect("hybrid, slow cores only", cpus(4, 7), 4, 4);
}

static void big_little(void) {
    clear();
    for (int cpu = 0; cpu < 8; cpu++) {
        put_cpu(cpu, "cpu_capacity", cpu < 4 ? "250\n" : cpu < 7 ? "790\n" : "1024\n");
        put_cpu(cpu, "cpufreq/cpuinfo_max_freq", "2000000\n"); /* capacity knows better */
    }
    expect("big.LITTLE", cpus(0, 7), 4, 8);
    expect("big.LITTLE, little ones only", cpus(0, 3), 4, 4);
}

static void frequencies(void) {
    clear();
    for (int cpu = 0; cpu < 6; cpu++) put_cpu(cpu, "cpufreq/cpuinfo_max_freq", cpu < 2 ? "3000000\n" : cpu < 4 ? "2800000\n" : "1400000\n");
    expect("frequencies", cpus(0, 5), 4, 6);
    put_cpu(6, "online", "1\n");
    expect("one CPU without a frequency", cpus(0, 6), 7, 7);
}

static void quotas(void) {
    clear();
    put("/proc/self/cgroup", "0::/user.slice/job\n");
    put("/sys/fs/cgroup/user.slice/job/cpu.max", "max 100000\n");
    expect("no quota", cpus(0, 7), 8, 8);
    put("/sys/fs/cgroup/user.slice/job/cpu.max", "150000 100000\n");
    expect("1.5 cores", cpus(0, 7), 2, 2);
    put("/sys/fs/cgroup/user.slice/cpu.max", "50000 100000\n");
    expect("a parent gives half a core", cpus(0, 7), 1, 1);
    put("/sys/fs/cgroup/user.slice/cpu.max", "300000 100000\n");
    expect("a parent gives more", cpus(0, 7), 2, 2);
    put("/sys/fs/cgroup/user.slice/job/cpu.max", "max 100000\n");
    expect("only the parent limits", cpus(0, 7), 3, 3);
    put("/sys/fs/cgroup/user.slice/cpu.max", "nonsense\n");
    put("/sys/fs/cgroup/cpu.max", "200000 50000\n");
    expect("the root limits", cpus(0, 7), 4, 4);
    expect("fewer CPUs than the quota", cpus(0, 2), 3, 3);
}

static void old_quotas(void) {
    clear();
    put("/proc/self/cgroup", "12:cpuset:/a\n11:memory:/b\n4:cpuacct,cpu:/docker/c\n1:name=systemd:/\n0::/\n");
    put("/sys/fs/cgroup/cpu/docker/c/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/docker/c/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "100000\n"); /* another controller's group */
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    expect("v1, no quota", cpus(0, 7), 8, 8);
    put("/sys/fs/cgroup/cpu/docker/c/cpu.cfs_quota_us", "250000\n");
    expect("v1, 2.5 cores", cpus(0, 7), 3, 3);
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    expect("v1, the root (a container sees only it)", cpus(0, 7), 2, 2);
}

int main(void) {
    nothing_there();
    hardware_threads("topology/core_cpus_list");
    hardware_threads("topology/thread_siblings_list");
    hybrid_x86();
    big_little();
    frequencies();
    quotas();
    old_quotas();
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    CHECK(pm_cpu_count() >= 1 && pm_cpu_count() <= 256, "%d threads here", pm_cpu_count());
    CHECK(pm_cpu_limit() >= pm_cpu_count(), "limit %d, %d threads", pm_cpu_limit(), pm_cpu_count());
    return check_done();
}
