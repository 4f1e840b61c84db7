/* test_attend.c - attention of every kernel set against a plain softmax in double over the stored keys and values:
 * all cache types, windows, the wrap of a ring, grouped heads, stale slots full of NaN, and bits that do not depend on
 * threads, on how many rows share a call, or on what later rows hold. And that a long cache is read once a call.
 *
 * Bound (u = 2^-24): a score over n values errs by e = (n / 16 + 7) u sum |q k|; its probability by 2 e relative (its
 * own and the normaliser's), plus 2 u |s - max| for the subtractions, plus 16 u a block (a block's state passes at most one
 * merge for each block and one for each span, each rescaling by an exp, 8 u), plus T u for the T terms of the value sum;
 * all of it times sum p |v|. */
#include "backend.h"
#include "base/f16.h"
#include "check.h"
#include "cpu/backend_cpu.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define U 0x1p-24
#define ROWS 24
#define HEADS 4
#define LONG 9000 /* positions of the longest scene: more spans than one wave of two or three threads takes */

typedef struct scene {
    int32_t type, head_dim, kv_heads, capacity, window, self, rows, length; /* positions [0, length) were written */
    pm_kv_view view;
    float *k, *v; /* (length, kv_heads, head_dim): what was stored, read back */
} scene;

static size_t stored_bytes(const scene *s) {
    const size_t n = (size_t)s->head_dim;
    return s->type == PYMTP_KV_F32 ? 4 * n : s->type == PYMTP_KV_F16 ? 2 * n : 34 * ((n + 31) / 32);
}

/* Writes positions 0..length-1 in order, so that a ring wraps as it does in use; every other slot is NaN. */
static void fill_cache(pm_backend *b, const pm_kernels *k, scene *s, rng *r) {
    const size_t dim = (size_t)s->head_dim, heads = (size_t)s->kv_heads, head = stored_bytes(s), row = heads * head;
    const size_t bytes = row * (size_t)s->capacity;
    unsigned char stored[4 * 128];
    float x[128];
    pm_buf *side[2] = {NULL, NULL};
    unsigned char *poison = malloc(bytes);
    memset(poison, 0xff, bytes); /* NaN as f32, as f16 and as a q8_0 scale */
    s->k = calloc((size_t)s->length * heads * dim, sizeof(float));
    s->v = calloc((size_t)s->length * heads * dim, sizeof(float));
    for (int i = 0; i < 2; i++) {
        CHECK(b->buf_new(b, bytes, &side[i], NULL) == PYMTP_OK, "buffer");
        b->buf_write(b, side[i], 0, poison, bytes);
        for (int32_t p = 0; p < s->length; p++) {
            for (size_t j = 0; j < heads; j++) {
                rng_fill(r, x, dim, i ? 2.0f : 1.5f);
                k->kv_store(x, dim, s->type, stored);
                k->kv_load(stored, dim, s->type, (i ? s->v : s->k) + ((size_t)p * heads + j) * dim);
                b->buf_write(b, side[i], (size_t)(p % s->capacity) * row + j * head, stored, head);
            }
        }
    }
    free(poison);
    s->view = (pm_kv_view){.k = side[0], .v = side[1], .type = s->type, .heads = s->kv_heads, .head_dim = s->head_dim,
                           .capacity = s->capacity, .row_bytes = row};
}

/* One query head at one position against double. */
static void check_head(const scene *s, const char *isa, int32_t pos, int32_t head, const float *q, const float *out) {
    const size_t dim = (size_t)s->head_dim, heads = (size_t)s->kv_heads, kv = (size_t)(head / (HEADS / s->kv_heads));
    const int32_t last = s->self ? pos : pos - 1, first = s->window && pos - s->window + 1 > 0 ? pos - s->window + 1 : 0;
    const double terms = last - first + 1, blocks = last / PM_KV_BLOCK - first / PM_KV_BLOCK + 1;
    static double score[LONG];
    double max = -INFINITY, min = INFINITY, sum = 0, worst = 0;
    for (int32_t p = first; p <= last; p++) {
        const float *key = s->k + ((size_t)p * heads + kv) * dim;
        double dot = 0, size = 0;
        for (size_t i = 0; i < dim; i++) {
            dot += (double)q[i] * (double)key[i];
            size += fabs((double)q[i] * (double)key[i]);
        }
        score[p - first] = dot;
        max = fmax(max, dot);
        min = fmin(min, dot);
        worst = fmax(worst, ((double)dim / 16 + 7) * U * size);
    }
    for (int32_t p = first; p <= last; p++) sum += score[p - first] = exp(score[p - first] - max);
    for (size_t i = 0; i < dim; i++) {
        double want = 0, size = 0;
        for (int32_t p = first; p <= last; p++) {
            const double v = score[p - first] / sum * (double)s->v[((size_t)p * heads + kv) * dim + i];
            want += v;
            size += fabs(v);
        }
        const double bound = last < first ? 0 : size * (2 * worst + (2 * (max - min) + terms + 16 * blocks + 16) * U);
        CHECK(fabs((double)out[i] - want) <= bound, "%s type %d dim %d pos %d window %d self %d head %d [%zu]: %.9g, expected %.9g, bound %.3g",
              isa, s->type, s->head_dim, pos, s->window, s->self, head, i, (double)out[i], want, bound);
    }
}

