/* step.c - one step of several sessions: draft, verify, commit.
 *
 * The target defines the stream; the drafter only guesses it. A verified row equals the same row decoded alone (row rule), so
 * this file compares token ids and moves lengths, and does no arithmetic on activations. If output ever differs, the bug is in a
 * kernel. */
#include "engine/session.h"
#include "base/memory.h"

#include <time.h>

/* The rows one session brings to a pass. */
typedef struct part {
    pymtp_session *s;
    int32_t rows, prompt; /* prompt: rows are prompt tokens */
    int32_t logits_rows;
    double draft_seconds;
} part;

/* The logits of a pass, row after row: all, or the best and their ids. */
typedef struct scores {
    const float *logits; /* (rows, width) */
    const int32_t *ids;  /* (rows, width), or NULL: 0, 1, 2, ... */
    size_t width;
} scores;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- how many rows ---- */

static int32_t prompt_rows(const pymtp_session *s) {
    const pm_request *r = &s->request;
    int64_t end = smaller(s->length + s->model->chunk, r->n_prompt);
    if (r->params.snapshot_at > s->length) end = smaller(end, r->params.snapshot_at);
    return (int32_t)(end - s->length);
}

/* Drafts worth proposing: not beyond the token limit, the context or the script. */
static int32_t draft_limit(const pymtp_session *s) {
    const pm_request *r = &s->request;
    int64_t limit = smaller(PM_MAX_DRAFT, s->model->context - 1 - s->length);
    if (r->params.max_tokens >= 0) limit = smaller(limit, r->params.max_tokens - r->emitted - 1);
    if (r->n_script) limit = smaller(limit, r->n_script - r->emitted);
    else if (!s->model->has_drafter || !s->has_h) limit = 0;
    return limit > 0 ? (int32_t)limit : 0;
}

static int decoding(const pymtp_session *s) { return s->length >= s->request.n_prompt; }

/* Sets n_drafts of the sessions that decode; they are about to share a pass. */
static void choose_depths(pymtp_session *const *sessions, size_t n) {
    pm_draft_wish wishes[PM_PASS_SESSIONS];
    int32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (!decoding(sessions[i])) continue;
        const pm_request *r = &sessions[i]->request;
        const int32_t limit = draft_limit(sessions[i]), wanted = (int32_t)smaller(r->params.draft, limit);
        const int is_auto = r->params.draft == PYMTP_DRAFT_AUTO;
        wishes[count++] = (pm_draft_wish){&r->acceptance, is_auto ? 0 : wanted, is_auto ? limit : wanted, 0};
    }
    if (!count) return;
    pm_controller_depths(&sessions[0]->model->controller, wishes, count);
    for (size_t i = n; i-- > 0;)
        if (decoding(sessions[i])) sessions[i]->request.n_drafts = wishes[--count].depth;
}

/* ---- draft ---- */

/* Best logits that settle the choices of all n parts; 0: all are needed. */
static int32_t draft_top(part *const *p, int32_t n) {
    int32_t top = 0;
    for (int32_t i = 0; i < n; i++) {
        const int32_t own = p[i]->s->request.top;
        if (!own) return 0;
        if (own > top) top = own;
    }
    return top;
}

/* The drafts of one position for the n sessions that still want one: they stand first, deepest first. */
static pymtp_status draft_position(pymtp_model *m, part **p, int32_t n, int32_t j, pymtp_error *err) {
    pm_backend *b = m->backend;
    pm_drafter *d = &m->drafter;
    int32_t ids[PM_PASS_SESSIONS], pos[PM_PASS_SESSIONS];
    pm_kv *kv[PM_PASS_SESSIONS];
    for (int32_t i = 0; i < n; i++) {
        const pm_request *r = &p[i]->s->request;
        ids[i] = j ? r->drafts[j - 1] : r->pending;
        pos[i] = (int32_t)p[i]->s->length;
        kv[i] = p[i]->s->kv;
    }
    b->buf_write(b, d->ids, 0, ids, (size_t)n * sizeof *ids);
    PM_TRY(pm_drafter_step(d, n, pos, kv, draft_top(p, n), err));
    const size_t width = (size_t)d->width;
    for (int32_t i = 0; i < n; i++) {
        pm_request *r = &p[i]->s->request;
        const int32_t *candidates = d->listed ? m->candidates : NULL;
        b->buf_read(b, d->scores, (size_t)i * width * sizeof(float), m->scores, width * sizeof(float));
        if (candidates) b->buf_read(b, d->candidates, (size_t)i * width * sizeof(int32_t), m->candidates, width * sizeof(int32_t));
        /* a drafter that produces no usable number drafts some token: only the target's choice counts */
        if (pm_sampler_choose(r->sampler, m->scores, candidates, width, r->drafts, (size_t)j, p[i]->s->length + 1 + j, &r->drafts[j], NULL) !=
            PYMTP_OK)
            r->drafts[j] = r->pending;
    }
    return PYMTP_OK;
}

