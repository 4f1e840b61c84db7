/* config.c - the hyper-parameters of a target. Refused: everything but architecture "gemma4", drafters, numbers that are
 * missing, out of range or at odds with each other, and (through pm_weights_check) tensors that do not fit them. After
 * pm_config_read the sizes are those of tensors that lie in the file, so buffers derived from them are bounded by it. */
#include "model/config.h"
#include "model/keys.h"
#include "model/loader.h"
#include "model/names.h"

#include <string.h>

#define MAX_HEAD_DIM (1 << 14)
#define MAX_EXPERTS 4096

static pymtp_status check_architecture(const pm_gguf *g, pymtp_error *err) {
    const char *arch;
    PM_TRY(pm_keys_architecture(g, &arch, err));
    if (pm_file_is_drafter(g))
        return pm_fail(err, PYMTP_E_MISMATCH, "%.300s: expected a target ('" PM_ARCH "' with a text network), found a drafter ('%.60s')",
                       pm_gguf_path(g), arch);
    if (strcmp(arch, PM_ARCH))
        return pm_fail(err, PYMTP_E_UNSUPPORTED, "%.300s: key 'general.architecture': expected '" PM_ARCH "', found '%.60s'", pm_gguf_path(g), arch);
    return PYMTP_OK;
}

/* A shape of the file where the metadata is silent or must agree: dimension `dim` of a tensor, 0 if there is no such tensor
 * (or it is beyond any size accepted, which the check of the weights will tell). */
static int32_t tensor_dim(const pm_gguf *g, const char *name, int dim) {
    const pm_gguf_tensor *t = pm_gguf_tensor_find(g, name);
    return t && t->dims[dim] <= PM_MAX_SIZE ? (int32_t)t->dims[dim] : 0;
}

/* ---- sizes ---- */

static pymtp_status read_sizes(pm_keys *k, pm_config *c) {
    PM_TRY(pm_keys_int(k, "block_count", PM_REQUIRED, 1, PM_MAX_LAYERS, &c->layers));
    PM_TRY(pm_keys_int(k, "context_length", PM_REQUIRED, 1, PM_MAX_SIZE, &c->context));
    PM_TRY(pm_keys_int(k, "embedding_length", PM_REQUIRED, 1, PM_MAX_SIZE, &c->width));
    double eps = 0, softcap = 0;
    PM_TRY(pm_keys_float(k, "attention.layer_norm_rms_epsilon", PM_REQUIRED, 1e-30, 1, &eps));
    PM_TRY(pm_keys_float(k, "final_logit_softcapping", PM_OPTIONAL, 0, 1e30, &softcap));
    c->eps = (float)eps;
    c->softcap = (float)softcap;
    const pm_gguf_tensor *t = pm_gguf_tensor_find(k->file, "token_embd.weight");
    if (!t) return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: tensor 'token_embd.weight': missing", pm_gguf_path(k->file));
    if (t->rows > PM_MAX_SIZE)
        return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: tensor 'token_embd.weight': expected at most %d rows, found %llu", pm_gguf_path(k->file),
                       PM_MAX_SIZE, (unsigned long long)t->rows);
    c->vocab = (int32_t)t->rows;
    return PYMTP_OK;
}

static pymtp_status read_ple(pm_keys *k, pm_config *c) {
    c->ple = tensor_dim(k->file, "per_layer_proj_norm.weight", 0); /* where the key is missing */
    PM_TRY(pm_keys_int(k, "embedding_length_per_layer_input", PM_OPTIONAL, 0, PM_MAX_SIZE, &c->ple));
    if ((int64_t)c->layers * c->ple > PM_MAX_SIZE)
        return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s': expected at most %d over all layers, found %d x %d", pm_gguf_path(k->file), k->full,
                       PM_MAX_SIZE, c->layers, c->ple);
    if (!c->ple && pm_gguf_tensor_find(k->file, "per_layer_token_embd.weight"))
        return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s': expected the width of tensor 'per_layer_token_embd.weight', found 0",
                       pm_gguf_path(k->file), k->full);
    return PYMTP_OK;
}

static pymtp_status read_experts(pm_keys *k, pm_config *c) {
    PM_TRY(pm_keys_int(k, "expert_count", PM_OPTIONAL, 0, MAX_EXPERTS, &c->experts));
    if (!c->experts) {
        if (!pm_gguf_tensor_find(k->file, "blk.0.ffn_gate_inp.weight")) return PYMTP_OK;
        return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s': expected the rows of tensor 'blk.0.ffn_gate_inp.weight', found no experts",
                       pm_gguf_path(k->file), k->full);
    }
    PM_TRY(pm_keys_int(k, "expert_used_count", PM_REQUIRED, 1, c->experts, &c->experts_used));
    c->expert_ff = tensor_dim(k->file, "blk.0.ffn_down_exps.weight", 0);
    PM_TRY(pm_keys_int(k, "expert_feed_forward_length", c->expert_ff ? PM_OPTIONAL : PM_REQUIRED, 1, PM_MAX_SIZE, &c->expert_ff));
    const int64_t most = c->width > 2 * c->expert_ff ? c->width : 2 * (int64_t)c->expert_ff;
    if (c->experts * most > INT32_MAX)
        return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s': expected at most %d rows over all experts, found %lld", pm_gguf_path(k->file), k->full,
                       INT32_MAX, (long long)(c->experts * most));
    return PYMTP_OK;
}

/* ---- layers ---- */

