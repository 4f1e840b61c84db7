/* backend.h - the contract every back end fills: semantic operations on opaque buffers.
 *
 * THE ROW RULE. For a given build, back end and machine, the bits of an output row depend only on that row's input,
 * its position, the weights and the KV rows it may see: not on how many rows share the call, its index among them,
 * which outputs are wanted, thread count, or history. Consequences for an implementation:
 *   - partition over outputs only; the order of summation of an output element is fixed by (row length, format, ISA);
 *   - the number of rows may pick a tile shape, never a number format, a split of the sum or an algorithm;
 *   - activations are quantised per row and block of 32;
 *   - attention makes one partial softmax of each KV block of PM_KV_BLOCK absolute positions and merges them in position
 *     order, in an order fixed by the layer; what a row does not see is not multiplied for it (a stale NaN must not
 *     get in); rows see each other only through the cache, at its stored precision;
 *   - an expert's rows may be grouped, but a row's sum over experts runs in that row's own rank order.
 *
 * Ops only enqueue; buf_read alone waits. Ops that cannot fail return void. `n` is always a number of rows and every
 * activation buffer is (rows, width) of float, row-major, unpadded. Token ids are (rows) of int32.
 * Matrices are (out, in): y = W x. Shapes were checked when the model was opened and are not checked again. */
#ifndef PM_BACKEND_H
#define PM_BACKEND_H

#include "base/status.h"
#include "base/tap.h"
#include "gguf/gguf.h"

#define PM_KV_BLOCK 128     /* part of the arithmetic: changing it changes output bits */
#define PM_MAX_DRAFT PYMTP_MAX_DRAFT
#define PM_HEAD_TOP 256     /* most logits a row that head_top keeps */

typedef struct pm_backend pm_backend;
typedef struct pm_buf pm_buf;       /* storage of the back end */
typedef struct pm_matrix pm_matrix; /* weights in the back end's own layout (repacked while loading) */
typedef struct pm_table pm_table;   /* rows fetched by id from the file, never copied as a whole */

/* The rows of one call: position of each, and the segment (one session's KV) it belongs to. Host arrays. */
typedef struct pm_rows {
    int32_t n;
    const int32_t *pos; /* (n) */
    const int32_t *seg; /* (n), ascending */
    int32_t n_seg;
} pm_rows;

/* Keys and values of one layer of one session. Position p lives in slot p % capacity of k and v:
 * (capacity, heads, head bytes). Head bytes: F32 4 * head_dim; F16 2 * head_dim; Q8_0 34 * ceil(head_dim / 32), as
 * blocks {f16 scale; int8 q[32]}, the last one zero-filled. */
typedef struct pm_kv_view {
    pm_buf *k, *v;
    int32_t type; /* PYMTP_KV_* */
    int32_t heads, head_dim;
    int32_t capacity;
    size_t row_bytes; /* of one position: heads * head bytes */
} pm_kv_view;

/* Rotary angles: element i pairs with i + head_dim / 2, angle = position * inv_freq[i]. */
typedef struct pm_rope {
    const double *inv_freq; /* (head_dim / 2), host; 0 = not rotated */
    int32_t head_dim;
} pm_rope;

typedef struct pm_qkv {
    const pm_buf *norm;             /* (D) */
    const pm_matrix *wq;            /* (heads * head_dim, D) */
    const pm_matrix *wk, *wv;       /* (kv_heads * head_dim, D); wk NULL: the layer owns no KV; wv NULL: V = K before its norm */
    const pm_buf *q_norm, *k_norm;  /* (head_dim) */
    const pm_rope *rope;
    int32_t heads, kv_heads, head_dim;
} pm_qkv;

typedef struct pm_ple_inputs { /* spec: ple[l] = (RMS(proj x0 * D^-0.5) + table[id] * sqrt(width)) / sqrt(2) */
    const pm_table *table;   /* (vocab, layers * width) */
    const pm_matrix *proj;   /* (layers * width, D) */
    const pm_buf *norm;      /* (width) */
    int32_t layers, width;
} pm_ple_inputs;

typedef struct pm_moe {
    const pm_buf *ffn_norm;                      /* dense branch: RMS(down(gelu(gate n) * up n), post_norm_1) */
    const pm_matrix *gate, *up, *down;           /* (ff, D), (ff, D), (D, ff) */
    const pm_buf *post_norm_1;
    const pm_buf *router_scale;                  /* (D) */
    const pm_matrix *router;                     /* (experts, D), f32 */
    const pm_buf *expert_scale;                  /* (experts) */
    const pm_buf *pre_norm_2, *post_norm_2;      /* (D) */
    const pm_matrix *gate_up_exps;               /* (experts * 2 * expert_ff, D): per expert gate rows, then up rows; or NULL */
    const pm_matrix *gate_exps, *up_exps;        /* (experts * expert_ff, D) each, when gate_up_exps is NULL */
    const pm_matrix *down_exps;                  /* (experts * D, expert_ff) */
    const pm_buf *post_norm;                     /* x += RMS(a + b, post_norm) */
    int32_t experts, used, expert_ff, ff;
} pm_moe;

