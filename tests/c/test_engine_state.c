/* test_engine_state.c - what a session is after going back, snapshots, cancellation, refusals and failures: always the state of
 * a session that was fed the same tokens, and on failure the one it had. */
#include "engine_run.h"

#include "gguf/gguf.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#define LONG 300 /* more than twice round the rings of 128 */

static pymtp_error err;

static void feed(pymtp_session *s, const int32_t *ids, size_t n) {
    const pymtp_status status = pymtp_session_forward(s, ids, n, PYMTP_LOGITS_NONE, NULL, NULL, &err);
    CHECK(status == PYMTP_OK, "forward: %s", err.text);
}

static uint64_t replayed(const pymtp_session *s) {
    pymtp_stats t = {.size = sizeof t};
    pymtp_session_stats(s, &t);
    return t.replayed;
}

/* The state of a fresh session fed n tokens. */
static state fresh(pymtp_model *m, const int32_t *ids, size_t n) {
    pymtp_session *s = new_session(m);
    feed(s, ids, n);
    const state out = state_of(s, layers_of(m));
    pymtp_session_free(s);
    return out;
}

/* Both go on with the same token to the same logits. */
static void check_goes_on(pymtp_model *m, pymtp_session *s, const int32_t *ids, size_t n, const char *what) {
    static float a[1280], b[1280];
    const int32_t next = 33;
    pymtp_session *other = new_session(m);
    feed(other, ids, n);
    CHECK(pymtp_session_forward(s, &next, 1, PYMTP_LOGITS_LAST, a, NULL, &err) == PYMTP_OK, "%s: %s", what, err.text);
    CHECK(pymtp_session_forward(other, &next, 1, PYMTP_LOGITS_LAST, b, NULL, &err) == PYMTP_OK, "%s: %s", what, err.text);
    CHECK(!memcmp(a, b, sizeof a), "%s: other logits afterwards", what);
    pymtp_session_free(other);
}

/* ---- going back ---- */

static void rewinding(pymtp_model *m) {
    static const int64_t to[] = {299, 280, 200, 65, 64, 63, 1, 0};
    int32_t ids[LONG];
    char what[64];
    make_ids(ids, LONG, 1, 1280);
    for (size_t i = 0; i < sizeof to / sizeof *to; i++) {
        const int64_t n = to[i];
        const int near = n >= 280 || !n; /* the rings reach 128 back and 63 of them are seen; nothing needs nothing */
        pymtp_session *s = new_session(m);
        snprintf(what, sizeof what, "rewind to %lld", (long long)n);
        feed(s, ids, LONG);
        CHECK(pymtp_session_rewind(s, n, &err) == PYMTP_OK, "%s: %s", what, err.text);
        CHECK(replayed(s) == (near ? 0 : (uint64_t)n), "%s: %d replayed", what, (int)replayed(s));
        check_state(state_of(s, layers_of(m)), fresh(m, ids, (size_t)n), !near, what);
        CHECK(state_of(s, layers_of(m)).has_hidden == !near, "%s: hidden row", what);
        check_goes_on(m, s, ids, (size_t)n, what);
        pymtp_session_free(s);
    }
    pymtp_session *s = new_session(m);
    feed(s, ids, 10);
    CHECK(pymtp_session_rewind(s, 11, &err) == PYMTP_E_ARG && pymtp_session_rewind(s, -1, &err) == PYMTP_E_ARG, "rewind out of range");
    pymtp_session_free(s);
}

static void syncing(pymtp_model *m) {
    int32_t ids[LONG], other[LONG];
    int64_t kept;
    make_ids(ids, LONG, 1, 1280);
    make_ids(other, LONG, 1, 1280);
    other[150] = 5;
    pymtp_session *s = new_session(m);
    feed(s, ids, LONG);
    CHECK(pymtp_session_sync(s, other, LONG, &kept, &err) == PYMTP_OK && kept == 150, "sync: kept %lld", (long long)kept);
    feed(s, other + kept, (size_t)(LONG - kept));
    check_state(state_of(s, layers_of(m)), fresh(m, other, LONG), 1, "sync");
    pymtp_session_free(s);
}

