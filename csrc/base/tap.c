/* tap.c - the growing list of sums behind a tap: see tap.h. */
#include "base/tap.h"
#include "base/checked.h"
#include "base/memory.h"

#include <string.h>

struct pm_tap {
    size_t n, capacity;
    pm_tap_sums **list; /* (n), each where it stays */
    size_t next;        /* where the next tensor is looked for first: passes use them in the same order */
    int out_of_memory;
};

pm_tap *pm_tap_new(pymtp_error *err) { return pm_new(1, sizeof(pm_tap), "tap", err); }

static void sums_free(pm_tap_sums *s) {
    if (!s) return;
    pm_free(s->sums);
    pm_free(s->rows);
    pm_free(s);
}

void pm_tap_free(pm_tap *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n; i++) sums_free(t->list[i]);
    pm_free(t->list);
    pm_free(t);
}

static pm_tap_sums *sums_new(const char *name, size_t matrices, size_t cols) {
    pm_tap_sums *s = pm_calloc(1, sizeof *s);
    size_t values;
    if (!s) return NULL;
    *s = (pm_tap_sums){.name = name, .matrices = matrices, .cols = cols};
    if (!pm_mul_size(matrices, cols, &values)) {
        s->sums = pm_calloc(values, sizeof *s->sums);
        s->rows = pm_calloc(matrices, sizeof *s->rows);
    }
    if (s->sums && s->rows) return s;
    sums_free(s);
    return NULL;
}

/* Makes room for one more. */
static int grow(pm_tap *t) {
    if (t->n < t->capacity) return 1;
    const size_t capacity = t->capacity ? 2 * t->capacity : 256;
    pm_tap_sums **list = pm_realloc(t->list, capacity, sizeof *list);
    if (!list) return 0;
    t->list = list;
    t->capacity = capacity;
    return 1;
}

pm_tap_sums *pm_tap_of(pm_tap *t, const char *name, size_t matrices, size_t cols) {
    if (t->out_of_memory) return NULL;
    for (size_t k = 0; k < t->n; k++) {
        const size_t i = (t->next + k) % t->n;
        if (strcmp(t->list[i]->name, name)) continue;
        t->next = i + 1;
        return t->list[i];
    }
    pm_tap_sums *s = grow(t) ? sums_new(name, matrices, cols) : NULL;
    if (s) t->list[t->n++] = s;
    t->out_of_memory = !s;
    return s;
}

void pm_tap_row(pm_tap_sums *s, size_t matrix, const float *x) {
    double *sums = s->sums + matrix * s->cols;
    for (size_t i = 0; i < s->cols; i++) sums[i] += (double)x[i] * (double)x[i];
    s->rows[matrix]++;
}

size_t pm_tap_count(const pm_tap *t) { return t->n; }

const pm_tap_sums *pm_tap_at(const pm_tap *t, size_t i) { return i < t->n ? t->list[i] : NULL; }

pymtp_status pm_tap_status(const pm_tap *t, pymtp_error *err) {
    return t->out_of_memory ? pm_fail(err, PYMTP_E_NOMEM, "out of memory: sums of activations") : PYMTP_OK;
}
