/* backend_cpu_weights.c - matrices, packed slice by slice while they are read, and tables, whose rows stay in the file.
 *
 * Slices are read and packed in parallel; every read can fail, and then the matrix is not made. */
#include "cpu/backend_cpu.h"
#include "base/checked.h"

#include <string.h>

#define MOST_COLUMNS (SIZE_MAX >> 12) /* the bytes of a packed group fit a size */
#define SLICE_BYTES ((size_t)1 << 20) /* read at once by a thread: large for the disk, small for the cache */

pymtp_status pm_cpu_run_checked(pm_cpu *c, size_t items, size_t grain, pm_job job, void *context, pymtp_error *err) {
    for (int i = 0; i < c->threads; i++) pm_clear(&c->errors[i]);
    pm_pool_run(c->pool, items, grain, job, context);
    for (int i = 0; i < c->threads; i++)
        if (c->errors[i].code) return pm_fail(err, c->errors[i].code, "%s", c->errors[i].text);
    return PYMTP_OK;
}

/* The format of a tensor's rows, checked. */
static pymtp_status row_format(const pm_gguf *file, const pm_gguf_tensor *t, const pm_format **format, size_t *row_bytes,
                               pymtp_error *err) {
    const pm_format *f = pm_format_by_type(t->type);
    const char *name = pm_ggml_type_name(t->type);
    if (!f) {
        return pm_fail(err, PYMTP_E_UNSUPPORTED, "%s: tensor %s: type %s (%u) is not supported", pm_gguf_path(file), t->name,
                       name ? name : "unknown", t->type);
    }
    if (t->dims[0] > MOST_COLUMNS || t->dims[0] % f->block_values) {
        return pm_fail(err, PYMTP_E_FORMAT, "%s: tensor %s: %s rows hold a multiple of %u values, found %llu", pm_gguf_path(file),
                       t->name, f->name, f->block_values, (unsigned long long)t->dims[0]);
    }
    *format = f;
    *row_bytes = pm_format_row_bytes(f, (size_t)t->dims[0]);
    return PYMTP_OK;
}

/* ---- memory for matrices ---- */

#define REGION_BYTES ((size_t)1 << 30) /* address space; memory is committed as it fills */
#define COMMIT_BYTES ((size_t)32 << 20)
#define HUGE_PAGE ((size_t)2 << 20)

/* `bytes` of zeroed memory, 64-byte aligned. */
static pymtp_status arena_take(pm_cpu_arena *a, size_t bytes, const char *what, unsigned char **out, pymtp_error *err) {
    pm_region *r = a->regions ? &a->region[a->regions - 1] : NULL;
    if (!r || bytes > r->reserved - a->used) {
        const size_t need = bytes < REGION_BYTES ? REGION_BYTES : bytes;
        if (a->regions == PM_CPU_REGIONS || bytes > SIZE_MAX / 2) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: tensor %s (%zu bytes)", what, bytes);
        r = &a->region[a->regions];
        PM_TRY(pm_region_reserve(r, need + HUGE_PAGE, what, err));
        pm_region_prefer_huge(r);
        a->regions++;
        a->used = pm_round_up((uintptr_t)r->base, HUGE_PAGE) - (uintptr_t)r->base;
    }
    size_t end = a->used + bytes, commit = pm_round_up(end, COMMIT_BYTES);
    if (commit > r->reserved) commit = r->reserved;
    if (end > r->committed && pm_region_commit(r, commit, what, NULL) != PYMTP_OK) PM_TRY(pm_region_commit(r, end, what, err));
    *out = r->base + a->used;
    a->used = pm_round_up(end, 64);
    return PYMTP_OK;
}

void pm_cpu_arena_free(pm_cpu_arena *a) {
    for (size_t i = 0; i < a->regions; i++) pm_region_release(&a->region[i]);
    a->regions = 0;
}

/* ---- matrices ---- */

