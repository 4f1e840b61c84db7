/* test_ops.c - the ops of the CPU back end on a small file of weights.
 *
 * The row rule by memcmp: every op gives 17 rows the same bits, and the cache too, in calls of 1..17 rows, with 1..4
 * threads, on every kernel set; clusters are no whole groups of packed rows. One variant is also
 * checked against double where no other test looks inside (mixture of experts, centroid head). Errors: reads that
 * fail, ids and types that do not exist. */
#include "base/f16.h"
#include "check.h"
#include "cpu/backend_cpu.h"
#include "random.h"
#include "tiny_gguf.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROWS = 17, D = 96, FF = 160, HEADS = 4, KV = 2, DIM = 48, EXPERTS = 7, USED = 3, EFF = 32, LAYERS = 3, PLE = 32, VOCAB = 136,
       CLUSTERS = 17, MEMBERS = 8, TOP = 3, D2 = 64, CAPACITY = 128, WINDOW = 40 };
static const pm_limits limits = {.rows = ROWS, .width = D, .max_in = HEADS * DIM, .max_out = HEADS * DIM, .max_ff = FF, .heads_dim = HEADS * DIM,
                                 .head_dim = DIM, .experts = EXPERTS, .used = USED, .expert_ff = EFF, .ple = LAYERS * PLE, .vocab = VOCAB,
                                 .logits_rows = ROWS, .clusters = CLUSTERS};
enum { F32 = 0, Q4_0 = 2, Q8_0 = 8 };

/* ---- weights ---- */

enum { WQ, WK, WV, WO, GATE, UP, DOWN, ROUTER, GATE_UP, GATE_E, UP_E, DOWN_E, PLE_PROJ, PLE_GATE, PLE_OUT, PRE, POST, HEAD, HEAD2,
       CENTROIDS, N_MATRICES, EMBED = N_MATRICES, PLE_TABLE, N_TENSORS };

static const struct { const char *name; uint64_t cols, rows; } shape[N_TENSORS] = {
    {"wq", D, HEADS * DIM}, {"wk", D, KV * DIM}, {"wv", D, KV * DIM}, {"wo", HEADS * DIM, D}, {"gate", D, FF}, {"up", D, FF},
    {"down", FF, D}, {"router", D, EXPERTS}, {"gate_up_exps", D, EXPERTS * 2 * EFF}, {"gate_exps", D, EXPERTS * EFF},
    {"up_exps", D, EXPERTS * EFF}, {"down_exps", EFF, EXPERTS * D}, {"ple_proj", D, LAYERS * PLE}, {"ple_gate", D, PLE},
    {"ple_out", PLE, D}, {"pre", 2 * D, D2}, {"post", D2, D}, {"head", D, VOCAB}, {"head2", D2, VOCAB}, {"centroids", D2, CLUSTERS},
    {"embed", D, VOCAB}, {"ple_table", LAYERS * PLE, VOCAB},
};

/* Which formats, which cache, which structure. */
static const struct variant { uint32_t type[3]; int32_t kv, k_is_v, fused; } variants[] = {
    {{F32, F32, F32}, PYMTP_KV_F32, 0, 1},
    {{Q8_0, Q8_0, Q8_0}, PYMTP_KV_F16, 1, 0},
    {{Q4_0, Q8_0, F32}, PYMTP_KV_Q8_0, 0, 1},
};

static uint64_t bytes_of(uint32_t type, uint64_t values) { return type == F32 ? 4 * values : values / 32 * (type == Q8_0 ? 34 : 18); }

static void random_weights(rng *r, uint32_t type, uint64_t values, unsigned char *dst) {
    if (type == F32) {
        for (uint64_t i = 0; i < values; i++) {
            const float v = 0.3f * rng_uniform(r);
            memcpy(dst + 4 * i, &v, 4);
        }
        return;
    }
    const uint64_t block = type == Q8_0 ? 34 : 18;
    for (uint64_t i = 0; i < values / 32; i++, dst += block) {
        const uint16_t d = pm_f32_to_f16((type == Q8_0 ? 0.003f : 0.05f) * (1.2f + rng_uniform(r)));
        memcpy(dst, &d, 2);
        for (uint64_t j = 2; j < block; j++) dst[j] = (unsigned char)(rng_next(r) >> 20);
        if (type != Q8_0) continue;
        for (uint64_t j = 2; j < block; j++) dst[j] = dst[j] == 0x80 ? 0x81 : dst[j]; /* -128 is not written by quantizers */
    }
}

