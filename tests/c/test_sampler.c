/* test_sampler.c - the chain against a literal implementation that sorts everything, the noise, the refusals. */
#include "check.h"
#include "engine/adjust.h"
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 12345;

static uint32_t random_u32(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}
static double random_unit(void) { return (double)random_u32() / 2147483648.0; }

/* ---- the literal chain ---- */

typedef struct entry { double logit; int32_t id; } entry;

static int compare_entries(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static double adjusted(const pymtp_params *p, const int32_t *suppressed, size_t n_suppressed, double v, int32_t id, const int32_t *history,
                       size_t n_history) {
    int seen = 0;
    for (size_t i = 0; i < p->n_bias; i++)
        if (p->bias_ids[i] == id) v += (double)p->bias_values[i];
    for (size_t i = 0; i < n_suppressed; i++)
        if (suppressed[i] == id) v = -INFINITY;
    for (size_t i = 0; i < n_history; i++) seen += history[i] == id;
    if (seen) {
        v = v > 0 ? v / p->repetition_penalty : v * p->repetition_penalty;
        v -= p->presence_penalty + p->frequency_penalty * seen;
    }
    return (double)(float)v;
}

static int32_t literal(const pymtp_params *p, const int32_t *suppressed, size_t n_suppressed, const float *logits, const int32_t *ids,
                       size_t n, const int32_t *history, size_t n_history, int64_t position) {
    entry *e = calloc(n, sizeof *e);
    size_t kept = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        const int32_t id = ids ? ids[i] : (int32_t)i;
        const double v = adjusted(p, suppressed, n_suppressed, (double)logits[i], id, history, n_history);
        if (v > -INFINITY) e[all++] = (entry){v, id};
    }
    qsort(e, all, sizeof *e, compare_entries);
    if (p->top_k && (size_t)p->top_k < all) all = (size_t)p->top_k;
    double total = 0, sum = 0, best = -INFINITY;
    int32_t chosen = e[0].id;
    for (size_t i = 0; i < all; i++) total += exp(e[i].logit - e[0].logit);
    while (kept < all) {
        sum += exp(e[kept++].logit - e[0].logit) / total;
        if (p->top_p < 1 && sum >= p->top_p) break;
    }
    while (kept > 1 && exp(e[kept - 1].logit - e[0].logit) < p->min_p) kept--;
    if (p->temperature == 0) kept = 1;
    for (size_t i = 0; i < kept && p->temperature > 0; i++) {
        const double score = (e[i].logit - e[0].logit) / p->temperature + pm_gumbel(p->seed, position, e[i].id);
        if (score > best || (score == best && e[i].id < chosen)) {
            best = score;
            chosen = e[i].id;
        }
    }
    free(e);
    return chosen;
}

/* ---- helpers ---- */

static int32_t chosen_by(pm_sampler *s, const float *logits, const int32_t *ids, size_t n, const int32_t *extra, size_t n_extra,
                         int64_t position) {
    pymtp_error err = {0};
    int32_t id = -1;
    const pymtp_status status = pm_sampler_choose(s, logits, ids, n, extra, n_extra, position, &id, &err);
    CHECK(status == PYMTP_OK, "%s", err.text);
    return id;
}

static int32_t sample_once(const pymtp_params *p, const float *logits, size_t n, const int32_t *history, size_t n_history) {
    pymtp_error err = {0};
    const int64_t id = pymtp_sample(p, logits, NULL, n, history, n_history, 7, &err);
    CHECK(id >= 0, "%s", err.text);
    return (int32_t)id;
}

static void shuffle(float *x, int32_t *ids, size_t n) {
    for (size_t i = n; i > 1; i--) {
        const size_t j = random_u32() % i;
        const float f = x[i - 1];
        const int32_t id = ids[i - 1];
        x[i - 1] = x[j];
        ids[i - 1] = ids[j];
        x[j] = f;
        ids[j] = id;
    }
}

/* ---- tests ---- */

#define VOCAB 700
#define HISTORY 40

