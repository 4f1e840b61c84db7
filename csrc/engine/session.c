/* session.c - the timeline of a session: append, rewind, replay, snapshots.
 *
 * Rewinding is a length change as long as the rings reach; further back the session replays its own tokens from the nearest
 * snapshot, which gives the same bits (row rule). */
#include "engine/session.h"
#include "base/memory.h"

#include <string.h>

#define TOKENS_STEP 1024

int64_t pm_common_prefix(const int32_t *a, int64_t n, const int32_t *b, int64_t m) {
    int64_t i = 0;
    while (i < n && i < m && a[i] == b[i]) i++;
    return i;
}

pymtp_status pm_ids_check(const pymtp_model *m, const int32_t *ids, size_t n, const char *what, pymtp_error *err) {
    if (n && !ids) return pm_fail(err, PYMTP_E_ARG, "%s: expected %zu ids, found NULL", what, n);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= m->config.vocab)
            return pm_fail(err, PYMTP_E_ARG, "%s: token %zu: expected an id from 0 to %d, found %d", what, i, m->config.vocab - 1, ids[i]);
    return PYMTP_OK;
}

pymtp_status pm_session_reserve(pymtp_session *s, int64_t length, pymtp_error *err) {
    if (length > s->model->context)
        return pm_fail(err, PYMTP_E_CONTEXT, "the context holds %d tokens, %lld are needed", s->model->context, (long long)length);
    if (length > s->capacity) {
        const int64_t capacity = (length + TOKENS_STEP - 1) / TOKENS_STEP * TOKENS_STEP;
        int32_t *bigger = pm_realloc(s->tokens, (size_t)capacity, sizeof *bigger);
        if (!bigger) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: tokens of a session");
        s->tokens = bigger;
        s->capacity = capacity;
    }
    return pm_kv_commit(s->kv, length, err);
}

/* ---- append ---- */

static int is_cancelled(void *context) { return atomic_load(&((pymtp_session *)context)->cancelled); }

/* One pass over n <= chunk tokens. `all`: logits of all rows wanted; `last`: of the last row. The last row's hidden state always is. */
static pymtp_status append_chunk(pymtp_session *s, const int32_t *ids, int32_t n, int all, int last, float *logits, float *hidden,
                                 pymtp_error *err) {
    pymtp_model *m = s->model;
    pm_backend *b = m->backend;
    const size_t row = (size_t)m->config.width * sizeof(float);
    int32_t pos[PM_MAX_CHUNK], seg[PM_MAX_CHUNK];
    uint8_t want[PM_MAX_CHUNK];
    for (int32_t i = 0; i < n; i++) {
        pos[i] = (int32_t)s->length + i;
        seg[i] = 0;
        want[i] = (uint8_t)((all ? PM_WANT_LOGITS : 0) | (hidden ? PM_WANT_HIDDEN : 0));
    }
    want[n - 1] |= (uint8_t)(PM_WANT_HIDDEN | (last ? PM_WANT_LOGITS : 0));
    const pm_target_call call = {.n = n, .ids = ids, .pos = pos, .seg = seg, .want = want, .kv = &s->kv, .n_seg = 1, .logits = logits,
                                 .hidden = hidden, .cancelled = is_cancelled, .cancel_context = s};
    PM_TRY(pm_session_reserve(s, s->length + n, err));
    pm_kv_append(s->kv, s->length + n);
    PM_TRY(pm_target_forward(&m->target, &call, err));
    const int32_t wanted = all || hidden ? n : 1;
    b->buf_copy(b, s->h, 0, m->target.hidden, (size_t)(wanted - 1) * row, row);
    s->has_h = 1;
    if (ids != s->tokens + s->length) memcpy(s->tokens + s->length, ids, (size_t)n * sizeof *ids); /* equal in a replay */
    s->length += n;
    return PYMTP_OK;
}

