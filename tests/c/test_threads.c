/* test_threads.c - everything that may run at once, at once, on one model with a pool of several threads: requests alone and in
 * company, cancellation, snapshots and rewinding, readers, the tokenizer, other models opened and closed. Under ThreadSanitizer it shows
 * that no two of them race; under any build, that what a request gives is what it gives alone, so nothing leaks from one session into
 * another. Threads write only to their own `worker`; CHECK is for the main thread. test_threads SECONDS runs longer than once round. */
#include "engine_run.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define PROMPT 24
#define TOKENS 40
#define REQUESTS 6 /* different ones; see request() */

typedef struct request {
    int32_t prompt[PROMPT];
    pymtp_params params;
    int32_t tokens[TOKENS]; /* of the plain run alone */
    size_t n;
} request;

typedef struct worker {
    pthread_t thread;
    void (*body)(struct worker *w);
    pymtp_session *session; /* the victim's, for who cancels and reads */
    int number, rounds, cancelled, finished;
    char failed[1100];      /* the first failure */
} worker;

static pymtp_model *model;
static request requests[REQUESTS];
static time_t deadline;                /* no new round from then on */
static atomic_int victims_left;   /* sessions that others look at are freed after this is 0 and they have left */
static pymtp_session *victim[2];

/* Keeps the first failure. */
static int fail(worker *w, const char *what, const char *why) {
    if (!w->failed[0]) snprintf(w->failed, sizeof w->failed, "%s: %s", what, why);
    return 0;
}

static int another_round(worker *w) {
    const int more = !w->failed[0] && (!w->rounds || time(NULL) < deadline);
    w->rounds += more;
    return more;
}

/* ---- requests ---- */

/* Greedy and sampled, drafted by the network and not. */
static void make_request(request *r, int i) {
    make_ids(r->prompt, PROMPT, 100 + (uint64_t)i, 1280);
    r->params = plain_params(TOKENS);
    r->params.logprobs = i % 3 ? -1 : 2;
    r->params.temperature = i & 1;
    r->params.seed = (uint64_t)i;
}

/* The session's output after a step, appended: 1 while the request runs. */
static int take(worker *w, const pymtp_session *s, int32_t *tokens, size_t *n, int32_t *finish) {
    pymtp_output out = {.size = sizeof out};
    if (pymtp_session_output(s, &out) != PYMTP_OK || *n + out.n_tokens > TOKENS) return fail(w, "output", "refused or too long");
    if (out.n_tokens) memcpy(tokens + *n, out.tokens, out.n_tokens * sizeof *tokens);
    *n += out.n_tokens;
    *finish = out.finish;
    return out.finish == PYMTP_FINISH_NONE;
}

/* Runs requests together on sessions of their own thread; their tokens are those of the plain runs, or of cancelled ones a beginning. */
static void run_requests(worker *w, pymtp_session **s, const int *which, size_t count, int32_t draft) {
    int32_t tokens[2][TOKENS], finish[2] = {0};
    size_t n[2] = {0}, left = count;
    pymtp_session *running[2];
    pymtp_error err;
    for (size_t i = 0; i < count; i++) {
        pymtp_params p = requests[which[i]].params;
        p.draft = draft;
        if (pymtp_generate(s[i], requests[which[i]].prompt, PROMPT, &p, &err) != PYMTP_OK) fail(w, "generate", err.text);
    }
    while (left && !w->failed[0]) {
        left = 0;
        for (size_t i = 0; i < count; i++)
            if (finish[i] == PYMTP_FINISH_NONE) running[left++] = s[i];
        if (left && pymtp_step(running, left, &err) != PYMTP_OK) fail(w, "step", err.text);
        for (size_t i = 0; i < count && left; i++)
            if (finish[i] == PYMTP_FINISH_NONE) take(w, s[i], tokens[i], &n[i], &finish[i]);
    }
    for (size_t i = 0; i < count && !w->failed[0]; i++) {
        const request *r = &requests[which[i]];
        const int whole = finish[i] == PYMTP_FINISH_LENGTH && n[i] == r->n, part = finish[i] == PYMTP_FINISH_CANCELLED && n[i] <= r->n;
        if (!whole && !part) fail(w, "finish", "neither length nor cancelled");
        else if (memcmp(tokens[i], r->tokens, n[i] * sizeof **tokens)) fail(w, "tokens", "others than alone");
        w->cancelled += part;
        w->finished += whole;
    }
}

/* ---- the threads ---- */

