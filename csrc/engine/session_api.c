/* session_api.c - the public functions on sessions: check arguments, take the model's lock, call the engine. */
#include "engine/session.h"
#include "base/memory.h"

#include <string.h>

struct pymtp_snapshot {
    pymtp_model *model;
    int32_t *tokens; /* (length) */
    int64_t length;
    pm_kv_snapshot *rings;
    pm_buf *h;       /* (D) */
    int has_h;
};

#define CHECK_SESSION(s)                                                                               \
    do {                                                                                               \
        pm_clear(err);                                                                                 \
        if (!(s)) return pm_fail(err, PYMTP_E_ARG, "session: expected a handle, found NULL");          \
    } while (0)

static void lock(const pymtp_session *s) { pthread_mutex_lock(&s->model->lock); }
static void unlock(const pymtp_session *s) { pthread_mutex_unlock(&s->model->lock); }
static size_t hidden_bytes(const pymtp_model *m) { return (size_t)m->config.width * sizeof(float); }

/* ---- reading ---- */

int64_t pymtp_session_length(const pymtp_session *s) {
    if (!s) return 0;
    lock(s);
    const int64_t n = s->length;
    unlock(s);
    return n;
}

int64_t pymtp_session_tokens(const pymtp_session *s, int32_t *out, size_t cap) {
    if (!s) return 0;
    lock(s);
    const int64_t n = s->length;
    const size_t count = cap < (size_t)n ? cap : (size_t)n;
    if (out && count) memcpy(out, s->tokens, count * sizeof *out);
    unlock(s);
    return n;
}

pymtp_status pymtp_session_hidden(const pymtp_session *s, float *out, pymtp_error *err) {
    CHECK_SESSION(s);
    if (!out) return pm_fail(err, PYMTP_E_ARG, "out: expected an array, found NULL");
    lock(s);
    pymtp_status status = PYMTP_OK;
    if (!s->has_h || !s->length) status = pm_fail(err, PYMTP_E_STATE, "the hidden row of position %lld is not kept", (long long)s->length - 1);
    else s->model->backend->buf_read(s->model->backend, s->h, 0, out, hidden_bytes(s->model));
    unlock(s);
    return status;
}

int64_t pymtp_session_kv_bytes(const pymtp_session *s, int32_t layer, int64_t position, uint8_t *out, size_t cap) {
    if (!s) return PYMTP_E_ARG;
    lock(s);
    const pm_config *c = &s->model->config;
    const int known = layer >= 0 && layer < c->layers && c->layer[layer].kv_source == layer;
    /* Of sliding layers only what the next position sees: how much more a ring still holds depends on rejected drafts and chunks. */
    const int64_t first = known && c->layer[layer].sliding ? s->length - c->window + 1 : 0;
    const int64_t n = position < first ? -1 : pm_kv_read(s->kv, layer, position, s->length, out, cap);
    unlock(s);
    return n;
}

/* ---- computing ---- */

pymtp_status pymtp_session_forward(pymtp_session *s, const int32_t *ids, size_t n, int32_t want, float *logits, float *hidden,
                                   pymtp_error *err) {
    CHECK_SESSION(s);
    if (want < PYMTP_LOGITS_NONE || want > PYMTP_LOGITS_ALL) return pm_fail(err, PYMTP_E_ARG, "want: expected 0, 1 or 2, found %d", want);
    if (want != PYMTP_LOGITS_NONE && n && !logits) return pm_fail(err, PYMTP_E_ARG, "logits: expected an array, found NULL");
    if (n > (size_t)s->model->context)
        return pm_fail(err, PYMTP_E_CONTEXT, "the context holds %d tokens, %zu are given", s->model->context, n);
    PM_TRY(pm_ids_check(s->model, ids, n, "ids", err));
    lock(s);
    pymtp_status status = pm_session_reserve(s, s->length + (int64_t)n, err);
    if (status == PYMTP_OK) {
        pm_request_drop(s);
        status = pm_session_append(s, ids, (int64_t)n, want, logits, hidden, err);
        atomic_store(&s->cancelled, 0);
    }
    unlock(s);
    return status;
}

