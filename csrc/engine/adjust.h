/* adjust.h - what is added to logits before tokens are filtered: bias, bans and penalties by id, in one hash table.
 * Only ids that are mentioned cost anything. */
#ifndef PM_ENGINE_ADJUST_H
#define PM_ENGINE_ADJUST_H

#include "base/status.h"

typedef struct pm_adjust_entry {
    int32_t id;          /* -1: free slot */
    int64_t count;       /* occurrences the penalties see */
    double bias;         /* -INFINITY: never chosen */
} pm_adjust_entry;

typedef struct pm_adjust {
    pm_adjust_entry *slot; /* (slots) open addressing, at most half full */
    size_t slots, used;    /* slots: 0 or a power of two */
    uint64_t key;          /* of the hash */
    double repetition, presence, frequency;
} pm_adjust;

static inline int pm_adjust_penalizes(const pm_adjust *a) {
    return a->repetition != 1 || a->presence != 0 || a->frequency != 0;
}
/* The entry of an id (>= 0), made when there is none; NULL and err when there is no memory. */
pm_adjust_entry *pm_adjust_at(pm_adjust *a, int32_t id, pymtp_error *err);
void pm_adjust_free(pm_adjust *a);
/* Rewrites the mentioned ids among n candidates: logits (n), ids (n) or NULL (0..n-1). Results are finite or -INFINITY. */
void pm_adjust_apply(const pm_adjust *a, float *logits, const int32_t *ids, size_t n);

#endif
