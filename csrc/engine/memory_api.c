/* memory_api.c - pymtp_memory_estimate: what an open model would hold, from configuration and shapes alone, by the functions that
 * open it. */
#include "base/checked.h"
#include "base/memory.h"
#include "engine/model.h"

/* ---- a back end that only counts what the networks ask for ---- */

typedef struct counter { pm_backend base; uint64_t bytes; } counter; /* base first: a pm_backend * is a counter * */

static pymtp_status count_new(pm_backend *b, size_t bytes, pm_buf **out, pymtp_error *err) {
    (void)err;
    ((counter *)(void *)b)->bytes += bytes;
    *out = NULL;
    return PYMTP_OK;
}

static void count_free(pm_backend *b, pm_buf *buf) {
    (void)b;
    (void)buf;
}

static pymtp_status activation_bytes(pymtp_model *m, uint64_t *out, pymtp_error *err) {
    counter count = {.base = {.buf_new = count_new, .buf_free = count_free}};
    pm_limits limits;
    const int32_t rows = pm_model_limits(m, &limits);
    PM_TRY(pm_backend_cpu_open(m->threads, &m->backend, err));
    PM_TRY(m->backend->scratch_bytes(m->backend, &limits, out, err));
    pymtp_status status = pm_target_init(&m->target, &count.base, &m->config, &m->weights, rows, PM_PASS_SESSIONS, err);
    if (status == PYMTP_OK && m->has_drafter)
        status = pm_drafter_init(&m->drafter, &count.base, &m->drafter_config, &m->drafter_weights, NULL, PM_PASS_SESSIONS, err);
    pm_drafter_free(&m->drafter);
    pm_target_free(&m->target);
    *out += count.bytes;
    return status;
}

/* ---- the estimate ---- */

static pymtp_status read_files(pymtp_model *m, const char *path, const pymtp_model_options *o, pymtp_error *err) {
    PM_TRY(pm_gguf_open(path, &m->file, err));
    PM_TRY(pm_config_read(m->file, &m->config, err));
    if (o->drafter) {
        PM_TRY(pm_gguf_open(o->drafter, &m->drafter_file, err));
        PM_TRY(pm_drafter_config_read(m->drafter_file, &m->config, &m->drafter_config, err));
        m->has_drafter = 1;
    }
    return pm_model_shape(m, o, err);
}

static pymtp_status estimate(pymtp_model *m, const char *path, const pymtp_model_options *o, pymtp_memory *out, pymtp_error *err) {
    PM_TRY(read_files(m, path, o, err));
    PM_TRY(activation_bytes(m, &out->activation_bytes, err));
    out->context = m->context;
    out->weight_bytes = pm_model_weight_bytes(m->backend, m->file);
    if (m->has_drafter && pm_add_u64(out->weight_bytes, pm_model_weight_bytes(m->backend, m->drafter_file), &out->weight_bytes))
        out->weight_bytes = UINT64_MAX;
    pm_kv_sizes(&m->kv_shape, &out->kv_bytes_per_position, &out->kv_bytes_fixed, &out->snapshot_bytes);
    const size_t left = pm_memory_available();
    out->available_bytes = left == SIZE_MAX ? UINT64_MAX : left;
    return PYMTP_OK;
}

pymtp_status pymtp_memory_estimate(const char *path, const pymtp_model_options *options, pymtp_memory *out, pymtp_error *err) {
    pm_clear(err);
    pymtp_model_options o;
    PM_TRY(pm_model_options_read(options, &o, err));
    if (!out || out->size != sizeof *out) return pm_fail(err, PYMTP_E_ARG, "out.size: expected %zu", sizeof *out);
    pymtp_model *m = pm_new(1, sizeof *m, "model", err);
    if (!m) return PYMTP_E_NOMEM;
    *out = (pymtp_memory){.size = sizeof *out};
    const pymtp_status status = estimate(m, path, &o, out, err);
    if (m->backend) m->backend->close(m->backend);
    pm_free(m->kv_layers);
    pm_gguf_close(m->drafter_file);
    pm_gguf_close(m->file);
    pm_free(m);
    return status;
}
