/* fuzz_api.c - sequences of calls on models, sessions, requests, snapshots and taps, in any order, valid or not.
 *
 * The input is a program: a byte chooses the call, those behind it the arguments. A shadow of what the header promises runs
 * beside it: which calls must be refused, which tokens a session holds, that a failed call changes nothing, that a request gives
 * the tokens of a run without drafts. At the end every session's cache must equal one computed afresh from its tokens. */
#include "fuzz.h"
#include "micro.h"
#include "pymtp.h"

#include <math.h>

#define MODELS 2
#define SESSIONS 4
#define SNAPSHOTS 3
#define CALLS 96      /* of a program, at most */
#define CONTEXT 160   /* of the small models */
#define VOCAB 32
#define MAX_STREAM (2 * CONTEXT)

typedef struct model {
    pymtp_model *handle;
    int guests, has_drafter, tap, context;
    int32_t layers, width;
} model;

typedef struct session {
    pymtp_session *handle;
    model *of;
    int32_t tokens[CONTEXT];           /* in the cache */
    int64_t length;
    int cancelled, running;
    pymtp_params params;               /* of the request; its lists are those below */
    int32_t stream[MAX_STREAM];        /* prompt, then what was emitted */
    int64_t n_prompt, n_stream;
    int32_t bias_ids[2], script[24];
    float bias_values[2];
    const char *stop[1];
    size_t stop_bytes[1];
} session;

typedef struct snapshot {
    pymtp_snapshot *handle;
    model *of;
    int32_t tokens[CONTEXT];
    int64_t length;
} snapshot;

typedef struct machine {
    fuzz_bytes in;
    model models[MODELS];
    session sessions[SESSIONS];
    snapshot snapshots[SNAPSHOTS];
} machine;

/* ---- checks ---- */

/* The status and its text; 1 when the call succeeded. */
static int done(pymtp_status status, const pymtp_error *err) {
    fuzz_check(status == err->code && status <= PYMTP_OK && status >= PYMTP_E_SYSTEM);
    fuzz_check(!err->text[0] == !status && !strchr(err->text, '\n'));
    return status == PYMTP_OK;
}

/* The session holds the tokens of the shadow, and does not write beyond what it is given. */
static void check_tokens(const session *s) {
    const size_t n = (size_t)s->length;
    int32_t *tokens = malloc(n * sizeof *tokens + 1);
    fuzz_check(tokens && pymtp_session_length(s->handle) == s->length);
    fuzz_check(pymtp_session_tokens(s->handle, tokens, n) == s->length && !memcmp(tokens, s->tokens, n * sizeof *tokens));
    free(tokens);
}

static void take_tokens(session *s) {
    s->length = pymtp_session_tokens(s->handle, s->tokens, CONTEXT);
    fuzz_check(s->length >= 0 && s->length <= s->of->context);
}

/* What a call that computes on a session does to it whatever comes of it: the request ends, a cancellation is used up. Returns
 * whether the call was to be cancelled: one that was meant for a request went with it. */
static int interrupt(session *s) {
    const int cancelled = s->cancelled && !s->running;
    s->running = s->cancelled = 0;
    return cancelled;
}

/* A session's readable cache and hidden row against those of a new session that is given its tokens at once. */
static void check_cache(const session *s) {
    static uint8_t a[4096], b[4096];
    float hidden[2][64], logits[VOCAB];
    pymtp_error err;
    if (!s->length) return;
    pymtp_session *fresh = pymtp_session_new(s->of->handle, &err);
    fuzz_check(fresh && pymtp_session_forward(fresh, s->tokens, (size_t)s->length, PYMTP_LOGITS_LAST, logits, NULL, &err) == PYMTP_OK);
    for (int32_t layer = 0; layer < s->of->layers; layer++)
        for (int64_t at = 0; at < s->length; at++) {
            const int64_t n = pymtp_session_kv_bytes(s->handle, layer, at, a, sizeof a);
            fuzz_check(pymtp_session_kv_bytes(fresh, layer, at, b, sizeof b) == n);
            fuzz_check(n <= 0 || !memcmp(a, b, (size_t)n));
        }
    fuzz_check(s->of->width <= 64 && pymtp_session_hidden(fresh, hidden[1], &err) == PYMTP_OK);
    if (pymtp_session_hidden(s->handle, hidden[0], &err) == PYMTP_OK)
        fuzz_check(!memcmp(hidden[0], hidden[1], (size_t)s->of->width * sizeof(float)));
    else fuzz_check(err.code == PYMTP_E_STATE);
    pymtp_session_free(fresh);
}

