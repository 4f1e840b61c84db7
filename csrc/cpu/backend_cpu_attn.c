/* backend_cpu_attn.c - attention: projections into the cache, and softmax over it block by block.
 *
 * All rows' keys and values are stored before any row attends (two ops), so rows see each other through the cache
 * only. A row's blocks run from the first to the last visible one, in position order, whatever the call looks like. */
#include "base/checked.h"
#include "cpu/backend_cpu.h"

#include <stdatomic.h>
#include <string.h>

/* ---- projections ---- */

typedef struct qkv_context {
    pm_cpu *cpu;
    const pm_rows *rows;
    const pm_qkv *w;
    const pm_kv_view *views;
    const float *cosines, *sines; /* (n, head_dim / 2) */
    float *q, *k;                 /* (n, heads * head_dim), (n, kv_heads * head_dim): raw products */
    const float *v;               /* as k; may be k */
} qkv_context;

/* V first: where it shares the raw product with K, K's norm comes after. */
static void store_row(const qkv_context *e, size_t r, const float *cosines, const float *sines, int thread) {
    const pm_kernels *k = e->cpu->k;
    const size_t dim = (size_t)e->w->head_dim, heads = (size_t)e->w->kv_heads;
    const pm_kv_view *view = &e->views[e->rows->seg[r]];
    const size_t head_bytes = view->row_bytes / heads;
    const size_t offset = (size_t)(e->rows->pos[r] % view->capacity) * view->row_bytes;
    float *line = e->cpu->line + (size_t)thread * e->cpu->wide;
    for (size_t j = 0; j < heads; j++) {
        float *key = e->k + (r * heads + j) * dim;
        k->rms_norm(e->v + (r * heads + j) * dim, NULL, dim, e->cpu->base.eps, line);
        k->kv_store(line, dim, view->type, view->v->data + offset + j * head_bytes);
        k->rms_norm(key, pm_cpu_f32(e->w->k_norm), dim, e->cpu->base.eps, key);
        k->rope(key, dim, cosines, sines);
        k->kv_store(key, dim, view->type, view->k->data + offset + j * head_bytes);
    }
}

static void qkv_job(void *context, size_t begin, size_t end, int thread) {
    const qkv_context *e = context;
    const pm_kernels *k = e->cpu->k;
    const size_t dim = (size_t)e->w->head_dim, heads = (size_t)e->w->heads;
    for (size_t r = begin; r < end; r++) {
        const float *cosines = e->cosines + r * (dim / 2), *sines = e->sines + r * (dim / 2);
        for (size_t j = 0; j < heads; j++) {
            float *q = e->q + (r * heads + j) * dim;
            k->rms_norm(q, pm_cpu_f32(e->w->q_norm), dim, e->cpu->base.eps, q);
            k->rope(q, dim, cosines, sines);
        }
        if (e->w->wk) store_row(e, r, cosines, sines, thread);
    }
}

void pm_cpu_norm_qkv(pm_backend *b, const pm_rows *rows, const pm_qkv *w, const pm_buf *x, const pm_kv_view *views, pm_buf *q) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t n = (size_t)rows->n, width = w->wq->packed.cols;
    const pm_matrix *wv = w->wk ? w->wv : NULL;
    const pm_matrix *matrix[3] = {w->wq, w->wk, wv};
    float *out[3] = {pm_cpu_f32(q), c->a, c->b};
    pm_mm jobs[3];
    size_t n_jobs = 0;
    for (int i = 0; i < 3; i++) {
        if (!matrix[i]) continue;
        const size_t outputs = matrix[i]->packed.rows;
        jobs[n_jobs++] = (pm_mm){.w = matrix[i], .rows = outputs, .n = n, .out = out[i], .stride = outputs};
    }
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(x), width, n, width, w->norm, (pm_meets){{w->wq, w->wk, wv}});
    pm_cpu_products(c, &c->act, jobs, n_jobs);
    qkv_context e = {.cpu = c, .rows = rows, .w = w, .views = views, .q = out[0], .k = out[1], .v = wv ? out[2] : out[1]};
    pm_cpu_angles(c, w->rope, rows, &e.cosines, &e.sines);
    pm_pool_run(c->pool, n, 1, qkv_job, &e);
}

/* ---- attention ----
 *
 * A query is a row's query head. Its state (kernels.h) is made of one partial state per KV block, merged in position order
 * inside a span, and the spans' states merged in position order. Spans are fixed: SPAN_BLOCKS blocks at absolute positions,
 * one block in a layer with a window. So the arithmetic is the same in both schedules: a thread walks all spans of a tile of
 * queries, or, for few queries and a long context, threads share the spans and the states are merged afterwards. */