static uint32_t type_of(const struct variant *v, int i) { return i == ROUTER ? F32 : v->type[i % 3]; }

static void write_file(const char *path, const struct variant *v) {
    tiny_tensor t[N_TENSORS + 1];
    rng r = {31};
    for (int i = 0; i < N_TENSORS; i++) {
        const uint32_t type = type_of(v, i);
        const uint64_t bytes = bytes_of(type, shape[i].cols * shape[i].rows);
        unsigned char *data = malloc(bytes);
        random_weights(&r, type, shape[i].cols * shape[i].rows, data);
        t[i] = (tiny_tensor){.type = type, .cols = shape[i].cols, .rows = shape[i].rows, .data = data, .bytes = bytes};
        strcpy(t[i].name, shape[i].name);
    }
    static const int32_t whole[32] = {0};
    t[N_TENSORS] = (tiny_tensor){.name = "integers", .type = 26, .cols = 32, .rows = 1, .data = whole, .bytes = sizeof whole};
    CHECK(!tiny_write(path, t, N_TENSORS + 1), "cannot write %s", path);
    for (int i = 0; i < N_TENSORS; i++) free((void *)(uintptr_t)t[i].data);
}

/* ---- a back end with everything on it ---- */

enum { OUT_EMBED, OUT_PLE, OUT_DRAFT, OUT_Q, OUT_Q2, OUT_ATTN, OUT_WO, OUT_H, OUT_DOWN, OUT_MOE, OUT_PLE_ADD, OUT_SCALE, OUT_NORM,
       OUT_POST, OUT_LOGITS, OUT_IDS, OUT_SCORES, OUT_BEST, OUT_BEST2, N_OUTS };
static const struct { const char *op; int32_t width; } outs[N_OUTS] = {
    {"embed", D}, {"ple_inputs", LAYERS * PLE}, {"draft_input", D2}, {"norm_qkv", HEADS * DIM}, {"norm_qkv without K", HEADS * DIM},
    {"attend", HEADS * DIM}, {"attn_out", D}, {"gate_up_act", FF}, {"down_add", D}, {"moe_ffn", D}, {"ple_add", D}, {"scale", D},
    {"rms_norm", D}, {"project", D}, {"head_logits", VOCAB}, {"head_clusters ids", TOP * MEMBERS}, {"head_clusters scores", TOP * MEMBERS},
    {"argmax", 1}, {"argmax of candidates", 1},
};

typedef struct world {
    pm_backend *b;
    pm_gguf *file;
    pm_matrix *m[N_MATRICES];
    pm_table *embed, *ple_table;
    pm_buf *norm[8], *head_norm, *ple_norm, *expert_scale, *ordering;
    pm_buf *ids, *x, *wide, *out, *out2, *logits;
    pm_kv_view view[2];
} world;

/* The results of a run: one row-major block an output, then both caches. */
typedef struct results { float *out[N_OUTS]; unsigned char *cache; size_t cache_bytes; } results;

typedef struct inputs {
    float x[ROWS * D], wide[ROWS * HEADS * DIM], ple[ROWS * LAYERS * PLE], ff[ROWS * FF], h[ROWS * D];
    int32_t ids[ROWS], pos[ROWS], seg[ROWS], ordering[VOCAB];
    double inv_freq[DIM / 2];
} inputs;

static inputs in;

static void make_inputs(void) {
    rng r = {37};
    rng_fill(&r, in.x, ROWS * D, 3);
    rng_fill(&r, in.wide, ROWS * HEADS * DIM, 1);
    rng_fill(&r, in.ple, ROWS * LAYERS * PLE, 1);
    rng_fill(&r, in.ff, ROWS * FF, 1);
    rng_fill(&r, in.h, ROWS * D, 1);
    for (int i = 0; i < ROWS; i++) { /* session 0 crosses the end of its ring, session 1 starts from nothing */
        in.ids[i] = (int32_t)(rng_next(&r) % VOCAB);
        in.seg[i] = i >= 10;
        in.pos[i] = i < 10 ? 2 * CAPACITY - 5 + i : i - 10;
    }
    for (int i = 0; i < VOCAB; i++) in.ordering[i] = (i * 37 + 5) % VOCAB; /* 37 and 136 have no common factor */
    for (int i = 0; i < DIM / 2; i++) in.inv_freq[i] = i < DIM / 4 ? pow(1e4, -2.0 * i / DIM) : 0;
}

