/* simd_scalar.h - the vocabulary in portable C: `vf` is 16 float lanes, `vi` 16 int32 lanes. Every simd_<isa>.h defines the same
 * names with the same meaning; sums fold lanes 8, 4, 2, 1 everywhere. Here vf_fma rounds twice (no FMA in the baseline).
 * vf_min and vf_max return their second argument when the comparison is false. */
#ifndef PM_CPU_SIMD_SCALAR_H
#define PM_CPU_SIMD_SCALAR_H

#include "base/f16.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Register tiles of attention: queries x keys (at most 4) of scores, queries x vectors of values. */
enum { SCORE_QUERIES = 4, SCORE_KEYS = 1, VALUE_QUERIES = 4, VALUE_VECTORS = 1 };

typedef struct vf { float v[16]; } vf;
typedef struct vi { int32_t v[16]; } vi;

#define EACH16(expression)                        \
    do {                                          \
        for (int i = 0; i < 16; i++) expression;  \
    } while (0)

static inline vf vf_set1(float a) { vf r; EACH16(r.v[i] = a); return r; }
static inline vf vf_zero(void) { return vf_set1(0.0f); }
static inline vf vf_load(const float *p) { vf r; memcpy(r.v, p, sizeof r.v); return r; }
static inline void vf_store(float *p, vf a) { memcpy(p, a.v, sizeof a.v); }
static inline vf vf_load_tail(const float *p, size_t n) { vf r = vf_zero(); memcpy(r.v, p, n * sizeof(float)); return r; }
static inline void vf_store_tail(float *p, size_t n, vf a) { memcpy(p, a.v, n * sizeof(float)); }
static inline vf vf_add(vf a, vf b) { EACH16(a.v[i] += b.v[i]); return a; }
static inline vf vf_sub(vf a, vf b) { EACH16(a.v[i] -= b.v[i]); return a; }
static inline vf vf_mul(vf a, vf b) { EACH16(a.v[i] *= b.v[i]); return a; }
static inline vf vf_div(vf a, vf b) { EACH16(a.v[i] /= b.v[i]); return a; }
static inline vf vf_fma(vf a, vf b, vf c) { EACH16(c.v[i] += a.v[i] * b.v[i]); return c; }
static inline vf vf_max(vf a, vf b) { EACH16(a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]); return a; }
static inline vf vf_min(vf a, vf b) { EACH16(a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]); return a; }
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
/* the sums of four, each as vf_sum's */
static inline void vf_sum4(vf a, vf b, vf c, vf d, float *out) {
    out[0] = vf_sum(a);
    out[1] = vf_sum(b);
    out[2] = vf_sum(c);
    out[3] = vf_sum(d);
}
static inline float half_to_float(uint16_t h) { return pm_f16_to_f32(h); }
static inline void vf_to_f16(vf a, uint16_t *p) { EACH16(p[i] = pm_f32_to_f16(a.v[i])); }
static inline vf vf_from_f16(const uint16_t *p) { vf r; EACH16(r.v[i] = pm_f16_to_f32(p[i])); return r; }
static inline vf vf_from_i8(const int8_t *p) { vf r; EACH16(r.v[i] = (float)p[i]); return r; }
/* the nearest integers of values that are integers already (below 2^22 in magnitude); of a NaN any, which C leaves undefined */
static inline vi vi_from_vf_round(vf a) { vi r; EACH16(r.v[i] = a.v[i] <= 0x1p22f ? (int32_t)a.v[i] : 0); return r; }
/* 16 bytes of values that are integers of at most 127 in magnitude */
static inline void vf_store_i8(int8_t *p, vf a) { EACH16(p[i] = (int8_t)a.v[i]); }
/* 2^n for -127 < n < 128 */
static inline vf vf_pow2n(vi a) { vf r; EACH16(r.v[i] = pm_bits_f32((uint32_t)(a.v[i] + 127) << 23)); return r; }

#undef EACH16
#endif
