/* test_engine.c - whatever is drafted, a request gives the tokens, text, log-probabilities, ending and state of the plain run:
 * scripted drafters and the network, all ways to end, many sessions in one pass. Rings (128 positions) wrap in most runs. */
#include "engine_run.h"

#include <math.h>

static void with_script(pymtp_params *p, int kind, const run *plain, int32_t *script, size_t n) {
    make_script(kind, plain->tokens, plain->n, script, n);
    p->script = script;
    p->n_script = n;
    p->draft = 5;
}

/* ---- drafters ---- */

static void scripted(pymtp_model *m, const char *name) {
    static run plain, got;
    int32_t prompt[20], script[160];
    char what[96];
    make_ids(prompt, 20, 1, 1280);
    pymtp_params p = plain_params(160);
    run_new(m, prompt, 20, &p, &plain);
    CHECK(plain.n == 160 && plain.finish == PYMTP_FINISH_LENGTH && plain.state.length == 179, "%s: %zu tokens, length %lld", name, plain.n,
          (long long)plain.state.length);
    CHECK(plain.stats.passes == 159 && plain.stats.tokens == 160 && !plain.stats.drafted, "%s: passes %d", name, (int)plain.stats.passes);
    for (int kind = 0; kind < SCRIPTS; kind++) {
        snprintf(what, sizeof what, "%s, %s", name, script_names[kind]);
        with_script(&p, kind, &plain, script, 160);
        run_new(m, prompt, 20, &p, &got);
        check_run(&got, &plain, what);
        const pymtp_stats *t = &got.stats;
        CHECK(t->drafted > 0, "%s: nothing drafted", what);
        if (kind == RIGHT) CHECK(t->accepted == t->drafted && t->passes == 27, "%s: %d of %d in %d passes", what, (int)t->accepted, (int)t->drafted, (int)t->passes);
        if (kind == WRONG) CHECK(t->accepted == 0 && t->passes == 159, "%s: %d accepted in %d passes", what, (int)t->accepted, (int)t->passes);
        if (kind == SOMETIMES) CHECK(t->accepted > 0 && t->accepted < t->drafted && t->passes < 159, "%s: %d accepted", what, (int)t->accepted);
        uint64_t drafted = 0, accepted = 0;
        for (int i = 0; i < 16; i++) {
            drafted += t->drafted_by_position[i];
            accepted += t->accepted_by_position[i];
        }
        CHECK(drafted == t->drafted && accepted == t->accepted && !t->drafted_by_position[5], "%s: positions do not add up", what);
    }
}

static void network(pymtp_model *m, const char *name) {
    static run plain, got;
    int32_t prompt[30];
    char what[96];
    make_ids(prompt, 30, 2, 1280);
    for (int sampled = 0; sampled < 2; sampled++) {
        pymtp_params p = plain_params(110);
        p.temperature = sampled;
        p.seed = 5;
        p.repetition_penalty = sampled ? 1.2 : 1;
        run_new(m, prompt, 30, &p, &plain);
        for (int draft = -1; draft <= 16; draft += draft < 4 ? 1 : 6) {
            p.draft = draft;
            snprintf(what, sizeof what, "%s, network depth %d, temperature %d", name, draft, sampled);
            run_new(m, prompt, 30, &p, &got);
            check_run(&got, &plain, what);
            if (draft > 0) CHECK(got.stats.drafted > 0, "%s: nothing drafted", what);
        }
    }
}

/* Without log-probabilities the best logits are enough for most params: the same run as with all of them. */
static const struct best_case { double temperature, top_p, min_p; int32_t top_k, ban; } best_cases[] = {
    {0, 0.95, 0, 64, 0}, {0, 1, 0, 0, 1}, {1, 0.95, 0, 64, 0}, {1.5, 1, 0, 5, 1}, {1, 1, 0.01, 256, 0}, {1, 1, 0, 256, 1}, {1, 1, 0, 0, 0},
};

static void best_params(const struct best_case *c, const run *first, pymtp_params *p) {
    static const float never = -INFINITY;
    p->temperature = c->temperature;
    p->top_p = c->top_p;
    p->min_p = c->min_p;
    p->top_k = c->top_k;
    p->seed = 21;
    p->bias_ids = c->ban ? first->tokens : NULL; /* what would have been chosen first */
    p->bias_values = c->ban ? &never : NULL;
    p->n_bias = c->ban != 0;
}

