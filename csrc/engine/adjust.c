/* adjust.c - bias, then repetition, presence and frequency penalties, in double and rounded to float once. */
#include "engine/adjust.h"
#include "base/memory.h"
#include "base/mix.h"

#include <float.h>
#include <math.h>

/* The slot of an id, or the free one where it belongs. slots > used. */
static pm_adjust_entry *probe(const pm_adjust *a, int32_t id) {
    size_t i = (size_t)pm_hash_word(a->key, (uint32_t)id) & (a->slots - 1);
    while (a->slot[i].id != id && a->slot[i].id >= 0) i = (i + 1) & (a->slots - 1);
    return &a->slot[i];
}

static pymtp_status grow(pm_adjust *a, pymtp_error *err) {
    pm_adjust bigger = *a;
    bigger.key = pm_hash_key();
    bigger.slots = a->slots ? a->slots * 2 : 64;
    bigger.slot = pm_new(bigger.slots, sizeof *bigger.slot, "sampler history", err);
    if (!bigger.slot) return PYMTP_E_NOMEM;
    for (size_t i = 0; i < bigger.slots; i++) bigger.slot[i].id = -1;
    for (size_t i = 0; i < a->slots; i++)
        if (a->slot[i].id >= 0) *probe(&bigger, a->slot[i].id) = a->slot[i];
    pm_free(a->slot);
    *a = bigger;
    return PYMTP_OK;
}

pm_adjust_entry *pm_adjust_at(pm_adjust *a, int32_t id, pymtp_error *err) {
    if (a->slots) {
        pm_adjust_entry *e = probe(a, id);
        if (e->id == id) return e;
    }
    if (a->used * 2 >= a->slots && grow(a, err) != PYMTP_OK) return NULL;
    pm_adjust_entry *e = probe(a, id);
    *e = (pm_adjust_entry){.id = id};
    a->used++;
    return e;
}

void pm_adjust_free(pm_adjust *a) {
    pm_free(a->slot);
    *a = (pm_adjust){0};
}

static float adjusted(const pm_adjust *a, const pm_adjust_entry *e, float logit) {
    double v = (double)logit + e->bias;
    if (v == -INFINITY) return -INFINITY;
    if (e->count > 0) {
        v = v > 0 ? v / a->repetition : v * a->repetition;
        v -= a->presence + a->frequency * (double)e->count;
    }
    /* only a bias of -inf bans: what overflows stays a candidate */
    return v > (double)FLT_MAX ? FLT_MAX : v < -(double)FLT_MAX ? -FLT_MAX : (float)v;
}

void pm_adjust_apply(const pm_adjust *a, float *logits, const int32_t *ids, size_t n) {
    if (!a->used) return;
    if (ids) {
        for (size_t i = 0; i < n; i++) {
            const pm_adjust_entry *e = probe(a, ids[i]);
            if (e->id == ids[i]) logits[i] = adjusted(a, e, logits[i]);
        }
        return;
    }
    for (size_t i = 0; i < a->slots; i++) {
        const pm_adjust_entry *e = &a->slot[i];
        if (e->id >= 0 && (size_t)e->id < n) logits[e->id] = adjusted(a, e, logits[e->id]);
    }
}
