/* test_cluster.c - balanced k-means: exact balance whatever the rows are, the same bytes for all thread counts, slices and machines,
 * an objective and centroids that are what a plain computation finds, quality, and bad arguments. */
#include "base/memory.h"
#include "check.h"
#include "pymtp.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>

typedef struct grouping {
    int64_t rows;
    int32_t width, clusters;
    int32_t *ordering;
    float *centroids;
    double best; /* largest objective that an iteration reported */
} grouping;

static void grouping_free(grouping *g) {
    pm_free(g->ordering);
    pm_free(g->centroids);
}

/* Rows in slices of `slice`, then `iterations` calls. */
static grouping group(const float *x, int64_t rows, int32_t width, int32_t clusters, int32_t threads, int64_t slice, int iterations) {
    grouping g = {.rows = rows, .width = width, .clusters = clusters, .best = -1};
    pymtp_error err;
    g.ordering = pm_calloc((size_t)rows, sizeof *g.ordering);
    g.centroids = pm_calloc((size_t)clusters * (size_t)width, sizeof *g.centroids);
    pymtp_clustering *c = pymtp_clustering_new(rows, width, clusters, threads, &err);
    CHECK(c != NULL, "%s", err.text);
    for (int64_t i = 0; i < rows; i += slice) {
        const int64_t n = rows - i < slice ? rows - i : slice;
        CHECK(pymtp_clustering_add(c, x + i * width, n, &err) == PYMTP_OK, "%s", err.text);
    }
    for (int i = 0; i < iterations; i++) {
        double objective = -1;
        CHECK(pymtp_clustering_improve(c, &objective, &err) == PYMTP_OK, "%s", err.text);
        if (objective > g.best) g.best = objective;
    }
    CHECK(pymtp_clustering_result(c, g.ordering, g.centroids, &err) == PYMTP_OK, "%s", err.text);
    pymtp_clustering_free(c);
    return g;
}

/* ---- what a plain computation finds ---- */

static double length_of(const double *x, int32_t n) {
    double sum = 0;
    for (int32_t k = 0; k < n; k++) sum += x[k] * x[k];
    return sqrt(sum);
}

/* Row r at length 1, or 0. */
static void unit_row(const float *x, int64_t r, int32_t width, double *out) {
    for (int32_t k = 0; k < width; k++) out[k] = x[r * width + k];
    const double length = length_of(out, width);
    for (int32_t k = 0; k < width && length > 0; k++) out[k] /= length;
}

/* The mean cosine between rows and the sum of their cluster: sum of the lengths of these sums over rows. */
static double objective_of(const float *x, const int32_t *ordering, int64_t rows, int32_t width, int32_t clusters) {
    double *sum = pm_calloc((size_t)width, sizeof *sum), *row = pm_calloc((size_t)width, sizeof *row), total = 0;
    const int64_t members = rows / clusters;
    for (int64_t i = 0; i < rows; i++) {
        if (i % members == 0) memset(sum, 0, (size_t)width * sizeof *sum);
        unit_row(x, ordering[i], width, row);
        for (int32_t k = 0; k < width; k++) sum[k] += row[k];
        if (i % members == members - 1) total += length_of(sum, width);
    }
    pm_free(sum);
    pm_free(row);
    return total / (double)rows;
}

