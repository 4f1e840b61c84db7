/* test_matmul.c - products of every format on every kernel set.
 *
 * Values: against double on dequantized weights and dequantized activations, within a bound that is derived below; bit for
 * bit against the order of summation that docs/FORMATS.md promises; block sums against exact integers. The row rule by memcmp:
 * 1..17 rows and 100, every row index, poisoned neighbours, parts of the outputs. */
#include "base/f16.h"
#include "base/memory.h"
#include "check.h"
#include "cpu/kernels.h"
#include "quant/unpack.inc"
#include "random.h"

#include <math.h>
#include <stdlib.h>

#define U 0x1p-24
enum { OUT = 21, MANY = 100, MAX_COLS = 768 };

static const pm_kernels *k;
static const pm_format *f;

/* Per format: byte offsets of the scale and the minimum (-1: none) and the unpacker. */
static const struct layout { int d, m; void (*unpack)(const void *, pm_unpacked *); } layouts[PM_FORMAT_COUNT] = {
    [PM_Q4_0] = {0, -1, unpack_Q4_0},    [PM_Q4_1] = {0, 2, unpack_Q4_1},    [PM_Q5_0] = {0, -1, unpack_Q5_0},
    [PM_Q5_1] = {0, 2, unpack_Q5_1},     [PM_Q8_0] = {0, -1, unpack_Q8_0},   [PM_Q2_K] = {80, 82, unpack_Q2_K},
    [PM_Q3_K] = {108, -1, unpack_Q3_K},  [PM_Q4_K] = {0, 2, unpack_Q4_K},    [PM_Q5_K] = {0, 2, unpack_Q5_K},
    [PM_Q6_K] = {208, -1, unpack_Q6_K},  [PM_IQ4_NL] = {0, -1, unpack_IQ4_NL}, [PM_IQ4_XS] = {0, -1, unpack_IQ4_XS},
    [PM_MXFP4] = {-1, -1, unpack_MXFP4},
};
static int has_mins(void) { return layouts[f->id].m >= 0; }

static void *must(void *p) {
    if (!p) exit(3);
    return p;
}

/* ---- weights ---- */

static void put_half(unsigned char *p, float v) {
    const uint16_t h = pm_f32_to_f16(v);
    memcpy(p, &h, 2);
}

/* Random valid blocks; unit: all scales and minimums are 1. */
static void set_scales(unsigned char *block, int unit, rng *r) {
    const struct layout *l = &layouts[f->id];
    if (l->d >= 0) put_half(block + l->d, unit ? 1 : 0.03f * rng_uniform(r) + 0.001f);
    if (l->m >= 0) put_half(block + l->m, unit ? 1 : 0.05f * rng_uniform(r));
    if (f->id == PM_MXFP4) block[0] = (unsigned char)(unit ? 128 : 115 + rng_next(r) % 9);
}

static unsigned char *random_weights(size_t cols, rng *r) {
    const size_t n = OUT * cols;
    unsigned char *w = must(malloc(pm_format_row_bytes(f, n)));
    if (f->act == PM_ACT_F32) {
        for (size_t i = 0; i < n; i++) {
            const float v = ldexpf(rng_uniform(r), (int)(rng_next(r) % 8) - 6);
            const uint16_t h = f->id == PM_F16 ? pm_f32_to_f16(v) : (uint16_t)(pm_f32_bits(v) >> 16);
            memcpy(w + i * f->block_bytes, f->id == PM_F32 ? (const void *)&v : &h, f->block_bytes);
        }
        return w;
    }
    for (size_t i = 0; i < n / f->block_values; i++) {
        unsigned char *block = w + i * f->block_bytes;
        for (size_t j = 0; j < f->block_bytes; j++) block[j] = (unsigned char)rng_next(r);
        set_scales(block, 0, r);
    }
    return w;
}

/* Packed in two slices, as the loader does. */
static pm_packed packed(const unsigned char *w, size_t cols) {
    const size_t half = OUT / 2 / k->group * k->group, bytes = pm_format_row_bytes(f, cols);
    void *data = must(pm_aligned(k->packed_bytes(f, OUT, cols)));
    k->pack(f, OUT, cols, half, OUT - half, w + half * bytes, data);
    if (half) k->pack(f, OUT, cols, 0, half, w, data);
    return (pm_packed){.format = f, .rows = OUT, .cols = cols, .data = data, .row_bytes = bytes};
}

