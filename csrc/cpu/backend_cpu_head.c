/* backend_cpu_head.c - output ops: norm, projections, logits and the best of them, the centroid head, argmax, gathering of rows. */
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
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(x), cols, (size_t)n, cols, NULL, (pm_meets){{w}});
    pm_cpu_product(c, &c->act, w, (size_t)n, pm_cpu_f32(out));
}

void pm_cpu_gather_rows(pm_backend *b, int32_t n, int32_t width, const pm_buf *src, const int32_t *index, pm_buf *dst) {
    const size_t bytes = (size_t)width * sizeof(float);
    for (size_t i = 0; i < (size_t)n; i++) { /* index[i] >= i, so in place nothing is overwritten before it is read */
        if (src != dst || (size_t)index[i] != i) memmove(dst->data + i * bytes, src->data + (size_t)index[i] * bytes, bytes);
    }
}

/* ---- logits: all, or the best of each row ---- */

/* Items are units of outputs. */
typedef struct head_context {
    pm_cpu *cpu;
    const pm_matrix *w;
    size_t n, vocab, unit;
    float cap;
    float *logits; /* (n, vocab), or (n, k) */
    int32_t *ids;  /* (n, k) */
    size_t k;
} head_context;

static head_context head_prepare(pm_cpu *c, int32_t n, const pm_buf *h, int32_t first, const pm_matrix *w, float cap, pm_buf *logits) {
    const size_t cols = w->packed.cols;
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(h) + (size_t)first * cols, cols, (size_t)n, cols, NULL, (pm_meets){{w}});
    pm_cpu_count_product(c, w, w->packed.rows, (size_t)n);
    return (head_context){.cpu = c, .w = w, .n = (size_t)n, .vocab = w->packed.rows, .unit = PM_CPU_HEAD_UNIT / c->k->group * c->k->group,
                          .cap = cap, .logits = pm_cpu_f32(logits)};
}

static size_t head_units(const head_context *e) { return (e->vocab + e->unit - 1) / e->unit; }

static size_t unit_end(const head_context *e, size_t from) { return e->vocab - from < e->unit ? e->vocab : from + e->unit; }

static void logits_job(void *context, size_t begin, size_t end, int thread) {
    const head_context *e = context;
    for (size_t u = begin; u < end; u++) {
        const size_t from = u * e->unit, to = unit_end(e, from);
        pm_cpu_product_part(e->cpu, e->w, from, to, &e->cpu->act, e->logits + from, e->vocab, thread);
        for (size_t r = 0; r < e->n && e->cap != 0; r++) e->cpu->k->softcap(e->logits + r * e->vocab + from, to - from, e->cap);
    }
}

void pm_cpu_head_logits(pm_backend *b, int32_t n, const pm_buf *h, int32_t first, const pm_matrix *w, float cap, pm_buf *logits) {
    pm_cpu *c = (pm_cpu *)b;
    head_context e = head_prepare(c, n, h, first, w, cap, logits);
    pm_pool_run(c->pool, head_units(&e), 1, logits_job, &e);
}

static int better(pm_cpu_logit a, pm_cpu_logit b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

/* Restores the heap (worst on top) below h[i]. */
static void sift_down(pm_cpu_logit *h, size_t n, size_t i) {
    const pm_cpu_logit moving = h[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && better(h[child], h[child + 1])) child++;
        if (better(h[child], moving)) break;
        h[i] = h[child];
    }
    h[i] = moving;
}

/* Takes a logit that is not worse than what is kept. */
static void keep(pm_cpu_top_row *t, size_t k, pm_cpu_logit x) {
    if (t->kept < k) {
        t->best[t->kept++] = x;
        if (t->kept < k) return;
        for (size_t i = k / 2; i-- > 0;) sift_down(t->best, k, i);
    } else if (better(x, t->best[0])) {
        t->best[0] = x;
        sift_down(t->best, k, 0);
    }
    t->least = t->best[0].logit;
}

/* No logit of a unit is above this, given the largest before capping (which may be NaN: then so is the result). A softcap errs by at
 * most 14 * 2^-24 of its value and 2^-125 (tests/c/test_elem.c), so that where x <= y its result for x is above that for y by less
 * than twice as much of cap. */
static float capped_bound(const pm_kernels *k, float largest, float cap) {
    k->softcap(&largest, 1, cap);
    return largest + (32 * 0x1p-24f * cap + 0x1p-123f);
}

/* Logits x (n) of ids from `first` on join the row's best, before capping; most units are skipped at a glance. A thread meets its units
 * in any order: what equals the least of the kept ones may have a lower id. */
