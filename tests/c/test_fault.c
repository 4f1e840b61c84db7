/* test_fault.c - fault injection: whichever allocation, read or thread fails, and whether all after it fail too, the call ends in an
 * error that says what failed, nothing stays behind, and the same objects then give the bytes they give without a failure.
 *
 * A scenario prepares objects, runs calls of the public interface that may fail, and removes the objects. That is done once for every
 * n: the n-th call of a kind fails, then the same objects run again without a failure.
 *   test_fault [NAME...]       named scenarios, or all; the first and the last n and some between, further and further apart
 *   test_fault --all [NAME...] every n (`make fault`) */
#include "engine_run.h"
#include "fault.h"
#include "tiny_gguf.h"

#include "base/status.h"

#include <limits.h>
#include <unistd.h>

#define FED 150 /* positions of a session that was used: more than the rings hold */
#ifdef PYMTP_SMALL_TILES
#define FIRST 6 /* every n to here, then steps of a half: sanitized builds are slow */
#else
#define FIRST 64
#endif

typedef struct place {
    char target[1024], drafter[1024];
    pymtp_model *m;
    pymtp_session *s;
    state before;
} place;

typedef struct scenario {
    const char *name, *model;
    void (*prepare)(place *p);                                          /* NULL: nothing but the paths */
    pymtp_status (*run)(place *p, uint64_t *result, pymtp_error *err);  /* result: a hash of what came out */
    void (*check)(place *p);                                            /* after a failure; NULL: nothing to see */
} scenario;

/* ---- objects ---- */

static int32_t ids[512];

static void open_model(place *p) { p->m = open_pair(p->target, p->drafter, 512); }

static void open_target(place *p) { p->m = open_pair(p->target, NULL, 512); }

static void open_used(place *p) {
    open_model(p);
    p->s = new_session(p->m);
    CHECK(pymtp_session_forward(p->s, ids, FED, PYMTP_LOGITS_NONE, NULL, NULL, NULL) == PYMTP_OK, "forward");
    p->before = state_of(p->s, layers_of(p->m));
}

static pymtp_params sampled(void) {
    static const int32_t bias_ids[] = {5, 6};
    static const float bias_values[] = {0.5f, -1};
    static const char *const stop[] = {"never", "at all"};
    static const size_t stop_bytes[] = {5, 6};
    pymtp_params q = plain_params(12);
    q.temperature = 1;
    q.seed = 5;
    q.repetition_penalty = 1.1;
    q.bias_ids = bias_ids;
    q.bias_values = bias_values;
    q.n_bias = 2;
    q.stop = stop;
    q.stop_bytes = stop_bytes;
    q.n_stop = 2;
    q.draft = 3;
    q.snapshot_at = -2;
    return q;
}

static void open_running(place *p) {
    const pymtp_params q = sampled();
    open_model(p);
    p->s = new_session(p->m);
    begin(p->s, ids, 20, &q);
    while (pymtp_session_length(p->s) < 16) CHECK(pymtp_step(&p->s, 1, NULL) == PYMTP_OK, "step");
    p->before = state_of(p->s, layers_of(p->m));
}

static void as_before(place *p) { check_state(state_of(p->s, layers_of(p->m)), p->before, 1, "after a failure"); }

/* The step changed nothing; where the failure was the session's own it ended the request, which can then begin anew. */
static void begin_again(place *p) {
    const pymtp_params q = sampled();
    pymtp_output out = {.size = sizeof out};
    as_before(p);
    CHECK(pymtp_session_output(p->s, &out) == PYMTP_OK, "output");
    if (out.finish == PYMTP_FINISH_ERROR) begin(p->s, ids, 20, &q);
}

static void remove_objects(place *p) {
    pymtp_session_free(p->s);
    CHECK(!p->m || pymtp_model_close(p->m, NULL) == PYMTP_OK, "close");
    p->s = NULL;
    p->m = NULL;
}

/* ---- what is run ---- */

