/* loader.c - checks and loads single tensors: see loader.h. Values of vectors are not judged (a NaN shows in the logits, where
 * it is reported); those that steer memory accesses or divide are: the ordering and rope_freqs. */
#include "model/loader.h"
#include "base/memory.h"
#include "quant/formats.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- ownership ---- */

typedef enum item_kind { MATRIX, TABLE, BUF, MEMORY } item_kind;

typedef struct item { item_kind kind; void *p; } item;

struct pm_owned { size_t n, capacity; item *items; };

void pm_owned_free(pm_backend *b, pm_owned *owned) {
    if (!owned) return;
    for (size_t i = owned->n; i-- > 0;) {
        void *p = owned->items[i].p;
        switch (owned->items[i].kind) {
            case MATRIX: b->matrix_free(b, p); break;
            case TABLE: b->table_free(b, p); break;
            case BUF: b->buf_free(b, p); break;
            case MEMORY: pm_free(p); break;
        }
    }
    pm_free(owned->items);
    pm_free(owned);
}

/* Makes room for one more item, so that owning it cannot fail. */
static int reserve(pm_loader *l) {
    pm_owned *o = l->owned;
    if (!o) o = l->owned = pm_new(1, sizeof *o, "list of weights", l->err);
    if (o && o->n == o->capacity) {
        const size_t capacity = o->capacity ? 2 * o->capacity : 64;
        item *items = pm_realloc(o->items, capacity, sizeof *items);
        if (items) {
            o->items = items;
            o->capacity = capacity;
        } else {
            pm_fail(l->err, PYMTP_E_NOMEM, "out of memory: list of weights");
        }
    }
    if (o && o->n < o->capacity) return 1;
    l->status = PYMTP_E_NOMEM;
    return 0;
}

static void *own(pm_loader *l, item_kind kind, void *p) {
    l->owned->items[l->owned->n++] = (item){kind, p};
    return p;
}

void *pm_loader_memory(pm_loader *l, size_t n, size_t bytes, const char *what) {
    if (l->status != PYMTP_OK || !reserve(l)) return NULL;
    void *p = pm_new(n, bytes, what, l->err);
    if (p) return own(l, MEMORY, p);
    l->status = PYMTP_E_NOMEM;
    return NULL;
}

/* ---- finding and checking ---- */

const char *pm_loader_name(pm_loader *l, int32_t layer, const char *suffix) {
    snprintf(l->name, sizeof l->name, "blk.%d.%s", layer, suffix);
    return l->name;
}

int pm_loader_has(const pm_loader *l, const char *name) { return pm_gguf_tensor_find(l->file, name) != NULL; }

void pm_loader_fail(pm_loader *l, pymtp_status code, const char *name, const char *format, ...) {
    char text[400];
    va_list args;
    if (l->status != PYMTP_OK) return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    l->status = pm_fail(l->err, code, "%.300s: tensor '%.120s': %s", pm_gguf_path(l->file), name, text);
}

static const char *type_name(const pm_gguf_tensor *t, char *number, size_t cap) {
    const char *name = pm_ggml_type_name(t->type);
    if (name) return name;
    snprintf(number, cap, "type %u", t->type);
    return number;
}

