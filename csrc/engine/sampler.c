/* sampler.c - the chain from logits to a token, and the noise behind it.
 *
 * Candidates are compared by (logit descending, id ascending) everywhere, sums run in that order or are exact, and the
 * noise depends on (seed, position, id) alone: the order in which candidates arrive cannot matter. Nothing is sorted
 * beyond the top-k candidates or the nucleus. */
#include "engine/sampler.h"
#include "base/checked.h"
#include "base/f16.h"
#include "base/memory.h"
#include "base/mix.h"
#include "engine/adjust.h"
#include "engine/params.h"

#include <math.h>
#include <string.h>

#define BLOCK ((size_t)256) /* candidates that are skipped together when none reaches the threshold */

typedef struct candidate { float logit; int32_t id; } candidate;

struct pm_sampler {
    double temperature, top_p, min_p;
    size_t top_k;             /* 0: off */
    uint64_t seed;
    int32_t vocab;
    pm_adjust adjust;
    float *work;              /* (work_cap) adjusted logits */
    candidate *pool;          /* (pool_cap) survivors */
    size_t work_cap, pool_cap;
};

/* ---- noise ---- */

#define GOLDEN 0x9e3779b97f4a7c15u

/* The part of the counter that all candidates of a row share. */
static uint64_t noise_row(uint64_t seed, int64_t position) { return pm_mix(pm_mix(seed + GOLDEN) + (uint64_t)position * GOLDEN); }

static double noise_at(uint64_t row, int32_t id) {
    const uint64_t x = pm_mix(row + ((uint64_t)(uint32_t)id + 1) * GOLDEN);
    const double u = (double)((x >> 12) * 2 + 1) * 0x1p-53; /* odd multiples of 2^-53: exact, never 0 or 1 */
    return -log(-log(u));
}

#define NOISE_MAX 36.75 /* -log(-log(1 - 2^-53)) = 36.737 */

double pm_gumbel(uint64_t seed, int64_t position, int32_t id) { return noise_at(noise_row(seed, position), id); }

/* ---- heaps of candidates ---- */

static int better(candidate a, candidate b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

/* Restores the heap below h[i]; the root is the best candidate, or the worst. */
static void sift(candidate *h, size_t n, size_t i, int best_first) {
    const candidate moving = h[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && better(h[child + 1], h[child]) == best_first) child++;
        if (better(h[child], moving) != best_first) break;
        h[i] = h[child];
    }
    h[i] = moving;
}

static void heapify(candidate *h, size_t n, int best_first) {
    for (size_t i = n / 2; i-- > 0;) sift(h, n, i, best_first);
}

/* ---- filters: each leaves its survivors at the front of pool and returns their number ---- */

static int reaches(const float *x, size_t n, float threshold) {
    int any = 0;
    for (size_t i = 0; i < n; i++) any |= x[i] >= threshold;
    return any;
}

/* The k best of n candidates that are not banned, in no order. One pass; most blocks are skipped at a glance. */
static size_t keep_top_k(candidate *pool, const float *x, const int32_t *ids, size_t n, size_t k) {
    size_t kept = 0;
    for (size_t start = 0; start < n; start += BLOCK) {
        const size_t end = n - start < BLOCK ? n : start + BLOCK;
        if (kept == k && !reaches(x + start, end - start, pool[0].logit)) continue;
        for (size_t i = start; i < end; i++) {
            const candidate c = {x[i], ids ? ids[i] : (int32_t)i};
            if (c.logit == -INFINITY) continue;
            if (kept < k) {
                pool[kept++] = c;
                if (kept == k) heapify(pool, k, 0);
            } else if (better(c, pool[0])) {
                pool[0] = c;
                sift(pool, k, 0, 0);
            }
        }
    }
    return kept;
}

static candidate best_of(const candidate *pool, size_t n) {
    candidate best = pool[0];
    for (size_t i = 1; i < n; i++)
        if (better(pool[i], best)) best = pool[i];
    return best;
}

