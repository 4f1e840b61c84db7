/* tool_weights.c - what the loader makes of a target and a drafter, over a back end that only stores.
 *   tool_weights TARGET [DRAFTER]          prints configuration and a digest of every weight, under neutral names: files
 *                                          that mean the same network print the same
 *   tool_weights --fail TARGET [DRAFTER]   lets each storage request fail in turn: all must be given back; prints "ok N"
 * Exit code 1 and "error CODE: text" when a file is refused. */
#include "model/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a back end that stores bytes and counts ---- */

struct pm_buf { size_t bytes; unsigned char *data; };
struct pm_matrix { size_t bytes, row_bytes; unsigned char *data; };
struct pm_table { const pm_gguf_tensor *tensor; };

static int live, requests, fail_at; /* fail_at: this request fails; 0: none */

static pymtp_status request(pymtp_error *err) {
    if (++requests == fail_at) return pm_fail(err, PYMTP_E_NOMEM, "request %d fails", requests);
    live++;
    return PYMTP_OK;
}

static void *must(void *p) {
    if (!p) exit(3);
    return p;
}

static pymtp_status buf_new(pm_backend *b, size_t bytes, pm_buf **out, pymtp_error *err) {
    PM_TRY(request(err));
    *out = must(calloc(1, sizeof **out));
    **out = (pm_buf){bytes, must(calloc(bytes, 1))};
    return PYMTP_OK;
}

static void buf_free(pm_backend *b, pm_buf *buf) {
    if (!buf) return;
    live--;
    free(buf->data);
    free(buf);
}

static void buf_write(pm_backend *b, pm_buf *buf, size_t offset, const void *src, size_t bytes) { memcpy(buf->data + offset, src, bytes); }

/* Rows stay in the tensor's order: digests are of what the file holds. */
static pymtp_status matrix_new(pm_backend *b, const pm_gguf *g, const pm_gguf_tensor *t, uint64_t first, uint64_t rows, const pm_buf *order,
                               pm_matrix **out, pymtp_error *err) {
    PM_TRY(request(err));
    const size_t row_bytes = (size_t)(t->bytes / t->rows), bytes = row_bytes * (size_t)rows;
    *out = must(calloc(1, sizeof **out));
    **out = (pm_matrix){bytes, row_bytes, must(malloc(bytes))};
    return pm_gguf_read(g, t, first * row_bytes, (*out)->data, bytes, err);
}

static void matrix_free(pm_backend *b, pm_matrix *m) {
    if (!m) return;
    live--;
    free(m->data);
    free(m);
}

static uint64_t matrix_bytes(const pm_matrix *m) { return m->bytes; }

static pymtp_status table_new(pm_backend *b, const pm_gguf *g, const pm_gguf_tensor *t, pm_table **out, pymtp_error *err) {
    PM_TRY(request(err));
    *out = must(calloc(1, sizeof **out));
    (*out)->tensor = t;
    return PYMTP_OK;
}

static void table_free(pm_backend *b, pm_table *t) {
    if (!t) return;
    live--;
    free(t);
}

static pm_backend store = {.name = "store", .buf_new = buf_new, .buf_free = buf_free, .buf_write = buf_write, .matrix_new = matrix_new,
                           .matrix_free = matrix_free, .matrix_bytes = matrix_bytes, .table_new = table_new, .table_free = table_free};

/* ---- digests ---- */

