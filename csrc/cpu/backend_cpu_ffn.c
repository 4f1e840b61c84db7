/* backend_cpu_ffn.c - feed-forward blocks: dense, mixture of experts, per-layer inputs.
 *
 * The experts of a call run in waves: the rows that chose an expert lie together as "pairs" (row, rank), so its
 * weights are read once for all of them; a row's sum over its experts then runs in that row's own rank order. */
#include "cpu/backend_cpu.h"

#include <math.h>
#include <string.h>

/* ---- dense ---- */

/* gate and up of RMS(x, norm), then h = gelu(gate) * up. up: scratch (n, ff) */
static void gated(pm_cpu *c, size_t n, const float *x, const pm_buf *norm, const pm_matrix *gate, const pm_matrix *up, float *h,
                  float *scratch) {
    const size_t width = gate->packed.cols, ff = gate->packed.rows;
    const pm_mm jobs[2] = {{.w = gate, .rows = ff, .n = n, .out = h, .stride = ff}, {.w = up, .rows = ff, .n = n, .out = scratch, .stride = ff}};
    pm_cpu_prepare(c, &c->act, x, width, n, width, norm, (pm_meets){{gate, up}});
    pm_cpu_products(c, &c->act, jobs, 2);
    pm_cpu_gelu_mul(c, n, ff, h, ff, scratch, ff, h, ff);
}

void pm_cpu_gate_up_act(pm_backend *b, int32_t n, const pm_buf *x, const pm_buf *norm, const pm_matrix *gate, const pm_matrix *up,
                        pm_buf *h) {
    pm_cpu *c = (pm_cpu *)b;
    gated(c, (size_t)n, pm_cpu_f32(x), norm, gate, up, pm_cpu_f32(h), c->a);
}

void pm_cpu_down_add(pm_backend *b, int32_t n, const pm_buf *h, const pm_matrix *down, const pm_buf *post_norm, pm_buf *x) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t ff = down->packed.cols;
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(h), ff, (size_t)n, ff, NULL, (pm_meets){{down}});
    pm_cpu_product(c, &c->act, down, (size_t)n, c->a);
    pm_cpu_add_normed(c, (size_t)n, down->packed.rows, c->a, post_norm, pm_cpu_f32(x));
}

typedef struct planes_context {
    pm_cpu *cpu;
    const pm_act *act; /* a batch of 2 n rows */
    size_t n, cols;
    const float *x;
} planes_context;

/* Row r becomes its 8 bits, row n + r the 8 bits of what they leave. */
static void planes_job(void *context, size_t begin, size_t end, int thread) {
    const planes_context *p = context;
    float *rest = p->cpu->line + (size_t)thread * p->cpu->wide;
    for (size_t r = begin; r < end; r++) {
        const float *x = p->x + r * p->cols;
        size_t step, at = pm_act_index(p->act, r, &step);
        pm_cpu_fill_act(p->cpu, p->act, r, x, 1u << PM_ACT_Q8);
        for (size_t i = 0; i < p->cols; i++) {
            const pm_act_block *b = &p->act->q8[at + i / 32 * step];
            rest[i] = x[i] - b->d * (float)b->q[i % 32];
        }
        pm_cpu_fill_act(p->cpu, p->act, p->n + r, rest, 1u << PM_ACT_Q8);
    }
}

/* out (n, w->rows) = w x with activations of nearly 16 bits: as two rows of 8 bits each, added. Twice the arithmetic for the same
 * bytes of weights: for small matrices whose input rounding shows. out has room for 2 n rows. */
static void product_of_planes(pm_cpu *c, const pm_matrix *w, size_t n, const float *x, float *out) {
    const size_t cols = w->packed.cols, width = w->packed.rows;
    if (w->packed.format->act != PM_ACT_Q8) {
        pm_cpu_prepare(c, &c->act, x, cols, n, cols, NULL, (pm_meets){{w}});
        pm_cpu_product(c, &c->act, w, n, out);
        return;
    }
    planes_context p = {c, &c->act, n, cols, x};
    if (c->base.tap) pm_cpu_tap_rows(c, x, cols, n, cols, NULL, &(pm_meets){{w}});
    pm_cpu_shape_act(c, &c->act, 2 * n, cols);
    pm_pool_run(c->pool, n, 1, planes_job, &p);
    pm_cpu_product(c, &c->act, w, 2 * n, out);
    for (size_t r = 0; r < n; r++) c->k->add(out + (n + r) * width, width, out + r * width);
}