static pymtp_status append_all(pymtp_session *s, const int32_t *ids, int64_t n, int32_t want, float *logits, float *hidden,
                               pymtp_error *err) {
    const pymtp_model *m = s->model;
    for (int64_t done = 0; done < n;) {
        const int32_t count = n - done < m->chunk ? (int32_t)(n - done) : m->chunk;
        const int all = want == PYMTP_LOGITS_ALL, last = want == PYMTP_LOGITS_LAST && done + count == n;
        PM_TRY(append_chunk(s, ids + done, count, all, last, all ? logits + done * m->config.vocab : last ? logits : NULL,
                            hidden ? hidden + done * m->config.width : NULL, err));
        done += count;
    }
    return PYMTP_OK;
}

pymtp_status pm_session_append(pymtp_session *s, const int32_t *ids, int64_t n, int32_t want, float *logits, float *hidden,
                               pymtp_error *err) {
    pm_backend *b = s->model->backend;
    const int64_t before = s->length;
    const size_t row = (size_t)s->model->config.width * sizeof(float);
    pm_kv_snapshot *rings = NULL;
    pm_buf *h = NULL;
    if (!n) return PYMTP_OK;
    PM_TRY(pm_session_reserve(s, before + n, err));
    /* several passes may overwrite ring rows that the way back needs */
    if (before && n > s->model->chunk) PM_TRY(pm_kv_snapshot_new(s->kv, before, &rings, err));
    const int had_h = s->has_h;
    pymtp_status status = b->buf_new(b, row, &h, err);
    if (status == PYMTP_OK) {
        b->buf_copy(b, h, 0, s->h, 0, row);
        status = append_all(s, ids, n, want, logits, hidden, err);
        if (status != PYMTP_OK) {
            if (rings && !pm_kv_can_rewind(s->kv, before)) pm_kv_snapshot_restore(s->kv, rings);
            s->length = before;
            b->buf_copy(b, s->h, 0, h, 0, row);
            s->has_h = had_h;
            if (!before) pm_kv_reset(s->kv);
        }
    }
    b->buf_free(b, h);
    pm_kv_snapshot_free(rings);
    return status;
}

/* ---- snapshots of its own ---- */

static void mark_free(pymtp_session *s, pm_mark *k) {
    pm_kv_snapshot_free(k->rings);
    s->model->backend->buf_free(s->model->backend, k->h);
    *k = (pm_mark){0};
}

pymtp_status pm_session_mark(pymtp_session *s, pymtp_error *err) {
    pm_backend *b = s->model->backend;
    const size_t row = (size_t)s->model->config.width * sizeof(float);
    uint64_t per_position, rings, snapshot;
    pm_kv_sizes(&s->model->kv_shape, &per_position, &rings, &snapshot);
    if (!snapshot || !s->length) return PYMTP_OK; /* all layers are stored in full: nothing to keep */
    pm_mark *slot = &s->marks[0];
    for (int i = 0; i < PM_SNAPSHOTS; i++) {
        if (s->marks[i].length == s->length) return PYMTP_OK;
        if (s->marks[i].length < slot->length) slot = &s->marks[i];
    }
    mark_free(s, slot);
    pm_mark k = {.length = s->length};
    PM_TRY(pm_kv_snapshot_new(s->kv, s->length, &k.rings, err));
    if (s->has_h) {
        const pymtp_status status = b->buf_new(b, row, &k.h, err);
        if (status != PYMTP_OK) {
            pm_kv_snapshot_free(k.rings);
            return status;
        }
        b->buf_copy(b, k.h, 0, s->h, 0, row);
    }
    *slot = k;
    return PYMTP_OK;
}

void pm_session_go_to(pymtp_session *s, int64_t length, const pm_kv_snapshot *rings, const pm_buf *h) {
    pm_backend *b = s->model->backend;
    if (h) b->buf_copy(b, s->h, 0, h, 0, (size_t)s->model->config.width * sizeof(float));
    s->has_h = h != NULL || (s->has_h && length == s->length);
    if (length == s->length) return;
    if (!length) pm_kv_reset(s->kv);
    else if (rings && !pm_kv_can_rewind(s->kv, length)) pm_kv_snapshot_restore(s->kv, rings);
    s->length = length;
    for (int i = 0; i < PM_SNAPSHOTS; i++) /* later ones are of a future that may not come */
        if (s->marks[i].length > length) mark_free(s, &s->marks[i]);
}