/* Greedy chain of n drafts; with logits also the whole rows, with hidden the rows that the head saw. */
static pymtp_status draft_chain(pymtp_session *s, size_t n, int32_t pending, int32_t *out, float *logits, float *hidden, pymtp_error *err) {
    pymtp_model *m = s->model;
    pm_backend *b = m->backend;
    pm_drafter *d = &m->drafter;
    const size_t width = (size_t)d->max_width, vocab = (size_t)m->config.vocab;
    const int32_t pos = (int32_t)s->length;
    b->buf_copy(b, d->h, 0, s->h, 0, hidden_bytes(m));
    for (size_t j = 0; j < n; j++) {
        const int32_t id = j ? out[j - 1] : pending;
        b->buf_write(b, d->ids, 0, &id, sizeof id);
        PM_TRY(pm_drafter_step(d, 1, &pos, &s->kv, logits ? 0 : 1, err));
        b->argmax(b, 1, d->width, d->scores, d->listed ? d->candidates : NULL, d->ids);
        b->buf_read(b, d->ids, 0, &out[j], sizeof *out);
        const size_t seen = (size_t)d->config->width;
        if (hidden) b->buf_read(b, d->hidden, 0, hidden + j * seen, seen * sizeof *hidden);
        if (!logits) continue;
        float *row = logits + j * vocab;
        if (!d->listed) {
            b->buf_read(b, d->scores, 0, row, vocab * sizeof(float));
            continue;
        }
        b->buf_read(b, d->scores, 0, m->scores, width * sizeof(float));
        b->buf_read(b, d->candidates, 0, m->candidates, width * sizeof(int32_t));
        float least = m->scores[0];
        for (size_t i = 1; i < width; i++) least = m->scores[i] < least ? m->scores[i] : least;
        for (size_t i = 0; i < vocab; i++) row[i] = least - 1;
        for (size_t i = 0; i < width; i++) row[m->candidates[i]] = m->scores[i];
    }
    return PYMTP_OK;
}

pymtp_status pymtp_session_draft(pymtp_session *s, size_t n, int32_t pending, int32_t *out_ids, float *logits, float *hidden,
                                 pymtp_error *err) {
    CHECK_SESSION(s);
    if (n && !out_ids) return pm_fail(err, PYMTP_E_ARG, "out_ids: expected an array, found NULL");
    if (n > (size_t)s->model->context) /* no token could stand there; and the chain ends by itself only */
        return pm_fail(err, PYMTP_E_ARG, "n: expected at most %d drafts, the context, found %zu", s->model->context, n);
    PM_TRY(pm_ids_check(s->model, &pending, 1, "pending", err));
    if (!s->model->has_drafter) return pm_fail(err, PYMTP_E_STATE, "the model was opened without a drafter");
    lock(s);
    pymtp_status status;
    if (!s->has_h || !s->length)
        status = pm_fail(err, PYMTP_E_STATE, "drafting needs the hidden row of position %lld, which is not kept", (long long)s->length - 1);
    else status = draft_chain(s, n, pending, out_ids, logits, hidden, err);
    unlock(s);
    return status;
}

pymtp_status pymtp_session_rewind(pymtp_session *s, int64_t length, pymtp_error *err) {
    CHECK_SESSION(s);
    lock(s);
    pymtp_status status = PYMTP_OK;
    if (length < 0 || length > s->length) {
        status = pm_fail(err, PYMTP_E_ARG, "rewind: expected a length from 0 to %lld, found %lld", (long long)s->length, (long long)length);
    } else {
        pm_request_drop(s);
        status = pm_session_rewind(s, length, err);
        atomic_store(&s->cancelled, 0);
    }
    unlock(s);
    return status;
}

pymtp_status pymtp_session_sync(pymtp_session *s, const int32_t *ids, size_t n, int64_t *kept, pymtp_error *err) {
    CHECK_SESSION(s);
    if ((n && !ids) || !kept) return pm_fail(err, PYMTP_E_ARG, "sync: expected arrays, found NULL");
    lock(s);
    pm_request_drop(s);
    const int64_t common = pm_common_prefix(s->tokens, s->length, ids, (int64_t)n);
    const pymtp_status status = pm_session_rewind(s, common, err);
    *kept = s->length;
    atomic_store(&s->cancelled, 0);
    unlock(s);
    return status;
}

/* ---- snapshots ---- */

static void snapshot_release(pymtp_snapshot *k) {
    pm_kv_snapshot_free(k->rings);
    k->model->backend->buf_free(k->model->backend, k->h);
    pm_free(k->tokens);
    pm_free(k);
}

static pymtp_status snapshot_take(const pymtp_session *s, pymtp_snapshot *k, pymtp_error *err) {
    pm_backend *b = s->model->backend;
    k->length = s->length;
    k->tokens = pm_new((size_t)s->length, sizeof *k->tokens, "snapshot", err);
    if (!k->tokens) return PYMTP_E_NOMEM;
    if (s->length) memcpy(k->tokens, s->tokens, (size_t)s->length * sizeof *k->tokens);
    PM_TRY(b->buf_new(b, hidden_bytes(s->model), &k->h, err));
    b->buf_copy(b, k->h, 0, s->h, 0, hidden_bytes(s->model));
    k->has_h = s->has_h;
    return pm_kv_snapshot_new(s->kv, s->length, &k->rings, err);
}

