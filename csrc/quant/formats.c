/* formats.c - the format table and dequantization, the scalar truth of every format.
 *
 * The order of float operations, (d * scale) * q - dmin * min, is that of the `gguf` Python package, so results agree to
 * the last bit. */
#include "quant/formats.h"
#include "quant/unpack.inc"

static void dequantize_F32(const void *src, float *dst, size_t n) { memcpy(dst, src, n * sizeof(float)); }

static void dequantize_F16(const void *src, float *dst, size_t n) {
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i++) dst[i] = unpack_half(p + 2 * i);
}

static void dequantize_BF16(const void *src, float *dst, size_t n) {
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i++) dst[i] = pm_bf16_to_f32((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
}

/* One unpacked block of n values to floats; mins only where the format has them (0 * NaN must not get in). */
static inline void expand(const pm_unpacked *u, size_t n, int mins, float *dst) {
    for (size_t i = 0; i < n; i++) {
        const float v = u->d * (float)u->scale[i / 16] * (float)u->q[i];
        dst[i] = mins ? v - u->dmin * (float)u->min[i / 16] : v;
    }
}

#define DEQUANTIZE(id, values, mins)                                                   \
    static void dequantize_##id(const void *src, float *dst, size_t n) {               \
        const size_t bytes = pm_format_get(PM_##id)->block_bytes;                      \
        const uint8_t *p = src;                                                        \
        for (size_t i = 0; i < n; i += values, p += bytes) {                           \
            pm_unpacked u;                                                             \
            unpack_##id(p, &u);                                                        \
            expand(&u, values, mins, dst + i);                                         \
        }                                                                              \
    }

DEQUANTIZE(Q4_0, 32, 0)
DEQUANTIZE(Q4_1, 32, 1)
DEQUANTIZE(Q5_0, 32, 0)
DEQUANTIZE(Q5_1, 32, 1)
DEQUANTIZE(Q8_0, 32, 0)
DEQUANTIZE(Q2_K, 256, 1)
DEQUANTIZE(Q3_K, 256, 0)
DEQUANTIZE(Q4_K, 256, 1)
DEQUANTIZE(Q5_K, 256, 1)
DEQUANTIZE(Q6_K, 256, 0)
DEQUANTIZE(IQ4_NL, 32, 0)
DEQUANTIZE(IQ4_XS, 256, 0)
DEQUANTIZE(MXFP4, 32, 0)

static const pm_format table[PM_FORMAT_COUNT] = {
#define FORMAT(id, type, name, values, bytes, act) [PM_##id] = {PM_##id, type, name, values, bytes, act, dequantize_##id},
#include "quant/formats.def"
#undef FORMAT
};

const pm_format *pm_format_get(pm_format_id id) { return &table[id]; }

const pm_format *pm_format_by_type(uint32_t ggml_type) {
    for (size_t i = 0; i < PM_FORMAT_COUNT; i++)
        if (table[i].type == ggml_type) return &table[i];
    return NULL;
}

size_t pm_format_row_bytes(const pm_format *f, size_t n) { return n / f->block_values * f->block_bytes; }
