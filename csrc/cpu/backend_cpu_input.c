/* backend_cpu_input.c - ops that start from token ids. A token's rows are read from the file, so they can fail; what
 * the call would have written is then undefined. */
#include "cpu/backend_cpu.h"

#include <math.h>
#include <string.h>

typedef struct embed_context {
    pm_cpu *cpu;
    const int32_t *ids;
    const pm_table *table;
    float scale;
    float *out;
    size_t stride;
} embed_context;

static void embed_job(void *context, size_t begin, size_t end, int thread) {
    const embed_context *e = context;
    for (size_t r = begin; r < end; r++) {
        float *out = e->out + r * e->stride;
        if (pm_cpu_table_row(e->cpu, e->table, e->ids[r], out, thread, &e->cpu->errors[thread]) != PYMTP_OK) return;
        e->cpu->k->scale(out, e->table->cols, e->scale);
    }
}

static pymtp_status embed_rows(pm_cpu *c, int32_t n, const pm_buf *ids, const pm_table *table, float scale, float *out, size_t stride,
                               pymtp_error *err) {
    embed_context e = {c, pm_cpu_i32(ids), table, scale, out, stride};
    return pm_cpu_run_checked(c, (size_t)n, 1, embed_job, &e, err);
}

pymtp_status pm_cpu_embed(pm_backend *b, int32_t n, const pm_buf *ids, const pm_table *table, float scale, pm_buf *out,
                          pymtp_error *err) {
    return embed_rows((pm_cpu *)b, n, ids, table, scale, pm_cpu_f32(out), table->cols, err);
}

/* ---- per-layer inputs ---- */

typedef struct ple_context {
    pm_cpu *cpu;
    const int32_t *ids;
    const pm_ple_inputs *p;
    size_t cols; /* D */
    float *out;
} ple_context;

/* out holds proj x0: finish it to (RMS(proj x0 * D^-0.5) + table[id] * sqrt(width)) / sqrt(2), layer by layer. */
static void ple_job(void *context, size_t begin, size_t end, int thread) {
    const ple_context *e = context;
    const pm_kernels *k = e->cpu->k;
    const size_t layers = (size_t)e->p->layers, width = (size_t)e->p->width;
    const float shrink = (float)(1 / sqrt((double)e->cols)), grow = (float)sqrt((double)width), half = (float)sqrt(0.5);
    float *line = e->cpu->line + (size_t)thread * e->cpu->wide;
    for (size_t r = begin; r < end; r++) {
        float *row = e->out + r * layers * width;
        if (pm_cpu_table_row(e->cpu, e->p->table, e->ids[r], line, thread, &e->cpu->errors[thread]) != PYMTP_OK) return;
        k->scale(row, layers * width, shrink);
        for (size_t l = 0; l < layers; l++)
            k->rms_norm(row + l * width, pm_cpu_f32(e->p->norm), width, e->cpu->base.eps, row + l * width);
        k->axpy(grow, line, layers * width, row);
        k->scale(row, layers * width, half);
    }
}

pymtp_status pm_cpu_ple_inputs(pm_backend *b, int32_t n, const pm_buf *ids, const pm_buf *x, const pm_ple_inputs *p, pm_buf *out,
                               pymtp_error *err) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t cols = p->proj->packed.cols;
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(x), cols, (size_t)n, cols, NULL, (pm_meets){{p->proj}});
    pm_cpu_product(c, &c->act, p->proj, (size_t)n, pm_cpu_f32(out));
    ple_context e = {c, pm_cpu_i32(ids), p, cols, pm_cpu_f32(out)};
    return pm_cpu_run_checked(c, (size_t)n, 1, ple_job, &e, err);
}

/* ---- the drafter's input ---- */

pymtp_status pm_cpu_draft_input(pm_backend *b, int32_t n, const pm_buf *ids, const pm_table *table, float scale, const pm_buf *h,
                                const pm_matrix *pre, pm_buf *x, pymtp_error *err) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t width = table->cols;
    PM_TRY(embed_rows(c, n, ids, table, scale, c->a, 2 * width, err));
    for (size_t r = 0; r < (size_t)n; r++) memcpy(c->a + r * 2 * width + width, pm_cpu_f32(h) + r * width, width * sizeof(float));
    pm_cpu_prepare(c, &c->act, c->a, 2 * width, (size_t)n, 2 * width, NULL, (pm_meets){{pre}});
    pm_cpu_product(c, &c->act, pre, (size_t)n, pm_cpu_f32(x));
    return PYMTP_OK;
}