/* ---- arguments ---- */

static model *pick_model(machine *x) { return &x->models[fuzz_u8(&x->in) % MODELS]; }
static session *pick_session(machine *x) { return &x->sessions[fuzz_u8(&x->in) % SESSIONS]; }
static snapshot *pick_snapshot(machine *x) { return &x->snapshots[fuzz_u8(&x->in) % SNAPSHOTS]; }

/* n ids, mostly good ones. Freed by the caller; exactly n, so that AddressSanitizer sees a read behind them. */
static int32_t *some_ids(machine *x, size_t n, int *good) {
    int32_t *ids = malloc(n * sizeof *ids + 1);
    fuzz_check(ids);
    const uint8_t kind = fuzz_u8(&x->in);
    *good = 1;
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)((kind + i * (kind % 5)) % VOCAB);
    if (n && kind >= 250) {
        static const int32_t bad[] = {-1, VOCAB, INT32_MAX, INT32_MIN, VOCAB + 1, -VOCAB};
        ids[fuzz_u8(&x->in) % n] = bad[kind - 250];
        *good = 0;
    }
    return ids;
}

/* The session's own tokens up to a place, then others: what sync and prompts meet. */
static int32_t *related_ids(machine *x, const session *s, size_t *n, int *good) {
    const size_t keep = fuzz_u8(&x->in), more = fuzz_u8(&x->in) % 48, own = s->handle && keep < (size_t)s->length ? keep : (size_t)s->length;
    int32_t *fresh = some_ids(x, more, good), *ids = malloc((own + more) * sizeof *ids + 1);
    fuzz_check(ids);
    memcpy(ids, s->tokens, own * sizeof *ids);
    memcpy(ids + own, fresh, more * sizeof *ids);
    free(fresh);
    *n = own + more;
    return ids;
}

/* ---- models ---- */

static void call_open(machine *x) {
    model *m = pick_model(x);
    if (m->handle) return;
    pymtp_error err;
    pymtp_model_options o = {.size = sizeof o, .threads = 1};
    const uint8_t kind = fuzz_u8(&x->in), shape = fuzz_u8(&x->in);
    static const int64_t contexts[] = {0, 1, 24, CONTEXT, CONTEXT + 1, -1, INT64_MAX, 48};
    static const int32_t chunks[] = {1, 3, 8, 0, 512, 513, -1, 5};
    o.context = contexts[shape % 8];
    o.chunk = chunks[shape / 8 % 8];
    o.kv = shape / 64 % 4;
    if (kind & 4) o.threads = 2;
    m->has_drafter = !(kind & 8);
    if (m->has_drafter) o.drafter = micro_drafter(kind / 16 % MICRO_VARIANTS);
    m->handle = pymtp_model_open(micro_target(kind % 4 % MICRO_VARIANTS), &o, &err);
    fuzz_check(done(err.code, &err) == !!m->handle);
    if (!m->handle) return;
    pymtp_model_info info = {.size = sizeof info};
    fuzz_check(pymtp_model_get_info(m->handle, &info) == PYMTP_OK && info.vocab == VOCAB && info.context <= CONTEXT);
    fuzz_check(!info.drafter_layers == !m->has_drafter);
    m->guests = m->tap = 0;
    m->layers = info.layers;
    m->width = info.width;
    m->context = info.context;
}

static void close_model(model *m) {
    pymtp_error err;
    if (done(pymtp_model_close(m->handle, &err), &err)) {
        fuzz_check(!m->guests);
        *m = (model){0};
    } else fuzz_check(m->guests && err.code == PYMTP_E_STATE);
}

static void call_close(machine *x) { close_model(pick_model(x)); }