/* Random logits (some with many ties), params and histories; candidates in id order, and a shuffled subset. */
static void test_against_literal(void) {
    static const int32_t ks[] = {0, 1, 2, 5, 64, 699, 700, 5000};
    static const double temperatures[] = {0, 0.05, 0.7, 1, 1.5, 20};
    float logits[VOCAB], bias[6], subset[VOCAB];
    int32_t bias_ids[6], history[HISTORY], suppressed[3], ids[VOCAB];
    for (int round = 0; round < 3000; round++) {
        pymtp_params p;
        pymtp_params_init(&p);
        const int steps = random_u32() % 3 ? 0 : 1 + (int)(random_u32() % 8); /* 0: continuous */
        for (int i = 0; i < VOCAB; i++) {
            const double v = (random_unit() * 2 - 1) * (round % 2 ? 4 : 28);
            logits[i] = (float)(steps ? floor(v / 28 * steps) : v);
        }
        p.top_k = ks[random_u32() % 8];
        p.temperature = temperatures[random_u32() % 6];
        p.top_p = random_u32() % 3 ? random_unit() : 1;
        p.min_p = random_u32() % 3 ? 0 : random_unit() * 0.3;
        p.seed = random_u32();
        p.repetition_penalty = random_u32() % 2 ? 1 : 0.5 + random_unit();
        p.presence_penalty = random_u32() % 2 ? 0 : random_unit() * 2 - 1;
        p.frequency_penalty = random_u32() % 2 ? 0 : random_unit() - 0.5;
        p.n_bias = random_u32() % 7;
        p.bias_ids = bias_ids;
        p.bias_values = bias;
        for (size_t i = 0; i < p.n_bias; i++) {
            bias_ids[i] = (int32_t)(random_u32() % VOCAB); /* ids may repeat: they add up */
            bias[i] = random_u32() % 4 ? (float)(random_unit() * 20 - 10) : -INFINITY;
        }
        const size_t n_suppressed = random_u32() % 4, emitted = random_u32() % HISTORY;
        for (size_t i = 0; i < n_suppressed; i++) suppressed[i] = (int32_t)(random_u32() % VOCAB);
        for (int i = 0; i < HISTORY; i++) history[i] = (int32_t)(random_u32() % (round % 3 ? VOCAB : 10));
        pm_sampler *s = NULL;
        pymtp_error err = {0};
        CHECK(pm_sampler_new(&p, suppressed, n_suppressed, VOCAB, &s, &err) == PYMTP_OK, "%s", err.text);
        if (!s) return;
        for (size_t i = 0; i < emitted; i++) CHECK(pm_sampler_accept(s, history[i], NULL) == PYMTP_OK, "accept");
        /* twice: what was extra must leave no trace */
        for (int again = 0; again < 2; again++) {
            const int32_t found = chosen_by(s, logits, NULL, VOCAB, history + emitted, HISTORY - emitted, round);
            const int32_t expected = literal(&p, suppressed, n_suppressed, logits, NULL, VOCAB, history, HISTORY, round);
            CHECK(found == expected, "round %d: expected %d, found %d", round, expected, found);
        }
        memcpy(subset, logits, sizeof logits);
        for (int i = 0; i < VOCAB; i++) ids[i] = i;
        shuffle(subset, ids, VOCAB);
        CHECK(chosen_by(s, subset, ids, VOCAB, NULL, 0, round) == chosen_by(s, logits, NULL, VOCAB, NULL, 0, round), "order, round %d", round);
        const int32_t found = chosen_by(s, subset, ids, 60, NULL, 0, round);
        CHECK(found == literal(&p, suppressed, n_suppressed, subset, ids, 60, history, emitted, round), "subset, round %d", round);
        pm_sampler_free(s);
    }
}

static void sort_best_first(const float *logits, float *best, int32_t *ids) {
    static entry all[VOCAB];
    for (int i = 0; i < VOCAB; i++) all[i] = (entry){(double)logits[i], i};
    qsort(all, VOCAB, sizeof *all, compare_entries);
    for (int i = 0; i < VOCAB; i++) {
        best[i] = logits[all[i].id];
        ids[i] = all[i].id;
    }
}

/* The best logits that pm_sampler_top asks for give the choice of all of them; bans cost one each, and what can lift any logit asks
 * for all. */
