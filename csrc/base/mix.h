/* mix.h - mixing of 64-bit words: noise from counters, and hash tables that no input can flood. */
#ifndef PM_BASE_MIX_H
#define PM_BASE_MIX_H

#include <stdint.h>

/* A bijection in which every input bit reaches every output bit (the finalizer of splitmix64). */
static inline uint64_t pm_mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* A number drawn at random once per process. Hashes that decide a slot start from it, so that no file or request can choose keys that all
 * fall together. Nothing visible may depend on it. */
uint64_t pm_hash_key(void);

static inline uint64_t pm_hash_word(uint64_t key, uint64_t word) { return pm_mix(word ^ key); }

#endif
