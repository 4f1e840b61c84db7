/* pool.c - hands a job to the workers and joins them, without a lock while they spin.
 *
 * The items of a job are cut into one range per thread and each range into a few chunks. A thread claims the chunks of
 * its own range one after the other, so it reads one stretch of memory; when it has no more it helps with the ranges of
 * others, so a core that is late or taken away delays a job by about a chunk. The caller returns when all chunks are
 * done: it does not wait for a worker that claimed none.
 *
 * A job is announced by its ticket: a number that only grows, and the count of chunks. Such a worker may look at the
 * pool while the next job is written, so what always holds is: the fields of a job are read only after a chunk of it was
 * claimed (the job cannot end before that chunk does), and a claim succeeds only with the ticket of the running job
 * (every range of an earlier one is used up).
 *
 * Waiting threads spin for a while (a decode step follows the last one within microseconds), then sleep. Who announces
 * something stores first and looks for sleepers then; who goes to sleep counts itself first and looks again then. Both in
 * sequentially consistent order, so one of them sees the other. */
#include "base/pool.h"
#include "base/cpucount.h"
#include "base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define SPIN_NANOSECONDS 30000 /* longer than the gaps inside a decode step, far shorter than a scheduling quantum */
#define LOOKS 32               /* with a pause after each: a microsecond or so */
#define LINE 64                /* bytes: what different threads write lies on different cache lines */
#define MAX_THREADS 1024       /* times PM_POOL_CHUNKS fits a count */

/* A ticket, and the state of a range or worker in a job, is (number of the job, count). */
#define COUNT_BITS 16
#define COUNT_OF(ticket) ((unsigned)((ticket) & ((1u << COUNT_BITS) - 1)))
#define NUMBER_OF(ticket) ((ticket) >> COUNT_BITS)

typedef struct worker {
    _Alignas(LINE) _Atomic uint64_t claimed; /* of its range: chunks taken, by anybody; an older number means none */
    pm_pool *pool;
    pthread_t thread; /* not of worker 0, the caller */
    int index;
    _Alignas(LINE) _Atomic uint64_t done; /* by this thread: chunks done, of any range */
} worker;

struct pm_pool {
    _Alignas(LINE) _Atomic uint64_t ticket; /* the job below; a count of 0 means stop */
    pm_job job;
    void *context;
    size_t items, grain;
    _Alignas(LINE) atomic_int busy; /* a job runs: another pm_pool_run can only come from inside it */
    _Alignas(LINE) atomic_int sleepers; /* workers that have to be woken */
    atomic_int waiting;             /* the caller has to be */
    int threads;
    int started;                    /* workers 1..started exist */
    int crowded;                    /* more threads than CPUs */
    worker *worker;                 /* (threads) */
    pthread_mutex_t lock;           /* held to fall asleep and to wake */
    pthread_cond_t wake, finished;
};

/* ---- splitting ---- */

/* Start of part i when n things are dealt to `parts` in order, the first ones getting what is left over. */
static size_t part_start(size_t n, size_t parts, size_t i) { return n / parts * i + (n % parts < i ? n % parts : i); }

static size_t units_of(const pm_pool *p) { return (p->items - 1) / p->grain + 1; }

/* Chunks of the whole job, such that every range gets the same number or, when there are fewer units than threads, one
 * or none of one unit. */
static size_t chunk_count(size_t units, size_t threads) {
    if (units < threads) return units;
    return threads * (units / threads < PM_POOL_CHUNKS ? units / threads : PM_POOL_CHUNKS);
}

static size_t chunks_in_range(const pm_pool *p, uint64_t ticket, int range) {
    const size_t chunks = COUNT_OF(ticket), threads = (size_t)p->threads, i = (size_t)range;
    return part_start(chunks, threads, i + 1) - part_start(chunks, threads, i);
}

static void run_chunk(const pm_pool *p, int range, size_t chunk, size_t chunks, int thread) {
    const size_t units = units_of(p), threads = (size_t)p->threads, i = (size_t)range;
    const size_t start = part_start(units, threads, i), n = part_start(units, threads, i + 1) - start;
    const size_t begin = (start + part_start(n, chunks, chunk)) * p->grain, last = start + part_start(n, chunks, chunk + 1);
    p->job(p->context, begin, last == units ? p->items : last * p->grain, thread);
}