static void test_top(void) {
    float logits[VOCAB], best[VOCAB], bias[8];
    int32_t ids[VOCAB], bias_ids[8], suppressed[3];
    int fewer = 0;
    for (int round = 0; round < 2000; round++) {
        pymtp_params p;
        pymtp_params_init(&p);
        p.temperature = round % 3 ? 0.3 * (round % 7 + 1) : 0;
        p.top_k = 1 + (int32_t)(random_u32() % 80);
        p.top_p = random_u32() % 2 ? random_unit() : 1;
        p.min_p = random_u32() % 3 ? 0 : random_unit() * 0.3;
        p.seed = random_u32();
        for (int i = 0; i < VOCAB; i++) {
            const double v = random_unit() * 16 - 8;
            logits[i] = (float)(round % 2 ? v : floor(v)); /* half of the rounds: many ties */
        }
        sort_best_first(logits, best, ids); /* the best are the likeliest to be banned */
        p.n_bias = random_u32() % 8;
        p.bias_ids = bias_ids;
        p.bias_values = bias;
        for (size_t i = 0; i < p.n_bias; i++) {
            bias_ids[i] = ids[random_u32() % 20];
            bias[i] = -INFINITY;
        }
        const size_t n_suppressed = random_u32() % 4;
        for (size_t i = 0; i < n_suppressed; i++) suppressed[i] = ids[random_u32() % 5];
        pm_sampler *s = NULL;
        CHECK(pm_sampler_new(&p, suppressed, n_suppressed, VOCAB, &s, NULL) == PYMTP_OK, "sampler");
        if (!s) return;
        const int32_t top = pm_sampler_top(s), k = p.temperature == 0 ? 1 : p.top_k;
        CHECK(top >= k && top <= k + (int32_t)(p.n_bias + n_suppressed), "k %d asks for %d with %zu bans", k, top, p.n_bias + n_suppressed);
        fewer += top < k + (int32_t)(p.n_bias + n_suppressed); /* an id that is banned twice counts once */
        const int32_t expected = chosen_by(s, logits, NULL, VOCAB, NULL, 0, round);
        CHECK(chosen_by(s, best, ids, (size_t)top, NULL, 0, round) == expected, "round %d: the best %d choose another token", round, top);
        pm_sampler_free(s);
    }
    CHECK(fewer, "no id was banned twice");
}

static int32_t top_of(pymtp_params p, int32_t vocab) {
    pm_sampler *s = NULL;
    CHECK(pm_sampler_new(&p, NULL, 0, vocab, &s, NULL) == PYMTP_OK, "sampler");
    const int32_t top = s ? pm_sampler_top(s) : -1;
    pm_sampler_free(s);
    return top;
}

static void test_top_or_all(void) {
    const int32_t id = 3;
    const float finite = 0.5f, ban = -INFINITY;
    pymtp_params base, p;
    pymtp_params_init(&base);
    CHECK(top_of(base, VOCAB) == 64 && top_of(base, 64) == 64 && top_of(base, 63) == 0, "top-k 64 of vocabularies");
    p = base;
    p.top_k = 0;
    CHECK(top_of(p, VOCAB) == 0, "no top-k");
    p.temperature = 0;
    CHECK(top_of(p, VOCAB) == 1, "greedy");
    p.bias_ids = &id;
    p.bias_values = &ban;
    p.n_bias = 1;
    CHECK(top_of(p, VOCAB) == 2 && top_of(p, 4) == 2, "greedy with a ban");
    p.bias_values = &finite;
    CHECK(top_of(p, VOCAB) == 0, "a finite bias");
    p = base;
    p.repetition_penalty = 1.1;
    CHECK(top_of(p, VOCAB) == 0, "a repetition penalty");
    p = base;
    p.presence_penalty = -0.1;
    CHECK(top_of(p, VOCAB) == 0, "a presence penalty");
    p = base;
    p.frequency_penalty = 0.1;
    CHECK(top_of(p, VOCAB) == 0, "a frequency penalty");
}