/* A request keeps a mark at snapshot_at, which shortens a later replay. */
static void marks(pymtp_model *m) {
    static run r;
    int32_t prompt[60], all[LONG];
    make_ids(prompt, 60, 2, 1280);
    pymtp_session *s = new_session(m);
    pymtp_params p = plain_params(200);
    p.snapshot_at = 50;
    run_on(m, s, prompt, 60, &p, &r);
    const int64_t n = pymtp_session_tokens(s, all, LONG);
    CHECK(n == 259, "length %lld", (long long)n);
    const state at55 = fresh(m, all, 55), at50 = fresh(m, all, 50);
    CHECK(pymtp_session_rewind(s, 55, &err) == PYMTP_OK && replayed(s) == 5, "%d replayed from the mark", (int)replayed(s));
    check_state(state_of(s, layers_of(m)), at55, 1, "rewind past a mark");
    feed(s, all + 55, 200);
    CHECK(pymtp_session_rewind(s, 50, &err) == PYMTP_OK && replayed(s) == 5, "%d replayed at the mark", (int)replayed(s));
    check_state(state_of(s, layers_of(m)), at50, 1, "rewind to a mark");
    check_goes_on(m, s, all, 50, "rewind to a mark");
    CHECK(pymtp_session_rewind(s, 40, &err) == PYMTP_OK, "%s", err.text); /* drops the mark: another future follows */
    int32_t other[LONG];
    make_ids(other, LONG, 3, 1280);
    feed(s, other, 200);
    memcpy(all + 40, other, 200 * sizeof *other);
    CHECK(pymtp_session_rewind(s, 52, &err) == PYMTP_OK && replayed(s) > 50, "%d replayed: the mark is of another past", (int)replayed(s));
    check_state(state_of(s, layers_of(m)), fresh(m, all, 52), 1, "a mark of another past");
    /* snapshot_at where the reused prefix ends: the mark is taken at the start, without a hidden row */
    int32_t longer[150];
    make_ids(longer, 150, 4, 1280);
    p.max_tokens = 1;
    p.snapshot_at = -2;
    run_on(m, s, longer, 40, &p, &r);
    p.max_tokens = 100;
    p.snapshot_at = 39;
    longer[39]++;
    run_on(m, s, longer, 150, &p, &r);
    CHECK(r.stats.prompt_reused == 39, "%d reused", (int)r.stats.prompt_reused);
    CHECK(pymtp_session_rewind(s, 45, &err) == PYMTP_OK && replayed(s) == 6, "%d replayed from a mark at the start", (int)replayed(s));
    check_state(state_of(s, layers_of(m)), fresh(m, longer, 45), 1, "a mark at the start");
    pymtp_session_free(s);
}

static void snapshots(pymtp_model *m) {
    int32_t ids[LONG], other[LONG];
    make_ids(ids, LONG, 4, 1280);
    make_ids(other, LONG, 5, 1280);
    const state want = fresh(m, ids, 150);
    pymtp_session *s = new_session(m), *t = new_session(m);
    feed(s, ids, 150);
    pymtp_snapshot *k = pymtp_session_snapshot(s, &err);
    CHECK(k != NULL, "%s", err.text);
    CHECK(pymtp_session_restore(s, k, &err) == PYMTP_OK, "%s", err.text);
    check_state(state_of(s, layers_of(m)), want, 1, "restored at once");
    feed(s, ids + 150, 150);
    CHECK(pymtp_session_restore(s, k, &err) == PYMTP_OK && !replayed(s), "%s, %d replayed", err.text, (int)replayed(s));
    check_state(state_of(s, layers_of(m)), want, 1, "restored from its own future");
    check_goes_on(m, s, ids, 150, "restored from its own future");
    CHECK(pymtp_session_rewind(s, 100, &err) == PYMTP_OK, "%s", err.text);
    feed(s, other, 200);
    CHECK(pymtp_session_restore(s, k, &err) == PYMTP_OK && replayed(s) > 0, "%s", err.text);
    check_state(state_of(s, layers_of(m)), want, 1, "restored from another future");
    pymtp_session_free(s);
    feed(t, other, 200);
    CHECK(pymtp_session_restore(t, k, &err) == PYMTP_OK, "%s", err.text);
    check_state(state_of(t, layers_of(m)), want, 1, "restored into another session");
    check_goes_on(m, t, ids, 150, "restored into another session");
    pymtp_session_free(t);
    CHECK(pymtp_model_close(m, &err) == PYMTP_E_STATE, "closed under a snapshot");
    pymtp_snapshot_free(k);
}

