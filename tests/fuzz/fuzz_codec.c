/* fuzz_codec.c - encoding and decoding of every tensor format: hostile blocks, hostile floats, wrong shapes.
 *
 * Promises checked: any bytes decode, a block alone as among others; what is not finite or too large is refused with row and column,
 * whatever is accepted decodes to finite numbers; blocks are the same bytes on every instruction set, alone or among others; values
 * of F32, F16 and BF16 come back exactly; a wrong shape or size is refused. */
#include "base/f16.h"
#include "fuzz.h"
#include "pymtp.h"
#include "quant/encode.h"

#include <math.h>

enum { MAX_BLOCKS = 4 };

typedef struct shape { const pm_format *f; int64_t rows, columns; size_t values, bytes; } shape;

static void *copy(const void *p, size_t n) { /* of exactly n bytes, so that AddressSanitizer sees a read behind them */
    void *out = malloc(n ? n : 1);
    fuzz_check(out);
    if (p && n) memcpy(out, p, n);
    return out;
}

/* Floats of one kind: any bits, halves, steps of one scale (many alike), or near the largest that a half holds. */
static float *values(fuzz_bytes *in, size_t n) {
    float *x = copy(NULL, n * sizeof *x);
    const uint8_t kind = fuzz_u8(in) % 4, scale = fuzz_u8(in);
    for (size_t i = 0; i < n; i++) {
        if (kind == 0) x[i] = pm_bits_f32(fuzz_u32(in));
        else if (kind == 1) x[i] = pm_f16_to_f32((uint16_t)(fuzz_u8(in) | fuzz_u8(in) << 8));
        else if (kind == 2) x[i] = ldexpf((float)(int8_t)fuzz_u8(in), scale % 64 - 48);
        else x[i] = (float)(int8_t)fuzz_u8(in) * 516;
    }
    return x;
}

static int all_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return 0;
    return 1;
}

static float *decode(const shape *s, const void *blocks) {
    float *x = copy(NULL, s->values * sizeof *x);
    fuzz_check(pymtp_decode((int32_t)s->f->type, blocks, s->bytes, s->rows, s->columns, x, 1, NULL) == PYMTP_OK);
    return x;
}

static void hostile_blocks(const shape *s, fuzz_bytes *in) {
    uint8_t *blocks = copy(NULL, s->bytes);
    fuzz_take(in, blocks, s->bytes);
    float *all = decode(s, blocks);
    const shape one = {s->f, 1, s->f->block_values, s->f->block_values, s->f->block_bytes};
    for (size_t i = 0; i < s->bytes / one.bytes; i++) {
        void *block = copy(blocks + i * one.bytes, one.bytes);
        float *alone = decode(&one, block);
        fuzz_check(!memcmp(alone, all + i * one.values, one.values * sizeof *alone));
        free(alone);
        free(block);
    }
    if (s->f->block_values == 1 && all_finite(all, s->values)) { /* the formats without blocks */
        uint8_t *back = copy(NULL, s->bytes);
        fuzz_check(pymtp_encode((int32_t)s->f->type, all, s->rows, s->columns, NULL, back, s->bytes, 1, NULL) == PYMTP_OK);
        fuzz_check(!memcmp(back, blocks, s->bytes));
        free(back);
    }
    free(all);
    free(blocks);
}

/* What one instruction set makes of weights that are checked already; blocks one by one, which is the hardest for vectors. */
static void same_on_every_set(const shape *s, const float *x, const float *weight, const uint8_t *want) {
    const pm_encoder *sets[] = {pm_encoder_base(), pm_encoder_avx2(), pm_encoder_avx512()};
    const size_t row_blocks = (size_t)s->columns / s->f->block_values, blocks = (size_t)s->rows * row_blocks;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!sets[i] || !sets[i]->supported()) continue;
        for (size_t step = 1; step <= blocks; step += blocks > 1 ? blocks - 1 : 1) {
            uint8_t *have = copy(NULL, s->bytes);
            for (size_t at = 0; at < blocks; at += step) {
                const pm_encode_run run = {.x = x + at * s->f->block_values, .weight = weight, .first = at % row_blocks, .row_blocks = row_blocks,
                                           .n = step, .dst = have + at * s->f->block_bytes};
                sets[i]->encode[s->f->id](&run);
            }
            if (memcmp(have, want, s->bytes)) fuzz_fail("%s on %s: other blocks, %zu at a time", s->f->name, sets[i]->name, step);
            free(have);
        }
    }
}

static void hostile_values(const shape *s, fuzz_bytes *in) {
    float *x = values(in, s->values), *importance = fuzz_u8(in) % 2 ? values(in, (size_t)s->columns) : NULL;
    uint8_t *blocks = copy(NULL, s->bytes);
    pymtp_error err = {0};
    const float limit = pm_encode_limit(s->f->id);
    const pymtp_status status = pymtp_encode((int32_t)s->f->type, x, s->rows, s->columns, importance, blocks, s->bytes, 1, &err);
    int wrong = 0;
    for (int64_t i = 0; importance && i < s->columns; i++) wrong |= !(importance[i] >= 0 && isfinite(importance[i]));
    if (wrong) fuzz_check(status == PYMTP_E_ARG && strstr(err.text, "importance of column"));
    for (size_t i = 0; i < s->values && !wrong; i++)
        if (!(fabsf(x[i]) <= limit)) {
            char where[64];
            snprintf(where, sizeof where, "row %zu, column %zu:", i / (size_t)s->columns, i % (size_t)s->columns);
            fuzz_check(status == PYMTP_E_ARG && !strncmp(err.text, where, strlen(where)));
            wrong = 1;
        }
    fuzz_check(wrong || status == PYMTP_OK);
    if (!wrong) {
        float *back = decode(s, blocks);
        fuzz_check(all_finite(back, s->values));
        if (s->f->id == PM_F32) fuzz_check(!memcmp(back, x, s->values * sizeof *x));
        if (!importance) same_on_every_set(s, x, NULL, blocks);
        free(back);
    }
    free(blocks);
    free(importance);
    free(x);
}

static void wrong_shapes(fuzz_bytes *in) {
    const int32_t type = (int32_t)fuzz_u32(in);
    const int64_t rows = (int64_t)fuzz_u64(in), columns = (int64_t)fuzz_u64(in);
    const size_t bytes = (size_t)fuzz_u64(in);
    pymtp_error err = {0};
    if (rows == 0) return;
    fuzz_check(pymtp_decode(type, NULL, bytes, rows, columns, NULL, 1, &err) != PYMTP_OK && err.text[0] && !strchr(err.text, '\n'));
    fuzz_check(pymtp_encode(type, NULL, rows, columns, NULL, NULL, bytes, 1, &err) != PYMTP_OK && err.text[0] && !strchr(err.text, '\n'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    fuzz_bytes in = {data, n};
    const uint8_t kind = fuzz_u8(&in) % 8;
    if (kind == 7) {
        wrong_shapes(&in);
        return 0;
    }
    const pm_format *f = pm_format_get((pm_format_id)(fuzz_u8(&in) % PM_FORMAT_COUNT));
    const uint8_t size = fuzz_u8(&in);
    const size_t rows = 1 + size % 3u, blocks = 1 + size / 3u % MAX_BLOCKS * (f->block_values == 1 ? 9u : 1u), columns = blocks * f->block_values;
    const shape s = {f, (int64_t)rows, (int64_t)columns, rows * columns, rows * blocks * f->block_bytes};
    if (kind < 3) hostile_blocks(&s, &in);
    else hostile_values(&s, &in);
    return 0;
}
