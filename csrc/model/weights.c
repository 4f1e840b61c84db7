/* weights.c - the tensors of a target. One walk names them all; with a back end it loads, without it only checks. */
#include "model/weights.h"
#include "base/memory.h"
#include "model/loader.h"

typedef struct walk {
    pm_loader l;
    const pm_config *c;
    int32_t global_v; /* do global layers have attn_v: -1 not seen yet */
} walk;

/* ---- attention ---- */

/* Rows of the fused attn_qkv tensor: queries, keys and, unless values are the keys, values. Queries alone where the layer
 * owns no keys. */
static int64_t fused_rows(walk *w, int32_t i, int64_t q, int64_t kv) {
    const pm_layer_config *y = &w->c->layer[i];
    const char *name = pm_loader_name(&w->l, i, "attn_qkv.weight");
    const pm_gguf_tensor *t = pm_gguf_tensor_find(w->l.file, name);
    const uint64_t rows = t->dims[1];
    if (rows == (uint64_t)(q + 2 * kv) || (rows == (uint64_t)(q + kv) && !y->sliding) || (rows == (uint64_t)q && y->kv_source != i))
        return (int64_t)rows;
    pm_loader_fail(&w->l, PYMTP_E_FORMAT, name, "expected %lld rows, found %llu", (long long)(q + 2 * kv), (unsigned long long)rows);
    return q + 2 * kv;
}

/* Keys and values. In a Gemma 4 either every global layer takes its values from the keys or none does: one without attn_v among
 * others that have it lost a tensor. */
static void load_kv(walk *w, int32_t i, int fused, int64_t q, int64_t kv, int64_t total, pm_qkv *out) {
    pm_loader *l = &w->l;
    const pm_layer_config *y = &w->c->layer[i];
    const int32_t width = w->c->width;
    int has_v = fused ? total == q + 2 * kv : pm_loader_has(l, pm_loader_name(l, i, "attn_v.weight"));
    if (y->sliding) {
        has_v = 1;
    } else if (w->global_v < 0) {
        w->global_v = has_v;
    } else if (w->global_v != has_v) {
        pm_loader_fail(l, PYMTP_E_FORMAT, pm_loader_name(l, i, fused ? "attn_qkv.weight" : "attn_v.weight"),
                       "expected values %s in every global layer, found both kinds", w->global_v ? "of their own" : "taken from the keys");
    }
    out->k_norm = pm_loader_vector(l, pm_loader_name(l, i, "attn_k_norm.weight"), y->head_dim);
    if (fused) {
        out->wk = pm_loader_rows(l, pm_loader_name(l, i, "attn_qkv.weight"), width, total, q, kv);
        if (has_v) out->wv = pm_loader_rows(l, pm_loader_name(l, i, "attn_qkv.weight"), width, total, q + kv, kv);
        return;
    }
    out->wk = pm_loader_matrix(l, pm_loader_name(l, i, "attn_k.weight"), width, kv);
    if (has_v) out->wv = pm_loader_matrix(l, pm_loader_name(l, i, "attn_v.weight"), width, kv);
}

/* ---- feed-forward ---- */

static void load_moe(walk *w, int32_t i, pm_layer_weights *out) {
    pm_loader *l = &w->l;
    const int32_t d = w->c->width, n = w->c->experts, ff = w->c->expert_ff;
    pm_moe *m = &out->moe;
    *m = (pm_moe){.ffn_norm = out->ffn_norm, .gate = out->gate, .up = out->up, .down = out->down, .post_norm = out->post_ffn_norm,
                  .experts = n, .used = w->c->experts_used, .expert_ff = ff, .ff = w->c->layer[i].ff};
    out->gate = out->up = out->down = NULL;
    m->post_norm_1 = pm_loader_vector(l, pm_loader_name(l, i, "post_ffw_norm_1.weight"), d);
    m->pre_norm_2 = pm_loader_vector(l, pm_loader_name(l, i, "pre_ffw_norm_2.weight"), d);
    m->post_norm_2 = pm_loader_vector(l, pm_loader_name(l, i, "post_ffw_norm_2.weight"), d);
    m->router = pm_loader_matrix(l, pm_loader_name(l, i, "ffn_gate_inp.weight"), d, n);
    m->router_scale = pm_loader_vector(l, pm_loader_name(l, i, "ffn_gate_inp.scale"), d);
    m->expert_scale = pm_loader_vector(l, pm_loader_name(l, i, "ffn_down_exps.scale"), n);
    m->down_exps = pm_loader_experts(l, pm_loader_name(l, i, "ffn_down_exps.weight"), ff, d, n);
    if (pm_loader_has(l, pm_loader_name(l, i, "ffn_gate_exps.weight"))) {
        m->gate_exps = pm_loader_experts(l, pm_loader_name(l, i, "ffn_gate_exps.weight"), d, ff, n);
        m->up_exps = pm_loader_experts(l, pm_loader_name(l, i, "ffn_up_exps.weight"), d, ff, n);
    } else {
        m->gate_up_exps = pm_loader_experts(l, pm_loader_name(l, i, "ffn_gate_up_exps.weight"), d, 2 * (int64_t)ff, n);
    }
}