static void take_unit(const head_context *e, pm_cpu_top_row *t, float *x, size_t n, size_t first) {
    const pm_kernels *k = e->cpu->k;
    float largest = k->peak(x, n);
    if (e->cap != 0) {
        if (capped_bound(k, largest, e->cap) < t->least) return;
        k->softcap(x, n, e->cap);
        largest = k->peak(x, n);
    }
    if (largest < t->least) return;
    t->bad |= largest != largest;
    for (size_t i = 0; i < n; i++) {
        const float v = x[i] == x[i] ? x[i] : -INFINITY;
        if (t->kept < e->k || v >= t->least) keep(t, e->k, (pm_cpu_logit){v, (int32_t)(first + i)});
    }
}

static void top_job(void *context, size_t begin, size_t end, int thread) {
    const head_context *e = context;
    pm_cpu *c = e->cpu;
    float *x = c->head_unit + (size_t)thread * c->rows * PM_CPU_HEAD_UNIT;
    for (size_t u = begin; u < end; u++) {
        const size_t from = u * e->unit, to = unit_end(e, from);
        pm_cpu_product_part(c, e->w, from, to, &c->act, x, e->unit, thread);
        for (size_t r = 0; r < e->n; r++) take_unit(e, &c->top_rows[(size_t)thread * c->rows + r], x + r * e->unit, to - from, from);
    }
}

/* Items are rows: the threads' best become the row's, in order. */
static void merge_job(void *context, size_t begin, size_t end, int thread) {
    const head_context *e = context;
    pm_cpu *c = e->cpu;
    for (size_t r = begin; r < end; r++) {
        pm_cpu_top_row *t = &c->top_rows[r];
        for (size_t other = 1; other < (size_t)c->threads; other++) {
            const pm_cpu_top_row *o = &c->top_rows[other * c->rows + r];
            for (size_t i = 0; i < o->kept; i++) keep(t, e->k, o->best[i]);
            t->bad |= o->bad;
        }
        for (size_t left = e->k; left > 0; left--) { /* the worst that is left goes to the end */
            const size_t at = r * e->k + left - 1;
            e->ids[at] = t->best[0].id;
            e->logits[at] = t->bad ? NAN : t->best[0].logit;
            t->best[0] = t->best[left - 1];
            sift_down(t->best, left - 1, 0);
        }
    }
}

void pm_cpu_head_top(pm_backend *b, int32_t n, const pm_buf *h, int32_t first, const pm_matrix *w, float cap, int32_t k, pm_buf *ids,
                     pm_buf *logits) {
    pm_cpu *c = (pm_cpu *)b;
    head_context e = head_prepare(c, n, h, first, w, cap, logits);
    e.ids = pm_cpu_i32(ids);
    e.k = (size_t)k;
    for (size_t t = 0; t < (size_t)c->threads; t++)
        for (size_t i = t * c->rows; i < t * c->rows + e.n; i++)
            c->top_rows[i] = (pm_cpu_top_row){.best = c->top_best + i * PM_HEAD_TOP, .least = -INFINITY};
    pm_pool_run(c->pool, head_units(&e), 1, top_job, &e);
    pm_pool_run(c->pool, e.n, 1, merge_job, &e);
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

/* Items are chosen clusters of all rows; each row was prepared as a batch of its own. */
static void score_job(void *context, size_t begin, size_t end, int thread) {
    const clusters_context *e = context;
    for (size_t i = begin; i < end; i++) {
        const size_t r = i / e->top, first = (size_t)e->cpu->cluster_top[r * e->clusters + i % e->top] * e->members;
        const pm_act act = pm_cpu_batch(&e->cpu->act, r, 1);
        pm_cpu_product_part(e->cpu, e->w, first, first + e->members, &act, e->scores + i * e->members, e->members, thread);
    }
}

void pm_cpu_head_clusters(pm_backend *b, int32_t n, const pm_buf *h, const pm_matrix *centroids, const pm_buf *ordering,
                          const pm_matrix *w, int32_t clusters, int32_t members, int32_t top, pm_buf *ids, pm_buf *scores) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t cols = w->packed.cols, rows = (size_t)n;
    clusters_context e = {c, (size_t)clusters, (size_t)members, (size_t)top, pm_cpu_i32(ordering), w, pm_cpu_i32(ids),
                          pm_cpu_f32(scores)};
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(h), cols, rows, cols, NULL, (pm_meets){{centroids}});
    pm_cpu_product(c, &c->act, centroids, rows, c->cluster_scores);
    pm_pool_run(c->pool, rows, 1, choose_job, &e);
    pm_cpu_shape_act(c, &c->act, 1, cols);
    for (size_t r = 0; r < rows; r++) {
        const pm_act act = pm_cpu_batch(&c->act, r, 1);
        pm_cpu_fill_act(c, &act, 0, pm_cpu_f32(h) + r * cols, pm_cpu_kind(w));
    }
    pm_pool_run(c->pool, rows * e.top, 1, score_job, &e);
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
