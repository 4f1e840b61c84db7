/* encode_avx512.c - the encoder for AVX-512. Built with that instruction set's flags and reached only after codec.c has asked for
 * it; empty on other architectures. */
#include "quant/encode.h"

#if defined(__x86_64__)
#include "base/cpuinfo.h"
#include "quant/encode_all.inc"

const pm_encoder *pm_encoder_avx512(void) {
    static const pm_encoder encoder = {"avx512", pm_cpu_has_avx512, first_beyond, encode_functions};
    return &encoder;
}
#else
const pm_encoder *pm_encoder_avx512(void) { return NULL; }
#endif
