/* kernels_avx512vnni256.c - the bodies of kernels_avxvnni.c in the EVEX encoding: the same vocabulary, the same arithmetic on 256
 * bits. It is never the first choice; PYMTP_CPU chooses it, and through it the tests reach that code on processors with
 * AVX-512, where the VEX encoding is mostly missing. Built with its instruction set's flags; empty on other architectures. */
#include "cpu/kernels.h"

#if defined(__x86_64__)
#include "base/cpuinfo.h"
#include "cpu/simd_avx2.h"
#include "cpu/tile_avx2.h"

#include "cpu/bodies.inc"

const pm_kernels *pm_kernels_avx512vnni256(void) {
    static const pm_kernels table = {
        .name = "avx512vnni256",
        .supported = pm_cpu_has_avx512vnni256,
#include "cpu/kernels_table.inc"
    };
    return &table;
}
#else
const pm_kernels *pm_kernels_avx512vnni256(void) { return NULL; }
#endif
