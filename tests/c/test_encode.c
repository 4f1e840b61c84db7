/* test_encode.c - encoders of all formats on every instruction set: the same bytes, errors within derived bounds, extremes; and
 * pymtp_encode and pymtp_decode around them. */
#include "base/f16.h"
#include "check.h"
#include "pymtp.h"
#include "quant/encode.h"
#include "random.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { ROW = 1024 }; /* values: 4 of the largest blocks */

/* Largest root of the mean squared error of a block, as a part of its largest magnitude A: that of the plain fit, which is among those
 * tried. Half a step of levels over the whole range (of 2 A where there is a minimum), or a whole one where a side has a level less;
 * for the table its 127 - 113. K formats add half a step of the integer scale times the largest level, and of the minimum. */
static double bound_of(pm_format_id id) {
    switch (id) {
    case PM_F32: return 0;
    case PM_F16: return 0x1p-11;
    case PM_BF16: return 0x1p-8;
    case PM_Q4_0: return 1.0 / 8;
    case PM_Q4_1: return 1.0 / 15;
    case PM_Q5_0: return 1.0 / 16;
    case PM_Q5_1: return 1.0 / 31;
    case PM_Q8_0: return 0.5 / 127;
    case PM_Q2_K: return 1.0 / 3 + 1.0 / 15 + 0.5 / 15;
    case PM_Q3_K: return 1.0 / 4 + 0.5 / 32;
    case PM_Q4_K: return 1.0 / 15 + 1.0 / 63 + 0.5 / 63;
    case PM_Q5_K: return 1.0 / 31 + 1.0 / 63 + 0.5 / 63;
    case PM_Q6_K: return 1.0 / 32 + 0.5 / 128;
    case PM_IQ4_NL: return 14.0 / 127;
    case PM_IQ4_XS: return 14.0 / 127 + 0.5 / 32;
    case PM_MXFP4: return 1.0 / 4; /* values end 1/4 below the next power of two, and are that far apart at most */
    default: return -1;
    }
}

static void *exactly(size_t bytes) { /* so that a sanitizer sees what lies beyond */
    void *p = malloc(bytes);
    if (!p) exit(3);
    memset(p, 0x55, bytes);
    return p;
}

/* n blocks of x from one of their row, into exact memory, from an odd address. */
static uint8_t *encode(const pm_encoder *e, const pm_format *f, const float *x, size_t n, const float *weight, size_t first) {
    const size_t bytes = n * f->block_bytes;
    uint8_t *out = exactly(bytes + 1);
    const pm_encode_run run = {.x = x, .weight = weight, .first = first, .row_blocks = ROW / f->block_values, .n = n, .dst = out + 1};
    e->encode[f->id](&run);
    memmove(out, out + 1, bytes);
    return out;
}

/* ---- data ---- */

enum { KINDS = 10 };

static void fill(rng *r, int kind, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float u = rng_uniform(r);
        switch (kind) {
        case 0: x[i] = u * u * u; break;
        case 1: x[i] = 0; break;
        case 2: x[i] = 3.25f; break;
        case 3: x[i] = -1e-3f; break;
        case 4: x[i] = i % 256 == 77 ? -40.0f : 1e-3f * u; break; /* one outlier */
        case 5: x[i] = 65504 * (i % 3 ? u : 1); break;
        case 6: x[i] = i % 2 ? 65504.0f : -65504.0f; break;
        case 7: x[i] = 2 + 0.01f * u; break;                      /* far from zero */
        case 8: x[i] = ldexpf(u, -140); break;                    /* subnormal */
        default: x[i] = ldexpf(u, -20 - (int)(i / 256) * 2); break;       /* scales are subnormal halves or vanish */
        }
    }
}

static void fill_weights(rng *r, float *w) {
    for (size_t i = 0; i < ROW; i++) w[i] = i % 5 == 4 ? 0x1p-20f : fmaxf(rng_uniform(r) * rng_uniform(r), 0x1p-20f);
    w[0] = 1;
}

