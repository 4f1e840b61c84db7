/* mutate_gguf.h - mutations that know GGUF: a number of the header (a count, length, type, dimension, offset or value) becomes
 * one at a boundary, or a byte of the data changes, so that most mutants get past the reader. One time in four libFuzzer's own. */
#ifndef PM_FUZZ_MUTATE_GGUF_H
#define PM_FUZZ_MUTATE_GGUF_H

#include "fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t cap) __attribute__((weak)); /* libFuzzer's; nobody calls it in a replay */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t cap, unsigned seed);

#define MUTATE_FIELDS 4096

typedef struct gguf_fields {
    const uint8_t *data;
    size_t n, at, count;
    struct { size_t at, bytes; } field[MUTATE_FIELDS];
} gguf_fields;

/* Reads a little-endian number and remembers where it stands; 0 behind the end. */
static inline uint64_t fields_number(gguf_fields *f, size_t bytes) {
    uint64_t v = 0;
    if (f->n - f->at < bytes) {
        f->at = f->n;
        return 0;
    }
    memcpy(&v, f->data + f->at, bytes);
    if (f->count < MUTATE_FIELDS) {
        f->field[f->count].at = f->at;
        f->field[f->count++].bytes = bytes;
    }
    f->at += bytes;
    return v;
}

static inline void fields_skip(gguf_fields *f, uint64_t bytes) { f->at += bytes < f->n - f->at ? (size_t)bytes : f->n - f->at; }

static inline void fields_value(gguf_fields *f, uint64_t type, int depth) {
    static const size_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) {
        fields_skip(f, fields_number(f, 8));
    } else if (type == 9 && depth < 8) {
        const uint64_t inner = fields_number(f, 4), n = fields_number(f, 8);
        for (uint64_t i = 0; i < n && f->at < f->n; i++) fields_value(f, inner, depth + 1);
    } else if (type < 13) {
        fields_number(f, bytes[type]);
    } else {
        f->at = f->n; /* no value follows that could be read */
    }
}

static inline void fields_find(gguf_fields *f, const uint8_t *data, size_t n) {
    f->data = data;
    f->n = n;
    f->at = f->count = 0;
    fields_skip(f, 4);
    fields_number(f, 4);
    const uint64_t tensors = fields_number(f, 8), keys = fields_number(f, 8);
    for (uint64_t i = 0; i < keys && f->at < n; i++) {
        fields_skip(f, fields_number(f, 8));
        fields_value(f, fields_number(f, 4), 0);
    }
    for (uint64_t i = 0; i < tensors && f->at < n; i++) {
        fields_skip(f, fields_number(f, 8));
        const uint64_t dims = fields_number(f, 4);
        for (uint64_t k = 0; k < dims && f->at < n; k++) fields_number(f, 8);
        fields_number(f, 4);
        fields_number(f, 8);
    }
}

static inline uint64_t mutate_number(uint64_t old, unsigned seed) {
    static const uint64_t edges[] = {0, 1, 2, 3, 16, 31, 32, 33, 127, 128, 255, 256, 65535, 65536, 1u << 20, (1u << 24) - 1, 1u << 24, INT32_MAX,
                                     1ull << 31, (1ull << 31) + 1, UINT32_MAX, 1ull << 32, 1ull << 42, INT64_MAX, 1ull << 63, UINT64_MAX,
                                     UINT64_MAX - 7, UINT64_MAX - 31, 0x7fc00000, 0x7f800000, 0xff800000, 0x80000000, 0x7ff8000000000000};
    switch (seed % 6) {
        case 0: return old + 1;
        case 1: return old - 1;
        case 2: return old * 2;
        case 3: return old / 2;
        case 4: return old + 32;
        default: return edges[seed / 6 % (sizeof edges / sizeof *edges)];
    }
}

/* 1 to 4 changes. */
static inline size_t mutate_gguf(uint8_t *data, size_t n, size_t cap, unsigned seed) {
    static gguf_fields f;
    unsigned random = seed * 2654435761u + 1;
    if (seed % 4 == 0 || n < 24) return LLVMFuzzerMutate(data, n, cap);
    for (unsigned changes = 1 + seed / 4 % 4; changes; changes--) {
        fields_find(&f, data, n);
        random = random * 1664525u + 1013904223u;
        if (!f.count || random >> 28 == 0) { /* tensor data, text */
            data[(random >> 4) % n] ^= (uint8_t)(1u << (random >> 1) % 8);
            continue;
        }
        const size_t at = f.field[(random >> 8) % f.count].at, bytes = f.field[(random >> 8) % f.count].bytes;
        uint64_t v = 0;
        memcpy(&v, data + at, bytes);
        random = random * 1664525u + 1013904223u;
        v = mutate_number(v, random >> 8);
        memcpy(data + at, &v, bytes);
    }
    return n;
}

#endif
