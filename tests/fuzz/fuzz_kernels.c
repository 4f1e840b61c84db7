/* fuzz_kernels.c - the kernels of every instruction set this machine runs, against each other and against plain C, on weights and
 * activations that are any bytes at all.
 *
 * Promises checked (docs/DESIGN.md, docs/FORMATS.md): activations quantise to the same bytes everywhere; an output is summed in the
 * order that is written down, with or without fused operations; a row's outputs are the same bits alone and among others; an element
 * does not depend on how many there are; nothing is read or written beside the arrays (each is a block of memory of its own). A NaN
 * equals any other: which one comes out is the processor's choice. */
#include "base/f16.h"
#include "base/memory.h"
#include "cpu/kernels.h"
#include "fuzz.h"
#include "quant/unpack.inc"

#include <math.h>

enum { MAX_ROWS = 8, MAX_OUT = 24, MAX_COLS = 512, MAX_N = 100, KEYS = 128 };

static void (*const unpack[PM_FORMAT_COUNT])(const void *, pm_unpacked *) = {
    [PM_Q4_0] = unpack_Q4_0, [PM_Q4_1] = unpack_Q4_1, [PM_Q5_0] = unpack_Q5_0,     [PM_Q5_1] = unpack_Q5_1,     [PM_Q8_0] = unpack_Q8_0,
    [PM_Q2_K] = unpack_Q2_K, [PM_Q3_K] = unpack_Q3_K, [PM_Q4_K] = unpack_Q4_K,     [PM_Q5_K] = unpack_Q5_K,     [PM_Q6_K] = unpack_Q6_K,
    [PM_IQ4_NL] = unpack_IQ4_NL, [PM_IQ4_XS] = unpack_IQ4_XS, [PM_MXFP4] = unpack_MXFP4,
};

static void *block(size_t n) {
    void *p = malloc(n ? n : 1);
    fuzz_check(p);
    return p;
}

static int same(float a, float b) { return pm_f32_bits(a) == pm_f32_bits(b) || (isnan(a) && isnan(b)); }

/* n bytes of the input; when it is exhausted, pseudo-random ones that it seeds. */
static void fill(fuzz_bytes *in, void *out, size_t n) {
    uint32_t seed = fuzz_u32(in);
    uint8_t *p = out;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = in->left ? fuzz_u8(in) : (uint8_t)(seed >> 24);
    }
}

/* Floats: any bits, or bytes as steps of one scale. */
static void floats(fuzz_bytes *in, float *x, size_t n) {
    const uint8_t kind = fuzz_u8(in);
    int8_t small[MAX_ROWS * MAX_COLS];
    if (kind % 4 == 0) {
        fill(in, x, n * sizeof *x);
        return;
    }
    fill(in, small, n);
    for (size_t i = 0; i < n; i++) x[i] = ldexpf((float)small[i], kind / 4 - 40);
}

/* ---- products ---- */

static float step(int fused, float a, float b, float c) { return fused ? fmaf(a, b, c) : a * b + c; }

/* Quantised weights in the written order of summation. */
static float in_order_q8(int fused, const pm_format *f, const uint8_t *row, size_t cols, const pm_act_block *act) {
    const size_t sub = 32 / pm_layouts[f->id].subs;
    float acc = 0;
    for (size_t i = 0; i < cols; i += sub) {
        pm_unpacked u;
        int32_t isum = 0, asum = 0;
        const size_t j = i % f->block_values;
        const pm_act_block *b = &act[i / 32];
        unpack[f->id](row + i / f->block_values * f->block_bytes, &u);
        for (size_t l = 0; l < sub; l++) {
            isum += u.q[j + l] * b->q[i % 32 + l];
            asum += b->q[i % 32 + l];
        }
        acc = step(fused, u.d * (float)u.scale[j / 16] * b->d, (float)isum, acc);
        if (pm_layouts[f->id].mins) acc = step(fused, -(u.dmin * (float)u.min[j / 16]), b->d * (float)asum, acc);
    }
    return acc;
}

/* Float weights likewise; x is padded with zeros to whole blocks of 32. */
static float in_order_f32(int fused, const pm_format *f, const uint8_t *row, size_t cols, const float *x) {
    float w[MAX_COLS], acc = 0;
    f->dequantize(row, w, cols);
    for (size_t b = 0; b < cols; b += 32) {
        float sum[2] = {0, 0};
        for (size_t i = b; i < b + 32; i++) sum[i % 2] = step(fused, i < cols ? w[i] : 0, x[i], sum[i % 2]);
        acc += sum[0] + sum[1];
    }
    return acc;
}

