/* target.c - the Gemma 4 text network as one straight-line function over rows (docs/MODEL.md).
 *
 *   embed -> per-layer inputs -> layers -> output norm -> head
 *   layer: x += norm(Wo attend(q, KV));  x += norm(FFN(x));  x += norm(PLE(x));  x *= scale
 *
 * Layers from `layers - shared_kv` on write no KV: from there only the rows whose output is wanted go on, which changes
 * nothing (row rule) and saves most of a prompt's work on models that share KV. */
#include "model/target.h"
#include "base/memory.h"

#include <math.h>

#define LOGITS_BYTES ((size_t)32 << 20) /* the head runs in slices of rows, so that "all logits" needs no huge buffer */

static int32_t max32(int32_t a, int32_t b) { return a > b ? a : b; }

static void raise_to(int32_t *limit, int32_t value) { *limit = max32(*limit, value); }

static int32_t slice_rows(const pm_config *c, int32_t rows) {
    const size_t fit = LOGITS_BYTES / ((size_t)c->vocab * sizeof(float));
    return fit < 1 ? 1 : fit < (size_t)rows ? (int32_t)fit : rows;
}

void pm_target_limits(const pm_config *c, int32_t rows, pm_limits *l) {
    raise_to(&l->rows, rows);
    raise_to(&l->width, c->width);
    raise_to(&l->max_in, c->width);
    raise_to(&l->max_out, c->width);
    raise_to(&l->ple, max32(c->layers, 2) * c->ple); /* two rows of one layer's inputs fit as well */
    raise_to(&l->max_out, c->layers * c->ple);
    raise_to(&l->max_in, c->ple);
    raise_to(&l->vocab, c->vocab);
    raise_to(&l->logits_rows, slice_rows(c, rows));
    raise_to(&l->experts, c->experts);
    raise_to(&l->used, c->experts_used);
    raise_to(&l->expert_ff, c->expert_ff);
    raise_to(&l->max_in, c->expert_ff);
    raise_to(&l->max_out, 2 * c->expert_ff);
    for (int32_t i = 0; i < c->layers; i++) {
        const pm_layer_config *y = &c->layer[i];
        raise_to(&l->max_ff, y->ff);
        raise_to(&l->max_in, max32(y->ff, y->heads * y->head_dim));
        raise_to(&l->max_out, max32(y->ff, max32(y->heads, y->kv_heads) * y->head_dim));
        raise_to(&l->heads_dim, y->heads * y->head_dim);
        raise_to(&l->head_dim, y->head_dim);
    }
}

static pymtp_status floats_new(pm_backend *b, int32_t rows, int64_t width, pm_buf **out, pymtp_error *err) {
    return b->buf_new(b, (size_t)rows * (size_t)(width > 0 ? width : 1) * sizeof(float), out, err);
}

static pymtp_status allocate(pm_target *t, pymtp_error *err) {
    pm_backend *b = t->backend;
    const pm_config *c = t->config;
    const int32_t rows = t->max_rows;
    pm_limits l = {0};
    pm_target_limits(c, rows, &l);
    t->pos = pm_new((size_t)rows, sizeof *t->pos, "row positions", err);
    t->seg = pm_new((size_t)rows, sizeof *t->seg, "row segments", err);
    t->index = pm_new((size_t)rows, sizeof *t->index, "row index", err);
    t->views = pm_new((size_t)t->max_segments, sizeof *t->views, "cache views", err);
    if (!t->pos || !t->seg || !t->index || !t->views) return PYMTP_E_NOMEM;
    PM_TRY(b->buf_new(b, (size_t)rows * sizeof(int32_t), &t->ids, err));
    PM_TRY(floats_new(b, rows, c->width, &t->x, err));
    PM_TRY(floats_new(b, rows, (int64_t)c->layers * c->ple, &t->ple, err));
    PM_TRY(floats_new(b, rows, l.heads_dim, &t->q, err));
    PM_TRY(floats_new(b, rows, l.heads_dim, &t->attn, err));
    PM_TRY(floats_new(b, rows, l.max_ff, &t->ff, err));
    PM_TRY(floats_new(b, rows, c->width, &t->hidden, err));
    PM_TRY(b->buf_new(b, (size_t)rows * PM_HEAD_TOP * sizeof(int32_t), &t->top_ids, err));
    PM_TRY(floats_new(b, rows, PM_HEAD_TOP, &t->top_logits, err));
    return floats_new(b, t->logits_rows, c->vocab, &t->logits, err);
}

pymtp_status pm_target_init(pm_target *t, pm_backend *b, const pm_config *c, const pm_weights *w, int32_t max_rows,
                            int32_t max_segments, pymtp_error *err) {
    *t = (pm_target){.backend = b, .config = c, .weights = w, .max_rows = max_rows, .max_segments = max_segments,
                     .logits_rows = slice_rows(c, max_rows)};
    const pymtp_status status = allocate(t, err);
    if (status != PYMTP_OK) pm_target_free(t);
    return status;
}

void pm_target_free(pm_target *t) {
    if (!t->backend) return;
    pm_buf *bufs[] = {t->ids, t->x, t->ple, t->q, t->attn, t->ff, t->hidden, t->logits, t->top_ids, t->top_logits};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++) t->backend->buf_free(t->backend, bufs[i]);
    pm_free(t->pos);
    pm_free(t->seg);
    pm_free(t->index);
    pm_free(t->views);
    *t = (pm_target){0};
}

