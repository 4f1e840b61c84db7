/* kernels_i8mm.c - the shared bodies over NEON with the product of byte matrices. Built with that instruction set's flags and
 * reached only after dispatch.c has asked for it; empty on other architectures and from compilers that do not know it. */
#include "cpu/kernels.h"

#if defined(__ARM_FEATURE_MATMUL_INT8)
#include "base/cpuinfo.h"
#include "cpu/simd_neon.h"
#include "cpu/tile_neon.h"

#include "cpu/bodies.inc"

const pm_kernels *pm_kernels_i8mm(void) {
    static const pm_kernels table = {
        .name = "i8mm",
        .supported = pm_cpu_has_i8mm,
#include "cpu/kernels_table.inc"
    };
    return &table;
}
#else
const pm_kernels *pm_kernels_i8mm(void) { return NULL; }
#endif
