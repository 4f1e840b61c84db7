/* memory.c - allocation, reserved regions and what the machine has left. */
#include "base/memory.h"
#include "base/cgroup.h"
#include "base/checked.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REGION_STEP ((size_t)1 << 20) /* commit granularity; a multiple of every page size in use */

void *pm_malloc(size_t bytes) { return malloc(bytes ? bytes : 1); }

void *pm_calloc(size_t n, size_t bytes) { return calloc(n ? n : 1, bytes ? bytes : 1); }

void *pm_realloc(void *p, size_t n, size_t bytes) {
    size_t total;
    if (pm_mul_size(n, bytes, &total)) return NULL;
    return realloc(p, total ? total : 1);
}

void *pm_aligned(size_t bytes) {
    void *p = NULL;
    if (bytes > SIZE_MAX - 64) return NULL;
    return posix_memalign(&p, 64, pm_round_up(bytes ? bytes : 1, 64)) ? NULL : p;
}

void pm_free(void *p) { free(p); }

void *pm_new(size_t n, size_t bytes, const char *what, pymtp_error *err) {
    void *p = pm_calloc(n, bytes);
    if (!p) pm_fail(err, PYMTP_E_NOMEM, "out of memory: %s (%zu x %zu bytes)", what, n, bytes);
    return p;
}

/* ---- regions ---- */

pymtp_status pm_region_reserve(pm_region *r, size_t bytes, const char *what, pymtp_error *err) {
    *r = (pm_region){0};
    if (bytes > SIZE_MAX - REGION_STEP)
        return pm_fail(err, PYMTP_E_NOMEM, "cannot reserve address space for %s: %zu bytes", what, bytes);
    const size_t size = pm_round_up(bytes ? bytes : 1, REGION_STEP);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
    flags |= MAP_NORESERVE;
#endif
    void *p = mmap(NULL, size, PROT_NONE, flags, -1, 0);
    if (p == MAP_FAILED)
        return pm_fail(err, PYMTP_E_NOMEM, "cannot reserve address space for %s: %zu bytes: %s", what, size, strerror(errno));
    r->base = p;
    r->reserved = size;
    return PYMTP_OK;
}

pymtp_status pm_region_commit(pm_region *r, size_t bytes, const char *what, pymtp_error *err) {
    if (bytes <= r->committed) return PYMTP_OK;
    if (bytes > r->reserved)
        return pm_fail(err, PYMTP_E_NOMEM, "%s: %zu bytes wanted, %zu reserved", what, bytes, r->reserved);
    const size_t end = pm_round_up(bytes, REGION_STEP), more = end - r->committed, left = pm_memory_available();
    if (more > left)
        return pm_fail(err, PYMTP_E_NOMEM, "out of memory: %s needs %zu MiB more, %zu MiB are available", what, more >> 20, left >> 20);
    if (mprotect(r->base + r->committed, more, PROT_READ | PROT_WRITE))
        return pm_fail(err, PYMTP_E_NOMEM, "out of memory: %s (%zu MiB more): %s", what, more >> 20, strerror(errno));
    r->committed = end;
    return PYMTP_OK;
}

void pm_region_prefer_huge(pm_region *r) {
#ifdef MADV_HUGEPAGE
    (void)madvise(r->base, r->reserved, MADV_HUGEPAGE); /* a wish: without it all works, slower */
#endif
}

void pm_region_release(pm_region *r) {
    if (r->base) munmap(r->base, r->reserved);
    *r = (pm_region){0};
}

/* ---- what is left ---- */

#if defined(__linux__)
/* The number in a one-line file, or SIZE_MAX ("max", absent, unreadable). */
static size_t number_in(const char *path) {
    FILE *f = fopen(path, "r");
    unsigned long long v;
    if (!f) return SIZE_MAX;
    const int ok = fscanf(f, "%llu", &v) == 1;
    fclose(f);
    return ok && v < SIZE_MAX ? (size_t)v : SIZE_MAX;
}

/* MemAvailable of /proc/meminfo. */
static size_t machine_available(void) {
    FILE *f = fopen("/proc/meminfo", "r");
    char line[128];
    unsigned long long kib;
    size_t out = SIZE_MAX;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) out = (size_t)kib << 10;
    if (f) fclose(f);
    return out;
}

/* "key value" lines of memory.stat. */
static size_t stat_of(const char *path, const char *key) {
    FILE *f = fopen(path, "r");
    char line[128], name[64];
    unsigned long long v;
    size_t out = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%63s %llu", name, &v) == 2 && !strcmp(name, key)) out = (size_t)v;
    if (f) fclose(f);
    return out;
}

/* limit - usage of one cgroup folder; its inactive file cache can be reclaimed and does not count as used. */
static size_t headroom(const char *folder, const char *limit_name, const char *usage_name, const char *cache_key) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, limit_name);
    const size_t limit = number_in(path);
    if (limit == SIZE_MAX || limit > SIZE_MAX / 2) return SIZE_MAX;
    snprintf(path, sizeof path, "%s/%s", folder, usage_name);
    size_t used = number_in(path);
    if (used == SIZE_MAX) return SIZE_MAX;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    const size_t cache = stat_of(path, cache_key);
    used -= cache < used ? cache : used;
    return used < limit ? limit - used : 0;
}

/* The tightest of the process's cgroups and their parents so far. */
static void tighten(void *context, const char *folder, int v2) {
    size_t *best = context;
    const size_t left = v2 ? headroom(folder, "memory.max", "memory.current", "inactive_file")
                           : headroom(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");
    if (left < *best) *best = left;
}

size_t pm_memory_available(void) {
    size_t group = SIZE_MAX;
    const size_t machine = machine_available();
    pm_cgroup_walk("", "memory", tighten, &group);
    return machine < group ? machine : group;
}
#else
size_t pm_memory_available(void) { return SIZE_MAX; }
#endif
