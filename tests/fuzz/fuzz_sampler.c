/* fuzz_sampler.c - the sampler: parameters, bias, logits, ids and history from the input.
 *
 * Promises checked: what is out of range is refused with a line that names the field; what is not finite is reported; the choice is a
 * candidate that no bias bans, does not depend on the order of the candidates nor on those beyond the best pm_sampler_top, is the
 * argmax at temperature 0, and leaves the sampler as it was; log-probabilities are ordered and none is above 0. */
#include "base/f16.h"
#include "engine/sampler.h"
#include "fuzz.h"

#include <math.h>

enum { MAX = 600, BIAS = 8, HISTORY = 16 };

/* A double: often a plausible one, else any bits. */
static double number(fuzz_bytes *in, double plain) {
    static const double odd[] = {0, 1, -1, 0.5, 1e-300, 1e300, 1e9, 1e-6, 1e6, INFINITY, -INFINITY, NAN, -0.0, 5e-324};
    const uint8_t kind = fuzz_u8(in);
    double any;
    if (kind < 96) return plain;
    if (kind < 192) return kind / 96.0 - 1;
    if (kind < 248) return odd[kind % (sizeof odd / sizeof *odd)];
    fuzz_take(in, &any, sizeof any);
    return any;
}

static int32_t integer(fuzz_bytes *in, int32_t plain) {
    static const int32_t odd[] = {0, 1, -1, -2, 16, 17, 20, 21, 64, 256, 257, INT32_MAX, INT32_MIN};
    const uint8_t kind = fuzz_u8(in);
    return kind < 96 ? plain : kind < 160 ? odd[kind % (sizeof odd / sizeof *odd)] : kind < 250 ? kind - 160 : (int32_t)fuzz_u32(in);
}

/* Small steps, so that many are equal; rarely any bits. */
static float logit(fuzz_bytes *in) {
    const uint8_t kind = fuzz_u8(in);
    if (kind == 255) return pm_bits_f32(fuzz_u32(in));
    return kind == 254 ? 3e38f : kind == 253 ? -3e38f : (float)kind / 8 - 16;
}

static int same(double a, double b) { return a >= b && a <= b; }

typedef struct row { float x[MAX]; int32_t ids[MAX]; size_t n; } row;

static void candidates(fuzz_bytes *in, row *r, int32_t vocab) {
    const size_t own = 1 + fuzz_u8(in) % 64, times = 1 + fuzz_u8(in) % 9; /* a pattern and its repetitions */
    for (size_t i = 0; i < own; i++) r->x[i] = logit(in);
    r->n = own * times < (size_t)vocab ? own * times : (size_t)vocab;
    for (size_t i = 0; i < r->n; i++) {
        if (i >= own) r->x[i] = r->x[i - own];
        r->ids[i] = (int32_t)i;
    }
}

static void reversed(const row *r, row *out) {
    out->n = r->n;
    for (size_t i = 0; i < r->n; i++) {
        out->x[i] = r->x[r->n - 1 - i];
        out->ids[i] = r->ids[r->n - 1 - i];
    }
}

/* The `keep` best, in order. */
static void best(const row *r, size_t keep, row *out) {
    *out = *r;
    for (size_t i = 1; i < out->n; i++)
        for (size_t j = i; j && (out->x[j] > out->x[j - 1] || (same((double)out->x[j], (double)out->x[j - 1]) && out->ids[j] < out->ids[j - 1])); j--) {
            const float x = out->x[j];
            const int32_t id = out->ids[j];
            out->x[j] = out->x[j - 1], out->ids[j] = out->ids[j - 1];
            out->x[j - 1] = x, out->ids[j - 1] = id;
        }
    out->n = keep < out->n ? keep : out->n;
}

static pymtp_status choose(pm_sampler *s, const row *r, int with_ids, const int32_t *extra, size_t n_extra, int64_t position, int32_t *out) {
    pymtp_error err = {0};
    const pymtp_status status = pm_sampler_choose(s, r->x, with_ids ? r->ids : NULL, r->n, extra, n_extra, position, out, &err);
    fuzz_check(status == err.code && (status == PYMTP_OK) == (*out >= 0) && !strchr(err.text, '\n'));
    fuzz_check(status == PYMTP_OK || status == PYMTP_E_NONFINITE || status == PYMTP_E_ARG);
    return status;
}

