/* formats.h - the table of tensor formats (formats.def) and their scalar truth: dequantization of a row.
 * Every other kernel is tested against it; it agrees with the `gguf` Python package to the last bit. */
#ifndef PM_QUANT_FORMATS_H
#define PM_QUANT_FORMATS_H

#include <stddef.h>
#include <stdint.h>

typedef enum pm_act_kind { PM_ACT_F32, PM_ACT_Q8 } pm_act_kind;

typedef enum pm_format_id {
#define FORMAT(id, type, name, values, bytes, act) PM_##id,
#include "quant/formats.def"
#undef FORMAT
    PM_FORMAT_COUNT
} pm_format_id;

typedef struct pm_format {
    pm_format_id id;
    uint32_t type;            /* ggml type number */
    const char *name;
    uint32_t block_values, block_bytes;
    pm_act_kind act;
    /* n values (a multiple of block_values) from packed blocks; src needs no alignment */
    void (*dequantize)(const void *src, float *dst, size_t n);
} pm_format;

const pm_format *pm_format_get(pm_format_id id);
const pm_format *pm_format_by_type(uint32_t ggml_type); /* NULL when pymtp does not compute with it */
size_t pm_format_row_bytes(const pm_format *f, size_t n); /* n a multiple of block_values */

#endif