/* Every key and the first bytes of every tensor. */
static pymtp_status walk(const pymtp_file *f, uint64_t *result, pymtp_error *err) {
    static char text[1 << 16];
    for (size_t i = 0; i < pymtp_file_n_keys(f); i++) {
        const int64_t n = pymtp_file_value_json(f, pymtp_file_key(f, i), 8, text, sizeof text);
        *result = hash(*result, text, n < (int64_t)sizeof text ? (size_t)n : sizeof text);
    }
    for (size_t i = 0; i < pymtp_file_n_tensors(f); i++) {
        PM_TRY(pymtp_file_read(f, i, 0, text, 4, err));
        *result = hash(*result, text, 4);
    }
    return PYMTP_OK;
}

static pymtp_status run_file(place *p, uint64_t *result, pymtp_error *err) {
    pymtp_file *f = pymtp_file_open(p->drafter, err);
    if (!f) return err->code;
    const pymtp_status status = walk(f, result, err);
    pymtp_file_close(f);
    return status;
}

static pymtp_status run_tokenizer(place *p, uint64_t *result, pymtp_error *err) {
    static const char text[] = "The quick brown fox, \xc3\xa9t\xc3\xa9 <|turn> \xf0\x9f\xa6\x8a and so on";
    int32_t out[64];
    pymtp_status status = PYMTP_E_STATE;
    char back[256];
    pymtp_tokenizer *t = pymtp_tokenizer_open(p->target, err);
    if (!t) return err->code;
    const int64_t n = pymtp_tokenize(t, text, sizeof text - 1, PYMTP_TOK_SPECIAL | PYMTP_TOK_BOS, out, 64, err);
    const int64_t bytes = n < 0 ? n : pymtp_detokenize(t, out, (size_t)n, 0, back, sizeof back, err);
    status = bytes < 0 ? (pymtp_status)bytes : PYMTP_OK;
    if (status == PYMTP_OK) {
        *result = hash(hash(*result, out, (size_t)n * sizeof *out), back, (size_t)bytes);
        pymtp_decoder *d = pymtp_decoder_new(t, 0, err);
        if (!d) status = err->code;
        for (int64_t i = 0; d && i < n; i++) {
            size_t got = 0;
            const char *piece = pymtp_decoder_push(d, out[i], &got);
            *result = hash(*result, piece, got);
        }
        pymtp_decoder_free(d);
    }
    pymtp_tokenizer_close(t);
    return status;
}

static pymtp_model_options two_threads(const place *p) {
    return (pymtp_model_options){.size = sizeof(pymtp_model_options), .threads = 2, .context = 512, .chunk = 8, .drafter = p->drafter};
}

static pymtp_status run_open(place *p, uint64_t *result, pymtp_error *err) {
    const pymtp_model_options o = two_threads(p);
    pymtp_model_info info = {.size = sizeof info};
    pymtp_model *m = pymtp_model_open(p->target, &o, err);
    if (!m) return err->code;
    pymtp_model_get_info(m, &info);
    *result = hash(*result, &info.weight_bytes, sizeof info.weight_bytes);
    return pymtp_model_close(m, err);
}

static pymtp_status run_estimate(place *p, uint64_t *result, pymtp_error *err) {
    const pymtp_model_options o = two_threads(p);
    pymtp_memory memory = {.size = sizeof memory};
    PM_TRY(pymtp_memory_estimate(p->target, &o, &memory, err));
    *result = hash(hash(*result, &memory.weight_bytes, sizeof memory.weight_bytes), &memory.snapshot_bytes, sizeof memory.snapshot_bytes);
    return pymtp_pair_check(p->target, p->drafter, err);
}

/* The steps of a request that has begun. */
static pymtp_status finish_request(pymtp_session *s, uint64_t *result, pymtp_error *err) {
    for (;;) {
        pymtp_output out = {.size = sizeof out};
        PM_TRY(pymtp_step(&s, 1, err));
        PM_TRY(pymtp_session_output(s, &out));
        *result = hash(hash(*result, out.tokens, out.n_tokens * sizeof *out.tokens), out.text, out.n_text);
        if (out.finish == PYMTP_FINISH_ERROR) return pm_fail(err, out.status, "%s", out.error);
        if (out.finish != PYMTP_FINISH_NONE) return PYMTP_OK;
    }
}