#define SPAN_BLOCKS 4
#define PARTIAL_ROWS 32 /* rows for which the states of one span per thread must fit */
#define LEAST_SPANS 8   /* to be shared: fewer are uneven, as the first and the last are seen in part */

typedef struct attend_context {
    pm_cpu *cpu;
    const pm_kv_view *view;
    const int32_t *pos;    /* (rows): of one segment */
    const float *q;        /* (rows, heads, dim) */
    float *out;
    size_t rows, heads, group, dim, state; /* group: query heads of a KV head; state: floats from state to state */
    int64_t window, self, span;            /* span: positions of a span */
    int64_t length;                        /* one beyond the last position that any row sees */
    int64_t begin, end;                    /* spans: all, or of one wave */
    size_t tile, tiles;                    /* queries of an item, items of a KV head */
} attend_context;

/* Queries [first, first + n) of KV head `kv`; query i is head i % group of row i / group. */
typedef struct tile { size_t kv, first, n; } tile;

static size_t state_floats(size_t dim) { return pm_round_up(dim + 2, 16); }

void pm_cpu_attend_sizes(pm_cpu *c, size_t heads_dim, size_t head_dim) {
    c->states_each = PM_ATTEND_QUERIES * (3 * state_floats(head_dim) + PM_KV_BLOCK);
    c->partial_floats = PARTIAL_ROWS * heads_dim * ((size_t)c->threads + 1);
}

/* The positions [*from, *to) that a row sees; empty when *from >= *to. */
static void visible(const attend_context *e, size_t row, int64_t *from, int64_t *to) {
    *to = (int64_t)e->pos[row] + e->self;
    *from = e->window && e->pos[row] >= e->window ? (int64_t)e->pos[row] - e->window + 1 : 0;
}

static size_t row_of(const attend_context *e, const tile *t, size_t i) { return (t->first + i) / e->group; }

/* Index of query i of a tile among all heads of all rows. */
static size_t head_of(const attend_context *e, const tile *t, size_t i) {
    return row_of(e, t, i) * e->heads + t->kv * e->group + (t->first + i) % e->group;
}

static tile tile_at(const attend_context *e, size_t kv, size_t index) {
    const size_t queries = e->rows * e->group, first = index * e->tile;
    return (tile){kv, first, queries - first < e->tile ? queries - first : e->tile};
}

/* Puts the queries of a tile that see the block at `base` into b, and their places in the tile into `query`. Returns from
 * the first to the last key that any of them sees. */
static size_t gather_queries(const attend_context *e, const tile *t, int64_t base, pm_attend_block *b, size_t *query) {
    int64_t low = base + PM_KV_BLOCK, high = base;
    b->queries = 0;
    for (size_t i = 0; i < t->n; i++) {
        int64_t from, to;
        visible(e, row_of(e, t, i), &from, &to);
        from = from > base ? from : base;
        to = to < base + PM_KV_BLOCK ? to : base + PM_KV_BLOCK;
        if (from >= to) continue;
        b->q[b->queries] = e->q + head_of(e, t, i) * e->dim;
        b->from[b->queries] = (size_t)(from - base);
        b->to[b->queries] = (size_t)(to - base);
        query[b->queries++] = i;
        low = from < low ? from : low;
        high = to > high ? to : high;
    }
    return high > low ? (size_t)(high - low) : 0;
}

/* Offset of the head of KV head `kv` at a position, in keys and in values. */
static size_t stored_at(const pm_kv_view *view, int64_t position, size_t kv) {
    return (size_t)(position % view->capacity) * view->row_bytes + kv * (view->row_bytes / (size_t)view->heads);
}

