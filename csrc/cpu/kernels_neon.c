/* kernels_neon.c - the shared bodies over NEON with the dot product of bytes. Built with that instruction set's flags and reached
 * only after dispatch.c has asked for it; empty on other architectures. */
#include "cpu/kernels.h"

#if defined(__aarch64__)
#include "base/cpuinfo.h"
#include "cpu/simd_neon.h"
#include "cpu/tile_neon.h"

#include "cpu/bodies.inc"

const pm_kernels *pm_kernels_neon(void) {
    static const pm_kernels table = {
        .name = "neon",
        .supported = pm_cpu_has_neon,
#include "cpu/kernels_table.inc"
    };
    return &table;
}
#else
const pm_kernels *pm_kernels_neon(void) { return NULL; }
#endif