static pymtp_status generate(pymtp_model *m, const pymtp_params *q, uint64_t *result, pymtp_error *err) {
    pymtp_session *s = pymtp_session_new(m, err);
    if (!s) return err->code;
    pymtp_status status = pymtp_generate(s, ids, 20, q, err);
    if (status == PYMTP_OK) status = finish_request(s, result, err);
    pymtp_session_free(s);
    return status;
}

static pymtp_status run_generate(place *p, uint64_t *result, pymtp_error *err) {
    const pymtp_params q = sampled();
    return generate(p->m, &q, result, err);
}

static pymtp_status run_step(place *p, uint64_t *result, pymtp_error *err) {
    pymtp_output out = {.size = sizeof out};
    PM_TRY(pymtp_step(&p->s, 1, err));
    PM_TRY(pymtp_session_output(p->s, &out));
    *result = hash(*result, out.tokens, out.n_tokens * sizeof *out.tokens);
    return out.finish == PYMTP_FINISH_ERROR ? pm_fail(err, out.status, "%s", out.error) : PYMTP_OK;
}

static pymtp_status run_forward(place *p, uint64_t *result, pymtp_error *err) {
    static float logits[1280], hidden[20 * 128];
    PM_TRY(pymtp_session_forward(p->s, ids + FED, 20, PYMTP_LOGITS_LAST, logits, hidden, err));
    *result = hash(hash(*result, logits, sizeof logits), hidden, sizeof hidden);
    return PYMTP_OK;
}

static pymtp_status run_draft(place *p, uint64_t *result, pymtp_error *err) {
    static float logits[4 * 1280];
    int32_t out[4];
    PM_TRY(pymtp_session_draft(p->s, 4, 50, out, logits, NULL, err));
    *result = hash(hash(*result, logits, sizeof logits), out, sizeof out);
    return PYMTP_OK;
}

/* Further back than the rings reach: recomputed. */
static pymtp_status run_rewind(place *p, uint64_t *result, pymtp_error *err) {
    PM_TRY(pymtp_session_rewind(p->s, 20, err));
    const state now = state_of(p->s, layers_of(p->m));
    *result = hash(hash(*result, &now.kv, sizeof now.kv), &now.tokens, sizeof now.tokens);
    return PYMTP_OK;
}

static pymtp_status run_snapshot(place *p, uint64_t *result, pymtp_error *err) {
    pymtp_session *s = NULL;
    pymtp_snapshot *k = pymtp_session_snapshot(p->s, err);
    if (!k) return err->code;
    if ((s = pymtp_session_new(p->m, err)) && pymtp_session_restore(s, k, err) == PYMTP_OK) {
        const state now = state_of(s, layers_of(p->m));
        check_state(now, p->before, 1, "restored");
        *result = hash(*result, &now.kv, sizeof now.kv);
    }
    pymtp_session_free(s);
    pymtp_snapshot_free(k);
    return err->code;
}

static pymtp_status read_tap(pymtp_model *m, uint64_t *result, pymtp_error *err) {
    const pymtp_params q = plain_params(3);
    PM_TRY(generate(m, &q, result, err));
    const int64_t n = pymtp_tap_count(m, err);
    for (int64_t i = 0; i < n; i++) {
        pymtp_tap_sums sums = {.size = sizeof sums};
        CHECK(pymtp_tap_get(m, (size_t)i, &sums) == PYMTP_OK, "tap_get");
        *result = hash(hash(*result, sums.sums, sums.matrices * sums.cols * sizeof(double)), sums.rows, sums.matrices * sizeof(uint64_t));
    }
    return n < 0 ? (pymtp_status)n : PYMTP_OK;
}

static pymtp_status run_tap(place *p, uint64_t *result, pymtp_error *err) {
    PM_TRY(pymtp_tap_start(p->m, err));
    const pymtp_status status = read_tap(p->m, result, err);
    pymtp_tap_stop(p->m);
    return status;
}

