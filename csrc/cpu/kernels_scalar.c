/* kernels_scalar.c - every kernel in portable C: the table that is always there. */
#include "cpu/simd_scalar.h"
#include "cpu/tile_scalar.h"

#include "cpu/bodies.inc"

static int supported(void) { return 1; }

const pm_kernels *pm_kernels_scalar(void) {
    static const pm_kernels table = {
        .name = "scalar",
        .supported = supported,
#include "cpu/kernels_table.inc"
    };
    return &table;
}