typedef struct product { const pm_format *f; size_t cols, padded, out, rows; const uint8_t *w; const float *x; } product;

static pm_packed pack(const pm_kernels *k, const product *p) {
    const size_t bytes = pm_format_row_bytes(p->f, p->cols), group = pm_group_bytes(p->f, p->cols, k->group), groups = (p->out + k->group - 1) / k->group;
    uint8_t *data = pm_aligned(groups * group);
    fuzz_check(data);
    memset(data, 0xff, groups * group);
    for (size_t i = 0; i < groups; i++) {
        const uint8_t *rows[PM_MAX_GROUP];
        for (size_t j = 0; j < k->group; j++) rows[j] = i * k->group + j < p->out ? p->w + (i * k->group + j) * bytes : NULL;
        k->pack(p->f, p->cols, rows, data + i * group);
    }
    return (pm_packed){.format = p->f, .rows = p->out, .cols = p->cols, .data = data, .row_bytes = bytes};
}

/* Rows [first, first + n) of the activations as a batch of their own; out: (n, p->out). */
static void multiply(const pm_kernels *k, const product *p, const pm_packed *w, size_t first, size_t n, float *out) {
    pm_act a = {.cols = p->cols, .blocks = p->padded / 32, .n = n, .tile = k->tile};
    a.q8 = pm_aligned(n * a.blocks * sizeof *a.q8);
    a.x = pm_aligned(n * p->padded * sizeof *a.x);
    fuzz_check(a.q8 && a.x);
    for (size_t r = 0; r < n; r++) {
        size_t step_blocks, at = pm_act_index(&a, r, &step_blocks);
        const float *x = p->x + (first + r) * p->padded;
        for (size_t i = 0; i < p->padded; i++) a.x[32 * (at + i / 32 * step_blocks) + i % 32] = x[i];
        float *exact = block(p->cols * sizeof *exact);
        memcpy(exact, x, p->cols * sizeof *exact);
        k->quantize(exact, p->cols, a.q8 + at, step_blocks);
        free(exact);
    }
    k->matmul(w, 0, p->out, &a, out, p->out);
    pm_free(a.q8);
    pm_free(a.x);
}

static void check_product(const pm_kernels *k, const product *p) {
    const pm_kernels *plain = pm_kernels_scalar();
    const int fused = k != plain;
    pm_packed w = pack(k, p);
    float *all = block(p->rows * p->out * sizeof *all), *alone = block(p->out * sizeof *alone);
    pm_act_block have[MAX_COLS / 32], want[MAX_COLS / 32];
    multiply(k, p, &w, 0, p->rows, all);
    for (size_t r = 0; r < p->rows; r++) {
        const float *x = p->x + r * p->padded;
        k->quantize(x, p->cols, have, 1);
        plain->quantize(x, p->cols, want, 1);
        for (size_t i = 0; i < p->padded / 32; i++) {
            fuzz_check(same(have[i].d, want[i].d) && (isnan(want[i].d) || !memcmp(&have[i], &want[i], sizeof *have)));
            if (isnan(want[i].d)) have[i] = want[i]; /* its bytes do not matter */
        }
        multiply(k, p, &w, r, 1, alone);
        for (size_t o = 0; o < p->out; o++) {
            const uint8_t *row = p->w + o * w.row_bytes;
            const float ordered = p->f->act == PM_ACT_Q8 ? in_order_q8(fused, p->f, row, p->cols, have) : in_order_f32(fused, p->f, row, p->cols, x);
            if (!same(alone[o], all[r * p->out + o]))
                fuzz_fail("%s %s: row %zu of %zu, output %zu: alone %a, together %a", k->name, p->f->name, r, p->rows, o, (double)alone[o], (double)all[r * p->out + o]);
            if (!same(alone[o], ordered)) fuzz_fail("%s %s: row %zu, output %zu: %a, in order %a", k->name, p->f->name, r, o, (double)alone[o], (double)ordered);
        }
    }
    free(all);
    free(alone);
    pm_free((void *)(uintptr_t)w.data);
}

