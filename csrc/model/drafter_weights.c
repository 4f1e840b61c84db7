/* drafter_weights.c - the tensors of a drafter, under whatever names. One walk; without a back end it only checks. */
#include "model/loader.h"
#include "model/names.h"

static const char *name_of(const pm_gguf *g, pm_drafter_part part) {
    const pm_gguf_tensor *t = pm_drafter_tensor(g, part);
    return t ? t->name : pm_drafter_tensor_name(part);
}

static int32_t head_dim_of(const pm_drafter_config *c, int32_t sliding) {
    for (int32_t i = 0; i < c->layers; i++)
        if (c->layer[i].sliding == sliding) return c->layer[i].head_dim;
    return 0;
}

static void load_ends(pm_loader *l, const pm_drafter_config *c, pm_drafter_weights *out) {
    out->pre = pm_loader_matrix(l, name_of(l->file, PM_PRE), 2 * (int64_t)c->target_width, c->width);
    out->post = pm_loader_matrix(l, name_of(l->file, PM_POST), c->width, c->target_width);
    out->output_norm = pm_loader_vector(l, "output_norm.weight", c->width);
    out->rope_sliding = pm_loader_rope(l, head_dim_of(c, 1), c->rope_base_swa);
    out->rope_global = pm_loader_rope_global(l, head_dim_of(c, 0), c->rope_base);
    if (c->clusters) {
        out->centroids = pm_loader_matrix(l, name_of(l->file, PM_CENTROIDS), c->width, c->clusters);
        out->ordering = pm_loader_ordering(l, pm_drafter_tensor(l->file, PM_ORDERING), c->vocab);
    }
    out->head = pm_loader_ordered(l, "token_embd.weight", c->width, c->vocab, out->ordering);
}

static void load_layer(pm_loader *l, const pm_drafter_config *c, int32_t i, const pm_drafter_weights *net, pm_layer_weights *out) {
    const pm_layer_config *y = &c->layer[i];
    pm_loader_layer(l, i, y, c->width, (int64_t)y->heads * y->head_dim, "attn_q.weight", out);
    out->qkv.rope = y->sliding ? &net->rope_sliding : &net->rope_global;
}

pymtp_status pm_drafter_weights_check(const pm_gguf *g, const pm_drafter_config *c, pymtp_error *err) {
    pm_loader l = {.file = g, .err = err};
    pm_drafter_weights out = {0};
    load_ends(&l, c, &out);
    for (int32_t i = 0; i < c->layers; i++) load_layer(&l, c, i, &out, &(pm_layer_weights){0});
    return l.status;
}

pymtp_status pm_drafter_weights_load(pm_backend *b, const pm_gguf *g, const pm_drafter_config *c, pm_drafter_weights *out,
                                     pymtp_error *err) {
    pm_loader l = {.backend = b, .file = g, .err = err};
    *out = (pm_drafter_weights){.backend = b, .layers = c->layers};
    out->layer = pm_loader_memory(&l, (size_t)c->layers, sizeof *out->layer, "layers");
    load_ends(&l, c, out);
    for (int32_t i = 0; i < c->layers && l.status == PYMTP_OK; i++) load_layer(&l, c, i, out, &out->layer[i]);
    out->owned = l.owned;
    out->bytes = l.bytes;
    if (l.status != PYMTP_OK) pm_drafter_weights_free(out);
    return l.status;
}

void pm_drafter_weights_free(pm_drafter_weights *w) {
    if (w->backend) pm_owned_free(w->backend, w->owned);
    *w = (pm_drafter_weights){0};
}
