/* test_pool.c - every item exactly once, borders at multiples of the grain, thread numbers, nested calls, many small jobs;
 * a thread that is stuck is helped, a sleeping one is woken, two pools at once get on. What would show as slowness is tested
 * as progress: a job that cannot end unless the pool does what it should. */
#include "base/pool.h"
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#define MAX_ITEMS 1000

typedef struct counts {
    pm_pool *pool;
    size_t items, grain;
    unsigned char hit[MAX_ITEMS];  /* plain bytes: TSan sees it when two threads get the same item */
    unsigned char bad_border[64];  /* per thread */
    unsigned calls[64];
    unsigned char running[64];     /* per thread: plain, TSan sees it when a number is used twice at a time */
} counts;

static void count_job(void *context, size_t begin, size_t end, int thread) {
    counts *c = context;
    if (c->running[thread]++) c->bad_border[thread] = 1;
    c->calls[thread]++;
    if (begin % (c->grain ? c->grain : 1) || (end != c->items && end % (c->grain ? c->grain : 1)) || begin >= end || end > c->items)
        c->bad_border[thread] = 1;
    for (size_t i = begin; i < end && i < MAX_ITEMS; i++) c->hit[i]++;
    c->running[thread]--;
}

static void coverage(pm_pool *pool, size_t items, size_t grain) {
    counts c = {.pool = pool, .items = items, .grain = grain};
    pm_pool_run(pool, items, grain, count_job, &c);
    size_t wrong = 0, calls = 0;
    for (size_t i = 0; i < MAX_ITEMS; i++) wrong += c.hit[i] != (i < items);
    CHECK(!wrong, "%zu items, grain %zu, %d threads: %zu items not run once", items, grain, pm_pool_threads(pool), wrong);
    for (int t = 0; t < 64; t++) {
        CHECK(!c.bad_border[t], "%zu items, grain %zu: bad border", items, grain);
        CHECK(!c.calls[t] || t < pm_pool_threads(pool), "%zu items, grain %zu: thread %d called", items, grain, t);
        calls += c.calls[t];
    }
    CHECK(calls <= PM_POOL_CHUNKS * (size_t)pm_pool_threads(pool), "%zu items, grain %zu: %zu chunks", items, grain, calls);
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

static void run_many(pm_pool *pool, unsigned v[128]) {
    for (int i = 0; i < 2000; i++) {
        pm_pool_run(pool, 64, 1, chain_job, v);
        pm_pool_run(pool, 64, 1, back_job, v);
    }
}

static void check_many(const unsigned v[128]) {
    for (int i = 0; i < 128; i++) CHECK(v[i] == 2000, "v[%d] = %u", i, v[i]);
}

static void many(pm_pool *pool) {
    unsigned v[128] = {0};
    run_many(pool, v);
    check_many(v);
}

/* ---- help: the first chunk that `stuck` gets waits until all others are done, so others must do them ---- */

typedef struct helping { int stuck, met; atomic_size_t done; size_t items; } helping;

static void help_job(void *context, size_t begin, size_t end, int thread) {
    helping *h = context;
    if (thread == h->stuck && !h->met++)
        while (atomic_load(&h->done) < h->items - (end - begin)) sched_yield();
    atomic_fetch_add(&h->done, end - begin);
}

static void help(pm_pool *pool) {
    for (int i = 0; i < 300; i++) {
        helping h = {.stuck = i % pm_pool_threads(pool), .items = 160};
        pm_pool_run(pool, h.items, 1, help_job, &h);
        CHECK(atomic_load(&h.done) == h.items, "%zu items done", atomic_load(&h.done));
    }
}

/* ---- sleep: gaps around the time after which workers sleep; each job needs a second thread ---- */

static void meet_job(void *context, size_t begin, size_t end, int thread) {
    atomic_int *others = context;
    if (thread) atomic_fetch_add(others, 1);
    while (!atomic_load(others)) sched_yield();
}

static void wake(pm_pool *pool) {
    for (int i = 0; i < 400; i++) {
        atomic_int others = 0;
        const struct timespec gap = {0, i % 100 * 1000};
        nanosleep(&gap, NULL);
        pm_pool_run(pool, 64, 1, meet_job, &others);
        CHECK(atomic_load(&others) > 0, "nobody else came");
    }
}

/* ---- two pools on the same cores ---- */

typedef struct busy_pool { pm_pool *pool; unsigned v[128]; } busy_pool;

static void *keep_busy(void *argument) {
    busy_pool *b = argument;
    run_many(b->pool, b->v);
    return NULL;
}

static void together(int threads) {
    busy_pool two[2] = {{0}};
    pthread_t other;
    for (int i = 0; i < 2; i++) CHECK(pm_pool_new(threads, &two[i].pool, NULL) == PYMTP_OK, "%d threads", threads);
    if (two[0].pool && two[1].pool) {
        const int failed = pthread_create(&other, NULL, keep_busy, &two[1]);
        CHECK(!failed, "thread");
        keep_busy(&two[0]);
        if (!failed) pthread_join(other, NULL);
        for (int i = 0; i < 2; i++) check_many(two[i].v);
    }
    for (int i = 0; i < 2; i++) pm_pool_free(two[i].pool);
}

int main(void) {
    pymtp_error err = {0};
    pm_pool *pool = NULL;
    CHECK(pm_pool_new(0, &pool, &err) == PYMTP_E_ARG && !pool && err.text[0], "0 threads");
    pm_pool_free(NULL);
    for (int threads = 1; threads <= 5; threads++) {
        CHECK(pm_pool_new(threads, &pool, NULL) == PYMTP_OK, "%d threads", threads);
        if (!pool) continue;
        static const size_t items[] = {0, 1, 2, 3, 7, 16, 17, 64, 1000}, grains[] = {0, 1, 3, 16, 2000};
        for (size_t i = 0; i < sizeof items / sizeof *items; i++)
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) coverage(pool, items[i], grains[g]);
        nesting(pool);
        many(pool);
        if (threads > 1) {
            help(pool);
            wake(pool);
        }
        pm_pool_free(pool);
    }
    together(2);
    together(16);
    for (int i = 0; i < 20; i++) { /* started and stopped without work */
        CHECK(pm_pool_new(4, &pool, NULL) == PYMTP_OK, "start %d", i);
        pm_pool_free(pool);
    }
    return check_done();
}
