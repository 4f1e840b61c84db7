/* kv.c - stores of a session's keys and values, and which positions are still in them.
 *
 * A ring may be overwritten from `end - capacity` backwards once rows up to `end` were written, whether or not they
 * are kept: `low` follows the highest end ever announced and only reset or a restored snapshot moves it otherwise. */
#include "cache/kv.h"
#include "base/checked.h"
#include "base/memory.h"
#include "cache/private.h"

#define COMMIT_STEP 256 /* positions; a multiple of PM_KV_BLOCK: whole blocks can be read */

static int32_t round_up(int64_t n, int32_t step) {
    const int64_t up = (n + step - 1) / step * step;
    return up > INT32_MAX / step * step ? INT32_MAX / step * step : (int32_t)up;
}

static size_t head_bytes(int32_t type, int32_t head_dim) {
    const size_t n = (size_t)head_dim;
    return type == PYMTP_KV_F32 ? 4 * n : type == PYMTP_KV_F16 ? 2 * n : 34 * ((n + 31) / 32);
}

/* Capacity of the rings of a shape; 0 when they would be no shorter than the context. */
static int32_t ring_capacity(const pm_kv_shape *s) {
    const int32_t capacity = round_up((int64_t)s->window + s->max_rows, PM_KV_BLOCK);
    return capacity < s->context ? capacity : 0;
}

static pymtp_status store_new(pm_kv *kv, const pm_kv_shape *shape, const pm_kv_layer_shape *layer, pm_kv_store *s, pymtp_error *err) {
    size_t bytes;
    if (!layer->heads) return PYMTP_OK;
    s->heads = layer->heads;
    s->head_dim = layer->head_dim;
    s->ring = layer->sliding && ring_capacity(shape);
    s->capacity = s->ring ? ring_capacity(shape) : round_up(shape->context, PM_KV_BLOCK);
    if (s->ring) kv->ring_capacity = s->capacity;
    if (pm_mul_size((size_t)layer->heads, head_bytes(shape->type, layer->head_dim), &s->row_bytes) ||
        pm_mul_size(s->row_bytes, (size_t)s->capacity, &bytes))
        return pm_fail(err, PYMTP_E_NOMEM, "the cache of %d positions does not fit the address space", shape->context);
    PM_TRY(kv->backend->buf_reserve(kv->backend, bytes, &s->k, err));
    return kv->backend->buf_reserve(kv->backend, bytes, &s->v, err);
}

pymtp_status pm_kv_new(pm_backend *b, const pm_kv_shape *shape, pm_kv **out, pymtp_error *err) {
    *out = NULL;
    if (shape->context < 1 || shape->context > INT32_MAX / 2)
        return pm_fail(err, PYMTP_E_ARG, "context: expected 1..%d positions, found %d", INT32_MAX / 2, shape->context);
    pm_kv *kv = pm_new(1, sizeof *kv, "cache", err);
    if (!kv) return PYMTP_E_NOMEM;
    *kv = (pm_kv){.backend = b, .layers = shape->layers, .window = shape->window, .context = shape->context,
                  .max_rows = shape->max_rows, .type = shape->type};
    kv->store = pm_new((size_t)shape->layers, sizeof *kv->store, "cache", err);
    pymtp_status status = kv->store ? PYMTP_OK : PYMTP_E_NOMEM;
    for (int32_t i = 0; i < shape->layers && status == PYMTP_OK; i++)
        status = store_new(kv, shape, &shape->layer[i], &kv->store[i], err);
    if (status != PYMTP_OK) pm_kv_free(kv);
    else *out = kv;
    return status;
}

void pm_kv_free(pm_kv *kv) {
    if (!kv) return;
    for (int32_t i = 0; kv->store && i < kv->layers; i++) {
        kv->backend->buf_free(kv->backend, kv->store[i].k);
        kv->backend->buf_free(kv->backend, kv->store[i].v);
    }
    pm_free(kv->store);
    pm_free(kv);
}

/* Of keys, and of values, when positions [0, end) are committed. */
static size_t store_bytes(const pm_kv_store *s, int64_t end) { return (size_t)(end < s->capacity ? end : s->capacity) * s->row_bytes; }

