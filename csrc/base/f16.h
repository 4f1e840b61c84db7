/* f16.h - scalar half and bfloat16 conversions, exact for every bit pattern (NaN payloads kept quiet). */
#ifndef PM_BASE_F16_H
#define PM_BASE_F16_H

#include <stdint.h>
#include <string.h>

static inline float pm_bits_f32(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t pm_f32_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

static inline float pm_bf16_to_f32(uint16_t h) { return pm_bits_f32((uint32_t)h << 16); }

static inline float pm_f16_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31) return pm_bits_f32(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return pm_bits_f32(sign | (exponent + 112u) << 23 | mantissa << 13);
    const float f = (float)mantissa * 0x1p-24f; /* subnormal or zero, exact */
    return sign ? -f : f;
}

/* Rounds to nearest even, overflow to infinity; a NaN stays one. */
static inline uint16_t pm_f32_to_bf16(float f) {
    const uint32_t u = pm_f32_bits(f), odd = (u >> 16) & 1u;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 0x40u : (u + 0x7fffu + odd) >> 16);
}

/* Rounds to nearest even, overflow to infinity. */
static inline uint16_t pm_f32_to_f16(float f) {
    const uint32_t u = pm_f32_bits(f), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { /* result is subnormal: let the FPU round at 2^-24 */
        const float scaled = pm_bits_f32(a) + 0.5f; /* ulp of [0.5, 1) is 2^-24 */
        return (uint16_t)(sign | (pm_f32_bits(scaled) - 0x3f000000u));
    }
    const uint32_t odd = (a >> 13) & 1u;
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + odd) >> 13));
}

#endif
