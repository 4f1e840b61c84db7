/* fuzz.h - what the fuzz targets share: the entry point, an input as a file, a finding, and bytes taken from an input.
 *
 * A target must be deterministic, must free what it takes, and calls fuzz_fail for what no sanitizer sees: a promise of a
 * header that does not hold. */
#ifndef PM_FUZZ_H
#define PM_FUZZ_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define fuzz_fail(...) do { fprintf(stderr, "FINDING %s:%d: ", __FILE__, __LINE__); fprintf(stderr, __VA_ARGS__); fputc('\n', stderr); abort(); } while (0)
#define fuzz_check(what) do { if (!(what)) fuzz_fail("%s", #what); } while (0)

/* A file in memory that holds the input; path takes its name under /proc. Returns a descriptor for close(). */
static inline int fuzz_file(const uint8_t *data, size_t n, char path[64]) {
    const int fd = memfd_create("fuzz", 0);
    if (fd < 0) fuzz_fail("memfd_create");
    for (size_t done = 0; done < n;) {
        const ssize_t wrote = write(fd, data + done, n - done);
        if (wrote <= 0) fuzz_fail("write");
        done += (size_t)wrote;
    }
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

/* Takes bytes off the front of an input; an exhausted input gives zeros. */
typedef struct fuzz_bytes { const uint8_t *at; size_t left; } fuzz_bytes;

static inline void fuzz_take(fuzz_bytes *b, void *out, size_t n) {
    const size_t have = n < b->left ? n : b->left;
    memset(out, 0, n);
    if (have) memcpy(out, b->at, have);
    b->at += have;
    b->left -= have;
}
static inline uint8_t fuzz_u8(fuzz_bytes *b) { uint8_t v; fuzz_take(b, &v, 1); return v; }
static inline uint32_t fuzz_u32(fuzz_bytes *b) { uint32_t v; fuzz_take(b, &v, 4); return v; }
static inline uint64_t fuzz_u64(fuzz_bytes *b) { uint64_t v; fuzz_take(b, &v, 8); return v; }

#endif
