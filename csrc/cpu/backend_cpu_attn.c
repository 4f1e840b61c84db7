/* backend_cpu_attn.c - attention: projections into the cache, and softmax over it block by block.
 *
 * All rows' keys and values are stored before any row attends (two ops), so rows see each other through the cache
 * only. A row's blocks run from the first to the last visible one, in position order, whatever the call looks like. */
#include "cpu/backend_cpu.h"

#include <math.h>

/* ---- projections ---- */

typedef struct qkv_context {
    pm_cpu *cpu;
    const pm_rows *rows;
    const pm_qkv *w;
    const pm_kv_view *views;
    const float *cosines, *sines; /* (n, head_dim / 2) */
    float *q, *k;                 /* (n, heads * head_dim), (n, kv_heads * head_dim): raw products */
    const float *v;               /* as k; may be k */
} qkv_context;

/* V first: where it shares the raw product with K, K's norm comes after. */
static void store_row(const qkv_context *e, size_t r, const float *cosines, const float *sines, int thread) {
    const pm_kernels *k = e->cpu->k;
    const size_t dim = (size_t)e->w->head_dim, heads = (size_t)e->w->kv_heads;
    const pm_kv_view *view = &e->views[e->rows->seg[r]];
    const size_t head_bytes = view->row_bytes / heads;
    const size_t offset = (size_t)(e->rows->pos[r] % view->capacity) * view->row_bytes;
    float *line = e->cpu->line + (size_t)thread * e->cpu->wide;
    for (size_t j = 0; j < heads; j++) {
        float *key = e->k + (r * heads + j) * dim;
        k->rms_norm(e->v + (r * heads + j) * dim, NULL, dim, e->cpu->base.eps, line);
        k->kv_store(line, dim, view->type, view->v->data + offset + j * head_bytes);
        k->rms_norm(key, pm_cpu_f32(e->w->k_norm), dim, e->cpu->base.eps, key);
        k->rope(key, dim, cosines, sines);
        k->kv_store(key, dim, view->type, view->k->data + offset + j * head_bytes);
    }
}

static void qkv_job(void *context, size_t begin, size_t end, int thread) {
    const qkv_context *e = context;
    const pm_kernels *k = e->cpu->k;
    const size_t dim = (size_t)e->w->head_dim, heads = (size_t)e->w->heads;
    for (size_t r = begin; r < end; r++) {
        const float *cosines = e->cosines + r * (dim / 2), *sines = e->sines + r * (dim / 2);
        for (size_t j = 0; j < heads; j++) {
            float *q = e->q + (r * heads + j) * dim;
            k->rms_norm(q, pm_cpu_f32(e->w->q_norm), dim, e->cpu->base.eps, q);
            k->rope(q, dim, cosines, sines);
        }
        if (e->w->wk) store_row(e, r, cosines, sines, thread);
    }
}

void pm_cpu_norm_qkv(pm_backend *b, const pm_rows *rows, const pm_qkv *w, const pm_buf *x, const pm_kv_view *views, pm_buf *q) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t n = (size_t)rows->n, width = w->wq->packed.cols;
    const pm_matrix *wv = w->wk ? w->wv : NULL;
    const pm_matrix *matrix[3] = {w->wq, w->wk, wv};
    float *out[3] = {pm_cpu_f32(q), c->a, c->b};
    pm_mm jobs[3];
    size_t n_jobs = 0;
    for (int i = 0; i < 3; i++) {
        if (!matrix[i]) continue;
        const size_t outputs = matrix[i]->packed.rows;
        jobs[n_jobs++] = (pm_mm){.w = matrix[i], .rows = outputs, .n = n, .out = out[i], .stride = outputs};
    }
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(x), width, n, width, w->norm, pm_cpu_kind(w->wq) | pm_cpu_kind(w->wk) | pm_cpu_kind(wv));
    pm_cpu_products(c, &c->act, jobs, n_jobs);
    qkv_context e = {.cpu = c, .rows = rows, .w = w, .views = views, .q = out[0], .k = out[1], .v = wv ? out[2] : out[1]};
    pm_cpu_angles(c, w->rope, rows, &e.cosines, &e.sines);
    pm_pool_run(c->pool, n, 1, qkv_job, &e);
}