/* into[i] = state of query i of the tile over one span, for those that see some of it: seen[i]. */
static void attend_span(const attend_context *e, const tile *t, int64_t span, float *const *into, int *seen, int thread) {
    const pm_kernels *k = e->cpu->k;
    float *block = e->cpu->states + (size_t)thread * e->cpu->states_each;
    pm_attend_block b = {.stride = e->view->row_bytes, .n = e->dim, .type = e->view->type, .p = block + PM_ATTEND_QUERIES * e->state};
    size_t query[PM_ATTEND_QUERIES], keys;
    for (size_t i = 0; i < t->n; i++) seen[i] = 0;
    for (int64_t base = span * e->span; base < (span + 1) * e->span; base += PM_KV_BLOCK) {
        if (!(keys = gather_queries(e, t, base, &b, query))) continue;
        const int64_t next = base + PM_KV_BLOCK;
        b.k = e->view->k->data + stored_at(e->view, base, t->kv);
        b.v = e->view->v->data + stored_at(e->view, base, t->kv);
        b.next = next < e->length ? e->view->k->data + stored_at(e->view, next, t->kv) : NULL;
        for (size_t a = 0; a < b.queries; a++) b.state[a] = seen[query[a]] ? block + a * e->state : into[query[a]];
        k->attend_block(&b);
        for (size_t a = 0; a < b.queries; a++) {
            if (seen[query[a]]) k->attend_merge(b.state[a], e->dim, into[query[a]]);
            seen[query[a]] = 1;
        }
        const size_t bytes = 2 * keys * (e->view->row_bytes / (size_t)e->view->heads);
        atomic_fetch_add_explicit(&e->cpu->kv_read, bytes, memory_order_relaxed);
    }
}

static void write_out(const attend_context *e, const float *state, size_t head) {
    memcpy(e->out + head * e->dim, state, e->dim * sizeof(float));
    e->cpu->k->scale(e->out + head * e->dim, e->dim, 1.0f / state[e->dim + 1]);
}

/* ---- a thread walks all spans ---- */

static void walk(const attend_context *e, const tile *t, int thread) {
    float *whole = e->cpu->states + (size_t)thread * e->cpu->states_each + PM_ATTEND_QUERIES * (e->state + PM_KV_BLOCK);
    float *part = whole + PM_ATTEND_QUERIES * e->state, *into[PM_ATTEND_QUERIES];
    int begun[PM_ATTEND_QUERIES] = {0}, seen[PM_ATTEND_QUERIES];
    for (int64_t span = e->begin; span < e->end; span++) {
        for (size_t i = 0; i < t->n; i++) into[i] = (begun[i] ? part : whole) + i * e->state;
        attend_span(e, t, span, into, seen, thread);
        for (size_t i = 0; i < t->n; i++) {
            if (seen[i] && begun[i]) e->cpu->k->attend_merge(into[i], e->dim, whole + i * e->state);
            begun[i] |= seen[i];
        }
    }
    for (size_t i = 0; i < t->n; i++) {
        const size_t head = head_of(e, t, i);
        if (begun[i]) write_out(e, whole + i * e->state, head);
        else memset(e->out + head * e->dim, 0, e->dim * sizeof(float));
    }
}

/* Later rows see more: early and late tiles alternate, so that every thread's share costs about the same. */
static void walk_job(void *context, size_t begin, size_t end, int thread) {
    const attend_context *e = context;
    for (size_t item = begin; item < end; item++) {
        const size_t i = item % e->tiles, index = i % 2 ? e->tiles - 1 - i / 2 : i / 2;
        const tile t = tile_at(e, item / e->tiles, index);
        walk(e, &t, thread);
    }
}

/* ---- threads share the spans ---- */

/* (1 + spans of the wave, rows, heads): first the states over the spans of the waves before, then those of each span. */
static float *partial_state(const attend_context *e, size_t span, size_t head) {
    return e->cpu->partial + (span * e->rows * e->heads + head) * e->state;
}

static void spans_job(void *context, size_t begin, size_t end, int thread) {
    const attend_context *e = context;
    const size_t spans = (size_t)(e->end - e->begin);
    for (size_t item = begin; item < end; item++) {
        const size_t span = item / e->tiles % spans;
        const tile t = tile_at(e, item / e->tiles / spans, item % e->tiles);
        float *into[PM_ATTEND_QUERIES];
        int seen[PM_ATTEND_QUERIES];
        for (size_t i = 0; i < t.n; i++) into[i] = partial_state(e, 1 + span, head_of(e, &t, i));
        attend_span(e, &t, e->begin + (int64_t)span, into, seen, thread);
    }
}

static void merge_job(void *context, size_t begin, size_t end, int thread) {
    const attend_context *e = context;
    for (size_t head = begin; head < end; head++) {
        float *whole = partial_state(e, 0, head);
        int64_t from, to;
        visible(e, head / e->heads, &from, &to);
        if (from >= to) {
            memset(e->out + head * e->dim, 0, e->dim * sizeof(float));
            continue;
        }
        const int64_t first = from / e->span, last = (to - 1) / e->span;
        for (int64_t span = e->begin > first ? e->begin : first; span < e->end && span <= last; span++) {
            const float *state = partial_state(e, 1 + (size_t)(span - e->begin), head);
            if (span == first) memcpy(whole, state, (e->dim + 2) * sizeof(float));
            else e->cpu->k->attend_merge(state, e->dim, whole);
        }
        if (last >= e->begin && last < e->end) write_out(e, whole, head);
    }
}