/* Rows [first, first + n) of q in one call. */
static void attend_rows(pm_backend *b, const scene *s, const int32_t *pos, const float *q, int first, int n, pm_buf *bq, pm_buf *bo,
                        float *out) {
    static const int32_t seg[ROWS] = {0};
    const size_t width = HEADS * (size_t)s->head_dim;
    const pm_rows rows = {n, pos + first, seg, 1};
    b->buf_write(b, bq, 0, q + (size_t)first * width, (size_t)n * width * sizeof(float));
    b->attend(b, &rows, &s->view, bq, HEADS, s->window, s->self, bo);
    b->buf_read(b, bo, 0, out + (size_t)first * width, (size_t)n * width * sizeof(float));
}

/* What the last position holds must not reach the rows before it, though they share its block and its call. */
static void check_later(pm_backend *b, const scene *s, const int32_t *pos, int n, const float *q, pm_buf *bq, pm_buf *bo,
                        const float *out, float *again) {
    const size_t width = HEADS * (size_t)s->head_dim, row = s->view.row_bytes, offset = (size_t)((s->length - 1) % s->capacity) * row;
    unsigned char *poison = malloc(row);
    int before = 0;
    while (before < n && pos[before] + s->self < s->length) before++;
    memset(poison, 0xff, row);
    b->buf_write(b, s->view.k, offset, poison, row);
    b->buf_write(b, s->view.v, offset, poison, row);
    attend_rows(b, s, pos, q, 0, n, bq, bo, again);
    CHECK(!memcmp(out, again, (size_t)before * width * sizeof(float)), "a later row's NaN was read");
    free(poison);
}

/* The last s->rows positions attend, all in one call with one thread, and in smaller calls with several. */
static void run_scene(pm_backend *const *backends, int n_backends, const pm_kernels *k, scene *s, rng *r) {
    const size_t width = HEADS * (size_t)s->head_dim;
    const pm_limits limits = {.rows = ROWS, .heads_dim = HEADS * s->head_dim, .head_dim = s->head_dim};
    float *q = malloc(ROWS * width * sizeof(float)), *out = malloc(ROWS * width * sizeof(float)), *again = malloc(ROWS * width * sizeof(float));
    int32_t pos[ROWS];
    int n = 0;
    for (int32_t p = s->length > s->rows - 1 ? s->length - s->rows + 1 : 0; p <= s->length - s->self; p++) pos[n++] = p;
    rng_fill(r, q, ROWS * width, 1.0f);
    for (int t = 0; t < n_backends; t++) {
        pm_backend *b = backends[t];
        pm_buf *bq, *bo;
        CHECK(b->prepare(b, &limits, NULL) == PYMTP_OK, "prepare");
        fill_cache(b, k, s, &(rng){r->state}); /* the same for each */
        CHECK(!b->buf_new(b, ROWS * width * sizeof(float), &bq, NULL) && !b->buf_new(b, ROWS * width * sizeof(float), &bo, NULL), "buffers");
        if (t == 0) {
            attend_rows(b, s, pos, q, 0, n, bq, bo, out);
            for (int32_t i = 0; i < n * HEADS; i++)
                check_head(s, k->name, pos[i / HEADS], i % HEADS, q + i * s->head_dim, out + i * s->head_dim);
        }
        for (int chunk = 1; chunk <= s->rows; chunk = chunk == 1 ? 4 : chunk == 4 ? 7 : chunk == 7 ? ROWS : ROWS + 1) {
            for (int i = 0; i < n; i += chunk) attend_rows(b, s, pos, q, i, i + chunk < n ? chunk : n - i, bq, bo, again);
            CHECK(!memcmp(out, again, (size_t)n * width * sizeof(float)), "%s: type %d dim %d length %d window %d: %d threads, %d rows a call",
                  k->name, s->type, s->head_dim, s->length, s->window, t + 1, chunk);
        }
        check_later(b, s, pos, n, q, bq, bo, out, again);
        b->buf_free(b, bq);
        b->buf_free(b, bo);
        b->buf_free(b, s->view.k);
        b->buf_free(b, s->view.v);
        free(s->k);
        free(s->v);
    }
    free(q);
    free(out);
    free(again);
}