/* The real vocabulary: every way through the selection. */
static void test_large(void) {
    const size_t n = 262144;
    float *logits = calloc(n, sizeof *logits);
    static const int32_t ks[] = {64, 0, 0, 0, 1000};
    static const double ps[] = {0.95, 0.9, 1, 1, 1}, ms[] = {0, 0, 0, 0.01, 0}, ts[] = {1, 0.8, 1, 1, 0};
    for (size_t i = 0; i < n; i++) logits[i] = (float)(random_unit() * random_unit() * random_unit() * 30 - 5);
    for (int i = 0; i < 5; i++) {
        pymtp_params p;
        pymtp_params_init(&p);
        p.top_k = ks[i];
        p.top_p = ps[i];
        p.min_p = ms[i];
        p.temperature = ts[i];
        p.seed = 99;
        for (int64_t position = 0; position < 3; position++) {
            const int32_t expected = literal(&p, NULL, 0, logits, NULL, n, NULL, 0, position);
            const int64_t found = pymtp_sample(&p, logits, NULL, n, NULL, 0, position, NULL);
            CHECK(found == expected, "case %d: expected %d, found %lld", i, expected, (long long)found);
        }
    }
    free(logits);
}

/* Each stage on numbers worked out by hand, at temperature 0. */
static void test_by_hand(void) {
    pymtp_params p;
    const int32_t zero[] = {0}, ones[] = {1, 1, 1}, ids[] = {0};
    const float ban[] = {-INFINITY}, plus[] = {3};
    pymtp_params_init(&p);
    p.temperature = 0;
    CHECK(sample_once(&p, (float[]){1, 2, 2}, 3, NULL, 0) == 1, "ties go to the lowest id");
    CHECK(sample_once(&p, (float[]){-0.0f, 0.0f}, 2, NULL, 0) == 0, "zeros are equal");
    p.repetition_penalty = 2;
    CHECK(sample_once(&p, (float[]){2, 1.1f}, 2, zero, 1) == 1, "2 / 2 < 1.1");
    CHECK(sample_once(&p, (float[]){2, 0.9f}, 2, zero, 1) == 0, "2 / 2 > 0.9");
    CHECK(sample_once(&p, (float[]){-1, -1.9f}, 2, zero, 1) == 1, "-1 * 2 < -1.9");
    p.repetition_penalty = 1;
    p.presence_penalty = 1;
    CHECK(sample_once(&p, (float[]){2, 2.9f}, 2, ones, 3) == 0, "presence counts once");
    p.presence_penalty = 0;
    p.frequency_penalty = 1;
    CHECK(sample_once(&p, (float[]){2, 4.9f}, 2, ones, 3) == 0, "frequency counts three times");
    CHECK(sample_once(&p, (float[]){2, 5.1f}, 2, ones, 3) == 1, "and not more");
    p.frequency_penalty = 0;
    p.bias_ids = ids;
    p.bias_values = plus;
    p.n_bias = 1;
    CHECK(sample_once(&p, (float[]){0, 2.9f}, 2, NULL, 0) == 0, "bias adds");
    p.bias_values = ban;
    CHECK(sample_once(&p, (float[]){9, -30}, 2, NULL, 0) == 1, "a ban removes");
    p.temperature = 1;
    p.bias_values = plus;
    for (p.seed = 0; p.seed < 50; p.seed++) {
        p.top_k = 2;
        CHECK(sample_once(&p, (float[]){-3, 0, 0, 0}, 4, NULL, 0) < 2, "top-k keeps the lowest ids of a tie");
        p.top_k = 0;
        p.top_p = 0.4;
        CHECK(sample_once(&p, (float[]){-3, 0, 0, 0}, 4, NULL, 0) < 2, "two of four equal ones reach 0.4");
        p.top_p = 0;
        CHECK(sample_once(&p, (float[]){-3, 0, 0, 0}, 4, NULL, 0) == 0, "at least one stays");
        p.top_p = 1;
        p.min_p = 1;
        CHECK(sample_once(&p, (float[]){-3, 0, -0.001f, 0}, 4, NULL, 0) != 2, "min-p 1 keeps equals only");
        p.min_p = 0;
        p.temperature = 1e-300;
        CHECK(sample_once(&p, (float[]){-4, 0, 0.5f, 0}, 4, NULL, 0) == 2, "a tiny temperature is finite");
        p.temperature = 1;
    }
}

static void refused(const pymtp_params *p, const char *name) {
    pymtp_error err = {0};
    const int64_t got = pymtp_sample(p, (float[]){1, 2}, NULL, 2, NULL, 0, 0, &err);
    CHECK(got == PYMTP_E_ARG && err.code == PYMTP_E_ARG && strstr(err.text, name), "%s: %lld, '%s'", name, (long long)got, err.text);
}