/* Takes the next chunk of a range; 0 when there is none, or another job runs by now. */
static int claim(worker *w, uint64_t ticket, size_t chunks, size_t *chunk) {
    uint64_t seen = atomic_load_explicit(&w->claimed, memory_order_relaxed);
    for (;;) {
        const size_t taken = NUMBER_OF(seen) == NUMBER_OF(ticket) ? COUNT_OF(seen) : 0;
        if (NUMBER_OF(seen) > NUMBER_OF(ticket) || taken >= chunks) return 0;
        const uint64_t next = (NUMBER_OF(ticket) << COUNT_BITS) + taken + 1;
        if (atomic_compare_exchange_weak_explicit(&w->claimed, &seen, next, memory_order_acquire, memory_order_relaxed)) {
            *chunk = taken;
            return 1;
        }
    }
}

/* Runs what is left of a range; returns the number of chunks run. */
static unsigned run_range(pm_pool *p, uint64_t ticket, int range, int thread) {
    const size_t chunks = chunks_in_range(p, ticket, range);
    unsigned n = 0;
    for (size_t chunk; claim(&p->worker[range], ticket, chunks, &chunk); n++) run_chunk(p, range, chunk, chunks, thread);
    return n;
}

/* ---- waiting ---- */

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

/* Is ready(p, what) within a microsecond or so? Where threads share CPUs, the one waited for may need this one. */
static int soon(const pm_pool *p, int (*ready)(const pm_pool *p, uint64_t what), uint64_t what) {
    for (int i = 0; i < LOOKS; i++) {
        if (ready(p, what)) return 1;
        if (p->crowded) sched_yield();
        else pause_cpu();
    }
    return 0;
}

/* The same within SPIN_NANOSECONDS. */
static int spin(const pm_pool *p, int (*ready)(const pm_pool *p, uint64_t what), uint64_t what) {
    if (soon(p, ready, what)) return 1;
    for (const uint64_t until = now_ns() + SPIN_NANOSECONDS; now_ns() < until;)
        if (soon(p, ready, what)) return 1;
    return 0;
}

static int announced(const pm_pool *p, uint64_t last) { return atomic_load(&p->ticket) != last; }

/* The next ticket after `last`. */
static uint64_t wait_for_job(pm_pool *p, uint64_t last) {
    if (!spin(p, announced, last)) {
        pthread_mutex_lock(&p->lock);
        atomic_fetch_add(&p->sleepers, 1);
        while (!announced(p, last)) pthread_cond_wait(&p->wake, &p->lock);
        atomic_fetch_sub(&p->sleepers, 1);
        pthread_mutex_unlock(&p->lock);
    }
    return atomic_load(&p->ticket);
}

static void announce(pm_pool *p, uint64_t ticket) {
    atomic_store(&p->ticket, ticket);
    if (!atomic_load(&p->sleepers)) return;
    pthread_mutex_lock(&p->lock); /* who counted itself but does not sleep yet holds it */
    pthread_mutex_unlock(&p->lock);
    pthread_cond_broadcast(&p->wake);
}

/* All chunks of the job were done, by the caller (its count is in `own`) and the workers. */
static int complete(const pm_pool *p, uint64_t own) {
    unsigned sum = COUNT_OF(own);
    const uint64_t ticket = atomic_load_explicit(&p->ticket, memory_order_relaxed);
    for (int i = 1; i < p->threads && sum < COUNT_OF(ticket); i++) {
        const uint64_t done = atomic_load(&p->worker[i].done);
        if (NUMBER_OF(done) == NUMBER_OF(ticket)) sum += COUNT_OF(done);
    }
    return sum == COUNT_OF(ticket);
}

static void wait_for_workers(pm_pool *p, uint64_t own) {
    if (spin(p, complete, own)) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->waiting, 1);
    while (!complete(p, own)) pthread_cond_wait(&p->finished, &p->lock);
    atomic_store(&p->waiting, 0);
    pthread_mutex_unlock(&p->lock);
}

static void report(pm_pool *p, int index, uint64_t ticket, unsigned chunks) {
    atomic_store(&p->worker[index].done, (NUMBER_OF(ticket) << COUNT_BITS) + chunks);
    if (!atomic_load(&p->waiting)) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->finished);
    pthread_mutex_unlock(&p->lock);
}

