/* test_quant.c - the format table, quantization of activations on every kernel set, and the choice of a kernel set. */
#include "base/f16.h"
#include "base/memory.h"
#include "check.h"
#include "cpu/kernels.h"
#include "random.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 224, ROWS = 3 };

/* ---- table ---- */

static void test_table(void) {
    for (int i = 0; i < PM_FORMAT_COUNT; i++) {
        const pm_format *f = pm_format_get((pm_format_id)i);
        CHECK(f && (int)f->id == i && f->dequantize && pm_format_by_type(f->type) == f, "format %d", i);
        CHECK(pm_format_row_bytes(f, 3 * f->block_values) == 3 * f->block_bytes, "%s", f->name);
    }
    static const uint32_t others[] = {4, 5, 9, 15, 16, 24, 28, 31, 40, 1000, UINT32_MAX};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) CHECK(!pm_format_by_type(others[i]), "type %u", others[i]);
}

/* ---- quantization of activations ---- */

static pm_act_block *blocks_new(size_t cols) {
    pm_act_block *out = pm_aligned(ROWS * ((cols + 31) / 32) * sizeof *out);
    if (!out) exit(3);
    memset(out, 0x55, ROWS * ((cols + 31) / 32) * sizeof *out);
    return out;
}

static int is_poison(const void *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (((const unsigned char *)p)[i] != 0x55) return 0;
    return 1;
}

/* The definition, by the C library. */
static void expect_block(const pm_kernels *k, const float *v, const pm_act_block *b) {
    const int8_t *q = b->q;
    const float d = b->d;
    float most = 0;
    int32_t sums[2] = {0, 0};
    for (int i = 0; i < 32; i++) most = fmaxf(most, fabsf(v[i]));
    const float inverse = most > 0 && isfinite(127.0f / most) ? 127.0f / most : 0;
    CHECK(d == most / 127.0f, "%s: d %g of max %g", k->name, (double)d, (double)most);
    for (int i = 0; i < 32; i++) {
        CHECK(q[i] == (int8_t)lrintf(v[i] * inverse), "%s: %g at max %g gives %d", k->name, (double)v[i], (double)most, q[i]);
        /* half a step; 127 steps of a scale that errs by u (or half the least subnormal), and the product with the inverse, 3 u */
        const double error = fabs((double)d * q[i] - (double)v[i]);
        if (inverse > 0)
            CHECK(error <= 0.5 * (double)d + 5 * 0x1p-24 * (double)most + 127 * 0x1p-150, "%s: %g became %g", k->name, (double)v[i], (double)d * q[i]);
        sums[i / 16] += q[i];
    }
    const float all = d * (float)(sums[0] + sums[1]), first = d * (float)sums[0], second = d * (float)sums[1];
    CHECK(b->ds == all && b->ds_half[0] == first && b->ds_half[1] == second, "%s: scaled sums", k->name);
    CHECK(b->seed == -8 * (sums[0] + sums[1]) && b->seed_half[0] == -4 * sums[0] && b->seed_half[1] == -4 * sums[1], "%s: seeds", k->name);
}

/* Row 1 of three, whose blocks lie side by side. */
static void expect_row(const pm_kernels *k, const float *x, size_t cols) {
    pm_act_block *a = blocks_new(cols);
    float v[MAX + 32] = {0};
    memcpy(v, x, cols * sizeof(float));
    k->quantize(x, cols, a + 1, ROWS);
    for (size_t b = 0; b < (cols + 31) / 32; b++) {
        expect_block(k, v + 32 * b, &a[ROWS * b + 1]);
        CHECK(is_poison(&a[ROWS * b], sizeof *a) && is_poison(&a[ROWS * b + 2], sizeof *a), "%s wrote beside its row", k->name);
    }
    pm_free(a);
}

static void test_values(const pm_kernels *k) {
    rng r = {23};
    for (size_t cols = 1; cols <= MAX; cols += cols < 70 ? 1 : 11) {
        float *x = malloc(cols * sizeof *x); /* exact, so that a sanitizer sees reads beyond */
        if (!x) exit(3);
        for (int kind = 0; kind < 4; kind++) {
            for (size_t i = 0; i < cols; i++) x[i] = ldexpf(rng_uniform(&r), kind == 0 ? 2 : kind == 1 ? (int)(rng_next(&r) % 40) - 20 : kind == 2 ? -140 : 127);
            expect_row(k, x, cols);
        }
        free(x);
    }
    float ties[32]; /* max 127: d = 1, and x.5 goes to the even neighbour */
    for (int i = 0; i < 32; i++) ties[i] = (float)(i - 16) + 0.5f;
    ties[31] = -127;
    expect_row(k, ties, 32);
    for (int e = -149; e < 128; e++) { /* every size of the largest, with zeros, its negative and 1/256 of it beside it */
        float x[32] = {0};
        x[3] = ldexpf(1, e);
        x[17] = -x[3];
        x[18] = x[3] / 256;
        expect_row(k, x, 32);
    }
    float most[32] = {FLT_MAX, -FLT_MAX, 1, FLT_MIN, -0.0f};
    expect_row(k, most, 32);
    memset(most, 0, sizeof most);
    expect_row(k, most, 32);
}