#define REFUSED(field, value)      \
    do {                           \
        pymtp_params q = base;     \
        q.field = value;           \
        refused(&q, #field);       \
    } while (0)

static void test_refusals(void) {
    pymtp_params base;
    pymtp_error err = {0};
    const int32_t two[] = {0, 1}, bad_ids[] = {-1};
    const float ban[] = {-INFINITY, -INFINITY}, nan_bias[] = {NAN}, inf_bias[] = {INFINITY};
    pymtp_params_init(&base);
    CHECK(base.size == sizeof base && base.temperature == 1 && base.top_k == 64 && base.top_p == 0.95 && base.min_p == 0 &&
              base.max_tokens == -1 && base.draft == PYMTP_DRAFT_AUTO && base.logprobs == -1 && base.snapshot_at == -1 &&
              base.repetition_penalty == 1 && base.presence_penalty == 0 && base.frequency_penalty == 0 && !base.ignore_eos, "defaults");
    refused(NULL, "params");
    REFUSED(size, 4);
    REFUSED(max_tokens, -2);
    REFUSED(temperature, -0.1);
    REFUSED(temperature, NAN);
    REFUSED(temperature, INFINITY);
    REFUSED(top_k, -1);
    REFUSED(ignore_eos, 2);
    REFUSED(top_p, 1.01);
    REFUSED(top_p, NAN);
    REFUSED(min_p, -0.01);
    REFUSED(repetition_penalty, 0);
    REFUSED(repetition_penalty, NAN);
    REFUSED(presence_penalty, INFINITY);
    REFUSED(frequency_penalty, NAN);
    REFUSED(logprobs, 21);
    REFUSED(draft, PYMTP_MAX_DRAFT + 1);
    REFUSED(snapshot_at, -3);
    pymtp_params q = base;
    q.n_script = 1;
    refused(&q, "script");
    q = base;
    q.n_stop = 1;
    refused(&q, "stop");
    q = base;
    q.n_bias = 1;
    refused(&q, "logit_bias");
    q.bias_ids = bad_ids;
    q.bias_values = ban;
    refused(&q, "logit_bias");
    q.bias_ids = two;
    q.bias_values = nan_bias;
    refused(&q, "logit_bias");
    q.bias_values = inf_bias;
    refused(&q, "logit_bias");
    q.n_bias = 2;
    q.bias_values = ban;
    refused(&q, "banned");
    CHECK(pymtp_sample(&base, NULL, NULL, 2, NULL, 0, 0, &err) == PYMTP_E_ARG, "no logits");
    CHECK(pymtp_sample(&base, (float[]){1}, NULL, 0, NULL, 0, 0, NULL) == PYMTP_E_ARG, "no candidates, no error struct");
    CHECK(pymtp_sample(&base, (float[]){1}, bad_ids, 1, NULL, 0, 0, &err) == PYMTP_E_ARG, "negative candidate");
    CHECK(pymtp_sample(&base, (float[]){1}, NULL, 1, bad_ids, 1, 0, &err) == PYMTP_E_ARG, "negative history");
    CHECK(pymtp_sample(&base, (float[]){1, NAN}, NULL, 2, NULL, 0, 4711, &err) == PYMTP_E_NONFINITE && strstr(err.text, "4711"), "%s", err.text);
    CHECK(pymtp_sample(&base, (float[]){-INFINITY, 1}, NULL, 2, NULL, 0, 1, &err) == PYMTP_E_NONFINITE, "%s", err.text);
    pm_sampler *s = NULL;
    pymtp_error fresh = {0};
    CHECK(pm_sampler_new(&base, (int32_t[]){5}, 1, 5, &s, &fresh) == PYMTP_E_ARG && !s && strstr(fresh.text, "suppressed"), "%s", fresh.text);
}

/* Moments of Gumbel(0, 1): mean 0.5772, variance pi^2 / 6. The standard error of the mean of n is sqrt(pi^2 / 6 / n); that of
 * the variance, with the fourth central moment 3/20 pi^4 = 14.6114, sqrt((14.6114 - (pi^2 / 6)^2) / n). Four of each. */
static void test_noise(void) {
    const double variance = 9.8696044010893586 / 6;
    for (int axis = 0; axis < 3; axis++) {
        const int n = 200000;
        double sum = 0, squares = 0, products = 0, last = 0;
        for (int i = 0; i < n; i++) {
            const double g = axis == 0 ? pm_gumbel(1, 5, i) : axis == 1 ? pm_gumbel(1, i, 5) : pm_gumbel((uint64_t)i, 1, 5);
            const double d = g - 0.57721566490153286;
            CHECK(isfinite(g), "axis %d, %d: not finite", axis, i);
            sum += d;
            squares += d * d;
            products += d * last;
            last = d;
        }
        CHECK(fabs(sum / n) < 4 * sqrt(variance / n), "axis %d: mean off by %g", axis, sum / n);
        CHECK(fabs(squares / n - variance) < 4 * sqrt((14.6114 - variance * variance) / n), "axis %d: variance %g", axis, squares / n);
        /* neighbours are uncorrelated: the mean product has standard error variance / sqrt(n) */
        CHECK(fabs(products / n) < 4 * variance / sqrt(n), "axis %d: correlation %g", axis, products / n / variance);
    }
    CHECK(pm_gumbel(3, 4, 5) == pm_gumbel(3, 4, 5) && pm_gumbel(3, 4, 5) != pm_gumbel(4, 3, 5), "a function of all three");
    CHECK(isfinite(pm_gumbel(UINT64_MAX, INT64_MAX, INT32_MAX)), "extremes");
}

static void test_logprobs(void) {
    const float logits[] = {1, 3, 2, 3, -5};
    pymtp_logprob out[1 + 7];
    const double norm = log(exp(1.0) + 2 * exp(3.0) + exp(2.0) + exp(-5.0));
    const int32_t order[] = {1, 3, 2, 0, 4};
    pm_sampler_logprobs(logits, 5, 2, 7, out);
    CHECK(out[0].id == 2, "the token first");
    for (int i = 0; i <= 7; i++) {
        const int32_t expected = i == 0 ? 2 : i <= 5 ? order[i - 1] : -1;
        CHECK(out[i].id == expected, "entry %d: expected id %d, found %d", i, expected, out[i].id);
        /* rounding to float: half an ulp of values below 16, and a little for the sum in double */
        if (expected >= 0) CHECK(fabs((double)out[i].logprob - ((double)logits[expected] - norm)) < 16 * 0x1p-24, "entry %d: %g", i, (double)out[i].logprob);
    }
    pm_sampler_logprobs(logits, 5, 4, 0, out);
    CHECK(out[0].id == 4 && fabs((double)out[0].logprob - (-5 - norm)) < 16 * 0x1p-24, "%g", (double)out[0].logprob);
}

/* Ids that differ in high bits only, as a list of biases may: they must not stand beside each other in the table. */
static void test_flood_of_ids(void) {
    pm_adjust a = {.repetition = 1};
    pymtp_error err = {0};
    size_t run = 0, longest = 0;
    for (int32_t i = 0; i < 8192; i++) CHECK(pm_adjust_at(&a, i << 17, &err), "%s", err.text);
    for (size_t i = 0; i < a.slots; i++) {
        run = a.slot[i].id < 0 ? 0 : run + 1;
        if (run > longest) longest = run;
    }
    CHECK(a.used == 8192 && longest < 512, "%zu of %zu ids beside each other in %zu slots", longest, a.used, a.slots);
    pm_adjust_free(&a);
}

/* A history may be longer than an int counts. */
static void test_count_of_a_long_history(void) {
    pm_adjust a = {.repetition = 1, .presence = 1, .frequency = 0x1p-31};
    pymtp_error err = {0};
    float logits[] = {5, 5};
    pm_adjust_entry *e = pm_adjust_at(&a, 1, &err);
    CHECK(e, "%s", err.text);
    e->count = INT32_MAX;
    e->count += 1;
    pm_adjust_apply(&a, logits, NULL, 2);
    CHECK(logits[0] == 5 && logits[1] == 3, "%g, %g", (double)logits[0], (double)logits[1]);
    pm_adjust_free(&a);
}

int main(void) {
    test_against_literal();
    test_top();
    test_top_or_all();
    test_large();
    test_by_hand();
    test_refusals();
    test_noise();
    test_logprobs();
    test_flood_of_ids();
    test_count_of_a_long_history();
    return check_done();
}