/* ---- one layer ---- */

static void layer_forward(pm_target *t, const pm_rows *rows, pm_kv *const *kv, int32_t l) {
    pm_backend *b = t->backend;
    const pm_layer_config *c = &t->config->layer[l];
    const pm_layer_weights *w = &t->weights->layer[l];
    const pm_ple_inputs *ple = &t->weights->ple;
    const int32_t n = rows->n, window = c->sliding ? t->config->window : 0;
    for (int32_t s = 0; s < rows->n_seg; s++) pm_kv_get_view(kv[s], c->kv_source, &t->views[s]);

    b->norm_qkv(b, rows, &w->qkv, t->x, t->views, t->q);
    b->attend(b, rows, t->views, t->q, c->heads, window, 1, t->attn);
    b->attn_out(b, n, t->attn, w->wo, w->post_attn_norm, t->x);
    if (w->moe.experts) {
        b->moe_ffn(b, n, &w->moe, t->x);
    } else {
        b->gate_up_act(b, n, t->x, w->ffn_norm, w->gate, w->up, t->ff);
        b->down_add(b, n, t->ff, w->down, w->post_ffn_norm, t->x);
    }
    if (ple->layers) b->ple_add(b, n, t->ple, ple->layers, l, ple->width, w->ple_gate, w->ple_proj, w->ple_post_norm, t->x);
    if (w->output_scale != 1.0f) b->scale(b, n, t->config->width, w->output_scale, t->x);
}

/* Keeps the rows whose output is wanted. */
static void keep_wanted(pm_target *t, const pm_target_call *call, pm_rows *rows) {
    pm_backend *b = t->backend;
    int32_t n = 0;
    for (int32_t r = 0; r < call->n; r++) {
        if (!call->want[r]) continue;
        t->index[n] = r;
        t->pos[n] = call->pos[r];
        t->seg[n] = call->seg[r];
        n++;
    }
    if (n && n < call->n) {
        b->gather_rows(b, n, t->config->width, t->x, t->index, t->x);
        if (t->config->ple) b->gather_rows(b, n, t->config->layers * t->config->ple, t->ple, t->index, t->ple);
    }
    rows->n = n;
    rows->pos = t->pos;
    rows->seg = t->seg;
}

/* ---- output ---- */

/* The n kept rows' logits, of those that want them, to the host: the best of each, or all in slices of rows. */
static void heads(pm_target *t, const pm_target_call *call, int32_t n) {
    pm_backend *b = t->backend;
    const pm_config *c = t->config;
    const pm_buf *h = t->hidden;
    int32_t wanted = 0;
    for (int32_t r = 0; r < n; r++)
        if (call->want[t->index[r]] & PM_WANT_LOGITS) t->index[wanted++] = r;
    if (wanted < n) { /* side by side, so that one product serves them all; x is free by now */
        b->gather_rows(b, wanted, c->width, t->hidden, t->index, t->x);
        h = t->x;
    }
    if (call->top) {
        const size_t values = (size_t)wanted * (size_t)call->top;
        b->head_top(b, wanted, h, 0, t->weights->head, c->softcap, call->top, t->top_ids, t->top_logits);
        b->buf_read(b, t->top_ids, 0, call->top_ids, values * sizeof(int32_t));
        b->buf_read(b, t->top_logits, 0, call->logits, values * sizeof(float));
        return;
    }
    for (int32_t first = 0; first < wanted; first += t->logits_rows) {
        const int32_t rows = wanted - first < t->logits_rows ? wanted - first : t->logits_rows;
        b->head_logits(b, rows, h, first, t->weights->head, c->softcap, t->logits);
        b->buf_read(b, t->logits, 0, call->logits + (size_t)first * (size_t)c->vocab, (size_t)rows * (size_t)c->vocab * sizeof(float));
    }
}

pymtp_status pm_target_forward(pm_target *t, const pm_target_call *call, pymtp_error *err) {
    pm_backend *b = t->backend;
    const pm_config *c = t->config;
    const int32_t first_shared = c->layers - c->shared_kv;
    pm_rows rows = {call->n, call->pos, call->seg, call->n_seg};
    b->eps = c->eps;

    b->buf_write(b, t->ids, 0, call->ids, (size_t)call->n * sizeof(int32_t));
    PM_TRY(b->embed(b, call->n, t->ids, t->weights->embed, sqrtf((float)c->width), t->x, err));
    if (c->ple) PM_TRY(b->ple_inputs(b, call->n, t->ids, t->x, &t->weights->ple, t->ple, err));
    for (int32_t l = 0; l < c->layers; l++) {
        if (call->cancelled && call->cancelled(call->cancel_context)) return pm_fail(err, PYMTP_E_CANCELLED, "cancelled");
        if (l == first_shared) keep_wanted(t, call, &rows);
        if (!rows.n) return PYMTP_OK;
        layer_forward(t, &rows, call->kv, l);
    }
    if (!c->shared_kv) keep_wanted(t, call, &rows);
    if (!rows.n) return PYMTP_OK;
    b->rms_norm(b, rows.n, c->width, t->x, t->weights->output_norm, t->hidden);
    if (call->hidden) b->buf_read(b, t->hidden, 0, call->hidden, (size_t)rows.n * (size_t)c->width * sizeof(float));
    if (call->logits) heads(t, call, rows.n);
    return PYMTP_OK;
}
