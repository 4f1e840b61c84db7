/* cpuinfo.c - CPUID and XGETBV. Compiled for the baseline: it runs before anything is known. */
#include "base/cpuinfo.h"

#if defined(__AVX__)
#error "cpuinfo.c must be compiled for the baseline: it decides whether AVX may run"
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>

/* State components the OS saves (XCR0); 0 when it does not use XSAVE. */
static uint32_t saved_state(uint32_t leaf1_ecx) {
    uint32_t low, high;
    if (!(leaf1_ecx & bit_OSXSAVE)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

enum { AVX2, AVX512, AVX512VNNI };

static int has(int wanted) {
    uint32_t a, b, c, d, c1;
    if (!__get_cpuid(1, &a, &b, &c1, &d)) return 0;
    const uint32_t state = saved_state(c1), ymm = 0x6, zmm = 0xe6;
    if ((state & ymm) != ymm || !(c1 & bit_FMA) || !(c1 & bit_F16C)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return 0;
    if (wanted == AVX2) return 1;
    const uint32_t base = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((state & zmm) != zmm || (b & base) != base) return 0;
    return wanted == AVX512 || (c & bit_AVX512VNNI);
}

int pm_cpu_has_avx2(void) { return has(AVX2); }
int pm_cpu_has_avx512(void) { return has(AVX512); }
int pm_cpu_has_avx512vnni(void) { return has(AVX512VNNI); }
#else
int pm_cpu_has_avx2(void) { return 0; }
int pm_cpu_has_avx512(void) { return 0; }
int pm_cpu_has_avx512vnni(void) { return 0; }
#endif
