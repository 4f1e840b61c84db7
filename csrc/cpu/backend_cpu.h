/* backend_cpu.h - private to the files backend_cpu*.c: the CPU back end's state and the helpers its ops share.
 *
 * Everything an op needs is taken in prepare(): ops allocate nothing. Scratch is plain (rows, width) floats; what a
 * name holds is said where it is filled. Ops run on the pool, split over rows or over outputs, never over a sum. */
#ifndef PM_CPU_BACKEND_CPU_H
#define PM_CPU_BACKEND_CPU_H

#include "backend.h"
#include "base/memory.h"
#include "base/pool.h"
#include "cpu/kernels.h"

struct pm_buf {
    unsigned char *data;
    size_t bytes;
    pm_region region; /* base NULL: data is from pm_aligned */
};

struct pm_matrix {
    const char *name; /* of its tensor */
    pm_packed packed; /* data: in the back end's arena */
    size_t bytes;
};

/* Weights are carved out of large regions with huge pages and live as long as the back end. */
#define PM_CPU_REGIONS 256
typedef struct pm_cpu_arena {
    pm_region region[PM_CPU_REGIONS];
    size_t regions, used; /* used: of the last region, from its base on */
} pm_cpu_arena;

struct pm_table {
    const pm_gguf *file;
    const pm_gguf_tensor *tensor;
    const pm_format *format;
    size_t cols, row_bytes;
};

#define PM_CPU_ROPES 4 /* sliding and global, of target and drafter */

/* cos and sin of the angles of the last call with these frequencies; valid for equal (inv_freq, pos) only. */
typedef struct pm_cpu_rope {
    int32_t head_dim, n;
    int32_t *pos;       /* (rows) */
    double *inv_freq;   /* (head_dim / 2) */
    float *cos, *sin;   /* (rows, head_dim / 2) */
} pm_cpu_rope;

#define PM_CPU_HEAD_UNIT 256 /* outputs of a head that are computed, capped and looked through while they are in cache */

typedef struct pm_cpu_logit { float logit; int32_t id; } pm_cpu_logit;

/* The best logits of one row that one thread has seen: a heap with the worst on top once there are k. */
typedef struct pm_cpu_top_row {
    pm_cpu_logit *best; /* (PM_HEAD_TOP) */
    size_t kept;
    float least;        /* of the k kept; -inf while there are fewer */
    int bad;            /* a NaN or an infinity was seen */
} pm_cpu_top_row;

typedef struct pm_cpu {
    pm_backend base; /* first: a pm_backend * is a pm_cpu * */
    const pm_kernels *k;
    pm_pool *pool;
    int threads;
    pymtp_error *errors;          /* (threads): what went wrong in a job */
    unsigned char *stage;         /* (threads, stage_bytes): one stored row of a table */
    size_t stage_bytes;

    pm_cpu_arena weights;

    pm_region scratch;
    size_t rows, wide;            /* rows of the scratch below, and its width */
    float *a, *b;                 /* (rows, wide) */
    float *c;                     /* (rows, width) */
    float *line;                  /* (threads, wide) */
    float *edge;                  /* (threads, 2 * rows * group): outputs beside the wanted ones in a weight group */
    pm_act act, pairs;            /* pairs: MoE only */
    float *states;                /* (threads, states_each): attention's states and scores */
    size_t states_each;
    float *partial;               /* (partial_floats): attention's states of spans, of one wave */
    size_t partial_floats;
    _Atomic uint64_t kv_read;     /* bytes of keys and values attention has read; a block counts once for each walk over it */
    pm_cpu_rope rope[PM_CPU_ROPES];
    unsigned next_rope;
    uint64_t *keys;               /* (threads, keys_each): for choosing clusters or experts */
    size_t keys_each;
    float *cluster_scores;        /* (rows, clusters) */
    int32_t *cluster_top;         /* (rows, clusters) */
    float *head_unit;             /* (threads, rows * PM_CPU_HEAD_UNIT) */
    pm_cpu_top_row *top_rows;     /* (threads, rows) */
    pm_cpu_logit *top_best;       /* (threads, rows, PM_HEAD_TOP) */
    float *router;                /* (rows, experts) */
    int32_t *choice;              /* (rows, used): experts, best first */
    float *share;                 /* (rows, used): their weights */
    int32_t *pair_row, *pair_expert, *pair_of; /* (rows * used): row and expert of a pair; pair of (row, rank) */
    int32_t *expert_start;        /* (experts + 1): pairs are sorted by expert, then row */
    struct pm_mm *mm;             /* (2 * experts) */
    float *expert_h;              /* (rows, 2 * expert_ff): of the pairs of one wave */
    float *expert_out;            /* (rows * used, width) */
} pm_cpu;

static inline float *pm_cpu_f32(const pm_buf *b) { return (float *)(void *)b->data; }
static inline int32_t *pm_cpu_i32(const pm_buf *b) { return (int32_t *)(void *)b->data; }