static pm_buf *new_buf(pm_backend *b, const void *data, size_t bytes) {
    pm_buf *out = NULL;
    CHECK(b->buf_new(b, bytes, &out, NULL) == PYMTP_OK, "buffer");
    if (data) b->buf_write(b, out, 0, data, bytes);
    return out;
}

static pm_buf *random_buf(pm_backend *b, rng *r, size_t n) {
    float v[D + FF];
    for (size_t i = 0; i < n; i++) v[i] = 1 + 0.5f * rng_uniform(r);
    return new_buf(b, v, n * sizeof(float));
}

static void fill_view(world *w, pm_kv_view *v, int32_t type, rng *r) {
    const size_t head = type == PYMTP_KV_F32 ? 4 * DIM : type == PYMTP_KV_F16 ? 2 * DIM : 34 * 2, bytes = CAPACITY * KV * head;
    *v = (pm_kv_view){.type = type, .heads = KV, .head_dim = DIM, .capacity = CAPACITY, .row_bytes = KV * head};
    unsigned char *data = malloc(bytes);
    const pm_kernels *k = ((pm_cpu *)w->b)->k;
    for (int side = 0; side < 2; side++) {
        float x[DIM];
        for (size_t i = 0; i < CAPACITY * KV; i++) {
            rng_fill(r, x, DIM, 1);
            k->kv_store(x, DIM, type, data + i * head);
        }
        *(side ? &v->v : &v->k) = new_buf(w->b, data, bytes);
    }
    free(data);
}

static void open_world(world *w, const char *path, const struct variant *v, int threads) {
    pymtp_error err = {0};
    rng r = {41};
    memset(w, 0, sizeof *w);
    CHECK(pm_backend_cpu_open(threads, &w->b, &err) == PYMTP_OK, "%s", err.text);
    CHECK(w->b->prepare(w->b, &limits, &err) == PYMTP_OK, "%s", err.text);
    CHECK(pm_gguf_open(path, &w->file, &err) == PYMTP_OK, "%s", err.text);
    w->ordering = new_buf(w->b, in.ordering, sizeof in.ordering);
    for (int i = 0; i < N_MATRICES; i++) {
        const pm_gguf_tensor *t = pm_gguf_tensor_find(w->file, shape[i].name);
        CHECK(w->b->matrix_new(w->b, w->file, t, 0, shape[i].rows, i == HEAD2 ? w->ordering : NULL, &w->m[i], &err) == PYMTP_OK, "%s", err.text);
    }
    CHECK(w->b->table_new(w->b, w->file, pm_gguf_tensor_find(w->file, "embed"), &w->embed, &err) == PYMTP_OK, "%s", err.text);
    CHECK(w->b->table_new(w->b, w->file, pm_gguf_tensor_find(w->file, "ple_table"), &w->ple_table, &err) == PYMTP_OK, "%s", err.text);
    for (int i = 0; i < 8; i++) w->norm[i] = random_buf(w->b, &r, D);
    w->head_norm = random_buf(w->b, &r, DIM);
    w->ple_norm = random_buf(w->b, &r, PLE);
    w->expert_scale = random_buf(w->b, &r, EXPERTS);
    w->ids = new_buf(w->b, NULL, ROWS * sizeof(int32_t));
    w->x = new_buf(w->b, NULL, sizeof in.x);
    w->wide = new_buf(w->b, NULL, ROWS * HEADS * DIM * sizeof(float));
    w->out = new_buf(w->b, NULL, ROWS * HEADS * DIM * sizeof(float));
    w->out2 = new_buf(w->b, NULL, ROWS * HEADS * DIM * sizeof(float));
    w->logits = new_buf(w->b, NULL, ROWS * VOCAB * sizeof(float));
    for (int s = 0; s < 2; s++) fill_view(w, &w->view[s], v->kv, &r);
}

static void close_world(world *w) {
    pm_backend *b = w->b;
    pm_buf *bufs[] = {w->head_norm, w->ple_norm, w->expert_scale, w->ordering, w->ids, w->x, w->wide, w->out, w->out2, w->logits,
                      w->view[0].k, w->view[0].v, w->view[1].k, w->view[1].v};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++) b->buf_free(b, bufs[i]);
    for (int i = 0; i < 8; i++) b->buf_free(b, w->norm[i]);
    for (int i = 0; i < N_MATRICES; i++) b->matrix_free(b, w->m[i]);
    b->table_free(b, w->embed);
    b->table_free(b, w->ple_table);
    pm_gguf_close(w->file);
    b->close(b);
}

