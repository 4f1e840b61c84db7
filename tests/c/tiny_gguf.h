/* tiny_gguf.h - writes small GGUF files for C tests: tensors only, no metadata but the architecture. */
#ifndef PM_TESTS_TINY_GGUF_H
#define PM_TESTS_TINY_GGUF_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define TINY_MAX 64

typedef struct tiny_tensor {
    char name[32];
    uint32_t type;
    uint64_t cols, rows;
    const void *data;
    uint64_t bytes;
} tiny_tensor;

static inline void tiny_put(FILE *f, uint64_t v, size_t bytes) { fwrite(&v, 1, bytes, f); } /* little-endian machines only */

static inline void tiny_string(FILE *f, const char *s) {
    tiny_put(f, strlen(s), 8);
    fwrite(s, 1, strlen(s), f);
}

static inline void tiny_pad(FILE *f) {
    while (ftell(f) % 32) fputc(0, f);
}

/* 0 on success. */
static inline int tiny_write(const char *path, const tiny_tensor *t, size_t n) {
    FILE *f = fopen(path, "wb");
    uint64_t offset = 0;
    if (!f) return 1;
    fwrite("GGUF", 1, 4, f);
    tiny_put(f, 3, 4);
    tiny_put(f, n, 8);
    tiny_put(f, 1, 8);
    tiny_string(f, "general.architecture");
    tiny_put(f, 8, 4);
    tiny_string(f, "gemma4");
    for (size_t i = 0; i < n; i++) {
        tiny_string(f, t[i].name);
        tiny_put(f, 2, 4);
        tiny_put(f, t[i].cols, 8);
        tiny_put(f, t[i].rows, 8);
        tiny_put(f, t[i].type, 4);
        tiny_put(f, offset, 8);
        offset += (t[i].bytes + 31) / 32 * 32;
    }
    tiny_pad(f);
    for (size_t i = 0; i < n; i++) {
        fwrite(t[i].data, 1, (size_t)t[i].bytes, f);
        tiny_pad(f);
    }
    return fclose(f) != 0;
}

#endif