static void best_only(pymtp_model *m, const char *name) {
    static run first, plain, got;
    static const int32_t depths[] = {0, -1, 1, 4, 16};
    int32_t prompt[30];
    char what[96];
    make_ids(prompt, 30, 12, 1280);
    pymtp_params p = plain_params(50);
    run_new(m, prompt, 30, &p, &first);
    for (size_t c = 0; c < sizeof best_cases / sizeof *best_cases; c++) {
        p.logprobs = 0;
        p.draft = 0;
        best_params(&best_cases[c], &first, &p);
        run_new(m, prompt, 30, &p, &plain);
        plain.logprobs = 0;
        if (p.n_bias) CHECK(plain.tokens[0] != first.tokens[0], "%s: a banned token was chosen", name);
        p.logprobs = -1;
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
            p.draft = depths[d];
            snprintf(what, sizeof what, "%s, best logits only, case %zu, depth %d", name, c, depths[d]);
            run_new(m, prompt, 30, &p, &got);
            check_run(&got, &plain, what);
        }
    }
}

/* Greedy drafts of a request are those of pymtp_session_draft: the trained pair accepts enough of them to tell. Three sessions of
 * different depths share the draft steps. */
static void drafts_are_the_chain(void) {
    static run plain, got[3];
    int32_t prompts[3][24], *prompt[3], drafts[PYMTP_MAX_DRAFT];
    size_t lengths[3];
    uint64_t total = 0;
    pymtp_params p[3];
    pymtp_session *s[3];
    pymtp_error err;
    pymtp_model *m = open_golden("trained-py", 0);
    const char *text[] = {"import os\nimport sys\n\n\ndef main(argv):\n    for ", "class A:\n    def __init__(self, ", "    if x is None:\n        return "};
    for (int i = 0; i < 3; i++) {
        const int64_t n = pymtp_tokenize(pymtp_model_tokenizer(m), text[i], strlen(text[i]), PYMTP_TOK_BOS, prompts[i], 24, &err);
        CHECK(n > 2 && n <= 24, "prompt of %d ids", (int)n);
        lengths[i] = (size_t)n;
        prompt[i] = prompts[i];
        p[i] = plain_params(40);
        p[i].draft = 2 + i;
        s[i] = new_session(m);
    }
    run_together(m, s, 3, prompt, lengths, p, got);
    for (int i = 0; i < 3; i++) {
        pymtp_params q = p[i];
        uint64_t accepted[PYMTP_MAX_DRAFT] = {0}, passes = 0;
        q.draft = 0;
        run_new(m, prompt[i], lengths[i], &q, &plain);
        check_run(&got[i], &plain, "trained pair");
        pymtp_session *t = new_session(m);
        CHECK(pymtp_session_forward(t, prompt[i], lengths[i], PYMTP_LOGITS_NONE, NULL, NULL, &err) == PYMTP_OK, "%s", err.text);
        for (size_t done = 1; done < plain.n; passes++) { /* plain.tokens[done - 1] is pending */
            const size_t left = plain.n - done, depth = left - 1 < (size_t)p[i].draft ? left - 1 : (size_t)p[i].draft;
            size_t hits = 0;
            CHECK(pymtp_session_draft(t, depth, plain.tokens[done - 1], drafts, NULL, NULL, &err) == PYMTP_OK, "%s", err.text);
            while (hits < depth && drafts[hits] == plain.tokens[done + hits]) accepted[hits++]++;
            CHECK(pymtp_session_forward(t, plain.tokens + done - 1, hits + 1, PYMTP_LOGITS_NONE, NULL, NULL, &err) == PYMTP_OK, "%s", err.text);
            done += hits + 1;
            total += hits;
        }
        CHECK(got[i].stats.passes == passes, "%d passes, expected %d", (int)got[i].stats.passes, (int)passes);
        CHECK(!memcmp(got[i].stats.accepted_by_position, accepted, sizeof accepted), "session %d: other drafts were accepted", i);
        pymtp_session_free(t);
        pymtp_session_free(s[i]);
    }
    CHECK(total > 10, "only %d drafts were right", (int)total);
    CHECK(pymtp_model_close(m, &err) == PYMTP_OK, "%s", err.text);
}

/* ---- ends ---- */

static void all_scripts(pymtp_model *m, int32_t *prompt, size_t n, pymtp_params p, const run *right, const run *plain, const char *what) {
    static run got;
    int32_t script[RUN_MAX];
    char text[128];
    for (int kind = 0; kind < SCRIPTS; kind++) {
        with_script(&p, kind, right, script, RUN_MAX);
        snprintf(text, sizeof text, "%s, %s", what, script_names[kind]);
        run_new(m, prompt, n, &p, &got);
        check_run(&got, plain, text);
    }
}

