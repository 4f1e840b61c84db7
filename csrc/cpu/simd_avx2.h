/* simd_avx2.h - the vocabulary (simd_scalar.h) on AVX2, FMA and F16C: 16 lanes are two registers. */
#ifndef PM_CPU_SIMD_AVX2_H
#define PM_CPU_SIMD_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SCORE_QUERIES = 2, SCORE_KEYS = 2, VALUE_QUERIES = 4, VALUE_VECTORS = 1 };

typedef struct vf { __m256 a, b; } vf;
typedef struct vi { __m256i a, b; } vi;

static inline vf vf_set1(float x) { const __m256 v = _mm256_set1_ps(x); return (vf){v, v}; }
static inline vf vf_zero(void) { return (vf){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline vf vf_load(const float *p) { return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
static inline vf vf_load_tail(const float *p, size_t n) {
    float t[16] = {0};
    memcpy(t, p, n * sizeof(float));
    return vf_load(t);
}
static inline void vf_store_tail(float *p, size_t n, vf x) {
    float t[16];
    vf_store(t, x);
    memcpy(p, t, n * sizeof(float));
}
#define VF2(name, op) static inline vf name(vf x, vf y) { return (vf){op(x.a, y.a), op(x.b, y.b)}; }
VF2(vf_add, _mm256_add_ps)
VF2(vf_sub, _mm256_sub_ps)
VF2(vf_mul, _mm256_mul_ps)
VF2(vf_div, _mm256_div_ps)
VF2(vf_max, _mm256_max_ps)
VF2(vf_min, _mm256_min_ps)
#undef VF2
static inline vf vf_fma(vf x, vf y, vf z) { return (vf){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }

static inline float vf_sum(vf x) {
    const __m256 h8 = _mm256_add_ps(x.a, x.b);
    const __m128 h4 = _mm_add_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
    const __m128 h2 = _mm_add_ps(h4, _mm_movehl_ps(h4, h4));
    return _mm_cvtss_f32(_mm_add_ss(h2, _mm_movehdup_ps(h2)));
}
static inline float vf_hmax(vf x) {
    const __m256 h8 = _mm256_max_ps(x.a, x.b);
    const __m128 h4 = _mm_max_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
    const __m128 h2 = _mm_max_ps(h4, _mm_movehl_ps(h4, h4));
    return _mm_cvtss_f32(_mm_max_ss(h2, _mm_movehdup_ps(h2)));
}
static inline __m128 fold_4(vf x) {
    const __m256 h8 = _mm256_add_ps(x.a, x.b);
    return _mm_add_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
}
static inline void vf_sum4(vf a, vf b, vf c, vf d, float *out) {
    __m128 x0 = fold_4(a), x1 = fold_4(b), x2 = fold_4(c), x3 = fold_4(d);
    _MM_TRANSPOSE4_PS(x0, x1, x2, x3); /* lane i of all four in xi */
    _mm_storeu_ps(out, _mm_add_ps(_mm_add_ps(x0, x2), _mm_add_ps(x1, x3)));
}
static inline void vf_to_f16(vf x, uint16_t *p) {
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((void *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
static inline float half_to_float(uint16_t h) { return _cvtsh_ss(h); }
static inline vf vf_from_f16(const uint16_t *p) {
    return (vf){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)),
                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 8)))};
}
static inline vf vf_from_i8(const int8_t *p) {
    const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
    return (vf){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)))};
}
static inline vi vi_from_vf_round(vf x) { return (vi){_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
static inline __m256 pow2n_256(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
static inline vf vf_pow2n(vi n) { return (vf){pow2n_256(n.a), pow2n_256(n.b)}; }

static inline void vf_store_i8(int8_t *p, vf x) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)), 0xd8);
    _mm_storeu_si128((void *)p, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

#endif