/* ---- the network ---- */

static void load_layer(walk *w, int32_t i, const pm_weights *net, pm_layer_weights *out) {
    pm_loader *l = &w->l;
    const pm_config *c = w->c;
    const pm_layer_config *y = &c->layer[i];
    const int64_t q = (int64_t)y->heads * y->head_dim, kv = (int64_t)y->kv_heads * y->head_dim;
    const int fused = !pm_loader_has(l, pm_loader_name(l, i, "attn_q.weight")) && pm_loader_has(l, pm_loader_name(l, i, "attn_qkv.weight"));
    const int64_t total = fused ? fused_rows(w, i, q, kv) : q;
    pm_loader_layer(l, i, y, c->width, total, fused ? "attn_qkv.weight" : "attn_q.weight", out);
    if (y->kv_source == i) load_kv(w, i, fused, q, kv, total, &out->qkv);
    out->qkv.rope = y->sliding ? &net->rope_sliding : &net->rope_global;
    if (c->experts) load_moe(w, i, out);
    if (!c->ple) return;
    out->ple_gate = pm_loader_matrix(l, pm_loader_name(l, i, "inp_gate.weight"), c->width, c->ple);
    out->ple_proj = pm_loader_matrix(l, pm_loader_name(l, i, "proj.weight"), c->ple, c->width);
    out->ple_post_norm = pm_loader_vector(l, pm_loader_name(l, i, "post_norm.weight"), c->width);
}

static int32_t head_dim_of(const pm_config *c, int32_t sliding) {
    for (int32_t i = 0; i < c->layers; i++)
        if (c->layer[i].sliding == sliding) return c->layer[i].head_dim;
    return 0;
}

/* All tensors but those of layers. */
static void load_ends(walk *w, pm_weights *out) {
    pm_loader *l = &w->l;
    const pm_config *c = w->c;
    out->embed = pm_loader_table(l, "token_embd.weight", c->width, c->vocab);
    out->output_norm = pm_loader_vector(l, "output_norm.weight", c->width);
    out->head = pm_loader_matrix(l, pm_loader_has(l, "output.weight") ? "output.weight" : "token_embd.weight", c->width, c->vocab);
    out->rope_sliding = pm_loader_rope(l, head_dim_of(c, 1), c->rope_base_swa);
    out->rope_global = pm_loader_rope_global(l, head_dim_of(c, 0), c->rope_base);
    if (!c->ple) return;
    const int64_t all = (int64_t)c->layers * c->ple;
    out->ple = (pm_ple_inputs){.layers = c->layers, .width = c->ple};
    out->ple.table = pm_loader_table(l, "per_layer_token_embd.weight", all, c->vocab);
    out->ple.proj = pm_loader_matrix(l, "per_layer_model_proj.weight", c->width, all);
    out->ple.norm = pm_loader_vector(l, "per_layer_proj_norm.weight", c->ple);
}

pymtp_status pm_weights_check(const pm_gguf *g, const pm_config *c, pymtp_error *err) {
    walk w = {.l = {.file = g, .err = err}, .c = c, .global_v = -1};
    pm_weights out = {0};
    load_ends(&w, &out);
    for (int32_t i = 0; i < c->layers; i++) load_layer(&w, i, &out, &(pm_layer_weights){0});
    return w.l.status;
}

pymtp_status pm_weights_load(pm_backend *b, const pm_gguf *g, const pm_config *c, pm_weights *out, pymtp_error *err) {
    walk w = {.l = {.backend = b, .file = g, .err = err}, .c = c, .global_v = -1};
    *out = (pm_weights){.backend = b, .file = g, .layers = c->layers};
    out->layer = pm_loader_memory(&w.l, (size_t)c->layers, sizeof *out->layer, "layers");
    load_ends(&w, out);
    for (int32_t i = 0; i < c->layers && w.l.status == PYMTP_OK; i++) load_layer(&w, i, out, &out->layer[i]);
    out->owned = w.l.owned;
    out->bytes = w.l.bytes;
    if (w.l.status != PYMTP_OK) pm_weights_free(out);
    return w.l.status;
}

void pm_weights_free(pm_weights *w) {
    if (w->backend) pm_owned_free(w->backend, w->owned);
    *w = (pm_weights){0};
}
