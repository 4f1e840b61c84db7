/* engine_run.h - runs requests on the golden models for the tests of the engine: what a run gives, the state it leaves,
 * and a comparison of two runs. */
#ifndef PM_TESTS_ENGINE_RUN_H
#define PM_TESTS_ENGINE_RUN_H

#include "check.h"
#include "pymtp.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

#define RUN_MAX 512
#define BIG_ID 640 /* half of the goldens' 1280 ids */

static const char *const golden_names[] = {"tiny-e2b", "tiny-26b", "tiny-31b"};

/* tests/data/NAME, found beside this source file. */
static inline const char *data_path(char *out, size_t cap, const char *name) {
    const char *here = __FILE__, *slash = strrchr(here, '/');
    snprintf(out, cap, "%.*s/../data/%s", slash ? (int)(slash - here) : 1, slash ? here : ".", name);
    return out;
}

/* A target with its drafter. Small chunks make small rings (96 positions), so that short runs wrap them. */
static inline pymtp_model *open_pair(const char *target, const char *drafter, int64_t context) {
    pymtp_error err;
    const pymtp_model_options options = {.size = sizeof options, .threads = 1, .context = context, .kv = PYMTP_KV_F32, .chunk = 8, .drafter = drafter};
    pymtp_model *m = pymtp_model_open(target, &options, &err);
    if (!m) {
        printf("%s: %s\n", target, err.text);
        exit(1);
    }
    return m;
}

static inline pymtp_model *open_golden(const char *name, int64_t context) {
    char file[64], target[1024], drafter[1024];
    snprintf(file, sizeof file, "%s.gguf", name);
    data_path(target, sizeof target, file);
    snprintf(file, sizeof file, "%s-drafter.gguf", name);
    return open_pair(target, data_path(drafter, sizeof drafter, file), context);
}

static inline pymtp_session *new_session(pymtp_model *m) {
    pymtp_error err;
    pymtp_session *s = pymtp_session_new(m, &err);
    if (!s) {
        printf("session: %s\n", err.text);
        exit(1);
    }
    return s;
}

/* BOS and n - 1 ids below `below`, the same for the same seed. */
static inline void make_ids(int32_t *ids, size_t n, uint64_t seed, int32_t below) {
    rng r = {seed};
    for (size_t i = 0; i < n; i++) ids[i] = i ? 20 + (int32_t)(rng_next(&r) % (uint64_t)(below - 20)) : 2;
}

/* ---- state ---- */

typedef struct state {
    int64_t length;
    int has_hidden;
    uint64_t tokens, hidden, kv; /* hashes: of the tokens, of h, of every readable byte of the cache with its place */
} state;

static inline uint64_t hash(uint64_t h, const void *p, size_t n) { /* FNV-1a */
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 0x100000001b3u;
    return h;
}

static inline state state_of(const pymtp_session *s, int32_t layers) {
    static int32_t tokens[4096];
    static float hidden[4096];
    static uint8_t bytes[1 << 16];
    const uint64_t start = 0xcbf29ce484222325u;
    state out = {.length = pymtp_session_tokens(s, tokens, 4096), .kv = start};
    out.tokens = hash(start, tokens, (size_t)out.length * sizeof *tokens);
    out.has_hidden = pymtp_session_hidden(s, hidden, NULL) == PYMTP_OK;
    if (out.has_hidden) out.hidden = hash(start, hidden, 128 * sizeof *hidden); /* width of the goldens */
    for (int32_t l = 0; l < layers; l++)
        for (int64_t p = 0; p < out.length; p++) {
            const int64_t n = pymtp_session_kv_bytes(s, l, p, bytes, sizeof bytes);
            if (n <= 0) continue;
            out.kv = hash(hash(hash(out.kv, &l, sizeof l), &p, sizeof p), bytes, (size_t)n);
        }
    return out;
}

static inline void check_state(state a, state b, int hidden, const char *what) {
    CHECK(a.length == b.length, "%s: length %lld, expected %lld", what, (long long)a.length, (long long)b.length);
    CHECK(a.tokens == b.tokens, "%s: other tokens", what);
    CHECK(a.kv == b.kv, "%s: other K/V", what);
    if (hidden) CHECK(a.has_hidden == b.has_hidden && a.hidden == b.hidden, "%s: other hidden row (%d, %d)", what, a.has_hidden, b.has_hidden);
}

/* ---- runs ---- */

typedef struct run {
    int32_t tokens[RUN_MAX];
    size_t n;
    char text[16384];
    size_t n_text;
    uint64_t logprobs; /* hash of all of them */
    int32_t finish, status, stop_id;
    char error[1024];
    pymtp_stats stats;
    state state;
} run;

static inline int32_t layers_of(const pymtp_model *m) {
    pymtp_model_info info = {.size = sizeof info};
    pymtp_model_get_info(m, &info);
    return info.layers;
}