/* ---- attention ---- */

#define HEADS_AT_ONCE 16 /* query heads of one group that share a walk over the blocks */

typedef struct attend_context {
    const pm_kernels *k;
    const pm_rows *rows;
    const pm_kv_view *views;
    const float *q;
    float *out;
    size_t heads;
    int32_t window, self;
} attend_context;

/* Query heads [head, head + n) of row r, all reading KV head `kv`. */
static void attend_heads(const attend_context *e, size_t r, size_t head, size_t n, size_t kv) {
    const pm_kv_view *view = &e->views[e->rows->seg[r]];
    const size_t dim = (size_t)view->head_dim, head_bytes = view->row_bytes / (size_t)view->heads, at = (r * e->heads + head) * dim;
    const int64_t last = e->self ? e->rows->pos[r] : (int64_t)e->rows->pos[r] - 1;
    int64_t first = e->window ? (int64_t)e->rows->pos[r] - e->window + 1 : 0;
    float max[HEADS_AT_ONCE], sum[HEADS_AT_ONCE];
    if (first < 0) first = 0;
    for (size_t j = 0; j < n; j++) {
        max[j] = -INFINITY;
        sum[j] = 0;
        for (size_t i = 0; i < dim; i++) e->out[at + j * dim + i] = 0;
    }
    for (int64_t base = first / PM_KV_BLOCK * PM_KV_BLOCK; base <= last; base += PM_KV_BLOCK) {
        const size_t offset = (size_t)(base % view->capacity) * view->row_bytes + kv * head_bytes;
        const size_t from = first > base ? (size_t)(first - base) : 0;
        const size_t to = last - base + 1 < PM_KV_BLOCK ? (size_t)(last - base + 1) : PM_KV_BLOCK;
        for (size_t j = 0; j < n; j++) {
            e->k->attend_block(e->q + at + j * dim, dim, view->k->data + offset, view->v->data + offset, view->row_bytes, view->type,
                               from, to, e->out + at + j * dim, &max[j], &sum[j]);
        }
    }
    for (size_t j = 0; j < n && first <= last; j++) e->k->scale(e->out + at + j * dim, dim, 1.0f / sum[j]);
}

/* Items are (row, query head), so that one row of a model with one KV head still keeps every thread busy. */
static void attend_job(void *context, size_t begin, size_t end, int thread) {
    const attend_context *e = context;
    while (begin < end) {
        const size_t r = begin / e->heads, head = begin % e->heads;
        const size_t group = e->heads / (size_t)e->views[e->rows->seg[r]].heads, kv = head / group;
        size_t n = (kv + 1) * group - head;
        if (n > HEADS_AT_ONCE) n = HEADS_AT_ONCE;
        if (n > end - begin) n = end - begin;
        attend_heads(e, r, head, n, kv);
        begin += n;
    }
}

void pm_cpu_attend(pm_backend *b, const pm_rows *rows, const pm_kv_view *views, const pm_buf *q, int32_t heads, int32_t window,
                   int32_t self, pm_buf *out) {
    pm_cpu *c = (pm_cpu *)b;
    pm_cpu_count_kv(c, rows, views, window, self);
    attend_context e = {c->k, rows, views, pm_cpu_f32(q), pm_cpu_f32(out), (size_t)heads, window, self};
    pm_pool_run(c->pool, (size_t)rows->n * (size_t)heads, 1, attend_job, &e);
}

void pm_cpu_attn_out(pm_backend *b, int32_t n, const pm_buf *attn, const pm_matrix *wo, const pm_buf *post_norm, pm_buf *x) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t cols = wo->packed.cols;
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(attn), cols, (size_t)n, cols, NULL, pm_cpu_kind(wo));
    pm_cpu_product(c, &c->act, wo, (size_t)n, c->a);
    pm_cpu_add_normed(c, (size_t)n, wo->packed.rows, c->a, post_norm, pm_cpu_f32(x));
}
