/* generate.c - streams a completion through pymtp.h: generate TARGET.gguf PROMPT [MAX_TOKENS [DRAFTER.gguf]]
 *
 * Build with the flags of an installed wheel:   cc generate.c $(pymtp config --cflags --libs) -o generate
 * or of `cmake --install`:                      cc generate.c $(pkg-config --cflags --libs pymtp) -o generate */
#include <pymtp.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain(const pymtp_error *err) {
    fprintf(stderr, "generate: %s\n", err->text);
    return 1;
}

/* The ids of the prompt, special tokens parsed, one BOS in front; *n of them. To be freed. */
static int32_t *prompt_ids(const pymtp_model *model, const char *text, size_t *n, pymtp_error *err) {
    const size_t bytes = strlen(text);
    int32_t *ids = malloc((bytes + 1) * sizeof *ids); /* no token is shorter than a byte, but for the BOS */
    if (!ids) {
        snprintf(err->text, sizeof err->text, "no memory for the prompt");
        return NULL;
    }
    const int64_t count = pymtp_tokenize(pymtp_model_tokenizer(model), text, bytes, PYMTP_TOK_SPECIAL | PYMTP_TOK_BOS, ids,
                                         bytes + 1, err);
    if (count < 0) {
        free(ids);
        return NULL;
    }
    *n = (size_t)count;
    return ids;
}

/* Steps until the request has ended, printing text as it comes. */
static int stream(pymtp_session *session, pymtp_error *err) {
    pymtp_output out = {.size = sizeof out};
    do {
        if (pymtp_step(&session, 1, err)) return complain(err);
        pymtp_session_output(session, &out);
        fwrite(out.text, 1, out.n_text, stdout);
        fflush(stdout);
    } while (!out.finish);
    putchar('\n');
    if (out.finish != PYMTP_FINISH_ERROR) return 0;
    fprintf(stderr, "generate: %s\n", out.error);
    return 1;
}

static int generate(pymtp_model *model, const char *prompt, int32_t max_tokens) {
    pymtp_error err;
    pymtp_params params = {.size = sizeof params};
    pymtp_stats stats = {.size = sizeof stats};
    size_t n;
    pymtp_params_init(&params);
    params.temperature = 0;
    params.max_tokens = max_tokens;

    int32_t *ids = prompt_ids(model, prompt, &n, &err);
    if (!ids) return complain(&err);
    pymtp_session *session = pymtp_session_new(model, &err);
    int rc = session && !pymtp_generate(session, ids, n, &params, &err) ? stream(session, &err) : complain(&err);
    if (!rc && !pymtp_session_stats(session, &stats))
        fprintf(stderr, "%llu tokens in %llu passes\n", (unsigned long long)stats.tokens, (unsigned long long)stats.passes);
    pymtp_session_free(session);
    free(ids);
    return rc;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: generate TARGET.gguf PROMPT [MAX_TOKENS [DRAFTER.gguf]]\n");
        return 2;
    }
    pymtp_error err;
    pymtp_model_options options = {.size = sizeof options, .drafter = argc > 4 ? argv[4] : NULL};
    pymtp_model *model = pymtp_model_open(argv[1], &options, &err);
    if (!model) return complain(&err);
    const int rc = generate(model, argv[2], argc > 3 ? atoi(argv[3]) : -1);
    pymtp_model_close(model, NULL);
    return rc;
}
