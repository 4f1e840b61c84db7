/* model.c - opens and closes models: files, configuration, pair check, weights, networks. Everything that can be wrong with
 * the files is found here; what is open afterwards is consistent. */
#include "engine/model.h"
#include "base/checked.h"
#include "base/memory.h"
#include "base/cpucount.h"

#include <string.h>

/* ---- options ---- */

pymtp_status pm_model_options_read(const pymtp_model_options *given, pymtp_model_options *o, pymtp_error *err) {
    *o = (pymtp_model_options){.size = sizeof *o};
    if (given) {
        if (given->size != sizeof *o) /* grows at the end one day; today there is one layout */
            return pm_fail(err, PYMTP_E_ARG, "options.size: expected %zu, found %u", sizeof *o, given->size);
        *o = *given;
    }
    if (o->threads < 0 || o->threads > 256) return pm_fail(err, PYMTP_E_ARG, "threads: expected 0..256, found %d", o->threads);
    if (o->context < 0) return pm_fail(err, PYMTP_E_ARG, "context: expected 0 or more, found %lld", (long long)o->context);
    if (o->kv != PYMTP_KV_F16 && o->kv != PYMTP_KV_F32 && o->kv != PYMTP_KV_Q8_0)
        return pm_fail(err, PYMTP_E_ARG, "kv: expected 0 (f16), 1 (f32) or 2 (q8_0), found %d", o->kv);
    if (o->chunk < 0 || o->chunk > PM_MAX_CHUNK) return pm_fail(err, PYMTP_E_ARG, "chunk: expected 0..%d, found %d", PM_MAX_CHUNK, o->chunk);
    if (!o->threads) o->threads = pm_cpu_count();
    if (!o->chunk) o->chunk = PM_DEFAULT_CHUNK;
    return PYMTP_OK;
}

static char *name_of(const pm_gguf *g, pymtp_error *err) {
    pm_string text = {"", 0};
    const pm_gguf_value *v = pm_gguf_find(g, "general.name");
    if (v) pm_gguf_str(v, 0, &text);
    char *copy = pm_new(text.bytes + 1, 1, "model name", err);
    if (copy) memcpy(copy, text.data, text.bytes);
    return copy;
}

/* ---- checks before the weights are read ---- */

uint64_t pm_model_weight_bytes(const pm_backend *b, const pm_gguf *g) {
    static const char *const skipped[] = {"per_layer_token_embd.", "v.", "a.", "mm."};
    const int untied = pm_gguf_tensor_find(g, "output.weight") != NULL;
    uint64_t total = 0;
    for (size_t i = 0; i < pm_gguf_n_tensors(g); i++) {
        const pm_gguf_tensor *t = pm_gguf_tensor_at(g, i);
        int skip = untied && !strcmp(t->name, "token_embd.weight");
        for (size_t k = 0; k < sizeof skipped / sizeof *skipped; k++) skip |= !strncmp(t->name, skipped[k], strlen(skipped[k]));
        const uint64_t packed = skip || t->n_dims == 1 ? 0 : b->matrix_need(b, t), bytes = packed > t->bytes ? packed : t->bytes;
        if (!skip && pm_add_u64(total, bytes, &total)) return UINT64_MAX;
    }
    return total;
}

/* Refuses what cannot fit before reading gigabytes. */
static pymtp_status memory_check(const pm_backend *b, const pm_gguf *g, pymtp_error *err) {
    const uint64_t total = pm_model_weight_bytes(b, g);
    const size_t left = pm_memory_available();
    if (total > left)
        return pm_fail(err, PYMTP_E_NOMEM, "%s: its weights need %llu MiB of memory, %zu MiB are available", pm_gguf_path(g),
                       (unsigned long long)(total >> 20), left >> 20);
    return PYMTP_OK;
}

/* Drafts are token ids of the target: where the drafter's file carries a vocabulary it must be the same. */
static pymtp_status vocabulary_check(const pm_gguf *target, const pm_gguf *drafter, pymtp_error *err) {
    const char *key = "tokenizer.ggml.tokens";
    const pm_gguf_value *a = pm_gguf_find(target, key), *b = pm_gguf_find(drafter, key);
    if (!a || !b) return PYMTP_OK;
    const uint64_t n = pm_gguf_value_count(a);
    if (pm_gguf_value_count(b) != n)
        return pm_fail(err, PYMTP_E_MISMATCH, "%s: %s: expected the target's %llu tokens, found %llu", pm_gguf_path(drafter), key,
                       (unsigned long long)n, (unsigned long long)pm_gguf_value_count(b));
    for (uint64_t i = 0; i < n; i++) {
        pm_string x, y;
        if (!pm_gguf_str(a, i, &x) || !pm_gguf_str(b, i, &y) || x.bytes != y.bytes || memcmp(x.data, y.data, x.bytes))
            return pm_fail(err, PYMTP_E_MISMATCH, "%s: %s: token %llu is not the target's: another vocabulary", pm_gguf_path(drafter), key,
                           (unsigned long long)i);
    }
    return PYMTP_OK;
}

/* ---- opening ---- */

