/* value_bytes.c - metadata values as the bytes of the format (type number, then payload): what a writer puts behind a key to
 * copy it. Numbers keep their type and width, floats every bit. */
#include "gguf/private.h"

#include <string.h>

typedef struct sink { unsigned char *out; size_t cap; uint64_t n; } sink;

static void put(sink *s, const void *data, uint64_t n) {
    if (s->n <= s->cap && n <= s->cap - s->n && n) memcpy(s->out + s->n, data, (size_t)n);
    s->n += n;
}

static void put_u32(sink *s, uint32_t v) { put(s, &v, sizeof v); }
static void put_u64(sink *s, uint64_t v) { put(s, &v, sizeof v); }

/* Bytes of n elements of a nested array, which are kept as in the file. */
static uint64_t nested_bytes(const unsigned char *p, uint32_t type, uint64_t n) {
    const size_t bytes = pm_gguf_number_bytes(type);
    uint64_t total = bytes * n;
    for (uint64_t i = 0; i < n && !bytes; i++) {
        uint32_t inner;
        uint64_t count;
        if (type == PM_GGUF_STRING) {
            memcpy(&count, p + total, 8);
            total += 8 + count;
        } else {
            memcpy(&inner, p + total, 4);
            memcpy(&count, p + total + 4, 8);
            total += 12 + nested_bytes(p + total + 12, inner, count);
        }
    }
    return total;
}

int64_t pm_gguf_value_bytes(const pm_gguf_value *v, void *out, size_t cap) {
    sink s = {out, out ? cap : 0, 0};
    pm_string text;
    if (v->is_array) {
        put_u32(&s, PM_GGUF_ARRAY);
        put_u32(&s, v->type);
        put_u64(&s, v->n);
    } else {
        put_u32(&s, v->type);
    }
    if (v->nested) put(&s, v->u.data, nested_bytes(v->u.data, PM_GGUF_ARRAY, v->n));
    else if (v->type != PM_GGUF_STRING) put(&s, v->is_array ? v->u.data : v->u.bytes, v->n * pm_gguf_number_bytes(v->type));
    for (uint64_t i = 0; !v->nested && pm_gguf_str(v, i, &text); i++) {
        put_u64(&s, text.bytes);
        put(&s, text.data, text.bytes);
    }
    return (int64_t)s.n;
}