/* Network drafts for the n parts whose request wants some (request.n_drafts), deepest first. */
static pymtp_status draft(pymtp_model *m, part **p, int32_t n, pymtp_error *err) {
    pm_backend *b = m->backend;
    const size_t row = (size_t)m->config.width * sizeof(float);
    for (int32_t i = 0; i < n; i++) b->buf_copy(b, m->drafter.h, (size_t)i * row, p[i]->s->h, 0, row);
    const double start = now();
    for (int32_t j = 0; n; j++) {
        while (n && p[n - 1]->s->request.n_drafts <= j) n--;
        if (n) PM_TRY(draft_position(m, p, n, j, err));
        for (int32_t i = 0; i < n; i++) p[i]->draft_seconds = now() - start;
    }
    return PYMTP_OK;
}

/* Decides depths and fills drafts, from the script or the network. */
static pymtp_status propose(pymtp_model *m, part *parts, int32_t n, pymtp_error *err) {
    part *wanting[PM_PASS_SESSIONS];
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++) {
        pm_request *r = &parts[i].s->request;
        if (parts[i].prompt || !r->n_drafts) continue;
        if (r->n_script) {
            for (int32_t j = 0; j < r->n_drafts; j++) r->drafts[j] = r->script[r->emitted + j];
            continue;
        }
        int32_t at = count++;
        for (; at && wanting[at - 1]->s->request.n_drafts < r->n_drafts; at--) wanting[at] = wanting[at - 1];
        wanting[at] = &parts[i];
    }
    return draft(m, wanting, count, err);
}

/* ---- verify ---- */

static int all_cancelled(void *context) {
    part *const *range = context; /* first, end */
    for (const part *p = range[0]; p < range[1]; p++)
        if (!atomic_load(&p->s->cancelled)) return 0;
    return 1;
}

/* Room on the host for the logits of a pass. A row of them all for one is a row of them all for everybody: the head's weights are read
 * once a pass. */
static pymtp_status scores_reserve(pymtp_model *m, const part *parts, int32_t n, scores *out, pymtp_error *err) {
    size_t rows = 0, top = 0;
    int all = 0;
    for (int32_t i = 0; i < n; i++) {
        const pm_request *r = &parts[i].s->request;
        if (!parts[i].logits_rows) continue;
        rows += (size_t)parts[i].logits_rows;
        all |= !r->top || r->logprobs;
        if ((size_t)r->top > top) top = (size_t)r->top;
    }
    const size_t width = all ? (size_t)m->config.vocab : top, values = rows * width;
    if (values > m->logits_cap) {
        float *bigger = pm_realloc(m->logits, rows, width * sizeof *bigger);
        if (!bigger) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: logits of %zu rows", rows);
        m->logits = bigger;
        m->logits_cap = values;
    }
    *out = (scores){.logits = rows ? m->logits : NULL, .ids = all ? NULL : m->top_ids, .width = width};
    return PYMTP_OK;
}

static pymtp_status forward(pymtp_model *m, part *parts, int32_t n, scores *out, pymtp_error *err) {
    const size_t rows = (size_t)m->target.max_rows;
    int32_t *ids = m->row_ids, *pos = ids + rows, *seg = pos + rows, count = 0;
    uint8_t *want = m->row_want;
    pm_kv *kv[PM_PASS_SESSIONS];
    part *range[2] = {parts, parts + n};
    for (int32_t i = 0; i < n; i++) {
        const pymtp_session *s = parts[i].s;
        const pm_request *r = &s->request;
        kv[i] = s->kv;
        for (int32_t k = 0; k < parts[i].rows; k++, count++) {
            ids[count] = parts[i].prompt ? r->prompt[s->length + k] : k ? r->drafts[k - 1] : r->pending;
            pos[count] = (int32_t)s->length + k;
            seg[count] = i;
            want[count] = (uint8_t)(k >= parts[i].rows - parts[i].logits_rows ? PM_WANT_HIDDEN | PM_WANT_LOGITS
                                    : k == parts[i].rows - 1                  ? PM_WANT_HIDDEN
                                                                              : 0);
        }
    }
    PM_TRY(scores_reserve(m, parts, n, out, err));
    for (int32_t i = 0; i < n; i++) PM_TRY(pm_session_reserve(parts[i].s, parts[i].s->length + parts[i].rows, err));
    for (int32_t i = 0; i < n; i++) pm_kv_append(parts[i].s->kv, parts[i].s->length + parts[i].rows);
    const pm_target_call call = {.n = count, .ids = ids, .pos = pos, .seg = seg, .want = want, .kv = kv, .n_seg = n,
                                 .top = out->ids ? (int32_t)out->width : 0, .logits = out->logits ? m->logits : NULL, .top_ids = m->top_ids,
                                 .cancelled = all_cancelled, .cancel_context = range};
    return pm_target_forward(&m->target, &call, err);
}