/* ---- a segment ---- */

static void by_spans(attend_context *e, int64_t wave) {
    const int64_t end = e->end;
    for (; e->begin < end; e->begin = e->end) {
        e->end = end - e->begin < wave ? end : e->begin + wave;
        pm_pool_run(e->cpu->pool, (size_t)e->view->heads * (size_t)(e->end - e->begin) * e->tiles, 1, spans_job, e);
        pm_pool_run(e->cpu->pool, e->rows * e->heads, 1, merge_job, e);
    }
}

static size_t parts(size_t n, size_t size) { return (n + size - 1) / size; }

/* Queries times spans of the busiest thread, for items of `queries` queries and one span or all. */
static size_t busiest(const attend_context *e, size_t queries, int one_span) {
    const size_t threads = (size_t)e->cpu->threads, spans = (size_t)(e->end - e->begin);
    const size_t items = (size_t)e->view->heads * parts(e->rows * e->group, queries);
    return one_span ? parts(items * spans, threads) * queries : parts(items, threads) * queries * spans;
}

/* Sharing the spans reads the cache once, so it may divide the work a little less evenly. */
static void attend_segment(attend_context *e) {
    const size_t threads = (size_t)e->cpu->threads, kv = (size_t)e->view->heads, queries = e->rows * e->group;
    const size_t most = queries < PM_ATTEND_QUERIES ? queries : PM_ATTEND_QUERIES;
    const size_t wave = e->cpu->partial_floats / (e->rows * e->heads * e->state); /* spans whose states fit, and one */
    size_t even = parts(kv * queries, threads);
    even = even > 4 ? pm_round_up(even, 4) : even;
    even = even < most ? even : most;
    int64_t first = INT64_MAX;
    for (size_t r = 0; r < e->rows; r++) {
        int64_t from, to;
        visible(e, r, &from, &to);
        first = from < first ? from : first;
        e->length = to > e->length ? to : e->length;
    }
    e->begin = first / e->span;
    e->end = (e->length + e->span - 1) / e->span;
    const int share = threads > 1 && wave > threads && e->end - e->begin >= LEAST_SPANS &&
                      busiest(e, most, 1) <= busiest(e, even, 0) / 8 * 9;
    e->tile = share ? most : even;
    e->tiles = parts(queries, e->tile);
    if (share) by_spans(e, (int64_t)wave - 1);
    else pm_pool_run(e->cpu->pool, kv * e->tiles, 1, walk_job, e);
}

void pm_cpu_attend(pm_backend *b, const pm_rows *rows, const pm_kv_view *views, const pm_buf *q, int32_t heads, int32_t window,
                   int32_t self, pm_buf *out) {
    pm_cpu_count_kv((pm_cpu *)b, rows, views, window, self);
    size_t end;
    for (size_t row = 0; row < (size_t)rows->n; row = end) {
        const pm_kv_view *view = &views[rows->seg[row]];
        const size_t dim = (size_t)view->head_dim, at = row * (size_t)heads * dim;
        for (end = row + 1; end < (size_t)rows->n && rows->seg[end] == rows->seg[row];) end++;
        attend_context e = {.cpu = (pm_cpu *)b, .view = view, .pos = rows->pos + row, .q = pm_cpu_f32(q) + at, .out = pm_cpu_f32(out) + at,
                            .rows = end - row, .heads = (size_t)heads, .group = (size_t)(heads / view->heads), .dim = dim,
                            .state = state_floats(dim), .window = window, .self = self,
                            .span = window ? PM_KV_BLOCK : SPAN_BLOCKS * PM_KV_BLOCK};
        attend_segment(&e);
    }
}

void pm_cpu_attn_out(pm_backend *b, int32_t n, const pm_buf *attn, const pm_matrix *wo, const pm_buf *post_norm, pm_buf *x) {
    pm_cpu *c = (pm_cpu *)b;
    const size_t cols = wo->packed.cols;
    pm_cpu_prepare(c, &c->act, pm_cpu_f32(attn), cols, (size_t)n, cols, NULL, (pm_meets){{wo}});
    pm_cpu_product(c, &c->act, wo, (size_t)n, c->a);
    pm_cpu_add_normed(c, (size_t)n, wo->packed.rows, c->a, post_norm, pm_cpu_f32(x));
}
