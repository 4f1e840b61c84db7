/* weights.h - names become fields, once. After pm_weights_load every shape and type has been checked, optional
 * tensors are NULL, and no string is looked up again. Unknown tensors are ignored when they belong to encoders (v.*,
 * a.*, mm.*); of the rest nothing is required but what the network multiplies. */
#ifndef PM_MODEL_WEIGHTS_H
#define PM_MODEL_WEIGHTS_H

#include "backend.h"
#include "model/config.h"

typedef struct pm_layer_weights {
    pm_qkv qkv;
    pm_matrix *wo;
    pm_buf *post_attn_norm;
    pm_buf *ffn_norm, *post_ffn_norm;
    pm_matrix *gate, *up, *down;    /* dense models; NULL in MoE layers, which use moe */
    pm_moe moe;                     /* experts == 0: dense */
    pm_matrix *ple_gate, *ple_proj; /* PLE models */
    pm_buf *ple_post_norm;
    float output_scale;             /* 1 when absent */
} pm_layer_weights;

typedef struct pm_weights {
    pm_backend *backend;
    const pm_gguf *file;            /* owned by the model, outlives the tables */
    pm_table *embed;                /* (vocab, D) */
    pm_ple_inputs ple;              /* layers == 0: none */
    pm_buf *output_norm;
    pm_matrix *head;                /* output.weight, or token_embd.weight (tied) */
    pm_rope rope_sliding, rope_global;
    pm_layer_weights *layer;        /* (layers) */
    uint64_t bytes;                 /* held by matrices and vectors */
    int32_t layers;
    void *owned;                    /* what pm_weights_free releases */
} pm_weights;

typedef struct pm_drafter_weights {
    pm_backend *backend;
    pm_matrix *pre, *post;          /* (d, 2 D), (D, d) */
    pm_buf *output_norm;
    pm_matrix *head;                /* token_embd.weight (vocab, d), in the order of `ordering` if there is one */
    pm_matrix *centroids;           /* (clusters, d) or NULL */
    pm_buf *ordering;               /* int32 (clusters, members) or NULL; a permutation of the vocabulary */
    pm_rope rope_sliding, rope_global;
    pm_layer_weights *layer;
    uint64_t bytes;
    int32_t layers;
    void *owned;
} pm_drafter_weights;

pymtp_status pm_weights_load(pm_backend *b, const pm_gguf *g, const pm_config *c, pm_weights *out, pymtp_error *err);
void pm_weights_free(pm_weights *w);
pymtp_status pm_drafter_weights_load(pm_backend *b, const pm_gguf *g, const pm_drafter_config *c, pm_drafter_weights *out,
                                     pymtp_error *err);
void pm_drafter_weights_free(pm_drafter_weights *w);

#endif