static pymtp_status run_codec(place *p, uint64_t *result, pymtp_error *err) {
    static float x[64 * 256], back[64 * 256];
    static unsigned char blocks[sizeof x];
    int32_t types[64];
    const int32_t n = pymtp_types(types, 64);
    for (int i = 0; i < 64 * 256; i++) x[i] = (float)(i % 97) - 40;
    for (int32_t i = 0; i < n; i++) {
        const size_t bytes = 64 * 256 / (size_t)pymtp_type_block_values(types[i]) * (size_t)pymtp_type_block_bytes(types[i]);
        PM_TRY(pymtp_encode(types[i], x, 64, 256, NULL, blocks, bytes, 3, err));
        PM_TRY(pymtp_decode(types[i], blocks, bytes, 64, 256, back, 3, err));
        *result = hash(*result, back, sizeof back);
    }
    return PYMTP_OK;
}

static pymtp_status cluster(pymtp_clustering *c, uint64_t *result, pymtp_error *err) {
    static float rows[256 * 16], centroids[16 * 16];
    static int32_t ordering[256];
    double objective;
    rng r = {3};
    for (int i = 0; i < 256 * 16; i++) rows[i] = (float)(rng_next(&r) % 1000) - 500;
    PM_TRY(pymtp_clustering_add(c, rows, 256, err));
    PM_TRY(pymtp_clustering_improve(c, &objective, err));
    PM_TRY(pymtp_clustering_improve(c, &objective, err));
    PM_TRY(pymtp_clustering_result(c, ordering, centroids, err));
    *result = hash(hash(*result, ordering, sizeof ordering), centroids, sizeof centroids);
    return PYMTP_OK;
}

static pymtp_status run_cluster(place *p, uint64_t *result, pymtp_error *err) {
    pymtp_clustering *c = pymtp_clustering_new(256, 16, 16, 2, err);
    if (!c) return err->code;
    const pymtp_status status = cluster(c, result, err);
    pymtp_clustering_free(c);
    return status;
}

static const scenario scenarios[] = {
    {"file", "tiny-e2b", NULL, run_file, NULL},
    {"tokenizer", "tiny-e2b", NULL, run_tokenizer, NULL},
    {"estimate", "tiny-26b", NULL, run_estimate, NULL},
    {"open-e2b", "tiny-e2b", NULL, run_open, NULL},
    {"open-26b", "tiny-26b", NULL, run_open, NULL},
    {"generate-e2b", "tiny-e2b", open_model, run_generate, NULL},
    {"generate-26b", "tiny-26b", open_model, run_generate, NULL},
    {"step", "tiny-26b", open_running, run_step, begin_again},
    {"forward", "tiny-e2b", open_used, run_forward, as_before},
    {"draft", "tiny-e2b", open_used, run_draft, as_before},
    {"rewind", "tiny-26b", open_used, run_rewind, as_before},
    {"snapshot", "tiny-31b", open_used, run_snapshot, as_before},
    {"tap", "tiny-26b", open_target, run_tap, NULL},
    {"codec", "tiny-26b", NULL, run_codec, NULL},
    {"cluster", "tiny-26b", NULL, run_cluster, NULL},
};

/* ---- every n ---- */

static const char *const kind_names[] = {"none", "memory", "read", "end of file", "short read", "interrupted read", "thread"};

/* The error names its cause: what memory was for, which file, which thread. */
static void check_error(const place *p, fault_kind kind, pymtp_status status, const pymtp_error *err, const char *what) {
    CHECK(status == err->code && err->text[0] && !strchr(err->text, '\n'), "%s: status %d, code %d: %s", what, status, err->code, err->text);
    if (kind == FAULT_MEMORY)
        CHECK(status == PYMTP_E_NOMEM && (strstr(err->text, "out of memory: ") || strstr(err->text, "cannot reserve address space for ")), "%s: %d %s", what,
              status, err->text);
    else if (kind == FAULT_THREAD) CHECK(status == PYMTP_E_SYSTEM && strstr(err->text, "cannot start thread "), "%s: %d %s", what, status, err->text);
    else CHECK(status == PYMTP_E_IO && (strstr(err->text, p->target) || strstr(err->text, p->drafter)), "%s: %d %s", what, status, err->text);
}

static void check_result(pymtp_status status, uint64_t got, uint64_t want, const pymtp_error *err, const char *what) {
    CHECK(status == PYMTP_OK, "%s: %s", what, err->text);
    CHECK(got == want, "%s: other bytes", what);
}

/* The lowest free file descriptor: grows when one is left open. */
static int free_fd(void) {
    const int fd = dup(0);
    close(fd);
    return fd;
}

