/* directory.c - the tensor directory: one entry a tensor, checked alone while reading, then against all others.
 *
 *   name | dimensions u32 | dims u64 each, row length first | type u32 | offset u64 from the start of the data
 *
 * The data starts at the next multiple of general.alignment (32 if absent) behind the directory. */
#include "base/checked.h"
#include "base/memory.h"
#include "gguf/private.h"
#include "quant/formats.h"

#include <stdlib.h>
#include <string.h>

/* ---- types ---- */

const char *pm_ggml_type_name(uint32_t type) {
    static const char *const names[] = {
        "F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
        "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64",
        "IQ1_M", "BF16", "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0", "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",
        "NVFP4", "Q1_0"};
    return type < sizeof names / sizeof *names ? names[type] : NULL;
}

/* Values and bytes of a block; 0 when the size of the type is not known. */
static int block_of(uint32_t type, uint64_t *values, uint64_t *bytes) {
    const pm_format *f = pm_format_by_type(type);
    *values = 1;
    switch (type) {
        case 24: *bytes = 1; return 1; /* I8 */
        case 25: *bytes = 2; return 1; /* I16 */
        case 26: *bytes = 4; return 1; /* I32 */
        case 27: *bytes = 8; return 1; /* I64 */
        case 28: *bytes = 8; return 1; /* F64 */
        default: break;
    }
    if (!f) return 0;
    *values = f->block_values;
    *bytes = f->block_bytes;
    return 1;
}

/* ---- one tensor ---- */

static pymtp_status check_shape(const pm_cursor *c, pm_gguf_tensor *t) {
    uint64_t elements = 1, values, bytes;
    t->rows = 1;
    for (uint32_t i = 0; i < 4; i++) {
        if (!t->dims[i]) return pm_cursor_fail(c, "dimension %u: expected at least 1, found 0", i);
        if (pm_mul_u64(elements, t->dims[i], &elements) || elements > INT64_MAX)
            return pm_cursor_fail(c, "expected a number of elements below 2^63, found %llu x %llu x %llu x %llu", (unsigned long long)t->dims[0],
                                  (unsigned long long)t->dims[1], (unsigned long long)t->dims[2], (unsigned long long)t->dims[3]);
        if (i) t->rows *= t->dims[i];
    }
    t->bytes = 0;
    if (!block_of(t->type, &values, &bytes)) return PYMTP_OK;
    if (t->dims[0] % values)
        return pm_cursor_fail(c, "row length: expected a multiple of %llu for type %s, found %llu", (unsigned long long)values,
                              pm_ggml_type_name(t->type), (unsigned long long)t->dims[0]);
    if (pm_mul_u64(elements / values, bytes, &t->bytes) || t->bytes > INT64_MAX)
        return pm_cursor_fail(c, "expected a size below 2^63 bytes, found more");
    return PYMTP_OK;
}

static pymtp_status parse_tensor(pm_gguf_part *p, pm_cursor *c, pm_gguf_tensor *t) {
    PM_TRY(pm_gguf_read_name(c, &p->arena, "tensor", &t->name));
    PM_TRY(pm_cursor_u32(c, &t->n_dims));
    if (t->n_dims < 1 || t->n_dims > 4) return pm_cursor_fail(c, "number of dimensions: expected 1..4, found %u", t->n_dims);
    for (uint32_t i = 0; i < 4; i++) {
        t->dims[i] = 1;
        if (i < t->n_dims) PM_TRY(pm_cursor_u64(c, &t->dims[i]));
    }
    PM_TRY(pm_cursor_u32(c, &t->type));
    PM_TRY(pm_cursor_u64(c, &t->offset));
    return check_shape(c, t);
}

