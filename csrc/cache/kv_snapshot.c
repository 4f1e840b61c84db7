/* kv_snapshot.c - copies of what the rings hold of the last window - 1 positions, in position order.
 *
 * Layers stored in full need none: their rows stay where they are. Restoring writes rings only; the caller sees to it
 * that the full layers hold the same positions and that the cache is committed up to them. */
#include "base/checked.h"
#include "base/memory.h"
#include "cache/private.h"

struct pm_kv_snapshot {
    pm_backend *backend;
    int64_t first, length; /* positions [first, length) */
    pm_buf *rows;          /* ring by ring: keys, then values; NULL when empty */
};

/* Copies positions [first, length) of one buffer of a ring from or to the snapshot, wrapping; returns the bytes. */
static size_t copy_rows(pm_backend *b, const pm_kv_store *s, pm_buf *ring, pm_buf *rows, size_t at, int64_t first, int64_t length,
                        int restore) {
    size_t done = 0;
    while (first < length) {
        const int64_t slot = first % s->capacity, run = s->capacity - slot < length - first ? s->capacity - slot : length - first;
        const size_t offset = (size_t)slot * s->row_bytes, bytes = (size_t)run * s->row_bytes;
        if (restore) b->buf_copy(b, ring, offset, rows, at + done, bytes);
        else b->buf_copy(b, rows, at + done, ring, offset, bytes);
        done += bytes;
        first += run;
    }
    return done;
}

static void copy_rings(const pm_kv *kv, const pm_kv_snapshot *snap, int restore) {
    size_t at = 0;
    for (int32_t i = 0; i < kv->layers && snap->rows; i++) {
        const pm_kv_store *s = &kv->store[i];
        if (!s->ring) continue;
        at += copy_rows(kv->backend, s, s->k, snap->rows, at, snap->first, snap->length, restore);
        at += copy_rows(kv->backend, s, s->v, snap->rows, at, snap->first, snap->length, restore);
    }
}

pymtp_status pm_kv_snapshot_new(pm_kv *kv, int64_t length, pm_kv_snapshot **out, pymtp_error *err) {
    size_t row_bytes = 0, bytes;
    *out = NULL;
    if (!pm_kv_can_rewind(kv, length) || length > kv->committed)
        return pm_fail(err, PYMTP_E_STATE, "no snapshot at length %lld: the cache holds positions from %lld on", (long long)length,
                       (long long)kv->low);
    const int64_t first = length - kv->window + 1 > 0 ? length - kv->window + 1 : 0;
    for (int32_t i = 0; i < kv->layers; i++) row_bytes += kv->store[i].ring ? 2 * kv->store[i].row_bytes : 0;
    if (pm_mul_size(row_bytes, (size_t)(length - first), &bytes)) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: snapshot");
    pm_kv_snapshot *snap = pm_new(1, sizeof *snap, "snapshot", err);
    if (!snap) return PYMTP_E_NOMEM;
    *snap = (pm_kv_snapshot){.backend = kv->backend, .first = first, .length = length};
    if (bytes) {
        const pymtp_status status = kv->backend->buf_new(kv->backend, bytes, &snap->rows, err);
        if (status != PYMTP_OK) {
            pm_free(snap);
            return status;
        }
        copy_rings(kv, snap, 0);
    }
    *out = snap;
    return PYMTP_OK;
}

void pm_kv_snapshot_restore(pm_kv *kv, const pm_kv_snapshot *snap) {
    copy_rings(kv, snap, 1);
    if (kv->ring_capacity) kv->low = snap->first;
}

void pm_kv_snapshot_free(pm_kv_snapshot *snap) {
    if (!snap) return;
    snap->backend->buf_free(snap->backend, snap->rows);
    pm_free(snap);
}