void pm_cpu_ple_add(pm_backend *b, int32_t n, const pm_buf *ple, int32_t layers, int32_t layer, int32_t width, const pm_matrix *gate,
                    const pm_matrix *proj, const pm_buf *post_norm, pm_buf *x) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t cols = gate->packed.cols, w = (size_t)width, rows = (size_t)n;
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(x), cols, rows, cols, NULL, (pm_meets){{gate}});
    pm_cpu_product(c, &c->act, gate, rows, c->a);
    pm_cpu_gelu_mul(c, rows, w, c->a, w, pm_cpu_f32(ple) + (size_t)layer * w, (size_t)layers * w, c->a, w);
    product_of_planes(c, proj, rows, c->a, c->b);
    pm_cpu_add_normed(c, rows, proj->packed.rows, c->b, post_norm, pm_cpu_f32(x));
}

/* ---- mixture of experts ---- */

typedef struct moe_context {
    pm_cpu *cpu;
    const pm_moe *w;
    size_t width, used, experts;
    float *x;
    size_t first_pair; /* of the wave */
    unsigned kinds;
} moe_context;

/* c = RMS(c, post_norm_1); b = RMS(x) * D^-0.5 * router_scale */
static void before_route_job(void *context, size_t begin, size_t end, int thread) {
    const moe_context *m = context;
    const pm_cpu *c = m->cpu;
    const float shrink = (float)(1 / sqrt((double)m->width));
    for (size_t r = begin; r < end; r++) {
        float *dense = c->c + r * m->width, *input = c->b + r * m->width;
        c->k->rms_norm(dense, pm_cpu_f32(m->w->post_norm_1), m->width, c->base.eps, dense);
        c->k->rms_norm(m->x + r * m->width, pm_cpu_f32(m->w->router_scale), m->width, c->base.eps, input);
        c->k->scale(input, m->width, shrink);
    }
}

/* Choice and shares of each row: the best experts by probability, renormalised, times the expert's own scale. */
static void route_job(void *context, size_t begin, size_t end, int thread) {
    const moe_context *m = context;
    const pm_cpu *c = m->cpu;
    for (size_t r = begin; r < end; r++) {
        float *p = c->router + r * m->experts, *share = c->share + r * m->used, total = 0;
        int32_t *choice = c->choice + r * m->used;
        c->k->softmax(p, m->experts);
        pm_cpu_top(p, m->experts, m->used, c->keys + (size_t)thread * c->keys_each, choice);
        for (size_t i = 0; i < m->used; i++) total += p[choice[i]];
        for (size_t i = 0; i < m->used; i++) share[i] = p[choice[i]] / total * pm_cpu_f32(m->w->expert_scale)[choice[i]];
    }
}

static void route(moe_context *m, size_t n) {
    pm_cpu *c = m->cpu;
    pm_pool_run(c->pool, n, 1, before_route_job, m);
    pm_cpu_prepare(c, &c->act, c->b, m->width, n, m->width, NULL, (pm_meets){{m->w->router}});
    pm_cpu_product(c, &c->act, m->w->router, n, c->router);
    pm_pool_run(c->pool, n, 1, route_job, m);
}

/* Pairs sorted by expert, then row: expert_start, pair_row, pair_expert, pair_of. */
static void sort_pairs(moe_context *m, size_t n) {
    pm_cpu *c = m->cpu;
    int32_t *start = c->expert_start;
    memset(start, 0, (m->experts + 1) * sizeof *start);
    for (size_t i = 0; i < n * m->used; i++) start[c->choice[i] + 1]++;
    for (size_t e = 0; e < m->experts; e++) start[e + 1] += start[e];
    for (size_t i = 0; i < n * m->used; i++) { /* start[e] moves to the end of e's pairs */
        const int32_t pair = start[c->choice[i]]++;
        c->pair_row[pair] = (int32_t)(i / m->used);
        c->pair_expert[pair] = c->choice[i];
        c->pair_of[i] = pair;
    }
    for (size_t e = m->experts; e > 0; e--) start[e] = start[e - 1];
    start[0] = 0;
}