/* ---- storage: backend_cpu.c, weights: backend_cpu_weights.c ---- */

pymtp_status pm_cpu_storage(pm_buf *out, size_t bytes, const char *what, pymtp_error *err); /* zeroed */
void pm_cpu_storage_free(pm_buf *b);
pymtp_status pm_cpu_matrix_new(pm_backend *b, const pm_gguf *file, const pm_gguf_tensor *t, uint64_t first, uint64_t rows,
                               const pm_buf *order, pm_matrix **out, pymtp_error *err);
void pm_cpu_arena_free(pm_cpu_arena *a);
void pm_cpu_matrix_free(pm_backend *b, pm_matrix *m);
uint64_t pm_cpu_matrix_bytes(const pm_matrix *m);
uint64_t pm_cpu_matrix_need(const pm_backend *b, const pm_gguf_tensor *t);
pymtp_status pm_cpu_table_new(pm_backend *b, const pm_gguf *file, const pm_gguf_tensor *t, pm_table **out, pymtp_error *err);
void pm_cpu_table_free(pm_backend *b, pm_table *t);
/* dst (cols) = row `id` of the table; to be called inside a job, by thread `thread`. */
pymtp_status pm_cpu_table_row(pm_cpu *c, const pm_table *t, int32_t id, float *dst, int thread, pymtp_error *err);
/* Runs a job whose threads report to c->errors[thread]; the first thread's error is the call's. */
pymtp_status pm_cpu_run_checked(pm_cpu *c, size_t items, size_t grain, pm_job job, void *context, pymtp_error *err);

/* ---- prepared activations, products, small row work: backend_cpu_matmul.c ---- */

/* One product: outputs [first, first + rows) of w for the n activation rows from act_row on, which were prepared as a batch
 * of n; out: (n, rows) with `stride` floats from row to row. */
typedef struct pm_mm {
    const pm_matrix *w;
    size_t first, rows, act_row, n;
    float *out;
    size_t stride;
} pm_mm;

static inline unsigned pm_cpu_kind(const pm_matrix *m) { return m ? 1u << m->packed.format->act : 0; }

/* The matrices that rows of activations will meet; NULL for none. */
#define PM_MEETS 3
typedef struct pm_meets { const pm_matrix *w[PM_MEETS]; } pm_meets;

/* act = a batch of n rows of x, or of RMS(x, norm) when norm is given, in the kinds that the matrices want. */
void pm_cpu_prepare(pm_cpu *c, pm_act *act, const float *x, size_t stride, size_t n, size_t cols, const pm_buf *norm, pm_meets meets);
/* The same in a set of kinds (1 << pm_act_kind) and unseen by a tap. */
void pm_cpu_prepare_kinds(pm_cpu *c, pm_act *act, const float *x, size_t stride, size_t n, size_t cols, const pm_buf *norm,
                          unsigned kinds);
void pm_cpu_shape_act(const pm_cpu *c, pm_act *act, size_t n, size_t cols); /* a batch of n rows of cols values */
/* Row `row` of act = x (cols values). */
void pm_cpu_fill_act(const pm_cpu *c, const pm_act *act, size_t row, const float *x, unsigned kinds);
/* All products in one parallel pass. */
void pm_cpu_products(pm_cpu *c, const pm_act *act, const pm_mm *jobs, size_t n_jobs);
void pm_cpu_product(pm_cpu *c, const pm_act *act, const pm_matrix *w, size_t n, float *out); /* out: (n, w->rows) */
/* Outputs [begin, end) of one product inside a job, for the batch act; out[r * stride + o - begin]. */
void pm_cpu_product_part(pm_cpu *c, const pm_matrix *w, size_t begin, size_t end, const pm_act *act, float *out, size_t stride,
                         int thread);
pm_act pm_cpu_batch(const pm_act *act, size_t row, size_t n); /* the batch of n rows that starts at row `row` */
/* h = gelu(gate) * up; rows of `cols`, each pointer with its own stride; h may be gate or up */
void pm_cpu_gelu_mul(pm_cpu *c, size_t n, size_t cols, const float *gate, size_t gate_stride, const float *up, size_t up_stride,
                     float *h, size_t h_stride);
/* x += RMS(y, norm); y is overwritten. (n, width) */
void pm_cpu_add_normed(pm_cpu *c, size_t n, size_t width, float *y, const pm_buf *norm, float *x);
/* out[0..top) = indices of the `top` largest of x (n), descending, ties to the lower index; NaN comes last. keys: (top) */
void pm_cpu_top(const float *x, size_t n, size_t top, uint64_t *keys, int32_t *out);
/* cos and sin (n, head_dim / 2) of the rows' angles; *cos and *sin hold until the next call. */
void pm_cpu_angles(pm_cpu *c, const pm_rope *rope, const pm_rows *rows, const float **cosines, const float **sines);