/* ---- errors ---- */

static void expect_close(const pm_format *f, int kind, const float *x, const float *w, const uint8_t *blocks, const char *name) {
    static float back[ROW];
    f->dequantize(blocks, back, ROW);
    const size_t n = f->block_values;
    for (size_t at = 0; at < ROW; at += n) {
        double most = 0, error = 0, weight = 0;
        for (size_t i = at; i < at + n; i++) {
            const double miss = (double)back[i] - (double)x[i], wi = w ? (double)w[i] : 1;
            most = fmax(most, fabs((double)x[i]));
            error += wi * miss * miss;
            weight += wi;
            CHECK(isfinite(back[i]), "%s %s kind %d: value %zu is %g", name, f->name, kind, i, (double)back[i]);
        }
        /* halves add 2^-11 of scale and minimum, and 2^-25 times the largest product of integers (128 x 32) where they are subnormal; subnormal bfloat16s are 2^-133 apart */
        const double allowed = (bound_of(f->id) + 2 * 0x1p-11 * (bound_of(f->id) > 0)) * most + (f->id == PM_F32 ? 0 : f->id == PM_BF16 ? 0x1p-134 : 0x1p-13);
        CHECK(sqrt(error / weight) <= allowed, "%s %s kind %d %s: error %g, allowed %g", name, f->name, kind, w ? "weighted" : "", sqrt(error / weight),
              allowed);
    }
}

static void test_errors(const pm_encoder *e) {
    static float x[ROW], w[ROW];
    rng r = {5};
    for (int id = 0; id < PM_FORMAT_COUNT; id++)
        for (int kind = 0; kind < KINDS; kind++)
            for (int weighted = 0; weighted < 2; weighted++) {
                const pm_format *f = pm_format_get((pm_format_id)id);
                fill(&r, kind, x, ROW);
                fill_weights(&r, w);
                uint8_t *blocks = encode(e, f, x, ROW / f->block_values, weighted ? w : NULL, 0);
                expect_close(f, kind, x, weighted ? w : NULL, blocks, e->name);
                free(blocks);
            }
}

/* Blocks whose values reach both ends of the levels are found again to the last bit. */
static void test_found_again(const pm_encoder *e) {
    static const struct { pm_format_id id; int low, high; float min; } table[] = {
        {PM_Q4_0, -8, 7, 0}, {PM_Q5_0, -16, 15, 0}, {PM_Q8_0, -127, 127, 0}, {PM_Q4_1, 0, 15, -1.5f}, {PM_Q5_1, 0, 31, 0.75f},
    };
    rng r = {6};
    for (size_t t = 0; t < sizeof table / sizeof *table; t++)
        for (int round = 0; round < 50; round++) {
            const pm_format *f = pm_format_get(table[t].id);
            const float d = pm_f16_to_f32((uint16_t)(0x2000 + rng_next(&r) % 0x1000));
            static float x[ROW], back[ROW];
            for (size_t i = 0; i < ROW; i++) {
                const int spread = table[t].high - table[t].low + 1;
                const int q = i % 32 == 3 ? table[t].low : i % 32 == 9 ? table[t].high : table[t].low + (int)(rng_next(&r) % (uint64_t)spread);
                x[i] = d * (float)q + table[t].min;
            }
            uint8_t *blocks = encode(e, f, x, ROW / 32, NULL, 0);
            f->dequantize(blocks, back, ROW);
            CHECK(!memcmp(x, back, sizeof x), "%s %s: scale %g is not found again", e->name, f->name, (double)d);
            free(blocks);
        }
}

/* ---- the same bytes ---- */