static void check_grouping(const grouping *g, const float *x, const char *what) {
    const int64_t members = g->rows / g->clusters;
    unsigned char *seen = pm_calloc((size_t)g->rows, 1);
    int64_t wrong = 0, disordered = 0;
    for (int64_t i = 0; i < g->rows; i++) {
        const int32_t r = g->ordering[i];
        wrong += r < 0 || r >= g->rows || seen[r]++;
        disordered += i % members && g->ordering[i - 1] >= r;
    }
    CHECK(!wrong, "%s: %lld rows that are not in exactly one cluster", what, (long long)wrong);
    CHECK(!disordered, "%s: %lld rows out of order", what, (long long)disordered);
    pm_free(seen);
    if (wrong) return;

    /* A row at length 2^14 is rounded to integers: off by sqrt(width) / 2 at most, so sums of m of them by m times that. */
    const double found = objective_of(x, g->ordering, g->rows, g->width, g->clusters), off = sqrt(g->width) / 2 / 16384;
    CHECK(fabs(found - g->best) <= off, "%s: objective %.6f, reported %.6f", what, found, g->best);
    double worst = 0;
    for (int32_t c = 0; c < g->clusters; c++)
        for (int32_t k = 0; k < g->width; k++) {
            double mean = 0, longest = 0;
            for (int64_t j = 0; j < members; j++) {
                const float *row = x + (int64_t)g->ordering[c * members + j] * g->width;
                double squares = 0;
                for (int32_t i = 0; i < g->width; i++) squares += (double)row[i] * row[i];
                longest = fmax(longest, sqrt(squares));
                mean += row[k] / (double)members;
            }
            /* half a unit of the longest row, and the rounding of the result to float */
            worst = fmax(worst, fabs(mean - g->centroids[c * g->width + k]) - longest / 2 / 16384 - fabs(mean) * 0x1p-23);
        }
    CHECK(worst <= 0, "%s: a centroid is off the mean by %g too much", what, worst);
}

/* ---- rows ---- */

/* Rows around `centres` random directions, scaled by random lengths. */
static float *mixture(uint64_t seed, int64_t rows, int32_t width, int32_t centres, float noise) {
    rng r = {seed};
    float *x = pm_calloc((size_t)(rows * width), sizeof *x), *c = pm_calloc((size_t)centres * (size_t)width, sizeof *c);
    rng_fill(&r, c, (size_t)centres * (size_t)width, 1);
    for (int64_t i = 0; i < rows; i++) {
        const float *centre = c + rng_next(&r) % (uint64_t)centres * (uint64_t)width, length = 1.5f + rng_uniform(&r);
        for (int32_t k = 0; k < width; k++) x[i * width + k] = length * (centre[k] + noise * rng_uniform(&r));
    }
    pm_free(c);
    return x;
}

static void shapes(void) {
    static const struct { int64_t rows; int32_t width, clusters; } all[] = {
        {1280, 64, 128}, {1000, 33, 8}, {96, 5, 3}, {64, 7, 64}, {64, 7, 1}, {1, 1, 1}, {999, 17, 37}, {2048, 48, 16}, {130, 1, 13},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        float *x = mixture(i, all[i].rows, all[i].width, 20, 1);
        grouping g = group(x, all[i].rows, all[i].width, all[i].clusters, 2, 100, 4);
        char what[64];
        snprintf(what, sizeof what, "%lld rows of %d, %d clusters", (long long)all[i].rows, all[i].width, all[i].clusters);
        check_grouping(&g, x, what);
        grouping_free(&g);
        pm_free(x);
    }
}

/* Rows that give no reason to prefer a cluster: balance is kept all the same. */
static void degenerate(void) {
    const int64_t rows = 4096, width = 8;
    float *x = pm_calloc((size_t)(rows * width), sizeof *x);
    grouping zeros = group(x, rows, (int32_t)width, 128, 2, rows, 3);
    check_grouping(&zeros, x, "zeros");
    for (int64_t i = 0; i < rows * width; i++) x[i] = 1;
    grouping equal = group(x, rows, (int32_t)width, 128, 2, rows, 3);
    check_grouping(&equal, x, "equal rows");
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < width; k++) x[i * width + k] = i % 2 ? 1e30f : -1e-30f; /* two directions, far apart in length */
    grouping opposite = group(x, rows, (int32_t)width, 128, 2, rows, 3);
    check_grouping(&opposite, x, "opposite rows");
    CHECK(opposite.best > 0.999, "opposite rows: objective %f", opposite.best);
    grouping_free(&zeros);
    grouping_free(&equal);
    grouping_free(&opposite);
    pm_free(x);
}

/* ---- the same bytes ---- */

static uint64_t hash(const void *data, size_t bytes) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    return h;
}