static void call_counters(machine *x) {
    model *m = pick_model(x);
    pymtp_counters c = {.size = fuzz_u8(&x->in) % 8 ? sizeof c : 4};
    const int good = m->handle && c.size == sizeof c;
    fuzz_check((pymtp_model_get_counters(m->handle, &c) == PYMTP_OK) == good);
}

static void call_tap(machine *x) {
    model *m = pick_model(x);
    pymtp_error err;
    pymtp_tap_sums sums = {.size = sizeof sums};
    double total = 0;
    switch (fuzz_u8(&x->in) % 3) {
        case 0:
            if (done(pymtp_tap_start(m->handle, &err), &err)) m->tap = 1;
            else fuzz_check(m->handle ? m->has_drafter && err.code == PYMTP_E_STATE : err.code == PYMTP_E_ARG);
            return;
        case 1:
            pymtp_tap_stop(m->handle);
            m->tap = 0;
            return;
        default: break;
    }
    const int64_t n = pymtp_tap_count(m->handle, &err);
    fuzz_check((n >= 0) == m->tap && done(n < 0 ? (pymtp_status)n : PYMTP_OK, &err) == m->tap);
    for (int64_t i = 0; i <= n; i++) {
        fuzz_check((pymtp_tap_get(m->handle, (size_t)i, &sums) == PYMTP_OK) == (i < n));
        for (uint64_t k = 0; i < n && k < sums.matrices * sums.cols; k++) total += sums.sums[k];
    }
    fuzz_check(total >= 0);
}

/* ---- sessions ---- */

static void call_new(machine *x) {
    session *s = pick_session(x);
    model *m = pick_model(x);
    pymtp_error err;
    if (s->handle) return;
    pymtp_session *handle = pymtp_session_new(m->handle, &err);
    fuzz_check(done(err.code, &err) == !!handle && !!handle == !!m->handle);
    if (!handle) return;
    *s = (session){.handle = handle, .of = m};
    m->guests++;
    check_tokens(s);
}

static void free_session(session *s) {
    if (s->handle) s->of->guests--;
    pymtp_session_free(s->handle);
    *s = (session){0};
}

static void call_free(machine *x) { free_session(pick_session(x)); }

static void call_forward(machine *x) {
    session *s = pick_session(x);
    pymtp_error err;
    int good;
    const size_t n = fuzz_u8(&x->in) % 64;
    const uint8_t shape = fuzz_u8(&x->in);
    static const int32_t wants[] = {PYMTP_LOGITS_NONE, PYMTP_LOGITS_LAST, PYMTP_LOGITS_ALL, 3, -1, PYMTP_LOGITS_NONE, PYMTP_LOGITS_LAST, PYMTP_LOGITS_NONE};
    const int32_t want = wants[shape % 8];
    const size_t rows = want == PYMTP_LOGITS_ALL ? n : want == PYMTP_LOGITS_LAST;
    int32_t *ids = some_ids(x, n, &good);
    const size_t width = s->handle ? (size_t)s->of->width : 0;
    float *logits = shape & 8 ? NULL : malloc(rows * VOCAB * sizeof *logits + 1), *hidden = shape & 16 ? malloc(n * width * sizeof *hidden + 1) : NULL;
    good &= s->handle && want >= 0 && want <= PYMTP_LOGITS_ALL && (logits || want == PYMTP_LOGITS_NONE || !n);
    const pymtp_status status = pymtp_session_forward(s->handle, ids, n, want, logits, hidden, &err);
    if (!done(status, &err) && !good) fuzz_check(status == PYMTP_E_ARG || (s->handle && status == PYMTP_E_CONTEXT));
    else {
        const int fits = s->length + (int64_t)n <= s->of->context;
        const int cancelled = fits && interrupt(s) && n;
        fuzz_check(status == (!fits ? PYMTP_E_CONTEXT : cancelled ? PYMTP_E_CANCELLED : PYMTP_OK));
        if (status == PYMTP_OK) {
            memcpy(s->tokens + s->length, ids, n * sizeof *ids);
            s->length += (int64_t)n;
        }
    }
    if (s->handle) check_tokens(s);
    free(ids);
    free(logits);
    free(hidden);
}