/* ---- forward and draft ---- */

static void forwards(pymtp_model *m) {
    static float all[30 * 1280], again[30 * 1280], hidden[30 * 128], last[128];
    int32_t ids[30], drafts[4];
    make_ids(ids, 30, 6, 1280);
    pymtp_session *s = new_session(m), *t = new_session(m);
    CHECK(pymtp_session_forward(s, ids, 30, PYMTP_LOGITS_ALL, all, hidden, &err) == PYMTP_OK, "%s", err.text);
    CHECK(pymtp_session_hidden(s, last, &err) == PYMTP_OK && !memcmp(last, hidden + 29 * 128, sizeof last), "the kept hidden row is the last one");
    for (size_t i = 0; i < 30; i++) /* row by row the same */
        CHECK(pymtp_session_forward(t, ids + i, 1, PYMTP_LOGITS_LAST, again + i * 1280, NULL, &err) == PYMTP_OK, "%s", err.text);
    CHECK(!memcmp(all, again, sizeof all), "logits of 30 rows and of one row at a time");
    check_state(state_of(s, layers_of(m)), state_of(t, layers_of(m)), 1, "30 rows and one row at a time");
    CHECK(pymtp_session_forward(s, NULL, 0, PYMTP_LOGITS_LAST, NULL, NULL, &err) == PYMTP_OK, "no rows");
    CHECK(pymtp_session_forward(s, ids, 1, 3, all, NULL, &err) == PYMTP_E_ARG, "want out of range");
    CHECK(pymtp_session_forward(s, ids, 1, PYMTP_LOGITS_ALL, NULL, NULL, &err) == PYMTP_E_ARG, "no place for the logits");
    ids[3] = 1280;
    CHECK(pymtp_session_forward(s, ids, 30, PYMTP_LOGITS_NONE, NULL, NULL, &err) == PYMTP_E_ARG, "an id beyond the vocabulary");
    ids[3] = -1;
    CHECK(pymtp_session_forward(s, ids, 30, PYMTP_LOGITS_NONE, NULL, NULL, &err) == PYMTP_E_ARG, "a negative id");
    const state before = state_of(s, layers_of(m));
    CHECK(pymtp_session_draft(s, 4, 50, drafts, all, NULL, &err) == PYMTP_OK, "%s", err.text);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 1280; k++) CHECK(all[i * 1280 + k] <= all[i * 1280 + drafts[i]], "draft %d is not the best", i);
    check_state(state_of(s, layers_of(m)), before, 1, "drafting changes nothing");
    CHECK(pymtp_session_draft(s, 4, 1280, drafts, NULL, NULL, &err) == PYMTP_E_ARG, "a pending id beyond the vocabulary");
    pymtp_model_info info = {.size = sizeof info};
    CHECK(pymtp_model_get_info(m, &info) == PYMTP_OK, "info");
    int32_t *many = malloc(((size_t)info.context + 1) * sizeof *many);
    CHECK(pymtp_session_draft(s, (size_t)info.context, 50, many, NULL, NULL, &err) == PYMTP_OK && !memcmp(many, drafts, sizeof drafts), "a context of drafts");
    CHECK(pymtp_session_draft(s, (size_t)info.context + 1, 50, many, NULL, NULL, &err) == PYMTP_E_ARG && !strncmp(err.text, "n: expected at most", 19),
          "more drafts than the context has positions: %s", err.text);
    free(many);
    CHECK(pymtp_session_rewind(s, 29, &err) == PYMTP_OK && pymtp_session_draft(s, 1, 50, drafts, NULL, NULL, &err) == PYMTP_E_STATE, "a draft without its hidden row");
    pymtp_session_free(s);
    pymtp_session_free(t);
}

/* ---- refusals ---- */

