/* kernels_avx2.c - the shared bodies over AVX2. Built with that instruction set's flags and reached only
 * after dispatch.c has asked for it; empty on other architectures. */
#include "cpu/kernels.h"

#if defined(__x86_64__)
#include "base/cpuinfo.h"
#include "cpu/simd_avx2.h"
#include "cpu/tile_avx2.h"

#include "cpu/bodies.inc"

const pm_kernels *pm_kernels_avx2(void) {
    static const pm_kernels table = {
        .name = "avx2",
        .supported = pm_cpu_has_avx2,
#include "cpu/kernels_table.inc"
    };
    return &table;
}
#else
const pm_kernels *pm_kernels_avx2(void) { return NULL; }
#endif
