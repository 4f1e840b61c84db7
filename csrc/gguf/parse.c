/* parse.c - header and metadata of one GGUF file.
 *
 *   "GGUF" | version u32 | tensors u64 | keys u64 | keys x (name, type u32, value) | directory (directory.c) | data
 *   string: bytes u64, then the bytes; array: element type u32, count u64, then the elements
 *
 * Nothing is allocated before the rest of the file is known to have room for what is claimed. */
#include "base/checked.h"
#include "base/memory.h"
#include "gguf/private.h"

#include <stdlib.h>
#include <string.h>

#define MIN_KEY_BYTES 14    /* length, one byte of name, type, one byte of value */
#define MIN_TENSOR_BYTES 33 /* length, one byte of name, dimensions, one of them, type, offset */

/* ---- arena ---- */

#define CHUNK_BYTES ((size_t)1 << 15)

struct pm_arena_chunk { struct pm_arena_chunk *next; size_t used, size; };

void *pm_arena_take(pm_arena *a, uint64_t bytes, pymtp_error *err) {
    if (bytes > PM_METADATA_LIMIT * 4) { /* callers stay below; guards the rounding */
        pm_fail(err, PYMTP_E_NOMEM, "out of memory: metadata");
        return NULL;
    }
    const size_t n = pm_round_up((size_t)bytes, 8);
    struct pm_arena_chunk *c = a->first;
    if (!c || c->size - c->used < n) {
        const size_t size = n > CHUNK_BYTES / 4 ? n : CHUNK_BYTES;
        c = pm_malloc(sizeof *c + size);
        if (!c) {
            pm_fail(err, PYMTP_E_NOMEM, "out of memory: metadata (%zu bytes)", size);
            return NULL;
        }
        c->used = 0;
        c->size = size;
        if (a->first && size == n) { /* a chunk of its own: keep filling the first */
            c->next = a->first->next;
            a->first->next = c;
        } else {
            c->next = a->first;
            a->first = c;
        }
    }
    void *out = (unsigned char *)(c + 1) + c->used;
    c->used += n;
    return out;
}

void pm_arena_free(pm_arena *a) {
    while (a->first) {
        struct pm_arena_chunk *next = a->first->next;
        pm_free(a->first);
        a->first = next;
    }
}

/* ---- values ---- */

/* Bytes whose number is not known in advance. */
typedef struct sink { unsigned char *data; size_t n, cap; } sink;

static pymtp_status sink_reserve(sink *s, uint64_t more, pymtp_error *err) {
    if (more <= s->cap - s->n) return PYMTP_OK;
    size_t cap = s->cap < 4096 ? 4096 : s->cap * 2;
    while (cap - s->n < more) cap *= 2; /* more is below PM_METADATA_LIMIT */
    void *p = pm_realloc(s->data, cap, 1);
    if (!p) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: metadata (%zu bytes)", cap);
    s->data = p;
    s->cap = cap;
    return PYMTP_OK;
}

static pymtp_status sink_read(sink *s, pm_cursor *c, uint64_t n) {
    PM_TRY(pm_cursor_need(c, n)); /* before memory is taken */
    PM_TRY(sink_reserve(s, n, c->err));
    PM_TRY(pm_cursor_read(c, s->data + s->n, n));
    s->n += (size_t)n;
    return PYMTP_OK;
}

static pymtp_status sink_put(sink *s, const void *p, size_t n, pymtp_error *err) {
    PM_TRY(sink_reserve(s, n, err));
    memcpy(s->data + s->n, p, n);
    s->n += n;
    return PYMTP_OK;
}

size_t pm_gguf_number_bytes(uint32_t type) {
    switch (type) {
        case PM_GGUF_U8: case PM_GGUF_I8: case PM_GGUF_BOOL: return 1;
        case PM_GGUF_U16: case PM_GGUF_I16: return 2;
        case PM_GGUF_U32: case PM_GGUF_I32: case PM_GGUF_F32: return 4;
        case PM_GGUF_U64: case PM_GGUF_I64: case PM_GGUF_F64: return 8;
        default: return 0;
    }
}

static pymtp_status check_numbers(const pm_cursor *c, uint32_t type, const unsigned char *data, uint64_t n) {
    if (type == PM_GGUF_BOOL)
        for (uint64_t i = 0; i < n; i++)
            if (data[i] > 1) return pm_cursor_fail(c, "bool: expected 0 or 1, found %u", data[i]);
    return PYMTP_OK;
}

static pymtp_status read_type(pm_cursor *c, uint32_t *type) {
    PM_TRY(pm_cursor_u32(c, type));
    if (*type > PM_GGUF_F64) return pm_cursor_fail(c, "value type: expected 0..12, found %u", *type);
    return PYMTP_OK;
}