/* exp(logit - best): the candidate's probability relative to the best one's. */
static double weight(candidate c, candidate best) { return exp((double)c.logit - (double)best.logit); }

/* Sum of the weights, in units of 2^-63 and therefore exact: the same in every order. The rounding of a term is far below
 * that of a sum of doubles. */
static double total_weight(const candidate *pool, size_t n, candidate best) {
    uint64_t high = 0, low = 0; /* both grow by less than 2^32 a candidate */
    for (size_t i = 0; i < n; i++) {
        if (pool[i].logit - best.logit < -44) continue; /* exp(-44) < 2^-63 */
        const uint64_t w = (uint64_t)(weight(pool[i], best) * 0x1p63);
        high += w >> 32;
        low += w & 0xffffffffu;
    }
    return (double)high * 0x1p-31 + (double)low * 0x1p-63;
}

/* The shortest prefix, in (logit descending, id) order, whose probabilities sum to top_p; at least one. */
static size_t keep_top_p(candidate *pool, size_t n, candidate best, double top_p) {
    const double total = total_weight(pool, n, best);
    double sum = 0;
    size_t left = n;
    heapify(pool, n, 1);
    while (left) {
        const candidate next = pool[0];
        pool[0] = pool[--left];
        if (left) sift(pool, left, 0, 1);
        pool[left] = next; /* the prefix gathers at the end of the pool */
        sum += weight(next, best) / total;
        if (sum >= top_p) break;
    }
    memmove(pool, pool + left, (n - left) * sizeof *pool);
    return n - left;
}

static size_t keep_min_p(candidate *pool, size_t n, candidate best, double min_p) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (weight(pool[i], best) >= min_p) pool[kept++] = pool[i];
    return kept;
}

/* argmax of logit / temperature + noise. Differences to the best logit keep tiny temperatures finite. */
static int32_t draw(const candidate *pool, size_t n, candidate best, double temperature, uint64_t row) {
    int32_t chosen = best.id;
    double top = noise_at(row, best.id);
    for (size_t i = 0; i < n; i++) {
        const double v = ((double)pool[i].logit - (double)best.logit) / temperature;
        if (v + NOISE_MAX < top) continue; /* no noise could lift it */
        const double score = v + noise_at(row, pool[i].id);
        if (score > top || (score == top && pool[i].id < chosen)) {
            top = score;
            chosen = pool[i].id;
        }
    }
    return chosen;
}

/* ---- the sampler ---- */

static pymtp_status add_bias(pm_sampler *s, int32_t id, double bias, pymtp_error *err) {
    pm_adjust_entry *e = pm_adjust_at(&s->adjust, id, err);
    if (!e) return PYMTP_E_NOMEM;
    e->bias += bias;
    return PYMTP_OK;
}

static pymtp_status fill(pm_sampler *s, const pymtp_params *p, const int32_t *suppressed, size_t n_suppressed, pymtp_error *err) {
    for (size_t i = 0; i < p->n_bias; i++) PM_TRY(add_bias(s, p->bias_ids[i], (double)p->bias_values[i], err));
    for (size_t i = 0; i < n_suppressed; i++) {
        if (suppressed[i] < 0 || suppressed[i] >= s->vocab)
            return pm_fail(err, PYMTP_E_ARG, "suppressed tokens: expected ids from 0 to %d, found %d", s->vocab - 1, suppressed[i]);
        PM_TRY(add_bias(s, suppressed[i], -INFINITY, err));
    }
    return PYMTP_OK;
}