static pymtp_status open_target_file(pymtp_model *m, const char *path, pymtp_error *err) {
    PM_TRY(pm_gguf_open(path, &m->file, err));
    PM_TRY(pm_config_read(m->file, &m->config, err));
    PM_TRY(pm_tokenizer_new(m->file, &m->tokenizer, err));
    if (pymtp_tokenizer_size(m->tokenizer) != m->config.vocab)
        return pm_fail(err, PYMTP_E_FORMAT, "%s: tokenizer.ggml.tokens: expected %d tokens (rows of token_embd.weight), found %d", path,
                       m->config.vocab, pymtp_tokenizer_size(m->tokenizer));
    m->name = name_of(m->file, err);
    return m->name ? PYMTP_OK : PYMTP_E_NOMEM;
}

static pymtp_status open_drafter_file(pymtp_model *m, const char *path, pymtp_error *err) {
    PM_TRY(pm_gguf_open(path, &m->drafter_file, err));
    PM_TRY(pm_drafter_config_read(m->drafter_file, &m->config, &m->drafter_config, err));
    PM_TRY(vocabulary_check(m->file, m->drafter_file, err));
    if (!(m->drafter_name = name_of(m->drafter_file, err))) return PYMTP_E_NOMEM;
    m->has_drafter = 1;
    return PYMTP_OK;
}

pymtp_status pm_model_shape(pymtp_model *m, const pymtp_model_options *o, pymtp_error *err) {
    const pm_config *c = &m->config;
    if (o->context > c->context)
        return pm_fail(err, PYMTP_E_ARG, "context: the model has at most %d positions, found %lld", c->context, (long long)o->context);
    m->context = o->context ? (int32_t)o->context : c->context;
    m->kv_type = o->kv;
    m->chunk = o->chunk;
    m->threads = o->threads;
    m->kv_layers = pm_new((size_t)c->layers, sizeof *m->kv_layers, "cache shape", err);
    if (!m->kv_layers) return PYMTP_E_NOMEM;
    for (int32_t l = 0; l < c->layers; l++)
        if (c->layer[l].kv_source == l)
            m->kv_layers[l] = (pm_kv_layer_shape){c->layer[l].kv_heads, c->layer[l].head_dim, c->layer[l].sliding};
    m->kv_shape = (pm_kv_shape){.layers = c->layers, .layer = m->kv_layers, .window = c->window, .context = m->context,
                                .max_rows = m->chunk > PM_ROUND_ROWS ? m->chunk : PM_ROUND_ROWS, .type = m->kv_type};
    return PYMTP_OK;
}

int32_t pm_model_limits(const pymtp_model *m, pm_limits *limits) {
    const int32_t shared_rows = PM_PASS_SESSIONS * PM_ROUND_ROWS, rows = m->chunk > shared_rows ? m->chunk : shared_rows;
    *limits = (pm_limits){0};
    pm_target_limits(&m->config, rows, limits);
    if (m->has_drafter) pm_drafter_limits(&m->drafter_config, PM_PASS_SESSIONS, limits);
    return rows;
}

static pymtp_status open_networks(pymtp_model *m, pymtp_error *err) {
    pm_limits limits;
    const int32_t rows = pm_model_limits(m, &limits);
    PM_TRY(m->backend->prepare(m->backend, &limits, err));
    PM_TRY(pm_weights_load(m->backend, m->file, &m->config, &m->weights, err));
    PM_TRY(pm_target_init(&m->target, m->backend, &m->config, &m->weights, rows, PM_PASS_SESSIONS, err));
    if (!m->has_drafter) return PYMTP_OK;
    PM_TRY(pm_drafter_weights_load(m->backend, m->drafter_file, &m->drafter_config, &m->drafter_weights, err));
    return pm_drafter_init(&m->drafter, m->backend, &m->drafter_config, &m->drafter_weights, m->weights.embed, PM_PASS_SESSIONS, err);
}

static pymtp_status open_scratch(pymtp_model *m, pymtp_error *err) {
    const size_t rows = (size_t)m->target.max_rows, width = m->has_drafter ? (size_t)m->drafter.max_width : 1;
    pm_controller_init(&m->controller);
    m->row_ids = pm_new(3 * rows, sizeof *m->row_ids, "rows of a step", err);
    m->row_want = pm_new(rows, sizeof *m->row_want, "rows of a step", err);
    m->top_ids = pm_new(rows * PM_HEAD_TOP, sizeof *m->top_ids, "best logits of a step", err);
    m->scores = pm_new(width, sizeof *m->scores, "draft logits", err);
    m->candidates = pm_new(width, sizeof *m->candidates, "draft candidates", err);
    return m->row_ids && m->row_want && m->top_ids && m->scores && m->candidates ? PYMTP_OK : PYMTP_E_NOMEM;
}

