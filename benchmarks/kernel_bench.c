// How fast one thread's tiles are: products of random packed weights with 1 to 128 activation rows, without the rest of the engine.
// Few rows of weights stay in a cache and show what the tile computes; many come from memory and show how well it reads.
//
//   cmake -S . -B build/x -G Ninja && cmake --build build/x
//   cc -O2 -D_GNU_SOURCE -Icsrc benchmarks/kernel_bench.c build/x/CMakeFiles/pymtp_core.dir/csrc/*/*.o -o kernel_bench -lpthread -lm
//   ./kernel_bench FORMAT WEIGHT_ROWS COLUMNS        e.g. Q4_0 64 1536 or Q6_K 131072 1536; PYMTP_CPU picks the kernel set
//
// Prints for every number of rows the best of 15: ns for a block of 32 columns of 16 weight rows, 10^9 multiply-adds/s, GB/s of weights.
#include "base/memory.h"
#include "cpu/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static const pm_format *format_named(const char *name) {
    for (int i = 0; i < PM_FORMAT_COUNT; i++)
        if (!strcmp(pm_format_get((pm_format_id)i)->name, name)) return pm_format_get((pm_format_id)i);
    fprintf(stderr, "kernel_bench: no format %s\n", name);
    exit(2);
}

/* Zeroed memory with huge pages, as weights have. */
static void *pages(size_t bytes) {
    pm_region r;
    pymtp_error e = {0};
    if (pm_region_reserve(&r, bytes, "benchmark", &e) != PYMTP_OK) goto failed;
    pm_region_prefer_huge(&r);
    if (pm_region_commit(&r, bytes, "benchmark", &e) == PYMTP_OK) return r.base;
failed:
    fprintf(stderr, "kernel_bench: %s\n", e.text);
    exit(1);
}

int main(int argc, char **argv) {
    static const size_t batches[] = {1, 2, 3, 4, 5, 6, 8, 12, 32, 128};
    const pm_kernels *k;
    pymtp_error e = {0};
    if (argc != 4 || pm_kernels_choose(&k, &e) != PYMTP_OK) {
        fprintf(stderr, "usage: kernel_bench FORMAT WEIGHT_ROWS COLUMNS  %s\n", e.text);
        return 2;
    }
    const pm_format *f = format_named(argv[1]);
    const size_t rows = strtoul(argv[2], NULL, 10) / k->group * k->group, cols = strtoul(argv[3], NULL, 10) / 256 * 256;
    const size_t bytes = rows / k->group * pm_group_bytes(f, cols, k->group), blocks = rows / 16 * (cols / 32);
    if (!blocks) return 2;
    uint8_t *w = pages(bytes);
    for (size_t i = 0; i < bytes; i++) w[i] = (uint8_t)(i * 2654435761u >> 13) & 0x3b; /* halves among them are finite */
    const pm_packed p = {.format = f, .rows = rows, .cols = cols, .data = w};
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        const size_t n = batches[b];
        pm_act a = {.cols = cols, .blocks = cols / 32, .n = n, .tile = k->tile};
        a.q8 = pages(n * a.blocks * sizeof *a.q8);
        a.x = pages(n * cols * sizeof *a.x);
        float *out = pages(n * rows * sizeof *out);
        for (size_t i = 0; i < n * cols; i++) a.x[i] = (float)(i % 13) - 6;
        for (size_t r = 0; r < n; r++) {
            size_t step, at = pm_act_index(&a, r, &step);
            k->quantize(a.x + r * cols, cols, a.q8 + at, step);
        }
        double best = 1e9;
        for (int i = 0; i < 15; i++) {
            const double start = now();
            k->matmul(&p, 0, rows, &a, out, rows);
            const double d = now() - start;
            best = d < best ? d : best;
        }
        printf("%s %s %3zu rows  %7.2f ns a block  %6.1f G multiply-adds/s  %5.1f GB/s\n", k->name, f->name, n, best * 1e9 / (double)blocks,
               (double)n * (double)rows * (double)cols / best * 1e-9, (double)bytes / best * 1e-9);
    }
    return 0;
}