/* Sets states_each and partial_floats for layers of up to heads_dim = heads * head_dim. */
void pm_cpu_attend_sizes(pm_cpu *c, size_t heads_dim, size_t head_dim);

/* ---- what ops compute, for pymtp_counters: backend_cpu_work.c ---- */

void pm_cpu_count_product(pm_cpu *c, const pm_matrix *w, size_t outputs, size_t rows); /* `outputs` rows of w meet `rows` activations */
void pm_cpu_count_kv(pm_cpu *c, const pm_rows *rows, const pm_kv_view *views, int32_t window, int32_t self); /* as of attend */
void pm_cpu_count_experts(pm_cpu *c, size_t experts);                                    /* by expert_start */

/* ---- the tap, where there is one: backend_cpu_tap.c ---- */

/* The rows of pm_cpu_prepare meet their matrices. */
void pm_cpu_tap_rows(pm_cpu *c, const float *x, size_t stride, size_t n, size_t cols, const pm_buf *norm, const pm_meets *meets);
/* RMS(x, pre_norm_2) of n rows meets the experts' matrices m that the rows chose. */
void pm_cpu_tap_experts(pm_cpu *c, const pm_moe *w, const pm_matrix *m, const float *x, size_t n);
/* h of the n pairs from `first` on meets their experts' down_exps. */
void pm_cpu_tap_pairs(pm_cpu *c, const pm_moe *w, size_t first, size_t n, const float *h, size_t stride);

/* ---- ops ---- */

pymtp_status pm_cpu_embed(pm_backend *b, int32_t n, const pm_buf *ids, const pm_table *table, float scale, pm_buf *out,
                          pymtp_error *err);
pymtp_status pm_cpu_ple_inputs(pm_backend *b, int32_t n, const pm_buf *ids, const pm_buf *x, const pm_ple_inputs *p, pm_buf *out,
                               pymtp_error *err);
pymtp_status pm_cpu_draft_input(pm_backend *b, int32_t n, const pm_buf *ids, const pm_table *table, float scale, const pm_buf *h,
                                const pm_matrix *pre, pm_buf *x, pymtp_error *err);
void pm_cpu_norm_qkv(pm_backend *b, const pm_rows *rows, const pm_qkv *w, const pm_buf *x, const pm_kv_view *views, pm_buf *q);
void pm_cpu_attend(pm_backend *b, const pm_rows *rows, const pm_kv_view *views, const pm_buf *q, int32_t heads, int32_t window,
                   int32_t self, pm_buf *out);
void pm_cpu_attn_out(pm_backend *b, int32_t n, const pm_buf *attn, const pm_matrix *wo, const pm_buf *post_norm, pm_buf *x);
void pm_cpu_gate_up_act(pm_backend *b, int32_t n, const pm_buf *x, const pm_buf *norm, const pm_matrix *gate, const pm_matrix *up,
                        pm_buf *h);
void pm_cpu_down_add(pm_backend *b, int32_t n, const pm_buf *h, const pm_matrix *down, const pm_buf *post_norm, pm_buf *x);
void pm_cpu_moe_ffn(pm_backend *b, int32_t n, const pm_moe *w, pm_buf *x);
void pm_cpu_ple_add(pm_backend *b, int32_t n, const pm_buf *ple, int32_t layers, int32_t layer, int32_t width, const pm_matrix *gate,
                    const pm_matrix *proj, const pm_buf *post_norm, pm_buf *x);
void pm_cpu_scale(pm_backend *b, int32_t n, int32_t width, float s, pm_buf *x);
void pm_cpu_rms_norm(pm_backend *b, int32_t n, int32_t width, const pm_buf *x, const pm_buf *weight, pm_buf *out);
void pm_cpu_project(pm_backend *b, int32_t n, const pm_matrix *w, const pm_buf *x, pm_buf *out);
void pm_cpu_gather_rows(pm_backend *b, int32_t n, int32_t width, const pm_buf *src, const int32_t *index, pm_buf *dst);
void pm_cpu_head_logits(pm_backend *b, int32_t n, const pm_buf *h, int32_t first, const pm_matrix *w, float cap, pm_buf *logits);
void pm_cpu_head_top(pm_backend *b, int32_t n, const pm_buf *h, int32_t first, const pm_matrix *w, float cap, int32_t k, pm_buf *ids,
                     pm_buf *logits);
void pm_cpu_head_clusters(pm_backend *b, int32_t n, const pm_buf *h, const pm_matrix *centroids, const pm_buf *ordering,
                          const pm_matrix *w, int32_t clusters, int32_t members, int32_t top, pm_buf *ids, pm_buf *scores);
void pm_cpu_argmax(pm_backend *b, int32_t n, int32_t width, const pm_buf *scores, const pm_buf *candidates, pm_buf *ids);

#endif
