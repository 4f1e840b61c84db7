/* tile_neon.h - the vocabulary of tiles (tile_scalar.h) on NEON with the dot product of bytes: 4 rows a vector. With the product
 * of byte matrices (compiled with +i8mm) two rows of activations meet the weights at once. Weights are at most 127 with their
 * sign, so signed products serve all formats. */
#ifndef PM_CPU_TILE_NEON_H
#define PM_CPU_TILE_NEON_H

#include "cpu/layout.h"

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define LANES 4
#define VECTORS 2
#if defined(PYMTP_SMALL_TILES) /* sanitized builds: a tenth of the code */
#define TILE_ROWS 2
#else
#define TILE_ROWS 4 /* 2 x 8 pieces of weights and 2 x 4 float accumulators of 32 registers */
#endif

#define UNROLL _Pragma("GCC unroll 16")

typedef uint8x16_t tb;
typedef int32x4_t ti;
typedef float32x4_t tf;

ALWAYS void t_prefetch_near(const void *p) { __builtin_prefetch(p); }
ALWAYS void t_prefetch_far(const void *p) { __builtin_prefetch(p, 0, 2); }

ALWAYS tb tb_load(const uint8_t *p) { return vld1q_u8(p); }
ALWAYS tb shifted(tb x, int left) {
    return left > 0 ? x << vdupq_n_u8((uint8_t)left) : left < 0 ? x >> vdupq_n_u8((uint8_t)-left) : x;
}
ALWAYS tb tb_nibble(tb x, int high) { return high ? shifted(x, -4) : vandq_u8(x, vdupq_n_u8(15)); }
ALWAYS tb tb_pair(tb x, int shift) { return vandq_u8(shifted(x, -shift), vdupq_n_u8(3)); }
ALWAYS tb or_masked(tb q, tb x, int mask) { return vorrq_u8(q, vandq_u8(x, vdupq_n_u8((uint8_t)mask))); }
ALWAYS tb tb_or_bit(tb q, tb x, int bit, int to) { return or_masked(q, shifted(x, to - bit), 1 << to); }
ALWAYS tb tb_or_pair(tb q, tb x, int shift) { return or_masked(q, shifted(x, 4 - shift), 48); }
ALWAYS tb tb_lookup(const int8_t *table, tb i) { return vqtbl1q_u8(vreinterpretq_u8_s8(vld1q_s8(table)), i); }

#define WIDE_BIAS 0
ALWAYS tb tb_wide(tb x) { return x; }

ALWAYS ti ti_zero(void) { return vdupq_n_s32(0); }
ALWAYS ti ti_set(int32_t x) { return vdupq_n_s32(x); }
ALWAYS ti ti_shl(ti x, int n) { return vshlq_s32(x, vdupq_n_s32(n)); }

/* All that one scale covers: consecutive pieces j[0] on, 4 or 8 of them. */
#define DOT_PIECES(bits) 8
#define DOT_PIECES_WIDE 8