/* The tensor when it is there and has d0 x d1 x d2 elements, else NULL and the error is recorded. */
static const pm_gguf_tensor *expect(pm_loader *l, const char *name, int64_t d0, int64_t d1, int64_t d2) {
    if (l->status != PYMTP_OK) return NULL;
    const pm_gguf_tensor *t = pm_gguf_tensor_find(l->file, name);
    if (!t) {
        pm_loader_fail(l, PYMTP_E_FORMAT, name, "missing");
        return NULL;
    }
    if (t->dims[0] == (uint64_t)d0 && t->dims[1] == (uint64_t)d1 && t->dims[2] == (uint64_t)d2 && t->dims[3] == 1) return t;
    pm_loader_fail(l, PYMTP_E_FORMAT, name, "expected shape %lld x %lld x %lld (row length first), found %llu x %llu x %llu x %llu", (long long)d0,
                   (long long)d1, (long long)d2, (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
                   (unsigned long long)t->dims[2], (unsigned long long)t->dims[3]);
    return NULL;
}

static int ends_with(const char *text, size_t n, const char *end) {
    const size_t m = strlen(end);
    return n >= m && !memcmp(text + n - m, end, m);
}

/* Factors and biases beside a matrix belong to formats and networks that are not computed here: to ignore them would give
 * wrong numbers. The two that Gemma 4 itself has are loaded by their own names. */
static int has_companion(pm_loader *l, const char *name) {
    static const char *const ends[] = {".scale", ".input_scale", ".bias"};
    size_t n = strlen(name);
    char other[192];
    if (ends_with(name, n, ".weight")) n -= strlen(".weight");
    const int own_scale = ends_with(name, n, ".ffn_gate_inp") || ends_with(name, n, ".ffn_down_exps");
    for (size_t i = own_scale ? 1 : 0; i < sizeof ends / sizeof *ends; i++) {
        snprintf(other, sizeof other, "%.*s%s", (int)(n < 150 ? n : 150), name, ends[i]);
        if (!pm_loader_has(l, other)) continue;
        pm_loader_fail(l, PYMTP_E_UNSUPPORTED, other, "expected no such factor or bias beside %.120s, found one", name);
        return 1;
    }
    return 0;
}

/* 1 when the network can multiply with t. */
static int supported(pm_loader *l, const pm_gguf_tensor *t) {
    char number[24];
    if (pm_format_by_type(t->type)) return !has_companion(l, t->name);
    pm_loader_fail(l, PYMTP_E_UNSUPPORTED, t->name, "expected a supported type, found %s", type_name(t, number, sizeof number));
    return 0;
}

/* ---- matrices and tables ---- */

static pm_matrix *load_rows(pm_loader *l, const pm_gguf_tensor *t, int64_t first, int64_t rows, const pm_buf *order) {
    pm_matrix *m = NULL;
    if (!t || !supported(l, t) || !l->backend || !reserve(l)) return NULL;
    l->status = l->backend->matrix_new(l->backend, l->file, t, (uint64_t)first, (uint64_t)rows, order, &m, l->err);
    if (l->status != PYMTP_OK) return NULL;
    l->bytes += l->backend->matrix_bytes(m);
    return own(l, MATRIX, m);
}

pm_matrix *pm_loader_rows(pm_loader *l, const char *name, int64_t in, int64_t total, int64_t first, int64_t rows) {
    return load_rows(l, expect(l, name, in, total, 1), first, rows, NULL);
}

pm_matrix *pm_loader_matrix(pm_loader *l, const char *name, int64_t in, int64_t out) {
    return load_rows(l, expect(l, name, in, out, 1), 0, out, NULL);
}

pm_matrix *pm_loader_ordered(pm_loader *l, const char *name, int64_t in, int64_t out, const pm_buf *order) {
    return load_rows(l, expect(l, name, in, out, 1), 0, out, order);
}

pm_matrix *pm_loader_experts(pm_loader *l, const char *name, int64_t in, int64_t out, int64_t experts) {
    return load_rows(l, expect(l, name, in, out, experts), 0, out * experts, NULL);
}

pm_table *pm_loader_table(pm_loader *l, const char *name, int64_t in, int64_t rows) {
    const pm_gguf_tensor *t = expect(l, name, in, rows, 1);
    pm_table *table = NULL;
    if (!t || !supported(l, t) || !l->backend || !reserve(l)) return NULL;
    l->status = l->backend->table_new(l->backend, l->file, t, &table, l->err);
    return l->status == PYMTP_OK ? own(l, TABLE, table) : NULL;
}

/* ---- vectors ---- */

/* Checks a vector of n values; with `read` also reads it: (n) floats to be freed, or NULL. */
static float *read_vector(pm_loader *l, const char *name, int64_t n, int read) {
    const pm_gguf_tensor *t = expect(l, name, n, 1, 1);
    char number[24];
    if (!t) return NULL;
    const pm_format *f = pm_format_by_type(t->type);
    if (!f || (f->id != PM_F32 && f->id != PM_F16 && f->id != PM_BF16)) {
        pm_loader_fail(l, PYMTP_E_UNSUPPORTED, name, "expected F32, F16 or BF16, found %s", type_name(t, number, sizeof number));
        return NULL;
    }
    if (!read) return NULL;
    void *raw = pm_new((size_t)n, f->block_bytes, "vector", l->err);
    float *values = pm_new((size_t)n, sizeof *values, "vector", l->err);
    l->status = raw && values ? pm_gguf_read(l->file, t, 0, raw, (size_t)n * f->block_bytes, l->err) : PYMTP_E_NOMEM;
    if (l->status == PYMTP_OK) {
        f->dequantize(raw, values, (size_t)n);
    } else {
        pm_free(values);
        values = NULL;
    }
    pm_free(raw);
    return values;
}

static pm_buf *upload(pm_loader *l, const void *data, size_t bytes) {
    pm_buf *b = NULL;
    if (!reserve(l)) return NULL;
    l->status = l->backend->buf_new(l->backend, bytes, &b, l->err);
    if (l->status != PYMTP_OK) return NULL;
    own(l, BUF, b);
    l->backend->buf_write(l->backend, b, 0, data, bytes);
    l->bytes += bytes;
    return b;
}

pm_buf *pm_loader_vector(pm_loader *l, const char *name, int64_t n) {
    float *values = read_vector(l, name, n, l->backend != NULL);
    pm_buf *b = values ? upload(l, values, (size_t)n * sizeof *values) : NULL;
    pm_free(values);
    return b;
}

float pm_loader_scalar(pm_loader *l, const char *name, float absent) {
    if (!pm_loader_has(l, name)) return absent;
    float *values = read_vector(l, name, 1, l->backend != NULL);
    const float x = values ? values[0] : absent;
    pm_free(values);
    return x;
}

/* 1 when every id below n occurs once. */
static int is_permutation(pm_loader *l, const char *name, const int32_t *ids, int32_t n, unsigned char *seen) {
    for (int32_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= n || seen[ids[i]]) {
            pm_loader_fail(l, PYMTP_E_FORMAT, name, "expected a permutation of 0..%d, found %d at %d%s", n - 1, ids[i], i,
                           ids[i] < 0 || ids[i] >= n ? "" : " for the second time");
            return 0;
        }
        seen[ids[i]] = 1;
    }
    return 1;
}