static void alone(worker *w) {
    for (pymtp_session *s; another_round(w); pymtp_session_free(s)) {
        const int which = (w->number + w->rounds) % REQUESTS;
        s = pymtp_session_new(model, NULL);
        if (!s) fail(w, "session", "none");
        else run_requests(w, &s, &which, 1, PYMTP_DRAFT_AUTO);
        if (w->cancelled) fail(w, "finish", "cancelled by nobody");
    }
}

static void together(worker *w) {
    pymtp_session *s[2] = {pymtp_session_new(model, NULL), pymtp_session_new(model, NULL)};
    while (another_round(w)) {
        const int which[2] = {w->rounds % REQUESTS, (w->rounds + 1) % REQUESTS};
        run_requests(w, s, which, 2, 3);
    }
    pymtp_session_free(s[0]);
    pymtp_session_free(s[1]);
}

static void cancelled(worker *w) {
    while (another_round(w)) run_requests(w, &w->session, &(int){w->rounds % REQUESTS}, 1, 2);
    atomic_fetch_sub(&victims_left, 1);
}

/* Cancels one at uneven times and reads what the threads of both write. */
static void cancels(worker *w) {
    int32_t tokens[PROMPT + TOKENS];
    uint8_t bytes[4096];
    for (w->rounds = 0; atomic_load(&victims_left); w->rounds++) {
        pymtp_session *s = victim[w->rounds & 1];
        const struct timespec pause = {0, 1000000L << w->rounds % 10}; /* 1 to 512 ms: in the prompt, in a round, not before the end */
        pymtp_stats stats = {.size = sizeof stats};
        pymtp_output out = {.size = sizeof out};
        if (pymtp_session_tokens(s, tokens, PROMPT + TOKENS) > PROMPT + TOKENS || pymtp_session_length(s) > PROMPT + TOKENS) fail(w, "length", "too long");
        if (pymtp_session_stats(s, &stats) != PYMTP_OK || pymtp_session_output(s, &out) != PYMTP_OK) fail(w, "stats and output", "refused");
        if (pymtp_session_kv_bytes(s, 0, 0, bytes, sizeof bytes) > (int64_t)sizeof bytes) fail(w, "K/V", "too large");
        nanosleep(&pause, NULL);
        pymtp_cancel(victim[0]); /* the other one runs to its end */
    }
}

static void goes_back(worker *w) {
    pymtp_session *s = pymtp_session_new(model, NULL), *t = pymtp_session_new(model, NULL);
    int32_t ids[200];
    int64_t kept;
    make_ids(ids, 200, 9, 1280);
    while (another_round(w)) {
        pymtp_error err = {0};
        if (pymtp_session_sync(s, ids, 100, &kept, &err) != PYMTP_OK) fail(w, "sync", err.text);
        if (pymtp_session_forward(s, ids + kept, (size_t)(100 - kept), PYMTP_LOGITS_NONE, NULL, NULL, &err) != PYMTP_OK) fail(w, "forward", err.text);
        pymtp_snapshot *k = pymtp_session_snapshot(s, &err);
        if (!k || pymtp_session_forward(s, ids + 100, 100, PYMTP_LOGITS_NONE, NULL, NULL, &err) != PYMTP_OK) fail(w, "snapshot", err.text);
        else if (pymtp_session_rewind(s, 150, &err) != PYMTP_OK || pymtp_session_restore(t, k, &err) != PYMTP_OK) fail(w, "restore", err.text);
        else if (pymtp_session_length(s) != 150 || pymtp_session_length(t) != 100) fail(w, "length", "not as restored");
        pymtp_snapshot_free(k);
    }
    pymtp_session_free(s);
    pymtp_session_free(t);
}

static void reads(worker *w) {
    const pymtp_tokenizer *t = pymtp_model_tokenizer(model);
    const char text[] = "Text of one thread \xe2\x82\xac \xff and of another";
    while (another_round(w)) {
        pymtp_model_info info = {.size = sizeof info};
        pymtp_counters counters = {.size = sizeof counters};
        int32_t ids[sizeof text];
        char back[4 * sizeof text], streamed[4 * sizeof text];
        size_t bytes, length = 0;
        const int64_t n = pymtp_tokenize(t, text, sizeof text - 1, 0, ids, sizeof text, NULL);
        const int64_t size = n < 0 ? n : pymtp_detokenize(t, ids, (size_t)n, 0, back, sizeof back, NULL);
        pymtp_decoder *d = pymtp_decoder_new(t, 0, NULL);
        for (int64_t i = 0; d && i <= n; i++) {
            const char *piece = i < n ? pymtp_decoder_push(d, ids[i], &bytes) : pymtp_decoder_flush(d, &bytes);
            if (bytes) memcpy(streamed + length, piece, bytes);
            length += bytes;
        }
        if (size < 0 || (size_t)size != length || memcmp(back, streamed, length)) fail(w, "tokenizer", "the stream is not the text");
        pymtp_decoder_free(d);
        if (pymtp_model_get_info(model, &info) != PYMTP_OK || pymtp_model_get_counters(model, &counters) != PYMTP_OK) fail(w, "info", "refused");
        if (pymtp_model_close(model, NULL) != PYMTP_E_STATE) fail(w, "close", "taken under living sessions");
    }
}

