/* checked.h - size arithmetic on numbers that come from files: every function returns 0 on success and 1 when the
 * result does not fit, in which case *out is not to be used. */
#ifndef PM_BASE_CHECKED_H
#define PM_BASE_CHECKED_H

#include <stddef.h>
#include <stdint.h>

static inline int pm_mul_u64(uint64_t a, uint64_t b, uint64_t *out) { return __builtin_mul_overflow(a, b, out); }
static inline int pm_add_u64(uint64_t a, uint64_t b, uint64_t *out) { return __builtin_add_overflow(a, b, out); }
static inline int pm_mul_size(size_t a, size_t b, size_t *out) { return __builtin_mul_overflow(a, b, out); }
static inline int pm_add_size(size_t a, size_t b, size_t *out) { return __builtin_add_overflow(a, b, out); }

/* Rounds n up to a multiple of a (a power of two). */
static inline size_t pm_round_up(size_t n, size_t a) { return (n + a - 1) & ~(a - 1); }

#endif