static void test_same(const pm_encoder *e) {
    static float x[ROW], w[ROW];
    rng r = {7};
    for (int id = 0; id < PM_FORMAT_COUNT; id++)
        for (int round = 0; round < 2 * KINDS; round++) {
            const pm_format *f = pm_format_get((pm_format_id)id);
            const float *weight = round % 2 ? w : NULL;
            const size_t n = ROW / f->block_values, bytes = f->block_bytes;
            fill(&r, round / 2, x, ROW);
            fill_weights(&r, w);
            uint8_t *base = encode(pm_encoder_base(), f, x, n, weight, 0), *all = encode(e, f, x, n, weight, 0);
            CHECK(!memcmp(base, all, n * bytes), "%s %s kind %d: other bytes than base", e->name, f->name, round / 2);
            /* a block alone, and from the middle of its row, is what it is among others */
            const size_t from = rng_next(&r) % n, some = 1 + rng_next(&r) % (n - from), values = f->block_values;
            uint8_t *one = encode(e, f, x + from * values, 1, weight, from), *part = encode(e, f, x + from * values, some, weight, from);
            CHECK(!memcmp(all + from * bytes, one, bytes), "%s %s: block %zu depends on its neighbours", e->name, f->name, from);
            CHECK(!memcmp(all + from * bytes, part, some * bytes), "%s %s: blocks from %zu depend on the others", e->name, f->name, from);
            free(base);
            free(all);
            free(one);
            free(part);
        }
}

/* And on every architecture: the checksum (FNV-1a) of all of it. Changing what encoders choose changes it. */
static void test_checksum(void) {
    static float x[ROW], w[ROW];
    rng r = {11};
    uint64_t sum = 0xcbf29ce484222325u;
    for (int id = 0; id < PM_FORMAT_COUNT; id++)
        for (int round = 0; round < 2 * KINDS; round++) {
            const pm_format *f = pm_format_get((pm_format_id)id);
            fill(&r, round / 2, x, ROW);
            fill_weights(&r, w);
            uint8_t *blocks = encode(pm_encoder_base(), f, x, ROW / f->block_values, round % 2 ? w : NULL, 0);
            for (size_t i = 0; i < pm_format_row_bytes(f, ROW); i++) sum = (sum ^ blocks[i]) * 0x100000001b3u;
            free(blocks);
        }
    CHECK(sum == 0xcf3d56db2cc4d1e6u, "checksum %llx", (unsigned long long)sum);
}

/* Halves are those of f16.h for all kinds of floats that fit; bfloat16s for all, NaN included. */
static void test_floats(const pm_encoder *e) {
    rng r = {8};
    enum { N = 1 << 16 };
    float *x = exactly(N * sizeof *x);
    for (size_t i = 0; i < N; i++) {
        const uint32_t bits = (uint32_t)rng_next(&r), largest = pm_f32_bits(pm_encode_limit(PM_F16));
        const uint32_t edge = i % 2 ? bits : (bits & 0xffffe000u) | (0xfff + bits % 3); /* beside the middle of two halves */
        x[i] = pm_bits_f32((edge & 0x7fffffffu) > largest ? (edge & 0x80000000u) | largest : edge);
    }
    for (int id = PM_F16; id <= PM_BF16; id++) {
        if (id == PM_BF16)
            for (size_t i = 0; i < N; i++) x[i] = pm_bits_f32((uint32_t)rng_next(&r) | (i % 16 ? 0 : 0x7f800000u));
        uint8_t *h = encode(e, pm_format_get((pm_format_id)id), x, N, NULL, 0);
        for (size_t i = 0; i < N; i++) {
            const uint16_t found = (uint16_t)(h[2 * i] | h[2 * i + 1] << 8);
            const uint16_t expected = id == PM_F16 ? pm_f32_to_f16(x[i]) : pm_f32_to_bf16(x[i]);
            CHECK(found == expected, "%s: %a becomes %04x, expected %04x", e->name, (double)x[i], found, expected);
            if (id == PM_BF16) CHECK(isnan(x[i]) == isnan(pm_bf16_to_f32(found)), "%a becomes %04x", (double)x[i], found);
        }
        free(h);
    }
    for (size_t n = 0; n < 200; n++) { /* all tails */
        const pm_format *f = pm_format_get(PM_F16);
        for (size_t i = 0; i < n; i++) x[i] = (float)i;
        float *exact = exactly(n * sizeof *x);
        memcpy(exact, x, n * sizeof *x);
        uint8_t *h = encode(e, f, exact, n, NULL, 0);
        for (size_t i = 0; i < n; i++) CHECK((h[2 * i] | h[2 * i + 1] << 8) == pm_f32_to_f16((float)i), "%s: %zu of %zu", e->name, i, n);
        free(h);
        free(exact);
    }
    free(x);
}

