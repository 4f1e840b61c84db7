/* backend_cpu_work.c - what the ops have computed, for pymtp_counters. Called by ops themselves, outside of jobs. */
#include "cpu/backend_cpu.h"

void pm_cpu_count_product(pm_cpu *c, const pm_matrix *w, size_t outputs, size_t rows) {
    pymtp_counters *work = &c->base.work;
    const uint64_t multiply_adds = (uint64_t)outputs * w->packed.cols * rows;
    work->weight_bytes += (uint64_t)outputs * w->packed.row_bytes;
    if (w->packed.format->act == PM_ACT_Q8) work->multiply_adds_int8 += multiply_adds;
    else work->multiply_adds_f32 += multiply_adds;
}

/* The positions that the rows of a segment see lie together: rows of a call are neighbours. */
void pm_cpu_count_kv(pm_cpu *c, const pm_rows *rows, const pm_kv_view *views, int32_t window, int32_t self) {
    for (int32_t r = 0, end; r < rows->n; r = end) {
        int64_t low = rows->pos[r], high = low;
        for (end = r + 1; end < rows->n && rows->seg[end] == rows->seg[r]; end++) {
            if (rows->pos[end] < low) low = rows->pos[end];
            if (rows->pos[end] > high) high = rows->pos[end];
        }
        int64_t first = window ? low - window + 1 : 0;
        if (first < 0) first = 0;
        c->base.work.kv_bytes += 2 * (uint64_t)(high + (self ? 1 : 0) - first) * views[rows->seg[r]].row_bytes;
    }
}

void pm_cpu_count_experts(pm_cpu *c, size_t experts) {
    for (size_t e = 0; e < experts; e++) c->base.work.experts += c->expert_start[e + 1] > c->expert_start[e];
}
