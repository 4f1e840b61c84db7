/* model.h - the opaque handles behind pymtp.h: an open model (weights, networks, pool) and what its sessions share. */
#ifndef PM_ENGINE_MODEL_H
#define PM_ENGINE_MODEL_H

#include "engine/controller.h"
#include "model/drafter.h"
#include "model/target.h"
#include "text/tokenizer.h"

#include <pthread.h>
#include <stdatomic.h>

#define PM_DEFAULT_CHUNK 128
#define PM_MAX_CHUNK 512
#define PM_ROUND_ROWS (PM_MAX_DRAFT + 1)            /* rows of one session's draft-verify round, at most */

struct pymtp_model {
    pm_gguf *file, *drafter_file;
    pymtp_tokenizer *tokenizer;
    pm_backend *backend;
    pm_config config;
    pm_weights weights;
    pm_target target;
    int32_t has_drafter;
    pm_drafter_config drafter_config;
    pm_drafter_weights drafter_weights;
    pm_drafter drafter;
    int32_t context, kv_type, chunk, threads;
    pm_kv_layer_shape *kv_layers; /* (layers) */
    pm_kv_shape kv_shape;         /* of every session */
    char *name, *drafter_name;
    pm_controller controller;     /* of automatic draft depth */
    /* scratch of a step, on the host */
    float *logits;                /* (logits_cap) of the rows of a pass, grown on demand */
    size_t logits_cap;
    int32_t *top_ids;             /* (target.max_rows, PM_HEAD_TOP): whose logits they are when a pass asks for the best only */
    float *scores;                /* (drafter candidates) of one row, and their ids */
    int32_t *candidates;
    int32_t *row_ids;             /* (3, target.max_rows): ids, positions, segments */
    uint8_t *row_want;            /* (target.max_rows) */
    pthread_mutex_t lock;         /* held by every call that computes on the model or touches a session */
    atomic_int guests;            /* sessions and snapshots alive */
};

/* ---- steps of opening, which the estimate of memory shares ---- */

/* Checks options (NULL: defaults) and fills in what they leave open. */
pymtp_status pm_model_options_read(const pymtp_model_options *given, pymtp_model_options *o, pymtp_error *err);
/* Bytes of what is held in memory, in the back end's layout: tables stay in the file, encoders are not loaded. UINT64_MAX: more than that. */
uint64_t pm_model_weight_bytes(const pm_backend *b, const pm_gguf *g);
/* With the configurations read: context, types and shape of the cache. kv_layers is the model's to free. */
pymtp_status pm_model_shape(pymtp_model *m, const pymtp_model_options *o, pymtp_error *err);
/* What the networks ask of a back end's scratch; returns the rows of a pass. */
int32_t pm_model_limits(const pymtp_model *m, pm_limits *limits);

#endif
