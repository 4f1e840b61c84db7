/* params.c - defaults of pymtp_params and the one place that validates them; errors name the field. */
#include "engine/params.h"

#include <math.h>

void pymtp_params_init(pymtp_params *p) {
    if (!p) return;
    *p = (pymtp_params){.size = sizeof *p, .max_tokens = -1, .temperature = 1, .top_k = 64, .top_p = 0.95, .repetition_penalty = 1,
                        .logprobs = -1, .draft = PYMTP_DRAFT_AUTO, .snapshot_at = -1};
}

static pymtp_status check_number(const char *name, double v, double low, double high, pymtp_error *err) {
    if (v >= low && v <= high) return PYMTP_OK; /* false for NaN */
    return pm_fail(err, PYMTP_E_ARG, "%s: expected a number from %g to %g, found %g", name, low, high, v);
}

static pymtp_status check_int(const char *name, int64_t v, int64_t low, int64_t high, pymtp_error *err) {
    if (v >= low && v <= high) return PYMTP_OK;
    return pm_fail(err, PYMTP_E_ARG, "%s: expected %lld to %lld, found %lld", name, (long long)low, (long long)high, (long long)v);
}

static pymtp_status check_bias(const pymtp_params *p, int32_t vocab, pymtp_error *err) {
    if (p->n_bias && (!p->bias_ids || !p->bias_values))
        return pm_fail(err, PYMTP_E_ARG, "logit_bias: expected %zu ids and values, found NULL", p->n_bias);
    for (size_t i = 0; i < p->n_bias; i++) {
        if (p->bias_ids[i] < 0 || p->bias_ids[i] >= vocab)
            return pm_fail(err, PYMTP_E_ARG, "logit_bias: expected ids from 0 to %d, found %d", vocab - 1, p->bias_ids[i]);
        if (!(p->bias_values[i] < INFINITY))
            return pm_fail(err, PYMTP_E_ARG, "logit_bias: expected finite numbers or -inf, found %g for id %d", (double)p->bias_values[i],
                           p->bias_ids[i]);
    }
    return PYMTP_OK;
}

static pymtp_status check_lists(const pymtp_params *p, int32_t vocab, pymtp_error *err) {
    if (p->n_stop && (!p->stop || !p->stop_bytes))
        return pm_fail(err, PYMTP_E_ARG, "stop: expected %zu strings and lengths, found NULL", p->n_stop);
    for (size_t i = 0; i < p->n_stop; i++)
        if (!p->stop[i] || !p->stop_bytes[i]) return pm_fail(err, PYMTP_E_ARG, "stop: expected strings that are not empty, found an empty one");
    if (p->n_script && !p->script) return pm_fail(err, PYMTP_E_ARG, "script: expected %zu ids, found NULL", p->n_script);
    for (size_t i = 0; i < p->n_script; i++) PM_TRY(check_int("script", p->script[i], 0, (int64_t)vocab - 1, err));
    return check_bias(p, vocab, err);
}

pymtp_status pm_params_check(const pymtp_params *p, int32_t vocab, pymtp_error *err) {
    if (!p) return pm_fail(err, PYMTP_E_ARG, "params: expected a struct, found NULL");
    if (p->size != sizeof *p) return pm_fail(err, PYMTP_E_ARG, "params: expected size %zu, found %u", sizeof *p, p->size);
    PM_TRY(check_int("max_tokens", p->max_tokens, -1, INT32_MAX, err));
    PM_TRY(check_number("temperature", p->temperature, 0, 1e9, err));
    PM_TRY(check_int("top_k", p->top_k, 0, INT32_MAX, err));
    PM_TRY(check_int("ignore_eos", p->ignore_eos, 0, 1, err));
    PM_TRY(check_number("top_p", p->top_p, 0, 1, err));
    PM_TRY(check_number("min_p", p->min_p, 0, 1, err));
    PM_TRY(check_number("repetition_penalty", p->repetition_penalty, 1e-6, 1e6, err));
    PM_TRY(check_number("presence_penalty", p->presence_penalty, -1e6, 1e6, err));
    PM_TRY(check_number("frequency_penalty", p->frequency_penalty, -1e6, 1e6, err));
    PM_TRY(check_int("logprobs", p->logprobs, -1, 20, err));
    PM_TRY(check_int("draft", p->draft, PYMTP_DRAFT_AUTO, PYMTP_MAX_DRAFT, err));
    PM_TRY(check_int("snapshot_at", p->snapshot_at, -2, INT64_MAX, err));
    return check_lists(p, vocab, err);
}
