/* random.h - a small deterministic generator for C tests. */
#ifndef PM_TESTS_RANDOM_H
#define PM_TESTS_RANDOM_H

#include <stddef.h>
#include <stdint.h>

typedef struct rng { uint64_t state; } rng;

static inline uint64_t rng_next(rng *r) { /* splitmix64 */
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline float rng_uniform(rng *r) { return (float)((int64_t)(rng_next(r) >> 40) - (1 << 23)) * 0x1p-23f; } /* [-1, 1) */

static inline void rng_fill(rng *r, float *x, size_t n, float scale) {
    for (size_t i = 0; i < n; i++) x[i] = scale * rng_uniform(r);
}

#endif
