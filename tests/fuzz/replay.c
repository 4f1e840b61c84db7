/* replay.c - the driver of a fuzz target where libFuzzer is not: runs every file given (folders: every file in them, in the
 * order of their names) once through the target and says how many ran. A finding ends the process, as under libFuzzer. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int run_file(const char *path) {
    FILE *f = fopen(path, "rb");
    struct stat s;
    if (!f || fstat(fileno(f), &s)) {
        fprintf(stderr, "replay: %s cannot be read\n", path);
        exit(2);
    }
    const size_t n = (size_t)s.st_size;
    uint8_t *data = malloc(n ? n : 1); /* exactly n bytes, so that AddressSanitizer sees a read behind them */
    if (!data || fread(data, 1, n, f) != n) {
        fprintf(stderr, "replay: %s: short read\n", path);
        exit(2);
    }
    fclose(f);
    fprintf(stderr, "%s\n", path); /* the last line before a crash names its input */
    LLVMFuzzerTestOneInput(data, n);
    free(data);
    return 1;
}

static int visible(const struct dirent *d) { return d->d_name[0] != '.'; }

static int run_path(const char *path) {
    struct stat s;
    if (stat(path, &s) || !S_ISDIR(s.st_mode)) return run_file(path);
    struct dirent **names = NULL;
    const int n = scandir(path, &names, visible, alphasort);
    int ran = 0;
    for (int i = 0; i < n; i++) {
        char *inner = malloc(strlen(path) + strlen(names[i]->d_name) + 2);
        if (!inner) exit(2);
        sprintf(inner, "%s/%s", path, names[i]->d_name);
        ran += run_path(inner);
        free(inner);
        free(names[i]);
    }
    free(names);
    return ran;
}

int main(int argc, char **argv) {
    int ran = 0;
    for (int i = 1; i < argc; i++) ran += run_path(argv[i]);
    printf("%d inputs\n", ran);
    return ran ? 0 : 2;
}