static void products(fuzz_bytes *in) {
    static float x[MAX_ROWS * MAX_COLS];
    const pm_format *f = pm_format_get((pm_format_id)(fuzz_u8(in) % PM_FORMAT_COUNT));
    const size_t cols = f->block_values == 1 ? 1 + fuzz_u8(in) % 70u : f->block_values * (1 + fuzz_u8(in) % (f->block_values == 32 ? 4u : 2u));
    product p = {.f = f, .cols = cols, .padded = (cols + 31) / 32 * 32, .out = 1 + fuzz_u8(in) % MAX_OUT, .rows = 1 + fuzz_u8(in) % MAX_ROWS, .x = x};
    const size_t bytes = p.out * pm_format_row_bytes(f, cols);
    floats(in, x, p.rows * p.padded);
    for (size_t r = 0; r < p.rows; r++) memset(x + r * p.padded + cols, 0, (p.padded - cols) * sizeof *x);
    uint8_t *w = block(bytes);
    fill(in, w, bytes);
    p.w = w;
    for (const pm_kernels *const *k = pm_kernels_available(); *k; k++) check_product(*k, &p);
    free(w);
}

/* ---- elementwise ---- */

enum { GELU, SOFTCAP, ADD, AXPY, SCALE, PEAK, DOT, NORM, SOFTMAX, ROPE, ELEMENTWISE };

/* Applies a kernel to n elements of its own memory. Returns how many results are in out. */
static size_t apply(const pm_kernels *k, int op, const float *x, const float *y, size_t n, float a, float *out) {
    float *in = block(n * sizeof *in), *other = block(n * sizeof *other), *to = block(n * sizeof *to);
    memcpy(in, x, n * sizeof *in);
    memcpy(other, y, n * sizeof *other);
    memcpy(to, x, n * sizeof *to);
    size_t results = n;
    switch (op) {
    case GELU: k->gelu_mul(in, other, n, to); break;
    case SOFTCAP: k->softcap(to, n, a); break;
    case ADD: k->add(other, n, to); break;
    case AXPY: k->axpy(a, other, n, to); break;
    case SCALE: k->scale(to, n, a); break;
    case PEAK: to[0] = k->peak(in, n), results = 1; break;
    case DOT: to[0] = k->dot(in, other, n), results = 1; break;
    case NORM: k->rms_norm(in, other, n, 1e-6f, to); break;
    case SOFTMAX: k->softmax(to, n); break;
    default: k->rope(to, n / 2 * 2, other, other + n / 2); break;
    }
    memcpy(out, to, results * sizeof *out);
    free(in);
    free(other);
    free(to);
    return results;
}

static void elementwise(fuzz_bytes *in) {
    float x[MAX_N], y[MAX_N], want[MAX_N], have[MAX_N], one;
    const int op = fuzz_u8(in) % ELEMENTWISE;
    const size_t n = 1 + fuzz_u8(in) % MAX_N;
    floats(in, x, n);
    floats(in, y, n);
    const float a = op == SOFTCAP ? 30 : y[0];
    for (const pm_kernels *const *set = pm_kernels_available(); *set; set++) {
        const pm_kernels *k = *set;
        const size_t results = apply(k, op, x, y, n, a, have);
        if (op <= SCALE) /* an element is the same alone */
            for (size_t i = 0; i < n; i++) {
                apply(k, op, x + i, y + i, 1, a, &one);
                if (!same(one, have[i])) fuzz_fail("%s, operation %d: element %zu of %zu: %a, alone %a", k->name, op, i, n, (double)have[i], (double)one);
            }
        const int exact = op == ADD || op == SCALE || op == PEAK || op == ROPE; /* roundings that no fused operation changes */
        apply(pm_kernels_scalar(), op, x, y, n, a, want);
        for (size_t i = 0; i < results && exact; i++)
            if (!same(have[i], want[i])) fuzz_fail("%s, operation %d: element %zu of %zu: %a, scalar %a", k->name, op, i, n, (double)have[i], (double)want[i]);
        if (op == PEAK) {
            float largest = x[0], poison = 0;
            for (size_t i = 0; i < n; i++) {
                largest = x[i] > largest ? x[i] : largest;
                poison += x[i] * 0;
            }
            fuzz_check(same(have[0], largest + poison) || (have[0] >= largest && have[0] <= largest && !isnan(poison)));
        }
    }
}

/* ---- stored heads and attention ---- */

static size_t head_bytes(int32_t type, size_t n) { return type == PYMTP_KV_F32 ? 4 * n : type == PYMTP_KV_F16 ? 2 * n : 34 * ((n + 31) / 32); }

