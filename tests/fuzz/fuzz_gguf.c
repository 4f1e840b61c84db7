/* fuzz_gguf.c - the reader of GGUF files: opens the input as a file and touches everything a caller can reach. */
#include "fuzz.h"
#include "mutate_gguf.h"
#include "pymtp.h"

static void walk_value(const pymtp_file *f, const char *key) {
    const int64_t n = pymtp_file_value_json(f, key, SIZE_MAX, NULL, 0);
    fuzz_check(n >= 0);
    char *text = malloc((size_t)n + 1);
    fuzz_check(text && pymtp_file_value_json(f, key, SIZE_MAX, text, (size_t)n + 1) == n && strlen(text) == (size_t)n);
    free(text);
    const int64_t size = pymtp_file_value_bytes(f, key, NULL, 0);
    fuzz_check(size >= 5); /* type number and a byte at least */
    text = malloc((size_t)size);
    fuzz_check(text && pymtp_file_value_bytes(f, key, text, (size_t)size) == size);
    free(text);
    size_t bytes = 0;
    const char *s = pymtp_file_string(f, key, &bytes);
    fuzz_check(!s || !s[bytes]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char path[64];
    const int fd = fuzz_file(data, n, path);
    pymtp_error err = {0};
    pymtp_file *f = pymtp_file_open(path, &err);
    fuzz_check(!f == (err.code != PYMTP_OK));
    fuzz_check(f || (err.text[0] && !strchr(err.text, '\n')));
    for (size_t i = 0; f && i < pymtp_file_n_keys(f); i++) walk_value(f, pymtp_file_key(f, i));
    for (size_t i = 0; f && i < pymtp_file_n_tensors(f); i++) {
        pymtp_tensor_info info;
        fuzz_check(pymtp_file_tensor(f, i, &info) == PYMTP_OK && info.name[0] && info.type[0]);
        uint8_t ends[2];
        if (info.bytes) fuzz_check(pymtp_file_read(f, i, 0, ends, 1, &err) == PYMTP_OK && pymtp_file_read(f, i, info.bytes - 1, ends, 1, &err) == PYMTP_OK);
        fuzz_check(pymtp_file_read(f, i, info.bytes, ends, 1, &err) == PYMTP_E_ARG && err.text[0]);
    }
    pymtp_file_close(f);
    close(fd);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t cap, unsigned seed) { return mutate_gguf(data, n, cap, seed); }
