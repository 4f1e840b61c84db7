/* encode_base.c - the encoder for what every processor of the architecture has. */
#include "quant/encode_all.inc"

static int always(void) { return 1; }

const pm_encoder *pm_encoder_base(void) {
    static const pm_encoder encoder = {"base", always, first_beyond, encode_functions};
    return &encoder;
}
