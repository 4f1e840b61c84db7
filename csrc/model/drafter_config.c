/* drafter_config.c - the hyper-parameters of a drafter and whether it belongs to the target.
 *
 * Dialects differ in keys as in names, so numbers come from tensor shapes; keys are read where shapes cannot tell, default to
 * the target's, and must agree where they are there. What the target decides (width, vocabulary, head sizes, grouping,
 * window) is checked against it: PYMTP_E_MISMATCH. */
#include "model/config.h"
#include "model/keys.h"
#include "model/loader.h"
#include "model/names.h"

#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define DEFAULT_TOP 32 /* clusters searched; of the published drafters */

typedef struct reader {
    pm_keys k;
    const pm_config *target;
    pm_drafter_config *c;
} reader;

static pymtp_status check_architecture(const pm_gguf *g, const char **arch, pymtp_error *err) {
    PM_TRY(pm_keys_architecture(g, arch, err));
    if (pm_is_drafter_arch(*arch) || pm_file_is_drafter(g)) return PYMTP_OK;
    if (!strcmp(*arch, PM_ARCH))
        return pm_fail(err, PYMTP_E_MISMATCH, "%.300s: expected a drafter (with tensor '%s'), found a target ('%.60s')", pm_gguf_path(g),
                       pm_drafter_tensor_name(PM_PRE), *arch);
    return pm_fail(err, PYMTP_E_UNSUPPORTED,
                   "%.300s: key 'general.architecture': expected 'gemma4-assistant', 'gemma4_assistant', 'gemma4_mtp' or '" PM_ARCH "', found '%.60s'",
                   pm_gguf_path(g), *arch);
}

/* ---- errors ---- */

static pymtp_status bad_tensor(const reader *r, pymtp_status code, const char *name, const char *what, int64_t expected, uint64_t found) {
    return pm_fail(r->k.err, code, "%.300s: tensor '%.120s': expected %lld %s, found %llu", pm_gguf_path(r->k.file), name, (long long)expected, what,
                   (unsigned long long)found);
}

/* The key looked up last, against the target. */
static pymtp_status bad_pair(const reader *r, const char *what, int32_t expected, int32_t found) {
    return pm_fail(r->k.err, PYMTP_E_MISMATCH, "%.300s: key '%s': expected %d, the target's %s, found %d", pm_gguf_path(r->k.file), r->k.full, expected,
                   what, found);
}

static const pm_gguf_tensor *need(const reader *r, const char *name, pymtp_status *status) {
    const pm_gguf_tensor *t = pm_gguf_tensor_find(r->k.file, name);
    if (!t) *status = pm_fail(r->k.err, PYMTP_E_FORMAT, "%.300s: tensor '%.120s': missing", pm_gguf_path(r->k.file), name);
    return t;
}

/* ---- sizes ---- */

static pymtp_status read_sizes(reader *r) {
    static const char *const width_keys[] = {"embedding_length_out", "n_embd_backbone", "backbone_hidden_size", "assistant.backbone_hidden_size"};
    pm_drafter_config *c = r->c;
    const pm_config *target = r->target;
    const pm_gguf_tensor *pre = pm_drafter_tensor(r->k.file, PM_PRE);
    pymtp_status status = PYMTP_OK;
    if (!pre) return pm_fail(r->k.err, PYMTP_E_FORMAT, "%.300s: tensor '%s': missing", pm_gguf_path(r->k.file), pm_drafter_tensor_name(PM_PRE));
    int32_t given = target->width;
    PM_TRY(pm_keys_int_of(&r->k, width_keys, COUNT(width_keys), 1, PM_MAX_SIZE, &given));
    if (given != target->width) return bad_pair(r, "width", target->width, given);
    if (pre->dims[0] != 2 * (uint64_t)target->width)
        return bad_tensor(r, PYMTP_E_MISMATCH, pre->name, "values a row, twice the target's width", 2 * (int64_t)target->width, pre->dims[0]);
    if (pre->rows > PM_MAX_SIZE) return bad_tensor(r, PYMTP_E_FORMAT, pre->name, "rows at most", PM_MAX_SIZE, pre->rows);
    c->target_width = target->width;
    c->width = (int32_t)pre->rows;
    PM_TRY(pm_keys_int(&r->k, "embedding_length", PM_OPTIONAL, c->width, c->width, &given));

    const pm_gguf_tensor *embd = need(r, "token_embd.weight", &status);
    PM_TRY(status);
    if (embd->rows != (uint64_t)target->vocab)
        return bad_tensor(r, PYMTP_E_MISMATCH, embd->name, "rows, the target's vocabulary", target->vocab, embd->rows);
    c->vocab = target->vocab;
    return PYMTP_OK;
}