static long did_with_less;

/* One failure at n, if the scenario makes that many calls. */
static void inject(const scenario *c, place *p, fault_kind kind, long n, int stays, uint64_t want) {
    char what[128];
    pymtp_error err = {0};
    uint64_t result = 0;
    snprintf(what, sizeof what, "%s: %s %ld%s", c->name, kind_names[kind], n, stays ? " and on" : "");
    const long held = atomic_load(&fault_held);
    const int fd = free_fd();
    if (c->prepare) c->prepare(p);
    fault_arm(kind, n, stays);
    pymtp_status status = c->run(p, &result, &err);
    const int failed = fault_disarm(), harmless = kind == FAULT_SHORT || kind == FAULT_INTERRUPTED;
    if (!failed || harmless) check_result(status, result, want, &err, what);
    else if (status == PYMTP_OK) { /* weights commit less ahead, a session keeps no mark */
        did_with_less++;
        CHECK(kind == FAULT_MEMORY && !stays && result == want, "%s: no error, or other bytes", what);
    } else check_error(p, kind, status, &err, what);
    if (status != PYMTP_OK && c->prepare) {
        if (c->check) c->check(p);
        result = 0;
        pm_clear(&err);
        status = c->run(p, &result, &err);
        check_result(status, result, want, &err, what);
    }
    remove_objects(p);
    CHECK(atomic_load(&fault_held) == held, "%s: %ld things left behind", what, atomic_load(&fault_held) - held);
    CHECK(free_fd() == fd, "%s: a file left open", what);
}

static place paths_of(const scenario *c) {
    place p = {0};
    char file[64];
    snprintf(file, sizeof file, "%s.gguf", c->model);
    data_path(p.target, sizeof p.target, file);
    snprintf(file, sizeof file, "%s-drafter.gguf", c->model);
    data_path(p.drafter, sizeof p.drafter, file);
    return p;
}

/* What comes out without a failure. */
static uint64_t expected(const scenario *c, place *p) {
    pymtp_error err = {0};
    uint64_t want = 0;
    if (c->prepare) c->prepare(p);
    CHECK(c->run(p, &want, &err) == PYMTP_OK, "%s: %s", c->name, err.text);
    remove_objects(p);
    return want;
}

/* How many calls of a kind the scenario makes. */
static long calls(const scenario *c, place *p, fault_kind kind) {
    pymtp_error err = {0};
    uint64_t result = 0;
    if (c->prepare) c->prepare(p);
    fault_arm(kind, LONG_MAX, 0);
    CHECK(c->run(p, &result, &err) == PYMTP_OK, "%s: %s", c->name, err.text);
    fault_disarm();
    remove_objects(p);
    return atomic_load(&fault_seen);
}

/* The n after this one; the last is one more than there are calls. */
static long next(long n, long last, int all) {
    const long step = all || n <= FIRST ? 1 : n / 2;
    return n < last && n + step > last ? last : n + step;
}

static void sweep(const scenario *c, int all) {
    place p = paths_of(c);
    const uint64_t want = expected(c, &p);
    const long memory = calls(c, &p, FAULT_MEMORY), reads = calls(c, &p, FAULT_END), threads = calls(c, &p, FAULT_THREAD);
    for (long n = 1; n <= memory + 1; n = next(n, memory + 1, all))
        for (int stays = 0; stays < 2; stays++) inject(c, &p, FAULT_MEMORY, n, stays, want);
    for (long n = 1; n <= reads; n = next(n, reads, all)) inject(c, &p, n % 2 ? FAULT_END : FAULT_READ, n, n % 2 == 0, want);
    for (long n = 1; n <= threads; n = next(n, threads, all)) inject(c, &p, FAULT_THREAD, n, 0, want);
    inject(c, &p, FAULT_SHORT, 1, 1, want); /* reads that succeed at another try: all of them at once */
    inject(c, &p, FAULT_INTERRUPTED, 1, 1, want);
    printf("%s: %ld allocations, %ld reads, %ld threads; did with less memory %ld times\n", c->name, memory, reads, threads, did_with_less);
    did_with_less = 0;
    CHECK(memory + reads > 0, "%s: nothing could fail", c->name);
}