/* One and four rows of eight heads on one KV head, two threads, a long cache: every key and value is read once a call. */
static void check_read_once(const pm_kernels *k) {
    enum { N = 5000, DIM = 16, N_HEADS = 8 };
    static const int32_t pos[4] = {N - 4, N - 3, N - 2, N - 1}, seg[4] = {0};
    static const pm_limits limits = {.rows = 4, .heads_dim = N_HEADS * DIM, .head_dim = DIM};
    scene s = {.type = PYMTP_KV_F16, .head_dim = DIM, .kv_heads = 1, .capacity = 5120, .length = N, .self = 1};
    pm_backend *b;
    pm_buf *q, *out;
    rng r = {5};
    CHECK(pm_backend_cpu_open(2, &b, NULL) == PYMTP_OK && b->prepare(b, &limits, NULL) == PYMTP_OK, "open");
    CHECK(!b->buf_new(b, 4 * N_HEADS * DIM * sizeof(float), &q, NULL), "buffer");
    CHECK(!b->buf_new(b, 4 * N_HEADS * DIM * sizeof(float), &out, NULL), "buffer");
    fill_cache(b, k, &s, &r);
    for (int32_t n = 1; n <= 4; n += 3) {
        const pm_rows rows = {n, pos + 4 - n, seg, 1};
        const uint64_t before = ((pm_cpu *)b)->kv_read;
        b->attend(b, &rows, &s.view, q, N_HEADS, 0, 1, out);
        const uint64_t bytes = ((pm_cpu *)b)->kv_read - before;
        CHECK(bytes == 2 * N * s.view.row_bytes, "%d rows: %llu bytes read of %zu", n, (unsigned long long)bytes, 2 * N * s.view.row_bytes);
    }
    b->buf_free(b, q);
    b->buf_free(b, out);
    b->buf_free(b, s.view.k);
    b->buf_free(b, s.view.v);
    free(s.k);
    free(s.v);
    b->close(b);
}

int main(int argc, char **argv) {
    for (const pm_kernels *const *set = pm_kernels_available(); *set; set++) {
        if (!check_wanted(argc, argv, (*set)->name)) continue;
        pm_backend *b[3] = {NULL, NULL, NULL};
        rng r = {23};
        setenv("PYMTP_CPU", (*set)->name, 1);
        for (int t = 0; t < 3; t++) CHECK(pm_backend_cpu_open(t + 1, &b[t], NULL) == PYMTP_OK, "%s", (*set)->name);
        check_read_once(*set);
        for (int32_t type = 0; type <= 2; type++) {
            static const int32_t dims[] = {16, 48, 64, 128};
            for (int d = 0; d < (argc == 1 ? 4 : 2); d++) { /* on an emulator the short heads */
                for (int32_t self = 0; self <= 1; self++) {
                    scene s = {.type = type, .head_dim = dims[d], .kv_heads = d == 0 ? 4 : d == 1 ? 2 : 1, .self = self, .rows = ROWS};
                    /* full, from an empty cache, over several blocks and spans */
                    s.capacity = 1280;
                    for (s.length = 1; s.length < 1200; s.length = s.length * 3 + 1) run_scene(b, 3, *set, &s, &r);
                    /* rings: capacity >= window + rows; wrapped several times; window inside one block and over several */
                    s.length = 623;
                    s.capacity = 256;
                    s.window = 150;
                    run_scene(b, 3, *set, &s, &r);
                    s.capacity = 128;
                    s.window = 7;
                    run_scene(b, 3, *set, &s, &r);
                }
            }
            /* so long that threads share the spans, in more than one wave */
            scene s = {.type = type, .head_dim = 16, .kv_heads = 1 + type % 2, .self = 1, .rows = 8, .length = LONG, .capacity = 9088};
            run_scene(b, 3, *set, &s, &r);
            s.capacity = 4224;
            s.window = 4100;
            run_scene(b, 3, *set, &s, &r);
        }
        for (int t = 0; t < 3; t++) b[t]->close(b[t]);
    }
    return check_done();
}
