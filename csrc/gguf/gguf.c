/* gguf.c - opens a file or a whole split set, and gives access to what was parsed.
 *
 * A split set is NAME-00001-of-00003.gguf and so on; each part says which one it is (split.no, from 0) and how many
 * there are (split.count). Any part opens all; metadata is the first part's. */
#include "gguf/gguf.h"
#include "base/checked.h"
#include "base/memory.h"
#include "gguf/private.h"

#include <stdio.h>
#include <string.h>

#define SUFFIX_BYTES 20 /* "-00001-of-00003.gguf" */

/* ---- parts ---- */

static pymtp_status open_part(pm_gguf_part *p, const char *path, pymtp_error *err) {
    PM_TRY(pm_file_open(&p->file, path, err));
    return pm_gguf_parse(p, err);
}

static void close_part(pm_gguf_part *p) {
    pm_free(p->tensors);
    pm_free(p->by_key);
    pm_free(p->entries);
    pm_arena_free(&p->arena);
    pm_file_close(&p->file);
}

/* A number of a split set, `absent` when the key is not there. */
static pymtp_status split_number(const pm_gguf_part *p, const char *key, int64_t absent, int64_t *out, pymtp_error *err) {
    const pm_gguf_value *v = pm_gguf_part_find(p, key);
    *out = absent;
    if (v && (pm_gguf_value_is_array(v) || !pm_gguf_int(v, 0, out) || *out < 0))
        return pm_fail(err, PYMTP_E_FORMAT, "%s: key '%s': expected a number from 0, found something else", p->file.path, key);
    return PYMTP_OK;
}

static pymtp_status check_part(const pm_gguf_part *p, int64_t number, int64_t count, pymtp_error *err) {
    int64_t n;
    PM_TRY(split_number(p, "split.count", 1, &n, err));
    if (n != count)
        return pm_fail(err, PYMTP_E_FORMAT, "%s: key 'split.count': expected %lld as in the other parts, found %lld", p->file.path,
                       (long long)count, (long long)n);
    PM_TRY(split_number(p, "split.no", -1, &n, err));
    if (n != number)
        return pm_fail(err, PYMTP_E_FORMAT, "%s: key 'split.no': expected %lld by the file's name, found %lld", p->file.path, (long long)number,
                       (long long)n);
    return PYMTP_OK;
}

/* Opens all parts, given that `opened` (moved into its place) is one of `count`. */
static pymtp_status open_set(pm_gguf *g, pm_gguf_part *opened, int64_t count, pymtp_error *err) {
    const char *path = opened->file.path;
    const size_t n = strlen(path);
    int64_t number;
    char suffix[32];
    PM_TRY(split_number(opened, "split.no", -1, &number, err));
    if (number < 0 || number >= count || count > 65535)
        return pm_fail(err, PYMTP_E_FORMAT, "%s: key 'split.no': expected one of %lld (at most 65535) parts, found %lld", path, (long long)count,
                       (long long)number);
    snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", (int)number + 1, (int)count);
    if (n < SUFFIX_BYTES || strcmp(path + n - SUFFIX_BYTES, suffix))
        return pm_fail(err, PYMTP_E_FORMAT, "%s: part %lld of %lld: expected a file name ending in %s", path, (long long)number + 1, (long long)count,
                       suffix);
    char *sibling = pm_new(n + 1, 1, "file name", err);
    g->parts = pm_new((size_t)count, sizeof *g->parts, "split files", err);
    pymtp_status status = sibling && g->parts ? PYMTP_OK : PYMTP_E_NOMEM;
    if (status == PYMTP_OK) {
        for (int64_t i = 0; i < count; i++) g->parts[i].file.fd = -1;
        g->n_parts = (uint32_t)count;
        g->parts[number] = *opened;
        *opened = (pm_gguf_part){.file = {.fd = -1}};
        memcpy(sibling, path, n + 1);
    }
    for (int64_t i = 0; i < count && status == PYMTP_OK; i++) {
        snprintf(sibling + n - SUFFIX_BYTES, SUFFIX_BYTES + 1, "-%05d-of-%05d.gguf", (int)i + 1, (int)count);
        if (i != number) status = open_part(&g->parts[i], sibling, err);
        if (status == PYMTP_OK) status = check_part(&g->parts[i], i, count, err);
    }
    pm_free(sibling);
    return status;
}

