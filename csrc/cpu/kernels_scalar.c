/* kernels_scalar.c - every kernel in portable C: the table that is always there. */
#include "cpu/simd_scalar.h"

#include "cpu/body_matmul.inc"

#include "cpu/body_elem.inc"

#include "cpu/body_attn.inc"

#include "cpu/body_probe.inc"

static int supported(void) { return 1; }

const pm_kernels *pm_kernels_scalar(void) {
    static const pm_kernels table = {
        .name = "scalar",
        .supported = supported,
#include "cpu/kernels_table.inc"
    };
    return &table;
}
