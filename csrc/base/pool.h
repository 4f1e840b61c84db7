/* pool.h - one pool of threads per model. Work is split statically over outputs, the caller works too. A nested or
 * single-threaded call runs inline. The split never changes what is computed for an output, only who computes it. */
#ifndef PM_BASE_POOL_H
#define PM_BASE_POOL_H

#include "base/status.h"

#include <stddef.h>

typedef struct pm_pool pm_pool;

/* Work on the items [begin, end) of a job; thread is 0..threads-1 (the caller is 0), for per-thread scratch. */
typedef void (*pm_job)(void *context, size_t begin, size_t end, int thread);

pymtp_status pm_pool_new(int threads, pm_pool **out, pymtp_error *err); /* threads >= 1 */
void pm_pool_free(pm_pool *p);
int pm_pool_threads(const pm_pool *p);
/* Runs job over [0, items) in contiguous parts, one per thread, borders at multiples of `grain` (>= 1). Returns when
 * all are done. One job at a time: callers of one pool take turns themselves (the model's lock). */
void pm_pool_run(pm_pool *p, size_t items, size_t grain, pm_job job, void *context);

int pm_cpu_count(void); /* cores this process may use: affinity and cgroup quota, at least 1 */

#endif