/* What is not finite makes its block's scale so, and leaves the blocks beside it alone. */
static void test_nonfinite(const pm_kernels *k) {
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < 3; i++)
        for (size_t at = 32; at < 64; at++) {
            float x[96];
            for (int j = 0; j < 96; j++) x[j] = (float)(j % 7) - 3;
            pm_act_block *a = blocks_new(96);
            x[at] = bad[i];
            k->quantize(x, 96, a, 1);
            CHECK(!isfinite(a[1].d) && !isfinite(a[1].ds), "%s: %g at %zu is hidden: d = %g", k->name, (double)bad[i], at, (double)a[1].d);
            CHECK(a[0].d == 3.0f / 127 && a[2].d == 3.0f / 127, "%s: %g spreads", k->name, (double)bad[i]);
            pm_free(a);
        }
}

/* The same bytes on every kernel set, what is not finite included (but for the bits of a NaN). */
static void test_same(const pm_kernels *k) {
    const pm_kernels *scalar = pm_kernels_scalar();
    rng r = {29};
    for (int round = 0; round < 300; round++) {
        float x[MAX];
        const size_t cols = 1 + rng_next(&r) % MAX;
        for (size_t i = 0; i < cols; i++) x[i] = pm_bits_f32((uint32_t)rng_next(&r)); /* any bits: huge, tiny, NaN */
        if (round % 2)
            for (size_t i = 0; i < cols; i++) x[i] = isfinite(x[i]) ? x[i] : 1;
        pm_act_block *a = blocks_new(cols), *b = blocks_new(cols);
        scalar->quantize(x, cols, a, 1);
        k->quantize(x, cols, b, 1);
        for (size_t i = 0; i < (cols + 31) / 32; i++) {
            const int bad = isnan(a[i].d) && isnan(b[i].d);
            CHECK(bad || !memcmp(&a[i], &b[i], sizeof *a), "%s differs from scalar in block %zu", k->name, i);
        }
        pm_free(a);
        pm_free(b);
    }
}

/* ---- choice ---- */

static void test_choice(void) {
    const pm_kernels *const *sets = pm_kernels_available(), *chosen = NULL;
    char names[256] = "";
    pymtp_error err = {0};
    for (size_t i = 0; sets[i]; i++) {
        if (i) strcat(names, ",");
        strcat(names, sets[i]->name);
        setenv("PYMTP_CPU", sets[i]->name, 1);
        CHECK(pm_kernels_choose(&chosen, &err) == PYMTP_OK && chosen == sets[i], "PYMTP_CPU=%s: %s", sets[i]->name, err.text);
    }
    CHECK(!strcmp(names, pymtp_cpu_names()), "'%s', expected '%s'", pymtp_cpu_names(), names);
    CHECK(strstr(names, "scalar") && sets[0], "scalar is always there");
    static const char *const wrong[] = {"sse9", "AVX2", "avx", "scalar\n"};
    for (size_t i = 0; i < 4; i++) {
        err.code = PYMTP_OK;
        setenv("PYMTP_CPU", wrong[i], 1);
        CHECK(pm_kernels_choose(&chosen, &err) == PYMTP_E_ARG && strstr(err.text, names) && strstr(err.text, "PYMTP_CPU") && !strchr(err.text, '\n'),
              "%s: %s", wrong[i], err.text);
    }
    err.code = PYMTP_OK;
    setenv("PYMTP_CPU", "", 1);
    CHECK(pm_kernels_choose(&chosen, &err) == PYMTP_OK && chosen == sets[0], "empty");
    unsetenv("PYMTP_CPU");
    CHECK(pm_kernels_choose(&chosen, &err) == PYMTP_OK && chosen == sets[0], "unset");
}

int main(void) {
    test_table();
    for (const pm_kernels *const *k = pm_kernels_available(); *k; k++) {
        test_values(*k);
        test_nonfinite(*k);
        test_same(*k);
    }
    test_choice();
    return check_done();
}
