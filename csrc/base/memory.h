/* memory.h - the only place that allocates. All of it can fail and says so; sizes are overflow-checked. */
#ifndef PM_BASE_MEMORY_H
#define PM_BASE_MEMORY_H

#include "base/status.h"

#include <stddef.h>

void *pm_malloc(size_t bytes);                   /* NULL on failure; pm_malloc(0) gives a freeable pointer */
void *pm_calloc(size_t n, size_t bytes);         /* zeroed, n * bytes checked */
void *pm_realloc(void *p, size_t n, size_t bytes); /* n * bytes checked; p stays valid on failure */
void *pm_aligned(size_t bytes);                  /* 64-byte aligned, not zeroed, freed with pm_free */
void pm_free(void *p);

/* pm_calloc that fills err ("out of memory: what (N bytes)"). */
void *pm_new(size_t n, size_t bytes, const char *what, pymtp_error *err);

/* Reserved address space, committed from its start in steps. Committed bytes read as zero at first. */
typedef struct pm_region { unsigned char *base; size_t reserved, committed; } pm_region;
pymtp_status pm_region_reserve(pm_region *r, size_t bytes, const char *what, pymtp_error *err);
/* Makes the first `bytes` usable; checks what the machine and its cgroup have left before it takes a step. On
 * failure what was committed stays so. */
pymtp_status pm_region_commit(pm_region *r, size_t bytes, const char *what, pymtp_error *err);
void pm_region_prefer_huge(pm_region *r); /* huge pages where the system has them to give */
void pm_region_release(pm_region *r);

/* Bytes that can still be taken: the smaller of available machine memory and cgroup headroom; SIZE_MAX if unknown. */
size_t pm_memory_available(void);

#endif