/* ---- what happens behind the library's back ---- */

/* A file of a string of `ahead` bytes and of [["xxx..."]], the inner string of `bytes`. Returns its size. */
static int64_t write_nested(const char *path, size_t ahead, size_t bytes) {
    FILE *f = fopen(path, "wb");
    CHECK(f, "%s", path);
    fwrite("GGUF", 1, 4, f);
    tiny_put(f, 3, 4);
    tiny_put(f, 0, 8);
    tiny_put(f, 2, 8);
    tiny_string(f, "ahead");
    tiny_put(f, 8, 4);
    tiny_put(f, ahead, 8);
    for (size_t i = 0; i < ahead; i++) fputc('a', f);
    tiny_string(f, "nested");
    tiny_put(f, 9, 4);
    tiny_put(f, 9, 4); /* of arrays */
    tiny_put(f, 1, 8);
    tiny_put(f, 8, 4); /* of strings */
    tiny_put(f, 1, 8);
    tiny_put(f, bytes, 8);
    for (size_t i = 0; i < bytes; i++) fputc('x', f);
    const int64_t size = ftell(f);
    CHECK(!fclose(f), "%s", path);
    return size;
}

/* Lengths of a header that were checked are never read again: a file that changes in between gives an error or what was checked. */
static void changing_header(const char *path, size_t ahead, size_t bytes) {
    static char text[1 << 20];
    pymtp_error err = {0};
    const int64_t size = write_nested(path, ahead, bytes);
    fault_read_to = 0;
    fault_changes = 1;
    pymtp_file *f = pymtp_file_open(path, &err);
    fault_changes = 0;
    CHECK(!f == (err.text[0] != 0), "%s", err.text);
    if (!f) return;
    const int64_t n = pymtp_file_value_bytes(f, "nested", NULL, 0);
    CHECK(n < size, "%zu, %zu: a value of %lld bytes in a file of %lld", ahead, bytes, (long long)n, (long long)size);
    if (n > 0 && n < size) /* the name of the key may be among what changed */
        CHECK(pymtp_file_value_json(f, "nested", 8, text, sizeof text) > 0, "%zu, %zu: no JSON", ahead, bytes);
    pymtp_file_close(f);
}

static void changing_headers(void) {
    char path[] = "/tmp/pymtp-test-XXXXXX";
    const int fd = mkstemp(path);
    const size_t window = 1 << 18; /* of the reader: longer strings come by another way */
    CHECK(fd >= 0, "mkstemp");
    changing_header(path, 10, window + 40000);
    for (size_t ahead = window - 120; ahead < window; ahead++) changing_header(path, ahead, 10);
    close(fd);
    remove(path);
}

static pymtp_model *closing;
static pymtp_status closed;

static void try_to_close(void) { closed = pymtp_model_close(closing, NULL); }

/* Another thread may close the model as soon as its last session or snapshot is gone, not earlier: their freeing still uses its lock. */
static void closing_while_freeing(void) {
    char path[1024];
    for (int kind = 0; kind < 2; kind++) {
        closing = open_pair(data_path(path, sizeof path, "tiny-26b.gguf"), NULL, 64);
        pymtp_session *s = new_session(closing);
        pymtp_snapshot *k = kind ? pymtp_session_snapshot(s, NULL) : NULL;
        if (kind) pymtp_session_free(s);
        closed = PYMTP_OK;
        atomic_store(&fault_at_unlock, try_to_close);
        kind ? pymtp_snapshot_free(k) : pymtp_session_free(s);
        CHECK(closed == PYMTP_E_STATE, "closed while its last %s is being freed", kind ? "snapshot" : "session");
        if (closed == PYMTP_E_STATE) CHECK(pymtp_model_close(closing, NULL) == PYMTP_OK, "close");
    }
}

int main(int argc, char **argv) {
    const int all = argc > 1 && !strcmp(argv[1], "--all");
    make_ids(ids, 512, 3, 1280);
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
        if (check_wanted(argc - all, argv + all, scenarios[i].name)) sweep(&scenarios[i], all);
    if (check_wanted(argc - all, argv + all, "behind")) {
        changing_headers();
        closing_while_freeing();
    }
    return check_done();
}