/* The largest of everything, so that a back end can size its scratch once. */
typedef struct pm_limits {
    int32_t rows;            /* rows of one call */
    int32_t width;           /* D of the target (the drafter's is smaller or counted in) */
    int32_t max_in, max_out; /* longest input and output of any matrix except heads */
    int32_t max_ff;          /* widest dense FFN */
    int32_t heads_dim;       /* most heads * head_dim */
    int32_t head_dim;        /* largest */
    int32_t experts, used, expert_ff;
    int32_t ple;             /* layers * width of PLE */
    int32_t vocab;
    int32_t logits_rows;     /* rows of one head call */
    int32_t clusters;        /* most centroids */
} pm_limits;

struct pm_backend {
    const char *name; /* "cpu" */
    const char *isa;  /* kernel set in use */
    float eps;        /* of every RMS norm; set by the model before the first op */
    pymtp_counters work; /* of all ops so far; size is not used */
    pm_tap *tap;         /* where rows that meet weights are counted, or NULL; the engine's */

    void (*close)(pm_backend *b);
    pymtp_status (*prepare)(pm_backend *b, const pm_limits *limits, pymtp_error *err); /* scratch; once, or again with larger limits */
    pymtp_status (*scratch_bytes)(const pm_backend *b, const pm_limits *limits, uint64_t *bytes, pymtp_error *err); /* that prepare takes */

    /* -- storage -- */
    pymtp_status (*buf_new)(pm_backend *b, size_t bytes, pm_buf **out, pymtp_error *err);     /* zeroed */
    pymtp_status (*buf_reserve)(pm_backend *b, size_t bytes, pm_buf **out, pymtp_error *err); /* address space only */
    pymtp_status (*buf_commit)(pm_backend *b, pm_buf *buf, size_t bytes, pymtp_error *err);   /* its first bytes usable */
    void (*buf_free)(pm_backend *b, pm_buf *buf);
    void (*buf_write)(pm_backend *b, pm_buf *buf, size_t offset, const void *src, size_t bytes);
    void (*buf_read)(pm_backend *b, const pm_buf *buf, size_t offset, void *dst, size_t bytes);
    void (*buf_copy)(pm_backend *b, pm_buf *dst, size_t dst_offset, const pm_buf *src, size_t src_offset, size_t bytes);
    /* Rows [first, first + rows) of a tensor, read by positioned reads in slices straight into the layout of the ISA. With
     * order (int32 (rows), a permutation of 0..rows - 1) row i of the matrix is row first + order[i] of the tensor. */
    pymtp_status (*matrix_new)(pm_backend *b, const pm_gguf *file, const pm_gguf_tensor *t, uint64_t first, uint64_t rows,
                               const pm_buf *order, pm_matrix **out, pymtp_error *err);
    void (*matrix_free)(pm_backend *b, pm_matrix *m);
    uint64_t (*matrix_bytes)(const pm_matrix *m);
    uint64_t (*matrix_need)(const pm_backend *b, const pm_gguf_tensor *t); /* bytes of one of all rows; 0 where the type is not supported */
    pymtp_status (*table_new)(pm_backend *b, const pm_gguf *file, const pm_gguf_tensor *t, pm_table **out, pymtp_error *err);
    void (*table_free)(pm_backend *b, pm_table *t);

    /* -- input -- */
    /* out[r] = table[ids[r]] * scale */
    pymtp_status (*embed)(pm_backend *b, int32_t n, const pm_buf *ids, const pm_table *table, float scale, pm_buf *out,
                          pymtp_error *err);
    /* out: (n, layers, width) */
    pymtp_status (*ple_inputs)(pm_backend *b, int32_t n, const pm_buf *ids, const pm_buf *x, const pm_ple_inputs *p,
                               pm_buf *out, pymtp_error *err);
    /* x = pre * [table[ids[r]] * scale ; h[r]]: the drafter's input. h: (n, D), pre: (d, 2 D), x: (n, d) */
    pymtp_status (*draft_input)(pm_backend *b, int32_t n, const pm_buf *ids, const pm_table *table, float scale,
                                const pm_buf *h, const pm_matrix *pre, pm_buf *x, pymtp_error *err);

