/* test_head.c - head_top against head_logits and a literal choice, by memcmp: the same ids, and the same bits of the logits, whatever
 * shares the call and on any number of threads. Vocabularies around the size of a unit and of k; many ties, zeros of both signs, NaN
 * and infinities; every kernel set. */
#include "base/f16.h"
#include "check.h"
#include "cpu/backend_cpu.h"
#include "random.h"
#include "tiny_gguf.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROWS = 17, D = 96, VOCAB = 1543 };
enum { F32 = 0, Q8_0 = 8 };
static const pm_limits limits = {.rows = ROWS, .width = D, .max_in = D, .max_out = D, .vocab = VOCAB, .logits_rows = ROWS};
static const int32_t vocabs[] = {1, 64, 255, 256, 257, VOCAB}, ks[] = {1, 7, 64, 256};
static const float caps[] = {0, 3, 30};

/* Inputs. Rows of a kind of their own: products that underflow to zeros of both signs, all zeros, products beyond any cap or beyond
 * the largest float, and one value that is not finite. Formats of small integers have no place for those that are not small. */
enum { TINY = 2, ZERO = 5, LARGE = 6, HUGE_ROW = 7, WITH_NAN = 8, WITH_INF = 9 };
static float x[ROWS * D];

static void make_inputs(uint32_t type) {
    rng r = {53};
    rng_fill(&r, x, ROWS * D, 2);
    for (int i = 0; i < D; i++) {
        x[TINY * D + i] = -0x1p-149f;
        x[ZERO * D + i] = 0;
        x[LARGE * D + i] *= 300;
        if (type == F32) x[HUGE_ROW * D + i] *= 0x1p126f;
    }
    if (type != F32) return;
    x[WITH_NAN * D + 31] = NAN;
    x[WITH_INF * D + 40] = -INFINITY;
}

/* Every fourth output repeats an earlier one; some are zero, some positive throughout (-0 for the tiny row where products are fused into
 * sums). With `poisoned` two weights are not finite. */
static void write_file(const char *path, uint32_t type, int poisoned) {
    static float weights[VOCAB * D];
    static unsigned char blocks[VOCAB * D / 32 * 34];
    const uint16_t scale = pm_f32_to_f16(0.004f);
    rng r = {59};
    rng_fill(&r, weights, VOCAB * D, 0.5f);
    for (size_t o = 1; o < VOCAB; o++) {
        if (o % 4 == 3) memcpy(weights + o * D, weights + rng_next(&r) % o * D, D * sizeof(float));
        if (o % 97 == 50) memset(weights + o * D, 0, D * sizeof(float));
        for (size_t i = 0; i < D && o % 9 == 5; i++) weights[o * D + i] = fabsf(weights[o * D + i]);
    }
    for (size_t i = 0; i < VOCAB * D / 32; i++) {
        memcpy(blocks + 34 * i, &scale, 2);
        for (size_t j = 0; j < 32; j++) blocks[34 * i + 2 + j] = (unsigned char)(int8_t)(weights[32 * i + j] * 250);
    }
    if (poisoned) {
        weights[300 * D + 3] = NAN;
        weights[3 * D] = INFINITY;
    }
    const tiny_tensor t = {.name = "head", .type = type, .cols = D, .rows = VOCAB, .data = type == F32 ? (const void *)weights : blocks,
                           .bytes = type == F32 ? sizeof weights : sizeof blocks};
    CHECK(!tiny_write(path, &t, 1), "cannot write %s", path);
}

typedef struct world {
    pm_backend *b;
    pm_gguf *file;
    pm_matrix *m;
    pm_buf *x, *logits, *ids, *best;
} world;

static pm_buf *new_buf(pm_backend *b, size_t values) {
    pm_buf *out = NULL;
    CHECK(b->buf_new(b, values * 4, &out, NULL) == PYMTP_OK, "buffer");
    return out;
}

static void open_world(world *w, const char *path, int threads, int32_t vocab) {
    pymtp_error err = {0};
    CHECK(pm_backend_cpu_open(threads, &w->b, &err) == PYMTP_OK && w->b->prepare(w->b, &limits, &err) == PYMTP_OK, "%s", err.text);
    CHECK(pm_gguf_open(path, &w->file, &err) == PYMTP_OK, "%s", err.text);
    CHECK(w->b->matrix_new(w->b, w->file, pm_gguf_tensor_find(w->file, "head"), 0, (uint64_t)vocab, NULL, &w->m, &err) == PYMTP_OK, "%s", err.text);
    w->x = new_buf(w->b, ROWS * D);
    w->logits = new_buf(w->b, ROWS * VOCAB);
    w->ids = new_buf(w->b, ROWS * PM_HEAD_TOP);
    w->best = new_buf(w->b, ROWS * PM_HEAD_TOP);
    w->b->buf_write(w->b, w->x, 0, x, sizeof x);
}

static void close_world(world *w) {
    pm_buf *bufs[] = {w->x, w->logits, w->ids, w->best};
    for (int i = 0; i < 4; i++) w->b->buf_free(w->b, bufs[i]);
    w->b->matrix_free(w->b, w->m);
    pm_gguf_close(w->file);
    w->b->close(w->b);
}

/* ---- what is expected ---- */

typedef struct expected {
    float logits[ROWS * VOCAB], best[ROWS * PM_HEAD_TOP]; /* best: sorted, NaN where the row is not finite */
    int32_t ids[ROWS * PM_HEAD_TOP];
} expected;

typedef struct entry { float logit; int32_t id; } entry;

static int by_rank(const void *a, const void *b) {
    const entry *p = a, *q = b;
    if (p->logit != q->logit) return p->logit < q->logit ? 1 : -1;
    return p->id < q->id ? -1 : 1;
}

