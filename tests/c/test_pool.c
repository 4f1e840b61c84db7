/* test_pool.c - every item exactly once, borders at multiples of the grain, thread numbers, nested calls, many small jobs. */
#include "base/memory.h"
#include "base/pool.h"
#include "check.h"

#include <string.h>

#define MAX_ITEMS 1000

typedef struct counts {
    pm_pool *pool;
    size_t items, grain;
    unsigned char hit[MAX_ITEMS];  /* plain bytes: TSan sees it when two threads get the same item */
    unsigned char bad_border[64];  /* per thread */
    unsigned calls[64];
} counts;

static void count_job(void *context, size_t begin, size_t end, int thread) {
    counts *c = context;
    c->calls[thread]++;
    if (begin % (c->grain ? c->grain : 1) || (end != c->items && end % (c->grain ? c->grain : 1)) || begin >= end || end > c->items)
        c->bad_border[thread] = 1;
    for (size_t i = begin; i < end && i < MAX_ITEMS; i++) c->hit[i]++;
}

static void coverage(pm_pool *pool, size_t items, size_t grain) {
    counts c = {.pool = pool, .items = items, .grain = grain};
    pm_pool_run(pool, items, grain, count_job, &c);
    size_t wrong = 0;
    for (size_t i = 0; i < MAX_ITEMS; i++) wrong += c.hit[i] != (i < items);
    CHECK(!wrong, "%zu items, grain %zu, %d threads: %zu items not run once", items, grain, pm_pool_threads(pool), wrong);
    for (int t = 0; t < 64; t++) {
        CHECK(!c.bad_border[t], "%zu items, grain %zu: bad border", items, grain);
        CHECK(c.calls[t] <= (t < pm_pool_threads(pool)), "%zu items, grain %zu: thread %d called %u times", items, grain, t, c.calls[t]);
    }
}

/* ---- nested ---- */

typedef struct nested { pm_pool *pool; int outer, thread_differs; size_t sum; } nested;

static void inner_job(void *context, size_t begin, size_t end, int thread) {
    nested *n = context;
    if (thread != n->outer) n->thread_differs = 1;
    for (size_t i = begin; i < end; i++) n->sum += i;
}

static void outer_job(void *context, size_t begin, size_t end, int thread) {
    nested *all = context;
    for (size_t i = begin; i < end; i++) {
        all[i].outer = thread;
        pm_pool_run(all[i].pool, i % 2 ? 1 : 100, 1, inner_job, &all[i]); /* one item runs inline in any case */
    }
}

static void nesting(pm_pool *pool) {
    nested all[20];
    memset(all, 0, sizeof all);
    for (int i = 0; i < 20; i++) all[i].pool = pool;
    pm_pool_run(pool, 20, 1, outer_job, all);
    for (int i = 0; i < 20; i++) {
        CHECK(all[i].sum == (i % 2 ? 0u : 4950u), "nested sum %zu", all[i].sum);
        CHECK(!all[i].thread_differs, "a nested job got another thread's number");
    }
}

/* ---- many small jobs: each sees what the one before wrote ---- */

static void chain_job(void *context, size_t begin, size_t end, int thread) {
    unsigned *v = context;
    for (size_t i = begin; i < end; i++) v[i] = v[i + 64] + 1;
}

static void back_job(void *context, size_t begin, size_t end, int thread) {
    unsigned *v = context;
    for (size_t i = begin; i < end; i++) v[127 - i] = v[i]; /* crosses thread borders */
}

static void many(pm_pool *pool) {
    unsigned v[128] = {0};
    for (int i = 0; i < 2000; i++) {
        pm_pool_run(pool, 64, 1, chain_job, v);
        pm_pool_run(pool, 64, 1, back_job, v);
    }
    for (int i = 0; i < 128; i++) CHECK(v[i] == 2000, "v[%d] = %u", i, v[i]);
}

int main(void) {
    pymtp_error err = {0};
    pm_pool *pool = NULL;
    CHECK(pm_pool_new(0, &pool, &err) == PYMTP_E_ARG && !pool && err.text[0], "0 threads");
    pm_pool_free(NULL);
    CHECK(pm_cpu_count() >= 1, "cores");
    for (int threads = 1; threads <= 5; threads++) {
        CHECK(pm_pool_new(threads, &pool, NULL) == PYMTP_OK, "%d threads", threads);
        if (!pool) continue;
        static const size_t items[] = {0, 1, 2, 3, 7, 16, 17, 64, 1000}, grains[] = {0, 1, 3, 16, 2000};
        for (size_t i = 0; i < sizeof items / sizeof *items; i++)
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) coverage(pool, items[i], grains[g]);
        nesting(pool);
        many(pool);
        pm_pool_free(pool);
    }
    for (int i = 0; i < 20; i++) { /* started and stopped without work */
        CHECK(pm_pool_new(4, &pool, NULL) == PYMTP_OK, "start %d", i);
        pm_pool_free(pool);
    }
    return check_done();
}