static void packed_free(pm_packed *p) { pm_free((void *)(uintptr_t)p->data); }

/* ---- activations ---- */

static pm_act act_new(size_t rows, size_t cols) {
    const size_t padded = (cols + 31) / 32 * 32;
    pm_act a = {.cols = cols, .padded = padded};
    a.x = must(pm_aligned(rows * padded * sizeof(float)));
    a.q = must(pm_aligned(rows * padded));
    a.d = must(pm_aligned(rows * padded / 32 * sizeof(float)));
    a.sum = must(pm_aligned(rows * padded / 16 * sizeof(int32_t)));
    for (size_t i = 0; i < rows * padded; i++) { /* poison */
        a.x[i] = a.d[i / 32] = NAN;
        a.q[i] = 0x55;
        a.sum[i / 16] = 0x5555;
    }
    return a;
}

static void act_free(pm_act *a) {
    pm_free(a->x);
    pm_free(a->q);
    pm_free(a->d);
    pm_free(a->sum);
}

static void act_set(pm_act *a, size_t row, const float *x) {
    memset(a->x + row * a->padded, 0, a->padded * sizeof(float));
    memcpy(a->x + row * a->padded, x, a->cols * sizeof(float));
    k->quantize(x, a->cols, a, row);
}

static void random_row(rng *r, float *x, size_t cols) {
    for (size_t i = 0; i < cols; i++) x[i] = rng_uniform(r) * (rng_next(r) % 40 ? 1.0f : 30.0f);
}

static void matmul(const pm_packed *w, size_t begin, size_t end, const pm_act *a, size_t n, float *out, size_t stride) {
    k->matmul[f->id](w, begin, end, a, n, out, stride);
}

/* ---- values ---- */

/* Row o of w times row r of a in double, and in *size the sum over all columns of (|d s q| + |dmin m|) |x|. */
static double exact(const unsigned char *w, size_t o, const pm_act *a, size_t r, double *size) {
    const size_t cols = a->cols, bytes = pm_format_row_bytes(f, cols);
    float row[MAX_COLS];
    double sum = 0;
    f->dequantize(w + o * bytes, row, cols);
    *size = 0;
    for (size_t i = 0; i < cols; i++) {
        double weight = fabs((double)row[i]), x = (double)a->x[r * a->padded + i];
        if (f->act == PM_ACT_Q8) {
            pm_unpacked u;
            const size_t j = i % f->block_values;
            layouts[f->id].unpack(w + o * bytes + i / f->block_values * f->block_bytes, &u);
            weight = fabs((double)u.d * u.scale[j / 16] * u.q[j]) + (has_mins() ? fabs((double)u.dmin * u.min[j / 16]) : 0);
            x = (double)a->d[(r * a->padded + i) / 32] * a->q[r * a->padded + i];
        }
        sum += (double)row[i] * x;
        *size += weight * fabs(x);
    }
    return sum;
}

/* Size S = sum of |terms| as above; every partial sum of the kernel is at most S (1 + small).
 * Quantised: the scales' product, its product with the integer sum (exact below 2^24), and each of N = cols / 32 additions (2 N
 * with minimums) round by u: (N' + 2) u S. The weights in double are themselves rounded, by u each: d s, times q, dmin m, the
 * difference: 3 u (|d s q| + |dmin m|). Together (N' + 5) u S.
 * Float: each lane rounds its products and cols / 16 additions, the fold 4: (cols / 16 + 1 + 1 + 4) u S.
 * 1 % covers second order terms and the double sums. */
static double bound(size_t cols, double size) {
    const double terms = f->act == PM_ACT_Q8 ? (double)(cols / 32) * (has_mins() ? 2 : 1) + 5 : (double)(cols / 16) + 6;
    return 1.01 * terms * U * size;
}