static uint64_t hash_bytes(uint64_t h, const void *data, size_t n) { /* FNV-1a */
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

static const uint64_t start = 14695981039346656037u;

static void print_matrix(const char *name, const pm_matrix *m) {
    if (m) printf(" %s=%016" PRIx64, name, hash_bytes(start, m->data, m->bytes));
}

static void print_buf(const char *name, const pm_buf *b) {
    if (b) printf(" %s=%016" PRIx64, name, hash_bytes(start, b->data, b->bytes));
}

static void print_table(const char *name, const pm_gguf *g, const pm_table *t) {
    if (!t) return;
    unsigned char *data = must(malloc((size_t)t->tensor->bytes));
    if (pm_gguf_read(g, t->tensor, 0, data, (size_t)t->tensor->bytes, NULL) == PYMTP_OK)
        printf(" %s=%016" PRIx64, name, hash_bytes(start, data, (size_t)t->tensor->bytes));
    free(data);
}

/* The gate and up rows of all experts, expert after expert, however they are stored. */
static void print_gate_up(const pm_moe *m) {
    uint64_t h = start;
    for (int32_t e = 0; e < m->experts; e++) {
        const size_t ff = (size_t)m->expert_ff, x = (size_t)e;
        if (m->gate_up_exps) {
            h = hash_bytes(h, m->gate_up_exps->data + 2 * x * ff * m->gate_up_exps->row_bytes, 2 * ff * m->gate_up_exps->row_bytes);
        } else {
            h = hash_bytes(h, m->gate_exps->data + x * ff * m->gate_exps->row_bytes, ff * m->gate_exps->row_bytes);
            h = hash_bytes(h, m->up_exps->data + x * ff * m->up_exps->row_bytes, ff * m->up_exps->row_bytes);
        }
    }
    printf(" gate_up_exps=%016" PRIx64, h);
}

static void print_rope(const char *name, const pm_rope *r) {
    printf("%s dim=%d", name, r->head_dim);
    for (int32_t i = 0; i < r->head_dim / 2; i++) printf(" %.17g", r->inv_freq[i]);
    printf("\n");
}

static void print_layer(int32_t i, const pm_layer_config *y, const pm_layer_weights *w, const pm_rope *sliding) {
    printf("layer %d sliding=%d heads=%d kv=%d dim=%d ff=%d source=%d rope=%s scale=%.9g", i, y->sliding, y->heads, y->kv_heads, y->head_dim,
           y->ff, y->kv_source, w->qkv.rope == sliding ? "sliding" : "global", (double)w->output_scale);
    print_buf("norm", w->qkv.norm);
    print_matrix("q", w->qkv.wq);
    print_matrix("k", w->qkv.wk);
    print_matrix("v", w->qkv.wv);
    print_buf("q_norm", w->qkv.q_norm);
    print_buf("k_norm", w->qkv.k_norm);
    print_matrix("o", w->wo);
    print_buf("post_attn", w->post_attn_norm);
    print_buf("ffn_norm", w->ffn_norm);
    print_buf("post_ffn", w->post_ffn_norm);
    print_matrix("gate", w->gate);
    print_matrix("up", w->up);
    print_matrix("down", w->down);
    print_matrix("ple_gate", w->ple_gate);
    print_matrix("ple_proj", w->ple_proj);
    print_buf("ple_norm", w->ple_post_norm);
    const pm_moe *m = &w->moe;
    if (m->experts) {
        printf(" experts=%d used=%d expert_ff=%d ff=%d", m->experts, m->used, m->expert_ff, m->ff);
        print_matrix("moe_gate", m->gate);
        print_matrix("moe_up", m->up);
        print_matrix("moe_down", m->down);
        print_matrix("router", m->router);
        print_buf("router_scale", m->router_scale);
        print_buf("expert_scale", m->expert_scale);
        print_buf("post1", m->post_norm_1);
        print_buf("pre2", m->pre_norm_2);
        print_buf("post2", m->post_norm_2);
        print_gate_up(m);
        print_matrix("down_exps", m->down_exps);
    }
    printf("\n");
}

static void print_target(const pm_gguf *g, const pm_config *c, const pm_weights *w) {
    printf("target layers=%d width=%d vocab=%d context=%d window=%d ple=%d shared=%d experts=%d used=%d expert_ff=%d eps=%.9g cap=%.9g last=%d,%d",
           c->layers, c->width, c->vocab, c->context, c->window, c->ple, c->shared_kv, c->experts, c->experts_used, c->expert_ff,
           (double)c->eps, (double)c->softcap, c->last_sliding, c->last_global);
    print_table("embed", g, w->embed);
    print_buf("output_norm", w->output_norm);
    print_matrix("head", w->head);
    print_table("ple_table", g, w->ple.table);
    print_matrix("ple_proj", w->ple.proj);
    print_buf("ple_norm", w->ple.norm);
    printf("\n");
    print_rope("sliding", &w->rope_sliding);
    print_rope("global", &w->rope_global);
    for (int32_t i = 0; i < c->layers; i++) print_layer(i, &c->layer[i], &w->layer[i], &w->rope_sliding);
}

static void print_drafter(const pm_drafter_config *c, const pm_drafter_weights *w) {
    printf("drafter layers=%d width=%d target=%d vocab=%d window=%d eps=%.9g clusters=%d members=%d top=%d", c->layers, c->width,
           c->target_width, c->vocab, c->window, (double)c->eps, c->clusters, c->members, c->top);
    print_matrix("pre", w->pre);
    print_matrix("post", w->post);
    print_buf("output_norm", w->output_norm);
    print_matrix("head", w->head);
    print_matrix("centroids", w->centroids);
    print_buf("ordering", w->ordering);
    printf("\n");
    print_rope("sliding", &w->rope_sliding);
    print_rope("global", &w->rope_global);
    for (int32_t i = 0; i < c->layers; i++) print_layer(i, &c->layer[i], &w->layer[i], &w->rope_sliding);
}

/* ---- runs ---- */

typedef struct pair {
    pm_gguf *file, *drafter_file;
    pm_config config;
    pm_drafter_config drafter_config;
    pm_weights weights;
    pm_drafter_weights drafter_weights;
} pair;

static pymtp_status configure(pair *p, const char *target, const char *drafter, pymtp_error *err) {
    PM_TRY(pm_gguf_open(target, &p->file, err));
    PM_TRY(pm_config_read(p->file, &p->config, err));
    if (!drafter) return PYMTP_OK;
    PM_TRY(pm_gguf_open(drafter, &p->drafter_file, err));
    return pm_drafter_config_read(p->drafter_file, &p->config, &p->drafter_config, err);
}

static pymtp_status load(pair *p, pymtp_error *err) {
    PM_TRY(pm_weights_load(&store, p->file, &p->config, &p->weights, err));
    return p->drafter_file ? pm_drafter_weights_load(&store, p->drafter_file, &p->drafter_config, &p->drafter_weights, err) : PYMTP_OK;
}

static void unload(pair *p) {
    pm_drafter_weights_free(&p->drafter_weights);
    pm_weights_free(&p->weights);
}

static int fail_each(pair *p) {
    pymtp_error err = {0};
    pymtp_status status = PYMTP_E_NOMEM;
    for (fail_at = 1; status != PYMTP_OK; fail_at++) {
        pm_clear(&err);
        requests = 0;
        status = load(p, &err);
        if (status == PYMTP_OK && requests >= fail_at) return !printf("request %d failed and nobody noticed\n", fail_at);
        unload(p);
        if (live) return !printf("%d things left after request %d failed\n", live, fail_at);
    }
    printf("ok %d\n", requests);
    return 0;
}

int main(int argc, char **argv) {
    static pair p;
    pymtp_error err = {0};
    const int fail = argc > 1 && !strcmp(argv[1], "--fail");
    const int at = fail ? 2 : 1;
    if (argc <= at) return 2;
    int code = 0;
    pymtp_status status = configure(&p, argv[at], argc > at + 1 ? argv[at + 1] : NULL, &err);
    if (status == PYMTP_OK && fail) {
        code = fail_each(&p);
    } else if (status == PYMTP_OK) {
        status = load(&p, &err);
        if (status == PYMTP_OK) print_target(p.file, &p.config, &p.weights);
        if (status == PYMTP_OK && p.drafter_file) print_drafter(&p.drafter_config, &p.drafter_weights);
        unload(&p);
    }
    if (status != PYMTP_OK) printf("error %d: %s\n", (int)err.code, err.text);
    pm_gguf_close(p.file);
    pm_gguf_close(p.drafter_file);
    if (live) printf("%d things left\n", live);
    return code || status != PYMTP_OK || live;
}
