/* loader.h - from tensors of a file to matrices, tables and vectors of a back end. Private to csrc/model.
 *
 * Every call checks that the tensor is there, its shape and its type before it loads. Without a back end nothing is
 * loaded and every result is NULL: so one walk over the names serves as check before memory is taken and as load.
 * The first failure is kept in `status` and later calls do nothing: a walk reads as a list, and is asked once at its end. */
#ifndef PM_MODEL_LOADER_H
#define PM_MODEL_LOADER_H

#include "model/weights.h"

typedef struct pm_owned pm_owned; /* list of what was made, freed as a whole */

typedef struct pm_loader {
    pm_backend *backend;  /* NULL: check only */
    const pm_gguf *file;
    pymtp_error *err;
    pymtp_status status;
    pm_owned *owned;
    uint64_t bytes;       /* of matrices and vectors so far */
    char name[96];        /* of pm_loader_name */
} pm_loader;

void pm_owned_free(pm_backend *b, pm_owned *owned);

/* "blk.LAYER.suffix", valid until the next call. */
const char *pm_loader_name(pm_loader *l, int32_t layer, const char *suffix);
int pm_loader_has(const pm_loader *l, const char *name);
/* Records the error "file: tensor 'name': text" unless there is one already. */
void pm_loader_fail(pm_loader *l, pymtp_status code, const char *name, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 4, 5), cold))
#endif
    ;

/* (n) floats of an F32, F16 or BF16 tensor */
pm_buf *pm_loader_vector(pm_loader *l, const char *name, int64_t n);
/* its only value, or `absent` */
float pm_loader_scalar(pm_loader *l, const char *name, float absent);
/* (out, in) */
pm_matrix *pm_loader_matrix(pm_loader *l, const char *name, int64_t in, int64_t out);
/* the same with its rows in another order: row i is the tensor's row order[i]; NULL: as they are */
pm_matrix *pm_loader_ordered(pm_loader *l, const char *name, int64_t in, int64_t out, const pm_buf *order);
/* (experts * out, in) of a stack of experts */
pm_matrix *pm_loader_experts(pm_loader *l, const char *name, int64_t in, int64_t out, int64_t experts);
/* rows [first, first + rows) of a matrix (total, in) */
pm_matrix *pm_loader_rows(pm_loader *l, const char *name, int64_t in, int64_t total, int64_t first, int64_t rows);
/* (rows, in) */
pm_table *pm_loader_table(pm_loader *l, const char *name, int64_t in, int64_t rows);
/* int32 (clusters, members) of an I32 tensor with vocab elements that must be a permutation */
pm_buf *pm_loader_ordering(pm_loader *l, const pm_gguf_tensor *t, int32_t vocab);
/* Of sliding layers: base^(-2i / head_dim). A head_dim of 0 gives an empty one. */
pm_rope pm_loader_rope(pm_loader *l, int32_t head_dim, double base);
/* Of global layers: divided by rope_freqs.weight; without that tensor the first quarter of the pairs turns. */
pm_rope pm_loader_rope_global(pm_loader *l, int32_t head_dim, double base);
void *pm_loader_memory(pm_loader *l, size_t n, size_t bytes, const char *what);

/* What a layer of target and drafter share: norms, queries, output, dense feed-forward, scale. qkv.norm and q come from
 * here; keys and values do not. q_total: rows of the tensor queries are read from (fused: more than heads * head_dim). */
void pm_loader_layer(pm_loader *l, int32_t layer, const pm_layer_config *c, int32_t width, int64_t q_total, const char *q_suffix,
                     pm_layer_weights *w);

/* The walks without a back end: what pm_*_load would refuse, reading no data. */
pymtp_status pm_weights_check(const pm_gguf *g, const pm_config *c, pymtp_error *err);
pymtp_status pm_drafter_weights_check(const pm_gguf *g, const pm_drafter_config *c, pymtp_error *err);

#endif