typedef struct load {
    pm_cpu *cpu;
    const pm_gguf *file;
    const pm_gguf_tensor *tensor;
    const pm_packed *w;
    unsigned char *packed; /* w->data, being filled */
    uint64_t first;
    const int32_t *order;  /* (w->rows) or NULL */
    size_t slice;          /* rows read at once, whole groups */
    unsigned char *stage;  /* (threads, slice, row_bytes) */
} load;

/* Rows [at, at + n) of the matrix to the stage. */
static pymtp_status read_rows(const load *l, size_t at, size_t n, unsigned char *stage, pymtp_error *err) {
    const size_t bytes = l->w->row_bytes;
    if (!l->order) return pm_gguf_read(l->file, l->tensor, (l->first + at) * bytes, stage, n * bytes, err);
    for (size_t i = 0; i < n; i++)
        PM_TRY(pm_gguf_read(l->file, l->tensor, (l->first + (uint64_t)l->order[at + i]) * bytes, stage + i * bytes, bytes, err));
    return PYMTP_OK;
}

/* Items are slices. */
static void load_job(void *context, size_t begin, size_t end, int thread) {
    const load *l = context;
    const size_t group = l->cpu->k->group, bytes = l->w->row_bytes, packed = pm_group_bytes(l->w->format, l->w->cols, group);
    unsigned char *stage = l->stage + (size_t)thread * l->slice * bytes;
    for (size_t i = begin; i < end; i++) {
        const size_t first = i * l->slice, left = l->w->rows - first, n = left < l->slice ? left : l->slice;
        if (read_rows(l, first, n, stage, &l->cpu->errors[thread]) != PYMTP_OK) return;
        for (size_t row = 0; row < n; row += group) {
            const uint8_t *rows[PM_MAX_GROUP];
            for (size_t k = 0; k < group; k++) rows[k] = row + k < n ? stage + (row + k) * bytes : NULL;
            l->cpu->k->pack(l->w->format, l->w->cols, rows, l->packed + (first + row) / group * packed);
        }
    }
}

/* 1 when they do not fit a size. */
static int packed_bytes(const pm_cpu *c, const pm_format *format, size_t rows, size_t cols, size_t *out) {
    const size_t group = c->k->group;
    return pm_mul_size(rows / group + (rows % group != 0), pm_group_bytes(format, cols, group), out);
}

uint64_t pm_cpu_matrix_need(const pm_backend *b, const pm_gguf_tensor *t) {
    const pm_format *f = pm_format_by_type(t->type);
    size_t bytes;
    if (!f) return 0;
    if (t->dims[0] > MOST_COLUMNS || packed_bytes((const pm_cpu *)b, f, (size_t)t->rows, (size_t)t->dims[0], &bytes)) return UINT64_MAX;
    return bytes;
}

static pymtp_status load_matrix(pm_cpu *c, const pm_gguf *file, const pm_gguf_tensor *t, uint64_t first, const int32_t *order, pm_matrix *m,
                                pymtp_error *err) {
    const size_t group = c->k->group, fit = SLICE_BYTES / m->packed.row_bytes / group * group;
    load l = {.cpu = c, .file = file, .tensor = t, .w = &m->packed, .first = first, .order = order, .slice = fit ? fit : group};
    size_t bytes;
    if (l.slice > m->packed.rows) l.slice = (m->packed.rows + group - 1) / group * group;
    if (pm_mul_size(l.slice, m->packed.row_bytes, &bytes) || pm_mul_size(bytes, (size_t)c->threads, &bytes) ||
        packed_bytes(c, m->packed.format, m->packed.rows, m->packed.cols, &m->bytes))
        return pm_fail(err, PYMTP_E_NOMEM, "out of memory: rows of tensor %s", t->name);
    PM_TRY(arena_take(&c->weights, m->bytes, t->name, &l.packed, err));
    m->packed.data = l.packed;
    l.stage = pm_aligned(bytes);
    if (!l.stage) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: reading tensor %s (%zu bytes)", t->name, bytes);
    const pymtp_status status = pm_cpu_run_checked(c, (m->packed.rows + l.slice - 1) / l.slice, 1, load_job, &l, err);
    pm_free(l.stage);
    return status;
}