static void stored(fuzz_bytes *in) {
    float x[MAX_N], have[MAX_N], want[MAX_N];
    const int32_t type = fuzz_u8(in) % 3;
    const size_t n = 1 + fuzz_u8(in) % MAX_N, bytes = head_bytes(type, n);
    uint8_t *head = block(bytes);
    floats(in, x, n);
    for (int written = 0; written < 2; written++) { /* any bytes, then what kv_store writes */
        if (!written) fill(in, head, bytes);
        for (const pm_kernels *const *set = pm_kernels_available(); *set; set++) {
            float *from = block(n * sizeof *from), *to = block(n * sizeof *to);
            memcpy(from, x, n * sizeof *from);
            if (written) (*set)->kv_store(from, n, type, head);
            (*set)->kv_load(head, n, type, to);
            memcpy(have, to, n * sizeof *have);
            if (written) pm_kernels_scalar()->kv_store(x, n, type, head);
            pm_kernels_scalar()->kv_load(head, n, type, want);
            for (size_t i = 0; i < n; i++)
                if (!same(have[i], want[i])) fuzz_fail("%s: cache type %d: value %zu of %zu: %a, scalar %a", (*set)->name, type, i, n, (double)have[i], (double)want[i]);
            for (size_t i = 0; i < n && written && type == PYMTP_KV_F32; i++) fuzz_check(same(have[i], x[i]));
            free(from);
            free(to);
        }
    }
    free(head);
}

/* Each query sees its own keys: the same bits alone and together, whatever the keys hold that it does not see. */
static void attention(fuzz_bytes *in) {
    static float q[MAX_ROWS * 64], state[2][MAX_ROWS * 66], p[MAX_ROWS * KEYS];
    const int32_t type = fuzz_u8(in) % 3;
    const size_t n = 16 * (1 + fuzz_u8(in) % 4u), stride = head_bytes(type, n), bytes = KEYS * stride;
    pm_attend_block b = {.stride = stride, .n = n, .type = type, .queries = 1 + fuzz_u8(in) % MAX_ROWS, .p = p};
    for (size_t i = 0; i < b.queries; i++) {
        b.from[i] = fuzz_u8(in) % KEYS;
        b.to[i] = b.from[i] + 1 + fuzz_u8(in) % (KEYS - b.from[i]);
        b.q[i] = q + i * n;
    }
    floats(in, q, b.queries * n);
    uint8_t *k = block(bytes), *v = block(bytes), *seen_k = block(bytes), *seen_v = block(bytes);
    fill(in, k, bytes);
    fill(in, v, bytes);
    b.k = k;
    b.v = v;
    for (const pm_kernels *const *set = pm_kernels_available(); *set; set++) {
        for (size_t i = 0; i < b.queries; i++) b.state[i] = state[0] + i * (n + 2);
        (*set)->attend_block(&b);
        for (size_t i = 0; i < b.queries; i++) {
            pm_attend_block one = b;
            one.queries = 1;
            one.q[0] = b.q[i], one.from[0] = b.from[i], one.to[0] = b.to[i], one.state[0] = state[1];
            memset(seen_k, 0xff, bytes); /* NaN in every type */
            memset(seen_v, 0xff, bytes);
            memcpy(seen_k + b.from[i] * stride, k + b.from[i] * stride, (b.to[i] - b.from[i]) * stride);
            memcpy(seen_v + b.from[i] * stride, v + b.from[i] * stride, (b.to[i] - b.from[i]) * stride);
            one.k = seen_k;
            one.v = seen_v;
            (*set)->attend_block(&one);
            for (size_t j = 0; j < n + 2; j++)
                if (!same(b.state[i][j], state[1][j]))
                    fuzz_fail("%s: query %zu of %zu, state %zu: %a, alone %a", (*set)->name, i, b.queries, j, (double)b.state[i][j], (double)state[1][j]);
            if (i) (*set)->attend_merge(b.state[i], n, b.state[0]);
        }
    }
    free(k);
    free(v);
    free(seen_k);
    free(seen_v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    fuzz_bytes in = {data, n};
    static void (*const parts[])(fuzz_bytes *) = {products, elementwise, stored, attention, products, products};
    parts[fuzz_u8(&in) % (sizeof parts / sizeof *parts)](&in);
    return 0;
}