static pm_moe moe_of(const world *w, const struct variant *v) {
    pm_moe m = {.ffn_norm = w->norm[0], .gate = w->m[GATE], .up = w->m[UP], .down = w->m[DOWN], .post_norm_1 = w->norm[1],
                .router_scale = w->norm[2], .router = w->m[ROUTER], .expert_scale = w->expert_scale, .pre_norm_2 = w->norm[3],
                .post_norm_2 = w->norm[4], .post_norm = w->norm[5], .down_exps = w->m[DOWN_E], .experts = EXPERTS, .used = USED,
                .expert_ff = EFF, .ff = FF};
    if (v->fused) m.gate_up_exps = w->m[GATE_UP];
    else {
        m.gate_exps = w->m[GATE_E];
        m.up_exps = w->m[UP_E];
    }
    return m;
}

/* ---- running every op on all rows, `chunk` rows a call ---- */

static void put(world *w, pm_buf *to, const float *rows, int32_t first, int32_t n, size_t width) {
    w->b->buf_write(w->b, to, 0, rows + (size_t)first * width, (size_t)n * width * sizeof(float));
}

/* Rows [first, first + n) of one op. */
static void run_op(world *w, const struct variant *v, int op, int32_t first, int32_t n, results *res) {
    pm_backend *b = w->b;
    const pm_rows rows = {n, in.pos + first, in.seg + first, 2};
    const pm_rope rope = {in.inv_freq, DIM};
    const pm_qkv qkv = {.norm = w->norm[0], .wq = w->m[WQ], .wk = op == OUT_Q ? w->m[WK] : NULL, .wv = v->k_is_v ? NULL : w->m[WV],
                        .q_norm = w->head_norm, .k_norm = w->head_norm, .rope = &rope, .heads = HEADS, .kv_heads = KV, .head_dim = DIM};
    const pm_ple_inputs ple = {w->ple_table, w->m[PLE_PROJ], w->ple_norm, LAYERS, PLE};
    const pm_moe moe = moe_of(w, v);
    pm_buf *out = w->out;
    b->buf_write(b, w->ids, 0, in.ids + first, (size_t)n * sizeof(int32_t));
    put(w, w->x, in.x, first, n, D);
    switch (op) {
    case OUT_EMBED: CHECK(b->embed(b, n, w->ids, w->embed, 1.7f, out, NULL) == PYMTP_OK, "embed"); break;
    case OUT_PLE: CHECK(b->ple_inputs(b, n, w->ids, w->x, &ple, out, NULL) == PYMTP_OK, "ple_inputs"); break;
    case OUT_DRAFT:
        put(w, w->wide, in.h, first, n, D);
        CHECK(b->draft_input(b, n, w->ids, w->embed, 2.5f, w->wide, w->m[PRE], out, NULL) == PYMTP_OK, "draft_input");
        break;
    case OUT_Q:
    case OUT_Q2: b->norm_qkv(b, &rows, &qkv, w->x, w->view, out); break;
    case OUT_ATTN:
        put(w, w->wide, in.wide, first, n, HEADS * DIM);
        b->attend(b, &rows, w->view, w->wide, HEADS, WINDOW, 1, out);
        break;
    case OUT_WO:
        put(w, w->wide, in.wide, first, n, HEADS * DIM);
        b->attn_out(b, n, w->wide, w->m[WO], w->norm[1], w->x);
        out = w->x;
        break;
    case OUT_H: b->gate_up_act(b, n, w->x, w->norm[2], w->m[GATE], w->m[UP], out); break;
    case OUT_DOWN:
        put(w, w->wide, in.ff, first, n, FF);
        b->down_add(b, n, w->wide, w->m[DOWN], w->norm[3], w->x);
        out = w->x;
        break;
    case OUT_MOE:
        b->moe_ffn(b, n, &moe, w->x);
        out = w->x;
        break;
    case OUT_PLE_ADD:
        put(w, w->wide, in.ple, first, n, LAYERS * PLE);
        b->ple_add(b, n, w->wide, LAYERS, 1, PLE, w->m[PLE_GATE], w->m[PLE_OUT], w->norm[4], w->x);
        out = w->x;
        break;
    case OUT_SCALE:
        b->scale(b, n, D, 0.83f, w->x);
        out = w->x;
        break;
    case OUT_NORM: b->rms_norm(b, n, D, w->x, w->norm[5], out); break;
    case OUT_POST:
        put(w, w->wide, in.h, first, n, D2);
        b->project(b, n, w->m[POST], w->wide, out);
        break;
    case OUT_LOGITS:
    case OUT_BEST: /* all rows are there; the call starts at row `first` */
        put(w, w->x, in.x, 0, ROWS, D);
        b->head_logits(b, n, w->x, first, w->m[HEAD], 3.0f, w->logits);
        if (op == OUT_BEST) b->argmax(b, n, VOCAB, w->logits, NULL, out);
        else out = w->logits;
        break;
    default:
        put(w, w->wide, in.h, first, n, D2);
        b->head_clusters(b, n, w->wide, w->m[CENTROIDS], w->ordering, w->m[HEAD2], CLUSTERS, MEMBERS, TOP, out, w->out2);
        if (op == OUT_SCORES) out = w->out2;
        if (op == OUT_BEST2) {
            b->argmax(b, n, TOP * MEMBERS, w->out2, out, w->x);
            out = w->x;
        }
    }
    const size_t width = (size_t)outs[op].width;
    b->buf_read(b, out, 0, res->out[op] + (size_t)first * width, (size_t)n * width * sizeof(float));
}

