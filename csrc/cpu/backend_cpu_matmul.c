/* backend_cpu_matmul.c - what the ops share: activations prepared once per product, products split over outputs,
 * row-wise helpers, the choice of the largest, rotary angles.
 *
 * Several products run as one parallel pass: their output rows are cut into units and the units dealt out in
 * contiguous parts. Who computes an output never changes its bits. */
#include "cpu/backend_cpu.h"
#include "base/checked.h"
#include "base/f16.h"

#include <math.h>
#include <string.h>

/* ---- activations ---- */

typedef struct prepare_context {
    pm_cpu *cpu;
    pm_act *act;
    const float *x, *norm;
    size_t stride;
    unsigned kinds;
} prepare_context;

void pm_cpu_shape_act(const pm_cpu *c, pm_act *act, size_t n, size_t cols) {
    act->cols = cols;
    act->blocks = (cols + 31) / 32;
    act->n = n;
    act->tile = c->k->tile;
}

void pm_cpu_fill_act(const pm_cpu *c, const pm_act *act, size_t row, const float *x, unsigned kinds) {
    size_t step, at = pm_act_index(act, row, &step);
    if (kinds & 1u << PM_ACT_Q8) c->k->quantize(x, act->cols, act->q8 + at, step);
    if (!(kinds & 1u << PM_ACT_F32)) return;
    for (size_t i = 0; i < act->cols; i += 32, at += step) {
        const size_t n = act->cols - i < 32 ? act->cols - i : 32;
        memcpy(act->x + 32 * at, x + i, n * sizeof(float));
        memset(act->x + 32 * at + n, 0, (32 - n) * sizeof(float));
    }
}

static void prepare_job(void *context, size_t begin, size_t end, int thread) {
    const prepare_context *p = context;
    float *line = p->cpu->line + (size_t)thread * p->cpu->wide;
    for (size_t r = begin; r < end; r++) {
        const float *x = p->x + r * p->stride;
        if (p->norm) p->cpu->k->rms_norm(x, p->norm, p->act->cols, p->cpu->base.eps, line);
        pm_cpu_fill_act(p->cpu, p->act, r, p->norm ? line : x, p->kinds);
    }
}

void pm_cpu_prepare_kinds(pm_cpu *c, pm_act *act, const float *x, size_t stride, size_t n, size_t cols, const pm_buf *norm,
                          unsigned kinds) {
    pm_cpu_shape_act(c, act, n, cols);
    prepare_context p = {c, act, x, norm ? pm_cpu_f32(norm) : NULL, stride, kinds};
    pm_pool_run(c->pool, n, 1, prepare_job, &p);
}

void pm_cpu_prepare(pm_cpu *c, pm_act *act, const float *x, size_t stride, size_t n, size_t cols, const pm_buf *norm, pm_meets meets) {
    unsigned kinds = 0;
    for (size_t i = 0; i < PM_MEETS; i++) kinds |= pm_cpu_kind(meets.w[i]);
    pm_cpu_prepare_kinds(c, act, x, stride, n, cols, norm, kinds);
    if (c->base.tap) pm_cpu_tap_rows(c, x, stride, n, cols, norm, &meets);
}

pm_act pm_cpu_batch(const pm_act *act, size_t row, size_t n) {
    pm_act out = *act;
    out.n = n;
    out.q8 += row * act->blocks;
    out.x += row * act->blocks * 32;
    return out;
}

/* ---- products ---- */

/* Outputs of whole weight groups only: those beside the wanted ones go to the thread's edge scratch. */
static void part_by_groups(pm_cpu *c, const pm_matrix *w, size_t begin, size_t end, const pm_act *act, float *out, size_t stride,
                           int thread) {
    const size_t group = c->k->group;
    float *edge = c->edge + (size_t)thread * 2 * c->rows * group;
    for (size_t first = begin / group * group; first < end; first += group) {
        const size_t left = w->packed.rows - first, last = first + (left < group ? left : group);
        const size_t from = first > begin ? first : begin, to = last < end ? last : end;
        c->k->matmul(&w->packed, first, last, act, edge, group);
        for (size_t r = 0; r < act->n; r++)
            memcpy(out + r * stride + from - begin, edge + r * group + from - first, (to - from) * sizeof(float));
    }
}

void pm_cpu_product_part(pm_cpu *c, const pm_matrix *w, size_t begin, size_t end, const pm_act *act, float *out, size_t stride,
                         int thread) {
    const size_t group = c->k->group;
    if (!act->n || begin >= end) return;
    if (begin % group == 0 && (end % group == 0 || end == w->packed.rows)) c->k->matmul(&w->packed, begin, end, act, out, stride);
    else part_by_groups(c, w, begin, end, act, out, stride, thread);
}

typedef struct products_context {
    pm_cpu *cpu;
    const pm_act *act;
    const pm_mm *jobs;
    size_t unit; /* outputs: whole groups, and whole cache lines of out */
} products_context;

static size_t units_of(const pm_mm *job, size_t unit) { return (job->rows + unit - 1) / unit; }

/* Items are the units of all jobs, one job after the other. */
static void products_job(void *context, size_t begin, size_t end, int thread) {
    const products_context *p = context;
    size_t start = 0; /* first unit of the job */
    for (const pm_mm *job = p->jobs; start < end; start += units_of(job, p->unit), job++) {
        const size_t units = units_of(job, p->unit);
        if (start + units <= begin) continue;
        const size_t from = (begin > start ? begin - start : 0) * p->unit;
        const size_t last = (end - start < units ? end - start : units) * p->unit, to = last < job->rows ? last : job->rows;
        const pm_act act = pm_cpu_batch(p->act, job->act_row, job->n);
        pm_cpu_product_part(p->cpu, job->w, job->first + from, job->first + to, &act, job->out + from, job->stride, thread);
    }
}

