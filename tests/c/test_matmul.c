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
enum { OUT = 37, MANY = 100, MAX_COLS = 768 }; /* OUT: no whole number of groups */

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

static pm_packed packed(const unsigned char *w, size_t cols) {
    const size_t bytes = pm_format_row_bytes(f, cols), group = pm_group_bytes(f, cols, k->group), groups = (OUT + k->group - 1) / k->group;
    unsigned char *data = must(pm_aligned(groups * group));
    memset(data, 0xff, groups * group); /* packing fills all of it that is read */
    for (size_t i = 0; i < groups; i++) {
        const uint8_t *rows[PM_MAX_GROUP];
        for (size_t j = 0; j < k->group; j++) rows[j] = i * k->group + j < OUT ? w + (i * k->group + j) * bytes : NULL;
        k->pack(f, cols, rows, data + i * group);
    }
    return (pm_packed){.format = f, .rows = OUT, .cols = cols, .data = data, .row_bytes = bytes};
}

static void packed_free(pm_packed *p) { pm_free((void *)(uintptr_t)p->data); }

/* ---- activations ---- */

/* A batch of n rows, poisoned. */
static pm_act act_new(size_t n, size_t cols) {
    pm_act a = {.cols = cols, .blocks = (cols + 31) / 32, .n = n, .tile = k->tile};
    a.q8 = must(pm_aligned(n * a.blocks * sizeof *a.q8));
    a.x = must(pm_aligned(n * a.blocks * 32 * sizeof(float)));
    for (size_t i = 0; i < n * a.blocks; i++) {
        a.q8[i] = (pm_act_block){.d = NAN, .ds = NAN, .ds_half = {NAN, NAN}, .seed = 0x5555, .seed_half = {0x5555, 0x5555}};
        memset(a.q8[i].q, 0x55, 32);
        for (size_t j = 0; j < 32; j++) a.x[32 * i + j] = NAN;
    }
    return a;
}

static void act_free(pm_act *a) {
    pm_free(a->x);
    pm_free(a->q8);
}

static size_t block_of(const pm_act *a, size_t row, size_t column) {
    size_t step, at = pm_act_index(a, row, &step);
    return at + column / 32 * step;
}

static float *x_of(const pm_act *a, size_t row, size_t column) { return &a->x[32 * block_of(a, row, column) + column % 32]; }

static void act_set(pm_act *a, size_t row, const float *x) {
    size_t step, at = pm_act_index(a, row, &step);
    for (size_t i = 0; i < a->blocks * 32; i++) *x_of(a, row, i) = i < a->cols ? x[i] : 0;
    k->quantize(x, a->cols, a->q8 + at, step);
}

/* A block with these bytes and a scale of 1. */
static void block_set(pm_act_block *b, const int8_t *q) {
    int32_t s[2] = {0, 0};
    for (int i = 0; i < 32; i++) s[i / 16] += q[i];
    *b = (pm_act_block){.d = 1, .ds = (float)(s[0] + s[1]), .ds_half = {(float)s[0], (float)s[1]}, .seed = -8 * (s[0] + s[1]), .seed_half = {-4 * s[0], -4 * s[1]}};
    memcpy(b->q, q, 32);
}

static void random_row(rng *r, float *x, size_t cols) {
    for (size_t i = 0; i < cols; i++) x[i] = rng_uniform(r) * (rng_next(r) % 40 ? 1.0f : 30.0f);
}

static void matmul(const pm_packed *w, size_t begin, size_t end, const pm_act *a, float *out, size_t stride) {
    k->matmul(w, begin, end, a, out, stride);
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
        double weight = fabs((double)row[i]), x = (double)*x_of(a, r, i);
        if (f->act == PM_ACT_Q8) {
            pm_unpacked u;
            const size_t j = i % f->block_values;
            layouts[f->id].unpack(w + o * bytes + i / f->block_values * f->block_bytes, &u);
            weight = fabs((double)u.d * u.scale[j / 16] * u.q[j]) + (has_mins() ? fabs((double)u.dmin * u.min[j / 16]) : 0);
            const pm_act_block *b = &a->q8[block_of(a, r, i)];
            x = (double)b->d * b->q[i % 32];
        }
        sum += (double)row[i] * x;
        *size += weight * fabs(x);
    }
    return sum;
}

/* Size S = sum of |terms| as above; every partial sum of the kernel is at most S (1 + small).
 * Quantised: d s, its product with d_a, the product with the integer sum (exact below 2^24), and each of N = cols / 32 times
 * scales a block additions (2 N with minimums) round by u: (N' + 3) u S. The weights in double are themselves rounded, by u
 * each: d s, times q, dmin m, the difference: 3 u (|d s q| + |dmin m|). Together (N' + 6) u S.
 * Float: each of the two sums of a block rounds 16 times, they are added, and the blocks: (16 + 1 + cols / 32 + 1) u S.
 * 1 % covers second order terms and the double sums. */