pymtp_status pm_sampler_new(const pymtp_params *params, const int32_t *suppressed, size_t n_suppressed, int32_t vocab, pm_sampler **out,
                            pymtp_error *err) {
    *out = NULL;
    PM_TRY(pm_params_check(params, vocab, err));
    pm_sampler *s = pm_new(1, sizeof *s, "sampler", err);
    if (!s) return PYMTP_E_NOMEM;
    s->temperature = params->temperature;
    s->top_p = params->top_p;
    s->min_p = params->min_p;
    s->top_k = (size_t)params->top_k;
    s->seed = params->seed;
    s->vocab = vocab;
    s->adjust.repetition = params->repetition_penalty;
    s->adjust.presence = params->presence_penalty;
    s->adjust.frequency = params->frequency_penalty;
    const pymtp_status status = fill(s, params, suppressed, n_suppressed, err);
    if (status != PYMTP_OK) {
        pm_sampler_free(s);
        return status;
    }
    *out = s;
    return PYMTP_OK;
}

void pm_sampler_free(pm_sampler *s) {
    if (!s) return;
    pm_adjust_free(&s->adjust);
    pm_free(s->work);
    pm_free(s->pool);
    pm_free(s);
}

int32_t pm_sampler_top(const pm_sampler *s) {
    const pm_adjust *a = &s->adjust;
    const size_t k = s->temperature == 0 ? 1 : s->top_k;
    if (!k || pm_adjust_penalizes(a)) return 0;
    for (size_t i = 0; i < a->slots; i++)
        if (a->slot[i].id >= 0 && a->slot[i].bias != -INFINITY) return 0;
    return k + a->used <= (size_t)s->vocab ? (int32_t)(k + a->used) : 0; /* used: only bans */
}

/* Adds to the count of an id; without penalties counts are not needed. */
static pymtp_status count(pm_sampler *s, int32_t id, int32_t by, pymtp_error *err) {
    if (id < 0 || id >= s->vocab) return pm_fail(err, PYMTP_E_ARG, "history: expected ids from 0 to %d, found %d", s->vocab - 1, id);
    if (!pm_adjust_penalizes(&s->adjust)) return PYMTP_OK;
    pm_adjust_entry *e = pm_adjust_at(&s->adjust, id, err);
    if (!e) return PYMTP_E_NOMEM;
    e->count += by;
    return PYMTP_OK;
}

pymtp_status pm_sampler_accept(pm_sampler *s, int32_t id, pymtp_error *err) { return count(s, id, 1, err); }

/* Room for `n` elements in scratch that is reused from row to row. */
static pymtp_status reserve(void **p, size_t *cap, size_t n, size_t bytes, pymtp_error *err) {
    if (n <= *cap) return PYMTP_OK;
    void *bigger = pm_realloc(*p, n, bytes);
    if (!bigger) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: sampler (%zu candidates)", n);
    *p = bigger;
    *cap = n;
    return PYMTP_OK;
}

static pymtp_status check_finite(const float *logits, size_t n, int64_t position, pymtp_error *err) {
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) bad |= (pm_f32_bits(logits[i]) & 0x7f800000u) == 0x7f800000u;
    if (!bad) return PYMTP_OK;
    return pm_fail(err, PYMTP_E_NONFINITE, "the network produced a NaN or an infinity among the logits at position %lld", (long long)position);
}

/* From adjusted logits to the token. */
static pymtp_status choose(pm_sampler *s, const float *x, const int32_t *ids, size_t n, int64_t position, int32_t *out, pymtp_error *err) {
    size_t k = s->temperature == 0 ? 1 : s->top_k;
    if (!k || k > n) k = n;
    void *pool = s->pool;
    const pymtp_status status = reserve(&pool, &s->pool_cap, k, sizeof *s->pool, err);
    s->pool = pool;
    PM_TRY(status);
    size_t kept = keep_top_k(s->pool, x, ids, n, k);
    if (!kept) return pm_fail(err, PYMTP_E_ARG, "logit_bias: all %zu candidates at position %lld are banned", n, (long long)position);
    const candidate best = best_of(s->pool, kept);
    if (s->temperature == 0) {
        *out = best.id;
        return PYMTP_OK;
    }
    if (s->top_p < 1) kept = keep_top_p(s->pool, kept, best, s->top_p);
    if (s->min_p > 0) kept = keep_min_p(s->pool, kept, best, s->min_p);
    *out = draw(s->pool, kept, best, s->temperature, noise_row(s->seed, position));
    return PYMTP_OK;
}