/* ---- commit ---- */

/* Rows [0, rows) of the part are part of the timeline now; `hidden` is the index of row 0 among the pass's hidden rows. */
static void commit(part *p, int32_t rows, size_t hidden) {
    pymtp_session *s = p->s;
    const pm_request *r = &s->request;
    pm_backend *b = s->model->backend;
    const size_t row = (size_t)s->model->config.width * sizeof(float);
    if (!rows) return;
    for (int32_t k = 0; k < rows; k++)
        s->tokens[s->length + k] = p->prompt ? r->prompt[s->length + k] : k ? r->drafts[k - 1] : r->pending;
    s->length += rows;
    b->buf_copy(b, s->h, 0, s->model->target.hidden, hidden * row, row);
    s->has_h = 1;
}

/* The token for position `at` from row `row` of the pass. */
static pymtp_status choose(pymtp_session *s, const scores *x, size_t row, int64_t at, int32_t *id, pymtp_error *err) {
    const size_t start = row * x->width;
    return pm_sampler_choose(s->request.sampler, x->logits + start, x->ids ? x->ids + start : NULL, x->width, NULL, 0, at, id, err);
}

static void fail(pymtp_session *s, pymtp_error *why) {
    pm_request_fail(s, why);
    *why = (pymtp_error){0};
}

/* Prompt rows are in the cache; the last of the prompt gives the first token. `row` is the part's first of x. */
static void commit_prompt(part *p, size_t hidden, const scores *x, size_t row) {
    pymtp_session *s = p->s;
    pm_request *r = &s->request;
    pymtp_error e = {0};
    int32_t id;
    const int64_t at = s->length + p->rows;
    if (p->logits_rows) { /* chosen before the rows are committed: a row that fails leaves no trace */
        if (choose(s, x, row, at, &id, &e) != PYMTP_OK) {
            fail(s, &e);
            return;
        }
    }
    commit(p, p->rows, hidden);
    const int64_t mark = r->params.snapshot_at == -1 ? r->n_prompt : r->params.snapshot_at;
    if (s->length == mark && pm_session_mark(s, &e) != PYMTP_OK) e = (pymtp_error){0}; /* without it a later rewind replays */
    if (!p->logits_rows) {
        if (s->length == r->n_prompt) pm_request_finish(s, PYMTP_FINISH_LENGTH); /* max_tokens 0 */
        return;
    }
    if (pm_request_emit(s, id, at, x->logits + row * x->width, &e) != PYMTP_OK) fail(s, &e);
}

/* Rows are [pending, drafts]: emits the target's choices as long as they equal the drafts, and one more. */
static void commit_round(part *p, size_t hidden, const scores *x, size_t row) {
    pymtp_session *s = p->s;
    pm_request *r = &s->request;
    const int64_t start = s->length;
    int32_t drafts[PM_MAX_DRAFT], pending = r->pending, accepted = 0, rows = 0;
    pymtp_error e = {0};
    for (int32_t i = 0; i < r->n_drafts; i++) drafts[i] = r->drafts[i];
    for (int32_t i = 0; i < p->rows; i++) {
        int32_t id;
        const int64_t at = start + i + 1;
        /* the history the sampler counts already holds the drafts before this row: they were emitted */
        if (choose(s, x, row + (size_t)i, at, &id, &e) != PYMTP_OK) break;
        rows = i + 1;
        if (i < r->n_drafts && id == drafts[i]) accepted++;
        if (pm_request_emit(s, id, at, x->logits + (row + (size_t)i) * x->width, &e) != PYMTP_OK) break;
        if (!r->active || i == r->n_drafts || id != drafts[i]) break;
    }
    s->stats.passes++;
    s->stats.drafted += (uint64_t)r->n_drafts;
    s->stats.accepted += (uint64_t)accepted;
    r->n_accepted = (size_t)accepted;
    for (int32_t i = 0; i < r->n_drafts; i++) s->stats.drafted_by_position[i]++;
    for (int32_t i = 0; i < accepted; i++) s->stats.accepted_by_position[i]++;
    /* row i judges draft i: those after the last chosen row were never looked at */
    if (!r->n_script)
        pm_controller_accepted(&s->model->controller, &r->acceptance, (int32_t)smaller(rows, r->n_drafts), accepted);
    const int32_t next = r->pending;
    r->pending = pending; /* what row 0 fed */
    commit(p, rows, hidden + (size_t)(rows ? rows - 1 : 0));
    r->pending = next;
    if (e.code) fail(s, &e);
}