void pm_cpu_products(pm_cpu *c, const pm_act *act, const pm_mm *jobs, size_t n_jobs) {
    const size_t group = c->k->group;
    products_context p = {c, act, jobs, (15 + group) / group * group};
    size_t units = 0;
    for (size_t i = 0; i < n_jobs; i++) {
        units += units_of(&jobs[i], p.unit);
        pm_cpu_count_product(c, jobs[i].w, jobs[i].rows, jobs[i].n);
    }
    pm_pool_run(c->pool, units, 1, products_job, &p);
}

void pm_cpu_product(pm_cpu *c, const pm_act *act, const pm_matrix *w, size_t n, float *out) {
    const pm_mm job = {.w = w, .rows = w->packed.rows, .n = n, .out = out, .stride = w->packed.rows};
    pm_cpu_products(c, act, &job, 1);
}

/* ---- rows ---- */

typedef struct gelu_context {
    const pm_kernels *k;
    size_t cols, gate_stride, up_stride, h_stride;
    const float *gate, *up;
    float *h;
} gelu_context;

static void gelu_job(void *context, size_t begin, size_t end, int thread) {
    const gelu_context *g = context;
    for (size_t r = begin; r < end; r++)
        g->k->gelu_mul(g->gate + r * g->gate_stride, g->up + r * g->up_stride, g->cols, g->h + r * g->h_stride);
}

void pm_cpu_gelu_mul(pm_cpu *c, size_t n, size_t cols, const float *gate, size_t gate_stride, const float *up, size_t up_stride,
                     float *h, size_t h_stride) {
    gelu_context g = {c->k, cols, gate_stride, up_stride, h_stride, gate, up, h};
    pm_pool_run(c->pool, n, 1, gelu_job, &g);
}

typedef struct add_context {
    pm_cpu *cpu;
    size_t width;
    const float *norm;
    float *y, *x;
} add_context;

static void add_job(void *context, size_t begin, size_t end, int thread) {
    const add_context *a = context;
    const pm_kernels *k = a->cpu->k;
    for (size_t r = begin; r < end; r++) {
        float *y = a->y + r * a->width;
        k->rms_norm(y, a->norm, a->width, a->cpu->base.eps, y);
        k->add(y, a->width, a->x + r * a->width);
    }
}

void pm_cpu_add_normed(pm_cpu *c, size_t n, size_t width, float *y, const pm_buf *norm, float *x) {
    add_context a = {c, width, pm_cpu_f32(norm), y, x};
    pm_pool_run(c->pool, n, 1, add_job, &a);
}

/* ---- the largest ---- */

/* Smaller keys are better: larger values, then lower indices. NaN is worse than -inf; -0 equals +0. */
static uint64_t rank_key(float v, size_t index) {
    const uint32_t bits = pm_f32_bits(v + 0.0f);
    const uint32_t ascending = v != v ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)~ascending << 32 | (uint32_t)index;
}

/* Restores the heap (worst key on top) below position i of n. */
static void sift_down(uint64_t *heap, size_t n, size_t i) {
    const uint64_t key = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] > heap[child]) child++;
        if (heap[child] <= key) break;
        heap[i] = heap[child];
    }
    heap[i] = key;
}

void pm_cpu_top(const float *x, size_t n, size_t top, uint64_t *keys, int32_t *out) {
    for (size_t i = 0; i < top; i++) keys[i] = rank_key(x[i], i);
    for (size_t i = top / 2; i-- > 0;) sift_down(keys, top, i);
    for (size_t i = top; i < n; i++) {
        const uint64_t key = rank_key(x[i], i);
        if (key >= keys[0]) continue;
        keys[0] = key;
        sift_down(keys, top, 0);
    }
    for (size_t left = top; left > 0; left--) { /* the worst that is left goes to the end */
        out[left - 1] = (int32_t)(uint32_t)keys[0];
        keys[0] = keys[left - 1];
        sift_down(keys, left - 1, 0);
    }
}

/* ---- rotary angles ---- */

static void angles_job(void *context, size_t begin, size_t end, int thread) {
    const pm_cpu_rope *r = context;
    const size_t half = (size_t)r->head_dim / 2;
    for (size_t row = begin; row < end; row++) {
        for (size_t i = 0; i < half; i++) {
            const double angle = (double)r->pos[row] * r->inv_freq[i];
            r->cos[row * half + i] = angle == 0 ? 1.0f : (float)cos(angle);
            r->sin[row * half + i] = angle == 0 ? 0.0f : (float)sin(angle);
        }
    }
}

/* The layers of a pass ask for the same few sets of angles again and again. */
void pm_cpu_angles(pm_cpu *c, const pm_rope *rope, const pm_rows *rows, const float **cosines, const float **sines) {
    const size_t half = (size_t)rope->head_dim / 2, n = (size_t)rows->n;
    pm_cpu_rope *r = NULL;
    for (int i = 0; i < PM_CPU_ROPES && !r; i++) {
        pm_cpu_rope *have = &c->rope[i];
        if (have->head_dim == rope->head_dim && have->n == rows->n && !memcmp(have->pos, rows->pos, n * sizeof(int32_t)) &&
            !memcmp(have->inv_freq, rope->inv_freq, half * sizeof(double))) {
            r = have;
        }
    }
    if (!r) {
        r = &c->rope[c->next_rope++ % PM_CPU_ROPES];
        r->head_dim = rope->head_dim;
        r->n = rows->n;
        memcpy(r->pos, rows->pos, n * sizeof(int32_t));
        memcpy(r->inv_freq, rope->inv_freq, half * sizeof(double));
        pm_pool_run(c->pool, n, 1, angles_job, r);
    }
    *cosines = r->cos;
    *sines = r->sin;
}