/* The pairs of an expert are a batch of their own: every expert meets its rows in as few tiles as they need. */
static pm_act batch_of_pair(const moe_context *m, size_t pair, size_t *row) {
    const pm_cpu *c = m->cpu;
    const int32_t expert = c->pair_expert[pair];
    const size_t first = (size_t)c->expert_start[expert], n = (size_t)c->expert_start[expert + 1] - first;
    *row = pair - first;
    return pm_cpu_batch(&c->pairs, first - m->first_pair, n);
}

/* pairs rows = act rows of the wave's pairs */
static void gather_job(void *context, size_t begin, size_t end, int thread) {
    const moe_context *m = context;
    const pm_act *from = &m->cpu->act;
    for (size_t i = begin; i < end; i++) {
        size_t row, to_step, from_step;
        const pm_act to = batch_of_pair(m, m->first_pair + i, &row);
        const size_t t = pm_act_index(&to, row, &to_step), f = pm_act_index(from, (size_t)m->cpu->pair_row[m->first_pair + i], &from_step);
        for (size_t b = 0; b < from->blocks; b++) {
            if (m->kinds & 1u << PM_ACT_Q8) to.q8[t + b * to_step] = from->q8[f + b * from_step];
            if (m->kinds & 1u << PM_ACT_F32)
                memcpy(to.x + 32 * (t + b * to_step), from->x + 32 * (f + b * from_step), 32 * sizeof(float));
        }
    }
}

/* h = gelu(gate) * up of the wave's pairs, prepared for the down projection. */
static void expert_act_job(void *context, size_t begin, size_t end, int thread) {
    const moe_context *m = context;
    const pm_cpu *c = m->cpu;
    const size_t ff = (size_t)m->w->expert_ff;
    for (size_t i = begin; i < end; i++) {
        size_t row;
        float *h = c->expert_h + i * 2 * ff;
        const pm_act to = batch_of_pair(m, m->first_pair + i, &row);
        c->k->gelu_mul(h, h + ff, ff, h);
        pm_cpu_fill_act(c, &to, row, h, pm_cpu_kind(m->w->down_exps));
    }
}

/* jobs = the products of the experts [first, last) with their pairs, `rows` outputs each; returns how many. out: of the
 * wave's first pair, `stride` floats from pair to pair. */
static size_t wave_products(const moe_context *m, size_t first, size_t last, const pm_matrix *w, size_t rows, float *out, size_t stride,
                            pm_mm *jobs) {
    const int32_t *start = m->cpu->expert_start;
    size_t n_jobs = 0;
    for (size_t e = first; e < last; e++) {
        const size_t row = (size_t)start[e] - m->first_pair, n = (size_t)(start[e + 1] - start[e]);
        if (!n) continue;
        jobs[n_jobs++] = (pm_mm){.w = w, .first = e * rows, .rows = rows, .act_row = row, .n = n, .out = out + row * stride, .stride = stride};
    }
    return n_jobs;
}

/* expert_out of the pairs of experts [first, last). */
static void wave(moe_context *m, size_t first, size_t last) {
    pm_cpu *c = m->cpu;
    const pm_moe *w = m->w;
    const size_t ff = (size_t)w->expert_ff, pairs = (size_t)c->expert_start[last] - m->first_pair;
    float *h = c->expert_h, *out = c->expert_out + m->first_pair * m->width;
    size_t n_jobs;
    pm_cpu_shape_act(c, &c->pairs, 1, c->act.cols);
    pm_pool_run(c->pool, pairs, 1, gather_job, m);
    if (w->gate_up_exps) {
        n_jobs = wave_products(m, first, last, w->gate_up_exps, 2 * ff, h, 2 * ff, c->mm);
    } else {
        n_jobs = wave_products(m, first, last, w->gate_exps, ff, h, 2 * ff, c->mm);
        n_jobs += wave_products(m, first, last, w->up_exps, ff, h + ff, 2 * ff, c->mm + n_jobs);
    }
    pm_cpu_products(c, &c->pairs, c->mm, n_jobs);
    pm_cpu_shape_act(c, &c->pairs, 1, ff);
    pm_pool_run(c->pool, pairs, 1, expert_act_job, m);
    if (c->base.tap) pm_cpu_tap_pairs(c, w, m->first_pair, pairs, h, 2 * ff);
    n_jobs = wave_products(m, first, last, w->down_exps, m->width, out, m->width, c->mm);
    pm_cpu_products(c, &c->pairs, c->mm, n_jobs);
}

