/* test_kv.c - the cache against a plain model of it: what is readable after appends, rewinds and restores, that every
 * key a position may see is still there, snapshots, sizes, refusals. Rows carry their position and a stamp that says
 * which write they come from. */
#include "base/memory.h"
#include "cache/kv.h"
#include "check.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

#define LAYERS 4
#define MAX_CONTEXT 700

static pm_backend *b;

static const pm_kv_layer_shape layer_shape[LAYERS] = {{2, 32, 1}, {1, 64, 0}, {0, 0, 0}, {1, 48, 1}};

static pm_kv_shape shape_of(int32_t window, int32_t context, int32_t max_rows, int32_t type) {
    return (pm_kv_shape){.layers = LAYERS, .layer = layer_shape, .window = window, .context = context, .max_rows = max_rows, .type = type};
}

static uint32_t mark(int32_t layer, int64_t position, uint32_t stamp, int side) {
    return (uint32_t)layer << 28 | (uint32_t)side << 27 | (stamp & 0x7ff) << 16 | (uint32_t)position;
}

/* Writes rows [from, to) as the network would: after commit and append, one by one through the views. */
static void write_rows(pm_kv *kv, int64_t from, int64_t to, uint32_t stamp) {
    pymtp_error err = {0};
    CHECK(pm_kv_commit(kv, to, &err) == PYMTP_OK, "%s", err.text);
    pm_kv_append(kv, to);
    for (int32_t l = 0; l < LAYERS; l++) {
        pm_kv_view v;
        if (!layer_shape[l].heads) continue;
        pm_kv_get_view(kv, l, &v);
        for (int64_t p = from; p < to; p++) {
            const uint32_t k = mark(l, p, stamp, 0), w = mark(l, p, stamp, 1);
            const size_t offset = (size_t)(p % v.capacity) * v.row_bytes;
            b->buf_write(b, v.k, offset, &k, sizeof k);
            b->buf_write(b, v.v, offset, &w, sizeof w);
        }
    }
}

/* Row p of a layer holds what `stamp` wrote there. */
static int holds(const pm_kv *kv, int32_t l, int64_t p, int64_t length, uint32_t stamp) {
    uint8_t row[2 * 4 * 64 * 2];
    const int64_t n = pm_kv_read(kv, l, p, length, row, sizeof row);
    uint32_t k, v;
    if (n <= 0 || (size_t)n > sizeof row) return 0;
    memcpy(&k, row, 4);
    memcpy(&v, row + n / 2, 4);
    return k == mark(l, p, stamp, 0) && v == mark(l, p, stamp, 1);
}

/* ---- shapes, sizes, refusals ---- */

static void test_shapes(void) {
    static const struct { int32_t window, context, rows, ring, full; } cases[] = {
        {64, 512, 17, 128, 512}, {64, 500, 64, 128, 512}, {64, 129, 32, 128, 256}, {64, 128, 32, 0, 128}, {512, 100, 128, 0, 128},
        {1, 300, 1, 128, 384}, {33, 700, 512, 640, 768}, {129, 700, 128, 384, 768},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int32_t type = 0; type <= 2; type++) {
            const pm_kv_shape s = shape_of(cases[i].window, cases[i].context, cases[i].rows, type);
            pm_kv *kv = NULL;
            pm_kv_view v;
            uint64_t each, rings, snapshot;
            CHECK(pm_kv_new(b, &s, &kv, NULL) == PYMTP_OK, "new");
            if (!kv) continue;
            pm_kv_sizes(&s, &each, &rings, &snapshot);
            uint64_t ring_rows = 0, full_rows = 0;
            for (int32_t l = 0; l < LAYERS; l++) {
                if (!layer_shape[l].heads) continue;
                const int ring = layer_shape[l].sliding && cases[i].ring;
                const size_t dim = (size_t)layer_shape[l].head_dim, head = type == 1 ? 4 * dim : type == 0 ? 2 * dim : 34 * ((dim + 31) / 32);
                pm_kv_get_view(kv, l, &v);
                CHECK(v.capacity == (ring ? cases[i].ring : cases[i].full), "case %zu layer %d: capacity %d", i, l, v.capacity);
                CHECK(v.capacity % PM_KV_BLOCK == 0, "capacity %d", v.capacity);
                CHECK(v.row_bytes == head * (size_t)layer_shape[l].heads && v.type == type, "row bytes %zu", v.row_bytes);
                *(ring ? &ring_rows : &full_rows) += 2 * v.row_bytes;
            }
            CHECK(each == full_rows && rings == ring_rows * (uint64_t)cases[i].ring && snapshot == ring_rows * (uint64_t)(cases[i].window - 1),
                  "sizes %llu %llu %llu", (unsigned long long)each, (unsigned long long)rings, (unsigned long long)snapshot);
            pm_kv_free(kv);
        }
    }
}