pymtp_status pm_cpu_matrix_new(pm_backend *b, const pm_gguf *file, const pm_gguf_tensor *t, uint64_t first, uint64_t rows,
                               const pm_buf *order, pm_matrix **out, pymtp_error *err) {
    const pm_format *format = NULL;
    size_t row_bytes = 0;
    *out = NULL;
    PM_TRY(row_format(file, t, &format, &row_bytes, err));
    if (!rows || first > t->rows || rows > t->rows - first) {
        return pm_fail(err, PYMTP_E_FORMAT, "%s: tensor %s: expected at least %llu rows from row %llu, found %llu", pm_gguf_path(file),
                       t->name, (unsigned long long)rows, (unsigned long long)first, (unsigned long long)t->rows);
    }
    pm_matrix *m = pm_new(1, sizeof *m, t->name, err);
    if (!m) return PYMTP_E_NOMEM;
    m->name = t->name;
    m->packed = (pm_packed){.format = format, .rows = (size_t)rows, .cols = (size_t)t->dims[0], .row_bytes = row_bytes};
    const pymtp_status status = load_matrix((pm_cpu *)b, file, t, first, order ? pm_cpu_i32(order) : NULL, m, err);
    if (status != PYMTP_OK) pm_cpu_matrix_free(b, m);
    else *out = m;
    return status;
}

void pm_cpu_matrix_free(pm_backend *b, pm_matrix *m) { pm_free(m); }

uint64_t pm_cpu_matrix_bytes(const pm_matrix *m) { return m ? m->bytes : 0; }

/* ---- tables ---- */

pymtp_status pm_cpu_table_new(pm_backend *b, const pm_gguf *file, const pm_gguf_tensor *t, pm_table **out, pymtp_error *err) {
    pm_cpu *c = (pm_cpu *)b;
    const pm_format *format = NULL;
    size_t row_bytes = 0, bytes;
    *out = NULL;
    PM_TRY(row_format(file, t, &format, &row_bytes, err));
    if (row_bytes > c->stage_bytes) { /* one stored row for each thread */
        const size_t each = pm_round_up(row_bytes, 64);
        unsigned char *stage = pm_mul_size(each, (size_t)c->threads, &bytes) ? NULL : pm_aligned(bytes);
        if (!stage) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: a row of tensor %s (%zu bytes)", t->name, row_bytes);
        pm_free(c->stage);
        c->stage = stage;
        c->stage_bytes = each;
    }
    pm_table *table = pm_new(1, sizeof *table, t->name, err);
    if (!table) return PYMTP_E_NOMEM;
    *table = (pm_table){.file = file, .tensor = t, .format = format, .cols = (size_t)t->dims[0], .row_bytes = row_bytes};
    *out = table;
    return PYMTP_OK;
}

void pm_cpu_table_free(pm_backend *b, pm_table *t) { pm_free(t); }

pymtp_status pm_cpu_table_row(pm_cpu *c, const pm_table *t, int32_t id, float *dst, int thread, pymtp_error *err) {
    unsigned char *stage = c->stage + (size_t)thread * c->stage_bytes;
    if (id < 0 || (uint64_t)id >= t->tensor->rows) {
        return pm_fail(err, PYMTP_E_ARG, "token id %d: tensor %s has %llu rows", id, t->tensor->name,
                       (unsigned long long)t->tensor->rows);
    }
    PM_TRY(pm_gguf_read(t->file, t->tensor, (uint64_t)id * t->row_bytes, stage, t->row_bytes, err));
    t->format->dequantize(stage, dst, t->cols);
    return PYMTP_OK;
}