static void call_draft(machine *x) {
    session *s = pick_session(x);
    pymtp_error err;
    const size_t n = fuzz_u8(&x->in) % 20;
    const uint8_t shape = fuzz_u8(&x->in);
    const int32_t pending = shape & 4 ? -1 : shape % VOCAB;
    int32_t *ids = shape & 8 ? NULL : malloc(n * sizeof *ids + 1);
    float *logits = shape & 1 ? malloc(n * VOCAB * sizeof *logits + 1) : NULL, *hidden = shape & 2 ? malloc(n * 32 * sizeof *hidden + 1) : NULL;
    const pymtp_status status = pymtp_session_draft(s->handle, n, pending, ids, logits, hidden, &err);
    if (done(status, &err)) {
        fuzz_check(s->of->has_drafter && s->length && pending >= 0);
        for (size_t i = 0; i < n; i++) fuzz_check(ids[i] >= 0 && ids[i] < VOCAB);
    } else fuzz_check(status == PYMTP_E_ARG || status == PYMTP_E_STATE);
    if (s->handle) check_tokens(s);
    free(ids);
    free(logits);
    free(hidden);
}

static void call_rewind(machine *x) {
    session *s = pick_session(x);
    pymtp_error err;
    const uint8_t to = fuzz_u8(&x->in);
    const int64_t length = to == 255 ? -1 : to == 254 ? INT64_MAX : to == 253 ? INT64_MIN : to;
    const pymtp_status status = pymtp_session_rewind(s->handle, length, &err);
    if (s->handle) {
        const int inside = length >= 0 && length <= s->length, cancelled = inside && interrupt(s);
        if (done(status, &err)) {
            fuzz_check(inside);
            s->length = length;
        } else fuzz_check(inside ? cancelled && status == PYMTP_E_CANCELLED : status == PYMTP_E_ARG);
        check_tokens(s);
    } else fuzz_check(!done(status, &err) && status == PYMTP_E_ARG);
}

static void call_sync(machine *x) {
    session *s = pick_session(x);
    pymtp_error err;
    size_t n;
    int good;
    int64_t kept = -1, common = 0;
    int32_t *ids = related_ids(x, s, &n, &good);
    const pymtp_status status = pymtp_session_sync(s->handle, ids, n, &kept, &err);
    if (s->handle) {
        const int cancelled = interrupt(s);
        while (common < s->length && (size_t)common < n && s->tokens[common] == ids[common]) common++;
        if (done(status, &err)) s->length = common;
        else fuzz_check(cancelled && status == PYMTP_E_CANCELLED);
        fuzz_check(kept == s->length);
        check_tokens(s);
    } else fuzz_check(!done(status, &err));
    free(ids);
}

static void call_kv(machine *x) {
    session *s = pick_session(x);
    const int32_t layer = (int8_t)fuzz_u8(&x->in);
    const int64_t at = (int64_t)(int8_t)fuzz_u8(&x->in) * (fuzz_u8(&x->in) % 8 ? 1 : INT64_MAX / 128);
    const size_t cap = (size_t)fuzz_u8(&x->in) * 4;
    uint8_t *out = malloc(cap + 1);
    const int64_t n = pymtp_session_kv_bytes(s->handle, layer, at, out, cap);
    fuzz_check(n <= 0 || (s->handle && layer >= 0 && layer < s->of->layers && at >= 0 && at < s->length));
    free(out);
}

/* ---- snapshots ---- */

static void call_snapshot(machine *x) {
    session *s = pick_session(x);
    snapshot *k = pick_snapshot(x);
    pymtp_error err;
    if (k->handle) return;
    pymtp_snapshot *handle = pymtp_session_snapshot(s->handle, &err);
    fuzz_check(done(err.code, &err) == !!handle && !!handle == !!s->handle);
    if (!handle) return;
    *k = (snapshot){.handle = handle, .of = s->of, .length = s->length};
    memcpy(k->tokens, s->tokens, sizeof k->tokens);
    s->of->guests++;
    check_tokens(s);
}

