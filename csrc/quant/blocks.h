/* blocks.h - the bytes of every block format, drawn, and the one form they are unpacked to.
 *
 * Byte 0 is the lowest; `d` and `m` are little-endian halves. "low/high nibbles" of byte i hold values i and i + half.
 *
 *   Q4_0   32: d | 16 bytes of nibbles: low = values 0..15, high = 16..31            w = d (q - 8)
 *   Q4_1   32: d | m | 16 bytes of nibbles                                             w = d q + m
 *   Q5_0   32: d | 4 bytes: bit i = fifth bit of value i | 16 bytes of nibbles         w = d (q - 16)
 *   Q5_1   32: d | m | 4 bytes of fifth bits | 16 bytes of nibbles                     w = d q + m
 *   Q8_0   32: d | 32 signed bytes                                                     w = d q
 *   IQ4_NL 32: d | 16 bytes of nibbles                                                 w = d table[q]
 *   MXFP4  32: e (exponent, bias 127) | 16 bytes of nibbles                            w = 2^(e - 128) table2[q]
 *   Q2_K  256: 16 x (scale low nibble, min high nibble) | 64 bytes of 2-bit values | d | dmin
 *              per 128 values 32 bytes: bits 0-1 = values 0..31, 2-3 = 32..63, ...     w = d s q - dmin m
 *   Q3_K  256: 32 bytes of third bits (bit j of byte i: value 32 j + i) | 64 bytes of 2-bit values as Q2_K
 *              | 12 bytes of sixteen 6-bit scales | d                                  w = d (s - 32) (q - 4)
 *   Q4_K  256: d | dmin | 12 bytes of eight 6-bit scales and mins | 128 bytes of nibbles, 32 bytes per 64 values
 *                                                                                      w = d s q - dmin m
 *   Q5_K  256: d | dmin | 12 bytes as Q4_K | 32 bytes of fifth bits (as Q3_K's) | 128 bytes of nibbles
 *   Q6_K  256: 128 bytes of nibbles, 64 bytes per 128 values | 64 bytes of 2-bit tops | 16 signed scales | d
 *                                                                                      w = d s (q - 32)
 *   IQ4_XS 256: d | 8 x 2 high scale bits | 4 bytes of low scale nibbles | 128 bytes of nibbles, 16 bytes per 32 values
 *                                                                                      w = d (s - 32) table[q] */
#ifndef PM_QUANT_BLOCKS_H
#define PM_QUANT_BLOCKS_H

#include <stdint.h>

/* Any block of any quantised format: values [16 i, 16 i + 16) are d * scale[i] * q - dmin * min[i]. */
typedef struct pm_unpacked {
    int8_t q[256];
    int32_t scale[16], min[16];
    float d, dmin;
} pm_unpacked;

typedef struct pm_block_q4_0 { uint8_t d[2], q[16]; } pm_block_q4_0;
typedef struct pm_block_q4_1 { uint8_t d[2], m[2], q[16]; } pm_block_q4_1;
typedef struct pm_block_q5_0 { uint8_t d[2], high[4], q[16]; } pm_block_q5_0;
typedef struct pm_block_q5_1 { uint8_t d[2], m[2], high[4], q[16]; } pm_block_q5_1;
typedef struct pm_block_q8_0 { uint8_t d[2]; int8_t q[32]; } pm_block_q8_0;
typedef struct pm_block_iq4_nl { uint8_t d[2], q[16]; } pm_block_iq4_nl;
typedef struct pm_block_mxfp4 { uint8_t e, q[16]; } pm_block_mxfp4;
typedef struct pm_block_q2_k { uint8_t scales[16], q[64], d[2], dmin[2]; } pm_block_q2_k;
typedef struct pm_block_q3_k { uint8_t high[32], q[64], scales[12], d[2]; } pm_block_q3_k;
typedef struct pm_block_q4_k { uint8_t d[2], dmin[2], scales[12], q[128]; } pm_block_q4_k;
typedef struct pm_block_q5_k { uint8_t d[2], dmin[2], scales[12], high[32], q[128]; } pm_block_q5_k;
typedef struct pm_block_q6_k { uint8_t q[128], high[64]; int8_t scales[16]; uint8_t d[2]; } pm_block_q6_k;
typedef struct pm_block_iq4_xs { uint8_t d[2], scales_high[2], scales_low[4], q[128]; } pm_block_iq4_xs;

_Static_assert(sizeof(pm_block_q4_0) == 18 && sizeof(pm_block_q4_1) == 20, "block sizes");
_Static_assert(sizeof(pm_block_q5_0) == 22 && sizeof(pm_block_q5_1) == 24, "block sizes");
_Static_assert(sizeof(pm_block_q8_0) == 34 && sizeof(pm_block_iq4_nl) == 18 && sizeof(pm_block_mxfp4) == 17, "block sizes");
_Static_assert(sizeof(pm_block_q2_k) == 84 && sizeof(pm_block_q3_k) == 110, "block sizes");
_Static_assert(sizeof(pm_block_q4_k) == 144 && sizeof(pm_block_q5_k) == 176, "block sizes");
_Static_assert(sizeof(pm_block_q6_k) == 210 && sizeof(pm_block_iq4_xs) == 136, "block sizes");

#endif