    /* -- attention -- */
    /* q = RoPE(RMS per head(wq RMS(x, norm))); when wk is given also k and v, stored at each row's position in
     * views[seg[r]]: k = RoPE(RMS per head(wk h)), v = weightless RMS per head(wv h or wk h). q: (n, heads * head_dim) */
    void (*norm_qkv)(pm_backend *b, const pm_rows *rows, const pm_qkv *w, const pm_buf *x, const pm_kv_view *views, pm_buf *q);
    /* Softmax attention, scale 1, query head j reads KV head j / (heads / kv heads). Row r sees the positions k with
     * first <= k <= last: last = pos[r] (self = 1) or pos[r] - 1 (self = 0, the drafter); first = pos[r] - window + 1
     * or 0 when window is 0; never below 0. A row that sees nothing gives zeros. out: (n, heads * head_dim) */
    void (*attend)(pm_backend *b, const pm_rows *rows, const pm_kv_view *views, const pm_buf *q, int32_t heads, int32_t window,
                   int32_t self, pm_buf *out);
    /* x += RMS(wo attn, post_norm) */
    void (*attn_out)(pm_backend *b, int32_t n, const pm_buf *attn, const pm_matrix *wo, const pm_buf *post_norm, pm_buf *x);

    /* -- feed-forward -- */
    /* h = gelu(gate RMS(x, norm)) * (up RMS(x, norm)); h: (n, ff) */
    void (*gate_up_act)(pm_backend *b, int32_t n, const pm_buf *x, const pm_buf *norm, const pm_matrix *gate, const pm_matrix *up, pm_buf *h);
    /* x += RMS(down h, post_norm) */
    void (*down_add)(pm_backend *b, int32_t n, const pm_buf *h, const pm_matrix *down, const pm_buf *post_norm, pm_buf *x);
    /* The whole mixture-of-experts block, dense branch and residual included. */
    void (*moe_ffn)(pm_backend *b, int32_t n, const pm_moe *w, pm_buf *x);
    /* x += RMS(proj (gelu(gate x) * ple[:, layer]), post_norm); ple: (n, layers, width) */
    void (*ple_add)(pm_backend *b, int32_t n, const pm_buf *ple, int32_t layers, int32_t layer, int32_t width, const pm_matrix *gate,
                    const pm_matrix *proj, const pm_buf *post_norm, pm_buf *x);
    /* x *= s */
    void (*scale)(pm_backend *b, int32_t n, int32_t width, float s, pm_buf *x);

    /* -- output -- */
    void (*rms_norm)(pm_backend *b, int32_t n, int32_t width, const pm_buf *x, const pm_buf *weight, pm_buf *out);
    /* out = w x */
    void (*project)(pm_backend *b, int32_t n, const pm_matrix *w, const pm_buf *x, pm_buf *out);
    /* dst[i] = src[index[i]] for n rows of width floats; index host, ascending; dst and src may be the same buffer */
    void (*gather_rows)(pm_backend *b, int32_t n, int32_t width, const pm_buf *src, const int32_t *index, pm_buf *dst);
    /* logits = cap tanh((w h[first + r]) / cap), or w h when cap is 0. logits: (n, vocab) */
    void (*head_logits)(pm_backend *b, int32_t n, const pm_buf *h, int32_t first, const pm_matrix *w, float cap, pm_buf *logits);
    /* The k best of what head_logits gives (logit descending, then id ascending), the same bits, without the rest ever being
     * stored: ids and logits (n, k); 1 <= k <= PM_HEAD_TOP, k <= vocab. A row with a NaN or an infinity anywhere among its logits
     * gives k times NaN; its ids are the best, NaN counting as -inf. */
    void (*head_top)(pm_backend *b, int32_t n, const pm_buf *h, int32_t first, const pm_matrix *w, float cap, int32_t k, pm_buf *ids,
                     pm_buf *logits);
    /* The centroid head: the `top` best clusters by centroids h (ties: lower cluster), in descending order of score;
     * ids and scores of their members, cluster after cluster in table order: (n, top * members).
     * ordering: int32 (clusters, members); w is in that order too, so that a cluster's rows lie together. */
    void (*head_clusters)(pm_backend *b, int32_t n, const pm_buf *h, const pm_matrix *centroids, const pm_buf *ordering,
                          const pm_matrix *w, int32_t clusters, int32_t members, int32_t top, pm_buf *ids, pm_buf *scores);
    /* ids[r] = index of the largest of scores (n, width), ties to the lowest id; candidates NULL (index = id) or
     * (n, width) ids. Lets argmax -> embed chain without the host. */
    void (*argmax)(pm_backend *b, int32_t n, int32_t width, const pm_buf *scores, const pm_buf *candidates, pm_buf *ids);
};

pymtp_status pm_backend_cpu_open(int threads, pm_backend **out, pymtp_error *err);

#endif
