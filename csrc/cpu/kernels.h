/* kernels.h - the table of CPU kernels: one struct, one instance per ISA, chosen once per model (dispatch.c).
 *
 * kernels_scalar.c fills every entry in portable C; an ISA file starts from that table and overrides what it does
 * better, compiling the shared bodies (body_*.inc) over its own vocabulary. Kernels take plain pointers, cannot fail,
 * allocate nothing and know nothing of threads. Each obeys the row rule (backend.h). */
#ifndef PM_CPU_KERNELS_H
#define PM_CPU_KERNELS_H

#include "base/status.h"
#include "quant/formats.h"

/* Activations of up to `rows` rows, prepared once per matmul. F32: x padded with zeros to a multiple of 16 floats.
 * Q8: per block of 32 values q = round to nearest even(x * (127 / max|x|)), d = max|x| / 127 as float (0 for a block of zeros),
 * and the sums of q over each half of 16. `cols` padded to a multiple of 32 with zeros. All 64-byte aligned. */
typedef struct pm_act {
    size_t cols, padded;  /* values per row; padded to 32 (also the F32 stride) */
    float *x;             /* (rows, padded), F32 partner */
    int8_t *q;            /* (rows, padded), Q8 partner */
    float *d;             /* (rows, padded / 32) */
    int32_t *sum;         /* (rows, padded / 16) */
} pm_act;

/* A weight matrix in the layout of the ISA: data from pack(), rows in file order seen from outside. */
typedef struct pm_packed {
    const pm_format *format;
    size_t rows, cols;
    const void *data;
    size_t row_bytes; /* of a file row */
} pm_packed;

/* out[r * stride + o - begin] = dot(weight row o, activation row r) for o in [begin, end), r in [0, n). */
typedef void (*pm_matmul_fn)(const pm_packed *w, size_t begin, size_t end, const pm_act *a, size_t n, float *out, size_t stride);

#define PM_ATTEND_QUERIES 64 /* most queries of one call */

/* One KV block and the queries that read it, a query being a row's query head. Keys and values are PM_KV_BLOCK consecutive
 * stored heads, `stride` bytes apart; query i sees [from[i], to[i]) of them, at least one. Its state afterwards, n + 2 floats:
 * the sum of exp(score - max) * value in key order, max = its largest score, the sum of exp(score - max). */
typedef struct pm_attend_block {
    const unsigned char *k, *v;
    const unsigned char *next; /* keys of the block that will follow, to be fetched ahead; or NULL */
    size_t stride, n; /* n: values of a head */
    int32_t type;     /* PYMTP_KV_* */
    size_t queries;
    const float *q[PM_ATTEND_QUERIES];
    size_t from[PM_ATTEND_QUERIES], to[PM_ATTEND_QUERIES];
    float *state[PM_ATTEND_QUERIES];
    float *p; /* (queries, PM_KV_BLOCK), scratch */
} pm_attend_block;

typedef struct pm_kernels {
    const char *name;
    int (*supported)(void); /* CPU and OS */
    size_t group;           /* rows packed together: matmul's begin is a multiple of it, end too or the last row */

    /* repack: bytes for a whole matrix, and packing of rows [first, first + n) (first a multiple of group) */
    size_t (*packed_bytes)(const pm_format *f, size_t rows, size_t cols);
    void (*pack)(const pm_format *f, size_t rows, size_t cols, size_t first, size_t n, const void *src, void *packed);

    void (*quantize)(const float *x, size_t cols, pm_act *a, size_t row); /* fills row `row` of a for the Q8 partner */
    pm_matmul_fn matmul[PM_FORMAT_COUNT];

#define KERNEL(name, ret, args) ret (*name) args;
#include "cpu/kernels.def"
#undef KERNEL
} pm_kernels;

const pm_kernels *pm_kernels_scalar(void);
const pm_kernels *pm_kernels_avx2(void);   /* NULL when not compiled for this architecture */
const pm_kernels *pm_kernels_avx512(void); /* AVX-512 F/BW/DQ/VL + VNNI */

/* All sets this machine can run, best first, NULL-terminated. */
const pm_kernels *const *pm_kernels_available(void);
/* The best, or the one PYMTP_CPU names (an unknown or unsupported name is an error that lists the known ones). */
pymtp_status pm_kernels_choose(const pm_kernels **out, pymtp_error *err);

#endif
