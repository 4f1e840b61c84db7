/* pool.h - one pool of threads per model. Work is split over outputs, the caller works too. A nested or single-threaded
 * call runs inline. The split never changes what is computed for an output, only who computes it. */
#ifndef PM_BASE_POOL_H
#define PM_BASE_POOL_H

#include "base/status.h"

#include <stddef.h>

typedef struct pm_pool pm_pool;

/* Work on the items [begin, end) of a job; thread is 0..threads-1 (the caller is 0), for per-thread scratch. A thread may
 * call it several times, one call at a time, with chunks in any order, or not at all. */
typedef void (*pm_job)(void *context, size_t begin, size_t end, int thread);

pymtp_status pm_pool_new(int threads, pm_pool **out, pymtp_error *err); /* threads >= 1 */
void pm_pool_free(pm_pool *p);
int pm_pool_threads(const pm_pool *p);
/* Runs job over [0, items), each item once, in contiguous chunks with borders at multiples of `grain` (0 counts as 1):
 * at most PM_POOL_CHUNKS a thread, so a job that gains from long runs of items asks for a larger grain. Returns when all
 * are done. One job at a time: callers of one pool take turns themselves (the model's lock). */
void pm_pool_run(pm_pool *p, size_t items, size_t grain, pm_job job, void *context);

#define PM_POOL_CHUNKS 8

#endif