static void refusals(pymtp_model *m, pymtp_model *n) {
    static run r;
    int32_t prompt[10];
    make_ids(prompt, 10, 7, 1280);
    pymtp_params p = plain_params(3);
    pymtp_session *a = new_session(m), *b = new_session(n);
    pymtp_session *same[] = {a, a}, *foreign[] = {a, b};
    CHECK(pymtp_step(&a, 1, &err) == PYMTP_E_STATE, "a step without a request");
    begin(a, prompt, 10, &p);
    begin(b, prompt, 10, &p);
    CHECK(pymtp_step(same, 2, &err) == PYMTP_E_ARG, "the same session twice");
    CHECK(pymtp_step(foreign, 2, &err) == PYMTP_E_MISMATCH, "sessions of two models");
    CHECK(pymtp_session_length(a) == 0 && pymtp_session_length(b) == 0, "refused steps did something");
    run_on(m, a, prompt, 10, &p, &r);
    CHECK(r.n == 3, "%zu tokens", r.n);
    const state before = state_of(a, layers_of(m));
    CHECK(pymtp_step(&a, 1, &err) == PYMTP_E_STATE, "a step after the end");
    CHECK(pymtp_generate(a, prompt, 0, &p, &err) == PYMTP_E_ARG, "an empty prompt");
    prompt[4] = 1280;
    CHECK(pymtp_generate(a, prompt, 10, &p, &err) == PYMTP_E_ARG, "a prompt with an unknown id");
    prompt[4] = 30;
    const int32_t bad = -1;
    p.script = &bad;
    p.n_script = 1;
    CHECK(pymtp_generate(a, prompt, 10, &p, &err) == PYMTP_E_ARG, "a script with an unknown id");
    check_state(state_of(a, layers_of(m)), before, 1, "refused requests");
    pymtp_session_free(a);
    pymtp_session_free(b);
}

/* A running request outlives calls that are refused. */
static void refused_beside_a_request(pymtp_model *m) {
    static run want, got;
    int32_t prompt[10];
    const pymtp_params p = plain_params(6);
    pymtp_model_info info = {.size = sizeof info};
    CHECK(pymtp_model_get_info(m, &info) == PYMTP_OK, "info");
    const size_t context = (size_t)info.context;
    int32_t *many = malloc(context * sizeof *many);
    make_ids(prompt, 10, 7, 1280);
    make_ids(many, context, 8, 1280);
    run_new(m, prompt, 10, &p, &want);
    pymtp_session *s = new_session(m);
    begin(s, prompt, 10, &p);
    do {
        const int64_t length = pymtp_session_length(s);
        CHECK(pymtp_session_rewind(s, -1, &err) == PYMTP_E_ARG && pymtp_session_rewind(s, length + 1, &err) == PYMTP_E_ARG, "a length out of range");
        if (length) CHECK(pymtp_session_forward(s, many, context, PYMTP_LOGITS_NONE, NULL, NULL, &err) == PYMTP_E_CONTEXT, "more than the context holds");
        CHECK(pymtp_step(&s, 1, &err) == PYMTP_OK, "a step after refused calls: %s", err.text);
    } while (collect(s, &p, &got));
    got.state = state_of(s, layers_of(m));
    check_run(&got, &want, "beside refused calls");
    pymtp_session_free(s);
    free(many);
}

/* ---- cancellation ---- */