pymtp_status pm_sampler_choose(pm_sampler *s, const float *logits, const int32_t *ids, size_t n, const int32_t *extra, size_t n_extra,
                               int64_t position, int32_t *out, pymtp_error *err) {
    pymtp_status status = PYMTP_OK;
    size_t counted = 0;
    *out = -1;
    if (!n || (!ids && n > INT32_MAX)) return pm_fail(err, PYMTP_E_ARG, "logits: expected 1 to %d candidates, found %zu", INT32_MAX, n);
    PM_TRY(check_finite(logits, n, position, err));
    while (counted < n_extra && status == PYMTP_OK) {
        status = count(s, extra[counted], 1, err);
        if (status == PYMTP_OK) counted++;
    }
    if (status == PYMTP_OK && s->adjust.used) {
        void *work = s->work;
        status = reserve(&work, &s->work_cap, n, sizeof *s->work, err);
        s->work = work;
        if (status == PYMTP_OK) {
            memcpy(s->work, logits, n * sizeof *logits);
            pm_adjust_apply(&s->adjust, s->work, ids, n);
            logits = s->work;
        }
    }
    while (counted) count(s, extra[--counted], -1, NULL); /* cannot fail: the entries are there */
    PM_TRY(status);
    return choose(s, logits, ids, n, position, out, err);
}

void pm_sampler_logprobs(const float *logits, size_t n, int32_t id, int32_t top, pymtp_logprob *out) {
    candidate best[20] = {{0}};
    double sum = 0;
    size_t kept;
    const size_t want = top < 1 ? 1 : top > 20 ? 20 : (size_t)top;
    kept = keep_top_k(best, logits, NULL, n, want < n ? want : n);
    const candidate max = best_of(best, kept);
    for (size_t i = 0; i < n; i++) sum += exp((double)logits[i] - (double)max.logit);
    const double norm = (double)max.logit + log(sum);
    out[0] = (pymtp_logprob){id, (float)((double)logits[id] - norm)};
    heapify(best, kept, 1);
    for (int32_t i = 1; i <= top; i++) {
        out[i] = (pymtp_logprob){-1, -INFINITY}; /* fewer candidates than asked for */
        if (!kept) continue;
        out[i] = (pymtp_logprob){best[0].id, (float)((double)best[0].logit - norm)};
        best[0] = best[--kept];
        if (kept) sift(best, kept, 0, 1);
    }
}

/* ---- public ---- */

int64_t pymtp_sample(const pymtp_params *params, const float *logits, const int32_t *ids, size_t n, const int32_t *history,
                     size_t n_history, int64_t position, pymtp_error *err) {
    pm_sampler *s;
    int32_t id = -1;
    pm_clear(err);
    if (!logits) return pm_fail(err, PYMTP_E_ARG, "logits: expected an array, found NULL");
    if (n_history && !history) return pm_fail(err, PYMTP_E_ARG, "history: expected %zu ids, found NULL", n_history);
    if (position < 0) return pm_fail(err, PYMTP_E_ARG, "position: expected 0 or more, found %lld", (long long)position);
    for (size_t i = 0; ids && i < n; i++)
        if (ids[i] < 0) return pm_fail(err, PYMTP_E_ARG, "ids: expected ids from 0, found %d", ids[i]);
    PM_TRY(pm_sampler_new(params, NULL, 0, INT32_MAX, &s, err));
    pymtp_status status = PYMTP_OK;
    for (size_t i = 0; i < n_history && status == PYMTP_OK; i++) status = pm_sampler_accept(s, history[i], err);
    if (status == PYMTP_OK) status = pm_sampler_choose(s, logits, ids, n, NULL, 0, position, &id, err);
    pm_sampler_free(s);
    return status == PYMTP_OK ? id : status;
}