/* The latest mark at or before `length`, or NULL. */
static const pm_mark *mark_before(const pymtp_session *s, int64_t length) {
    const pm_mark *best = NULL;
    for (int i = 0; i < PM_SNAPSHOTS; i++)
        if (s->marks[i].length && s->marks[i].length <= length && (!best || s->marks[i].length > best->length)) best = &s->marks[i];
    return best;
}

int64_t pm_session_fall_back(pymtp_session *s, int64_t limit) {
    const pm_mark *k = mark_before(s, limit);
    const int64_t to = limit >= s->length ? s->length : pm_kv_can_rewind(s->kv, limit) ? limit : k ? k->length : 0;
    if (k && k->length == to) pm_session_go_to(s, to, k->rings, k->h);
    else pm_session_go_to(s, to, NULL, NULL);
    return to;
}

/* Rewinds to where the rings no longer reach. On failure the session is as before, but for its marks beyond the place the replay
 * began at: the layers stored in full were at most written with the bits they had, and the rings and h come back. */
static pymtp_status replay(pymtp_session *s, int64_t length, pymtp_error *err) {
    pm_backend *b = s->model->backend;
    const size_t row = (size_t)s->model->config.width * sizeof(float);
    const int64_t before = s->length;
    const int had_h = s->has_h;
    pm_kv_snapshot *rings = NULL;
    pm_buf *h = NULL;
    PM_TRY(pm_kv_snapshot_new(s->kv, before, &rings, err));
    pymtp_status status = b->buf_new(b, row, &h, err);
    if (status == PYMTP_OK) {
        b->buf_copy(b, h, 0, s->h, 0, row);
        const int64_t from = pm_session_fall_back(s, length);
        status = append_all(s, s->tokens + from, length - from, PYMTP_LOGITS_NONE, NULL, NULL, err);
        if (status == PYMTP_OK) s->stats.replayed += (uint64_t)(length - from);
        else {
            pm_kv_snapshot_restore(s->kv, rings);
            s->length = before;
            b->buf_copy(b, s->h, 0, h, 0, row);
            s->has_h = had_h;
        }
    }
    b->buf_free(b, h);
    pm_kv_snapshot_free(rings);
    return status;
}

pymtp_status pm_session_rewind(pymtp_session *s, int64_t length, pymtp_error *err) {
    const pm_mark *k = mark_before(s, length);
    if (length == s->length || !length || (k && k->length == length) || pm_kv_can_rewind(s->kv, length)) {
        pm_session_fall_back(s, length);
        return PYMTP_OK;
    }
    return replay(s, length, err);
}

/* ---- life ---- */

static void session_release(pymtp_session *s) {
    pm_backend *b = s->model->backend;
    pm_request_free(&s->request);
    for (int i = 0; i < PM_SNAPSHOTS; i++) mark_free(s, &s->marks[i]);
    b->buf_free(b, s->h);
    pm_kv_free(s->kv);
    pm_free(s->tokens);
    pm_free(s);
}

pymtp_session *pymtp_session_new(pymtp_model *m, pymtp_error *err) {
    pm_clear(err);
    if (!m) {
        pm_fail(err, PYMTP_E_ARG, "model: expected a handle, found NULL");
        return NULL;
    }
    pymtp_session *s = pm_new(1, sizeof *s, "session", err);
    if (!s) return NULL;
    s->model = m;
    s->stats.size = sizeof s->stats;
    s->request.pending = s->request.stop_id = -1;
    pthread_mutex_lock(&m->lock);
    pymtp_status status = pm_kv_new(m->backend, &m->kv_shape, &s->kv, err);
    if (status == PYMTP_OK) status = m->backend->buf_new(m->backend, (size_t)m->config.width * sizeof(float), &s->h, err);
    if (status == PYMTP_OK) atomic_fetch_add(&m->guests, 1);
    else session_release(s);
    pthread_mutex_unlock(&m->lock);
    return status == PYMTP_OK ? s : NULL;
}

void pymtp_session_free(pymtp_session *s) {
    if (!s) return;
    pymtp_model *m = s->model;
    pthread_mutex_lock(&m->lock);
    session_release(s);
    pthread_mutex_unlock(&m->lock);
    atomic_fetch_sub(&m->guests, 1); /* last: at 0 another thread may close the model, and with it the lock */
}
