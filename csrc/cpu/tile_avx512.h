/* tile_avx512.h - the vocabulary of tiles (tile_scalar.h) on AVX-512 F, BW, DQ, VL: 16 rows a vector. With VNNI (compiled with
 * -mavx512vnni) byte products are added up in 32 bits by one instruction; without, first in 16 bits. */
#ifndef PM_CPU_TILE_AVX512_H
#define PM_CPU_TILE_AVX512_H

#include "cpu/layout.h"

#include <immintrin.h>
#include <stdint.h>

#define LANES 16
#define VECTORS 2    /* two independent sets of rows hide the latency of one and share its broadcasts */
#if defined(PYMTP_SMALL_TILES) /* sanitized builds: a tenth of the code */
#define TILE_ROWS 2
#elif defined(__AVX512VNNI__)
#define TILE_ROWS 6 /* 2 x 6 integer and 2 x 6 float accumulators of 32 registers */
#else
#define TILE_ROWS 4 /* 2 x 8 pieces of weights and 2 x 4 float accumulators */
#endif

#define UNROLL _Pragma("GCC unroll 16")

typedef __m512i tb, ti;
typedef __m512 tf;

ALWAYS void t_prefetch_near(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
ALWAYS void t_prefetch_far(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }

ALWAYS tb tb_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
ALWAYS tb tb_nibble(tb x, int high) { return _mm512_and_si512(high ? _mm512_srli_epi32(x, 4) : x, _mm512_set1_epi8(15)); }
ALWAYS tb tb_pair(tb x, int shift) { return _mm512_and_si512(_mm512_srli_epi32(x, (unsigned)shift), _mm512_set1_epi8(3)); }
/* q | (x & mask): one instruction */
ALWAYS tb or_masked(tb q, tb x, char mask) { return _mm512_ternarylogic_epi32(q, x, _mm512_set1_epi8(mask), 0xf8); }
ALWAYS tb shifted(tb x, int left) {
    return left > 0 ? _mm512_slli_epi32(x, (unsigned)left) : left < 0 ? _mm512_srli_epi32(x, (unsigned)-left) : x;
}
ALWAYS tb tb_or_bit(tb q, tb x, int bit, int to) { return or_masked(q, shifted(x, to - bit), (char)(1 << to)); }
ALWAYS tb tb_or_pair(tb q, tb x, int shift) { return or_masked(q, shifted(x, 4 - shift), 48); }
ALWAYS tb tb_lookup(const int8_t *table, tb i) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table)), i);
}

ALWAYS ti ti_zero(void) { return _mm512_setzero_si512(); }
ALWAYS ti ti_set(int32_t x) { return _mm512_set1_epi32(x); }
ALWAYS ti ti_shl(ti x, int n) { return n ? _mm512_slli_epi32(x, (unsigned)n) : x; }

/* Activations 4 j .. 4 j + 3 of a block, for all rows. */
ALWAYS ti four_at(const pm_act_block *a, const int j) {
    int32_t x;
    __builtin_memcpy(&x, a->q + 4 * j, 4);
    return _mm512_set1_epi32(x);
}

#define DOT_ROWS 1
#define DOT_PIECES_WIDE 2
#if defined(__AVX512VNNI__)
#define WIDE_BIAS 128
#define DOT_PIECES(bits) 2
ALWAYS tb tb_wide(tb x) { return _mm512_xor_si512(x, _mm512_set1_epi8((char)128)); }
ALWAYS void t_dot(ti *s, const int rows, const int n, const tb *w, const pm_act_block *a, const int *j) {
    UNROLL for (int i = 0; i < n; i++) s[0] = _mm512_dpbusd_epi32(s[0], w[i], four_at(a, j[i]));
}
ALWAYS void t_dot_wide(ti *s, const int rows, const int n, const tb *w, const pm_act_block *a, const int *j) {
    t_dot(s, rows, n, w, a, j);
}
#else
#define WIDE_BIAS 0
/* 2 n products of n pieces are added up in 16 bits: n at most 8, 4, 2 for weights of 4, 5, 6 bits. */
#define DOT_PIECES(bits) ((bits) <= 4 ? 8 : (bits) == 5 ? 4 : 2)
ALWAYS tb tb_wide(tb x) { return x; }
ALWAYS ti plus_pairs(ti s, ti pairs) { return _mm512_add_epi32(s, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1))); }
ALWAYS void t_dot(ti *s, const int rows, const int n, const tb *w, const pm_act_block *a, const int *j) {
    ti pairs = _mm512_maddubs_epi16(w[0], four_at(a, j[0]));
    UNROLL for (int i = 1; i < n; i++)
        pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(w[i], four_at(a, j[i])));
    s[0] = plus_pairs(s[0], pairs);
}
/* Signed weights: the sign moves to the activation, which is never -128. |w| <= 128: two products fit in 16 bits. */
ALWAYS void t_dot_wide(ti *s, const int rows, const int n, const tb *w, const pm_act_block *a, const int *j) {
    UNROLL for (int i = 0; i < n; i++) {
        const ti x = four_at(a, j[i]);
        const ti turned = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w[i]), _mm512_setzero_si512(), x);
        s[0] = plus_pairs(s[0], _mm512_maddubs_epi16(_mm512_abs_epi8(w[i]), turned));
    }
}
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