/* From an offset in the data to one in the file, inside it. */
static pymtp_status place_tensor(const pm_gguf_part *p, pm_cursor *c, uint64_t data, uint64_t alignment, pm_gguf_tensor *t) {
    uint64_t end;
    pm_cursor_at(c, "tensor", t->name);
    if (t->offset % alignment)
        return pm_cursor_fail(c, "offset: expected a multiple of %llu, found %llu", (unsigned long long)alignment, (unsigned long long)t->offset);
    if (pm_add_u64(data, t->offset, &t->offset) || pm_add_u64(t->offset, t->bytes ? t->bytes : 1, &end))
        return pm_cursor_fail(c, "offset: expected one inside the file, found one beyond 2^64");
    if (end > p->file.size)
        return pm_fail(c->err, PYMTP_E_IO, "%s: truncated: tensor '%.120s': expected %llu bytes at offset %llu, but the file has %llu bytes",
                       p->file.path, t->name, (unsigned long long)t->bytes, (unsigned long long)t->offset, (unsigned long long)p->file.size);
    return PYMTP_OK;
}

static pymtp_status read_alignment(const pm_gguf_part *p, pm_cursor *c, uint64_t *out) {
    const pm_gguf_value *v = pm_gguf_part_find(p, "general.alignment");
    int64_t n = 32;
    pm_cursor_at(c, "key", "general.alignment");
    if (v && (pm_gguf_value_is_array(v) || !pm_gguf_int(v, 0, &n))) return pm_cursor_fail(c, "expected an integer, found another type");
    if (n < 1 || n > UINT32_MAX || (n & (n - 1))) return pm_cursor_fail(c, "expected a power of two, found %lld", (long long)n);
    *out = (uint64_t)n;
    return PYMTP_OK;
}

pymtp_status pm_gguf_parse_tensors(pm_gguf_part *p, pm_cursor *c) {
    uint64_t alignment = 32;
    p->tensors = pm_new((size_t)p->n_tensors, sizeof *p->tensors, "tensor directory", c->err);
    if (!p->tensors) return PYMTP_E_NOMEM;
    PM_TRY(read_alignment(p, c, &alignment));
    for (uint64_t i = 0; i < p->n_tensors; i++) PM_TRY(parse_tensor(p, c, &p->tensors[i]));
    const uint64_t data = (c->pos + alignment - 1) & ~(alignment - 1); /* both are far below 2^63 */
    for (uint64_t i = 0; i < p->n_tensors; i++) PM_TRY(place_tensor(p, c, data, alignment, &p->tensors[i]));
    return PYMTP_OK;
}

/* ---- all tensors ---- */

static int compare_places(const void *a, const void *b) {
    const pm_gguf_tensor *x = *(const pm_gguf_tensor *const *)a, *y = *(const pm_gguf_tensor *const *)b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int compare_names(const void *a, const void *b) {
    const pm_gguf_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

pymtp_status pm_gguf_index_tensors(pm_gguf *g, pymtp_error *err) {
    const pm_gguf_tensor **list = g->by_name = pm_new(g->n_tensors, sizeof *list, "tensor directory", err);
    if (!list) return PYMTP_E_NOMEM;
    for (size_t i = 0; i < g->n_tensors; i++) list[i] = &g->tensors[i];
    qsort(list, g->n_tensors, sizeof *list, compare_places);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const pm_gguf_tensor *a = list[i - 1], *b = list[i];
        /* data of unknown size counts as one byte */
        if (a->file == b->file && b->offset - a->offset < (a->bytes ? a->bytes : 1))
            return pm_fail(err, PYMTP_E_FORMAT, "%s: tensor '%.120s': data at offset %llu overlaps that of tensor '%.120s'",
                           g->parts[b->file].file.path, b->name, (unsigned long long)b->offset, a->name);
    }
    qsort(list, g->n_tensors, sizeof *list, compare_names);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (!strcmp(list[i - 1]->name, list[i]->name))
            return pm_fail(err, PYMTP_E_FORMAT, "%s: tensor '%.120s': expected once, found twice", g->parts[list[i]->file].file.path,
                           list[i]->name);
    return PYMTP_OK;
}
