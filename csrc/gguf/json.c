/* json.c - metadata values as JSON text, always valid: invalid UTF-8 becomes U+FFFD, numbers JSON has no word for
 * become null, and an array cut at max_items ends in the string "...". */
#include "base/f16.h"
#include "gguf/private.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct text { char *out; size_t cap; int64_t n; } text;

static void put(text *t, const char *s, size_t n) {
    const size_t at = (size_t)t->n;
    if (t->cap && at < t->cap - 1) memcpy(t->out + at, s, n < t->cap - 1 - at ? n : t->cap - 1 - at);
    t->n += (int64_t)n;
}

static void put_text(text *t, const char *s) { put(t, s, strlen(s)); }

/* Length of the well-formed UTF-8 sequence at s (n >= 1 bytes left), 0 if there is none. */
static size_t sequence(const unsigned char *s, size_t n) {
    const unsigned char a = s[0];
    const size_t length = a < 0x80 ? 1 : a < 0xc2 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : a < 0xf5 ? 4 : 0;
    if (!length || length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (a == 0xe0 && s[1] < 0xa0) return 0; /* overlong */
    if (a == 0xed && s[1] > 0x9f) return 0; /* surrogates */
    if (a == 0xf0 && s[1] < 0x90) return 0; /* overlong */
    if (a == 0xf4 && s[1] > 0x8f) return 0; /* above U+10FFFF */
    return length;
}

static void put_string(text *t, const unsigned char *s, size_t n) {
    char escape[8];
    put_text(t, "\"");
    for (size_t i = 0; i < n;) {
        const size_t length = sequence(s + i, n - i);
        if (!length) {
            put_text(t, "\xef\xbf\xbd");
        } else if (s[i] == '"' || s[i] == '\\') {
            escape[0] = '\\';
            escape[1] = (char)s[i];
            put(t, escape, 2);
        } else if (s[i] == '\n') {
            put_text(t, "\\n");
        } else if (s[i] < 32) {
            snprintf(escape, sizeof escape, "\\u%04x", s[i]);
            put(t, escape, 6);
        } else {
            put(t, (const char *)s + i, length);
        }
        i += length ? length : 1;
    }
    put_text(t, "\"");
}

/* The shortest of a few precisions that reads back as the same number. */
static void put_float(text *t, double v, int is_float) {
    char s[48], *end;
    if (!isfinite(v)) {
        put_text(t, "null");
        return;
    }
    for (int digits = is_float ? 6 : 15; digits <= (is_float ? 9 : 17); digits++) {
        snprintf(s, sizeof s, "%.*g", digits, v);
        if (is_float ? strtof(s, &end) == (float)v : strtod(s, &end) == v) break;
    }
    int whole = 1;
    for (const char *p = s; *p;) { /* the locale decides on the decimal point: whatever it is, write "." */
        const size_t plain = strspn(p, "0123456789+-e");
        put(t, p, plain);
        if (memchr(p, 'e', plain)) whole = 0;
        p += plain;
        if (!*p) break;
        whole = 0;
        put_text(t, ".");
        p += strcspn(p, "0123456789");
    }
    if (whole) put_text(t, ".0");
}

static void put_number(text *t, uint32_t type, const unsigned char *p) {
    uint64_t u = 0;
    char s[32];
    double d;
    memcpy(&u, p, pm_gguf_number_bytes(type));
    switch (type) {
        case PM_GGUF_BOOL: put_text(t, u ? "true" : "false"); return;
        case PM_GGUF_F32: put_float(t, (double)pm_bits_f32((uint32_t)u), 1); return;
        case PM_GGUF_F64:
            memcpy(&d, &u, 8);
            put_float(t, d, 0);
            return;
        case PM_GGUF_I8: snprintf(s, sizeof s, "%d", (int8_t)u); break;
        case PM_GGUF_I16: snprintf(s, sizeof s, "%d", (int16_t)u); break;
        case PM_GGUF_I32: snprintf(s, sizeof s, "%" PRId32, (int32_t)u); break;
        case PM_GGUF_I64: snprintf(s, sizeof s, "%" PRId64, (int64_t)u); break;
        default: snprintf(s, sizeof s, "%" PRIu64, u); break;
    }
    put_text(t, s);
}

/* Before element i of an array: 0 when it is to be left out. */
static int begin_item(text *t, uint64_t i, size_t max_items) {
    if (i > max_items) return 0;
    if (i) put_text(t, ", ");
    if (i == max_items) put_text(t, "\"...\"");
    return i < max_items;
}

/* n elements as they are in the file (validated when read); returns the byte behind them. Text goes nowhere when t is NULL. */
static const unsigned char *put_nested(text *t, const unsigned char *p, uint32_t type, uint64_t n, size_t max_items) {
    const size_t bytes = pm_gguf_number_bytes(type);
    if (t) put_text(t, "[");
    for (uint64_t i = 0; i < n; i++) {
        text *shown = t && begin_item(t, i, max_items) ? t : NULL;
        uint64_t count;
        uint32_t inner;
        if (bytes) {
            if (shown) put_number(shown, type, p);
            p += bytes;
        } else if (type == PM_GGUF_STRING) {
            memcpy(&count, p, 8);
            if (shown) put_string(shown, p + 8, (size_t)count);
            p += 8 + count;
        } else {
            memcpy(&inner, p, 4);
            memcpy(&count, p + 4, 8);
            p = put_nested(shown, p + 12, inner, count, max_items);
        }
    }
    if (t) put_text(t, "]");
    return p;
}

static void put_flat(text *t, const pm_gguf_value *v, size_t max_items) {
    pm_string s;
    put_text(t, "[");
    for (uint64_t i = 0; i < v->n; i++) {
        if (!begin_item(t, i, max_items)) break;
        if (pm_gguf_str(v, i, &s)) put_string(t, (const unsigned char *)s.data, s.bytes);
        else put_number(t, v->type, v->u.data + i * pm_gguf_number_bytes(v->type));
    }
    put_text(t, "]");
}

int64_t pm_gguf_json(const pm_gguf_value *v, size_t max_items, char *out, size_t cap) {
    text t = {out, out ? cap : 0, 0};
    pm_string s;
    if (v->nested) put_nested(&t, v->u.data, PM_GGUF_ARRAY, v->n, max_items);
    else if (v->is_array) put_flat(&t, v, max_items);
    else if (pm_gguf_str(v, 0, &s)) put_string(&t, (const unsigned char *)s.data, s.bytes);
    else put_number(&t, v->type, v->u.bytes);
    if (t.cap) t.out[(size_t)t.n < t.cap ? (size_t)t.n : t.cap - 1] = 0;
    return t.n;
}
