/* backend_cpu_weights.c - matrices, packed slice by slice while they are read, and tables, whose rows stay in the file.
 *
 * Slices are read and packed in parallel; every read can fail, and then the matrix is not made. */
#include "cpu/backend_cpu.h"
#include "base/checked.h"

#include <string.h>

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
    if (t->dims[0] > SIZE_MAX / 8 || t->dims[0] % f->block_values) {
        return pm_fail(err, PYMTP_E_FORMAT, "%s: tensor %s: %s rows hold a multiple of %u values, found %llu", pm_gguf_path(file),
                       t->name, f->name, f->block_values, (unsigned long long)t->dims[0]);
    }
    *format = f;
    *row_bytes = pm_format_row_bytes(f, (size_t)t->dims[0]);
    return PYMTP_OK;
}

/* ---- matrices ---- */

typedef struct load {
    pm_cpu *cpu;
    const pm_gguf *file;
    const pm_gguf_tensor *tensor;
    const pm_packed *w;
    void *packed; /* w->data, being filled */
    uint64_t first;
    size_t slice; /* rows */
    unsigned char *stage; /* (threads, slice, row_bytes) */
} load;

/* Items are slices. */
static void load_job(void *context, size_t begin, size_t end, int thread) {
    const load *l = context;
    unsigned char *stage = l->stage + (size_t)thread * l->slice * l->w->row_bytes;
    for (size_t i = begin; i < end; i++) {
        const size_t first = i * l->slice, left = l->w->rows - first, n = left < l->slice ? left : l->slice;
        const uint64_t offset = (l->first + first) * l->w->row_bytes;
        if (pm_gguf_read(l->file, l->tensor, offset, stage, n * l->w->row_bytes, &l->cpu->errors[thread]) != PYMTP_OK) return;
        l->cpu->k->pack(l->w->format, l->w->rows, l->w->cols, first, n, stage, l->packed);
    }
}

static pymtp_status load_matrix(pm_cpu *c, const pm_gguf *file, const pm_gguf_tensor *t, uint64_t first, pm_matrix *m,
                                pymtp_error *err) {
    const size_t group = c->k->group, fit = SLICE_BYTES / m->packed.row_bytes / group * group;
    load l = {.cpu = c, .file = file, .tensor = t, .w = &m->packed, .first = first, .slice = fit ? fit : group};
    size_t bytes;
    if (l.slice > m->packed.rows) l.slice = (m->packed.rows + group - 1) / group * group;
    if (pm_mul_size(l.slice, m->packed.row_bytes, &bytes) || pm_mul_size(bytes, (size_t)c->threads, &bytes))
        return pm_fail(err, PYMTP_E_NOMEM, "out of memory: rows of tensor %s", t->name);
    PM_TRY(pm_cpu_storage(&m->store, c->k->packed_bytes(m->packed.format, m->packed.rows, m->packed.cols), t->name, err));
    m->packed.data = l.packed = m->store.data;
    l.stage = pm_aligned(bytes);
    if (!l.stage) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: reading tensor %s (%zu bytes)", t->name, bytes);
    const pymtp_status status = pm_cpu_run_checked(c, (m->packed.rows + l.slice - 1) / l.slice, 1, load_job, &l, err);
    pm_free(l.stage);
    return status;
}

pymtp_status pm_cpu_matrix_new(pm_backend *b, const pm_gguf *file, const pm_gguf_tensor *t, uint64_t first, uint64_t rows,
                               pm_matrix **out, pymtp_error *err) {
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
    m->packed = (pm_packed){.format = format, .rows = (size_t)rows, .cols = (size_t)t->dims[0], .row_bytes = row_bytes};
    const pymtp_status status = load_matrix((pm_cpu *)b, file, t, first, m, err);
    if (status != PYMTP_OK) pm_cpu_matrix_free(b, m);
    else *out = m;
    return status;
}

void pm_cpu_matrix_free(pm_backend *b, pm_matrix *m) {
    if (!m) return;
    pm_cpu_storage_free(&m->store);
    pm_free(m);
}

uint64_t pm_cpu_matrix_bytes(const pm_matrix *m) { return m ? m->store.bytes : 0; }

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