/* Waves of at most c->rows pairs: an expert has at most one pair a row, so each fits. */
static void experts(moe_context *m) {
    const pm_cpu *c = m->cpu;
    for (size_t first = 0; first < m->experts;) {
        size_t last = first + 1;
        while (last < m->experts && (size_t)(c->expert_start[last + 1] - c->expert_start[first]) <= c->rows) last++;
        m->first_pair = (size_t)c->expert_start[first];
        if (c->expert_start[last] > c->expert_start[first]) wave(m, first, last);
        first = last;
    }
}

/* x += RMS(c + RMS(sum of shares times expert outputs, post_norm_2), post_norm) */
static void combine_job(void *context, size_t begin, size_t end, int thread) {
    const moe_context *m = context;
    const pm_cpu *c = m->cpu;
    for (size_t r = begin; r < end; r++) {
        float *sum = c->b + r * m->width, *dense = c->c + r * m->width;
        memset(sum, 0, m->width * sizeof(float));
        for (size_t i = r * m->used; i < (r + 1) * m->used; i++)
            c->k->axpy(c->share[i], c->expert_out + (size_t)c->pair_of[i] * m->width, m->width, sum);
        c->k->rms_norm(sum, pm_cpu_f32(m->w->post_norm_2), m->width, c->base.eps, sum);
        c->k->add(sum, m->width, dense);
        c->k->rms_norm(dense, pm_cpu_f32(m->w->post_norm), m->width, c->base.eps, dense);
        c->k->add(dense, m->width, m->x + r * m->width);
    }
}

void pm_cpu_moe_ffn(pm_backend *b, int32_t n, const pm_moe *w, pm_buf *x) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t rows = (size_t)n, width = w->down->packed.rows, ff = w->down->packed.cols;
    const pm_matrix *up = w->gate_up_exps ? NULL : w->up_exps;
    moe_context m = {.cpu = c, .w = w, .width = width, .used = (size_t)w->used, .experts = (size_t)w->experts, .x = pm_cpu_f32(x),
                     .kinds = pm_cpu_kind(w->gate_up_exps ? w->gate_up_exps : w->gate_exps) | pm_cpu_kind(up)};
    gated(c, rows, m.x, w->ffn_norm, w->gate, w->up, c->a, c->b);
    pm_cpu_prepare(c, &c->act, c->a, ff, rows, ff, NULL, (pm_meets){{w->down}});
    pm_cpu_product(c, &c->act, w->down, rows, c->c);
    route(&m, rows);
    sort_pairs(&m, rows);
    pm_cpu_count_experts(c, m.experts);
    pm_cpu_prepare_kinds(c, &c->act, m.x, width, rows, width, w->pre_norm_2, m.kinds);
    if (c->base.tap) {
        pm_cpu_tap_experts(c, w, w->gate_up_exps ? w->gate_up_exps : w->gate_exps, m.x, rows);
        if (up) pm_cpu_tap_experts(c, w, up, m.x, rows);
    }
    experts(&m);
    pm_pool_run(c->pool, rows, 1, combine_job, &m);
}

/* ---- scaling ---- */

typedef struct scale_context { const pm_kernels *k; size_t width; float s; float *x; } scale_context;

static void scale_job(void *context, size_t begin, size_t end, int thread) {
    const scale_context *e = context;
    e->k->scale(e->x + begin * e->width, (end - begin) * e->width, e->s);
}

void pm_cpu_scale(pm_backend *b, int32_t n, int32_t width, float s, pm_buf *x) {
    pm_cpu *c = (pm_cpu *)b;
    scale_context e = {c->k, (size_t)width, s, pm_cpu_f32(x)};
    pm_pool_run(c->pool, (size_t)n, 1, scale_job, &e);
}
