/* fuzz_model.c - a whole model from the input: it is refused with one line, or opens and gives two tokens, or says that its
 * logits are not finite. What pymtp_pair_check and the estimate of memory say must agree with what opening says. */
#include "fuzz.h"
#include "mutate_gguf.h"
#include "pymtp.h"

static void check_text(const pymtp_error *err) { fuzz_check(err->text[0] && !strchr(err->text, '\n')); }

/* Two tokens after BOS, drafts off. */
static void two_tokens(pymtp_model *m) {
    pymtp_error err = {0};
    pymtp_params params;
    pymtp_output out = {.size = sizeof out};
    const int32_t bos = pymtp_tokenizer_bos(pymtp_model_tokenizer(m));
    size_t tokens = 0;
    pymtp_params_init(&params);
    params.max_tokens = 2;
    params.logprobs = 2;
    params.draft = 0;
    pymtp_session *s = pymtp_session_new(m, &err);
    if (!s) check_text(&err);
    const int started = s && pymtp_generate(s, &bos, 1, &params, &err) == PYMTP_OK;
    if (s && !started) check_text(&err);
    for (int i = 0; started && i < 3 && out.finish == PYMTP_FINISH_NONE; i++) {
        const pymtp_status status = pymtp_step(&s, 1, &err);
        if (status != PYMTP_OK) check_text(&err);
        fuzz_check(pymtp_session_output(s, &out) == PYMTP_OK);
        if (status != PYMTP_OK) break;
        tokens += out.n_tokens;
        fuzz_check(out.finish != PYMTP_FINISH_ERROR || out.error[0]);
    }
    fuzz_check(!started || out.finish != PYMTP_FINISH_LENGTH || tokens == 2);
    pymtp_session_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char path[64];
    const int fd = fuzz_file(data, n, path);
    const pymtp_model_options options = {.size = sizeof options, .threads = 1, .context = 32, .chunk = 4};
    pymtp_error err = {0}, pair = {0}, estimate = {0};
    pymtp_memory memory = {.size = sizeof memory};
    pymtp_model *m = pymtp_model_open(path, &options, &err);
    const pymtp_status checked = pymtp_pair_check(path, NULL, &pair), estimated = pymtp_memory_estimate(path, &options, &memory, &estimate);
    if (m) {
        fuzz_check(checked == PYMTP_OK && estimated == PYMTP_OK);
        two_tokens(m);
        fuzz_check(pymtp_model_close(m, &err) == PYMTP_OK);
    } else {
        check_text(&err);
        if (checked != PYMTP_OK) fuzz_check(pair.code == err.code && !strcmp(pair.text, err.text));
    }
    if (checked != PYMTP_OK) check_text(&pair);
    if (estimated != PYMTP_OK) check_text(&estimate);
    close(fd);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t cap, unsigned seed) { return mutate_gguf(data, n, cap, seed); }