static double bound(size_t cols, double size) {
    const double n = (double)(cols / 32) * pm_layouts[f->id].subs;
    const double terms = f->act == PM_ACT_Q8 ? n * (has_mins() ? 2 : 1) + 6 : (double)((cols + 31) / 32) + 18;
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
    matmul(&p, 0, OUT, &a, out, OUT);
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
    const size_t step_cols = 32 / pm_layouts[f->id].subs;
    float acc = 0;
    for (size_t i = 0; i < a->cols; i += step_cols) {
        pm_unpacked u;
        int32_t isum = 0, asum = 0;
        const size_t j = i % f->block_values;
        const pm_act_block *b = &a->q8[block_of(a, r, i)];
        layouts[f->id].unpack(row + i / f->block_values * f->block_bytes, &u);
        for (size_t l = 0; l < step_cols; l++) {
            isum += u.q[j + l] * b->q[i % 32 + l];
            asum += b->q[i % 32 + l];
        }
        acc = step(fused, u.d * (float)u.scale[j / 16] * b->d, (float)isum, acc);
        if (has_mins()) acc = step(fused, -(u.dmin * (float)u.min[j / 16]), b->d * (float)asum, acc);
    }
    return acc;
}

static float in_order_f32(int fused, const unsigned char *row, const pm_act *a, size_t r) {
    float w[MAX_COLS], acc = 0;
    f->dequantize(row, w, a->cols);
    for (size_t b = 0; b < a->blocks; b++) {
        float sum[2] = {0, 0};
        for (size_t i = 32 * b; i < 32 * b + 32; i++) sum[i % 2] = step(fused, i < a->cols ? w[i] : 0, *x_of(a, r, i), sum[i % 2]);
        acc += sum[0] + sum[1];
    }
    return acc;
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
    matmul(&p, 0, OUT, &a, out, OUT);
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
            int8_t q[4][32];
            for (size_t i = 0; i < 4; i++) {
                for (size_t j = 0; j < 32; j++)
                    q[i][j] = (int8_t)(i == 0 ? 127 : i == 1 ? -127 : i == 2 ? (j % 2 ? -127 : 127) : (int)(rng_next(&r) % 255) - 127);
                for (size_t c = 0; c < cols; c += 32) block_set(&a.q8[block_of(&a, i, c)], c == at ? q[i] : (const int8_t[32]){0});
            }
            matmul(&p, 0, OUT, &a, out, OUT);
            for (size_t i = 0; i < 4; i++)
                for (size_t o = 0; o < OUT; o++) {
                    int64_t want = 0;
                    f->dequantize(w + o * bytes, row, cols);
                    for (size_t j = at; j < at + 32; j++) want += (int64_t)row[j] * q[i][j - at];
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
    matmul(&p, 0, OUT, &one, alone, OUT);
    for (size_t n = 1; n <= 17; n++)
        for (size_t i = 0; i < n; i++) {
            pm_act a = act_new(n, cols);
            act_set(&a, i, x);
            matmul(&p, 0, OUT, &a, out, OUT);
            CHECK(!memcmp(out + i * OUT, alone, sizeof alone), "%s %s: row %zu of %zu", k->name, f->name, i, n);
            act_free(&a);
        }
    pm_act many = act_new(MANY, cols);
    for (size_t i = 0; i < MANY; i++) {
        random_row(&r, x, cols);
        act_set(&many, i, x);
        act_set(&one, 0, x);
        matmul(&p, 0, OUT, &one, each + i * OUT, OUT);
    }
    matmul(&p, 0, OUT, &many, out, OUT);
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
    matmul(&p, 0, OUT, &a, whole, OUT);
    for (size_t begin = 0; begin < OUT; begin += group)
        for (size_t end = begin + group < OUT ? begin + group : OUT;; end = end + group < OUT ? end + group : OUT) {
            for (size_t i = 0; i < N * STRIDE + 2; i++) part[i] = guard;
            matmul(&p, begin, end, &a, part + 1, STRIDE);
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
    matmul(&p, 0, OUT, &a, whole, OUT);
    for (size_t o = 0; o < OUT; o++) {
        memset(poisoned, 0xff, OUT * bytes);
        memcpy(poisoned + o * bytes, w + o * bytes, bytes);
        pm_packed q = packed(poisoned, cols);
        matmul(&q, 0, OUT, &a, out, OUT);
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
    matmul(&p, 0, OUT, &a, out, OUT);
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
