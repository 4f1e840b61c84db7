/* lanes.h - vectors for encoders: LANES blocks lie side by side, value i of block l at [i * LANES + l], and a vector holds the
 * same value of V of them.
 *
 * Each lane is computed as if it were alone, with operations that round once (no fused ones, no sums across lanes), so V, which
 * is what the instruction set gives, never changes a bit. Operators are the compiler's own; here is what they lack. */
#ifndef PM_QUANT_LANES_H
#define PM_QUANT_LANES_H

#include <stdint.h>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define LANES 16

#if defined(__AVX512F__)
#define V 16
#elif defined(__AVX2__)
#define V 8
#else
#define V 4
#endif

typedef float vf __attribute__((vector_size(4 * V), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * V), may_alias));

static inline vf vf_at(const float *p) { return *(const vf *)p; } /* p aligned to a vector, as all lanes are */
static inline void vf_put(float *p, vf a) { *(vf *)p = a; }
static inline vf vf_all(float a) { return a - (vf){0}; }

/* vf_min, vf_max; vf_pick: x where a > b, else y. Values are not NaN; which zero comes out of two is not defined. */
#if defined(__AVX512F__)
static inline vf vf_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vf vf_pick(vf a, vf b, vf x, vf y) {
    return (vf)_mm512_mask_blend_ps(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ), (__m512)y, (__m512)x);
}
#elif defined(__AVX2__)
static inline vf vf_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vf vf_pick(vf a, vf b, vf x, vf y) {
    return (vf)_mm256_blendv_ps((__m256)y, (__m256)x, _mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ));
}
#else
static inline vf vf_pick(vf a, vf b, vf x, vf y) {
    const vi mask = a > b;
    return (vf)((mask & (vi)x) | (~mask & (vi)y));
}
#if defined(__SSE2__)
static inline vf vf_min(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
#elif defined(__aarch64__)
static inline vf vf_min(vf a, vf b) { return (vf)vminq_f32((float32x4_t)a, (float32x4_t)b); }
static inline vf vf_max(vf a, vf b) { return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
#else
static inline vf vf_min(vf a, vf b) { return vf_pick(b, a, a, b); }
static inline vf vf_max(vf a, vf b) { return vf_pick(a, b, a, b); }
#endif
#endif

static inline vf vf_abs(vf a) { return (vf)((vi)a & 0x7fffffff); }
static inline vf vf_clamp(vf a, float low, float high) { return vf_min(vf_max(a, vf_all(low)), vf_all(high)); }
/* to the nearest integer, ties to even, for |a| < 2^22 */
static inline vf vf_round(vf a) { return (a + 12582912.0f) - 12582912.0f; }
/* 1 / a; 0 where a is 0 or so small that no half can tell it from 0 */
static inline vf vf_inverse(vf a) { return vf_pick(vf_abs(a), vf_all(0x1p-100f), 1.0f / a, (vf){0}); }
static inline vi vi_of(vf a) { return __builtin_convertvector(a, vi); } /* of integers */

/* To the nearest half, ties to even, as its 16 bits (pm_f32_to_f16), and back; of finite values that a half can hold. */
static inline vi vf_to_half(vf v) {
    const vi a = (vi)v & 0x7fffffff, tiny = a < 0x38800000; /* below 2^-14 halves are 2^-24 apart, as floats are from 0.5 to 1 */
    const vi subnormal = (vi)((vf)a + 0.5f) - 0x3f000000, normal = (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13;
    return (tiny & subnormal) | (~tiny & normal) | ((vi)v >> 16 & 0x8000);
}
static inline vf vf_from_half(vi h) { return (vf)((vi)((vf)((h & 0x7fff) << 13) * 0x1p112f) | (h & 0x8000) << 16); }

/* Four rows of four to their transpose, `step` floats apart. */
static inline void transpose4(const float *a, const float *b, const float *c, const float *d, float *out, int step) {
#if defined(__SSE2__)
    __m128 r0 = _mm_loadu_ps(a), r1 = _mm_loadu_ps(b), r2 = _mm_loadu_ps(c), r3 = _mm_loadu_ps(d);
    _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
    _mm_store_ps(out, r0);
    _mm_store_ps(out + step, r1);
    _mm_store_ps(out + 2 * step, r2);
    _mm_store_ps(out + 3 * step, r3);
#else
    for (int i = 0; i < 4; i++) {
        out[i * step] = a[i];
        out[i * step + 1] = b[i];
        out[i * step + 2] = c[i];
        out[i * step + 3] = d[i];
    }
#endif
}

#endif
