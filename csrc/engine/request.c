/* request.c - one generation on a session: what it was asked, the tokens and text it emits, and how it ends.
 *
 * Emitting is sequential and knows nothing of drafts: a token is emitted from the row before it exactly as in a plain run, so
 * the way a request ends cannot depend on how its rows were computed. */
#include "engine/session.h"
#include "base/memory.h"
#include "engine/params.h"

#include <string.h>

/* ---- start ---- */

static pymtp_status copy_ids(const int32_t *ids, size_t n, int32_t **out, pymtp_error *err) {
    *out = pm_new(n, sizeof **out, "prompt", err);
    if (!*out) return PYMTP_E_NOMEM;
    if (n) memcpy(*out, ids, n * sizeof *ids);
    return PYMTP_OK;
}

static pymtp_status build(const pymtp_session *s, pm_request *r, const int32_t *prompt, size_t n, const pymtp_params *p, pymtp_error *err) {
    const pymtp_tokenizer *t = s->model->tokenizer;
    size_t n_suppressed;
    const int32_t *suppressed = pm_tokenizer_suppressed(t, &n_suppressed);
    r->params = *p;
    r->n_prompt = (int64_t)n;
    r->n_script = (int64_t)p->n_script;
    r->pending = r->stop_id = -1;
    PM_TRY(pm_sampler_new(p, suppressed, n_suppressed, s->model->config.vocab, &r->sampler, err));
    r->top = pm_sampler_top(r->sampler);
    if (r->top > PM_HEAD_TOP) r->top = 0;
    PM_TRY(copy_ids(prompt, n, &r->prompt, err));
    PM_TRY(copy_ids(p->script, p->n_script, &r->script, err));
    PM_TRY(pm_stop_new(p->stop, p->stop_bytes, p->n_stop, &r->stop, err));
    r->decoder = pymtp_decoder_new(t, 0, err);
    if (!r->decoder) return PYMTP_E_NOMEM;
    if (p->logprobs < 0) return PYMTP_OK;
    r->logprobs = pm_new(PM_ROUND_ROWS, (size_t)(1 + p->logprobs) * sizeof *r->logprobs, "log-probabilities", err);
    return r->logprobs ? PYMTP_OK : PYMTP_E_NOMEM;
}

static void free_work(pm_request *r) {
    pm_sampler_free(r->sampler);
    pymtp_decoder_free(r->decoder);
    pm_free(r->prompt);
    pm_free(r->script);
    r->sampler = NULL;
    r->decoder = NULL;
    r->prompt = r->script = NULL;
    r->active = 0;
}

void pm_request_free(pm_request *r) {
    free_work(r);
    pm_stop_free(r->stop);
    pm_free(r->logprobs);
    *r = (pm_request){.pending = -1, .stop_id = -1};
}

void pm_request_drop(pymtp_session *s) {
    if (!s->request.active) return;
    free_work(&s->request);
    s->request.finish = PYMTP_FINISH_CANCELLED;
    atomic_store(&s->cancelled, 0); /* it was meant for this request */
}

pymtp_status pm_request_start(pymtp_session *s, const int32_t *prompt, size_t n, const pymtp_params *params, pymtp_error *err) {
    pm_request r = {0};
    PM_TRY(pm_params_check(params, s->model->config.vocab, err));
    if (!n) return pm_fail(err, PYMTP_E_ARG, "prompt: expected at least one token, found none");
    PM_TRY(pm_ids_check(s->model, prompt, n, "prompt", err));
    if (n > (size_t)s->model->context)
        return pm_fail(err, PYMTP_E_CONTEXT, "the prompt has %zu tokens, the context holds %d", n, s->model->context);
    if (params->draft > 0 && !s->model->has_drafter && !params->n_script)
        return pm_fail(err, PYMTP_E_STATE, "draft: expected 0 or auto, as the model has no drafter, found %d", params->draft);
    const pymtp_status status = build(s, &r, prompt, n, params, err);
    if (status != PYMTP_OK) {
        pm_request_free(&r);
        return status;
    }
    pm_request_free(&s->request);
    s->request = r;
    s->request.active = 1;
    s->request.acceptance = pm_acceptance_start(&s->model->controller);
    atomic_store(&s->cancelled, 0);
    /* the last prompt token is always computed: its logits and hidden row are needed */
    const int64_t common = pm_common_prefix(s->tokens, s->length, prompt, (int64_t)n - 1);
    const int64_t kept = pm_session_fall_back(s, common);
    s->stats = (pymtp_stats){.size = sizeof s->stats, .prompt_tokens = n, .prompt_reused = (uint64_t)kept,
                             .replayed = (uint64_t)(common - kept)};
    if (kept == params->snapshot_at) pm_session_mark(s, NULL); /* without it a later rewind replays */
    return PYMTP_OK;
}

/* ---- emitting ---- */

void pm_request_begin_step(pymtp_session *s) {
    s->request.n_out = s->request.n_accepted = 0;
    s->request.n_drafts = 0;
    pm_stop_take(s->request.stop);
}

/* What was held back as a possible part of a character or of a stop string is text after all. Without memory for it the text ends
 * earlier; the reason of the end stands. */
static void flush_text(pm_request *r) {
    size_t bytes;
    int hit = 0;
    const char *text = pymtp_decoder_flush(r->decoder, &bytes);
    if (bytes && pm_stop_push(r->stop, text, bytes, &hit, NULL) != PYMTP_OK) return;
    if (!hit) pm_stop_flush(r->stop, NULL);
}

/* The text that follows a stop string is not wanted; at any other end it is. */
static void finish_at_stop_string(pymtp_session *s) {
    s->request.finish = PYMTP_FINISH_STOP;
    free_work(&s->request);
}

void pm_request_finish(pymtp_session *s, int32_t finish) {
    if (!s->request.active) return;
    flush_text(&s->request);
    s->request.finish = finish;
    free_work(&s->request);
}

void pm_request_fail(pymtp_session *s, const pymtp_error *why) {
    s->request.error = *why;
    pm_request_finish(s, PYMTP_FINISH_ERROR);
}

static pymtp_status emit_text(pm_request *r, int32_t id, int *stopped, pymtp_error *err) {
    size_t bytes;
    const char *text = pymtp_decoder_push(r->decoder, id, &bytes);
    return bytes ? pm_stop_push(r->stop, text, bytes, stopped, err) : PYMTP_OK;
}

pymtp_status pm_request_emit(pymtp_session *s, int32_t id, int64_t position, const float *logits, pymtp_error *err) {
    pm_request *r = &s->request;
    const pymtp_params *p = &r->params;
    int stopped = 0;
    if (!p->ignore_eos && pymtp_tokenizer_is_eog(s->model->tokenizer, id)) {
        r->stop_id = id;
        pm_request_finish(s, PYMTP_FINISH_STOP);
        return PYMTP_OK;
    }
    PM_TRY(pm_sampler_accept(r->sampler, id, err));
    PM_TRY(emit_text(r, id, &stopped, err));
    if (r->logprobs)
        pm_sampler_logprobs(logits, (size_t)s->model->config.vocab, id, p->logprobs, r->logprobs + r->n_out * (size_t)(1 + p->logprobs));
    r->out[r->n_out++] = id;
    r->pending = id;
    r->emitted++;
    s->stats.tokens++;
    if (stopped) finish_at_stop_string(s);
    else if (r->emitted == p->max_tokens) pm_request_finish(s, PYMTP_FINISH_LENGTH);
    else if (position >= s->model->context) pm_request_finish(s, PYMTP_FINISH_CONTEXT); /* it could not be fed */
    return PYMTP_OK;
}