static void results_new(results *r, const world *w) {
    for (int i = 0; i < N_OUTS; i++) r->out[i] = calloc(ROWS * (size_t)outs[i].width, sizeof(float));
    r->cache_bytes = CAPACITY * w->view[0].row_bytes;
    r->cache = calloc(4, r->cache_bytes);
}

static void results_free(results *r) {
    for (int i = 0; i < N_OUTS; i++) free(r->out[i]);
    free(r->cache);
}

/* Ops in order, so that all keys and values are stored before any row attends. */
static void run_all(world *w, const struct variant *v, int32_t chunk, results *res) {
    for (int op = 0; op < N_OUTS; op++)
        for (int32_t first = 0; first < ROWS; first += chunk) run_op(w, v, op, first, first + chunk < ROWS ? chunk : ROWS - first, res);
    for (int i = 0; i < 4; i++)
        w->b->buf_read(w->b, i % 2 ? w->view[i / 2].v : w->view[i / 2].k, 0, res->cache + (size_t)i * res->cache_bytes, res->cache_bytes);
}

static void compare(const results *a, const results *b, const char *what, int threads, int32_t chunk) {
    for (int i = 0; i < N_OUTS; i++) {
        const size_t bytes = ROWS * (size_t)outs[i].width * sizeof(float);
        CHECK(!memcmp(a->out[i], b->out[i], bytes), "%s: %s: other bits with %d threads, %d rows a call", what, outs[i].op, threads, chunk);
    }
    CHECK(!memcmp(a->cache, b->cache, 4 * a->cache_bytes), "%s: the cache differs with %d threads, %d rows a call", what, threads, chunk);
}

/* ---- against double (all weights F32) ---- */

static void product(const world *w, int m, size_t first, size_t rows, const double *x, double *y) {
    static float data[HEADS * DIM * FF]; /* as large as any matrix here */
    const size_t cols = shape[m].cols;
    CHECK(pm_gguf_read(w->file, pm_gguf_tensor_find(w->file, shape[m].name), first * cols * 4, data, rows * cols * 4, NULL) == PYMTP_OK, "read");
    for (size_t o = 0; o < rows; o++) {
        y[o] = 0;
        for (size_t i = 0; i < cols; i++) y[o] += (double)data[o * cols + i] * x[i];
    }
}

static void rms(const double *x, const pm_buf *weight, size_t n, double *y) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    const double s = 1 / sqrt(sum / (double)n + 1e-6);
    for (size_t i = 0; i < n; i++) y[i] = x[i] * s * (weight ? (double)pm_cpu_f32(weight)[i] : 1);
}

static double gelu(double x) { return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x))); }

