/* kernels_avxvnni.c - the shared bodies over AVX2 with VNNI in its VEX encoding, for processors without AVX-512. Built with that
 * instruction set's flags and reached only after dispatch.c has asked for it; empty on other architectures and from compilers that
 * do not know it. kernels_avx512vnni256.c is the same in another encoding. */
#include "cpu/kernels.h"

#if defined(__AVXVNNI__)
#include "base/cpuinfo.h"
#include "cpu/simd_avx2.h"
#include "cpu/tile_avx2.h"

#include "cpu/bodies.inc"

const pm_kernels *pm_kernels_avxvnni(void) {
    static const pm_kernels table = {
        .name = "avxvnni",
        .supported = pm_cpu_has_avxvnni,
#include "cpu/kernels_table.inc"
    };
    return &table;
}
#else
const pm_kernels *pm_kernels_avxvnni(void) { return NULL; }
#endif