static void test_first_beyond(const pm_encoder *e) {
    for (size_t n = 0; n < 3000; n += n < 20 ? 1 : 497)
        for (size_t at = 0; at <= n; at += at < 20 ? 1 : 301) {
            float *x = exactly(n * sizeof *x);
            for (size_t i = 0; i < n; i++) x[i] = i % 2 ? 2.0f : -2.0f;
            for (size_t i = at; i < n; i += 7) x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? -INFINITY : 2.0000002f;
            CHECK(e->first_beyond(x, n, 2) == at, "%s: %zu of %zu: found %zu", e->name, at, n, e->first_beyond(x, n, 2));
            free(x);
        }
}

/* ---- the public functions ---- */

enum { ROWS = 9, COLUMNS = 4096 }; /* more than one chunk of a job */

static void test_threads(void) {
    rng r = {9};
    float *x = exactly(sizeof *x * ROWS * COLUMNS), *w = exactly(sizeof *w * COLUMNS), *back = exactly(sizeof *x * ROWS * COLUMNS);
    rng_fill(&r, x, ROWS * COLUMNS, 0.1f);
    for (size_t i = 0; i < COLUMNS; i++) w[i] = fabsf(rng_uniform(&r)) * 300;
    for (int id = 0; id < PM_FORMAT_COUNT; id++) {
        const pm_format *f = pm_format_get((pm_format_id)id);
        const size_t row = pm_format_row_bytes(f, COLUMNS), bytes = ROWS * row;
        uint8_t *one = exactly(bytes), *more = exactly(bytes);
        for (int weighted = 0; weighted < 2; weighted++) {
            const float *importance = weighted ? w : NULL;
            pymtp_error err = {0};
            CHECK(pymtp_encode((int32_t)f->type, x, ROWS, COLUMNS, importance, one, bytes, 1, &err) == PYMTP_OK, "%s: %s", f->name, err.text);
            for (int threads = 0; threads <= 3; threads++) {
                memset(more, 0x55, bytes);
                CHECK(pymtp_encode((int32_t)f->type, x, ROWS, COLUMNS, importance, more, bytes, threads, &err) == PYMTP_OK, "%s: %s", f->name, err.text);
                CHECK(!memcmp(one, more, bytes), "%s: other bytes with %d threads", f->name, threads);
            }
            for (int64_t i = 0; i < ROWS; i += 4) {
                CHECK(pymtp_encode((int32_t)f->type, x + i * COLUMNS, 1, COLUMNS, importance, more, row, 1, &err) == PYMTP_OK, "%s", err.text);
                CHECK(!memcmp(one + (size_t)i * row, more, row), "%s: row %d depends on the others", f->name, (int)i);
            }
            CHECK(pymtp_decode((int32_t)f->type, one, bytes, ROWS, COLUMNS, back, 2, &err) == PYMTP_OK, "%s: %s", f->name, err.text);
            float value[256];
            for (size_t b = 0; b < ROWS * COLUMNS / f->block_values; b += 13) {
                f->dequantize(one + b * f->block_bytes, value, f->block_values);
                CHECK(!memcmp(value, back + b * f->block_values, f->block_values * sizeof *value), "%s: block %zu", f->name, b);
            }
        }
        free(one);
        free(more);
    }
    free(x);
    free(w);
    free(back);
}

