/* sampler.h - chooses tokens: the chain of pymtp_params and the shared noise.
 *
 * The choice is a pure function of (params, logits, history, absolute position): plain and speculative runs draw the same
 * token at every position, and the drafter's logits through the same chain with the same noise guess it as often as
 * theory allows (drafter-invariant speculative decoding; Daliri, Musco, Suresh 2024). No state but the history. */
#ifndef PM_ENGINE_SAMPLER_H
#define PM_ENGINE_SAMPLER_H

#include "base/status.h"

typedef struct pm_sampler pm_sampler;

/* Validates params (PYMTP_E_ARG names the field), copies bias and suppressed ids. vocab bounds every id. */
pymtp_status pm_sampler_new(const pymtp_params *params, const int32_t *suppressed, size_t n_suppressed, int32_t vocab,
                            pm_sampler **out, pymtp_error *err);
void pm_sampler_free(pm_sampler *s);
/* An emitted token joins the history that the penalties count. */
pymtp_status pm_sampler_accept(pm_sampler *s, int32_t id, pymtp_error *err);
/* The token for absolute position `position` among n candidates: logits (n), ids (n) or NULL (0..n-1). extra: (n_extra)
 * tokens after the history that are not emitted yet (the drafts before this row). PYMTP_E_NONFINITE when a logit is NaN
 * or infinite (the text names the position). logits are not changed. Not thread-safe (scratch inside). */
pymtp_status pm_sampler_choose(pm_sampler *s, const float *logits, const int32_t *ids, size_t n, const int32_t *extra,
                               size_t n_extra, int64_t position, int32_t *out, pymtp_error *err);
/* So many of a row's best logits (logit descending, then id ascending) settle every choice: those that a filter by number keeps,
 * and one for each banned id. 0: all are needed, as penalties or a finite bias can lift any of them. */
int32_t pm_sampler_top(const pm_sampler *s);
/* Log-probabilities under the plain softmax of logits (n): out[0] is `id`, out[1..top] the best, ties to the lowest id. */
void pm_sampler_logprobs(const float *logits, size_t n, int32_t id, int32_t top, pymtp_logprob *out);
/* The noise: Gumbel(0, 1) from a counter-based generator of (seed, position, id), in double. Finite. */
double pm_gumbel(uint64_t seed, int64_t position, int32_t id);

#endif