static void cancelling(pymtp_model *m) {
    static run plain, got;
    int32_t prompt[LONG], *two[2] = {prompt, prompt};
    const size_t lengths[2] = {20, 20};
    make_ids(prompt, LONG, 8, 1280);
    pymtp_params p = plain_params(30);
    run_new(m, prompt, 20, &p, &plain);
    pymtp_session *s[2] = {new_session(m), new_session(m)};
    static run r[2];
    memset(r, 0, sizeof r);
    for (int i = 0; i < 2; i++) begin(s[i], two[i], lengths[i], &p);
    for (int i = 0; i < 5; i++) {
        CHECK(pymtp_step(s, 2, &err) == PYMTP_OK, "%s", err.text);
        for (int k = 0; k < 2; k++) collect(s[k], &p, &r[k]);
    }
    CHECK(r[0].n == 3, "%zu tokens after 5 steps", r[0].n); /* three chunks of prompt, the last one with the first token */
    const state before = state_of(s[0], layers_of(m));
    pymtp_cancel(s[0]);
    CHECK(pymtp_step(s, 2, &err) == PYMTP_OK, "%s", err.text);
    for (int k = 0; k < 2; k++) collect(s[k], &p, &r[k]);
    CHECK(r[0].finish == PYMTP_FINISH_CANCELLED && r[0].n == 3, "finish %d, %zu tokens", r[0].finish, r[0].n);
    check_state(state_of(s[0], layers_of(m)), before, 1, "cancelled");
    CHECK(r[1].finish == PYMTP_FINISH_NONE, "its mate goes on");
    while (r[1].finish == PYMTP_FINISH_NONE && pymtp_step(&s[1], 1, &err) == PYMTP_OK) collect(s[1], &p, &r[1]);
    r[1].state = state_of(s[1], layers_of(m));
    check_run(&r[1], &plain, "the mate of a cancelled session");
    /* the cancellation is used up */
    feed(s[0], prompt, 200);
    CHECK(pymtp_session_rewind(s[0], 30, &err) == PYMTP_OK, "%s", err.text);
    run_on(m, s[0], prompt, 20, &p, &got);
    check_run(&got, &plain, "after a cancellation");
    /* one that meets no request ends the next call that computes, and leaves the state */
    const state idle = state_of(s[0], layers_of(m));
    pymtp_cancel(s[0]);
    CHECK(pymtp_session_forward(s[0], prompt, 100, PYMTP_LOGITS_NONE, NULL, NULL, &err) == PYMTP_E_CANCELLED, "forward");
    check_state(state_of(s[0], layers_of(m)), idle, 1, "a cancelled forward");
    feed(s[0], prompt, 200);
    const state far = state_of(s[0], layers_of(m));
    pymtp_cancel(s[0]);
    CHECK(pymtp_session_rewind(s[0], 30, &err) == PYMTP_E_CANCELLED, "a replay");
    check_state(state_of(s[0], layers_of(m)), far, 1, "a cancelled replay");
    CHECK(pymtp_session_rewind(s[0], 30, &err) == PYMTP_OK, "%s", err.text);
    pymtp_cancel(s[0]);
    run_on(m, s[0], prompt, 20, &p, &got); /* a new request starts afresh */
    check_run(&got, &plain, "a request after a late cancellation");
    for (int k = 0; k < 2; k++) pymtp_session_free(s[k]);
}

/* ---- threads ---- */

typedef struct canceller { pymtp_session *s; atomic_int stop; } canceller;

static void *keep_cancelling(void *context) {
    canceller *c = context;
    while (!atomic_load(&c->stop)) pymtp_cancel(c->s);
    return NULL;
}

typedef struct worker { pymtp_session *s; const int32_t *prompt; pymtp_params p; int32_t tokens[64]; size_t n; int failed; } worker;

static void *work(void *context) { /* CHECK counts are not for several threads */
    worker *w = context;
    pymtp_output out = {.size = sizeof out};
    w->failed = pymtp_generate(w->s, w->prompt, 20, &w->p, NULL) != PYMTP_OK;
    while (!w->failed && out.finish == PYMTP_FINISH_NONE) {
        w->failed = pymtp_step(&w->s, 1, NULL) != PYMTP_OK || pymtp_session_output(w->s, &out) != PYMTP_OK || w->n + out.n_tokens > 64;
        for (size_t i = 0; !w->failed && i < out.n_tokens; i++) w->tokens[w->n++] = out.tokens[i];
    }
    return NULL;
}

