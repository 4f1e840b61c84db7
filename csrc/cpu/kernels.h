/* kernels.h - the table of CPU kernels: one struct, one instance per ISA, chosen once per model (dispatch.c).
 *
 * Every kernels_<isa>.c compiles the same bodies (bodies.inc) over its own vocabularies and fills every entry. Kernels take
 * plain pointers, cannot fail, allocate nothing and know nothing of threads. Each obeys the row rule (backend.h). */
#ifndef PM_CPU_KERNELS_H
#define PM_CPU_KERNELS_H

#include "base/status.h"
#include "cpu/layout.h"

/* A weight matrix as the kernel set packed it (layout.h); rows in file order, or in the order they were asked for. */
typedef struct pm_packed {
    const pm_format *format;
    size_t rows, cols;
    const void *data;  /* groups, pm_group_bytes each */
    size_t row_bytes;  /* of a file row */
} pm_packed;

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
    size_t group;           /* weight rows packed together */
    size_t tile;            /* most activation rows that meet a group at once */

    /* rows: (group) file rows, NULL for none, which packs zeros; packed: pm_group_bytes */
    void (*pack)(const pm_format *f, size_t cols, const uint8_t *const *rows, void *packed);
    /* x (cols) to its blocks: out[0], out[step], out[2 step], ...; padded with zeros */
    void (*quantize)(const float *x, size_t cols, pm_act_block *out, size_t step);
    /* out[r * stride + o - begin] = dot(weight row o, activation row r) for o in [begin, end), r in [0, a->n); begin is a
     * multiple of group, end too or the last row */
    void (*matmul)(const pm_packed *w, size_t begin, size_t end, const pm_act *a, float *out, size_t stride);

#define KERNEL(name, ret, args) ret (*name) args;
#include "cpu/kernels.def"
#undef KERNEL
} pm_kernels;

const pm_kernels *pm_kernels_scalar(void);
/* NULL when not compiled for this architecture */
const pm_kernels *pm_kernels_avx2(void);
const pm_kernels *pm_kernels_avxvnni(void);       /* and VNNI without AVX-512 */
const pm_kernels *pm_kernels_avx512vnni256(void); /* the same in the encoding of AVX-512 */
const pm_kernels *pm_kernels_avx512(void);        /* F, BW, DQ, VL */
const pm_kernels *pm_kernels_avx512vnni(void);    /* and VNNI */
const pm_kernels *pm_kernels_neon(void);          /* with dot products of bytes */
const pm_kernels *pm_kernels_i8mm(void);          /* and products of byte matrices */

/* All sets this machine can run, best first, NULL-terminated. */
const pm_kernels *const *pm_kernels_available(void);
/* The best, or the one PYMTP_CPU names (an unknown or unsupported name is an error that lists the known ones). */
pymtp_status pm_kernels_choose(const pm_kernels **out, pymtp_error *err);

#endif
