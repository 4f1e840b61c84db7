/* tile_scalar.h - the vocabulary of tiles in portable C. Every tile_<isa>.h defines the same names with the same meaning, for
 * vectors of LANES rows: `tf` floats, `ti` int32, `tb` four bytes a row (a piece).
 * GROUP = LANES * VECTORS rows are packed together (layout.h) and TILE_ROWS rows of activations meet them at once. */
#ifndef PM_CPU_TILE_SCALAR_H
#define PM_CPU_TILE_SCALAR_H

#include "base/f16.h"
#include "cpu/layout.h"

#include <stdint.h>
#include <string.h>

#define LANES 8
#define VECTORS 1
#define TILE_ROWS 2

#define UNROLL /* before loops over what a vector is made of elsewhere; here vectors are loops, and more would only take the compiler longer */

typedef struct tf { float v[LANES]; } tf;
typedef struct ti { int32_t v[LANES]; } ti;
typedef struct tb { uint8_t v[4 * LANES]; } tb;

#define EACH(n, expression)                        \
    do {                                           \
        for (int i = 0; i < (n); i++) expression;  \
    } while (0)

/* a wish to have a line in the first or the second cache soon; any address */
ALWAYS void t_prefetch_near(const void *p) { (void)p; }
ALWAYS void t_prefetch_far(const void *p) { (void)p; }

/* ---- weights ---- */

ALWAYS tb tb_load(const uint8_t *p) { tb r; memcpy(r.v, p, sizeof r.v); return r; }
/* the low or high nibbles */
ALWAYS tb tb_nibble(tb x, int high) { EACH(4 * LANES, x.v[i] = (uint8_t)(x.v[i] >> (high ? 4 : 0) & 15)); return x; }
/* bits shift and shift + 1 */
ALWAYS tb tb_pair(tb x, int shift) { EACH(4 * LANES, x.v[i] = (uint8_t)(x.v[i] >> shift & 3)); return x; }
/* q with bit `bit` of x as its bit `to` */
ALWAYS tb tb_or_bit(tb q, tb x, int bit, int to) {
    EACH(4 * LANES, q.v[i] = (uint8_t)(q.v[i] | (x.v[i] >> bit & 1) << to));
    return q;
}
/* q with bits shift and shift + 1 of x as its bits 4 and 5 */
ALWAYS tb tb_or_pair(tb q, tb x, int shift) {
    EACH(4 * LANES, q.v[i] = (uint8_t)(q.v[i] | (x.v[i] >> shift & 3) << 4));
    return q;
}
/* table[i]; i < 16 */
ALWAYS tb tb_lookup(const int8_t *table, tb x) { EACH(4 * LANES, x.v[i] = (uint8_t)table[x.v[i]]); return x; }

/* Signed bytes as t_dot_wide takes them: with WIDE_BIAS added. */
#define WIDE_BIAS 0
ALWAYS tb tb_wide(tb x) { return x; }

/* ---- activations and exact integer sums ---- */

ALWAYS ti ti_zero(void) { ti r; EACH(LANES, r.v[i] = 0); return r; }
ALWAYS ti ti_set(int32_t x) { ti r; EACH(LANES, r.v[i] = x); return r; }
ALWAYS ti ti_shl(ti x, int n) { EACH(LANES, x.v[i] = x.v[i] * (1 << n)); return x; }
ALWAYS ti dot4(ti s, tb w, const int8_t *a, int is_signed) {
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < 4; j++) s.v[i] += (is_signed ? (int8_t)w.v[4 * i + j] : w.v[4 * i + j]) * a[j];
    return s;
}
/* pieces t_dot takes at once where weights have so many bits (2 to 6): 2, 4 or 8; but never more than one scale covers */
#define DOT_PIECES(bits) 2
#define DOT_PIECES_WIDE 2
/* activation rows it takes at most */
#define DOT_ROWS 1
/* s[r] += the products of n pieces of unsigned weights with those of activation row r: w[i] meets piece j[i] of a[r] */
ALWAYS void t_dot(ti *s, const int rows, const int n, const tb *w, const pm_act_block *a, const int *j) {
    EACH(n, s[0] = dot4(s[0], w[i], a->q + 4 * j[i], 0));
}
/* the same with weights of tb_wide */
ALWAYS void t_dot_wide(ti *s, const int rows, const int n, const tb *w, const pm_act_block *a, const int *j) {
    EACH(n, s[0] = dot4(s[0], w[i], a->q + 4 * j[i], 1));
}

/* ---- floats ---- */

ALWAYS tf tf_set(float x) { tf r; EACH(LANES, r.v[i] = x); return r; }
ALWAYS tf tf_zero(void) { return tf_set(0); }
ALWAYS tf tf_load(const float *p) { tf r; memcpy(r.v, p, sizeof r.v); return r; }
ALWAYS void tf_store(float *p, tf x) { memcpy(p, x.v, sizeof x.v); }
ALWAYS tf tf_of(ti x) { tf r; EACH(LANES, r.v[i] = (float)x.v[i]); return r; }
ALWAYS tf tf_add(tf x, tf y) { EACH(LANES, x.v[i] += y.v[i]); return x; }
ALWAYS tf tf_mul(tf x, tf y) { EACH(LANES, x.v[i] *= y.v[i]); return x; }
/* x y + z and z - x y; here rounded twice */
ALWAYS tf tf_fma(tf x, tf y, tf z) { EACH(LANES, z.v[i] += x.v[i] * y.v[i]); return z; }
ALWAYS tf tf_fnma(tf x, tf y, tf z) { EACH(LANES, z.v[i] -= x.v[i] * y.v[i]); return z; }
/* LANES stored values: halves, bfloat16, bytes, signed bytes, nibbles of bytes, exponents of MXFP4 (halved) */
ALWAYS uint16_t u16_at(const uint8_t *p, int i) { return (uint16_t)(p[2 * i] | p[2 * i + 1] << 8); }
ALWAYS tf tf_f16(const uint8_t *p) { tf r; EACH(LANES, r.v[i] = pm_f16_to_f32(u16_at(p, i))); return r; }
ALWAYS tf tf_bf16(const uint8_t *p) { tf r; EACH(LANES, r.v[i] = pm_bf16_to_f32(u16_at(p, i))); return r; }
ALWAYS tf tf_u8(const uint8_t *p) { tf r; EACH(LANES, r.v[i] = p[i]); return r; }
ALWAYS tf tf_i8(const uint8_t *p) { tf r; EACH(LANES, r.v[i] = (int8_t)p[i]); return r; }
ALWAYS tf tf_u4(const uint8_t *p, int high) { tf r; EACH(LANES, r.v[i] = (float)(p[i] >> (high ? 4 : 0) & 15)); return r; }
ALWAYS tf tf_e8(const uint8_t *p) {
    tf r;
    EACH(LANES, r.v[i] = pm_bits_f32(p[i] < 2 ? 0x00200000u << p[i] : (uint32_t)(p[i] - 1) << 23));
    return r;
}

#undef EACH
#endif