static void threads(pymtp_model *m) {
    static run plain;
    static worker w[2];
    pthread_t thread[2];
    int32_t ids[LONG];
    make_ids(ids, LONG, 13, 1280);
    canceller c = {.s = new_session(m)};
    feed(c.s, ids, 100);
    const state before = state_of(c.s, layers_of(m));
    CHECK(!pthread_create(&thread[0], NULL, keep_cancelling, &c), "thread");
    pymtp_status status = PYMTP_OK; /* until the other thread is under way */
    for (int i = 0; i < 100000 && status == PYMTP_OK; i++) {
        status = pymtp_session_forward(c.s, ids + 100, 200, PYMTP_LOGITS_NONE, NULL, NULL, &err);
        if (status == PYMTP_OK) status = pymtp_session_rewind(c.s, 100, &err);
    }
    atomic_store(&c.stop, 1);
    pthread_join(thread[0], NULL);
    CHECK(status == PYMTP_E_CANCELLED, "status %d", status);
    /* it was the rewind, perhaps, and a last cancellation may still wait: it can hit once */
    if (pymtp_session_length(c.s) == 300 && pymtp_session_rewind(c.s, 100, &err) != PYMTP_OK)
        CHECK(pymtp_session_rewind(c.s, 100, &err) == PYMTP_OK, "%s", err.text);
    check_state(state_of(c.s, layers_of(m)), before, 1, "cancelled from a thread");
    pymtp_session_free(c.s);
    pymtp_params p = plain_params(30);
    p.logprobs = -1;
    run_new(m, ids, 20, &p, &plain);
    p.draft = 3;
    for (int i = 0; i < 2; i++) {
        w[i] = (worker){.s = new_session(m), .prompt = ids, .p = p};
        CHECK(!pthread_create(&thread[i], NULL, work, &w[i]), "thread");
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
        CHECK(!w[i].failed && w[i].n == plain.n && !memcmp(w[i].tokens, plain.tokens, plain.n * sizeof *plain.tokens), "thread %d: other tokens", i);
        pymtp_session_free(w[i].s);
    }
}

/* ---- failures ----
 * Embedding rows are read from the file while the model is open: a shortened file makes ids from BIG_ID on unreadable, and a row of
 * NaN makes a token whose logits are not finite. */

typedef struct copy {
    char path[64];
    unsigned char *bytes;
    size_t n;
    uint64_t rows; /* offset of token_embd.weight, rows of 128 floats */
    int fd;
    struct timespec modified; /* set once, to a whole second, which every file system can hold */
} copy;

/* A changed file is refused by its time: with the time it had, only what is read counts. */
static void copy_old_time(copy *c) {
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, c->modified};
    CHECK(!futimens(c->fd, times), "futimens");
}

static void copy_open(copy *c, const char *name) {
    char file[64], path[1024];
    pm_gguf *g = NULL;
    snprintf(file, sizeof file, "%s.gguf", name);
    FILE *f = fopen(data_path(path, sizeof path, file), "rb");
    if (!f || fseek(f, 0, SEEK_END) || pm_gguf_open(path, &g, &err) != PYMTP_OK) exit(1);
    c->n = (size_t)ftell(f);
    c->bytes = malloc(c->n);
    rewind(f);
    if (!c->bytes || fread(c->bytes, 1, c->n, f) != c->n) exit(1);
    fclose(f);
    const pm_gguf_tensor *t = pm_gguf_tensor_find(g, "token_embd.weight");
    CHECK(t && t->type == 0 && t->dims[0] == 128, "token_embd.weight is not what this test expects");
    c->rows = t->offset;
    pm_gguf_close(g);
    snprintf(c->path, sizeof c->path, "/tmp/test_engine_XXXXXX");
    c->fd = mkstemp(c->path);
    if (c->fd < 0 || pwrite(c->fd, c->bytes, c->n, 0) != (ssize_t)c->n) exit(1);
    c->modified = (struct timespec){.tv_sec = 1000000000};
    copy_old_time(c);
}

static void copy_close(copy *c) {
    close(c->fd);
    unlink(c->path);
    free(c->bytes);
}

static void copy_shorten(copy *c) { CHECK(!ftruncate(c->fd, (off_t)(c->rows + BIG_ID * 128 * sizeof(float))), "ftruncate"); }

static void copy_repair(copy *c) {
    CHECK(pwrite(c->fd, c->bytes, c->n, 0) == (ssize_t)c->n, "pwrite");
    copy_old_time(c);
}

static void copy_poison(copy *c, int32_t id) {
    unsigned char nan[128 * sizeof(float)];
    memset(nan, 0xff, sizeof nan);
    CHECK(pwrite(c->fd, nan, sizeof nan, (off_t)(c->rows + (uint64_t)id * sizeof nan)) == (ssize_t)sizeof nan, "pwrite");
    copy_old_time(c);
}