/* One row at a time, on one thread; the softcap by its own kernel. */
static void expect(world *w, int32_t vocab, float cap, expected *e) {
    const size_t n = (size_t)vocab;
    static entry all[VOCAB];
    for (size_t r = 0; r < ROWS; r++) {
        float *row = e->logits + r * n;
        int finite = 1;
        w->b->head_logits(w->b, 1, w->x, (int32_t)r, w->m, 0, w->logits);
        w->b->buf_read(w->b, w->logits, 0, row, n * sizeof(float));
        if (cap != 0) ((pm_cpu *)w->b)->k->softcap(row, n, cap);
        for (size_t i = 0; i < n; i++) {
            all[i] = (entry){isnan(row[i]) ? -INFINITY : row[i], (int32_t)i};
            finite &= isfinite(row[i]) != 0;
        }
        qsort(all, n, sizeof *all, by_rank);
        for (size_t i = 0; i < n && i < PM_HEAD_TOP; i++) {
            e->ids[r * PM_HEAD_TOP + i] = all[i].id;
            e->best[r * PM_HEAD_TOP + i] = finite ? all[i].logit : NAN;
        }
    }
}

/* ---- checks ---- */

static void check_top(world *w, int32_t n, int32_t first, int32_t k, float cap, const expected *e, const char *what) {
    static int32_t ids[ROWS * PM_HEAD_TOP];
    static float best[ROWS * PM_HEAD_TOP];
    const size_t width = (size_t)k;
    w->b->head_top(w->b, n, w->x, first, w->m, cap, k, w->ids, w->best);
    w->b->buf_read(w->b, w->ids, 0, ids, (size_t)n * width * sizeof *ids);
    w->b->buf_read(w->b, w->best, 0, best, (size_t)n * width * sizeof *best);
    for (size_t r = 0; r < (size_t)n; r++) {
        const size_t at = ((size_t)first + r) * PM_HEAD_TOP;
        CHECK(!memcmp(ids + r * width, e->ids + at, width * sizeof *ids), "%s: ids of row %zu, %d rows, k %d, cap %g", what, at / PM_HEAD_TOP, n, k,
              (double)cap);
        if (isnan(e->best[at])) {
            size_t numbers = 0;
            for (size_t i = 0; i < width; i++) numbers += isnan(best[r * width + i]) ? 0 : 1;
            CHECK(!numbers, "%s: row %zu is not finite and gives %zu numbers", what, at / PM_HEAD_TOP, numbers);
        } else {
            CHECK(!memcmp(best + r * width, e->best + at, width * sizeof *best), "%s: logits of row %zu, %d rows, k %d, cap %g", what, at / PM_HEAD_TOP,
                  n, k, (double)cap);
        }
    }
}

static void check_all_logits(world *w, int32_t n, int32_t first, int32_t vocab, float cap, const expected *e, const char *what) {
    static float have[ROWS * VOCAB];
    w->b->head_logits(w->b, n, w->x, first, w->m, cap, w->logits);
    w->b->buf_read(w->b, w->logits, 0, have, (size_t)n * (size_t)vocab * sizeof(float));
    size_t other = 0; /* a NaN may have any bits */
    for (size_t i = 0; i < (size_t)n * (size_t)vocab; i++) {
        const float want = e->logits[(size_t)first * (size_t)vocab + i];
        if (memcmp(&have[i], &want, sizeof want) && !(isnan(want) && isnan(have[i]))) other++;
    }
    CHECK(!other, "%s: head_logits: %zu other logits in %d rows from %d", what, other, n, first);
}

/* Every number of rows somewhere, every k. */
static void check_calls(world *w, int32_t vocab, float cap, const expected *e, const char *what) {
    for (int32_t n = 1; n <= ROWS; n++) {
        const int32_t first = (n * 5) % (ROWS - n + 1);
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
            if (ks[i] <= vocab && (n < 3 || n % 4 == (int32_t)i)) check_top(w, n, first, ks[i], cap, e, what);
        if (n % 6 == 1) check_all_logits(w, n, first, vocab, cap, e, what);
    }
    check_top(w, ROWS, 0, vocab < PM_HEAD_TOP ? vocab : PM_HEAD_TOP, cap, e, what);
}

static void check_vocabulary(const char *path, int32_t vocab, const char *set) {
    static expected e[3];
    world w;
    char what[64];
    for (int threads = 1; threads <= 5; threads += threads < 3 ? 1 : 2) {
        open_world(&w, path, threads, vocab);
        for (int c = 0; c < 3; c++) {
            if (threads == 1) expect(&w, vocab, caps[c], &e[c]);
            snprintf(what, sizeof what, "%s, %d of %d", set, threads, vocab);
            check_calls(&w, vocab, caps[c], &e[c], what);
        }
        for (int i = 0; i < 200 && threads > 1 && vocab > 256; i++) /* in whatever order threads meet equal logits */
            check_top(&w, 1, ZERO, 7, caps[0], &e[0], "all equal");
        close_world(&w);
    }
}

int main(int argc, char **argv) {
    char path[] = "/tmp/pymtp-test-head-XXXXXX";
    const int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    for (const pm_kernels *const *set = pm_kernels_available(); *set; set++) {
        if (!check_wanted(argc, argv, (*set)->name)) continue;
        setenv("PYMTP_CPU", (*set)->name, 1);
        for (int kind = 0; kind < 3; kind++) { /* F32, Q8_0, F32 with weights that are not finite */
            const uint32_t type = kind == 1 ? Q8_0 : F32;
            make_inputs(type);
            write_file(path, type, kind == 2);
            for (size_t v = 0; v < sizeof vocabs / sizeof *vocabs; v++) check_vocabulary(path, vocabs[v], (*set)->name);
        }
    }
    unlink(path);
    return check_done();
}
