/* test_memory.c - memory is taken in steps, each checked against what the machine has left: reserved regions, and the cache of keys and
 * values on them, which holds what its positions need and not what its context could. */
#include "base/memory.h"
#include "cache/kv.h"
#include "check.h"
#include "cpu/backend_cpu.h"

#include <stdint.h>

#define MIB ((size_t)1 << 20)

static void regions(size_t left) {
    pm_region r;
    pymtp_error err = {0};
    CHECK(pm_region_reserve(&r, 2 * left + MIB, "a test", &err) == PYMTP_OK && !r.committed, "%s", err.text);
    CHECK(pm_region_commit(&r, 1, "a test", &err) == PYMTP_OK && r.committed == MIB, "%s, %zu committed", err.text, r.committed);
    CHECK(!r.base[0] && !memcmp(r.base, r.base + 1, MIB - 1), "zero at first");
    memset(r.base, 7, MIB);
    CHECK(pm_region_commit(&r, 3 * MIB + 1, "a test", &err) == PYMTP_OK && r.committed == 4 * MIB, "%s, %zu committed", err.text, r.committed);
    CHECK(r.base[MIB - 1] == 7 && !r.base[MIB] && !r.base[4 * MIB - 1], "what was there stays, what is new is zero");
    CHECK(pm_region_commit(&r, 2 * left, "a test", &err) == PYMTP_E_NOMEM && strstr(err.text, "out of memory: a test needs ") &&
              strstr(err.text, " MiB are available"), "%s", err.text);
    CHECK(r.committed == 4 * MIB && r.base[0] == 7, "a step that was refused: %zu committed", r.committed);
    CHECK(pm_region_commit(&r, 5 * MIB, "a test", NULL) == PYMTP_OK, "the next step, which there is memory for");
    err = (pymtp_error){0};
    CHECK(pm_region_commit(&r, r.reserved + 1, "a test", &err) == PYMTP_E_NOMEM && strstr(err.text, "reserved"), "%s", err.text);
    pm_region_release(&r);
    CHECK(!r.base && !r.reserved && !r.committed, "released");
    err = (pymtp_error){0};
    CHECK(pm_region_reserve(&r, SIZE_MAX, "a test", &err) == PYMTP_E_NOMEM && strstr(err.text, "a test") && !r.base, "%s", err.text);
}

/* Keys or values of one layer take 8 KiB a position: two layers take 32 KiB in all. */
static void cache(size_t left) {
    static const pm_kv_layer_shape layers[2] = {{8, 256, 0}, {8, 256, 0}};
    const int32_t context = (int32_t)(left / (16 << 10) / 256 * 256); /* twice what is left */
    const pm_kv_shape shape = {.layers = 2, .layer = layers, .window = 64, .context = context, .max_rows = 8, .type = PYMTP_KV_F32};
    static const int64_t ends[] = {1, 256, 257, 1000, 1024};
    pm_backend *b = NULL;
    pm_kv *kv = NULL;
    pm_kv_view view;
    pymtp_error err = {0};
    const uint32_t mark = 12345;
    uint8_t row[2 * 8 * 256 * 4];
    CHECK(pm_backend_cpu_open(1, &b, &err) == PYMTP_OK && pm_kv_new(b, &shape, &kv, &err) == PYMTP_OK, "%s", err.text);
    if (!kv) return;
    pm_kv_get_view(kv, 1, &view);
    CHECK(!view.v->region.committed && view.v->region.reserved >= (size_t)context * 8192, "a new cache holds %zu bytes", view.v->region.committed);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        CHECK(pm_kv_commit(kv, ends[i], &err) == PYMTP_OK, "%s", err.text);
        const size_t held = view.v->region.committed, needed = (size_t)ends[i] * 8192; /* steps of 256 positions are whole MiB here */
        CHECK(held >= needed && held < needed + 256 * 8192, "%zu bytes for %d positions", held, (int)ends[i]);
    }
    pm_kv_append(kv, 1024);
    b->buf_write(b, view.v, 1000 * view.row_bytes, &mark, sizeof mark);
    CHECK(pm_kv_commit(kv, context, &err) == PYMTP_E_NOMEM && strstr(err.text, "out of memory: the cache of ") && strstr(err.text, " MiB are available"),
          "more than there is, of which each buffer is less: %s", err.text);
    CHECK(pm_kv_read(kv, 1, 1000, 1024, row, sizeof row) == sizeof row && !memcmp(row + sizeof row / 2, &mark, sizeof mark), "position 1000 after a refusal");
    CHECK(pm_kv_commit(kv, 1100, NULL) == PYMTP_OK, "the next step, which there is memory for");
    pm_kv_free(kv);
    b->close(b);
}

int main(void) {
    const size_t left = pm_memory_available();
    if (left == SIZE_MAX) { /* a system that does not say */
        puts("skipped: what is left of the memory is not known here");
        return 0;
    }
    CHECK(left >= 64 * MIB, "%zu MiB left", left / MIB);
    regions(left);
    cache(left);
    return check_done();
}