static pymtp_status read_numbers(reader *r) {
    pm_drafter_config *c = r->c;
    double eps = r->target->eps;
    pm_string s;
    const pm_gguf_value *v = pm_keys_find(&r->k, "requires_target_arch");
    if (v && !(pm_gguf_str(v, 0, &s) && !strcmp(s.data, PM_ARCH))) {
        char found[64];
        pm_gguf_json(v, 4, found, sizeof found);
        return pm_fail(r->k.err, PYMTP_E_MISMATCH, "%.300s: key '%s': expected \"" PM_ARCH "\", found %s", pm_gguf_path(r->k.file), r->k.full, found);
    }
    PM_TRY(pm_keys_float(&r->k, "attention.layer_norm_rms_epsilon", PM_OPTIONAL, 1e-30, 1, &eps));
    c->eps = (float)eps;
    c->window = r->target->window;
    PM_TRY(pm_keys_int(&r->k, "attention.sliding_window", PM_OPTIONAL, 1, PM_MAX_SIZE, &c->window));
    if (r->target->last_sliding >= 0 && c->window != r->target->window) return bad_pair(r, "window", r->target->window, c->window);
    char name[48];
    while (c->layers < PM_MAX_LAYERS) { /* where no key says how many */
        snprintf(name, sizeof name, "blk.%d.attn_q.weight", c->layers);
        if (!pm_gguf_tensor_find(r->k.file, name)) break;
        c->layers++;
    }
    return pm_keys_int(&r->k, "block_count", c->layers ? PM_OPTIONAL : PM_REQUIRED, 1, PM_MAX_LAYERS, &c->layers);
}

/* ---- layers ---- */

/* One layer from its tensors and the layer of the target that it reads. */
static pymtp_status read_layer(reader *r, int32_t i) {
    pm_layer_config *y = &r->c->layer[i];
    const int32_t source = y->sliding ? r->target->last_sliding : r->target->last_global;
    const char *kind = y->sliding ? "sliding" : "global";
    char name[48];
    pymtp_status status = PYMTP_OK;
    if (source < 0)
        return pm_fail(r->k.err, PYMTP_E_MISMATCH, "%.300s: key '%s.attention.sliding_window_pattern': expected layers of the target's kinds, found a %s layer %d",
                       pm_gguf_path(r->k.file), r->k.prefix, kind, i);
    const pm_layer_config *donor = &r->target->layer[source];
    y->kv_source = source;
    y->kv_heads = donor->kv_heads;
    y->head_dim = donor->head_dim;

    snprintf(name, sizeof name, "blk.%d.attn_q_norm.weight", i);
    const pm_gguf_tensor *norm = need(r, name, &status);
    PM_TRY(status);
    if (norm->dims[0] != (uint64_t)y->head_dim)
        return bad_tensor(r, PYMTP_E_MISMATCH, name, "values, the target's head size", y->head_dim, norm->dims[0]);
    snprintf(name, sizeof name, "blk.%d.attn_q.weight", i);
    const pm_gguf_tensor *q = need(r, name, &status);
    PM_TRY(status);
    if (q->rows > PM_MAX_SIZE || q->rows % (uint64_t)y->head_dim)
        return pm_fail(r->k.err, PYMTP_E_FORMAT, "%.300s: tensor '%s': expected a multiple of %d rows, at most %d, found %llu", pm_gguf_path(r->k.file), name,
                       y->head_dim, PM_MAX_SIZE, (unsigned long long)q->rows);
    y->heads = (int32_t)q->rows / y->head_dim;
    if (y->heads % y->kv_heads)
        return bad_tensor(r, PYMTP_E_MISMATCH, name, "heads or a multiple, the target's KV heads", y->kv_heads, (uint64_t)y->heads);
    snprintf(name, sizeof name, "blk.%d.ffn_gate.weight", i);
    const pm_gguf_tensor *gate = need(r, name, &status);
    PM_TRY(status);
    if (gate->rows > PM_MAX_SIZE) return bad_tensor(r, PYMTP_E_FORMAT, name, "rows at most", PM_MAX_SIZE, gate->rows);
    y->ff = (int32_t)gate->rows;
    return PYMTP_OK;
}

