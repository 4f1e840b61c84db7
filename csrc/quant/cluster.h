/* cluster.h - balanced spherical k-means of rows: what its two files share. The public side is in pymtp.h.
 *
 * Rows and centres are held at length 2^14 in int16. Products of such vectors are exact int32 sums (by Cauchy-Schwarz no partial sum
 * leaves 2^28 by more than rounding), sums of rows are exact int64, and ties go to the lower number. So the result depends on the
 * rows and the counts alone: not on threads, nor on the instruction set. */
#ifndef PM_QUANT_CLUSTER_H
#define PM_QUANT_CLUSTER_H

#include "base/memory.h"
#include "base/pool.h"

#include <stdint.h>

#define PM_CLUSTER_UNIT 16384.0
#define PM_CLUSTER_LIST 16 /* candidate clusters kept for a row */

/* A cluster and the product of its centre with a row. */
typedef struct pm_cluster_link { int32_t score, cluster; } pm_cluster_link;

struct pymtp_clustering {
    pm_pool *pool;
    size_t rows, width, stride; /* stride: width rounded up to whole vectors, zeros behind it */
    size_t clusters, members;   /* rows = clusters * members */
    size_t list;                /* candidates of a row: min(PM_CLUSTER_LIST, clusters) */
    size_t added;               /* rows given so far */
    pm_region memory;           /* of the rows */
    int16_t *row;               /* (rows, stride) */
    double *length;             /* (rows) of the rows as given */
    int16_t *centre;            /* (clusters, stride); while rows are bisected, the direction that splits the part that starts here */
    double *sum_length;         /* (clusters) length of the sum of a cluster's rows, of length 1 each */
    double *sum;                /* (threads, 2, stride) scratch */
    int32_t *order, *best;      /* (clusters, members) rows: the last grouping, and the best one */
    double best_objective;      /* of `best`; negative: there is none yet */
    uint64_t *key;              /* (rows) scratch of sorting */
    pm_cluster_link *link;      /* (rows, list) candidates of a row, best first; cluster -1: no more */
    uint8_t *tried;             /* (rows) candidates a row has applied to */
    int32_t *score;             /* (clusters, members) of the rows in `order`, while they are matched */
    int32_t *fill;              /* (clusters) members so far */
    int32_t *todo;              /* (rows) rows without a cluster */
    int32_t *open;              /* (clusters) clusters with free places */
};

/* Gives every row a cluster, `members` to each, in c->order: rows apply to their candidates by descending score, clusters keep those
 * that fit best (deferred acceptance: one outcome, whatever the order of applications). */
void pm_cluster_match(pymtp_clustering *c);

#endif
