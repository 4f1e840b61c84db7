/* backend_cpu.c - the CPU back end: opening, storage, scratch and the table of ops.
 *
 * Buffers are plain memory; large and growing ones are pages of their own. Scratch is one region, carved by the same
 * function that computes its size, and replaced only when the new one is there. */
#include "cpu/backend_cpu.h"
#include "base/checked.h"

#include <string.h>

#define OWN_PAGES ((size_t)1 << 20) /* from this size on a buffer gets a region of its own */

/* ---- storage ---- */

pymtp_status pm_cpu_storage(pm_buf *out, size_t bytes, const char *what, pymtp_error *err) {
    *out = (pm_buf){.bytes = bytes};
    if (bytes >= OWN_PAGES) {
        PM_TRY(pm_region_reserve(&out->region, bytes, what, err));
        const pymtp_status status = pm_region_commit(&out->region, bytes, what, err);
        if (status != PYMTP_OK) pm_region_release(&out->region);
        out->data = out->region.base;
        return status;
    }
    out->data = pm_aligned(bytes);
    if (!out->data) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: %s (%zu bytes)", what, bytes);
    memset(out->data, 0, bytes);
    return PYMTP_OK;
}

void pm_cpu_storage_free(pm_buf *b) {
    if (b->region.base) pm_region_release(&b->region);
    else pm_free(b->data);
    b->data = NULL;
}

static pymtp_status buf_new(pm_backend *b, size_t bytes, pm_buf **out, pymtp_error *err) {
    *out = NULL;
    pm_buf *buf = pm_new(1, sizeof *buf, "buffer", err);
    if (!buf) return PYMTP_E_NOMEM;
    const pymtp_status status = pm_cpu_storage(buf, bytes, "buffer", err);
    if (status != PYMTP_OK) pm_free(buf);
    else *out = buf;
    return status;
}

static pymtp_status buf_reserve(pm_backend *b, size_t bytes, pm_buf **out, pymtp_error *err) {
    *out = NULL;
    pm_buf *buf = pm_new(1, sizeof *buf, "buffer", err);
    if (!buf) return PYMTP_E_NOMEM;
    const pymtp_status status = pm_region_reserve(&buf->region, bytes, "buffer", err);
    if (status != PYMTP_OK) {
        pm_free(buf);
        return status;
    }
    buf->data = buf->region.base;
    *out = buf;
    return PYMTP_OK;
}

static pymtp_status buf_commit(pm_backend *b, pm_buf *buf, size_t bytes, pymtp_error *err) {
    PM_TRY(pm_region_commit(&buf->region, bytes, "buffer", err));
    if (buf->bytes < bytes) buf->bytes = bytes;
    return PYMTP_OK;
}

static void buf_free(pm_backend *b, pm_buf *buf) {
    if (!buf) return;
    pm_cpu_storage_free(buf);
    pm_free(buf);
}

static void buf_write(pm_backend *b, pm_buf *buf, size_t offset, const void *src, size_t bytes) {
    if (bytes) memcpy(buf->data + offset, src, bytes);
}

static void buf_read(pm_backend *b, const pm_buf *buf, size_t offset, void *dst, size_t bytes) {
    if (bytes) memcpy(dst, buf->data + offset, bytes);
}

static void buf_copy(pm_backend *b, pm_buf *dst, size_t dst_offset, const pm_buf *src, size_t src_offset, size_t bytes) {
    if (bytes) memmove(dst->data + dst_offset, src->data + src_offset, bytes);
}

/* ---- scratch ---- */

typedef struct arena { unsigned char *base; size_t used; int overflow; } arena;

