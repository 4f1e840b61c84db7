/* kernels_avx512.c - the shared bodies over AVX-512 without VNNI. Built with that instruction set's flags and reached only
 * after dispatch.c has asked for it; empty on other architectures. */
#include "cpu/kernels.h"

#if defined(__x86_64__)
#include "base/cpuinfo.h"
#include "cpu/simd_avx512.h"
#include "cpu/tile_avx512.h"

#include "cpu/bodies.inc"

const pm_kernels *pm_kernels_avx512(void) {
    static const pm_kernels table = {
        .name = "avx512",
        .supported = pm_cpu_has_avx512,
#include "cpu/kernels_table.inc"
    };
    return &table;
}
#else
const pm_kernels *pm_kernels_avx512(void) { return NULL; }
#endif