/* KV heads are the target's, whatever the file says; but what it says tells a drafter of another target, where shapes do not.
 * An array must agree layer by layer; a scalar, in which some converters lose the global layers, with one of them. */
static pymtp_status check_kv_heads(reader *r) {
    const int32_t n = r->c->layers;
    const pm_gguf_value *v = pm_keys_find(&r->k, "attention.head_count_kv");
    int32_t given[PM_MAX_LAYERS], wrong = -1, agreeing = 0;
    if (!v) return PYMTP_OK;
    PM_TRY(pm_keys_layers(&r->k, "attention.head_count_kv", PM_OPTIONAL, n, 1, PM_MAX_SIZE, given));
    for (int32_t i = 0; i < n; i++) {
        if (given[i] == r->c->layer[i].kv_heads) agreeing++;
        else if (wrong < 0) wrong = i;
    }
    if (wrong < 0 || (agreeing && !pm_gguf_value_is_array(v))) return PYMTP_OK;
    return bad_pair(r, "KV heads", r->c->layer[wrong].kv_heads, given[wrong]);
}

/* Keys that say again what shapes have told must agree with them. */
static pymtp_status check_layer_keys(reader *r) {
    const int32_t n = r->c->layers;
    int32_t heads[PM_MAX_LAYERS], ff[PM_MAX_LAYERS];
    for (int32_t i = 0; i < n; i++) {
        heads[i] = r->c->layer[i].heads;
        ff[i] = r->c->layer[i].ff;
    }
    PM_TRY(pm_keys_layers(&r->k, "attention.head_count", PM_OPTIONAL, n, 1, PM_MAX_SIZE, heads));
    for (int32_t i = 0; i < n; i++)
        if (heads[i] != r->c->layer[i].heads)
            return pm_fail(r->k.err, PYMTP_E_FORMAT, "%.300s: key '%s': expected %d heads by the shape of layer %d, found %d", pm_gguf_path(r->k.file),
                           r->k.full, r->c->layer[i].heads, i, heads[i]);
    PM_TRY(pm_keys_layers(&r->k, "feed_forward_length", PM_OPTIONAL, n, 1, PM_MAX_SIZE, ff));
    for (int32_t i = 0; i < n; i++)
        if (ff[i] != r->c->layer[i].ff)
            return pm_fail(r->k.err, PYMTP_E_FORMAT, "%.300s: key '%s': expected %d by the shape of layer %d, found %d", pm_gguf_path(r->k.file), r->k.full,
                           r->c->layer[i].ff, i, ff[i]);
    return PYMTP_OK;
}

/* Head size and rotation of one kind of layer. */
static pymtp_status read_kind(reader *r, int32_t sliding, int32_t *dims, double *base) {
    const int32_t source = sliding ? r->target->last_sliding : r->target->last_global;
    static const char *const length[] = {"attention.key_length", "attention.key_length_swa"};
    if (source < 0) return PYMTP_OK;
    const int32_t head_dim = r->target->layer[source].head_dim;
    int32_t given = head_dim;
    PM_TRY(pm_keys_int(&r->k, length[sliding], PM_OPTIONAL, 1, PM_MAX_SIZE, &given));
    if (given != head_dim) return bad_pair(r, "head size", head_dim, given);
    return pm_keys_rope(&r->k, sliding ? "rope.dimension_count_swa" : "rope.dimension_count", head_dim, dims,
                        sliding ? "rope.freq_base_swa" : "rope.freq_base", base);
}