/* All layers together: each buffer is checked as well, but what was committed a moment ago still counts as available. */
static pymtp_status check_left(const pm_kv *kv, int32_t end, pymtp_error *err) {
    size_t more = 0;
    for (int32_t i = 0; i < kv->layers; i++) more += 2 * (store_bytes(&kv->store[i], end) - store_bytes(&kv->store[i], kv->committed));
    const size_t left = pm_memory_available();
    if (more <= left) return PYMTP_OK;
    return pm_fail(err, PYMTP_E_NOMEM, "out of memory: the cache of %d positions needs %zu MiB more, %zu MiB are available", end, more >> 20, left >> 20);
}

pymtp_status pm_kv_commit(pm_kv *kv, int64_t end, pymtp_error *err) {
    if (end > kv->context)
        return pm_fail(err, PYMTP_E_CONTEXT, "position %lld does not fit in the context of %d", (long long)end - 1, kv->context);
    if (end <= kv->committed) return PYMTP_OK;
    const int32_t wanted = round_up(end, COMMIT_STEP);
    PM_TRY(check_left(kv, wanted, err));
    for (int32_t i = 0; i < kv->layers; i++) {
        const pm_kv_store *s = &kv->store[i];
        const size_t bytes = store_bytes(s, wanted);
        if (!s->k) continue;
        PM_TRY(kv->backend->buf_commit(kv->backend, s->k, bytes, err));
        PM_TRY(kv->backend->buf_commit(kv->backend, s->v, bytes, err));
    }
    kv->committed = wanted;
    return PYMTP_OK;
}

void pm_kv_append(pm_kv *kv, int64_t end) {
    if (kv->ring_capacity && end - kv->ring_capacity > kv->low) kv->low = end - kv->ring_capacity;
}

int pm_kv_can_rewind(const pm_kv *kv, int64_t length) {
    const int64_t first = length - kv->window + 1; /* the first key that position `length` sees */
    return length >= 0 && (first > 0 ? first : 0) >= kv->low;
}

int64_t pm_kv_low(const pm_kv *kv) { return kv->low; }

void pm_kv_reset(pm_kv *kv) { kv->low = 0; }

void pm_kv_get_view(const pm_kv *kv, int32_t layer, pm_kv_view *out) {
    const pm_kv_store *s = &kv->store[layer];
    *out = (pm_kv_view){.k = s->k, .v = s->v, .type = kv->type, .heads = s->heads, .head_dim = s->head_dim,
                        .capacity = s->capacity, .row_bytes = s->row_bytes};
}

void pm_kv_sizes(const pm_kv_shape *shape, uint64_t *per_position, uint64_t *rings, uint64_t *snapshot) {
    const int32_t ring = ring_capacity(shape);
    const int32_t kept = shape->window > 1 ? shape->window - 1 : 0;
    *per_position = *rings = *snapshot = 0;
    for (int32_t i = 0; i < shape->layers; i++) {
        const pm_kv_layer_shape *l = &shape->layer[i];
        const uint64_t row = l->heads ? 2 * (uint64_t)l->heads * head_bytes(shape->type, l->head_dim) : 0;
        if (!l->sliding || !ring) {
            *per_position += row;
            continue;
        }
        *rings += row * (uint64_t)ring;
        *snapshot += row * (uint64_t)kept;
    }
}

int64_t pm_kv_read(const pm_kv *kv, int32_t layer, int64_t position, int64_t length, uint8_t *out, size_t cap) {
    if (layer < 0 || layer >= kv->layers) return -1;
    const pm_kv_store *s = &kv->store[layer];
    if (!s->k) return 0;
    if (position < 0 || position >= length || position >= kv->committed || (s->ring && position < kv->low)) return -1;
    if (out && cap >= 2 * s->row_bytes) {
        const size_t offset = (size_t)(position % s->capacity) * s->row_bytes;
        kv->backend->buf_read(kv->backend, s->k, offset, out, s->row_bytes);
        kv->backend->buf_read(kv->backend, s->v, offset, out + s->row_bytes, s->row_bytes);
    }
    return (int64_t)(2 * s->row_bytes);
}
