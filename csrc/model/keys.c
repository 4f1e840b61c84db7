/* keys.c - typed access to metadata: every number is checked against its range before anybody sees it. */
#include "model/keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FOUND_BYTES 80 /* of a wrong value shown in an error */

pymtp_status pm_keys_architecture(const pm_gguf *g, const char **out, pymtp_error *err) {
    const pm_gguf_value *v = pm_gguf_find(g, "general.architecture");
    pm_string s;
    if (!v) return pm_fail(err, PYMTP_E_FORMAT, "%.300s: key 'general.architecture': missing", pm_gguf_path(g));
    if (!pm_gguf_str(v, 0, &s))
        return pm_fail(err, PYMTP_E_FORMAT, "%.300s: key 'general.architecture': expected a string, found another type", pm_gguf_path(g));
    *out = s.data;
    return PYMTP_OK;
}

const pm_gguf_value *pm_keys_find(pm_keys *k, const char *name) {
    if (k->other) {
        snprintf(k->full, sizeof k->full, "%s.%s", k->other, name);
        const pm_gguf_value *v = pm_gguf_find(k->file, k->full);
        if (v) return v;
    }
    snprintf(k->full, sizeof k->full, "%s.%s", k->prefix, name);
    return pm_gguf_find(k->file, k->full);
}

pymtp_status pm_keys_bad(const pm_keys *k, const pm_gguf_value *v, const char *expected) {
    char found[FOUND_BYTES];
    pm_gguf_json(v, 4, found, sizeof found);
    return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s': expected %s, found %s", pm_gguf_path(k->file), k->full, expected, found);
}

static pymtp_status absent(const pm_keys *k, pm_need need) {
    if (need == PM_OPTIONAL) return PYMTP_OK;
    return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s': missing", pm_gguf_path(k->file), k->full);
}

static pymtp_status bad_int(const pm_keys *k, const pm_gguf_value *v, const char *what, int64_t low, int64_t high) {
    char expected[96];
    if (low == high) snprintf(expected, sizeof expected, "%lld", (long long)low);
    else snprintf(expected, sizeof expected, "%s in %lld..%lld", what, (long long)low, (long long)high);
    return pm_keys_bad(k, v, expected);
}

/* Element i of v in range, 1 or 0. */
static int int_at(const pm_gguf_value *v, uint64_t i, int64_t low, int64_t high, int32_t *out) {
    int64_t n;
    if (!pm_gguf_int(v, i, &n) || n < low || n > high) return 0;
    *out = (int32_t)n;
    return 1;
}

static pymtp_status read_int(pm_keys *k, const pm_gguf_value *v, int64_t low, int64_t high, int32_t *out) {
    const uint64_t n = pm_gguf_value_count(v);
    int32_t first = 0, next = 0;
    if (!int_at(v, 0, low, high, &first)) return bad_int(k, v, "an integer", low, high);
    for (uint64_t i = 1; i < n; i++)
        if (!int_at(v, i, low, high, &next) || next != first) return pm_keys_bad(k, v, "one integer, or an array of equal ones");
    *out = first;
    return PYMTP_OK;
}

pymtp_status pm_keys_int(pm_keys *k, const char *name, pm_need need, int64_t low, int64_t high, int32_t *out) {
    const pm_gguf_value *v = pm_keys_find(k, name);
    return v ? read_int(k, v, low, high, out) : absent(k, need);
}

pymtp_status pm_keys_int_of(pm_keys *k, const char *const *names, size_t n, int64_t low, int64_t high, int32_t *out) {
    for (size_t i = 0; i < n; i++) {
        const pm_gguf_value *v = pm_keys_find(k, names[i]);
        if (v) return read_int(k, v, low, high, out);
    }
    return PYMTP_OK;
}

pymtp_status pm_keys_float(pm_keys *k, const char *name, pm_need need, double low, double high, double *out) {
    const pm_gguf_value *v = pm_keys_find(k, name);
    double x;
    if (!v) return absent(k, need);
    if (pm_gguf_value_count(v) != 1 || !pm_gguf_float(v, 0, &x) || !isfinite(x) || x < low || x > high) {
        char expected[64];
        snprintf(expected, sizeof expected, "a number in %g..%g", low, high);
        return pm_keys_bad(k, v, expected);
    }
    *out = x;
    return PYMTP_OK;
}

pymtp_status pm_keys_layers(pm_keys *k, const char *name, pm_need need, int32_t n, int64_t low, int64_t high, int32_t *out) {
    const pm_gguf_value *v = pm_keys_find(k, name);
    if (!v) return absent(k, need);
    if (pm_gguf_value_is_array(v) && pm_gguf_value_count(v) != (uint64_t)n) {
        char expected[64];
        snprintf(expected, sizeof expected, "%d values, one a layer", n);
        return pm_keys_bad(k, v, expected);
    }
    for (int32_t i = 0; i < n; i++)
        if (!int_at(v, pm_gguf_value_is_array(v) ? (uint64_t)i : 0, low, high, &out[i])) return bad_int(k, v, "integers", low, high);
    return PYMTP_OK;
}

pymtp_status pm_keys_pattern(pm_keys *k, pm_need need, int32_t n, int32_t *out) {
    const char *name = "attention.sliding_window_pattern";
    const pm_gguf_value *v = pm_keys_find(k, name);
    int32_t period;
    if (!v) return absent(k, need);
    if (pm_gguf_value_is_array(v) || pm_gguf_value_type(v) == PM_GGUF_BOOL) return pm_keys_layers(k, name, need, n, 0, 1, out);
    PM_TRY(pm_keys_int(k, name, need, 1, INT32_MAX, &period));
    for (int32_t i = 0; i < n; i++) out[i] = (i + 1) % period != 0;
    return PYMTP_OK;
}

pymtp_status pm_keys_rope(pm_keys *k, const char *dims_name, int32_t head_dim, int32_t *dims, const char *base_name, double *base) {
    const pm_gguf_value *v = pm_keys_find(k, "rope.scaling.type");
    pm_string s;
    if (v && !(pm_gguf_str(v, 0, &s) && !strcmp(s.data, "none"))) return pm_keys_bad(k, v, "\"none\"");
    PM_TRY(pm_keys_float(k, base_name, PM_OPTIONAL, 1e-6, 1e30, base));
    *dims = head_dim;
    PM_TRY(pm_keys_int(k, dims_name, PM_OPTIONAL, 1, PM_MAX_SIZE, dims));
    if (*dims != head_dim)
        return pm_fail(k->err, PYMTP_E_FORMAT, "%.300s: key '%s': expected %d, the head size, found %d", pm_gguf_path(k->file), k->full, head_dim, *dims);
    return PYMTP_OK;
}