static void free_snapshot(snapshot *k) {
    if (k->handle) k->of->guests--;
    pymtp_snapshot_free(k->handle);
    *k = (snapshot){0};
}

static void call_snapshot_free(machine *x) { free_snapshot(pick_snapshot(x)); }

static void call_restore(machine *x) {
    session *s = pick_session(x);
    const snapshot *k = pick_snapshot(x);
    pymtp_error err;
    const pymtp_status status = pymtp_session_restore(s->handle, k->handle, &err);
    const int ok = done(status, &err);
    if (!s->handle || !k->handle) {
        fuzz_check(status == PYMTP_E_ARG);
    } else if (s->of != k->of) {
        fuzz_check(status == PYMTP_E_MISMATCH);
    } else {
        const int cancelled = interrupt(s);
        if (ok) {
            s->length = k->length;
            memcpy(s->tokens, k->tokens, sizeof s->tokens);
        } else { /* a prefix that both share */
            fuzz_check(cancelled && status == PYMTP_E_CANCELLED);
            const int64_t before = s->length;
            const int64_t now = pymtp_session_length(s->handle);
            fuzz_check(now <= before && now <= k->length && !memcmp(s->tokens, k->tokens, (size_t)now * sizeof *s->tokens));
            s->length = now;
        }
    }
    if (s->handle) check_tokens(s);
}

/* ---- requests ---- */

/* Parameters with their lists in s; now and then a bad one. */
static void some_params(machine *x, session *s) {
    pymtp_params *p = &s->params;
    const uint8_t a = fuzz_u8(&x->in), b = fuzz_u8(&x->in), c = fuzz_u8(&x->in), d = fuzz_u8(&x->in);
    static const double temperatures[] = {0, 1, 0.3, 100, 1e9, 1e-9, -1, 1e10}, fractions[] = {1, 0.95, 0.5, 0, 1e-9, 1.1, -0.1, 0.7};
    static const double penalties[] = {0, 0.5, -2, 1e6}, repetitions[] = {1, 1.3, 1e-6, 0};
    static const int32_t counts[] = {-1, 0, 1, 2, 7, 30, INT32_MAX, -2}, tops[] = {64, 0, 1, 2, 300, INT32_MAX, 20, -1};
    static const int32_t drafts[] = {PYMTP_DRAFT_AUTO, 0, 1, 3, 16, 17, -2, 8}, logprobs[] = {-1, 0, 3, 20, -1, 21, -2, -1};
    pymtp_params_init(p);
    p->seed = fuzz_u8(&x->in);
    p->max_tokens = counts[a % 8];
    p->temperature = temperatures[a / 8 % 8];
    p->ignore_eos = a / 64 != 3;
    p->top_k = tops[b % 8];
    p->top_p = fractions[b / 8 % 8];
    p->repetition_penalty = repetitions[b / 64];
    p->draft = drafts[c % 8];
    p->logprobs = logprobs[c / 8 % 8];
    p->presence_penalty = penalties[c / 64];
    p->snapshot_at = (d & 1) ? -1 : (d & 2) ? -2 : d / 4;
    if (d & 4) {
        s->bias_ids[0] = d % VOCAB;
        s->bias_ids[1] = (d + 7) % VOCAB;
        s->bias_values[0] = -INFINITY;
        s->bias_values[1] = (float)(d % 16);
        p->bias_ids = s->bias_ids;
        p->bias_values = s->bias_values;
        p->n_bias = 2;
    }
    if (d & 8) {
        s->stop[0] = "ab";
        s->stop_bytes[0] = 1 + d % 2;
        p->stop = s->stop;
        p->stop_bytes = s->stop_bytes;
        p->n_stop = 1;
    }
    if (d & 16) {
        for (size_t i = 0; i < 24; i++) s->script[i] = (int32_t)((d + i * 5) % VOCAB);
        p->script = s->script;
        p->n_script = d % 25;
    }
    if (d == 255) p->size = 8;
    if (d == 254) p->n_stop = 1, p->stop = NULL;
}