static pymtp_status read_layers(reader *r) {
    pm_drafter_config *c = r->c;
    int32_t sliding[PM_MAX_LAYERS];
    for (int32_t i = 0; i < c->layers; i++) sliding[i] = i + 1 < c->layers; /* as in all published drafters */
    PM_TRY(pm_keys_pattern(&r->k, PM_OPTIONAL, c->layers, sliding));
    c->rope_base = r->target->rope_base;
    c->rope_base_swa = r->target->rope_base_swa;
    PM_TRY(read_kind(r, 1, &c->rope_dims_swa, &c->rope_base_swa));
    PM_TRY(read_kind(r, 0, &c->rope_dims, &c->rope_base));
    for (int32_t i = 0; i < c->layers; i++) {
        c->layer[i].sliding = sliding[i];
        PM_TRY(read_layer(r, i));
    }
    PM_TRY(check_kv_heads(r));
    return check_layer_keys(r);
}

/* ---- centroid head ---- */

/* Used when its tensors are there, unless the file says not to: flags without tensors are common (llama.cpp's converter drops
 * them), and so are wrong counts. */
static pymtp_status read_centroids(reader *r) {
    static const char *const top_keys[] = {"centroid_top_k", "masked_embedding.top_k"};
    pm_drafter_config *c = r->c;
    const pm_gguf_tensor *centroids = pm_drafter_tensor(r->k.file, PM_CENTROIDS), *ordering = pm_drafter_tensor(r->k.file, PM_ORDERING);
    int32_t use = 1;
    PM_TRY(pm_keys_int(&r->k, "use_ordered_embeddings", PM_OPTIONAL, 0, 1, &use));
    if (!use || (!centroids && !ordering)) return PYMTP_OK;
    if (!centroids || !ordering)
        return pm_fail(r->k.err, PYMTP_E_FORMAT, "%.300s: tensor '%s': missing beside '%.120s'", pm_gguf_path(r->k.file),
                       pm_drafter_tensor_name(centroids ? PM_ORDERING : PM_CENTROIDS), (centroids ? centroids : ordering)->name);
    if (centroids->rows > (uint64_t)c->vocab || (uint64_t)c->vocab % centroids->rows)
        return pm_fail(r->k.err, PYMTP_E_FORMAT, "%.300s: tensor '%.120s': expected a number of clusters that divides the vocabulary of %d, found %llu",
                       pm_gguf_path(r->k.file), centroids->name, c->vocab, (unsigned long long)centroids->rows);
    c->clusters = (int32_t)centroids->rows;
    c->members = c->vocab / c->clusters;
    c->top = DEFAULT_TOP;
    PM_TRY(pm_keys_int_of(&r->k, top_keys, COUNT(top_keys), 1, PM_MAX_SIZE, &c->top));
    if (c->top > c->clusters) c->top = c->clusters;
    return PYMTP_OK;
}

pymtp_status pm_drafter_config_read(const pm_gguf *g, const pm_config *target, pm_drafter_config *out, pymtp_error *err) {
    reader r = {.k = {.file = g, .err = err}, .target = target, .c = out};
    memset(out, 0, sizeof *out);
    PM_TRY(check_architecture(g, &r.k.prefix, err));
    if (!strcmp(r.k.prefix, PM_ARCH)) r.k.other = PM_ARCH ".assistant";
    PM_TRY(read_sizes(&r));
    PM_TRY(read_numbers(&r));
    PM_TRY(read_layers(&r));
    PM_TRY(read_centroids(&r));
    return pm_drafter_weights_check(g, out, err);
}
