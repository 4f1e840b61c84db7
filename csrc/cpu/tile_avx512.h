/* tile_avx512.h - the vocabulary of tiles (tile_scalar.h) on AVX-512 F, BW, DQ, VL: 16 rows a vector. With VNNI (compiled with
 * -mavx512vnni) byte products are one instruction; without, pairs are added in 16 bits. */
#ifndef PM_CPU_TILE_AVX512_H
#define PM_CPU_TILE_AVX512_H

#include "cpu/layout.h"

#include <immintrin.h>
#include <stdint.h>

#define LANES 16
#define VECTORS 2    /* two independent sets of rows hide the latency of one and share its broadcasts */
#if defined(PYMTP_SMALL_TILES) /* sanitized builds: a tenth of the code */
#define TILE_ROWS 2
#else
#define TILE_ROWS 6 /* 2 x 6 integer and 2 x 6 float accumulators of 32 registers */
#endif

typedef __m512i tb, ti, ta;
typedef __m512 tf;

ALWAYS void t_prefetch_near(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
ALWAYS void t_prefetch_far(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }

ALWAYS tb tb_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
ALWAYS tb tb_nibble(tb x, int high) { return _mm512_and_si512(high ? _mm512_srli_epi16(x, 4) : x, _mm512_set1_epi8(15)); }
ALWAYS tb tb_pair(tb x, int shift) { return _mm512_and_si512(_mm512_srli_epi16(x, shift), _mm512_set1_epi8(3)); }
/* q | (x & mask): one instruction */
ALWAYS tb or_masked(tb q, tb x, char mask) { return _mm512_ternarylogic_epi32(q, x, _mm512_set1_epi8(mask), 0xf8); }
ALWAYS tb shifted(tb x, int left) {
    return left > 0 ? _mm512_slli_epi16(x, left) : left < 0 ? _mm512_srli_epi16(x, -left) : x;
}
ALWAYS tb tb_or_bit(tb q, tb x, int bit, int to) { return or_masked(q, shifted(x, to - bit), (char)(1 << to)); }
ALWAYS tb tb_or_pair(tb q, tb x, int shift) { return or_masked(q, shifted(x, 4 - shift), 48); }
ALWAYS tb tb_lookup(const int8_t *table, tb i) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table)), i);
}

ALWAYS ta ta_load(const int8_t *p) {
    int32_t x;
    __builtin_memcpy(&x, p, 4);
    return _mm512_set1_epi32(x);
}

ALWAYS ti ti_zero(void) { return _mm512_setzero_si512(); }
ALWAYS ti ti_set(int32_t x) { return _mm512_set1_epi32(x); }
ALWAYS ti ti_shl(ti x, int n) { return n ? _mm512_slli_epi32(x, (unsigned)n) : x; }

#if defined(__AVX512VNNI__)
#define WIDE_BIAS 128
ALWAYS ti t_dot2(ti s, tb w0, ta a0, tb w1, ta a1) { return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(s, w0, a0), w1, a1); }
ALWAYS tb tb_wide(tb x) { return _mm512_xor_si512(x, _mm512_set1_epi8((char)128)); }
ALWAYS ti t_dot2_wide(ti s, tb w0, ta a0, tb w1, ta a1) { return t_dot2(s, w0, a0, w1, a1); }
#else
#define WIDE_BIAS 0
/* Up to 6 bits: four products of at most 63 * 127 fit in 16 bits with their sign. */
ALWAYS ti t_dot2(ti s, tb w0, ta a0, tb w1, ta a1) {
    const ti pairs = _mm512_add_epi16(_mm512_maddubs_epi16(w0, a0), _mm512_maddubs_epi16(w1, a1));
    return _mm512_add_epi32(s, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
ALWAYS tb tb_wide(tb x) { return x; }
/* Signed weights: the sign moves to the activation, which is never -128. |w| <= 128: two products fit in 16 bits. */
ALWAYS ti dot_signed(ti s, tb w, ta a) {
    const ta turned = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w), _mm512_setzero_si512(), a);
    return _mm512_add_epi32(s, _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_abs_epi8(w), turned), _mm512_set1_epi16(1)));
}
ALWAYS ti t_dot2_wide(ti s, tb w0, ta a0, tb w1, ta a1) { return dot_signed(dot_signed(s, w0, a0), w1, a1); }
#endif

ALWAYS tf tf_zero(void) { return _mm512_setzero_ps(); }
ALWAYS tf tf_set(float x) { return _mm512_set1_ps(x); }
ALWAYS tf tf_load(const float *p) { return _mm512_loadu_ps(p); }
ALWAYS void tf_store(float *p, tf x) { _mm512_storeu_ps(p, x); }
ALWAYS tf tf_of(ti x) { return _mm512_cvtepi32_ps(x); }
ALWAYS tf tf_add(tf x, tf y) { return _mm512_add_ps(x, y); }
ALWAYS tf tf_mul(tf x, tf y) { return _mm512_mul_ps(x, y); }
ALWAYS tf tf_fma(tf x, tf y, tf z) { return _mm512_fmadd_ps(x, y, z); }
ALWAYS tf tf_fnma(tf x, tf y, tf z) { return _mm512_fnmadd_ps(x, y, z); }
ALWAYS tf tf_f16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
ALWAYS tf tf_bf16(const uint8_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
ALWAYS ti bytes_at(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)); }
ALWAYS tf tf_u8(const uint8_t *p) { return tf_of(bytes_at(p)); }
ALWAYS tf tf_i8(const uint8_t *p) { return tf_of(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p))); }
ALWAYS tf tf_u4(const uint8_t *p, int high) {
    return tf_of(_mm512_and_si512(high ? _mm512_srli_epi32(bytes_at(p), 4) : bytes_at(p), _mm512_set1_epi32(15)));
}
ALWAYS tf tf_e8(const uint8_t *p) {
    const ti e = bytes_at(p), normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const ti small = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)), small));
}

#endif
