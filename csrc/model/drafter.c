/* drafter.c - the MTP drafter as one straight-line function over rows (docs/MODEL.md).
 *
 *   x = pre [embed(token) ; h];  4 layers of query-only attention over the target's KV;  output norm;
 *   logits = head or centroid head;  h' = post x
 *
 * The position is the same for all steps of a round and keys below it are all it sees: drafts write no KV. */
#include "model/drafter.h"
#include "base/memory.h"

#include <math.h>

static void raise_to(int32_t *limit, int32_t value) { *limit = *limit > value ? *limit : value; }

void pm_drafter_limits(const pm_drafter_config *c, int32_t rows, pm_limits *l) {
    raise_to(&l->rows, rows);
    raise_to(&l->width, c->target_width > c->width ? c->target_width : c->width);
    raise_to(&l->max_in, 2 * c->target_width);
    raise_to(&l->max_in, c->width);
    raise_to(&l->max_out, c->target_width > c->width ? c->target_width : c->width);
    raise_to(&l->vocab, c->vocab);
    raise_to(&l->logits_rows, rows);
    raise_to(&l->clusters, c->clusters);
    for (int32_t i = 0; i < c->layers; i++) {
        const pm_layer_config *y = &c->layer[i];
        const int32_t q = y->heads * y->head_dim, wide = y->ff > q ? y->ff : q;
        raise_to(&l->max_ff, y->ff);
        raise_to(&l->max_in, wide);
        raise_to(&l->max_out, wide);
        raise_to(&l->heads_dim, q);
        raise_to(&l->head_dim, y->head_dim);
    }
}

static pymtp_status allocate(pm_drafter *d, pymtp_error *err) {
    pm_backend *b = d->backend;
    const pm_drafter_config *c = d->config;
    const size_t rows = (size_t)d->max_rows, f = sizeof(float);
    pm_limits l = {0};
    pm_drafter_limits(c, d->max_rows, &l);
    d->views = pm_new(rows, sizeof *d->views, "cache views", err);
    d->seg = pm_new(rows, sizeof *d->seg, "row segments", err);
    if (!d->views || !d->seg) return PYMTP_E_NOMEM;
    for (int32_t r = 0; r < d->max_rows; r++) d->seg[r] = r;
    PM_TRY(b->buf_new(b, rows * sizeof(int32_t), &d->ids, err));
    PM_TRY(b->buf_new(b, rows * (size_t)c->width * f, &d->x, err));
    PM_TRY(b->buf_new(b, rows * (size_t)l.heads_dim * f, &d->q, err));
    PM_TRY(b->buf_new(b, rows * (size_t)l.heads_dim * f, &d->attn, err));
    PM_TRY(b->buf_new(b, rows * (size_t)l.max_ff * f, &d->ff, err));
    PM_TRY(b->buf_new(b, rows * (size_t)c->width * f, &d->hidden, err));
    PM_TRY(b->buf_new(b, rows * (size_t)c->target_width * f, &d->h, err));
    PM_TRY(b->buf_new(b, rows * (size_t)d->max_width * f, &d->scores, err));
    return b->buf_new(b, rows * (size_t)(c->clusters ? d->max_width : PM_HEAD_TOP) * sizeof(int32_t), &d->candidates, err);
}

pymtp_status pm_drafter_init(pm_drafter *d, pm_backend *b, const pm_drafter_config *c, const pm_drafter_weights *w,
                             const pm_table *target_embed, int32_t max_rows, pymtp_error *err) {
    *d = (pm_drafter){.backend = b, .config = c, .weights = w, .embed = target_embed, .max_rows = max_rows,
                      .max_width = c->clusters ? c->top * c->members : c->vocab};
    const pymtp_status status = allocate(d, err);
    if (status != PYMTP_OK) pm_drafter_free(d);
    return status;
}

void pm_drafter_free(pm_drafter *d) {
    if (!d->backend) return;
    pm_buf *bufs[] = {d->ids, d->x, d->q, d->attn, d->ff, d->hidden, d->h, d->scores, d->candidates};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++) d->backend->buf_free(d->backend, bufs[i]);
    pm_free(d->views);
    pm_free(d->seg);
    *d = (pm_drafter){0};
}

static void head(pm_drafter *d, int32_t n, int32_t top) {
    pm_backend *b = d->backend;
    const pm_drafter_config *c = d->config;
    const pm_drafter_weights *w = d->weights;
    d->listed = c->clusters || top;
    d->width = top && !c->clusters ? top : d->max_width;
    if (c->clusters)
        b->head_clusters(b, n, d->hidden, w->centroids, w->ordering, w->head, c->clusters, c->members, c->top, d->candidates, d->scores);
    else if (top) b->head_top(b, n, d->hidden, 0, w->head, 0, top, d->candidates, d->scores);
    else b->head_logits(b, n, d->hidden, 0, w->head, 0, d->scores);
}

pymtp_status pm_drafter_step(pm_drafter *d, int32_t n, const int32_t *pos, pm_kv *const *kv, int32_t top, pymtp_error *err) {
    pm_backend *b = d->backend;
    const pm_drafter_config *c = d->config;
    const pm_drafter_weights *w = d->weights;
    const pm_rows rows = {n, pos, d->seg, n};
    b->eps = c->eps;

    PM_TRY(b->draft_input(b, n, d->ids, d->embed, sqrtf((float)c->target_width), d->h, w->pre, d->x, err));
    for (int32_t l = 0; l < c->layers; l++) {
        const pm_layer_config *y = &c->layer[l];
        const pm_layer_weights *lw = &w->layer[l];
        for (int32_t r = 0; r < n; r++) pm_kv_get_view(kv[r], y->kv_source, &d->views[r]);
        b->norm_qkv(b, &rows, &lw->qkv, d->x, d->views, d->q);
        b->attend(b, &rows, d->views, d->q, y->heads, y->sliding ? c->window : 0, 0, d->attn);
        b->attn_out(b, n, d->attn, lw->wo, lw->post_attn_norm, d->x);
        b->gate_up_act(b, n, d->x, lw->ffn_norm, lw->gate, lw->up, d->ff);
        b->down_add(b, n, d->ff, lw->down, lw->post_ffn_norm, d->x);
        if (lw->output_scale != 1.0f) b->scale(b, n, c->width, lw->output_scale, d->x);
    }
    b->rms_norm(b, n, c->width, d->x, w->output_norm, d->hidden);
    head(d, n, top);
    b->project(b, n, w->post, d->hidden, d->h);
    return PYMTP_OK;
}