/* Without drafts, in one session of its own: the same tokens and the same end. */
static void check_plain(const session *s, int32_t finish) {
    pymtp_error err;
    pymtp_output out = {.size = sizeof out};
    pymtp_params p = s->params;
    int64_t at = s->n_prompt;
    p.draft = 0;
    p.n_script = 0;
    p.logprobs = -1;
    pymtp_session *plain = pymtp_session_new(s->of->handle, &err);
    fuzz_check(plain && pymtp_generate(plain, s->stream, (size_t)s->n_prompt, &p, &err) == PYMTP_OK);
    while (out.finish == PYMTP_FINISH_NONE) {
        fuzz_check(pymtp_step(&plain, 1, &err) == PYMTP_OK && pymtp_session_output(plain, &out) == PYMTP_OK);
        fuzz_check(at + (int64_t)out.n_tokens <= s->n_stream);
        if (out.n_tokens) fuzz_check(!memcmp(s->stream + at, out.tokens, out.n_tokens * sizeof *out.tokens));
        at += (int64_t)out.n_tokens;
    }
    fuzz_check(at == s->n_stream && out.finish == finish && pymtp_session_length(plain) == s->length);
    pymtp_session_free(plain);
}

static void call_generate(machine *x) {
    session *s = pick_session(x);
    pymtp_error err;
    size_t n;
    int good;
    int32_t *prompt = related_ids(x, s, &n, &good);
    session *with = s->handle && !s->running ? s : &(session){0}; /* a refused request must leave a running one as it is */
    some_params(x, with);
    const pymtp_status status = pymtp_generate(s->handle, prompt, n, &with->params, &err);
    if (done(status, &err)) {
        fuzz_check(s->handle && good && n && n <= (size_t)s->of->context);
        if (with != s) {
            session was = *s;
            *s = *with;
            s->handle = was.handle;
            s->of = was.of;
            s->params.bias_ids = s->params.bias_ids ? s->bias_ids : NULL;
            s->params.bias_values = s->params.bias_values ? s->bias_values : NULL;
            s->params.stop = s->params.stop ? s->stop : NULL;
            s->params.stop_bytes = s->params.stop_bytes ? s->stop_bytes : NULL;
            s->params.script = s->params.script ? s->script : NULL;
            memcpy(s->tokens, was.tokens, sizeof s->tokens);
        }
        s->running = 1;
        s->cancelled = 0;
        s->n_prompt = s->n_stream = (int64_t)n;
        memcpy(s->stream, prompt, n * sizeof *prompt);
        take_tokens(s);
        fuzz_check(s->length < (int64_t)n && !memcmp(s->tokens, prompt, (size_t)s->length * sizeof *prompt));
    } else {
        fuzz_check(status == PYMTP_E_ARG || status == PYMTP_E_CONTEXT || status == PYMTP_E_STATE);
        if (s->handle) check_tokens(s);
    }
    free(prompt);
}

/* Takes what a step gave a session that ran. */
static void take_output(session *s) {
    pymtp_output out = {.size = sizeof out};
    pymtp_stats stats = {.size = sizeof stats};
    fuzz_check(pymtp_session_output(s->handle, &out) == PYMTP_OK && pymtp_session_stats(s->handle, &stats) == PYMTP_OK);
    fuzz_check(out.n_tokens <= PYMTP_MAX_DRAFT + 1 && out.n_drafted <= out.n_tokens && out.status == PYMTP_OK && !out.error[0]);
    fuzz_check((out.finish == PYMTP_FINISH_CANCELLED) == s->cancelled && stats.accepted <= stats.drafted);
    fuzz_check(s->n_stream + (int64_t)out.n_tokens <= MAX_STREAM);
    if (out.n_tokens) memcpy(s->stream + s->n_stream, out.tokens, out.n_tokens * sizeof *out.tokens);
    s->n_stream += (int64_t)out.n_tokens;
    if (out.logprobs)
        for (size_t i = 0; i < out.n_tokens * (size_t)(1 + s->params.logprobs); i++)
            fuzz_check(out.logprobs[i].id >= -1 && out.logprobs[i].id < VOCAB && !(out.logprobs[i].logprob > 0));
    fuzz_check(!memchr(out.text, 0, out.n_text));
    take_tokens(s);
    fuzz_check(s->length <= s->n_stream && !memcmp(s->tokens, s->stream, (size_t)s->length * sizeof *s->tokens));
    if (out.finish == PYMTP_FINISH_NONE) return;
    s->running = s->cancelled = 0;
    if (out.finish != PYMTP_FINISH_CANCELLED) check_plain(s, out.finish);
}