static void test_bound(size_t cols) {
    enum { N = 5 };
    rng r = {31 + cols};
    unsigned char *w = random_weights(cols, &r);
    pm_packed p = packed(w, cols);
    pm_act a = act_new(N, cols);
    float x[MAX_COLS], out[N * OUT];
    double seen = 0;
    for (size_t i = 0; i < N; i++) {
        random_row(&r, x, cols);
        act_set(&a, i, x);
    }
    matmul(&p, 0, OUT, &a, N, out, OUT);
    for (size_t i = 0; i < N; i++)
        for (size_t o = 0; o < OUT; o++) {
            double size;
            const double want = exact(w, o, &a, i, &size), have = (double)out[i * OUT + o];
            seen += size;
            CHECK(fabs(have - want) <= bound(cols, size), "%s %s, %zu columns: %.9g, expected %.9g, bound %.3g", k->name, f->name, cols, have,
                  want, bound(cols, size));
        }
    CHECK(seen > 0, "%s: weights of zero test nothing", f->name);
    act_free(&a);
    packed_free(&p);
    free(w);
}

/* ---- order of summation ---- */

static float step(int fused, float a, float b, float c) { return fused ? fmaf(a, b, c) : a * b + c; }

static float in_order_q8(int fused, const unsigned char *row, const pm_act *a, size_t r) {
    float acc = 0;
    for (size_t i = 0; i < a->cols; i += 32) {
        pm_unpacked u;
        int32_t isum = 0, msum = 0;
        const size_t j = i % f->block_values;
        const float d = a->d[(r * a->padded + i) / 32];
        layouts[f->id].unpack(row + i / f->block_values * f->block_bytes, &u);
        for (size_t l = 0; l < 32; l++) {
            const int32_t q = a->q[r * a->padded + i + l];
            isum += u.scale[(j + l) / 16] * u.q[j + l] * q;
            if (has_mins()) msum += u.min[(j + l) / 16] * q;
        }
        acc = step(fused, u.d * d, (float)isum, acc);
        if (has_mins()) acc = step(fused, -(u.dmin * d), (float)msum, acc);
    }
    return acc;
}

