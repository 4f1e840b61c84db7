/* fuzz_pair.c - a drafter for a target: the first byte names a good target, the rest is the drafter's file. The pair is refused
 * with one line, or opens and gives the tokens of the target alone: a drafter, however wrong, never changes the output. */
#include "fuzz.h"
#include "micro.h"
#include "mutate_gguf.h"
#include "pymtp.h"

#define TOKENS 6

static void check_text(const pymtp_error *err) { fuzz_check(err->text[0] && !strchr(err->text, '\n')); }

/* TOKENS sampled tokens after BOS with `draft` drafts a round; returns how many there were before an end. */
static size_t generate(pymtp_model *m, int32_t draft, int32_t tokens[TOKENS]) {
    pymtp_error err;
    pymtp_params params;
    pymtp_output out = {.size = sizeof out};
    const int32_t prompt[] = {2, 5, 6};
    size_t n = 0;
    pymtp_params_init(&params);
    params.max_tokens = TOKENS;
    params.draft = draft;
    params.seed = 1;
    pymtp_session *s = pymtp_session_new(m, &err);
    fuzz_check(s && pymtp_generate(s, prompt, 3, &params, &err) == PYMTP_OK);
    while (out.finish == PYMTP_FINISH_NONE) {
        fuzz_check(pymtp_step(&s, 1, &err) == PYMTP_OK && pymtp_session_output(s, &out) == PYMTP_OK);
        fuzz_check(n + out.n_tokens <= TOKENS && out.finish != PYMTP_FINISH_ERROR);
        if (out.n_tokens) memcpy(tokens + n, out.tokens, out.n_tokens * sizeof *tokens);
        n += out.n_tokens;
    }
    pymtp_session_free(s);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!n) return 0;
    char path[64];
    const int variant = data[0] % MICRO_VARIANTS, fd = fuzz_file(data + 1, n - 1, path);
    const pymtp_model_options options = {.size = sizeof options, .threads = 1, .context = 32, .chunk = 4, .drafter = path};
    pymtp_error err = {0}, pair = {0};
    const pymtp_status checked = pymtp_pair_check(micro_target(variant), path, &pair);
    pymtp_model *m = pymtp_model_open(micro_target(variant), &options, &err);
    if (m) {
        int32_t plain[TOKENS], drafted[TOKENS];
        fuzz_check(checked == PYMTP_OK);
        const size_t count = generate(m, 0, plain);
        fuzz_check(generate(m, 3, drafted) == count && !memcmp(plain, drafted, count * sizeof *plain));
        fuzz_check(pymtp_model_close(m, &err) == PYMTP_OK);
    } else {
        check_text(&err);
        if (checked != PYMTP_OK) fuzz_check(pair.code == err.code && !strcmp(pair.text, err.text));
    }
    if (checked != PYMTP_OK) check_text(&pair);
    close(fd);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t cap, unsigned seed) {
    if (n < 2) return LLVMFuzzerMutate(data, n, cap);
    if (seed % 16 == 0) data[0] = (uint8_t)(seed / 16);
    return 1 + mutate_gguf(data + 1, n - 1, cap - 1, seed);
}