/* ---- open and close ---- */

/* Moves the tensors of all parts into one directory. */
static pymtp_status merge_tensors(pm_gguf *g, pymtp_error *err) {
    int64_t expected;
    size_t at = 0;
    for (uint32_t i = 0; i < g->n_parts; i++) g->n_tensors += (size_t)g->parts[i].n_tensors;
    PM_TRY(split_number(&g->parts[0], "split.tensors.count", (int64_t)g->n_tensors, &expected, err));
    if ((uint64_t)expected != g->n_tensors)
        return pm_fail(err, PYMTP_E_FORMAT, "%s: key 'split.tensors.count': expected %zu, the tensors of all parts, found %lld",
                       g->parts[0].file.path, g->n_tensors, (long long)expected);
    if (g->n_parts == 1) {
        g->tensors = g->parts[0].tensors;
        g->parts[0].tensors = NULL;
        return pm_gguf_index_tensors(g, err);
    }
    g->tensors = pm_new(g->n_tensors, sizeof *g->tensors, "tensor directory", err);
    if (!g->tensors) return PYMTP_E_NOMEM;
    for (uint32_t i = 0; i < g->n_parts; i++) {
        pm_gguf_part *p = &g->parts[i];
        for (uint64_t k = 0; k < p->n_tensors; k++) {
            g->tensors[at] = p->tensors[k];
            g->tensors[at++].file = i;
        }
        pm_free(p->tensors);
        p->tensors = NULL;
    }
    return pm_gguf_index_tensors(g, err);
}

static pymtp_status open_all(pm_gguf *g, const char *path, pymtp_error *err) {
    pm_gguf_part part = {.file = {.fd = -1}};
    int64_t count = 1;
    pymtp_status status = open_part(&part, path, err);
    if (status == PYMTP_OK) status = split_number(&part, "split.count", 1, &count, err);
    if (status == PYMTP_OK && count > 1) {
        status = open_set(g, &part, count, err);
    } else if (status == PYMTP_OK) {
        g->parts = pm_new(1, sizeof *g->parts, "file", err);
        status = g->parts ? PYMTP_OK : PYMTP_E_NOMEM;
        if (g->parts) {
            g->n_parts = 1;
            g->parts[0] = part;
            part = (pm_gguf_part){.file = {.fd = -1}};
        }
    }
    close_part(&part); /* what was not moved */
    PM_TRY(status);
    return merge_tensors(g, err);
}

pymtp_status pm_gguf_open(const char *path, pm_gguf **out, pymtp_error *err) {
    *out = NULL;
    pm_gguf *g = pm_new(1, sizeof *g, "file", err);
    if (!g) return PYMTP_E_NOMEM;
    pymtp_status status = open_all(g, path, err);
    if (status == PYMTP_OK) {
        g->path = pm_new(strlen(path) + 1, 1, "file name", err);
        if (g->path) memcpy(g->path, path, strlen(path) + 1);
        else status = PYMTP_E_NOMEM;
    }
    if (status != PYMTP_OK) {
        pm_gguf_close(g);
        return status;
    }
    *out = g;
    return PYMTP_OK;
}

void pm_gguf_close(pm_gguf *g) {
    if (!g) return;
    for (uint32_t i = 0; i < g->n_parts; i++) close_part(&g->parts[i]);
    pm_free(g->parts);
    pm_free(g->tensors);
    pm_free(g->by_name);
    pm_free(g->path);
    pm_free(g);
}

const char *pm_gguf_path(const pm_gguf *g) { return g->path; }

uint64_t pm_gguf_bytes(const pm_gguf *g) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < g->n_parts; i++) n += g->parts[i].file.size;
    return n;
}

/* ---- metadata ---- */

size_t pm_gguf_n_keys(const pm_gguf *g) { return (size_t)g->parts[0].n_keys; }