pymtp_snapshot *pymtp_session_snapshot(pymtp_session *s, pymtp_error *err) {
    pm_clear(err);
    if (!s) {
        pm_fail(err, PYMTP_E_ARG, "session: expected a handle, found NULL");
        return NULL;
    }
    pymtp_snapshot *k = pm_new(1, sizeof *k, "snapshot", err);
    if (!k) return NULL;
    k->model = s->model;
    lock(s);
    const pymtp_status status = snapshot_take(s, k, err);
    if (status == PYMTP_OK) atomic_fetch_add(&s->model->guests, 1);
    else snapshot_release(k);
    unlock(s);
    return status == PYMTP_OK ? k : NULL;
}

void pymtp_snapshot_free(pymtp_snapshot *k) {
    if (!k) return;
    pymtp_model *m = k->model;
    pthread_mutex_lock(&m->lock);
    snapshot_release(k);
    pthread_mutex_unlock(&m->lock);
    atomic_fetch_sub(&m->guests, 1); /* last: at 0 another thread may close the model, and with it the lock */
}

static pymtp_status restore(pymtp_session *s, const pymtp_snapshot *k, pymtp_error *err) {
    const int64_t common = pm_common_prefix(s->tokens, s->length, k->tokens, k->length);
    if (common == k->length) { /* the layers stored in full hold its rows; the rings may not */
        pm_session_go_to(s, k->length, k->rings, k->has_h ? k->h : NULL);
        return PYMTP_OK;
    }
    const int64_t from = pm_session_fall_back(s, common);
    PM_TRY(pm_session_append(s, k->tokens + from, k->length - from, PYMTP_LOGITS_NONE, NULL, NULL, err));
    s->stats.replayed += (uint64_t)(k->length - from);
    return PYMTP_OK;
}

pymtp_status pymtp_session_restore(pymtp_session *s, const pymtp_snapshot *snap, pymtp_error *err) {
    CHECK_SESSION(s);
    if (!snap) return pm_fail(err, PYMTP_E_ARG, "snapshot: expected a handle, found NULL");
    if (snap->model != s->model) return pm_fail(err, PYMTP_E_MISMATCH, "the snapshot was taken from another model");
    lock(s);
    pm_request_drop(s);
    const pymtp_status status = restore(s, snap, err);
    atomic_store(&s->cancelled, 0);
    unlock(s);
    return status;
}

/* ---- generation ---- */

pymtp_status pymtp_generate(pymtp_session *s, const int32_t *prompt, size_t n, const pymtp_params *params, pymtp_error *err) {
    CHECK_SESSION(s);
    lock(s);
    const pymtp_status status = pm_request_start(s, prompt, n, params, err);
    unlock(s);
    return status;
}

pymtp_status pymtp_step(pymtp_session *const *sessions, size_t n, pymtp_error *err) {
    pm_clear(err);
    if (!n) return PYMTP_OK;
    if (!sessions) return pm_fail(err, PYMTP_E_ARG, "sessions: expected %zu handles, found NULL", n);
    for (size_t i = 0; i < n; i++) {
        if (!sessions[i]) return pm_fail(err, PYMTP_E_ARG, "session %zu: expected a handle, found NULL", i);
        if (sessions[i]->model != sessions[0]->model)
            return pm_fail(err, PYMTP_E_MISMATCH, "session %zu belongs to another model than session 0", i);
        for (size_t k = 0; k < i; k++)
            if (sessions[k] == sessions[i]) return pm_fail(err, PYMTP_E_ARG, "session %zu is session %zu once more", i, k);
    }
    lock(sessions[0]);
    pymtp_status status = PYMTP_OK;
    for (size_t i = 0; i < n && status == PYMTP_OK; i++)
        if (!sessions[i]->request.active) status = pm_fail(err, PYMTP_E_STATE, "session %zu has no running request", i);
    if (status == PYMTP_OK) status = pm_step(sessions, n, err);
    unlock(sessions[0]);
    return status;
}

pymtp_status pymtp_session_output(const pymtp_session *s, pymtp_output *out) {
    if (!s || !out || out->size != sizeof *out) return PYMTP_E_ARG;
    lock(s);
    const pm_request *r = &s->request;
    *out = (pymtp_output){.size = sizeof *out, .finish = r->finish, .status = r->error.code, .stop_id = r->stop_id, .tokens = r->out,
                          .n_tokens = r->n_out, .text = "", .logprobs = r->logprobs, .error = r->error.text,
                          .n_drafted = r->n_accepted < r->n_out ? r->n_accepted : r->n_out};
    if (r->stop) out->text = pm_stop_text(r->stop, &out->n_text);
    unlock(s);
    return PYMTP_OK;
}

pymtp_status pymtp_session_stats(const pymtp_session *s, pymtp_stats *out) {
    if (!s || !out || out->size != sizeof *out) return PYMTP_E_ARG;
    lock(s);
    *out = s->stats;
    out->size = sizeof *out;
    unlock(s);
    return PYMTP_OK;
}

void pymtp_cancel(pymtp_session *s) {
    if (s) atomic_store(&s->cancelled, 1);
}
