/* simd_x86.h - what the vocabularies of AVX2 and AVX-512 share. */
#ifndef PM_CPU_SIMD_X86_H
#define PM_CPU_SIMD_X86_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline int32_t sum_i32(__m256i x) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}
static inline float half_to_float(uint16_t h) { return _cvtsh_ss(h); }
static inline float fma1(float a, float b, float c) {
    return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}

/* As in unpack.inc. One store of 32 bytes each: a load of 32 behind two stores of 16 would wait for the cache. */
#define UNPACK_NIBBLES
static inline __m256i nibbles_32(const uint8_t *p) {
    const __m128i x = _mm_loadu_si128((const void *)p);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(x, 4), x), _mm256_set1_epi8(15));
}
static inline void unpack_nibbles(const uint8_t *p, int8_t *q, int offset) {
    _mm256_storeu_si256((void *)q, _mm256_sub_epi8(nibbles_32(p), _mm256_set1_epi8((char)offset)));
}
static inline void unpack_nibbles_5(const uint8_t *p, const uint8_t *high, int8_t *q, int offset) {
    int32_t bits;
    memcpy(&bits, high, 4);
    const __m256i bytes = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303); /* byte i / 8 */
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201), spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), bytes);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
    const __m256i v = _mm256_or_si256(nibbles_32(p), _mm256_and_si256(set, _mm256_set1_epi8(16)));
    _mm256_storeu_si256((void *)q, _mm256_sub_epi8(v, _mm256_set1_epi8((char)offset)));
}
static inline void unpack_table(const uint8_t *p, int8_t *q, const int8_t *table) {
    const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table));
    _mm256_storeu_si256((void *)q, _mm256_shuffle_epi8(t, nibbles_32(p)));
}

#endif
