/* kv.h - the KV cache of one session: full layers and rings, append, view, rewind, snapshot.
 *
 * Position p of a layer lives in slot p % capacity. Full layers: capacity = context. Sliding layers: a ring of
 * window + max rows per call, rounded up to PM_KV_BLOCK (or the context, if that is smaller): rejected rows are written
 * before we know they are rejected and must not overwrite rows that are still visible, so rewinding within a round
 * is a length change that cannot fail. Address space for the whole context is reserved, memory committed in steps.
 * The cache does not know the length: it is told by the session. What it knows is `low`: positions below it
 * are gone from the rings. Readable: full layers [0, length), rings [low, length). */
#ifndef PM_CACHE_KV_H
#define PM_CACHE_KV_H

#include "backend.h"

typedef struct pm_kv_layer_shape { int32_t heads, head_dim; int32_t sliding; } pm_kv_layer_shape;

typedef struct pm_kv_shape {
    int32_t layers;                   /* of the network */
    const pm_kv_layer_shape *layer;   /* (layers); heads 0: the layer owns no KV */
    int32_t window, context, max_rows, type;
} pm_kv_shape;

typedef struct pm_kv pm_kv;
typedef struct pm_kv_snapshot pm_kv_snapshot; /* the last window - 1 rows of each ring */

pymtp_status pm_kv_new(pm_backend *b, const pm_kv_shape *shape, pm_kv **out, pymtp_error *err);
void pm_kv_free(pm_kv *kv);
/* Commits memory so that positions [0, end) can be written. */
pymtp_status pm_kv_commit(pm_kv *kv, int64_t end, pymtp_error *err);
/* Tells that rows up to `end` (exclusive) are about to be written: moves `low`. At most max_rows rows past the length. */
void pm_kv_append(pm_kv *kv, int64_t end);
/* 1 if a session may go on at `length`: every ring row that position sees is still there. */
int pm_kv_can_rewind(const pm_kv *kv, int64_t length);
int64_t pm_kv_low(const pm_kv *kv);
void pm_kv_reset(pm_kv *kv); /* to empty: low = 0 */
/* The view of a layer (which must own KV). */
void pm_kv_get_view(const pm_kv *kv, int32_t layer, pm_kv_view *out);
/* Snapshot of the rings at `length`; where sliding layers are stored in full (no ring shorter than the context) it
 * is empty and costs nothing. */
pymtp_status pm_kv_snapshot_new(pm_kv *kv, int64_t length, pm_kv_snapshot **out, pymtp_error *err);
void pm_kv_snapshot_restore(pm_kv *kv, const pm_kv_snapshot *snap); /* same shape and backend; rings only */
void pm_kv_snapshot_free(pm_kv_snapshot *snap);
/* Bytes: per position of full layers, of all rings when full, of one snapshot. */
void pm_kv_sizes(const pm_kv_shape *shape, uint64_t *per_position, uint64_t *rings, uint64_t *snapshot);
/* As pymtp_session_kv_bytes; length is the session's. */
int64_t pm_kv_read(const pm_kv *kv, int32_t layer, int64_t position, int64_t length, uint8_t *out, size_t cap);

#endif