/* Element type and count of an array. */
static pymtp_status read_array_head(pm_cursor *c, uint32_t *type, uint64_t *n) {
    PM_TRY(read_type(c, type));
    const size_t bytes = pm_gguf_number_bytes(*type);
    return pm_cursor_count(c, bytes ? bytes : *type == PM_GGUF_STRING ? 8 : 12, "array length", n);
}

static pymtp_status read_string_length(pm_cursor *c, uint64_t *n) {
    PM_TRY(pm_cursor_u64(c, n));
    return pm_cursor_need(c, *n);
}

/* The n elements of a nested array, as they are in the file; each is validated on the way. What was validated is kept, never read again:
 * the file may change in between. */
static pymtp_status read_nested(pm_cursor *c, sink *s, uint32_t type, uint64_t n, int depth) {
    if (depth > PM_GGUF_MAX_NEST) return pm_cursor_fail(c, "expected arrays at most %d deep, found deeper ones", PM_GGUF_MAX_NEST);
    const size_t bytes = pm_gguf_number_bytes(type);
    if (bytes) {
        const size_t at = s->n;
        PM_TRY(sink_read(s, c, n * bytes)); /* n was checked against the file: no overflow */
        return check_numbers(c, type, s->data + at, n);
    }
    for (uint64_t i = 0; i < n; i++) {
        uint32_t inner;
        uint64_t count;
        if (type == PM_GGUF_STRING) {
            PM_TRY(read_string_length(c, &count));
            PM_TRY(sink_put(s, &count, sizeof count, c->err));
            PM_TRY(sink_read(s, c, count));
        } else {
            PM_TRY(read_array_head(c, &inner, &count));
            PM_TRY(sink_put(s, &inner, sizeof inner, c->err));
            PM_TRY(sink_put(s, &count, sizeof count, c->err));
            PM_TRY(read_nested(c, s, inner, count, depth + 1));
        }
    }
    return PYMTP_OK;
}

static pymtp_status keep(pm_arena *a, const sink *s, const unsigned char **out, pymtp_error *err) {
    unsigned char *p = pm_arena_take(a, s->n, err);
    if (!p) return PYMTP_E_NOMEM;
    if (s->n) memcpy(p, s->data, s->n);
    *out = p;
    return PYMTP_OK;
}

/* v->n strings into one blob. */
static pymtp_status read_strings(pm_cursor *c, pm_arena *a, sink *s, pm_gguf_value *v) {
    uint32_t *starts = pm_arena_take(a, (v->n + 1) * sizeof *starts, c->err);
    if (!starts) return PYMTP_E_NOMEM;
    for (uint64_t i = 0; i < v->n; i++) {
        uint64_t n;
        starts[i] = (uint32_t)s->n; /* below 2^31: at most the metadata limit, twice */
        PM_TRY(read_string_length(c, &n));
        PM_TRY(sink_reserve(s, n + 1, c->err));
        PM_TRY(pm_cursor_read(c, s->data + s->n, n));
        s->n += (size_t)n;
        s->data[s->n++] = 0;
    }
    starts[v->n] = (uint32_t)s->n;
    v->starts = starts;
    return keep(a, s, &v->u.data, c->err);
}

static pymtp_status read_numbers(pm_cursor *c, pm_arena *a, pm_gguf_value *v) {
    const uint64_t bytes = v->n * pm_gguf_number_bytes(v->type);
    unsigned char *p = pm_arena_take(a, bytes, c->err);
    if (!p) return PYMTP_E_NOMEM;
    PM_TRY(pm_cursor_read(c, p, bytes));
    v->u.data = p;
    return check_numbers(c, v->type, p, v->n);
}

static pymtp_status read_value(pm_cursor *c, pm_arena *a, sink *s, pm_gguf_value *v) {
    uint32_t type;
    PM_TRY(read_type(c, &type));
    v->n = 1;
    if (type == PM_GGUF_ARRAY) {
        v->is_array = 1;
        PM_TRY(read_array_head(c, &type, &v->n));
    }
    v->type = (uint8_t)type;
    s->n = 0;
    if (type == PM_GGUF_STRING) return read_strings(c, a, s, v);
    if (type == PM_GGUF_ARRAY) {
        v->nested = 1;
        PM_TRY(read_nested(c, s, type, v->n, 2));
        return keep(a, s, &v->u.data, c->err);
    }
    if (v->is_array) return read_numbers(c, a, v);
    PM_TRY(pm_cursor_read(c, v->u.bytes, pm_gguf_number_bytes(type)));
    return check_numbers(c, type, v->u.bytes, 1);
}