static void short_file(copy *c, pymtp_model *m) {
    static run plain, r;
    int32_t ids[LONG];
    make_ids(ids, LONG, 9, BIG_ID);
    pymtp_session *s = new_session(m);
    feed(s, ids, 100);
    const state before = state_of(s, layers_of(m));
    ids[290] = BIG_ID;
    copy_shorten(c);
    CHECK(pymtp_session_forward(s, ids + 100, 200, PYMTP_LOGITS_NONE, NULL, NULL, &err) == PYMTP_E_IO, "forward over a short file");
    check_state(state_of(s, layers_of(m)), before, 1, "forward that failed after many passes");
    copy_repair(c);
    feed(s, ids + 100, 200);
    check_state(state_of(s, layers_of(m)), fresh(m, ids, LONG), 1, "the same forward on the whole file");
    ids[50] = BIG_ID;
    pymtp_session *t = new_session(m);
    feed(t, ids, LONG);
    const state far = state_of(t, layers_of(m));
    copy_shorten(c);
    CHECK(pymtp_session_rewind(t, 120, &err) == PYMTP_E_IO, "a replay over a short file");
    check_state(state_of(t, layers_of(m)), far, 1, "a replay that failed");
    copy_repair(c);
    check_goes_on(m, t, ids, LONG, "a replay that failed");
    CHECK(pymtp_session_rewind(t, 120, &err) == PYMTP_OK, "%s", err.text);
    check_state(state_of(t, layers_of(m)), fresh(m, ids, 120), 1, "the same replay on the whole file");
    pymtp_session_free(t);
    /* a pass that fails changes nothing, and the request goes on when the file is whole again */
    pymtp_params p = plain_params(40);
    ids[19] = BIG_ID;
    run_new(m, ids, 20, &p, &plain);
    memset(&r, 0, sizeof r);
    p.draft = 3;
    begin(s, ids, 20, &p);
    while (pymtp_session_length(s) < 16) {
        CHECK(pymtp_step(&s, 1, &err) == PYMTP_OK, "%s", err.text);
        collect(s, &p, &r);
    }
    const state half = state_of(s, layers_of(m));
    copy_shorten(c);
    CHECK(pymtp_step(&s, 1, &err) == PYMTP_E_IO && err.text[0], "a step over a short file");
    check_state(state_of(s, layers_of(m)), half, 1, "a step that failed");
    copy_repair(c);
    while (r.finish == PYMTP_FINISH_NONE && pymtp_step(&s, 1, &err) == PYMTP_OK) collect(s, &p, &r);
    r.state = state_of(s, layers_of(m));
    check_run(&r, &plain, "a request that survived a failed step");
    pymtp_session_free(s);
}

static int contains(const int32_t *ids, size_t n, int32_t id) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id) return 1;
    return 0;
}

