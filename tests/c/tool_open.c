/* tool_open.c - opens files and says what came of it, for tests of bad input.
 *   tool_open FILE [DRAFTER]   as a file, then as a model: prints "ok" or "error CODE: text"; exit code 0 or 1
 *   tool_open --file FILE...   as files only, each walked whole; one line each; exit code 1 if one failed
 *   tool_open --model FILE...  as files, then as models; one line each
 *   tool_open --drafter TARGET FILE...  as files, then as drafters of TARGET; one line each
 */
#include "pymtp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int report(const char *what, const pymtp_error *err) {
    if (err->code == PYMTP_OK) puts("ok");
    else printf("error %d: %s\n", (int)err->code, err->text);
    if (err->code != PYMTP_OK && (!err->text[0] || strchr(err->text, '\n'))) printf("BAD TEXT from %s\n", what);
    fflush(stdout);
    return err->code != PYMTP_OK;
}

/* Touches everything a caller can reach. */
static void walk(const pymtp_file *f) {
    for (size_t i = 0; i < pymtp_file_n_keys(f); i++) {
        const char *key = pymtp_file_key(f, i);
        const int64_t n = pymtp_file_value_json(f, key, SIZE_MAX, NULL, 0);
        char *text = malloc((size_t)n + 1);
        if (!text || pymtp_file_value_json(f, key, SIZE_MAX, text, (size_t)n + 1) != n || strlen(text) != (size_t)n)
            printf("BAD JSON of %s\n", key);
        free(text);
        size_t bytes = 0;
        const char *s = pymtp_file_string(f, key, &bytes);
        if (s && s[bytes]) printf("BAD STRING of %s\n", key);
    }
    for (size_t i = 0; i < pymtp_file_n_tensors(f); i++) {
        pymtp_tensor_info info;
        if (pymtp_file_tensor(f, i, &info) != PYMTP_OK || !info.name[0] || !info.type[0]) printf("BAD TENSOR %zu\n", i);
    }
}

static int open_file(const char *path, pymtp_error *err) {
    pymtp_file *f = pymtp_file_open(path, err);
    if (f) walk(f);
    pymtp_file_close(f);
    return err->code == PYMTP_OK;
}

static void open_model(const char *path, const char *drafter, pymtp_error *err) {
    pymtp_model_options options = {.size = sizeof options, .threads = 1, .context = 64, .drafter = drafter};
    pymtp_model *m = pymtp_model_open(path, &options, err);
    if (m) pymtp_model_close(m, err);
}

int main(int argc, char **argv) {
    pymtp_error err = {0};
    int failed = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: tool_open FILE [DRAFTER] | --file FILE... | --model FILE... | --drafter TARGET FILE...\n");
        return 2;
    }
    if (!strncmp(argv[1], "--", 2)) {
        const int drafter = !strcmp(argv[1], "--drafter"), model = !strcmp(argv[1], "--model");
        for (int i = 2 + drafter; i < argc; i++) {
            if (open_file(argv[i], &err) && (model || drafter)) open_model(drafter ? argv[2] : argv[i], drafter ? argv[i] : NULL, &err);
            failed |= report(argv[i], &err);
        }
        return failed;
    }
    if (open_file(argv[1], &err)) open_model(argv[1], argc > 2 ? argv[2] : NULL, &err);
    return report(argv[1], &err);
}