static void determinism(void) {
    const int64_t rows = 3000;
    const int32_t width = 40, clusters = 100;
    float *x = mixture(5, rows, width, 60, 1);
    grouping first = group(x, rows, width, clusters, 1, rows, 5);
    static const struct { int32_t threads; int64_t slice; } ways[] = {{2, 3000}, {3, 7}, {7, 1024}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        grouping g = group(x, rows, width, clusters, ways[i].threads, ways[i].slice, 5);
        CHECK(!memcmp(g.ordering, first.ordering, (size_t)rows * sizeof *g.ordering), "ordering with %d threads", ways[i].threads);
        CHECK(!memcmp(g.centroids, first.centroids, (size_t)clusters * (size_t)width * sizeof *g.centroids), "centroids with %d threads",
              ways[i].threads);
        CHECK(g.best == first.best, "objective with %d threads", ways[i].threads);
        grouping_free(&g);
    }
    /* what every machine and compiler finds for these rows */
    const uint64_t found = hash(first.ordering, (size_t)rows * sizeof *first.ordering);
    CHECK(found == 0xeb369794b44132fdu, "ordering: hash %#llx", (unsigned long long)found);
    grouping_free(&first);
    pm_free(x);
}

/* ---- quality ---- */

/* Textbook balanced k-means in double: first centres are rows drawn at random; rows go, in order, to the best cluster with room. */
static double naive(const float *x, int64_t rows, int32_t width, int32_t clusters, int iterations) {
    const size_t w = (size_t)width;
    double *unit = pm_calloc((size_t)rows * w, sizeof *unit), *centre = pm_calloc((size_t)clusters * w, sizeof *centre), best = 0;
    int32_t *ordering = pm_calloc((size_t)rows, sizeof *ordering), *fill = pm_calloc((size_t)clusters, sizeof *fill);
    const int64_t members = rows / clusters;
    rng r = {99};
    for (int64_t i = 0; i < rows; i++) unit_row(x, i, width, unit + (size_t)i * w);
    for (int32_t c = 0; c < clusters; c++) memcpy(centre + (size_t)c * w, unit + rng_next(&r) % (uint64_t)rows * w, w * sizeof *centre);
    for (int t = 0; t < iterations; t++) {
        memset(fill, 0, (size_t)clusters * sizeof *fill);
        for (int64_t i = 0; i < rows; i++) {
            int32_t to = -1;
            double most = -2;
            for (int32_t c = 0; c < clusters; c++) {
                double s = 0;
                for (size_t k = 0; k < w; k++) s += unit[(size_t)i * w + k] * centre[(size_t)c * w + k];
                if (fill[c] < members && s > most) most = s, to = c;
            }
            ordering[to * members + fill[to]++] = (int32_t)i;
        }
        best = fmax(best, objective_of(x, ordering, rows, width, clusters));
        for (int32_t c = 0; c < clusters; c++) {
            double *sum = centre + (size_t)c * w;
            memset(sum, 0, w * sizeof *sum);
            for (int64_t j = 0; j < members; j++)
                for (size_t k = 0; k < w; k++) sum[k] += unit[(size_t)ordering[c * members + j] * w + k];
            const double length = length_of(sum, width);
            for (size_t k = 0; k < w && length > 0; k++) sum[k] /= length;
        }
    }
    pm_free(unit);
    pm_free(centre);
    pm_free(ordering);
    pm_free(fill);
    return best;
}