static void not_finite(copy *c, pymtp_model *m) {
    static run clean, plain, got;
    int32_t prompt[20], script[RUN_MAX], unused = 700;
    size_t at = 70;
    make_ids(prompt, 20, 10, 1280);
    pymtp_params p = plain_params(110);
    p.temperature = 1; /* varied tokens */
    p.seed = 3;
    run_new(m, prompt, 20, &p, &clean);
    while (contains(prompt, 20, unused) || contains(clean.tokens, clean.n, unused)) unused++;
    while (at < clean.n && (contains(prompt, 20, clean.tokens[at]) || contains(clean.tokens, at, clean.tokens[at]))) at++;
    CHECK(at < 100, "no token that is new at 70 or later");
    /* poisoned drafts that are refused leave nothing behind, also where the rings hold their NaN */
    copy_poison(c, unused);
    for (size_t i = 0; i < RUN_MAX; i++) script[i] = i % 3 || i >= clean.n ? unused : clean.tokens[i];
    p.script = script;
    p.n_script = RUN_MAX;
    p.draft = 7;
    run_new(m, prompt, 20, &p, &got);
    CHECK(got.stats.accepted && got.stats.accepted < got.stats.drafted, "%d accepted", (int)got.stats.accepted);
    check_run(&got, &clean, "poisoned drafts");
    copy_repair(c);
    /* a poisoned token that is chosen ends the request where the plain run ends */
    copy_poison(c, clean.tokens[at]);
    p.n_script = 0;
    p.draft = 0;
    run_new(m, prompt, 20, &p, &plain);
    CHECK(plain.finish == PYMTP_FINISH_ERROR && plain.status == PYMTP_E_NONFINITE && plain.n == at + 1, "finish %d, status %d, %zu tokens", plain.finish,
          plain.status, plain.n);
    CHECK(plain.state.length == 20 + (int64_t)at, "length %lld", (long long)plain.state.length);
    char position[16];
    snprintf(position, sizeof position, "%d", (int)(20 + at + 1)); /* of the token that could not be chosen */
    CHECK(strstr(plain.error, position), "no position %s in: %s", position, plain.error);
    for (int kind = 0; kind < SCRIPTS; kind++) {
        make_script(kind, clean.tokens, clean.n, script, RUN_MAX);
        p.n_script = RUN_MAX;
        p.draft = 6;
        run_new(m, prompt, 20, &p, &got);
        check_run(&got, &plain, script_names[kind]);
    }
    p.n_script = 0;
    run_new(m, prompt, 20, &p, &got);
    check_run(&got, &plain, "not finite, network");
    p.logprobs = -1; /* the best logits only */
    for (p.draft = 0; p.draft <= 5; p.draft += 5) {
        const uint64_t all = plain.logprobs;
        plain.logprobs = 0;
        run_new(m, prompt, 20, &p, &got);
        check_run(&got, &plain, "not finite, best logits");
        plain.logprobs = all;
    }
    p.logprobs = 2;
    p.draft = 6;
    /* a mate is not concerned, and the session is usable afterwards */
    static run r[2];
    pymtp_session *s[2] = {new_session(m), new_session(m)};
    pymtp_params q[2] = {p, p};
    int32_t other[20], *prompts[2] = {prompt, other};
    const size_t lengths[2] = {20, 20};
    make_ids(other, 20, 11, 1280);
    q[1].max_tokens = (int32_t)at + 20;
    q[1].bias_ids = &clean.tokens[at];
    q[1].bias_values = &(const float){-INFINITY};
    q[1].n_bias = 1;
    run_new(m, other, 20, &q[1], &got);
    CHECK(got.finish == PYMTP_FINISH_LENGTH, "the mate alone: finish %d", got.finish);
    run_together(m, s, 2, prompts, lengths, q, r);
    check_run(&r[0], &plain, "not finite, with a mate");
    check_run(&r[1], &got, "the mate of one that is not finite");
    copy_repair(c);
    p.draft = 2;
    run_on(m, s[0], prompt, 20, &p, &got);
    check_run(&got, &clean, "after an error");
    pymtp_session_free(s[0]);
    pymtp_session_free(s[1]);
}

static void all_banned(pymtp_model *m) {
    static run r;
    static int32_t ids[1280];
    static float banned[1280];
    int32_t prompt[20];
    make_ids(prompt, 20, 12, 1280);
    for (int i = 0; i < 1280; i++) {
        ids[i] = i;
        banned[i] = -INFINITY;
    }
    pymtp_params p = plain_params(5);
    p.bias_ids = ids;
    p.bias_values = banned;
    p.n_bias = 1280;
    run_new(m, prompt, 20, &p, &r);
    CHECK(r.finish == PYMTP_FINISH_ERROR && r.status == PYMTP_E_ARG && r.error[0] && !r.n, "finish %d, status %d", r.finish, r.status);
    CHECK(r.state.length == 16, "length %lld: the last chunk of the prompt is rolled back", (long long)r.state.length);
}

int main(void) {
    pymtp_model *models[3];
    for (int i = 0; i < 3; i++) {
        models[i] = open_golden(golden_names[i], 0);
        rewinding(models[i]);
        marks(models[i]);
        snapshots(models[i]);
        forwards(models[i]);
    }
    syncing(models[0]);
    refusals(models[0], models[1]);
    refused_beside_a_request(models[1]);
    cancelling(models[1]);
    threads(models[2]);
    all_banned(models[2]);
    for (int i = 0; i < 3; i++) CHECK(pymtp_model_close(models[i], &err) == PYMTP_OK, "%s", err.text);
    copy c;
    char drafter[1024];
    copy_open(&c, "tiny-26b");
    pymtp_model *m = open_pair(c.path, data_path(drafter, sizeof drafter, "tiny-26b-drafter.gguf"), 0);
    short_file(&c, m);
    not_finite(&c, m);
    CHECK(pymtp_model_close(m, &err) == PYMTP_OK, "%s", err.text);
    copy_close(&c);
    return check_done();
}
