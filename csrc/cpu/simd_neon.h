/* simd_neon.h - the vocabulary (simd_scalar.h) on NEON: 16 lanes are four registers. */
#ifndef PM_CPU_SIMD_NEON_H
#define PM_CPU_SIMD_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SCORE_QUERIES = 4, SCORE_KEYS = 1, VALUE_QUERIES = 4, VALUE_VECTORS = 1 }; /* 4 x 4 accumulators of 32 registers */

typedef struct vf { float32x4_t q[4]; } vf;
typedef struct vi { int32x4_t q[4]; } vi;

static inline vf vf_set1(float x) {
    const float32x4_t v = vdupq_n_f32(x);
    return (vf){{v, v, v, v}};
}
static inline vf vf_zero(void) { return vf_set1(0); }
static inline vf vf_load(const float *p) { return (vf){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}}; }
static inline void vf_store(float *p, vf x) {
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.q[i]);
}
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
/* fmax and fmin of the instruction set treat NaN otherwise */
static inline float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
static inline float32x4_t smaller(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
#define VF2(name, op) \
    static inline vf name(vf x, vf y) { return (vf){{op(x.q[0], y.q[0]), op(x.q[1], y.q[1]), op(x.q[2], y.q[2]), op(x.q[3], y.q[3])}}; }
VF2(vf_add, vaddq_f32)
VF2(vf_sub, vsubq_f32)
VF2(vf_mul, vmulq_f32)
VF2(vf_div, vdivq_f32)
VF2(vf_max, larger)
VF2(vf_min, smaller)
#undef VF2
static inline vf vf_fma(vf x, vf y, vf z) {
    for (int i = 0; i < 4; i++) z.q[i] = vfmaq_f32(z.q[i], x.q[i], y.q[i]);
    return z;
}

static inline float32x4_t fold_4(vf x) { return vaddq_f32(vaddq_f32(x.q[0], x.q[2]), vaddq_f32(x.q[1], x.q[3])); }
static inline float vf_sum(vf x) {
    const float32x4_t h4 = fold_4(x);
    const float32x2_t h2 = vadd_f32(vget_low_f32(h4), vget_high_f32(h4));
    return vget_lane_f32(h2, 0) + vget_lane_f32(h2, 1);
}
static inline float vf_hmax(vf x) {
    const float32x4_t h4 = larger(larger(x.q[0], x.q[2]), larger(x.q[1], x.q[3]));
    const float32x4_t h2 = larger(h4, vextq_f32(h4, h4, 2));
    return vgetq_lane_f32(larger(h2, vextq_f32(h2, h2, 1)), 0);
}
static inline void vf_sum4(vf a, vf b, vf c, vf d, float *out) {
    const float32x4_t x = fold_4(a), y = fold_4(b), z = fold_4(c), w = fold_4(d);
    const float32x4_t xy0 = vzip1q_f32(x, y), xy2 = vzip2q_f32(x, y), zw0 = vzip1q_f32(z, w), zw2 = vzip2q_f32(z, w);
    const float32x4_t xy = vaddq_f32(xy0, xy2), zw = vaddq_f32(zw0, zw2); /* x0 + x2, y0 + y2, x1 + x3, y1 + y3 */
    vst1q_f32(out, vaddq_f32(vcombine_f32(vget_low_f32(xy), vget_low_f32(zw)), vcombine_f32(vget_high_f32(xy), vget_high_f32(zw))));
}

static inline void vf_to_f16(vf x, uint16_t *p) {
    for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.q[i])));
}
static inline float32x4_t four_halves(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline float half_to_float(uint16_t h) { return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0); }
static inline vf vf_from_f16(const uint16_t *p) { return (vf){{four_halves(p), four_halves(p + 4), four_halves(p + 8), four_halves(p + 12)}}; }
static inline float32x4_t four_words(int16x4_t x) { return vcvtq_f32_s32(vmovl_s16(x)); }
static inline vf vf_from_i8(const int8_t *p) {
    const int8x16_t x = vld1q_s8(p);
    const int16x8_t a = vmovl_s8(vget_low_s8(x)), b = vmovl_s8(vget_high_s8(x));
    return (vf){{four_words(vget_low_s16(a)), four_words(vget_high_s16(a)), four_words(vget_low_s16(b)), four_words(vget_high_s16(b))}};
}
static inline vi vi_from_vf_round(vf x) {
    return (vi){{vcvtnq_s32_f32(x.q[0]), vcvtnq_s32_f32(x.q[1]), vcvtnq_s32_f32(x.q[2]), vcvtnq_s32_f32(x.q[3])}};
}
static inline void vf_store_i8(int8_t *p, vf x) {
    const vi n = vi_from_vf_round(x);
    const int16x8_t a = vcombine_s16(vmovn_s32(n.q[0]), vmovn_s32(n.q[1])), b = vcombine_s16(vmovn_s32(n.q[2]), vmovn_s32(n.q[3]));
    vst1q_s8(p, vcombine_s8(vmovn_s16(a), vmovn_s16(b)));
}
static inline vf vf_pow2n(vi n) {
    vf r;
    for (int i = 0; i < 4; i++) r.q[i] = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.q[i], vdupq_n_s32(127)), 23));
    return r;
}

#endif