static void quality(void) {
    for (uint64_t seed = 0; seed < 4; seed++) {
        const int32_t width = 24, clusters = 32;
        float *x = mixture(seed, 1024, width, 40, 0.8f);
        grouping g = group(x, 1024, width, clusters, 2, 1024, 8);
        const double plain = naive(x, 1024, width, clusters, 8);
        CHECK(g.best > plain, "mixture %d: objective %f, naive %f", (int)seed, g.best, plain);
        grouping_free(&g);
        pm_free(x);
    }
    /* Directions with exactly as many rows as a cluster holds, noise far below their distance: each becomes a cluster. */
    float *x = pm_calloc(64 * 16 * 32, sizeof *x);
    rng r = {3};
    float centre[16][32];
    rng_fill(&r, &centre[0][0], 16 * 32, 1);
    for (int i = 0; i < 64 * 16; i++)
        for (int k = 0; k < 32; k++) x[i * 32 + k] = centre[i % 16][k] + 0.1f * rng_uniform(&r);
    grouping g = group(x, 64 * 16, 32, 16, 2, 64 * 16, 6);
    int mixed = 0;
    for (int i = 0; i < 64 * 16; i++) mixed += g.ordering[i] % 16 != g.ordering[i / 64 * 64] % 16;
    CHECK(!mixed, "%d rows are not with their own", mixed);
    grouping_free(&g);
    pm_free(x);
}

/* ---- bad arguments ---- */

static void refused(int64_t rows, int32_t width, int32_t clusters, int32_t threads, const char *name) {
    pymtp_error err;
    CHECK(!pymtp_clustering_new(rows, width, clusters, threads, &err) && err.code == PYMTP_E_ARG && strstr(err.text, name), "%s: %d %s", name,
          err.code, err.text);
}

static void bad_arguments(void) {
    refused(0, 8, 1, 1, "rows");
    refused(-5, 8, 1, 1, "rows");
    refused(INT64_MAX, 8, 1, 1, "rows");
    refused(16, 0, 4, 1, "width");
    refused(16, 65537, 4, 1, "width");
    refused(16, 8, 0, 1, "clusters");
    refused(16, 8, 5, 1, "clusters");
    refused(16, 8, 32, 1, "clusters");
    refused(16, 8, -4, 1, "clusters");
    refused(16, 8, 4, -1, "threads");
    refused(16, 8, 4, 1000, "threads");
    pymtp_error err;
    double objective;
    int32_t ordering[16];
    float x[16 * 8] = {0}, centroids[4 * 8];
    pymtp_clustering *c = pymtp_clustering_new(16, 8, 4, 1, &err);
    CHECK(pymtp_clustering_improve(c, &objective, &err) == PYMTP_E_STATE && strstr(err.text, "expected 16 rows, found 0"), "%s", err.text);
    CHECK(pymtp_clustering_result(c, ordering, centroids, &err) == PYMTP_E_STATE, "%s", err.text);
    CHECK(pymtp_clustering_add(c, x, 17, &err) == PYMTP_E_ARG, "%s", err.text);
    CHECK(pymtp_clustering_add(c, x, -1, &err) == PYMTP_E_ARG, "%s", err.text);
    CHECK(pymtp_clustering_add(c, NULL, 1, &err) == PYMTP_E_ARG, "%s", err.text);
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) { /* 3e38 is finite, the length of eight of them is no float */
        for (int k = 0; k < 8; k++) x[5 * 8 + k] = bad[i];
        CHECK(pymtp_clustering_add(c, x, 16, &err) == PYMTP_E_ARG && strstr(err.text, "row 5"), "%s", err.text);
    }
    for (int k = 0; k < 8; k++) x[5 * 8 + k] = 1;
    CHECK(pymtp_clustering_add(c, x, 16, &err) == PYMTP_OK, "after refused rows: %s", err.text);
    CHECK(pymtp_clustering_improve(c, NULL, &err) == PYMTP_E_ARG, "%s", err.text);
    CHECK(pymtp_clustering_improve(c, &objective, &err) == PYMTP_OK, "%s", err.text);
    CHECK(pymtp_clustering_result(c, NULL, centroids, &err) == PYMTP_E_ARG, "%s", err.text);
    CHECK(pymtp_clustering_result(c, ordering, centroids, &err) == PYMTP_OK, "%s", err.text);
    pymtp_clustering_free(c);
    pymtp_clustering_free(NULL);
}

int main(void) {
    shapes();
    degenerate();
    determinism();
    quality();
    bad_arguments();
    return check_done();
}