static void expect_refused(pymtp_status status, const pymtp_error *err, pymtp_status expected, const char *part) {
    CHECK(status == expected && err->code == expected && strstr(err->text, part) && !strchr(err->text, '\n'), "status %d: '%s' without '%s'", status,
          err->text, part);
}

static void test_refused(void) {
    static float x[4 * 512], w[512];
    static uint8_t dst[4 * 288], poison[4 * 288];
    pymtp_error err;
    memset(dst, 0x55, sizeof dst);
    memset(poison, 0x55, sizeof poison);
#define ENCODE(type, rows, columns, weight, bytes, threads) pymtp_encode(type, x, rows, columns, weight, dst, bytes, threads, &err), &err
    expect_refused(ENCODE(4, 4, 512, NULL, 1152, 1), PYMTP_E_UNSUPPORTED, "type 4");
    expect_refused(ENCODE(-1, 4, 512, NULL, 1152, 1), PYMTP_E_UNSUPPORTED, "type -1");
    expect_refused(ENCODE(12, 4, 500, NULL, 1152, 1), PYMTP_E_ARG, "columns: expected a multiple of 256 for Q4_K, found 500");
    expect_refused(ENCODE(12, 4, 0, NULL, 0, 1), PYMTP_E_ARG, "columns");
    expect_refused(ENCODE(12, -1, 512, NULL, 0, 1), PYMTP_E_ARG, "rows");
    expect_refused(ENCODE(12, INT64_MAX, 512, NULL, 0, 1), PYMTP_E_ARG, "do not fit in memory");
    expect_refused(ENCODE(12, 4, 512, NULL, 1151, 1), PYMTP_E_ARG, "bytes: expected 1152");
    expect_refused(ENCODE(12, 4, 512, NULL, 1152, 257), PYMTP_E_ARG, "threads");
    expect_refused(pymtp_encode(12, NULL, 4, 512, NULL, dst, 1152, 1, &err), &err, PYMTP_E_ARG, "NULL");
    CHECK(pymtp_encode(12, NULL, 0, 512, NULL, NULL, 0, 1, &err) == PYMTP_OK, "no rows: %s", err.text);
    static const float bad_weights[] = {-1, NAN, INFINITY};
    for (size_t i = 0; i < 3; i++) {
        w[300] = bad_weights[i];
        expect_refused(ENCODE(12, 4, 512, w, 1152, 1), PYMTP_E_ARG, "importance of column 300");
    }
    static const float bad[] = {NAN, INFINITY, -INFINITY, 70000};
    for (size_t i = 0; i < 4; i++) {
        x[2 * 512 + 17] = bad[i];
        x[3 * 512 + 1] = NAN; /* the first is named */
        expect_refused(ENCODE(12, 4, 512, NULL, 1152, 1), PYMTP_E_ARG, "row 2, column 17");
        expect_refused(ENCODE(12, 4, 512, NULL, 1152, 3), PYMTP_E_ARG, "row 2, column 17");
    }
    CHECK(!memcmp(dst, poison, sizeof dst), "a refused call wrote");
    expect_refused(pymtp_decode(12, dst, 1151, 4, 512, x, 1, &err), &err, PYMTP_E_ARG, "bytes");
    expect_refused(pymtp_decode(12, dst, 1152, 4, 512, NULL, 1, &err), &err, PYMTP_E_ARG, "NULL");
    expect_refused(pymtp_decode(5, dst, 1152, 4, 512, x, 1, &err), &err, PYMTP_E_UNSUPPORTED, "type 5");
#undef ENCODE
}