static void moe_row(const world *w, const float *input, double *x) {
    double n[D], g[FF], u[FF], a[D], sum[D] = {0}, y[D], p[EXPERTS], total = 0;
    for (int i = 0; i < D; i++) x[i] = (double)input[i];
    rms(x, w->norm[0], D, n);
    product(w, GATE, 0, FF, n, g);
    product(w, UP, 0, FF, n, u);
    for (int i = 0; i < FF; i++) g[i] = gelu(g[i]) * u[i];
    product(w, DOWN, 0, D, g, y);
    rms(y, w->norm[1], D, a);
    rms(x, w->norm[2], D, n);
    for (int i = 0; i < D; i++) n[i] /= sqrt((double)D);
    product(w, ROUTER, 0, EXPERTS, n, p);
    for (int e = 0; e < EXPERTS; e++) p[e] = exp(p[e]);
    rms(x, w->norm[3], D, n);
    int chosen[USED], taken[EXPERTS] = {0};
    for (int k = 0; k < USED; k++) {
        int best = -1;
        for (int e = 0; e < EXPERTS; e++)
            if (!taken[e] && (best < 0 || p[e] > p[best])) best = e;
        taken[chosen[k] = best] = 1;
        total += p[best];
    }
    for (int k = 0; k < USED; k++) {
        const size_t e = (size_t)chosen[k];
        product(w, GATE_UP, e * 2 * EFF, EFF, n, g);
        product(w, GATE_UP, e * 2 * EFF + EFF, EFF, n, u);
        for (int i = 0; i < EFF; i++) g[i] = gelu(g[i]) * u[i];
        product(w, DOWN_E, e * D, D, g, y);
        for (int i = 0; i < D; i++) sum[i] += p[e] / total * (double)pm_cpu_f32(w->expert_scale)[e] * y[i];
    }
    rms(sum, w->norm[4], D, sum);
    for (int i = 0; i < D; i++) a[i] += sum[i];
    rms(a, w->norm[5], D, a);
    for (int i = 0; i < D; i++) x[i] += a[i];
}

/* Every stage errs by at most (n / 16 + 12) u of sum |w x| <= sqrt(n) times its norm for weights and inputs of random sign; n <= 160,
 * five such stages in a row, each followed by a norm that keeps relative errors: 5 * 22 * 13 u = 9e-5 of values up to 5. */
static void check_moe(const world *w, const results *r) {
    for (int row = 0; row < ROWS; row++) {
        double want[D];
        moe_row(w, in.x + row * D, want);
        for (int i = 0; i < D; i++) {
            const double have = (double)r->out[OUT_MOE][row * D + i];
            CHECK(fabs(have - want[i]) < 5 * 9e-5, "moe_ffn row %d [%d]: %.7g, expected %.7g", row, i, have, want[i]);
        }
    }
}

/* RMS(raw head, weight), rotated when the weight is given. */
static void head_of(const double *raw, const pm_buf *weight, int32_t pos, double *y) {
    rms(raw, weight, DIM, y);
    for (int i = 0; i < DIM / 2 && weight; i++) {
        const double angle = pos * in.inv_freq[i], a = y[i], c = y[i + DIM / 2];
        y[i] = a * cos(angle) - c * sin(angle);
        y[i + DIM / 2] = c * cos(angle) + a * sin(angle);
    }
}

/* As check_moe with two stages; values up to 6 (a weight of 1.5, two elements of a head of 48). */
static void check_qkv(const world *w, const results *r) {
    static const int matrix[3] = {WQ, WK, WV};
    for (int row = 0; row < ROWS; row++) {
        double x[D], n[D], raw[HEADS * DIM], want[DIM];
        for (int i = 0; i < D; i++) x[i] = (double)in.x[row * D + i];
        rms(x, w->norm[0], D, n);
        for (int m = 0; m < 3; m++) {
            product(w, matrix[m], 0, (m ? KV : HEADS) * DIM, n, raw);
            for (size_t h = 0; h < (m ? KV : HEADS); h++) {
                const float *have = r->out[OUT_Q] + ((size_t)row * HEADS + h) * DIM;
                if (m) {
                    const unsigned char *cache = r->cache + (size_t)(in.seg[row] * 2 + m - 1) * r->cache_bytes;
                    have = (const float *)(const void *)cache + ((size_t)(in.pos[row] % CAPACITY) * KV + h) * DIM;
                }
                head_of(raw + h * DIM, m < 2 ? w->head_norm : NULL, in.pos[row], want);
                for (int i = 0; i < DIM; i++)
                    CHECK(fabs((double)have[i] - want[i]) < 6 * 4e-5, "%s of row %d head %zu [%d]: %.7g, expected %.7g", shape[matrix[m]].name,
                          row, h, i, (double)have[i], want[i]);
            }
        }
    }
}

