/* target.h - the target network: one straight-line forward pass over rows. Prefill, decode, verify and many sessions
 * are the same call. */
#ifndef PM_MODEL_TARGET_H
#define PM_MODEL_TARGET_H

#include "cache/kv.h"
#include "model/config.h"
#include "model/weights.h"

#define PM_WANT_HIDDEN 1 /* the row's hidden state, after the output norm */
#define PM_WANT_LOGITS 2 /* implies PM_WANT_HIDDEN */

typedef struct pm_target {
    pm_backend *backend;
    const pm_config *config;
    const pm_weights *weights;
    int32_t max_rows, max_segments; /* of one call */
    pm_buf *ids, *x, *ple, *q, *attn, *ff, *hidden, *logits; /* activations for max_rows rows */
    int32_t logits_rows;            /* rows the logits buffer holds: heads that give all logits run in slices of these */
    pm_buf *top_ids, *top_logits;   /* (max_rows, PM_HEAD_TOP) */
    int32_t *pos, *seg, *index;     /* (max_rows) each */
    pm_kv_view *views;              /* (max_segments) */
} pm_target;

typedef struct pm_target_call {
    int32_t n;               /* rows, <= max_rows */
    const int32_t *ids, *pos, *seg; /* (n); rows of a segment stand together, positions ascending */
    const uint8_t *want;     /* (n) PM_WANT_* */
    pm_kv *const *kv;        /* (n_seg); committed and told of the append by the caller */
    int32_t n_seg;
    int32_t top;             /* 0: all logits of the rows that want some; else their `top` best (head_top) */
    float *logits;           /* host (rows wanting logits, vocab or top), or NULL when none does */
    int32_t *top_ids;        /* host (rows wanting logits, top) */
    float *hidden;           /* host (rows wanting hidden, D), or NULL */
    int (*cancelled)(void *context); /* asked between layers; may be NULL */
    void *cancel_context;
} pm_target_call;

/* Raises the back end's limits to what this network needs for `rows` rows a call. */
void pm_target_limits(const pm_config *c, int32_t rows, pm_limits *limits);
pymtp_status pm_target_init(pm_target *t, pm_backend *b, const pm_config *c, const pm_weights *w, int32_t max_rows,
                            int32_t max_segments, pymtp_error *err);
void pm_target_free(pm_target *t);
/* Writes K/V of all rows; leaves the hidden states of the wanting rows, in order, as the first rows of t->hidden
 * (device). PYMTP_E_CANCELLED between layers; PYMTP_E_IO when an embedding row cannot be read. */
pymtp_status pm_target_forward(pm_target *t, const pm_target_call *call, pymtp_error *err);

#endif