/* adjusted: bias, bans or penalties can move a logit */
static void choices(pm_sampler *s, const pymtp_params *p, int adjusted, const row *r, const int32_t *extra, size_t n_extra, int64_t position,
                    int32_t vocab) {
    static row other;
    int32_t first, again;
    int finite = 1, extra_known = 1;
    for (size_t i = 0; i < r->n; i++) finite &= isfinite(r->x[i]) != 0;
    for (size_t i = 0; i < n_extra; i++) extra_known &= extra[i] >= 0 && extra[i] < vocab;
    const pymtp_status status = choose(s, r, 0, extra, n_extra, position, &first);
    fuzz_check((status == PYMTP_E_NONFINITE) == !finite);
    fuzz_check(status != PYMTP_OK || extra_known);
    fuzz_check(choose(s, r, 1, extra, n_extra, position, &again) == status && again == first);
    reversed(r, &other);
    fuzz_check(choose(s, &other, 1, extra, n_extra, position, &again) == status && again == first);
    if (status != PYMTP_OK) return;
    fuzz_check((size_t)first < r->n);
    for (size_t i = 0; i < p->n_bias; i++) fuzz_check(p->bias_ids[i] != first || p->bias_values[i] > -INFINITY);
    const int32_t top = pm_sampler_top(s);
    fuzz_check(top >= 0 && top <= vocab);
    if (top) {
        best(r, (size_t)top, &other);
        fuzz_check(choose(s, &other, 1, extra, n_extra, position, &again) == PYMTP_OK && again == first);
    }
    if (same(p->temperature, 0) && !adjusted)
        for (size_t i = 0; i < r->n; i++) fuzz_check(r->x[i] < r->x[first] || (same((double)r->x[i], (double)r->x[first]) && (int32_t)i >= first));
}

static void logprobs(const row *r, int32_t id, int32_t top) {
    pymtp_logprob out[21];
    for (size_t i = 0; i < r->n; i++)
        if (!isfinite(r->x[i])) return;
    pm_sampler_logprobs(r->x, r->n, id, top, out);
    fuzz_check(out[0].id == id && out[0].logprob <= 0);
    for (int32_t i = 1; i <= top; i++) {
        fuzz_check((size_t)i <= r->n ? out[i].id >= 0 && (size_t)out[i].id < r->n : out[i].id == -1);
        fuzz_check(i == 1 || out[i].logprob <= out[i - 1].logprob);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static row r;
    fuzz_bytes in = {data, n};
    int32_t bias_ids[BIAS], history[HISTORY] = {0};
    float bias[BIAS];
    pymtp_params p;
    pymtp_params_init(&p);
    const int32_t vocab = fuzz_u8(&in) % 2 ? MAX : 1 + fuzz_u8(&in);
    p.temperature = number(&in, 1);
    p.top_k = integer(&in, 64);
    p.top_p = number(&in, 0.95);
    p.min_p = number(&in, 0);
    p.repetition_penalty = number(&in, 1);
    p.presence_penalty = number(&in, 0);
    p.frequency_penalty = number(&in, 0);
    p.max_tokens = integer(&in, -1);
    p.ignore_eos = integer(&in, 0);
    p.logprobs = integer(&in, -1);
    p.draft = integer(&in, -1);
    p.seed = fuzz_u64(&in);
    p.n_bias = fuzz_u8(&in) % (BIAS + 1);
    for (size_t i = 0; i < p.n_bias; i++) {
        bias_ids[i] = integer(&in, (int32_t)i);
        bias[i] = (float)number(&in, -INFINITY);
    }
    p.bias_ids = bias_ids;
    p.bias_values = bias;
    const size_t n_history = fuzz_u8(&in) % (HISTORY + 1), accepted = fuzz_u8(&in) % (n_history + 1);
    for (size_t i = 0; i < n_history; i++) history[i] = integer(&in, (int32_t)i);
    const int64_t position = (int64_t)(fuzz_u64(&in) >> 1);
    candidates(&in, &r, vocab);

    pymtp_error err = {0};
    pm_sampler *s = NULL;
    const size_t n_banned = fuzz_u8(&in) % 4 ? 0 : n_history;
    const int adjusted = p.n_bias || n_banned || !same(p.repetition_penalty, 1) || !same(p.presence_penalty, 0) || !same(p.frequency_penalty, 0);
    const pymtp_status status = pm_sampler_new(&p, history, n_banned, vocab, &s, &err);
    fuzz_check(status == err.code && (status == PYMTP_OK) == (s != NULL) && (s || (strchr(err.text, ':') && !strchr(err.text, '\n'))));
    if (!s) return 0;
    for (size_t i = 0; i < accepted; i++) {
        const int known = history[i] >= 0 && history[i] < vocab;
        fuzz_check(pm_sampler_accept(s, history[i], NULL) == (known ? PYMTP_OK : PYMTP_E_ARG));
    }
    choices(s, &p, adjusted, &r, history + accepted, n_history - accepted, position, vocab);
    pm_sampler_free(s);
    logprobs(&r, (int32_t)(p.seed % r.n), p.logprobs < 0 ? 0 : p.logprobs);
    fuzz_check(isfinite(pm_gumbel(p.seed, position, history[0])));
    return 0;
}