static void test_refusals(void) {
    const pm_kv_shape s = shape_of(16, 200, 8, PYMTP_KV_F16), none = shape_of(16, 0, 8, PYMTP_KV_F16);
    pymtp_error err = {0};
    pm_kv *kv = NULL;
    uint8_t row[512];
    CHECK(pm_kv_new(b, &none, &kv, &err) == PYMTP_E_ARG && !kv && err.text[0], "context 0");
    CHECK(pm_kv_new(b, &s, &kv, NULL) == PYMTP_OK, "new");
    pm_clear(&err);
    CHECK(pm_kv_commit(kv, 201, &err) == PYMTP_E_CONTEXT && err.text[0], "beyond the context");
    write_rows(kv, 0, 200, 1); /* the context is not a multiple of the block */
    CHECK(pm_kv_read(kv, 0, 199, 200, NULL, 0) == 2 * 2 * 64 && pm_kv_read(kv, 2, 0, 200, NULL, 0) == 0, "row bytes");
    CHECK(pm_kv_read(kv, -1, 0, 200, row, sizeof row) < 0 && pm_kv_read(kv, LAYERS, 0, 200, row, sizeof row) < 0, "no such layer");
    CHECK(pm_kv_read(kv, 1, 200, 200, row, sizeof row) < 0 && pm_kv_read(kv, 1, -1, 200, row, sizeof row) < 0, "no such position");
    CHECK(pm_kv_read(kv, 0, 0, 200, row, sizeof row) < 0, "row 0 is gone from the ring");
    memset(row, 7, sizeof row);
    CHECK(pm_kv_read(kv, 1, 5, 200, row, 255) == 256 && row[0] == 7, "too small a buffer is not written");
    pm_kv_free(kv);
    pm_kv_free(NULL);
    pm_kv_snapshot_free(NULL);
}

/* ---- behaviour, against a model ---- */

typedef struct model { uint32_t stamp[MAX_CONTEXT]; int64_t length; } model; /* which write each position must hold */

static void check_visible(const pm_kv *kv, const model *m, int32_t window) {
    for (int32_t l = 0; l < LAYERS; l++) {
        if (!layer_shape[l].heads) continue;
        int64_t first = layer_shape[l].sliding ? m->length - window + 1 : 0;
        int64_t missing = -1;
        for (int64_t p = first > 0 ? first : 0; p < m->length; p++)
            if (!holds(kv, l, p, m->length, m->stamp[p])) missing = p;
        CHECK(missing < 0, "length %lld, low %lld: layer %d lost position %lld", (long long)m->length, (long long)pm_kv_low(kv), l, (long long)missing);
    }
    for (int64_t p = pm_kv_low(kv); p < m->length; p++) /* all that counts as readable */
        CHECK(holds(kv, 0, p, m->length, m->stamp[p]), "readable row %lld is not what was written", (long long)p);
}

/* Random rounds: write up to max_rows, keep some of them; now and then rewind as far as the cache allows, snapshot or restore. */
static void test_rounds(int32_t window, int32_t context, int32_t max_rows, uint64_t seed) {
    const pm_kv_shape s = shape_of(window, context, max_rows, PYMTP_KV_F16);
    rng r = {seed};
    model m = {.length = 0}, saved = {.length = -1};
    pm_kv *kv = NULL;
    pm_kv_snapshot *snap = NULL;
    CHECK(pm_kv_new(b, &s, &kv, NULL) == PYMTP_OK, "new");
    for (uint32_t round = 1; round <= 150; round++) {
        const uint64_t dice = rng_next(&r) % 10;
        if (dice < 7 && m.length < context) {
            int64_t n = 1 + (int64_t)(rng_next(&r) % (uint64_t)max_rows);
            if (n > context - m.length) n = context - m.length;
            write_rows(kv, m.length, m.length + n, round);
            for (int64_t p = m.length; p < m.length + n; p++) m.stamp[p] = round;
            const int64_t kept = 1 + (int64_t)(rng_next(&r) % (uint64_t)n);
            CHECK(pm_kv_can_rewind(kv, m.length + kept), "rejecting rows of a round must never fail");
            m.length += kept;
        } else if (dice == 7) {
            const int64_t to = (int64_t)(rng_next(&r) % (uint64_t)(m.length + 1));
            const int64_t first = to - window + 1 > 0 ? to - window + 1 : 0;
            CHECK(pm_kv_can_rewind(kv, to) == (first >= pm_kv_low(kv)), "rewind to %lld, low %lld", (long long)to, (long long)pm_kv_low(kv));
            if (pm_kv_can_rewind(kv, to)) m.length = to;
        } else if (dice == 8) {
            pm_kv_snapshot_free(snap);
            CHECK(pm_kv_snapshot_new(kv, m.length, &snap, NULL) == PYMTP_OK, "snapshot at %lld", (long long)m.length);
            saved = m;
        } else if (snap && m.length >= saved.length && !memcmp(m.stamp, saved.stamp, (size_t)saved.length * sizeof *m.stamp)) {
            pm_kv_snapshot_restore(kv, snap); /* the full layers still hold its tokens */
            m = saved;
            CHECK(pm_kv_can_rewind(kv, m.length), "a restored length must be usable");
        }
        check_visible(kv, &m, window);
    }
    pm_kv_snapshot_free(snap);
    pm_kv_free(kv);
}

