/* probe.c - pymtp_measure: what the machine can do, as limits to compare the speed of a model with.
 *
 * Memory: every thread streams through its part of a region far larger than the caches, in large pages where the system gives
 * them. Arithmetic: the probe kernels of the kernel set in use, on values in the first cache. */
#include "base/cpucount.h"
#include "base/memory.h"
#include "base/cpucount.h"
#include "base/pool.h"
#include "cpu/kernels.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REGION_BYTES ((size_t)512 << 20)
#define THREAD_BYTES ((size_t)64 << 20) /* at least for each thread: more than a core's share of any last cache */
#define REGION_LEAST ((size_t)64 << 20)
#define ROUNDS 7
#define VALUES 2048 /* in every first cache, and far more than the registers hold */
#define ROUND_SECONDS 0.005

typedef struct probe {
    const pm_kernels *k;
    pm_pool *pool;
    pm_region region;
    size_t bytes, rounds; /* read of the region; rounds of a probe kernel */
    double result[256];        /* (threads): of what was computed, so that it is */
    double multiply_adds[256]; /* (threads): of the last run of a probe kernel */
} probe;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double seconds_of(probe *p, size_t items, size_t grain, pm_job job) {
    const double start = now();
    pm_pool_run(p->pool, items, grain, job, p);
    return now() - start;
}

/* ---- memory ---- */

#define LINE ((size_t)64)

/* Items are lines of 64 bytes. Pages that were never written would all be one page of zeros, in the cache. */
static void write_job(void *context, size_t begin, size_t end, int thread) {
    const probe *p = context;
    memset(p->region.base + begin * LINE, 1 + thread % 2, (end - begin) * LINE);
}

static void read_job(void *context, size_t begin, size_t end, int thread) {
    probe *p = context;
    const uint64_t *x = (const uint64_t *)(const void *)(p->region.base + begin * LINE);
    uint64_t sum[LINE / 8] = {0};
    for (size_t i = 0; i < (end - begin) * (LINE / 8); i += LINE / 8)
        for (size_t j = 0; j < LINE / 8; j++) sum[j] += x[i + j];
    for (size_t j = 0; j < LINE / 8; j++) p->result[thread] += (double)sum[j];
}

static pymtp_status measure_memory(probe *p, pymtp_machine *out, pymtp_error *err) {
    double rate[ROUNDS];
    const size_t wanted = (size_t)out->threads * THREAD_BYTES;
    for (p->bytes = wanted > REGION_BYTES ? wanted : REGION_BYTES; p->bytes > REGION_LEAST && p->bytes > pm_memory_available() / 4;) p->bytes /= 2;
    PM_TRY(pm_region_reserve(&p->region, p->bytes, "the measurement of memory", err));
    pm_region_prefer_huge(&p->region);
    PM_TRY(pm_region_commit(&p->region, p->bytes, "the measurement of memory", err));
    pm_pool_run(p->pool, p->bytes / LINE, 1, write_job, p);
    for (int i = 0; i < ROUNDS; i++) rate[i] = (double)p->bytes / seconds_of(p, p->bytes / LINE, 1, read_job);
    qsort(rate, ROUNDS, sizeof *rate, ascending);
    out->read_bytes_per_second = rate[ROUNDS / 2];
    out->read_bytes_per_second_best = rate[ROUNDS - 1];
    return PYMTP_OK;
}

/* ---- arithmetic ---- */

/* Items are the shares of the threads. */
static void int8_job(void *context, size_t begin, size_t end, int thread) {
    probe *p = context;
    int8_t x[VALUES] __attribute__((aligned(64)));
    for (size_t i = 0; i < VALUES; i++) x[i] = (int8_t)(i % 2);
    for (; begin < end; begin++) p->multiply_adds[begin] = p->k->probe_int8(x, VALUES, p->rounds, &p->result[begin]);
}

static void f32_job(void *context, size_t begin, size_t end, int thread) {
    probe *p = context;
    float x[VALUES] __attribute__((aligned(64)));
    for (size_t i = 0; i < VALUES; i++) x[i] = (float)(i % 4) / 4;
    for (; begin < end; begin++) p->multiply_adds[begin] = p->k->probe_f32(x, VALUES, p->rounds, &p->result[begin]);
}

/* Multiply-adds per second of all threads: the largest of the rounds. */
static double measure_job(probe *p, pm_job job) {
    const size_t threads = (size_t)pm_pool_threads(p->pool);
    double best = 0;
    for (p->rounds = 16; p->rounds < (size_t)1 << 17 && seconds_of(p, threads, 1, job) < ROUND_SECONDS;) p->rounds *= 2;
    for (int round = 0; round < ROUNDS; round++) {
        const double seconds = seconds_of(p, threads, 1, job);
        double done = 0;
        for (size_t i = 0; i < threads; i++) done += p->multiply_adds[i];
        if (done / seconds > best) best = done / seconds;
    }
    return best;
}

/* ---- all of it ---- */

static pymtp_status measure(probe *p, pymtp_machine *out, pymtp_error *err) {
    PM_TRY(pm_kernels_choose(&p->k, err));
    PM_TRY(pm_pool_new(out->threads, &p->pool, err));
    out->cpu = p->k->name;
    out->int8_multiply_adds_per_second = measure_job(p, int8_job);
    out->f32_multiply_adds_per_second = measure_job(p, f32_job);
    return measure_memory(p, out, err);
}

pymtp_status pymtp_measure(int32_t threads, pymtp_machine *out, pymtp_error *err) {
    pm_clear(err);
    if (!out || out->size != sizeof *out) return pm_fail(err, PYMTP_E_ARG, "machine: expected a struct with its size");
    if (threads < 0 || threads > 256) return pm_fail(err, PYMTP_E_ARG, "threads: expected 0..256, found %d", threads);
    probe *p = pm_new(1, sizeof *p, "measurement", err);
    if (!p) return PYMTP_E_NOMEM;
    *out = (pymtp_machine){.size = sizeof *out, .threads = threads ? threads : pm_cpu_count()};
    const pymtp_status status = measure(p, out, err);
    pm_region_release(&p->region);
    pm_pool_free(p->pool);
    pm_free(p);
    return status;
}
