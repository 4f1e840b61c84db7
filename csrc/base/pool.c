/* pool.c - workers wait on a generation counter: they spin briefly (a decode step follows the last one within
 * microseconds), then sleep. The caller takes part 0 and waits for the others the same way. */
#include "base/pool.h"
#include "base/memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#define SPIN_NANOSECONDS 30000 /* longer than the gaps inside a decode step, far shorter than a scheduling quantum */

struct pm_pool {
    int threads;
    pthread_t *thread;            /* (threads - 1) */
    struct worker { pm_pool *pool; int index; } *worker;
    int started;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    atomic_uint generation;       /* a new value is a new job */
    atomic_int pending;           /* workers still at it */
    atomic_int busy;              /* a job runs: another pm_pool_run can only come from inside it */
    int stop;
    pm_job job;
    void *context;
    size_t items, grain;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Part `index` of the current job: contiguous, borders at multiples of grain. */
static void run_part(pm_pool *p, int index) {
    const size_t units = (p->items + p->grain - 1) / p->grain, threads = (size_t)p->threads, i = (size_t)index;
    const size_t first = units / threads * i + (units % threads < i ? units % threads : i);
    const size_t last = first + units / threads + (i < units % threads);
    const size_t begin = first * p->grain, end = last * p->grain < p->items ? last * p->grain : p->items;
    if (begin < end) p->job(p->context, begin, end, index);
}

static void *work(void *argument) {
    const struct worker *w = argument;
    pm_pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        const uint64_t until = now_ns() + SPIN_NANOSECONDS;
        while (atomic_load_explicit(&p->generation, memory_order_acquire) == seen && now_ns() < until) pause_cpu();
        if (atomic_load_explicit(&p->generation, memory_order_acquire) == seen) {
            pthread_mutex_lock(&p->lock);
            while (atomic_load_explicit(&p->generation, memory_order_acquire) == seen) pthread_cond_wait(&p->wake, &p->lock);
            pthread_mutex_unlock(&p->lock);
        }
        seen = atomic_load_explicit(&p->generation, memory_order_acquire);
        if (p->stop) return NULL;
        run_part(p, w->index);
        if (atomic_fetch_sub_explicit(&p->pending, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static void announce(pm_pool *p) {
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_acq_rel);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

pymtp_status pm_pool_new(int threads, pm_pool **out, pymtp_error *err) {
    *out = NULL;
    if (threads < 1 || threads > 1024) return pm_fail(err, PYMTP_E_ARG, "threads: expected 1..1024, found %d", threads);
    pm_pool *p = pm_new(1, sizeof *p, "thread pool", err);
    if (!p) return PYMTP_E_NOMEM;
    p->threads = threads;
    p->thread = pm_new((size_t)threads, sizeof *p->thread, "thread pool", err);
    p->worker = pm_new((size_t)threads, sizeof *p->worker, "thread pool", err);
    if (!p->thread || !p->worker) {
        pm_free(p->thread);
        pm_free(p->worker);
        pm_free(p);
        return PYMTP_E_NOMEM;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    for (int i = 1; i < threads; i++) {
        p->worker[i] = (struct worker){p, i};
        const int e = pthread_create(&p->thread[i], NULL, work, &p->worker[i]);
        if (e) {
            pm_pool_free(p);
            return pm_fail(err, PYMTP_E_SYSTEM, "cannot start thread %d of %d: %s", i, threads, strerror(e));
        }
        p->started++;
    }
    *out = p;
    return PYMTP_OK;
}

void pm_pool_free(pm_pool *p) {
    if (!p) return;
    p->stop = 1;
    announce(p);
    for (int i = 1; i <= p->started; i++) pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    pm_free(p->worker);
    pm_free(p->thread);
    pm_free(p);
}

int pm_pool_threads(const pm_pool *p) { return p->threads; }

/* Index of the calling thread: the caller of the outer job counts as 0. */
static int own_index(const pm_pool *p) {
    const pthread_t self = pthread_self();
    for (int i = 1; i <= p->started; i++)
        if (pthread_equal(p->thread[i], self)) return i;
    return 0;
}

static void wait_for_workers(pm_pool *p) {
    const uint64_t until = now_ns() + SPIN_NANOSECONDS;
    while (atomic_load_explicit(&p->pending, memory_order_acquire) && now_ns() < until) pause_cpu();
    if (!atomic_load_explicit(&p->pending, memory_order_acquire)) return;
    pthread_mutex_lock(&p->lock);
    while (atomic_load_explicit(&p->pending, memory_order_acquire)) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

void pm_pool_run(pm_pool *p, size_t items, size_t grain, pm_job job, void *context) {
    if (!items) return;
    if (p->threads == 1 || items <= grain) {
        job(context, 0, items, p->threads == 1 ? 0 : own_index(p));
        return;
    }
    if (atomic_exchange_explicit(&p->busy, 1, memory_order_acq_rel)) { /* nested */
        job(context, 0, items, own_index(p));
        return;
    }
    p->job = job;
    p->context = context;
    p->items = items;
    p->grain = grain ? grain : 1;
    atomic_store_explicit(&p->pending, p->threads - 1, memory_order_release);
    announce(p);
    run_part(p, 0);
    wait_for_workers(p);
    atomic_store_explicit(&p->busy, 0, memory_order_release);
}

/* ---- cores ---- */

#if defined(__linux__)
/* Cores the cgroup's CPU quota allows, rounded up; a large number when unlimited. */
static int quota_cores(void) {
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    long long quota, period;
    int out = 1 << 20;
    if (f) {
        if (fscanf(f, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) out = (int)((quota + period - 1) / period);
        fclose(f);
    }
    return out < 1 ? 1 : out;
}
#endif

int pm_cpu_count(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__linux__)
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set) && CPU_COUNT(&set) < n) n = CPU_COUNT(&set);
    if (quota_cores() < n) n = quota_cores();
#endif
    return n < 1 ? 1 : n > 256 ? 256 : (int)n;
}