/* A snapshot taken early, restored after the ring has lost its rows; then into another cache of the same shape. */
static void test_snapshot(void) {
    const pm_kv_shape s = shape_of(40, 600, 24, PYMTP_KV_Q8_0);
    pm_kv *kv = NULL, *other = NULL;
    pm_kv_snapshot *snap = NULL, *empty = NULL;
    pymtp_error err = {0};
    model m = {.length = 100};
    CHECK(pm_kv_new(b, &s, &kv, NULL) == PYMTP_OK && pm_kv_new(b, &s, &other, NULL) == PYMTP_OK, "new");
    CHECK(pm_kv_snapshot_new(kv, 0, &empty, NULL) == PYMTP_OK && empty, "of an empty cache");
    for (int i = 0; i < MAX_CONTEXT; i++) m.stamp[i] = 3;
    for (int64_t p = 0; p < 100; p += 20) write_rows(kv, p, p + 20, 3);
    CHECK(pm_kv_snapshot_new(kv, 100, &snap, NULL) == PYMTP_OK, "snapshot");
    for (int64_t p = 100; p < 600; p += 20) write_rows(kv, p, p + 20, 3);
    CHECK(!pm_kv_can_rewind(kv, 100) && pm_kv_low(kv) == 600 - 128, "low %lld", (long long)pm_kv_low(kv));
    pm_kv_snapshot *late = NULL;
    CHECK(pm_kv_snapshot_new(kv, 100, &late, &err) == PYMTP_E_STATE && !late && err.text[0], "rows are gone");
    pm_kv_snapshot_restore(kv, snap);
    CHECK(pm_kv_low(kv) == 61 && pm_kv_can_rewind(kv, 100) && !pm_kv_can_rewind(kv, 99), "low %lld", (long long)pm_kv_low(kv));
    check_visible(kv, &m, 40);
    for (int64_t p = 0; p < 100; p += 20) write_rows(other, p, p + 20, 9);
    pm_kv_snapshot_restore(other, snap);
    CHECK(holds(other, 0, 61, 100, 3) && holds(other, 3, 99, 100, 3) && holds(other, 1, 99, 100, 9), "rings only, all of them");
    pm_kv_snapshot_restore(kv, empty);
    CHECK(pm_kv_low(kv) == 0 && pm_kv_can_rewind(kv, 0), "back to nothing");
    pm_kv_reset(other);
    CHECK(pm_kv_low(other) == 0, "reset");
    pm_kv_snapshot_free(snap);
    pm_kv_snapshot_free(empty);
    pm_kv_free(kv);
    pm_kv_free(other);
}

/* ---- a back end whose commit fails ---- */

static int commits_left;
static pymtp_status (*real_commit)(pm_backend *, pm_buf *, size_t, pymtp_error *);

static pymtp_status failing_commit(pm_backend *be, pm_buf *buf, size_t bytes, pymtp_error *err) {
    if (commits_left-- <= 0) return pm_fail(err, PYMTP_E_NOMEM, "no memory left");
    return real_commit(be, buf, bytes, err);
}

static void test_commit_failure(void) {
    const pm_kv_shape s = shape_of(64, 700, 32, PYMTP_KV_F32);
    real_commit = b->buf_commit;
    for (int good = 0; good < 6; good++) {
        pm_kv *kv = NULL;
        model m = {.length = 200};
        for (int i = 0; i < MAX_CONTEXT; i++) m.stamp[i] = 5;
        CHECK(pm_kv_new(b, &s, &kv, NULL) == PYMTP_OK, "new");
        for (int64_t p = 0; p < 200; p += 20) write_rows(kv, p, p + 20, 5);
        b->buf_commit = failing_commit;
        commits_left = good;
        pymtp_error err = {0};
        CHECK(pm_kv_commit(kv, 600, &err) == PYMTP_E_NOMEM && err.text[0], "the failure is reported");
        b->buf_commit = real_commit;
        check_visible(kv, &m, 64);
        CHECK(pm_kv_commit(kv, 600, NULL) == PYMTP_OK, "again");
        write_rows(kv, 200, 220, 5);
        m.length = 220;
        check_visible(kv, &m, 64);
        pm_kv_free(kv);
    }
}

int main(void) {
    if (pm_backend_cpu_open(1, &b, NULL) != PYMTP_OK) return 1;
    test_shapes();
    test_refusals();
    test_snapshot();
    test_commit_failure();
    for (uint64_t seed = 0; seed < 6; seed++) {
        test_rounds(64, 700, 17, seed);
        test_rounds(33, 650, 100, seed);
        test_rounds(20, 150, 40, seed);  /* short context: rings wrap once or never */
        test_rounds(200, 150, 32, seed); /* no rings at all */
        test_rounds(1, 300, 5, seed);
    }
    b->close(b);
    return check_done();
}