static void check_clusters(const world *w, const results *r) {
    for (int row = 0; row < ROWS; row++) {
        const int32_t *ids = (const int32_t *)(const void *)(r->out[OUT_IDS] + row * TOP * MEMBERS);
        const float *scores = r->out[OUT_SCORES] + row * TOP * MEMBERS;
        double h[D2], cluster[CLUSTERS], last = INFINITY;
        for (int i = 0; i < D2; i++) h[i] = (double)in.h[row * D2 + i];
        product(w, CENTROIDS, 0, CLUSTERS, h, cluster);
        int used[CLUSTERS] = {0}, best = 0;
        for (int t = 0; t < TOP; t++) {
            int c = 0;
            while (c < CLUSTERS && memcmp(ids + t * MEMBERS, in.ordering + c * MEMBERS, MEMBERS * sizeof *ids)) c++;
            CHECK(c < CLUSTERS && !used[c], "row %d: not a cluster's members in table order", row);
            if (c == CLUSTERS) return;
            used[c] = 1;
            CHECK(cluster[c] <= last + 1e-5, "row %d: clusters are not in descending order", row);
            last = cluster[c];
        }
        for (int c = 0; c < CLUSTERS; c++) CHECK(used[c] || cluster[c] <= last + 1e-5, "row %d: cluster %d is better", row, c);
        for (int i = 0; i < TOP * MEMBERS; i++) {
            double want, size = 0;
            product(w, HEAD2, (size_t)ids[i], 1, h, &want);
            for (int j = 0; j < D2; j++) size += fabs(h[j] * 0.3);
            CHECK(fabs((double)scores[i] - want) <= (D2 / 32 + 18) * 0x1p-24 * size, "row %d score %d", row, i);
            if (scores[i] > scores[best] || (scores[i] == scores[best] && ids[i] < ids[best])) best = i;
        }
        CHECK(*(const int32_t *)(const void *)(r->out[OUT_BEST2] + row) == ids[best], "row %d: argmax of candidates", row);
    }
}

/* ---- choices, gather, errors ---- */

static void check_top(void) {
    rng r = {43};
    for (int round = 0; round < 300; round++) {
        float x[60];
        uint64_t keys[60];
        int32_t top[60];
        char taken[60] = {0};
        const size_t n = 1 + rng_next(&r) % 60, k = 1 + rng_next(&r) % n;
        for (size_t i = 0; i < n; i++) { /* many ties, signed zeros, NaN */
            const uint64_t d = rng_next(&r) % 12;
            x[i] = d == 0 ? NAN : d == 1 ? -0.0f : d == 2 ? -INFINITY : d == 3 ? INFINITY : (float)d - 7;
        }
        pm_cpu_top(x, n, k, keys, top);
        for (size_t t = 0; t < k; t++) {
            size_t best = n;
            for (size_t i = 0; i < n; i++) {
                if (taken[i]) continue;
                if (best == n || x[i] > x[best] || (isnan(x[best]) && !isnan(x[i]))) best = i;
            }
            taken[best] = 1;
            CHECK(top[t] == (int32_t)best, "choice %zu of %zu: %d, expected %zu", t, n, top[t], best);
        }
    }
}

static void check_argmax_and_gather(world *w) {
    pm_backend *b = w->b;
    const float scores[4][5] = {{1, 3, 3, 2, -1}, {NAN, -INFINITY, -5, NAN, -6}, {NAN, NAN, NAN, NAN, NAN}, {0.0f, -0.0f, -1, 0.0f, -2}};
    const int32_t candidates[4][5] = {{5, 9, 4, 1, 0}, {3, 2, 8, 1, 0}, {4, 3, 2, 1, 6}, {7, 3, 0, 5, 1}}, without[4] = {1, 2, 0, 0}, with[4] = {4, 8, 1, 3};
    int32_t ids[4];
    b->buf_write(b, w->logits, 0, scores, sizeof scores);
    b->argmax(b, 4, 5, w->logits, NULL, w->ids);
    b->buf_read(b, w->ids, 0, ids, sizeof ids);
    CHECK(!memcmp(ids, without, sizeof ids), "argmax: %d %d %d %d", ids[0], ids[1], ids[2], ids[3]);
    b->buf_write(b, w->out, 0, candidates, sizeof candidates);
    b->argmax(b, 4, 5, w->logits, w->out, w->ids);
    b->buf_read(b, w->ids, 0, ids, sizeof ids);
    CHECK(!memcmp(ids, with, sizeof ids), "argmax of candidates: %d %d %d %d", ids[0], ids[1], ids[2], ids[3]);
    const int32_t index[4] = {0, 3, 4, 16};
    float got[2][4 * D];
    b->buf_write(b, w->x, 0, in.x, sizeof in.x);
    b->gather_rows(b, 4, D, w->x, index, w->out);
    b->gather_rows(b, 4, D, w->x, index, w->x);
    b->buf_read(b, w->out, 0, got[0], sizeof got[0]);
    b->buf_read(b, w->x, 0, got[1], sizeof got[1]);
    for (int i = 0; i < 4; i++)
        for (int place = 0; place < 2; place++)
            CHECK(!memcmp(got[place] + i * D, in.x + index[i] * D, D * sizeof(float)), "gather_rows row %d", i);
}

