/* config.h - the hyper-parameters of a target and of a drafter, read from metadata and validated once.
 *
 * What is refused, with the key, what was expected and what was found: any architecture but Gemma 4 text and its MTP
 * drafters in the dialects of names.h; inconsistent or unreasonable numbers. Sizes are not closed. */
#ifndef PM_MODEL_CONFIG_H
#define PM_MODEL_CONFIG_H

#include "base/status.h"
#include "gguf/gguf.h"

#define PM_MAX_LAYERS 1024

typedef struct pm_layer_config {
    int32_t sliding;             /* 1 sliding window, 0 global */
    int32_t heads, kv_heads, head_dim;
    int32_t ff;                  /* width of the (dense) FFN */
    int32_t kv_source;           /* layer whose KV it reads: itself, or the donor */
} pm_layer_config;

typedef struct pm_config {
    int32_t layers, width, vocab, context, window;
    int32_t ple;                 /* 0: none */
    int32_t shared_kv;           /* last layers without own KV */
    int32_t experts, experts_used, expert_ff;
    float eps, softcap;          /* softcap 0: none */
    double rope_base, rope_base_swa;
    int32_t rope_dims, rope_dims_swa;
    int32_t last_sliding, last_global; /* the last KV-owning layer of each kind: what the drafter reads; -1: none */
    pm_layer_config layer[PM_MAX_LAYERS];
} pm_config;

typedef struct pm_drafter_config {
    int32_t layers, width, target_width, vocab, window;
    float eps;
    int32_t rope_dims, rope_dims_swa;
    double rope_base, rope_base_swa;
    int32_t clusters, members, top; /* centroid head; 0: dense */
    pm_layer_config layer[PM_MAX_LAYERS]; /* kv_heads: the target's layer it reads; kv_source: that layer */
} pm_drafter_config;

/* 1 when the file is a drafter of any dialect: by its architecture or, where that is a target's too, by its tensors. */
int pm_file_is_drafter(const pm_gguf *g);
/* PYMTP_E_MISMATCH when the file is a drafter. */
pymtp_status pm_config_read(const pm_gguf *g, pm_config *out, pymtp_error *err);
/* Reads the drafter's numbers and checks the pair: widths, vocabulary, layer kinds, head sizes, grouping, window. */
pymtp_status pm_drafter_config_read(const pm_gguf *g, const pm_config *target, pm_drafter_config *out, pymtp_error *err);

#endif