static pymtp_status open_model(pymtp_model *m, const char *path, const pymtp_model_options *o, pymtp_error *err) {
    PM_TRY(open_target_file(m, path, err));
    if (o->drafter) PM_TRY(open_drafter_file(m, o->drafter, err));
    PM_TRY(pm_model_shape(m, o, err));
    PM_TRY(pm_backend_cpu_open(o->threads, &m->backend, err));
    PM_TRY(memory_check(m->backend, m->file, err));
    if (o->drafter) PM_TRY(memory_check(m->backend, m->drafter_file, err));
    PM_TRY(open_networks(m, err));
    return open_scratch(m, err);
}

static void release(pymtp_model *m) {
    pm_drafter_free(&m->drafter);
    pm_target_free(&m->target);
    pm_drafter_weights_free(&m->drafter_weights);
    pm_weights_free(&m->weights);
    if (m->backend) {
        pm_tap_free(m->backend->tap);
        m->backend->close(m->backend);
    }
    pm_free(m->logits);
    pm_free(m->top_ids);
    pm_free(m->scores);
    pm_free(m->candidates);
    pm_free(m->row_ids);
    pm_free(m->row_want);
    pm_free(m->kv_layers);
    pm_tokenizer_free(m->tokenizer);
    pm_gguf_close(m->drafter_file);
    pm_gguf_close(m->file);
    pm_free(m->name);
    pm_free(m->drafter_name);
    pthread_mutex_destroy(&m->lock);
    pm_free(m);
}

static pymtp_model *model_new(pymtp_error *err) {
    pymtp_model *m = pm_new(1, sizeof *m, "model", err);
    if (m && pthread_mutex_init(&m->lock, NULL)) {
        pm_fail(err, PYMTP_E_SYSTEM, "cannot create a lock");
        pm_free(m);
        return NULL;
    }
    return m;
}

pymtp_status pymtp_pair_check(const char *target, const char *drafter, pymtp_error *err) {
    pm_clear(err);
    pymtp_model *m = model_new(err);
    if (!m) return PYMTP_E_NOMEM;
    pymtp_status status = open_target_file(m, target, err);
    if (status == PYMTP_OK && drafter) status = open_drafter_file(m, drafter, err);
    release(m);
    return status;
}

pymtp_model *pymtp_model_open(const char *path, const pymtp_model_options *options, pymtp_error *err) {
    pm_clear(err);
    pymtp_model_options o;
    if (pm_model_options_read(options, &o, err) != PYMTP_OK) return NULL;
    pymtp_model *m = model_new(err);
    if (!m) return NULL;
    if (open_model(m, path, &o, err) != PYMTP_OK) {
        release(m);
        return NULL;
    }
    return m;
}

pymtp_status pymtp_model_close(pymtp_model *m, pymtp_error *err) {
    pm_clear(err);
    if (!m) return PYMTP_OK;
    const int guests = atomic_load(&m->guests);
    if (guests) return pm_fail(err, PYMTP_E_STATE, "the model still has %d open sessions or snapshots", guests);
    release(m);
    return PYMTP_OK;
}

/* ---- information ---- */

/* The head size of the first layer of a kind; 0 when there is none. */
static int32_t head_dim_of(const pm_config *c, int32_t sliding) {
    for (int32_t l = 0; l < c->layers; l++)
        if (c->layer[l].sliding == sliding) return c->layer[l].head_dim;
    return 0;
}

pymtp_status pymtp_model_get_info(const pymtp_model *m, pymtp_model_info *out) {
    if (!m || !out || out->size != sizeof *out) return PYMTP_E_ARG;
    const pm_config *c = &m->config;
    *out = (pymtp_model_info){
        .size = sizeof *out, .vocab = c->vocab, .width = c->width, .layers = c->layers, .heads = c->layer[0].heads,
        .window = c->window, .context = m->context, .shared_kv_layers = c->shared_kv, .ple_width = c->ple, .experts = c->experts,
        .experts_used = c->experts_used, .head_dim = head_dim_of(c, 1), .head_dim_global = head_dim_of(c, 0), .threads = m->threads,
        .kv = m->kv_type, .chunk = m->chunk, .weight_bytes = m->weights.bytes, .name = m->name, .cpu = m->backend->isa, .drafter_name = ""};
    if (m->has_drafter) {
        const pm_drafter_config *d = &m->drafter_config;
        out->drafter_layers = d->layers;
        out->drafter_width = d->width;
        out->drafter_centroids = d->clusters;
        out->drafter_centroid_top_k = d->clusters ? d->top : 0;
        out->weight_bytes += m->drafter_weights.bytes;
        out->drafter_name = m->drafter_name;
    }
    pm_kv_sizes(&m->kv_shape, &out->kv_bytes_per_position, &out->kv_bytes_fixed, &out->snapshot_bytes);
    return PYMTP_OK;
}

pymtp_status pymtp_model_get_counters(pymtp_model *m, pymtp_counters *out) {
    if (!m || !out || out->size != sizeof *out) return PYMTP_E_ARG;
    pthread_mutex_lock(&m->lock);
    *out = m->backend->work;
    pthread_mutex_unlock(&m->lock);
    out->size = sizeof *out;
    return PYMTP_OK;
}

const pymtp_tokenizer *pymtp_model_tokenizer(const pymtp_model *m) { return m ? m->tokenizer : NULL; }
