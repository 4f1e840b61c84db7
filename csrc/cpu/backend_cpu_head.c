/* backend_cpu_head.c - output ops: norm, projections, logits, the centroid head, argmax, gathering of rows. */
#include "cpu/backend_cpu.h"

#include <math.h>
#include <string.h>

typedef struct norm_context {
    pm_cpu *cpu;
    size_t width;
    const float *x, *weight;
    float *out;
} norm_context;

static void norm_job(void *context, size_t begin, size_t end, int thread) {
    const norm_context *e = context;
    for (size_t r = begin; r < end; r++)
        e->cpu->k->rms_norm(e->x + r * e->width, e->weight, e->width, e->cpu->base.eps, e->out + r * e->width);
}

void pm_cpu_rms_norm(pm_backend *b, int32_t n, int32_t width, const pm_buf *x, const pm_buf *weight, pm_buf *out) {
    pm_cpu *c = (pm_cpu *)b;
    norm_context e = {c, (size_t)width, pm_cpu_f32(x), weight ? pm_cpu_f32(weight) : NULL, pm_cpu_f32(out)};
    pm_pool_run(c->pool, (size_t)n, 1, norm_job, &e);
}

void pm_cpu_project(pm_backend *b, int32_t n, const pm_matrix *w, const pm_buf *x, pm_buf *out) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t cols = w->packed.cols;
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(x), cols, (size_t)n, cols, NULL, pm_cpu_kind(w));
    pm_cpu_product(c, &c->act, w, (size_t)n, pm_cpu_f32(out));
}

void pm_cpu_gather_rows(pm_backend *b, int32_t n, int32_t width, const pm_buf *src, const int32_t *index, pm_buf *dst) {
    const size_t bytes = (size_t)width * sizeof(float);
    for (size_t i = 0; i < (size_t)n; i++) { /* index[i] >= i, so in place nothing is overwritten before it is read */
        if (src != dst || (size_t)index[i] != i) memmove(dst->data + i * bytes, src->data + (size_t)index[i] * bytes, bytes);
    }
}

/* ---- all logits ---- */

#define CAP_GRAIN 1024 /* columns */

typedef struct cap_context {
    const pm_kernels *k;
    size_t n, vocab;
    float cap, *logits;
} cap_context;

/* Items are columns. */
static void cap_job(void *context, size_t begin, size_t end, int thread) {
    const cap_context *e = context;
    for (size_t r = 0; r < e->n; r++) e->k->softcap(e->logits + r * e->vocab + begin, end - begin, e->cap);
}

void pm_cpu_head_logits(pm_backend *b, int32_t n, const pm_buf *h, int32_t first, const pm_matrix *w, float cap, pm_buf *logits) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t cols = w->packed.cols, rows = (size_t)n;
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(h) + (size_t)first * cols, cols, rows, cols, NULL, pm_cpu_kind(w));
    pm_cpu_product(c, &c->act, w, rows, pm_cpu_f32(logits));
    cap_context e = {c->k, rows, w->packed.rows, cap, pm_cpu_f32(logits)};
    if (cap != 0) pm_pool_run(c->pool, e.vocab, CAP_GRAIN, cap_job, &e);
}

/* ---- centroid head ---- */

typedef struct clusters_context {
    pm_cpu *cpu;
    size_t clusters, members, top;
    const int32_t *ordering;
    const pm_matrix *w;
    int32_t *ids;
    float *scores;
} clusters_context;

/* Items are rows: the best clusters, and the ids of their members. */
static void choose_job(void *context, size_t begin, size_t end, int thread) {
    const clusters_context *e = context;
    for (size_t r = begin; r < end; r++) {
        int32_t *best = e->cpu->cluster_top + r * e->clusters;
        pm_cpu_top(e->cpu->cluster_scores + r * e->clusters, e->clusters, e->top, e->cpu->keys + (size_t)thread * e->cpu->keys_each, best);
        for (size_t i = 0; i < e->top; i++) {
            memcpy(e->ids + (r * e->top + i) * e->members, e->ordering + (size_t)best[i] * e->members, e->members * sizeof(int32_t));
        }
    }
}

/* Items are candidates of all rows. */
static void score_job(void *context, size_t begin, size_t end, int thread) {
    const clusters_context *e = context;
    for (size_t i = begin; i < end; i++) {
        const pm_act act = pm_cpu_act_from(&e->cpu->act, i / (e->top * e->members));
        const size_t id = (size_t)e->ids[i];
        pm_cpu_product_part(e->cpu, e->w, id, id + 1, &act, 1, e->scores + i, 1, thread);
    }
}

void pm_cpu_head_clusters(pm_backend *b, int32_t n, const pm_buf *h, const pm_matrix *centroids, const pm_buf *ordering,
                          const pm_matrix *w, int32_t clusters, int32_t members, int32_t top, pm_buf *ids, pm_buf *scores) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t cols = w->packed.cols, rows = (size_t)n;
    clusters_context e = {c, (size_t)clusters, (size_t)members, (size_t)top, pm_cpu_i32(ordering), w, pm_cpu_i32(ids),
                          pm_cpu_f32(scores)};
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(h), cols, rows, cols, NULL, pm_cpu_kind(centroids) | pm_cpu_kind(w));
    pm_cpu_product(c, &c->act, centroids, rows, c->cluster_scores);
    pm_pool_run(c->pool, rows, 1, choose_job, &e);
    pm_pool_run(c->pool, rows * e.top * e.members, 64, score_job, &e);
    pm_cpu_count_product(c, w, rows * e.top * e.members, 1);
}

/* ---- argmax ---- */

typedef struct argmax_context {
    size_t width;
    const float *scores;
    const int32_t *candidates;
    int32_t *ids;
} argmax_context;

/* NaN counts as -inf: the choice is defined, and the engine looks for non-finite values itself. */
static void argmax_job(void *context, size_t begin, size_t end, int thread) {
    const argmax_context *e = context;
    for (size_t r = begin; r < end; r++) {
        const float *s = e->scores + r * e->width;
        const int32_t *candidates = e->candidates ? e->candidates + r * e->width : NULL;
        float best = -INFINITY;
        int32_t best_id = INT32_MAX;
        for (size_t i = 0; i < e->width; i++) {
            const float v = s[i] == s[i] ? s[i] : -INFINITY;
            if (v < best) continue;
            const int32_t id = candidates ? candidates[i] : (int32_t)i;
            if (v > best || id < best_id) best_id = id;
            best = v;
        }
        e->ids[r] = best_id;
    }
}

void pm_cpu_argmax(pm_backend *b, int32_t n, int32_t width, const pm_buf *scores, const pm_buf *candidates, pm_buf *ids) {
    pm_cpu *c = (pm_cpu *)b;
    argmax_context e = {(size_t)width, pm_cpu_f32(scores), candidates ? pm_cpu_i32(candidates) : NULL, pm_cpu_i32(ids)};
    pm_pool_run(c->pool, (size_t)n, 1, argmax_job, &e);
}
