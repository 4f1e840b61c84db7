/* simd_scalar.h - the vocabulary in portable C: `vf` is 16 float lanes, `vi` 16 int32 lanes. Every simd_<isa>.h defines the same
 * names with the same meaning; sums fold lanes 8, 4, 2, 1 everywhere. Here vf_fma rounds twice (no FMA in the baseline).
 * vf_min and vf_max return their second argument when the comparison is false. */
#ifndef PM_CPU_SIMD_SCALAR_H
#define PM_CPU_SIMD_SCALAR_H

#include "base/f16.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct vf { float v[16]; } vf;
typedef struct vi { int32_t v[16]; } vi;

#define LANES(expression)                         \
    do {                                          \
        for (int i = 0; i < 16; i++) expression;  \
    } while (0)

static inline vf vf_set1(float a) { vf r; LANES(r.v[i] = a); return r; }
static inline vf vf_zero(void) { return vf_set1(0.0f); }
static inline vf vf_load(const float *p) { vf r; memcpy(r.v, p, sizeof r.v); return r; }
static inline void vf_store(float *p, vf a) { memcpy(p, a.v, sizeof a.v); }
static inline vf vf_load_tail(const float *p, size_t n) { vf r = vf_zero(); memcpy(r.v, p, n * sizeof(float)); return r; }
static inline void vf_store_tail(float *p, size_t n, vf a) { memcpy(p, a.v, n * sizeof(float)); }
static inline vf vf_add(vf a, vf b) { LANES(a.v[i] += b.v[i]); return a; }
static inline vf vf_sub(vf a, vf b) { LANES(a.v[i] -= b.v[i]); return a; }
static inline vf vf_mul(vf a, vf b) { LANES(a.v[i] *= b.v[i]); return a; }
static inline vf vf_div(vf a, vf b) { LANES(a.v[i] /= b.v[i]); return a; }
static inline vf vf_fma(vf a, vf b, vf c) { LANES(c.v[i] += a.v[i] * b.v[i]); return c; }
static inline vf vf_max(vf a, vf b) { LANES(a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]); return a; }
static inline vf vf_min(vf a, vf b) { LANES(a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]); return a; }
static inline float vf_sum(vf a) {
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) a.v[i] += a.v[i + half];
    return a.v[0];
}
static inline float vf_hmax(vf a) {
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
    return a.v[0];
}
static inline vf vf_from_f16(const uint16_t *p) { vf r; LANES(r.v[i] = pm_f16_to_f32(p[i])); return r; }
static inline vf vf_from_bf16(const uint16_t *p) { vf r; LANES(r.v[i] = pm_bf16_to_f32(p[i])); return r; }
static inline vf vf_from_i8(const int8_t *p) { vf r; LANES(r.v[i] = (float)p[i]); return r; }
/* the nearest integers of values that are integers already (below 2^22 in magnitude) */
static inline vi vi_from_vf_round(vf a) { vi r; LANES(r.v[i] = (int32_t)a.v[i]); return r; }
/* 2^n for -127 < n < 128 */
static inline vf vf_pow2n(vi a) { vf r; LANES(r.v[i] = pm_bits_f32((uint32_t)(a.v[i] + 127) << 23)); return r; }

/* scale[0] * sum(a[0..15] b[0..15]) + scale[1] * sum(a[16..31] b[16..31]); |a|, |b| <= 128, exact */
static inline int32_t dot32_scaled(const int8_t *a, const int8_t *b, const int32_t *scale) {
    int32_t low = 0, high = 0;
    for (int i = 0; i < 16; i++) low += a[i] * b[i];
    for (int i = 16; i < 32; i++) high += a[i] * b[i];
    return scale[0] * low + scale[1] * high;
}
static inline int32_t dot32(const int8_t *a, const int8_t *b) {
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) sum += a[i] * b[i];
    return sum;
}
/* Lane i of c plus the four products of the bytes 4 i to 4 i + 3 of a and b (64 each); a in 0..127, sums that need no saturation. */
static inline vi vi_dot4(vi c, const int8_t *a, const int8_t *b) {
    for (int i = 0; i < 64; i++) c.v[i / 4] += a[i] * b[i];
    return c;
}
static inline vi vi_zero(void) { vi r; LANES(r.v[i] = 0); return r; }
static inline vi vi_add(vi a, vi b) { LANES(a.v[i] += b.v[i]); return a; }
static inline int32_t vi_sum(vi a) { int32_t sum = 0; LANES(sum += a.v[i]); return sum; }
#define CHAINS 4 /* independent vf or vi that hide the latency of a multiply-add and fit the registers */
/* a * b + c, one output's accumulation step */
static inline float fma1(float a, float b, float c) { return a * b + c; }

#undef LANES
#endif