static void token_limits(pymtp_model *m) {
    static run right, plain;
    int32_t prompt[20];
    char what[64];
    make_ids(prompt, 20, 3, 1280);
    pymtp_params p = plain_params(130);
    run_new(m, prompt, 20, &p, &right);
    for (int32_t max = 0; max <= 14; max += max < 3 ? 1 : 11) {
        snprintf(what, sizeof what, "max_tokens %d", max);
        p.max_tokens = max;
        run_new(m, prompt, 20, &p, &plain);
        CHECK(plain.finish == PYMTP_FINISH_LENGTH && plain.n == (size_t)max, "%s: finish %d after %zu", what, plain.finish, plain.n);
        CHECK(plain.state.length == 20 + (max ? max - 1 : 0), "%s: length %lld", what, (long long)plain.state.length);
        all_scripts(m, prompt, 20, p, &right, &plain, what);
    }
}

static void stop_strings(pymtp_model *m) {
    static run right, plain;
    int32_t prompt[20];
    int tried = 0;
    make_ids(prompt, 20, 4, 1280);
    pymtp_params p = plain_params(130);
    p.temperature = 1.5; /* varied text */
    p.top_k = 0;
    p.top_p = 1;
    run_new(m, prompt, 20, &p, &right);
    for (size_t at = 5; at + 3 < right.n_text && tried < 4; at += right.n_text / 5, tried++) {
        const char *stop = right.text + at;
        const size_t bytes = 3;
        p.stop = &stop;
        p.stop_bytes = &bytes;
        p.n_stop = 1;
        run_new(m, prompt, 20, &p, &plain);
        CHECK(plain.finish == PYMTP_FINISH_STOP && plain.stop_id == -1, "stop string: finish %d", plain.finish);
        CHECK(plain.n && plain.n_text <= at && !memcmp(plain.text, right.text, plain.n_text), "stop string: %zu bytes of text", plain.n_text);
        CHECK(!memcmp(right.text + plain.n_text, stop, bytes), "stop string: the text does not end before it");
        CHECK(plain.state.length == 20 + (int64_t)plain.n - 1, "stop string: the token that completes it is not fed");
        all_scripts(m, prompt, 20, p, &right, &plain, "stop string");
    }
    CHECK(tried >= 3, "stop strings tried: %d", tried);
}

static void end_tokens(pymtp_model *m) {
    static run plain, got;
    int32_t prompt[20], script[RUN_MAX];
    int ended = 0;
    const int32_t eog = 1;
    const float bias = 4; /* exp(4) / 1280: a chance of some percent a token */
    make_ids(prompt, 20, 5, 1280);
    pymtp_params p = plain_params(60);
    p.temperature = 1.5;
    p.top_k = 0;
    p.top_p = 1;
    p.ignore_eos = 0;
    p.bias_ids = &eog;
    p.bias_values = &bias;
    p.n_bias = 1;
    for (p.seed = 0; p.seed < 40 && ended < 4; p.seed++) {
        p.n_script = 0;
        p.draft = 0;
        run_new(m, prompt, 20, &p, &plain);
        if (plain.finish != PYMTP_FINISH_STOP || plain.n < 2) continue;
        ended++;
        CHECK(plain.stop_id >= 0 && plain.state.length == 20 + (int64_t)plain.n, "end token: all emitted tokens are fed, length %lld",
              (long long)plain.state.length);
        for (size_t i = 0; i < plain.n; i++) CHECK(plain.tokens[i] != plain.stop_id, "end token emitted");
        make_script(RIGHT, plain.tokens, plain.n, script, RUN_MAX);
        script[plain.n] = plain.stop_id; /* an accepted end token, and drafts behind it */
        p.script = script;
        p.n_script = RUN_MAX;
        for (p.draft = 1; p.draft <= 16; p.draft += 5) {
            run_new(m, prompt, 20, &p, &got);
            check_run(&got, &plain, "end token");
        }
        p.draft = 4;
        p.n_script = 0;
        run_new(m, prompt, 20, &p, &got);
        check_run(&got, &plain, "end token, network");
    }
    CHECK(ended == 4, "runs that met an end token: %d", ended);
}

static void context_end(void) {
    static run right, plain, got;
    int32_t prompt[49];
    pymtp_error err;
    make_ids(prompt, 49, 6, 1280);
    pymtp_model *m = open_golden("tiny-31b", 48);
    pymtp_params p = plain_params(-1);
    run_new(m, prompt, 30, &p, &right);
    CHECK(right.finish == PYMTP_FINISH_CONTEXT && right.n == 19 && right.state.length == 48, "context: finish %d, %zu tokens", right.finish, right.n);
    all_scripts(m, prompt, 30, p, &right, &right, "context");
    for (p.draft = 1; p.draft <= 16; p.draft += 5) {
        run_new(m, prompt, 30, &p, &got);
        check_run(&got, &right, "context, network");
    }
    p.draft = 4;
    run_new(m, prompt, 48, &p, &plain);
    CHECK(plain.finish == PYMTP_FINISH_CONTEXT && plain.n == 1 && plain.state.length == 48, "full prompt: finish %d, %zu tokens", plain.finish, plain.n);
    pymtp_session *s = new_session(m);
    run_on(m, s, prompt, 30, &p, &got);
    CHECK(pymtp_generate(s, prompt, 49, &p, &err) == PYMTP_E_CONTEXT, "a prompt beyond the context");
    CHECK(pymtp_session_forward(s, prompt, 1, PYMTP_LOGITS_NONE, NULL, NULL, &err) == PYMTP_E_CONTEXT, "a row beyond the context");
    check_state(state_of(s, layers_of(m)), right.state, 1, "refused by the context");
    pymtp_session_free(s);
    CHECK(pymtp_model_close(m, &err) == PYMTP_OK, "%s", err.text);
}

