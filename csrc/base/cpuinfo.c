/* cpuinfo.c - CPUID and XGETBV; on Arm what Linux and macOS say. Compiled for the baseline: it runs before anything is known. */
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

enum { AVX2, AVXVNNI, AVX512, AVX512VNNI };

static int has(int wanted) {
    uint32_t a, b, c, d, c1;
    if (!__get_cpuid(1, &a, &b, &c1, &d)) return 0;
    const uint32_t state = saved_state(c1), ymm = 0x6, zmm = 0xe6;
    if ((state & ymm) != ymm || !(c1 & bit_FMA) || !(c1 & bit_F16C)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return 0;
    if (wanted == AVX2) return 1;
    if (wanted == AVXVNNI) return a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
    const uint32_t base = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((state & zmm) != zmm || (b & base) != base) return 0;
    return wanted == AVX512 || (c & bit_AVX512VNNI);
}

int pm_cpu_has_avx2(void) { return has(AVX2); }
int pm_cpu_has_avxvnni(void) { return has(AVXVNNI); }
int pm_cpu_has_avx512(void) { return has(AVX512); }
int pm_cpu_has_avx512vnni(void) { return has(AVX512VNNI); }
int pm_cpu_has_avx512vnni256(void) { return has(AVX512VNNI); }
#else
int pm_cpu_has_avx2(void) { return 0; }
int pm_cpu_has_avxvnni(void) { return 0; }
int pm_cpu_has_avx512(void) { return 0; }
int pm_cpu_has_avx512vnni(void) { return 0; }
int pm_cpu_has_avx512vnni256(void) { return 0; }
#endif

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

int pm_cpu_has_neon(void) { return (getauxval(AT_HWCAP) >> 20 & 1) != 0; } /* HWCAP_ASIMDDP */
int pm_cpu_has_i8mm(void) { return pm_cpu_has_neon() && (getauxval(AT_HWCAP2) >> 13 & 1); } /* HWCAP2_I8MM */
#elif defined(__aarch64__) && defined(__APPLE__)
#include <stddef.h>
#include <sys/sysctl.h>

static int says(const char *name) {
    int value = 0;
    size_t bytes = sizeof value;
    return !sysctlbyname(name, &value, &bytes, NULL, 0) && value;
}

int pm_cpu_has_neon(void) { return says("hw.optional.arm.FEAT_DotProd"); }
int pm_cpu_has_i8mm(void) { return pm_cpu_has_neon() && says("hw.optional.arm.FEAT_I8MM"); }
#else
int pm_cpu_has_neon(void) { return 0; }
int pm_cpu_has_i8mm(void) { return 0; }
#endif
