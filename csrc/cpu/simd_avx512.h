/* simd_avx512.h - the vocabulary (simd_scalar.h) on AVX-512 F, BW, DQ, VL and VNNI. */
#ifndef PM_CPU_SIMD_AVX512_H
#define PM_CPU_SIMD_AVX512_H

#include "cpu/simd_x86.h"

typedef __m512 vf;
typedef __m512i vi;

static inline __mmask16 tail_mask(size_t n) { return (__mmask16)((1u << n) - 1); }

static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf vf_load_tail(const float *p, size_t n) { return _mm512_maskz_loadu_ps(tail_mask(n), p); }
static inline void vf_store_tail(float *p, size_t n, vf x) { _mm512_mask_storeu_ps(p, tail_mask(n), x); }
static inline vf vf_add(vf x, vf y) { return _mm512_add_ps(x, y); }
static inline vf vf_sub(vf x, vf y) { return _mm512_sub_ps(x, y); }
static inline vf vf_mul(vf x, vf y) { return _mm512_mul_ps(x, y); }
static inline vf vf_div(vf x, vf y) { return _mm512_div_ps(x, y); }
static inline vf vf_max(vf x, vf y) { return _mm512_max_ps(x, y); }
static inline vf vf_min(vf x, vf y) { return _mm512_min_ps(x, y); }
static inline vf vf_fma(vf x, vf y, vf z) { return _mm512_fmadd_ps(x, y, z); }

static inline __m256 upper_half(vf x) { return _mm512_extractf32x8_ps(x, 1); }
static inline float vf_sum(vf x) {
    const __m256 h8 = _mm256_add_ps(_mm512_castps512_ps256(x), upper_half(x));
    const __m128 h4 = _mm_add_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
    const __m128 h2 = _mm_add_ps(h4, _mm_movehl_ps(h4, h4));
    return _mm_cvtss_f32(_mm_add_ss(h2, _mm_movehdup_ps(h2)));
}
static inline float vf_hmax(vf x) {
    const __m256 h8 = _mm256_max_ps(_mm512_castps512_ps256(x), upper_half(x));
    const __m128 h4 = _mm_max_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
    const __m128 h2 = _mm_max_ps(h4, _mm_movehl_ps(h4, h4));
    return _mm_cvtss_f32(_mm_max_ss(h2, _mm_movehdup_ps(h2)));
}
static inline vf vf_from_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
static inline vf vf_from_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
static inline vf vf_from_i8(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p))); }
static inline vi vi_from_vf_round(vf x) { return _mm512_cvtps_epi32(x); }
static inline vf vf_pow2n(vi n) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23)); }

/* 32 products of bytes in 8 lanes: four neighbours each. Bytes of a become unsigned by adding 128; what that adds, 128 times
 * the four b, is subtracted again. All exact. */
static inline __m256i dot32_lanes(const int8_t *a, const int8_t *b) {
    const __m256i bias = _mm256_set1_epi8(-128), y = _mm256_loadu_si256((const void *)b);
    const __m256i x = _mm256_xor_si256(_mm256_loadu_si256((const void *)a), bias);
    const __m256i extra = _mm256_dpbusd_epi32(_mm256_setzero_si256(), bias, y);
    return _mm256_sub_epi32(_mm256_dpbusd_epi32(_mm256_setzero_si256(), x, y), extra);
}
static inline int32_t dot32_scaled(const int8_t *a, const int8_t *b, const int32_t *scale) {
    const __m256i s = _mm256_set_m128i(_mm_set1_epi32(scale[1]), _mm_set1_epi32(scale[0]));
    return sum_i32(_mm256_mullo_epi32(dot32_lanes(a, b), s));
}
static inline int32_t dot32(const int8_t *a, const int8_t *b) { return sum_i32(dot32_lanes(a, b)); }

static inline vi vi_dot4(vi c, const int8_t *a, const int8_t *b) {
    return _mm512_dpbusd_epi32(c, _mm512_loadu_si512((const void *)a), _mm512_loadu_si512((const void *)b));
}
static inline vi vi_zero(void) { return _mm512_setzero_si512(); }
static inline vi vi_add(vi x, vi y) { return _mm512_add_epi32(x, y); }
static inline int32_t vi_sum(vi x) { return _mm512_reduce_add_epi32(x); }
#define CHAINS 8

#endif