/* ---- sessions ---- */

#define MANY 18 /* more than one pass takes */

/* best: 0, log-probabilities for all; 1, for none; 2, for some: all rows of a pass share one head. */
static void together(pymtp_model *m, int best) {
    static run plain[MANY], got[MANY];
    static int32_t prompts[MANY][60], scripts[MANY][40];
    int32_t *prompt[MANY];
    size_t lengths[MANY];
    pymtp_params p[MANY];
    pymtp_session *s[MANY];
    char what[64];
    for (int i = 0; i < MANY; i++) {
        lengths[i] = (size_t)(3 + 7 * i % 53);
        prompt[i] = prompts[i];
        make_ids(prompts[i], lengths[i], 100 + (uint64_t)i, 1280);
        p[i] = plain_params(10 + i);
        p[i].temperature = i % 3 * 0.5;
        p[i].seed = (uint64_t)i;
        if (best) best_params(&best_cases[(size_t)i % (sizeof best_cases / sizeof *best_cases)], &plain[0], &p[i]);
        p[i].logprobs = best == 1 || (best && i % 5) ? -1 : 2;
        run_new(m, prompts[i], lengths[i], &p[i], &plain[i]);
        if (i % 4 == 1) with_script(&p[i], i % SCRIPTS, &plain[i], scripts[i], 40);
        else p[i].draft = i % 4 ? i % 6 : -1;
    }
    for (size_t n = 2; n <= MANY; n += 8) {
        for (size_t i = 0; i < n; i++) s[i] = new_session(m);
        run_together(m, s, n, prompt, lengths, p, got);
        for (size_t i = 0; i < n; i++) {
            snprintf(what, sizeof what, "session %zu of %zu, %d", i, n, best);
            check_run(&got[i], &plain[i], what);
            pymtp_session_free(s[i]);
        }
    }
}

/* A prompt that continues what the session holds is not computed again, and gives the same. */
static void reuse(pymtp_model *m) {
    static run first, plain, got;
    int32_t prompt[150];
    make_ids(prompt, 150, 8, 1280);
    pymtp_params p = plain_params(12);
    pymtp_session *s = new_session(m);
    run_on(m, s, prompt, 40, &p, &first);
    run_on(m, s, prompt, 40, &p, &got);
    check_run(&got, &first, "the same prompt again");
    CHECK(got.stats.prompt_reused == 39 && got.stats.prompt_tokens == 40 && !got.stats.replayed, "%d reused", (int)got.stats.prompt_reused);
    p.draft = 3;
    run_on(m, s, prompt, 150, &p, &got); /* continues the prompt, not the answer */
    CHECK(got.stats.prompt_reused >= 40, "%d reused", (int)got.stats.prompt_reused);
    p.draft = 0;
    run_new(m, prompt, 150, &p, &plain);
    check_run(&got, &plain, "a longer prompt");
    run_on(m, s, prompt, 60, &p, &got); /* the rings do not reach: from the mark at 40 */
    CHECK(got.stats.prompt_reused == 40 && got.stats.replayed == 19, "%d reused, %d replayed", (int)got.stats.prompt_reused, (int)got.stats.replayed);
    run_new(m, prompt, 60, &p, &plain);
    check_run(&got, &plain, "a shorter prompt");
    pymtp_session_free(s);
}

int main(int argc, char **argv) {
    for (int i = 0; i < 3; i++) {
        if (!check_wanted(argc, argv, golden_names[i])) continue;
        pymtp_error err;
        pymtp_model *m = open_golden(golden_names[i], 0);
        scripted(m, golden_names[i]);
        network(m, golden_names[i]);
        if (i == 1) {
            token_limits(m);
            stop_strings(m);
            end_tokens(m);
        }
        best_only(m, golden_names[i]);
        for (int best = 0; best < 3; best++) together(m, best);
        reuse(m);
        CHECK(pymtp_model_close(m, &err) == PYMTP_OK, "%s", err.text);
    }
    drafts_are_the_chain();
    context_end();
    return check_done();
}