static void check_errors(world *w, const char *path) {
    pm_backend *b = w->b;
    pymtp_error err = {0};
    pm_matrix *m = NULL;
    pm_table *t = NULL;
    const pm_gguf_tensor *wq = pm_gguf_tensor_find(w->file, "wq"), *integers = pm_gguf_tensor_find(w->file, "integers");
    const int32_t bad[2][2] = {{3, VOCAB}, {3, -1}};
    for (int i = 0; i < 2; i++) {
        pm_clear(&err);
        b->buf_write(b, w->ids, 0, bad[i], sizeof bad[i]);
        CHECK(b->embed(b, 2, w->ids, w->embed, 1, w->out, &err) == PYMTP_E_ARG && strstr(err.text, "embed"), "id %d: %s", bad[i][1], err.text);
    }
    pm_clear(&err);
    CHECK(b->matrix_new(b, w->file, integers, 0, 1, NULL, &m, &err) == PYMTP_E_UNSUPPORTED && !m && strstr(err.text, "integers"), "%s", err.text);
    pm_clear(&err);
    CHECK(b->table_new(b, w->file, integers, &t, &err) == PYMTP_E_UNSUPPORTED && !t && strstr(err.text, "integers"), "%s", err.text);
    pm_clear(&err);
    CHECK(b->matrix_new(b, w->file, wq, 1, wq->rows, NULL, &m, &err) == PYMTP_E_FORMAT && !m, "%s", err.text);
    CHECK(b->matrix_new(b, w->file, wq, 0, 0, NULL, &m, NULL) == PYMTP_E_FORMAT && !m, "no rows");
    CHECK(b->matrix_new(b, w->file, wq, 3, 5, NULL, &m, NULL) == PYMTP_OK && m, "rows 3..7");
    if (m) CHECK(b->matrix_bytes(m) > 0, "bytes");
    b->matrix_free(b, m);
    CHECK(!truncate(path, 400), "truncate");
    pm_clear(&err);
    CHECK(b->matrix_new(b, w->file, wq, 0, wq->rows, NULL, &m, &err) == PYMTP_E_IO && !m && err.text[0], "%s", err.text);
    pm_clear(&err);
    b->buf_write(b, w->ids, 0, in.ids, 2 * sizeof(int32_t));
    CHECK(b->embed(b, 2, w->ids, w->embed, 1, w->out, &err) == PYMTP_E_IO && err.text[0], "%s", err.text);
    CHECK(pm_backend_cpu_open(0, &b, NULL) == PYMTP_E_ARG && !b, "no threads");
}

int main(int argc, char **argv) {
    char path[] = "/tmp/pymtp-test-ops-XXXXXX";
    const int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    make_inputs();
    check_top();
    for (const pm_kernels *const *set = pm_kernels_available(); *set; set++) {
        if (!check_wanted(argc, argv, (*set)->name)) continue;
        setenv("PYMTP_CPU", (*set)->name, 1);
        for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
            world w;
            results want, have;
            write_file(path, &variants[v]);
            open_world(&w, path, &variants[v], 1);
            results_new(&want, &w);
            results_new(&have, &w);
            run_all(&w, &variants[v], 1, &want);
            if (v == 0) {
                check_moe(&w, &want);
                check_qkv(&w, &want);
                check_clusters(&w, &want);
                check_argmax_and_gather(&w);
            }
            close_world(&w);
            for (int threads = 1; threads <= 4; threads++) {
                for (int32_t chunk = 1; chunk <= ROWS; chunk++) {
                    if (threads > 1 && chunk > 3 && chunk < 16 && chunk != 8) continue;
                    open_world(&w, path, &variants[v], threads);
                    run_all(&w, &variants[v], chunk, &have);
                    compare(&want, &have, (*set)->name, threads, chunk);
                    close_world(&w);
                }
            }
            open_world(&w, path, &variants[v], 3);
            check_errors(&w, path);
            close_world(&w);
            results_free(&want);
            results_free(&have);
        }
    }
    unlink(path);
    return check_done();
}
