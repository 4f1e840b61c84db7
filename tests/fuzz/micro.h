/* micro.h - the small models of tests/fuzz/corpus as files to open, for targets whose input is not the model itself. */
#ifndef PM_FUZZ_MICRO_H
#define PM_FUZZ_MICRO_H

#include "fuzz.h"

#define MICRO_VARIANTS 3
static const char *const micro_names[MICRO_VARIANTS] = {"ple", "dense", "moe"};

/* What follows the first `skip` bytes of corpus/FOLDER/NAME, found beside this header, as a file in memory that stays open. */
static inline void micro_open(const char *folder, const char *name, long skip, char path[64]) {
    static uint8_t data[1 << 16];
    char from[1024];
    const char *here = __FILE__, *slash = strrchr(here, '/');
    snprintf(from, sizeof from, "%.*s/corpus/%s/%s", slash ? (int)(slash - here) : 1, slash ? here : ".", folder, name);
    FILE *f = fopen(from, "rb");
    if (!f || fseek(f, skip, SEEK_SET)) fuzz_fail("%s cannot be read", from);
    const size_t n = fread(data, 1, sizeof data, f);
    fclose(f);
    fuzz_check(n && n < sizeof data);
    fuzz_file(data, n, path);
}

/* Paths of variant i, the same ones on every call. */
static inline const char *micro_target(int i) {
    static char path[MICRO_VARIANTS][64];
    if (!path[i][0]) micro_open("model", micro_names[i], 0, path[i]);
    return path[i];
}

static inline const char *micro_drafter(int i) {
    static char path[MICRO_VARIANTS][64];
    if (!path[i][0]) micro_open("pair", micro_names[i], 1, path[i]);
    return path[i];
}

#endif