/* n * m * bytes from the arena, 64-byte aligned; with base NULL it only counts. */
static void *take(arena *a, size_t n, size_t m, size_t bytes) {
    size_t size;
    if (pm_mul_size(n, m, &size) || pm_mul_size(size, bytes, &size) || size > SIZE_MAX / 2 - a->used) {
        a->overflow = 1;
        return NULL;
    }
    void *p = a->base ? a->base + a->used : NULL;
    a->used += pm_round_up(size, 64);
    return p;
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static size_t count(int32_t n) { return n > 0 ? (size_t)n : 0; }

static void take_act(arena *a, pm_act *act, size_t rows, size_t cols) {
    act->x = take(a, rows, cols, sizeof(float));
    act->q8 = take(a, rows, cols / 32, sizeof(pm_act_block));
}

static void carve(pm_cpu *c, const pm_limits *l, arena *a) {
    const size_t rows = most(most(count(l->rows), count(l->logits_rows)), 1), threads = (size_t)c->threads;
    const size_t experts = count(l->experts), used = count(l->used), clusters = count(l->clusters);
    size_t wide = most(most(count(l->max_in), count(l->max_out)), most(count(l->max_ff), count(l->heads_dim)));
    if (l->ple) wide = most(wide, 2 * count(l->width)); /* products of two planes */
    wide = pm_round_up(most(most(wide, count(l->width)), most(count(l->ple), count(l->expert_ff))), 32);
    c->rows = rows;
    c->wide = wide;
    c->a = take(a, rows, wide, sizeof(float));
    c->b = take(a, rows, wide, sizeof(float));
    c->c = take(a, rows, count(l->width), sizeof(float));
    c->line = take(a, threads, wide, sizeof(float));
    c->edge = take(a, threads, 2 * rows * c->k->group, sizeof(float)); /* 2: batches of two planes */
    take_act(a, &c->act, rows, wide);
    pm_cpu_attend_sizes(c, count(l->heads_dim), count(l->head_dim));
    c->states = take(a, threads, c->states_each, sizeof(float));
    c->partial = take(a, c->partial_floats, 1, sizeof(float));
    for (int i = 0; i < PM_CPU_ROPES; i++) {
        pm_cpu_rope *r = &c->rope[i];
        const size_t half = count(l->head_dim) / 2;
        *r = (pm_cpu_rope){.pos = take(a, rows, 1, sizeof(int32_t)), .inv_freq = take(a, half, 1, sizeof(double)),
                           .cos = take(a, rows, half, sizeof(float)), .sin = take(a, rows, half, sizeof(float))};
    }
    c->keys_each = most(clusters, experts);
    c->keys = take(a, threads, c->keys_each, sizeof(uint64_t));
    c->cluster_scores = take(a, rows, clusters, sizeof(float));
    c->cluster_top = take(a, rows, clusters, sizeof(int32_t));
    c->head_unit = take(a, threads, rows * PM_CPU_HEAD_UNIT, sizeof(float));
    c->top_rows = take(a, threads, rows, sizeof(pm_cpu_top_row));
    c->top_best = take(a, threads, rows * PM_HEAD_TOP, sizeof(pm_cpu_logit));
    if (!experts) return;
    take_act(a, &c->pairs, rows, pm_round_up(most(count(l->width), count(l->expert_ff)), 32));
    c->router = take(a, rows, experts, sizeof(float));
    c->choice = take(a, rows, used, sizeof(int32_t));
    c->share = take(a, rows, used, sizeof(float));
    c->pair_row = take(a, rows, used, sizeof(int32_t));
    c->pair_expert = take(a, rows, used, sizeof(int32_t));
    c->pair_of = take(a, rows, used, sizeof(int32_t));
    c->expert_start = take(a, experts + 1, 1, sizeof(int32_t));
    c->mm = take(a, experts, 2, sizeof(pm_mm));
    c->expert_h = take(a, rows, 2 * count(l->expert_ff), sizeof(float));
    c->expert_out = take(a, rows * used, count(l->width), sizeof(float));
}

static pymtp_status scratch_bytes(const pm_backend *b, const pm_limits *limits, uint64_t *bytes, pymtp_error *err) {
    pm_cpu probe = *(const pm_cpu *)b;
    arena a = {0};
    carve(&probe, limits, &a);
    if (a.overflow) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: scratch for %d rows does not fit the address space", limits->rows);
    *bytes = a.used;
    return PYMTP_OK;
}

static pymtp_status prepare(pm_backend *b, const pm_limits *limits, pymtp_error *err) {
    pm_cpu *c = (pm_cpu *)b;
    uint64_t bytes;
    pm_region region;
    PM_TRY(scratch_bytes(b, limits, &bytes, err));
    PM_TRY(pm_region_reserve(&region, (size_t)bytes, "scratch", err));
    const pymtp_status status = pm_region_commit(&region, (size_t)bytes, "scratch", err);
    if (status != PYMTP_OK) {
        pm_region_release(&region);
        return status;
    }
    pm_region_release(&c->scratch);
    c->scratch = region;
    arena a = {.base = region.base};
    carve(c, limits, &a);
    return PYMTP_OK;
}

/* ---- opening ---- */

static void close_cpu(pm_backend *b) {
    pm_cpu *c = (pm_cpu *)b;
    if (!c) return;
    pm_pool_free(c->pool);
    pm_cpu_arena_free(&c->weights);
    pm_region_release(&c->scratch);
    pm_free(c->stage);
    pm_free(c->errors);
    pm_free(c);
}

static void fill_table(pm_backend *b) {
    b->close = close_cpu;
    b->prepare = prepare;
    b->scratch_bytes = scratch_bytes;
    b->buf_new = buf_new;
    b->buf_reserve = buf_reserve;
    b->buf_commit = buf_commit;
    b->buf_free = buf_free;
    b->buf_write = buf_write;
    b->buf_read = buf_read;
    b->buf_copy = buf_copy;
    b->matrix_new = pm_cpu_matrix_new;
    b->matrix_free = pm_cpu_matrix_free;
    b->matrix_bytes = pm_cpu_matrix_bytes;
    b->matrix_need = pm_cpu_matrix_need;
    b->table_new = pm_cpu_table_new;
    b->table_free = pm_cpu_table_free;
    b->embed = pm_cpu_embed;
    b->ple_inputs = pm_cpu_ple_inputs;
    b->draft_input = pm_cpu_draft_input;
    b->norm_qkv = pm_cpu_norm_qkv;
    b->attend = pm_cpu_attend;
    b->attn_out = pm_cpu_attn_out;
    b->gate_up_act = pm_cpu_gate_up_act;
    b->down_add = pm_cpu_down_add;
    b->moe_ffn = pm_cpu_moe_ffn;
    b->ple_add = pm_cpu_ple_add;
    b->scale = pm_cpu_scale;
    b->rms_norm = pm_cpu_rms_norm;
    b->project = pm_cpu_project;
    b->gather_rows = pm_cpu_gather_rows;
    b->head_logits = pm_cpu_head_logits;
    b->head_top = pm_cpu_head_top;
    b->head_clusters = pm_cpu_head_clusters;
    b->argmax = pm_cpu_argmax;
}

pymtp_status pm_backend_cpu_open(int threads, pm_backend **out, pymtp_error *err) {
    *out = NULL;
    const pm_kernels *k;
    PM_TRY(pm_kernels_choose(&k, err));
    pm_cpu *c = pm_new(1, sizeof *c, "back end", err);
    if (!c) return PYMTP_E_NOMEM;
    fill_table(&c->base);
    c->base.name = "cpu";
    c->base.isa = k->name;
    c->base.eps = 1e-6f;
    c->k = k;
    c->threads = threads;
    pymtp_status status = pm_pool_new(threads, &c->pool, err);
    if (status == PYMTP_OK && !(c->errors = pm_new((size_t)threads, sizeof *c->errors, "back end", err))) status = PYMTP_E_NOMEM;
    if (status != PYMTP_OK) close_cpu(&c->base);
    else *out = &c->base;
    return status;
}
