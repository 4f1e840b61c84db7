/* backend_cpu_tap.c - feeds a tap (base/tap.h) with the rows that meet the weights, as floats before they are rounded. Called by ops
 * themselves, outside of jobs and only while there is a tap. */
#include "cpu/backend_cpu.h"

static pm_tap_sums *sums_of(pm_cpu *c, const pm_matrix *w, size_t matrices) {
    return pm_tap_of(c->base.tap, w->name, matrices, w->packed.cols);
}

/* Row x as a matrix behind `norm` sees it; the result holds until the next call. */
static const float *normed(pm_cpu *c, const float *x, size_t cols, const pm_buf *norm) {
    if (!norm) return x;
    c->k->rms_norm(x, pm_cpu_f32(norm), cols, c->base.eps, c->line);
    return c->line;
}

void pm_cpu_tap_rows(pm_cpu *c, const float *x, size_t stride, size_t n, size_t cols, const pm_buf *norm, const pm_meets *meets) {
    pm_tap_sums *sums[PM_MEETS];
    for (size_t i = 0; i < PM_MEETS; i++) {
        sums[i] = meets->w[i] ? sums_of(c, meets->w[i], 1) : NULL;
        for (size_t k = 0; k < i; k++)
            if (sums[k] == sums[i]) sums[i] = NULL; /* parts of one tensor, whose rows meet it once */
    }
    for (size_t r = 0; r < n; r++) {
        const float *row = normed(c, x + r * stride, cols, norm);
        for (size_t i = 0; i < PM_MEETS; i++)
            if (sums[i]) pm_tap_row(sums[i], 0, row);
    }
}

void pm_cpu_tap_experts(pm_cpu *c, const pm_moe *w, const pm_matrix *m, const float *x, size_t n) {
    const size_t cols = m->packed.cols, used = (size_t)w->used;
    pm_tap_sums *sums = sums_of(c, m, (size_t)w->experts);
    for (size_t r = 0; r < n && sums; r++) {
        const float *row = normed(c, x + r * cols, cols, w->pre_norm_2);
        for (size_t i = 0; i < used; i++) pm_tap_row(sums, (size_t)c->choice[r * used + i], row);
    }
}

void pm_cpu_tap_pairs(pm_cpu *c, const pm_moe *w, size_t first, size_t n, const float *h, size_t stride) {
    pm_tap_sums *sums = sums_of(c, w->down_exps, (size_t)w->experts);
    for (size_t i = 0; i < n && sums; i++) pm_tap_row(sums, (size_t)c->pair_expert[first + i], h + i * stride);
}
