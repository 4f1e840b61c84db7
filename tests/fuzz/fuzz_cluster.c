/* fuzz_cluster.c - balanced spherical k-means: shapes, rows of any floats, calls in any order.
 *
 * Promises checked: shapes out of range and rows that are not finite are refused with one line, too many or too few rows too; every
 * row is in exactly one cluster, clusters are equally large and ascending; centroids are finite and the means of their rows; the
 * result does not depend on the number of threads nor on how rows are handed over. */
#include "fuzz.h"
#include "pymtp.h"

#include <float.h>
#include <math.h>

enum { MAX_ROWS = 96, MAX_WIDTH = 40 };

typedef struct grouping { int32_t order[MAX_ROWS]; float centroids[MAX_ROWS * MAX_WIDTH]; double objective[4]; } grouping;

static void one_line(const pymtp_error *err) { fuzz_check(err->code != PYMTP_OK && err->text[0] && !strchr(err->text, '\n')); }

/* Steps of one scale, rarely any bits. */
static void floats(fuzz_bytes *in, float *x, size_t n) {
    const int scale = fuzz_u8(in) % 128 - 64;
    for (size_t i = 0; i < n; i++) {
        const uint8_t v = fuzz_u8(in);
        if (v == 255) fuzz_take(in, &x[i], 4);
        else x[i] = ldexpf((float)(int8_t)v, scale);
    }
}

/* Hands rows over `at_once` at a time and improves `rounds` times. */
static void group(const float *x, int64_t rows, int32_t width, int32_t clusters, int32_t threads, int64_t at_once, int rounds, grouping *out) {
    pymtp_error err = {0};
    pymtp_clustering *c = pymtp_clustering_new(rows, width, clusters, threads, &err);
    double objective;
    fuzz_check(c);
    for (int64_t at = 0; at < rows; at += at_once) {
        fuzz_check(pymtp_clustering_improve(c, &objective, &err) == PYMTP_E_STATE);
        fuzz_check(pymtp_clustering_result(c, out->order, out->centroids, &err) == PYMTP_E_STATE);
        const int64_t n = at_once < rows - at ? at_once : rows - at;
        float *own = malloc((size_t)(n * width) * sizeof *own); /* exactly so many */
        fuzz_check(own);
        memcpy(own, x + at * width, (size_t)(n * width) * sizeof *own);
        fuzz_check(pymtp_clustering_add(c, own, n, &err) == PYMTP_OK);
        free(own);
    }
    fuzz_check(pymtp_clustering_add(c, x, 1, &err) == PYMTP_E_ARG);
    one_line(&err);
    for (int i = 0; i < rounds; i++) {
        fuzz_check(pymtp_clustering_improve(c, &out->objective[i], &err) == PYMTP_OK);
        fuzz_check(out->objective[i] >= 0 && out->objective[i] <= 1 + 1e-3); /* unit rows and sums rounded to 2^-14 of their length */
    }
    fuzz_check(pymtp_clustering_result(c, out->order, out->centroids, &err) == PYMTP_OK);
    pymtp_clustering_free(c);
}

static double length(const float *x, int32_t n) {
    double squares = 0;
    for (int32_t i = 0; i < n; i++) squares += (double)x[i] * (double)x[i];
    return sqrt(squares);
}

static void check_grouping(const grouping *g, const float *x, int32_t rows, int32_t width, int32_t clusters) {
    uint8_t seen[MAX_ROWS] = {0};
    const int32_t members = rows / clusters;
    for (int32_t i = 0; i < rows; i++) {
        fuzz_check(g->order[i] >= 0 && g->order[i] < rows && !seen[g->order[i]]);
        fuzz_check(i % members == 0 || g->order[i - 1] < g->order[i]);
        seen[g->order[i]] = 1;
    }
    for (int32_t i = 0; i < clusters; i++)
        for (int32_t k = 0; k < width; k++) {
            double sum = 0, size = 0;
            for (int32_t j = 0; j < members; j++) {
                const double v = (double)x[g->order[i * members + j] * width + k];
                sum += v;
                size += fabs(v);
            }
            /* A row is stored as multiples of its length / 2^14, rounded: half of that a row, and the mean to float. */
            double longest = 0;
            for (int32_t j = 0; j < members; j++) longest = fmax(longest, length(x + g->order[i * members + j] * width, width));
            const double have = (double)g->centroids[i * width + k], bound = longest * 0x1.01p-15 + size * 0x1p-23 + 0x1p-148;
            if (!(fabs(have - sum / members) <= bound)) fuzz_fail("cluster %d, column %d: %a, expected %a", i, k, have, sum / members);
        }
}

static void wrong_shapes(fuzz_bytes *in) {
    pymtp_error err = {0};
    const int64_t rows = (int64_t)fuzz_u64(in);
    const int32_t width = (int32_t)fuzz_u32(in), clusters = (int32_t)fuzz_u32(in);
    if (rows > 0 && rows <= 1 << 26 && width > 0 && width <= 65536 && clusters > 0 && rows % clusters == 0) return;
    fuzz_check(!pymtp_clustering_new(rows, width, clusters, 1, &err));
    one_line(&err);
    fuzz_check(!pymtp_clustering_new(4, 4, 2, (int32_t)(257 + fuzz_u8(in)), &err));
    one_line(&err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static grouping first, second;
    static float x[MAX_ROWS * MAX_WIDTH];
    fuzz_bytes in = {data, n};
    const uint8_t kind = fuzz_u8(&in);
    if (kind % 8 == 7) {
        wrong_shapes(&in);
        return 0;
    }
    const int32_t clusters = 1 + fuzz_u8(&in) % 24, members = 1 + fuzz_u8(&in) % (MAX_ROWS / clusters), rows = clusters * members;
    const int32_t width = 1 + fuzz_u8(&in) % MAX_WIDTH;
    const int64_t at_once = 1 + fuzz_u8(&in) % rows;
    const int rounds = 1 + kind / 8 % 4;
    floats(&in, x, (size_t)(rows * width));
    for (int32_t i = 0; i < rows; i++)
        if (!(length(x + i * width, width) <= FLT_MAX)) {
            pymtp_error err = {0};
            pymtp_clustering *c = pymtp_clustering_new(rows, width, clusters, 1, &err);
            fuzz_check(c && pymtp_clustering_add(c, x, rows, &err) == PYMTP_E_ARG);
            one_line(&err);
            pymtp_clustering_free(c);
            return 0;
        }
    group(x, rows, width, clusters, 1, at_once, rounds, &first);
    check_grouping(&first, x, rows, width, clusters);
    group(x, rows, width, clusters, kind % 8 == 3 ? 3 : 1, rows, rounds, &second);
    fuzz_check(!memcmp(first.order, second.order, (size_t)rows * sizeof *first.order));
    fuzz_check(!memcmp(first.centroids, second.centroids, (size_t)(clusters * width) * sizeof *first.centroids));
    fuzz_check(!memcmp(first.objective, second.objective, (size_t)rounds * sizeof *first.objective));
    return 0;
}
