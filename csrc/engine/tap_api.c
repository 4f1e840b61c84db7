/* tap_api.c - pymtp_tap_*: a model's tap (base/tap.h), which its back end feeds, through the public header. */
#include "engine/model.h"

pymtp_status pymtp_tap_start(pymtp_model *m, pymtp_error *err) {
    pm_clear(err);
    if (!m) return pm_fail(err, PYMTP_E_ARG, "model: expected a handle, found NULL");
    if (m->has_drafter) return pm_fail(err, PYMTP_E_STATE, "a tap counts one network: open the model without its drafter");
    pm_tap *tap = pm_tap_new(err);
    if (!tap) return PYMTP_E_NOMEM;
    pthread_mutex_lock(&m->lock);
    pm_tap_free(m->backend->tap);
    m->backend->tap = tap;
    pthread_mutex_unlock(&m->lock);
    return PYMTP_OK;
}

void pymtp_tap_stop(pymtp_model *m) {
    if (!m) return;
    pthread_mutex_lock(&m->lock);
    pm_tap_free(m->backend->tap);
    m->backend->tap = NULL;
    pthread_mutex_unlock(&m->lock);
}

int64_t pymtp_tap_count(pymtp_model *m, pymtp_error *err) {
    pm_clear(err);
    if (!m) return pm_fail(err, PYMTP_E_ARG, "model: expected a handle, found NULL");
    pthread_mutex_lock(&m->lock);
    const pm_tap *tap = m->backend->tap;
    const pymtp_status status = tap ? pm_tap_status(tap, err) : pm_fail(err, PYMTP_E_STATE, "the model has no tap");
    const int64_t n = status == PYMTP_OK ? (int64_t)pm_tap_count(tap) : status;
    pthread_mutex_unlock(&m->lock);
    return n;
}

pymtp_status pymtp_tap_get(pymtp_model *m, size_t i, pymtp_tap_sums *out) {
    if (!m || !out || out->size != sizeof *out) return PYMTP_E_ARG;
    pthread_mutex_lock(&m->lock);
    const pm_tap_sums *s = m->backend->tap ? pm_tap_at(m->backend->tap, i) : NULL;
    if (s) *out = (pymtp_tap_sums){.size = sizeof *out, .name = s->name, .matrices = s->matrices, .cols = s->cols, .sums = s->sums, .rows = s->rows};
    pthread_mutex_unlock(&m->lock);
    return s ? PYMTP_OK : PYMTP_E_ARG;
}