/* Head size of one kind of layer; a separate size for values has no Gemma 4. */
static pymtp_status read_head_dim(pm_keys *k, const char *key_name, const char *value_name, int32_t *out) {
    PM_TRY(pm_keys_int(k, key_name, PM_REQUIRED, 1, MAX_HEAD_DIM, out));
    if (*out % 16)
        return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s': expected a multiple of 16, found %d", pm_gguf_path(k->file), k->full, *out);
    return pm_keys_int(k, value_name, PM_OPTIONAL, *out, *out, &(int32_t){0});
}

static int any_layer(const pm_config *c, int32_t sliding) {
    for (int32_t l = 0; l < c->layers; l++)
        if (c->layer[l].sliding == sliding) return 1;
    return 0;
}

/* Positions, window and rotation of the kinds of layers that there are. Out: head size by kind, [1] sliding. */
static pymtp_status read_kinds(pm_keys *k, pm_config *c, int32_t head_dim[2]) {
    c->rope_base = 1e6;
    c->rope_base_swa = 1e4;
    c->window = c->context; /* nothing slides */
    if (any_layer(c, 0)) {
        PM_TRY(read_head_dim(k, "attention.key_length", "attention.value_length", &head_dim[0]));
        PM_TRY(pm_keys_rope(k, "rope.dimension_count", head_dim[0], &c->rope_dims, "rope.freq_base", &c->rope_base));
    }
    if (any_layer(c, 1)) {
        PM_TRY(read_head_dim(k, "attention.key_length_swa", "attention.value_length_swa", &head_dim[1]));
        PM_TRY(pm_keys_rope(k, "rope.dimension_count_swa", head_dim[1], &c->rope_dims_swa, "rope.freq_base_swa", &c->rope_base_swa));
        PM_TRY(pm_keys_int(k, "attention.sliding_window", PM_REQUIRED, 1, PM_MAX_SIZE, &c->window));
    }
    return PYMTP_OK;
}

/* Who reads whose keys and values, and which layers a drafter may read. */
static pymtp_status assign_kv(pm_keys *k, pm_config *c) {
    const int32_t first_shared = c->layers - c->shared_kv;
    int32_t last[2] = {-1, -1}; /* owning layer so far: global, sliding */
    for (int32_t l = 0; l < c->layers; l++) {
        pm_layer_config *y = &c->layer[l];
        if (l < first_shared) last[y->sliding] = l;
        y->kv_source = last[y->sliding];
        if (y->kv_source < 0)
            return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s.attention.shared_kv_layers': expected a %s layer with own keys below layer %d, found none",
                           pm_gguf_path(k->file), k->prefix, y->sliding ? "sliding" : "global", first_shared);
        y->kv_heads = c->layer[y->kv_source].kv_heads;
    }
    c->last_sliding = last[1];
    c->last_global = last[0];
    return PYMTP_OK;
}

static pymtp_status check_heads(pm_keys *k, const pm_config *c) {
    for (int32_t l = 0; l < c->layers; l++) {
        const pm_layer_config *y = &c->layer[l];
        if ((int64_t)y->heads * y->head_dim > PM_MAX_SIZE)
            return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s.attention.head_count': expected at most %d x head size, found %d x %d in layer %d",
                           pm_gguf_path(k->file), k->prefix, PM_MAX_SIZE, y->heads, y->head_dim, l);
        if (y->heads % y->kv_heads)
            return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s.attention.head_count_kv': expected a divisor of the %d heads, found %d in layer %d",
                           pm_gguf_path(k->file), k->prefix, y->heads, y->kv_heads, l);
    }
    return PYMTP_OK;
}

static pymtp_status read_layers(pm_keys *k, pm_config *c) {
    const int32_t n = c->layers;
    int32_t sliding[PM_MAX_LAYERS], heads[PM_MAX_LAYERS], kv_heads[PM_MAX_LAYERS], ff[PM_MAX_LAYERS], head_dim[2] = {0, 0};
    PM_TRY(pm_keys_pattern(k, PM_REQUIRED, n, sliding));
    PM_TRY(pm_keys_layers(k, "attention.head_count", PM_REQUIRED, n, 1, PM_MAX_SIZE, heads));
    memcpy(kv_heads, heads, sizeof heads);
    PM_TRY(pm_keys_layers(k, "attention.head_count_kv", PM_OPTIONAL, n, 1, PM_MAX_SIZE, kv_heads));
    PM_TRY(pm_keys_layers(k, "feed_forward_length", PM_REQUIRED, n, 1, PM_MAX_SIZE, ff));
    PM_TRY(pm_keys_int(k, "attention.shared_kv_layers", PM_OPTIONAL, 0, n - 1, &c->shared_kv));
    for (int32_t l = 0; l < n; l++)
        c->layer[l] = (pm_layer_config){.sliding = sliding[l], .heads = heads[l], .kv_heads = kv_heads[l], .ff = ff[l]};
    PM_TRY(read_kinds(k, c, head_dim));
    for (int32_t l = 0; l < n; l++) c->layer[l].head_dim = head_dim[sliding[l]];
    PM_TRY(assign_kv(k, c));
    return check_heads(k, c);
}

pymtp_status pm_config_read(const pm_gguf *g, pm_config *out, pymtp_error *err) {
    pm_keys k = {.file = g, .prefix = PM_ARCH, .err = err};
    memset(out, 0, sizeof *out);
    PM_TRY(check_architecture(g, err));
    PM_TRY(read_sizes(&k, out));
    PM_TRY(read_layers(&k, out));
    PM_TRY(read_ple(&k, out));
    PM_TRY(read_experts(&k, out));
    return pm_weights_check(g, out, err);
}