static void opens(worker *w) {
    char target[1024], drafter[1024];
    const pymtp_model_options options = {.size = sizeof options, .threads = 2, .context = 256, .drafter = data_path(drafter, sizeof drafter, "tiny-31b-drafter.gguf")};
    data_path(target, sizeof target, "tiny-31b.gguf");
    while (another_round(w)) {
        pymtp_error err = {0};
        pymtp_memory memory = {.size = sizeof memory};
        pymtp_model *other = pymtp_model_open(target, &options, &err);
        pymtp_session *s = other ? pymtp_session_new(other, &err) : NULL;
        if (!s || pymtp_session_forward(s, &(int32_t){2}, 1, PYMTP_LOGITS_NONE, NULL, NULL, &err) != PYMTP_OK) fail(w, "another model", err.text);
        pymtp_session_free(s);
        if (other && pymtp_model_close(other, &err) != PYMTP_OK) fail(w, "another model", err.text);
        if (pymtp_memory_estimate(target, &options, &memory, &err) != PYMTP_OK) fail(w, "estimate", err.text);
        if (pymtp_model_open(drafter, NULL, NULL)) fail(w, "a drafter", "opened as target");
    }
}

static void *start(void *worker_) {
    worker *w = worker_;
    w->body(w);
    return NULL;
}

/* ---- all of them ---- */

static void plain_runs(void) {
    for (int i = 0; i < REQUESTS; i++) {
        static run r;
        make_request(&requests[i], i);
        run_new(model, requests[i].prompt, PROMPT, &requests[i].params, &r);
        CHECK(r.finish == PYMTP_FINISH_LENGTH && r.n == TOKENS, "request %d: finish %d, %zu tokens: %s", i, r.finish, r.n, r.error);
        memcpy(requests[i].tokens, r.tokens, sizeof requests[i].tokens);
        requests[i].n = r.n;
    }
}

int main(int argc, char **argv) {
    static void (*const bodies[])(worker *) = {alone, alone, together, cancelled, cancelled, cancels, goes_back, reads, opens};
    enum { WORKERS = sizeof bodies / sizeof *bodies };
    static worker w[WORKERS];
    char target[1024], drafter[1024];
    const pymtp_model_options options = {.size = sizeof options, .threads = 3, .kv = PYMTP_KV_F32, .chunk = 8, .drafter = data_path(drafter, sizeof drafter, "tiny-e2b-drafter.gguf")};
    pymtp_error err = {0};
    model = pymtp_model_open(data_path(target, sizeof target, "tiny-e2b.gguf"), &options, &err);
    CHECK(model != NULL, "%s", err.text);
    if (!model) return check_done();
    plain_runs();
    for (int i = 0; i < 2; i++) victim[i] = new_session(model);
    atomic_store(&victims_left, 2);
    deadline = time(NULL) + (argc > 1 ? atoi(argv[1]) : 0);
    for (int i = 0, victims = 0; i < WORKERS; i++) {
        w[i].body = bodies[i];
        w[i].number = i;
        if (bodies[i] == cancelled) w[i].session = victim[victims++];
        CHECK(pthread_create(&w[i].thread, NULL, start, &w[i]) == 0, "thread %d", i);
    }
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(w[i].thread, NULL);
        CHECK(!w[i].failed[0] && w[i].rounds, "thread %d, round %d: %s", i, w[i].rounds, w[i].failed);
    }
    printf("rounds: %d %d alone, %d together, %d cancelled (%d requests), %d watched, %d back and forth, %d read, %d opened\n", w[0].rounds, w[1].rounds,
           w[2].rounds, w[3].rounds, w[3].cancelled, w[4].rounds, w[6].rounds, w[7].rounds, w[8].rounds);
    for (int i = 0; i < 2; i++) pymtp_session_free(victim[i]);
    CHECK(pymtp_model_close(model, &err) == PYMTP_OK, "%s", err.text);
    return check_done();
}
