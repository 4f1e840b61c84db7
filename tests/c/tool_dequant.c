/* tool_dequant.c - the format table and dequantization, for tests/test_quant.py.
 *   tool_dequant          one line a format: type number, name, values and bytes of a block
 *   tool_dequant TYPE N   reads N bytes of blocks from stdin, writes the values as raw floats to stdout
 */
#include "quant/formats.h"

#include <stdio.h>
#include <stdlib.h>

static int list(void) {
    for (int i = 0; i < PM_FORMAT_COUNT; i++) {
        const pm_format *f = pm_format_get((pm_format_id)i);
        printf("%u %s %u %u\n", f->type, f->name, f->block_values, f->block_bytes);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 1) return list();
    const pm_format *f = argc == 3 ? pm_format_by_type((uint32_t)strtoul(argv[1], NULL, 10)) : NULL;
    const size_t bytes = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    if (!f || !bytes || bytes % f->block_bytes) {
        fprintf(stderr, "usage: tool_dequant [TYPE BYTES]\n");
        return 2;
    }
    const size_t n = bytes / f->block_bytes * f->block_values;
    unsigned char *src = malloc(bytes + 1); /* read from an odd address: blocks need no alignment */
    float *dst = malloc(n * sizeof *dst);
    int failed = !src || !dst || fread(src + 1, 1, bytes, stdin) != bytes;
    if (!failed) {
        f->dequantize(src + 1, dst, n);
        failed = fwrite(dst, sizeof *dst, n, stdout) != n;
    }
    free(src);
    free(dst);
    return failed;
}