static float in_order_f32(int fused, const unsigned char *row, const pm_act *a, size_t r) {
    float w[MAX_COLS], lane[16] = {0};
    f->dequantize(row, w, a->cols);
    for (size_t i = 0; i < (a->cols + 15) / 16 * 16; i++)
        lane[i % 16] = step(fused, i < a->cols ? w[i] : 0, a->x[r * a->padded + i], lane[i % 16]);
    for (size_t half = 8; half; half /= 2)
        for (size_t i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

static void test_order(size_t cols) {
    enum { N = 3 };
    rng r = {37 + cols};
    const int fused = k != pm_kernels_scalar();
    unsigned char *w = random_weights(cols, &r);
    pm_packed p = packed(w, cols);
    pm_act a = act_new(N, cols);
    float x[MAX_COLS], out[N * OUT];
    for (size_t i = 0; i < N; i++) {
        random_row(&r, x, cols);
        act_set(&a, i, x);
    }
    matmul(&p, 0, OUT, &a, N, out, OUT);
    for (size_t i = 0; i < N; i++)
        for (size_t o = 0; o < OUT; o++) {
            const unsigned char *row = w + o * p.row_bytes;
            const float want = f->act == PM_ACT_Q8 ? in_order_q8(fused, row, &a, i) : in_order_f32(fused, row, &a, i);
            CHECK(!memcmp(&out[i * OUT + o], &want, 4), "%s %s, %zu columns, row %zu, output %zu: %.9g, in order %.9g", k->name, f->name,
                  cols, i, o, (double)out[i * OUT + o], (double)want);
        }
    act_free(&a);
    packed_free(&p);
    free(w);
}

/* ---- integer sums ---- */

/* Scales of 1 and activations that are zero outside one block: the result is that block's integer sum, below 2^24 in every
 * format, so it must be exact. Extreme weights meet extreme activations, where a saturating product would show. */
static void test_integers(void) {
    static const unsigned char fills[] = {0x00, 0xff, 0x80, 0x7f, 0x88, 0xf0};
    const size_t cols = f->block_values, bytes = f->block_bytes;
    rng r = {41};
    for (size_t fill = 0; fill < 10; fill++) {
        unsigned char *w = must(malloc(OUT * bytes));
        for (size_t i = 0; i < OUT * bytes; i++) w[i] = fill < 6 ? fills[fill] : (unsigned char)rng_next(&r);
        for (size_t o = 0; o < OUT; o++) {
            unsigned char *block = w + o * bytes;
            if (f->id == PM_Q6_K && fill == 0) memset(block + 192, 0x80, 16); /* -128 times -32 */
            set_scales(block, 1, &r);
        }
        pm_packed p = packed(w, cols);
        for (size_t at = 0; at < cols; at += 32) {
            pm_act a = act_new(4, cols);
            float out[4 * OUT], row[256];
            memset(a.q, 0, 4 * a.padded);
            memset(a.sum, 0, 4 * a.padded / 16 * sizeof(int32_t));
            for (size_t i = 0; i < 4 * a.padded / 32; i++) a.d[i] = 1;
            for (size_t i = 0; i < 4; i++)
                for (size_t j = at; j < at + 32; j++) {
                    const int v = i == 0 ? 127 : i == 1 ? -127 : i == 2 ? (j % 2 ? -127 : 127) : (int)(rng_next(&r) % 255) - 127;
                    a.q[i * a.padded + j] = (int8_t)v;
                    a.sum[(i * a.padded + j) / 16] += v;
                }
            matmul(&p, 0, OUT, &a, 4, out, OUT);
            for (size_t i = 0; i < 4; i++)
                for (size_t o = 0; o < OUT; o++) {
                    int64_t want = 0;
                    f->dequantize(w + o * bytes, row, cols);
                    for (size_t j = at; j < at + 32; j++) want += (int64_t)row[j] * a.q[i * a.padded + j];
                    CHECK(out[i * OUT + o] == (float)want && llabs(want) < 1 << 24, "%s %s: %.9g, expected %lld", k->name, f->name,
                          (double)out[i * OUT + o], (long long)want);
                }
            act_free(&a);
        }
        packed_free(&p);
        free(w);
    }
}

/* ---- row rule ---- */

/* A row alone, and at every index among 1..17 rows that are poison but for it; a hundred rows in one call. */
static void test_rows(size_t cols) {
    rng r = {43 + cols};
    unsigned char *w = random_weights(cols, &r);
    pm_packed p = packed(w, cols);
    float x[MAX_COLS], alone[OUT];
    float *out = must(malloc(MANY * OUT * sizeof *out)), *each = must(malloc(MANY * OUT * sizeof *each));
    random_row(&r, x, cols);
    pm_act one = act_new(1, cols);
    act_set(&one, 0, x);
    matmul(&p, 0, OUT, &one, 1, alone, OUT);
    for (size_t n = 1; n <= 17; n++)
        for (size_t i = 0; i < n; i++) {
            pm_act a = act_new(n + 3, cols);
            act_set(&a, i, x);
            matmul(&p, 0, OUT, &a, n, out, OUT);
            CHECK(!memcmp(out + i * OUT, alone, sizeof alone), "%s %s: row %zu of %zu", k->name, f->name, i, n);
            act_free(&a);
        }
    pm_act many = act_new(MANY, cols);
    for (size_t i = 0; i < MANY; i++) {
        random_row(&r, x, cols);
        act_set(&many, i, x);
        act_set(&one, 0, x);
        matmul(&p, 0, OUT, &one, 1, each + i * OUT, OUT);
    }
    matmul(&p, 0, OUT, &many, MANY, out, OUT);
    CHECK(!memcmp(out, each, MANY * OUT * sizeof *out), "%s %s: %d rows", k->name, f->name, MANY);
    act_free(&many);
    act_free(&one);
    packed_free(&p);
    free(w);
    free(out);
    free(each);
}

/* Parts of the outputs equal the whole, and nothing is written beside them. */
static void test_parts(size_t cols) {
    enum { N = 3, STRIDE = OUT + 4 };
    rng r = {47 + cols};
    const size_t group = k->group;
    unsigned char *w = random_weights(cols, &r);
    pm_packed p = packed(w, cols);
    pm_act a = act_new(N, cols);
    float x[MAX_COLS], whole[N * OUT], part[N * STRIDE + 2], guard = -77;
    for (size_t i = 0; i < N; i++) {
        random_row(&r, x, cols);
        act_set(&a, i, x);
    }
    matmul(&p, 0, OUT, &a, N, whole, OUT);
    for (size_t begin = 0; begin < OUT; begin += group)
        for (size_t end = begin + group < OUT ? begin + group : OUT;; end = end + group < OUT ? end + group : OUT) {
            for (size_t i = 0; i < N * STRIDE + 2; i++) part[i] = guard;
            matmul(&p, begin, end, &a, N, part + 1, STRIDE);
            int beside = part[0] != guard || part[N * STRIDE + 1] != guard;
            for (size_t i = 0; i < N; i++) {
                const float *row = part + 1 + i * STRIDE;
                CHECK(!memcmp(row, whole + i * OUT + begin, (end - begin) * sizeof(float)), "%s %s: outputs %zu..%zu", k->name, f->name, begin, end);
                for (size_t j = end - begin; j < STRIDE; j++) beside |= row[j] != guard;
            }
            CHECK(!beside, "%s %s: outputs %zu..%zu write beside", k->name, f->name, begin, end);
            if (end == OUT) break;
        }
    act_free(&a);
    packed_free(&p);
    free(w);
}

/* One row of weights among rows of NaN: what lies behind a row's last column is not used. */
static void test_poisoned_weights(size_t cols) {
    rng r = {53 + cols};
    const size_t bytes = pm_format_row_bytes(f, cols);
    unsigned char *w = random_weights(cols, &r), *poisoned = must(malloc(OUT * bytes));
    pm_packed p = packed(w, cols);
    pm_act a = act_new(1, cols);
    float x[MAX_COLS], whole[OUT], out[OUT];
    random_row(&r, x, cols);
    act_set(&a, 0, x);
    matmul(&p, 0, OUT, &a, 1, whole, OUT);
    for (size_t o = 0; o < OUT; o++) {
        memset(poisoned, 0xff, OUT * bytes);
        memcpy(poisoned + o * bytes, w + o * bytes, bytes);
        pm_packed q = packed(poisoned, cols);
        matmul(&q, 0, OUT, &a, 1, out, OUT);
        CHECK(!memcmp(&out[o], &whole[o], sizeof *out), "%s %s, %zu columns: output %zu depends on others", k->name, f->name, cols, o);
        packed_free(&q);
    }
    act_free(&a);
    packed_free(&p);
    free(poisoned);
    free(w);
}

/* What is not finite in the activations or the scales of a row reaches its outputs, and no other row's. */
static void test_nonfinite(size_t cols) {
    rng r = {59};
    unsigned char *w = random_weights(cols, &r);
    pm_packed p = packed(w, cols);
    pm_act a = act_new(2, cols);
    float x[MAX_COLS], out[2 * OUT];
    random_row(&r, x, cols);
    act_set(&a, 0, x);
    x[cols / 2] = NAN;
    act_set(&a, 1, x);
    matmul(&p, 0, OUT, &a, 2, out, OUT);
    for (size_t o = 0; o < OUT; o++)
        CHECK(isfinite(out[o]) && isnan(out[OUT + o]), "%s %s: %g beside %g", k->name, f->name, (double)out[o], (double)out[OUT + o]);
    act_free(&a);
    packed_free(&p);
    free(w);
}

static void test_format(void) {
    static const size_t blocks_256[] = {256, 768}, blocks_32[] = {32, 96, 352}, any[] = {1, 15, 16, 33, 77, 320};
    const size_t *cols = f->block_values == 256 ? blocks_256 : f->block_values == 32 ? blocks_32 : any;
    const size_t n = f->block_values == 256 ? 2 : f->block_values == 32 ? 3 : 6;
    if (f->act == PM_ACT_Q8) test_integers();
    for (size_t i = 0; i < n; i++) {
        test_bound(cols[i]);
        test_order(cols[i]);
        test_rows(cols[i]);
        test_parts(cols[i]);
        test_poisoned_weights(cols[i]);
        test_nonfinite(cols[i]);
    }
}

int main(void) {
    for (const pm_kernels *const *set = pm_kernels_available(); *set; set++)
        for (int i = 0; i < PM_FORMAT_COUNT; i++) {
            k = *set;
            f = pm_format_get((pm_format_id)i);
            test_format();
        }
    return check_done();
}
