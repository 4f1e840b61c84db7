/* encode.h - from floats to blocks of every format of formats.def, one encoder per instruction set. The blocks are the same
 * bytes whichever encoder makes them, and a block depends on its own values and weights alone. */
#ifndef PM_QUANT_ENCODE_H
#define PM_QUANT_ENCODE_H

#include "quant/formats.h"

/* A run of blocks. Values are finite and at most pm_encode_limit of the format in magnitude. */
typedef struct pm_encode_run {
    const float *x;      /* (n blocks): their values in order */
    const float *weight; /* (row_blocks blocks): of the columns of a row, in [2^-20, 1]; NULL: all alike */
    size_t first;        /* where in its row the first block is */
    size_t row_blocks;   /* blocks of a row */
    size_t n;            /* blocks */
    void *dst;           /* n blocks, without alignment */
} pm_encode_run;

typedef struct pm_encoder {
    const char *name;
    int (*supported)(void);
    size_t (*first_beyond)(const float *x, size_t n, float limit); /* index of the first value that is not finite or larger; n: none */
    void (*const *encode)(const pm_encode_run *run); /* (PM_FORMAT_COUNT), by pm_format_id */
} pm_encoder;

const pm_encoder *pm_encoder_base(void);
const pm_encoder *pm_encoder_avx2(void);   /* NULL when not compiled for this architecture */
const pm_encoder *pm_encoder_avx512(void); /* likewise */

/* The best that this machine can run. */
const pm_encoder *pm_encoder_best(void);

/* Largest magnitude that the format's own float (its values, or the scales of its blocks) is meant to hold. */
float pm_encode_limit(pm_format_id id);

#endif
