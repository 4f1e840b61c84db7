/* drafter.h - the MTP drafter: a guest of the target. It owns no KV: it attends const views of the target's last two
 * KV-owning layers at a position that is constant through a round, and sees the keys below that position. */
#ifndef PM_MODEL_DRAFTER_H
#define PM_MODEL_DRAFTER_H

#include "cache/kv.h"
#include "model/config.h"
#include "model/weights.h"

typedef struct pm_drafter {
    pm_backend *backend;
    const pm_drafter_config *config;
    const pm_drafter_weights *weights;
    const pm_table *embed;          /* the TARGET's token embedding */
    int32_t max_rows;
    pm_buf *ids, *x, *q, *attn, *ff, *hidden; /* hidden: (max_rows, d) after the output norm */
    pm_buf *h;                      /* (max_rows, D): input hidden rows; after a step the projected ones for the next */
    pm_buf *scores, *candidates;    /* (max_rows, width) logits and ids of the last step */
    int32_t width;                  /* candidates a row: all ids, the best, or the members of the best clusters */
    int listed;                     /* candidates names them; else they are all ids in order */
    int32_t max_width;              /* vocab, or clusters' top * members */
    pm_kv_view *views;              /* (max_rows) */
    int32_t *seg;                   /* (max_rows) 0, 1, 2, ...: each row is a session of its own */
} pm_drafter;

/* Raises the back end's limits to what this network needs for `rows` rows a call. */
void pm_drafter_limits(const pm_drafter_config *c, int32_t rows, pm_limits *limits);
pymtp_status pm_drafter_init(pm_drafter *d, pm_backend *b, const pm_drafter_config *c, const pm_drafter_weights *w,
                             const pm_table *target_embed, int32_t max_rows, pymtp_error *err);
void pm_drafter_free(pm_drafter *d);
/* One step for n rows (one per session): tokens in d->ids, hidden rows in d->h, row r at position pos[r] over kv[r].
 * Leaves logits in d->scores (and d->candidates), the next step's hidden rows in d->h. No softcap. top: of a dense head only the
 * `top` best logits of each row (head_top); 0: all. */
pymtp_status pm_drafter_step(pm_drafter *d, int32_t n, const int32_t *pos, pm_kv *const *kv, int32_t top, pymtp_error *err);

#endif