/* ---- workers ---- */

/* Its own range, then what is left of the others. Most jobs end evenly: who finds out by waiting a moment leaves the
 * `claimed` of the others in their caches. */
static void take_part(pm_pool *p, const worker *w, uint64_t ticket) {
    unsigned done = run_range(p, ticket, w->index, w->index);
    if (done) report(p, w->index, ticket, done);
    if (!p->crowded && soon(p, announced, ticket)) return;
    for (int i = 1; i < p->threads && !announced(p, ticket); i++) {
        const unsigned n = run_range(p, ticket, (w->index + i) % p->threads, w->index);
        if (n) report(p, w->index, ticket, done += n);
    }
}

static void *work(void *argument) {
    const worker *w = argument;
    for (uint64_t ticket = 0;;) {
        ticket = wait_for_job(w->pool, ticket);
        if (!COUNT_OF(ticket)) return NULL;
        take_part(w->pool, w, ticket);
    }
}

/* ---- the pool ---- */

static uint64_t next_ticket(const pm_pool *p, size_t chunks) {
    return ((NUMBER_OF(atomic_load_explicit(&p->ticket, memory_order_relaxed)) + 1) << COUNT_BITS) + chunks;
}

/* Zeroed, with the alignment that _Alignas above asks for. */
static void *new_lines(size_t n, size_t bytes, pymtp_error *err) {
    void *out = pm_aligned(n * bytes);
    if (out) memset(out, 0, n * bytes);
    else pm_fail(err, PYMTP_E_NOMEM, "out of memory: thread pool (%zu x %zu bytes)", n, bytes);
    return out;
}

pymtp_status pm_pool_new(int threads, pm_pool **out, pymtp_error *err) {
    *out = NULL;
    if (threads < 1 || threads > MAX_THREADS) return pm_fail(err, PYMTP_E_ARG, "threads: expected 1..%d, found %d", MAX_THREADS, threads);
    pm_pool *p = new_lines(1, sizeof *p, err);
    if (!p) return PYMTP_E_NOMEM;
    p->worker = new_lines((size_t)threads, sizeof *p->worker, err);
    if (!p->worker) {
        pm_free(p);
        return PYMTP_E_NOMEM;
    }
    p->threads = threads;
    p->crowded = threads > pm_cpu_limit();
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->finished, NULL);
    for (int i = 1; i < threads; i++) {
        worker *w = &p->worker[i];
        w->pool = p;
        w->index = i;
        const int e = pthread_create(&w->thread, NULL, work, w);
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
    announce(p, next_ticket(p, 0));
    for (int i = 1; i <= p->started; i++) pthread_join(p->worker[i].thread, NULL);
    pthread_cond_destroy(&p->finished);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    pm_free(p->worker);
    pm_free(p);
}

int pm_pool_threads(const pm_pool *p) { return p->threads; }

/* Index of the calling thread: the caller of the outer job counts as 0, and only inside a job can it be another. */
static int own_index(const pm_pool *p) {
    if (!atomic_load_explicit(&p->busy, memory_order_relaxed)) return 0;
    const pthread_t self = pthread_self();
    for (int i = 1; i <= p->started; i++)
        if (pthread_equal(p->worker[i].thread, self)) return i;
    return 0;
}

void pm_pool_run(pm_pool *p, size_t items, size_t grain, pm_job job, void *context) {
    if (!items) return;
    if (!grain) grain = 1;
    if (p->threads == 1 || items <= grain || atomic_load_explicit(&p->busy, memory_order_relaxed)) {
        job(context, 0, items, own_index(p));
        return;
    }
    atomic_store_explicit(&p->busy, 1, memory_order_relaxed);
    p->job = job;
    p->context = context;
    p->items = items;
    p->grain = grain;
    const uint64_t ticket = next_ticket(p, chunk_count(units_of(p), (size_t)p->threads));
    announce(p, ticket);
    unsigned own = run_range(p, ticket, 0, 0);
    if (p->crowded || !soon(p, complete, own)) {
        for (int i = 1; i < p->threads; i++) own += run_range(p, ticket, i, 0);
        wait_for_workers(p, own);
    }
    atomic_store_explicit(&p->busy, 0, memory_order_relaxed);
}
