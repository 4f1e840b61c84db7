/* private.h - what kv.c and kv_snapshot.c share: the stores of a cache. */
#ifndef PM_CACHE_PRIVATE_H
#define PM_CACHE_PRIVATE_H

#include "cache/kv.h"

typedef struct pm_kv_store {
    pm_buf *k, *v;          /* NULL: the layer owns no KV */
    int32_t heads, head_dim;
    int32_t capacity;       /* a multiple of PM_KV_BLOCK, so that no block wraps */
    int32_t ring;           /* 1: shorter than the context */
    size_t row_bytes;       /* of one position, of k and of v each */
} pm_kv_store;

struct pm_kv {
    pm_backend *backend;
    int32_t layers, window, context, max_rows, type;
    int32_t ring_capacity;  /* of every ring; 0: there is none */
    int64_t low, committed; /* positions */
    pm_kv_store *store;     /* (layers) */
};

#endif