/* ---- keys ---- */

pymtp_status pm_gguf_read_name(pm_cursor *c, pm_arena *a, const char *kind, const char **out) {
    uint64_t n;
    pm_cursor_at(c, kind, NULL);
    PM_TRY(read_string_length(c, &n));
    if (!n || n > 65535) return pm_cursor_fail(c, "name length: expected 1..65535 bytes, found %llu", (unsigned long long)n);
    char *name = pm_arena_take(a, n + 1, c->err);
    if (!name) return PYMTP_E_NOMEM;
    PM_TRY(pm_cursor_read(c, name, n));
    name[n] = 0;
    pm_cursor_at(c, kind, name);
    if (memchr(name, 0, (size_t)n)) return pm_cursor_fail(c, "expected a name without NUL bytes, found one");
    *out = name;
    return PYMTP_OK;
}

static int compare_keys(const void *a, const void *b) {
    const pm_gguf_entry *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

static pymtp_status index_keys(pm_gguf_part *p, pymtp_error *err) {
    p->by_key = pm_new((size_t)p->n_keys, sizeof *p->by_key, "metadata index", err);
    if (!p->by_key) return PYMTP_E_NOMEM;
    for (uint64_t i = 0; i < p->n_keys; i++) p->by_key[i] = &p->entries[i];
    qsort(p->by_key, (size_t)p->n_keys, sizeof *p->by_key, compare_keys);
    for (uint64_t i = 1; i < p->n_keys; i++)
        if (!strcmp(p->by_key[i - 1]->key, p->by_key[i]->key))
            return pm_fail(err, PYMTP_E_FORMAT, "%s: key '%.120s': expected once, found twice", p->file.path, p->by_key[i]->key);
    return PYMTP_OK;
}

const pm_gguf_value *pm_gguf_part_find(const pm_gguf_part *p, const char *key) {
    uint64_t low = 0, high = p->n_keys;
    while (low < high) {
        const uint64_t mid = low + (high - low) / 2;
        const int order = strcmp(key, p->by_key[mid]->key);
        if (!order) return &p->by_key[mid]->value;
        if (order < 0) high = mid;
        else low = mid + 1;
    }
    return NULL;
}

static pymtp_status parse_keys(pm_gguf_part *p, pm_cursor *c) {
    sink s = {0};
    pymtp_status status = PYMTP_OK;
    p->entries = pm_new((size_t)p->n_keys, sizeof *p->entries, "metadata", c->err);
    if (!p->entries) return PYMTP_E_NOMEM;
    for (uint64_t i = 0; i < p->n_keys && status == PYMTP_OK; i++) {
        status = pm_gguf_read_name(c, &p->arena, "key", &p->entries[i].key);
        if (status == PYMTP_OK) status = read_value(c, &p->arena, &s, &p->entries[i].value);
    }
    pm_free(s.data);
    PM_TRY(status);
    return index_keys(p, c->err);
}

/* ---- header ---- */

static pymtp_status parse_header(pm_gguf_part *p, pm_cursor *c) {
    char magic[4] = {0};
    uint32_t version;
    if (p->file.size >= 4) PM_TRY(pm_cursor_read(c, magic, 4));
    if (memcmp(magic, "GGUF", 4))
        return pm_fail(c->err, PYMTP_E_FORMAT, "%s: not a GGUF file%s", p->file.path, p->file.size ? "" : ": it is empty");
    PM_TRY(pm_cursor_u32(c, &version));
    if (version && !(version & 0xffffu))
        return pm_cursor_fail(c, "expected a little-endian file, found a big-endian one (version 0x%08x)", version);
    if (version != 2 && version != 3) return pm_cursor_fail(c, "GGUF version: expected 2 or 3, found %u", version);
    PM_TRY(pm_cursor_need(c, 16));
    PM_TRY(pm_cursor_count(c, MIN_TENSOR_BYTES, "number of tensors", &p->n_tensors));
    PM_TRY(pm_cursor_count(c, MIN_KEY_BYTES, "number of keys", &p->n_keys));
    return PYMTP_OK;
}

pymtp_status pm_gguf_parse(pm_gguf_part *p, pymtp_error *err) {
    pm_cursor c;
    PM_TRY(pm_cursor_init(&c, &p->file, err));
    pymtp_status status = parse_header(p, &c);
    if (status == PYMTP_OK) status = parse_keys(p, &c);
    if (status == PYMTP_OK) status = pm_gguf_parse_tensors(p, &c);
    pm_cursor_free(&c);
    return status;
}
