/* simd_avx512.h - the vocabulary (simd_scalar.h) on AVX-512 F, BW, DQ and VL. */
#ifndef PM_CPU_SIMD_AVX512_H
#define PM_CPU_SIMD_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SCORE_QUERIES = 4, SCORE_KEYS = 4, VALUE_QUERIES = 8, VALUE_VECTORS = 2 };

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
/* One add per step of the fold for all four: first two and two sums of 8 lanes, then four of 4 lanes, one per quarter. */
static inline void vf_sum4(vf a, vf b, vf c, vf d, float *out) {
    const vf ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const vf cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    const vf h4 = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    const vf h2 = _mm512_add_ps(h4, _mm512_permute_ps(h4, 0x4e)), h1 = _mm512_add_ps(h2, _mm512_permute_ps(h2, 0xb1));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, h1)));
}
static inline void vf_to_f16(vf x, uint16_t *p) { _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
static inline float half_to_float(uint16_t h) { return _cvtsh_ss(h); }
static inline vf vf_from_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
static inline vf vf_from_i8(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p))); }
static inline vi vi_from_vf_round(vf x) { return _mm512_cvtps_epi32(x); }
static inline vf vf_pow2n(vi n) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23)); }

static inline void vf_store_i8(int8_t *p, vf x) { _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x))); }

#endif