/* ---- a pass ---- */

static void account(part *parts, int32_t n, double pass, double sample) {
    for (int32_t i = 0; i < n; i++) {
        pymtp_stats *t = &parts[i].s->stats;
        if (parts[i].prompt) t->seconds_prompt += pass;
        else t->seconds_target += pass;
        t->seconds_draft += parts[i].draft_seconds;
        t->seconds_sample += sample;
    }
}

static void learn_costs(pm_controller *c, const part *parts, int32_t n, double seconds) {
    int32_t rows = 0, draft_steps = 0;
    double draft_seconds = 0;
    for (int32_t i = 0; i < n; i++) {
        const int32_t drafts = parts[i].rows - 1;
        if (parts[i].prompt) return; /* prompt rows say nothing about the rounds that follow */
        rows += parts[i].rows;
        if (parts[i].s->request.n_script || drafts <= draft_steps) continue;
        draft_steps = drafts;
        draft_seconds = parts[i].draft_seconds;
    }
    pm_controller_cost(c, rows, draft_steps, draft_seconds, seconds);
}

/* Draft, verify and commit for sessions that share one pass. */
static pymtp_status run_pass(pymtp_model *m, part *parts, int32_t n, pymtp_error *err) {
    size_t hidden = 0, row = 0;
    scores x;
    PM_TRY(propose(m, parts, n, err));
    const double start = now();
    const pymtp_status status = forward(m, parts, n, &x, err);
    if (status == PYMTP_E_CANCELLED) {
        pm_clear(err);
        for (int32_t i = 0; i < n; i++) pm_request_finish(parts[i].s, PYMTP_FINISH_CANCELLED);
        return PYMTP_OK;
    }
    PM_TRY(status);
    const double computed = now();
    for (int32_t i = 0; i < n; i++) {
        if (parts[i].prompt) commit_prompt(&parts[i], hidden, &x, row);
        else commit_round(&parts[i], hidden, &x, row);
        row += (size_t)parts[i].logits_rows;
        hidden += (size_t)(parts[i].logits_rows ? parts[i].logits_rows : 1);
    }
    const double end = now();
    account(parts, n, computed - start, end - computed);
    learn_costs(&m->controller, parts, n, end - start);
    return PYMTP_OK;
}

static part plan(pymtp_session *s) {
    const pm_request *r = &s->request;
    if (!decoding(s)) {
        const int32_t rows = prompt_rows(s);
        const int ends = s->length + rows == r->n_prompt && r->params.max_tokens != 0;
        return (part){.s = s, .rows = rows, .prompt = 1, .logits_rows = ends};
    }
    return (part){.s = s, .rows = 1 + r->n_drafts, .logits_rows = 1 + r->n_drafts};
}

static pymtp_status run_passes(pymtp_session *const *sessions, size_t n, pymtp_error *err) {
    pymtp_model *m = sessions[0]->model;
    part parts[PM_PASS_SESSIONS];
    int32_t count = 0, rows = 0;
    for (size_t i = 0; i < n; i += PM_PASS_SESSIONS) choose_depths(sessions + i, n - i < PM_PASS_SESSIONS ? n - i : PM_PASS_SESSIONS);
    for (size_t i = 0; i < n; i++) {
        if (atomic_load(&sessions[i]->cancelled)) {
            pm_request_finish(sessions[i], PYMTP_FINISH_CANCELLED);
            continue;
        }
        const part p = plan(sessions[i]);
        if (count == PM_PASS_SESSIONS || rows + p.rows > m->target.max_rows) {
            PM_TRY(run_pass(m, parts, count, err));
            count = rows = 0;
        }
        parts[count++] = p;
        rows += p.rows;
    }
    return count ? run_pass(m, parts, count, err) : PYMTP_OK;
}

pymtp_status pm_step(pymtp_session *const *sessions, size_t n, pymtp_error *err) {
    for (size_t i = 0; i < n; i++) pm_request_begin_step(sessions[i]);
    const pymtp_status status = run_passes(sessions, n, err);
    for (size_t i = 0; i < n; i++) /* a cancellation ends one request and nothing after it */
        if (!sessions[i]->request.active) atomic_store(&sessions[i]->cancelled, 0);
    return status;
}