pm_buf *pm_loader_ordering(pm_loader *l, const pm_gguf_tensor *t, int32_t vocab) {
    const uint32_t i32 = 26;
    char number[24];
    pm_buf *b = NULL;
    if (l->status != PYMTP_OK) return NULL;
    if (t->type != i32) {
        pm_loader_fail(l, PYMTP_E_UNSUPPORTED, t->name, "expected I32, found %s", type_name(t, number, sizeof number));
        return NULL;
    }
    if (t->bytes != (uint64_t)vocab * 4) {
        pm_loader_fail(l, PYMTP_E_FORMAT, t->name, "expected %d ids, found %llu", vocab, (unsigned long long)(t->bytes / 4));
        return NULL;
    }
    if (!l->backend) return NULL;
    int32_t *ids = pm_new((size_t)vocab, sizeof *ids, "token ordering", l->err);
    unsigned char *seen = pm_new((size_t)vocab, 1, "token ordering", l->err);
    l->status = ids && seen ? pm_gguf_read(l->file, t, 0, ids, t->bytes, l->err) : PYMTP_E_NOMEM;
    if (l->status == PYMTP_OK && is_permutation(l, t->name, ids, vocab, seen)) b = upload(l, ids, t->bytes);
    pm_free(ids);
    pm_free(seen);
    return b;
}

/* ---- rotary frequencies ---- */

static double *frequencies(pm_loader *l, int32_t head_dim, double base) {
    double *f = pm_loader_memory(l, (size_t)head_dim / 2, sizeof *f, "rotary frequencies");
    for (int32_t i = 0; f && i < head_dim / 2; i++) f[i] = pow(base, -2.0 * i / head_dim);
    return f;
}

pm_rope pm_loader_rope(pm_loader *l, int32_t head_dim, double base) {
    const double *f = head_dim && l->backend ? frequencies(l, head_dim, base) : NULL;
    return (pm_rope){.inv_freq = f, .head_dim = head_dim};
}

pm_rope pm_loader_rope_global(pm_loader *l, int32_t head_dim, double base) {
    const char *name = "rope_freqs.weight";
    const int32_t pairs = head_dim / 2;
    const int given = pm_loader_has(l, name);
    float *factors = given && head_dim ? read_vector(l, name, pairs, l->backend != NULL) : NULL;
    double *f = head_dim && l->backend ? frequencies(l, head_dim, base) : NULL;
    for (int32_t i = 0; f && i < pairs; i++) {
        if (!given) {
            if (i >= head_dim / 8) f[i] = 0;
        } else if (factors) {
            if (!(factors[i] > 0)) pm_loader_fail(l, PYMTP_E_FORMAT, name, "expected positive values, found %g at %d", (double)factors[i], i);
            f[i] = factors[i] >= 1e29f ? 0 : f[i] / (double)factors[i];
        }
    }
    pm_free(factors);
    return (pm_rope){.inv_freq = f, .head_dim = head_dim};
}

/* ---- layers ---- */

void pm_loader_layer(pm_loader *l, int32_t i, const pm_layer_config *c, int32_t width, int64_t q_total, const char *q_suffix,
                     pm_layer_weights *w) {
    const int64_t heads_dim = (int64_t)c->heads * c->head_dim;
    w->qkv.norm = pm_loader_vector(l, pm_loader_name(l, i, "attn_norm.weight"), width);
    w->qkv.wq = pm_loader_rows(l, pm_loader_name(l, i, q_suffix), width, q_total, 0, heads_dim);
    w->qkv.q_norm = pm_loader_vector(l, pm_loader_name(l, i, "attn_q_norm.weight"), c->head_dim);
    w->qkv.heads = c->heads;
    w->qkv.kv_heads = c->kv_heads;
    w->qkv.head_dim = c->head_dim;
    w->wo = pm_loader_matrix(l, pm_loader_name(l, i, "attn_output.weight"), heads_dim, width);
    w->post_attn_norm = pm_loader_vector(l, pm_loader_name(l, i, "post_attention_norm.weight"), width);
    w->ffn_norm = pm_loader_vector(l, pm_loader_name(l, i, "ffn_norm.weight"), width);
    w->gate = pm_loader_matrix(l, pm_loader_name(l, i, "ffn_gate.weight"), width, c->ff);
    w->up = pm_loader_matrix(l, pm_loader_name(l, i, "ffn_up.weight"), width, c->ff);
    w->down = pm_loader_matrix(l, pm_loader_name(l, i, "ffn_down.weight"), c->ff, width);
    w->post_ffn_norm = pm_loader_vector(l, pm_loader_name(l, i, "post_ffw_norm.weight"), width);
    w->output_scale = pm_loader_scalar(l, pm_loader_name(l, i, "layer_output_scale.weight"), 1.0f);
}