/* s + the products of four pieces with 16 activations. */
ALWAYS ti dot16(ti s, const tb *w, int8x16_t x) {
    s = vdotq_laneq_s32(s, vreinterpretq_s8_u8(w[0]), x, 0);
    s = vdotq_laneq_s32(s, vreinterpretq_s8_u8(w[1]), x, 1);
    s = vdotq_laneq_s32(s, vreinterpretq_s8_u8(w[2]), x, 2);
    return vdotq_laneq_s32(s, vreinterpretq_s8_u8(w[3]), x, 3);
}
ALWAYS ti dot_row(ti s, const int n, const tb *w, const pm_act_block *a, const int first) {
    UNROLL for (int i = 0; i < n; i += 4) s = dot16(s, w + i, vld1q_s8(a->q + 4 * (first + i)));
    return s;
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
#define DOT_ROWS 2
/* Two pieces of rows 0 and 1 of the vector, or of rows 2 and 3, and of two rows of activations make a matrix of four sums. */
typedef struct sums { int32x4_t low, high; } sums;
ALWAYS int8x16_t two_pieces(tb w0, tb w1, int high) {
    const uint32x4_t x = vreinterpretq_u32_u8(w0), y = vreinterpretq_u32_u8(w1);
    return vreinterpretq_s8_u32(high ? vzip2q_u32(x, y) : vzip1q_u32(x, y));
}
ALWAYS sums plus_product(sums s, tb w0, tb w1, int8x16_t x) {
    return (sums){vmmlaq_s32(s.low, two_pieces(w0, w1, 0), x), vmmlaq_s32(s.high, two_pieces(w0, w1, 1), x)};
}
ALWAYS void dot_rows(ti *s, const int n, const tb *w, const pm_act_block *a, const int first) {
    sums m = {vzip1q_s32(s[0], s[1]), vzip2q_s32(s[0], s[1])};
    UNROLL for (int i = 0; i < n; i += 4) {
        const int64x2_t x = vreinterpretq_s64_s8(vld1q_s8(a[0].q + 4 * (first + i)));
        const int64x2_t y = vreinterpretq_s64_s8(vld1q_s8(a[1].q + 4 * (first + i)));
        m = plus_product(m, w[i], w[i + 1], vreinterpretq_s8_s64(vzip1q_s64(x, y)));
        m = plus_product(m, w[i + 2], w[i + 3], vreinterpretq_s8_s64(vzip2q_s64(x, y)));
    }
    s[0] = vuzp1q_s32(m.low, m.high);
    s[1] = vuzp2q_s32(m.low, m.high);
}
ALWAYS void t_dot(ti *s, const int rows, const int n, const tb *w, const pm_act_block *a, const int *j) {
    if (rows == 2) dot_rows(s, n, w, a, j[0]);
    else s[0] = dot_row(s[0], n, w, a, j[0]);
}
#else
#define DOT_ROWS 1
ALWAYS void t_dot(ti *s, const int rows, const int n, const tb *w, const pm_act_block *a, const int *j) {
    s[0] = dot_row(s[0], n, w, a, j[0]);
}
#endif
ALWAYS void t_dot_wide(ti *s, const int rows, const int n, const tb *w, const pm_act_block *a, const int *j) { t_dot(s, rows, n, w, a, j); }

ALWAYS tf tf_zero(void) { return vdupq_n_f32(0); }
ALWAYS tf tf_set(float x) { return vdupq_n_f32(x); }
ALWAYS tf tf_load(const float *p) { return vld1q_f32(p); }
ALWAYS void tf_store(float *p, tf x) { vst1q_f32(p, x); }
ALWAYS tf tf_of(ti x) { return vcvtq_f32_s32(x); }
ALWAYS tf tf_add(tf x, tf y) { return vaddq_f32(x, y); }
ALWAYS tf tf_mul(tf x, tf y) { return vmulq_f32(x, y); }
ALWAYS tf tf_fma(tf x, tf y, tf z) { return vfmaq_f32(z, x, y); }
ALWAYS tf tf_fnma(tf x, tf y, tf z) { return vfmsq_f32(z, x, y); }
ALWAYS tf tf_f16(const uint8_t *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
ALWAYS tf tf_bf16(const uint8_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16)); }
ALWAYS uint8x8_t bytes_at(const uint8_t *p) {
    uint32_t x;
    memcpy(&x, p, 4);
    return vcreate_u8(x);
}
ALWAYS uint32x4_t widened(uint8x8_t x) { return vmovl_u16(vget_low_u16(vmovl_u8(x))); }
ALWAYS tf tf_u8(const uint8_t *p) { return vcvtq_f32_u32(widened(bytes_at(p))); }
ALWAYS tf tf_i8(const uint8_t *p) { return tf_of(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(bytes_at(p)))))); }
ALWAYS tf tf_u4(const uint8_t *p, int high) {
    const uint8x8_t x = bytes_at(p);
    return vcvtq_f32_u32(widened(high ? vshr_n_u8(x, 4) : vand_u8(x, vdup_n_u8(15))));
}
ALWAYS tf tf_e8(const uint8_t *p) {
    const uint32x4_t e = widened(bytes_at(p)), normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    const uint32x4_t small = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), small, normal));
}

#endif