static void call_step(machine *x) {
    pymtp_session *handles[SESSIONS + 1] = {NULL};
    session *which[SESSIONS + 1];
    pymtp_error err;
    const size_t n = fuzz_u8(&x->in) % (SESSIONS + 2);
    pymtp_status expected = PYMTP_OK, state = PYMTP_OK;
    for (size_t i = 0; i < n; i++) {
        which[i] = pick_session(x);
        handles[i] = which[i]->handle;
    }
    for (size_t i = 0; i < n && expected == PYMTP_OK; i++) {
        if (!handles[i]) expected = PYMTP_E_ARG;
        else if (which[i]->of != which[0]->of) expected = PYMTP_E_MISMATCH;
        else if (!which[i]->running) state = PYMTP_E_STATE;
        for (size_t k = 0; k < i; k++)
            if (expected == PYMTP_OK && which[k] == which[i]) expected = PYMTP_E_ARG;
    }
    if (expected == PYMTP_OK) expected = state;
    const pymtp_status status = pymtp_step(handles, n, &err);
    done(status, &err);
    fuzz_check(status == expected);
    for (size_t i = 0; i < n && status == PYMTP_OK; i++) take_output(which[i]);
}

/* A request to its end, alone. */
static void call_run(machine *x) {
    session *s = pick_session(x);
    pymtp_error err;
    while (s->handle && s->running) {
        fuzz_check(done(pymtp_step(&s->handle, 1, &err), &err));
        take_output(s);
    }
}

static void call_output(machine *x) {
    session *s = pick_session(x);
    const int good = !!s->handle;
    pymtp_output out = {.size = sizeof out};
    pymtp_stats stats = {.size = sizeof stats};
    size_t seen = 0;
    fuzz_check((pymtp_session_output(s->handle, &out) == PYMTP_OK) == good && (pymtp_session_stats(s->handle, &stats) == PYMTP_OK) == good);
    if (!good) return;
    for (size_t i = 0; i < out.n_tokens; i++) seen += (size_t)out.tokens[i]; /* what pointers show is there to be read */
    for (size_t i = 0; i < out.n_text; i++) seen += (uint8_t)out.text[i];
    fuzz_check(seen <= (size_t)VOCAB * 17 + 255 * out.n_text && strlen(out.error) < sizeof((pymtp_error *)0)->text);
}

static void call_cancel(machine *x) {
    session *s = pick_session(x);
    pymtp_cancel(s->handle);
    s->cancelled = !!s->handle;
}

static void call_check(machine *x) {
    const session *s = pick_session(x);
    if (s->handle) check_cache(s);
}

/* ---- the program ---- */

static void (*const calls[])(machine *) = {
    call_open, call_close, call_new, call_free, call_forward, call_draft, call_rewind, call_sync, call_kv, call_snapshot, call_snapshot_free,
    call_restore, call_generate, call_step, call_run, call_output, call_cancel, call_check, call_counters, call_tap,
    call_generate, call_step, call_forward, call_step};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static machine x;
    x = (machine){.in = {data, n}};
    for (int i = 0; i < CALLS && x.in.left; i++) calls[fuzz_u8(&x.in) % (sizeof calls / sizeof *calls)](&x);
    for (int i = 0; i < SESSIONS; i++)
        if (x.sessions[i].handle) check_cache(&x.sessions[i]);
    for (int i = 0; i < SESSIONS; i++) free_session(&x.sessions[i]);
    for (int i = 0; i < SNAPSHOTS; i++) free_snapshot(&x.snapshots[i]);
    for (int i = 0; i < MODELS; i++)
        if (x.models[i].handle) close_model(&x.models[i]);
    for (int i = 0; i < MODELS; i++) fuzz_check(!x.models[i].handle);
    return 0;
}