/* The largest value that is taken is stored as a finite one, and what is larger is not taken. */
static void test_limits(void) {
    for (int id = 0; id < PM_FORMAT_COUNT; id++) {
        const pm_format *f = pm_format_get((pm_format_id)id);
        float x[256] = {0}, back[256];
        uint8_t block[1024];
        pymtp_error err = {0};
        const size_t bytes = pm_format_row_bytes(f, 256);
        x[3] = -(x[200] = pm_encode_limit(f->id));
        CHECK(pymtp_encode((int32_t)f->type, x, 1, 256, NULL, block, bytes, 1, &err) == PYMTP_OK, "%s: %s", f->name, err.text);
        f->dequantize(block, back, 256);
        for (int i = 0; i < 256; i++) CHECK(isfinite(back[i]), "%s: %d is %g", f->name, i, (double)back[i]);
        x[200] = nextafterf(x[200], INFINITY);
        CHECK(pymtp_encode((int32_t)f->type, x, 1, 256, NULL, block, bytes, 1, &err) == PYMTP_E_ARG, "%s takes %g", f->name, (double)x[200]);
    }
}

/* Columns that were never seen get values all the same; weights that are all zero are none. */
static void test_zero_importance(void) {
    rng r = {10};
    static float x[512], w[512], back[512];
    rng_fill(&r, x, 512, 1);
    for (int i = 0; i < 256; i++) w[i] = 1;
    uint8_t none[544 * 4], zero[544 * 4];
    for (int id = 0; id < PM_FORMAT_COUNT; id++) {
        const pm_format *f = pm_format_get((pm_format_id)id);
        const size_t bytes = pm_format_row_bytes(f, 512);
        static const float nothing[512];
        pymtp_error err = {0};
        CHECK(pymtp_encode((int32_t)f->type, x, 1, 512, w, zero, bytes, 1, &err) == PYMTP_OK, "%s: %s", f->name, err.text);
        f->dequantize(zero, back, 512);
        double miss = 0;
        for (int i = 256; i < 512; i++) miss += pow((double)back[i] - (double)x[i], 2);
        CHECK(sqrt(miss / 256) <= bound_of(f->id) + 2 * 0x1p-11, "%s: error %g", f->name, sqrt(miss / 256));
        CHECK(pymtp_encode((int32_t)f->type, x, 1, 512, NULL, none, bytes, 1, &err) == PYMTP_OK, "%s: %s", f->name, err.text);
        CHECK(pymtp_encode((int32_t)f->type, x, 1, 512, nothing, zero, bytes, 1, &err) == PYMTP_OK, "%s: %s", f->name, err.text);
        CHECK(!memcmp(none, zero, bytes), "%s: weights of zero", f->name);
    }
}

static void test_types(void) {
    int32_t types[64];
    CHECK(pymtp_types(NULL, 0) == PM_FORMAT_COUNT && pymtp_types(types, 64) == PM_FORMAT_COUNT, "count");
    for (int i = 0; i < PM_FORMAT_COUNT; i++) {
        const pm_format *f = pm_format_get((pm_format_id)i);
        CHECK(types[i] == (int32_t)f->type && pymtp_type_find(f->name) == types[i] && !strcmp(pymtp_type_name(types[i]), f->name), "%s", f->name);
        CHECK(pymtp_type_block_values(types[i]) == (int32_t)f->block_values && pymtp_type_block_bytes(types[i]) == (int32_t)f->block_bytes, "%s", f->name);
    }
    CHECK(pymtp_type_find("Q9_K") == -1 && pymtp_type_find(NULL) == -1 && !pymtp_type_name(4) && !pymtp_type_name(-1), "others");
    CHECK(!pymtp_type_block_values(4) && !pymtp_type_block_bytes(-7), "others");
}

int main(void) {
    const pm_encoder *all[] = {pm_encoder_base(), pm_encoder_avx2(), pm_encoder_avx512()};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!all[i] || !all[i]->supported()) continue;
        test_errors(all[i]);
        test_found_again(all[i]);
        test_same(all[i]);
        test_floats(all[i]);
        test_first_beyond(all[i]);
    }
    test_checksum();
    test_threads();
    test_refused();
    test_limits();
    test_zero_importance();
    test_types();
    return check_done();
}