const char *pm_gguf_key(const pm_gguf *g, size_t i) { return i < pm_gguf_n_keys(g) ? g->parts[0].entries[i].key : NULL; }

const pm_gguf_value *pm_gguf_value_at(const pm_gguf *g, size_t i) {
    return i < pm_gguf_n_keys(g) ? &g->parts[0].entries[i].value : NULL;
}

const pm_gguf_value *pm_gguf_find(const pm_gguf *g, const char *key) { return pm_gguf_part_find(&g->parts[0], key); }

pm_gguf_type pm_gguf_value_type(const pm_gguf_value *v) { return (pm_gguf_type)v->type; }

int pm_gguf_value_is_array(const pm_gguf_value *v) { return v->is_array; }

uint64_t pm_gguf_value_count(const pm_gguf_value *v) { return v->n; }

/* The bytes of number i, or NULL when there is none. */
static const unsigned char *number_at(const pm_gguf_value *v, uint64_t i) {
    const size_t bytes = pm_gguf_number_bytes(v->type);
    if (!bytes || i >= v->n) return NULL;
    return v->is_array ? v->u.data + i * bytes : v->u.bytes;
}

int pm_gguf_int(const pm_gguf_value *v, uint64_t i, int64_t *out) {
    const unsigned char *p = number_at(v, i);
    uint64_t u = 0;
    if (!p || v->type == PM_GGUF_F32 || v->type == PM_GGUF_F64) return 0;
    memcpy(&u, p, pm_gguf_number_bytes(v->type));
    switch (v->type) {
        case PM_GGUF_I8: *out = (int8_t)u; return 1;
        case PM_GGUF_I16: *out = (int16_t)u; return 1;
        case PM_GGUF_I32: *out = (int32_t)u; return 1;
        case PM_GGUF_U64:
            if (u > INT64_MAX) return 0;
            break;
        default: break;
    }
    *out = (int64_t)u;
    return 1;
}

int pm_gguf_float(const pm_gguf_value *v, uint64_t i, double *out) {
    const unsigned char *p = number_at(v, i);
    int64_t n;
    if (!p) return 0;
    if (v->type == PM_GGUF_F64) {
        memcpy(out, p, 8);
    } else if (v->type == PM_GGUF_F32) {
        float f;
        memcpy(&f, p, 4);
        *out = f;
    } else if (v->type != PM_GGUF_BOOL && pm_gguf_int(v, i, &n)) {
        *out = (double)n;
    } else {
        return 0;
    }
    return 1;
}

int pm_gguf_str(const pm_gguf_value *v, uint64_t i, pm_string *out) {
    if (v->type != PM_GGUF_STRING || i >= v->n) return 0;
    out->data = (const char *)v->u.data + v->starts[i];
    out->bytes = v->starts[i + 1] - v->starts[i] - 1;
    return 1;
}

/* ---- tensors ---- */

size_t pm_gguf_n_tensors(const pm_gguf *g) { return g->n_tensors; }

const pm_gguf_tensor *pm_gguf_tensor_at(const pm_gguf *g, size_t i) { return i < g->n_tensors ? &g->tensors[i] : NULL; }

const pm_gguf_tensor *pm_gguf_tensor_find(const pm_gguf *g, const char *name) {
    size_t low = 0, high = g->n_tensors;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const int order = strcmp(name, g->by_name[mid]->name);
        if (!order) return g->by_name[mid];
        if (order < 0) high = mid;
        else low = mid + 1;
    }
    return NULL;
}

pymtp_status pm_gguf_read(const pm_gguf *g, const pm_gguf_tensor *t, uint64_t offset, void *dst, size_t n, pymtp_error *err) {
    uint64_t end;
    if (pm_add_u64(offset, n, &end) || end > t->bytes)
        return pm_fail(err, PYMTP_E_ARG, "tensor '%.120s': expected a read within %llu bytes, found %zu at %llu", t->name,
                       (unsigned long long)t->bytes, n, (unsigned long long)offset);
    return pm_file_read(&g->parts[t->file].file, t->offset + offset, dst, n, err);
}
