/* encode_avx2.c - the encoder for AVX2. Built with that instruction set's flags and reached only after codec.c has asked for
 * it; empty on other architectures. */
#include "quant/encode.h"

#if defined(__x86_64__)
#include "base/cpuinfo.h"
#include "quant/encode_all.inc"

const pm_encoder *pm_encoder_avx2(void) {
    static const pm_encoder encoder = {"avx2", pm_cpu_has_avx2, first_beyond, encode_functions};
    return &encoder;
}
#else
const pm_encoder *pm_encoder_avx2(void) { return NULL; }
#endif
