/* file_api.c - pymtp_file_*: any GGUF file through the public header, for inspection and copying. Immutable after opening. */
#include "base/memory.h"
#include "gguf/gguf.h"

#include <stdio.h>

#define TYPE_BYTES 16 /* "type 4294967295" */

struct pymtp_file {
    pm_gguf *gguf;
    char *types; /* (tensors, TYPE_BYTES) names of unknown types; NULL when all are known */
};

static pymtp_status name_unknown_types(pymtp_file *f, pymtp_error *err) {
    const size_t n = pm_gguf_n_tensors(f->gguf);
    for (size_t i = 0; i < n; i++) {
        const uint32_t type = pm_gguf_tensor_at(f->gguf, i)->type;
        if (pm_ggml_type_name(type)) continue;
        if (!f->types && !(f->types = pm_new(n, TYPE_BYTES, "tensor types", err))) return PYMTP_E_NOMEM;
        snprintf(f->types + i * TYPE_BYTES, TYPE_BYTES, "type %u", type);
    }
    return PYMTP_OK;
}

pymtp_file *pymtp_file_open(const char *path, pymtp_error *err) {
    pm_clear(err);
    pymtp_file *f = pm_new(1, sizeof *f, "file", err);
    if (!f) return NULL;
    if (pm_gguf_open(path, &f->gguf, err) != PYMTP_OK || name_unknown_types(f, err) != PYMTP_OK) {
        pymtp_file_close(f);
        return NULL;
    }
    return f;
}

void pymtp_file_close(pymtp_file *f) {
    if (!f) return;
    pm_gguf_close(f->gguf);
    pm_free(f->types);
    pm_free(f);
}

size_t pymtp_file_n_keys(const pymtp_file *f) { return f ? pm_gguf_n_keys(f->gguf) : 0; }

const char *pymtp_file_key(const pymtp_file *f, size_t i) { return f ? pm_gguf_key(f->gguf, i) : NULL; }

int64_t pymtp_file_value_json(const pymtp_file *f, const char *key, size_t max_items, char *out, size_t cap) {
    const pm_gguf_value *v = f && key ? pm_gguf_find(f->gguf, key) : NULL;
    return v ? pm_gguf_json(v, max_items, out, cap) : -1;
}

int64_t pymtp_file_value_bytes(const pymtp_file *f, const char *key, void *out, size_t cap) {
    const pm_gguf_value *v = f && key ? pm_gguf_find(f->gguf, key) : NULL;
    return v ? pm_gguf_value_bytes(v, out, cap) : -1;
}

const char *pymtp_file_string(const pymtp_file *f, const char *key, size_t *bytes) {
    const pm_gguf_value *v = f && key ? pm_gguf_find(f->gguf, key) : NULL;
    pm_string s;
    if (!v || pm_gguf_value_is_array(v) || !pm_gguf_str(v, 0, &s)) return NULL;
    if (bytes) *bytes = s.bytes;
    return s.data;
}

size_t pymtp_file_n_tensors(const pymtp_file *f) { return f ? pm_gguf_n_tensors(f->gguf) : 0; }

pymtp_status pymtp_file_tensor(const pymtp_file *f, size_t i, pymtp_tensor_info *out) {
    const pm_gguf_tensor *t = f && out ? pm_gguf_tensor_at(f->gguf, i) : NULL;
    if (!t) return PYMTP_E_ARG;
    const char *type = pm_ggml_type_name(t->type);
    *out = (pymtp_tensor_info){.name = t->name, .type = type ? type : f->types + i * TYPE_BYTES, .n_dims = t->n_dims, .bytes = t->bytes};
    for (int k = 0; k < 4; k++) out->dims[k] = t->dims[k];
    return PYMTP_OK;
}

pymtp_status pymtp_file_read(const pymtp_file *f, size_t i, uint64_t offset, void *dst, size_t bytes, pymtp_error *err) {
    pm_clear(err);
    const pm_gguf_tensor *t = f ? pm_gguf_tensor_at(f->gguf, i) : NULL;
    if (!t) return pm_fail(err, PYMTP_E_ARG, "tensor %zu: expected one of %zu", i, pymtp_file_n_tensors(f));
    if (bytes && !dst) return pm_fail(err, PYMTP_E_ARG, "dst: expected memory, found NULL");
    return pm_gguf_read(f->gguf, t, offset, dst, bytes, err);
}