/* Adds the output of the session's last step; 1 while it runs. */
static inline int collect(pymtp_session *s, const pymtp_params *p, run *r) {
    pymtp_output out = {.size = sizeof out};
    CHECK(pymtp_session_output(s, &out) == PYMTP_OK, "output");
    if (r->n + out.n_tokens > RUN_MAX || r->n_text + out.n_text > sizeof r->text) exit(1);
    if (out.n_tokens) memcpy(r->tokens + r->n, out.tokens, out.n_tokens * sizeof *out.tokens);
    if (out.n_text) memcpy(r->text + r->n_text, out.text, out.n_text);
    if (out.logprobs) r->logprobs = hash(r->logprobs, out.logprobs, out.n_tokens * (size_t)(1 + p->logprobs) * sizeof *out.logprobs);
    r->n += out.n_tokens;
    r->n_text += out.n_text;
    r->finish = out.finish;
    r->status = out.status;
    r->stop_id = out.stop_id;
    snprintf(r->error, sizeof r->error, "%s", out.error);
    return out.finish == PYMTP_FINISH_NONE;
}

static inline void begin(pymtp_session *s, const int32_t *prompt, size_t n, const pymtp_params *p) {
    pymtp_error err;
    const pymtp_status status = pymtp_generate(s, prompt, n, p, &err);
    CHECK(status == PYMTP_OK, "generate: %s", err.text);
}

/* Starts the requests of n sessions and steps them together to their ends. */
static inline void run_together(pymtp_model *m, pymtp_session **s, size_t n, int32_t *const *prompts, const size_t *lengths, const pymtp_params *p, run *out) {
    pymtp_session *running[32];
    size_t left = n;
    for (size_t i = 0; i < n; i++) {
        memset(&out[i], 0, sizeof out[i]);
        out[i].stats.size = sizeof out[i].stats;
        begin(s[i], prompts[i], lengths[i], &p[i]);
    }
    while (left) {
        pymtp_error err;
        left = 0;
        for (size_t i = 0; i < n; i++)
            if (out[i].finish == PYMTP_FINISH_NONE) running[left++] = s[i];
        if (!left) break;
        const pymtp_status status = pymtp_step(running, left, &err);
        CHECK(status == PYMTP_OK, "step: %s", err.text);
        if (status != PYMTP_OK) break;
        for (size_t i = 0; i < n; i++)
            if (out[i].finish == PYMTP_FINISH_NONE) collect(s[i], &p[i], &out[i]);
    }
    for (size_t i = 0; i < n; i++) {
        pymtp_session_stats(s[i], &out[i].stats);
        out[i].state = state_of(s[i], layers_of(m));
    }
}

static inline void run_on(pymtp_model *m, pymtp_session *s, int32_t *prompt, size_t n, const pymtp_params *p, run *out) {
    run_together(m, &s, 1, &prompt, &n, p, out);
}

/* On a session of its own. */
static inline void run_new(pymtp_model *m, int32_t *prompt, size_t n, const pymtp_params *p, run *out) {
    pymtp_session *s = new_session(m);
    run_on(m, s, prompt, n, p, out);
    pymtp_session_free(s);
}

static inline void check_run(const run *got, const run *want, const char *what) {
    CHECK(got->n == want->n && !memcmp(got->tokens, want->tokens, want->n * sizeof *want->tokens), "%s: %zu tokens, expected %zu or others", what, got->n,
          want->n);
    CHECK(got->n_text == want->n_text && !memcmp(got->text, want->text, want->n_text), "%s: other text", what);
    CHECK(got->logprobs == want->logprobs, "%s: other log-probabilities", what);
    CHECK(got->finish == want->finish, "%s: finish %d, expected %d", what, got->finish, want->finish);
    CHECK(got->status == want->status && !strcmp(got->error, want->error), "%s: error %s, expected %s", what, got->error, want->error);
    CHECK(got->stop_id == want->stop_id, "%s: stop_id %d, expected %d", what, got->stop_id, want->stop_id);
    check_state(got->state, want->state, 1, what);
}

/* Greedy, no drafts, no end tokens, log-probabilities on. */
static inline pymtp_params plain_params(int32_t max_tokens) {
    pymtp_params p;
    pymtp_params_init(&p);
    p.temperature = 0;
    p.max_tokens = max_tokens;
    p.ignore_eos = 1;
    p.logprobs = 2;
    p.draft = 0;
    return p;
}

/* ---- scripted drafters ---- */

enum { RIGHT, WRONG, SOMETIMES, RANDOM, SCRIPTS };
static const char *const script_names[] = {"right", "wrong", "sometimes", "random"};

/* Drafts for a run whose plain tokens are known; beyond them the script says 0. out: (n) */
static inline void make_script(int kind, const int32_t *right, size_t n_right, int32_t *out, size_t n) {
    rng r = {77};
    for (size_t i = 0; i < n; i++) {
        const int32_t t = i < n_right ? right[i] : 0, random = (int32_t)(rng_next(&r) % 1280);
        out[i] = kind == RIGHT || (kind == SOMETIMES && i % 5) ? t : kind == RANDOM ? random : (t + 1) % 1280;
    }
}

#endif
