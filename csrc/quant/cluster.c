/* cluster.c - pymtp_clustering_*: balanced spherical k-means of rows (cluster.h).
 *
 * A first grouping by recursive bisection: a part of the rows is cut across the direction between two centres, at the place that gives
 * both sides whole clusters. Then iterations of k-means: centres are the normalized sums of their rows, rows go to centres as
 * pm_cluster_match says. Nothing guarantees that an iteration gains, so the best grouping is kept. */
#include "quant/cluster.h"
#include "base/cpucount.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROWS ((int64_t)1 << 26)
#define MAX_WIDTH 65536 /* rounding to int16 lengthens a vector by sqrt(width) / 2 at most: far from what int32 sums have room for */
#define LANES 32        /* the stride is a multiple: compilers get loops without tails */
#define CUTS 5          /* rounds of 2-means per bisection */

/* ---- vectors ---- */

/* out = x at length 2^14, or 0 where x is 0; returns the length of x. */
static double normalize(const double *x, size_t n, int16_t *out) {
    double squares = 0;
    for (size_t k = 0; k < n; k++) squares += x[k] * x[k];
    const double length = sqrt(squares), scale = length > 0 ? PM_CLUSTER_UNIT / length : 0;
    for (size_t k = 0; k < n; k++) out[k] = (int16_t)lrint(x[k] * scale);
    return length;
}

/* sum = the sum of n rows: exact, since doubles hold all integers of 53 bits. */
static void add_up(const pymtp_clustering *c, const int32_t *rows, size_t n, double *sum) {
    memset(sum, 0, c->stride * sizeof *sum);
    for (size_t i = 0; i < n; i++) {
        const int16_t *x = c->row + (size_t)rows[i] * c->stride;
        for (size_t k = 0; k < c->stride; k++) sum[k] += x[k];
    }
}

static int32_t product(const int16_t *a, const int16_t *b, size_t n) {
    int32_t sum = 0;
    for (size_t k = 0; k < n; k++) sum += a[k] * b[k];
    return sum;
}

/* ---- the first grouping ---- */

static int by_key(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Sorts n rows by their product with a direction, then by number. */
static void sort_along(const pymtp_clustering *c, int32_t *rows, size_t n, const int16_t *direction, uint64_t *key) {
    for (size_t i = 0; i < n; i++) {
        const int32_t p = product(direction, c->row + (size_t)rows[i] * c->stride, c->stride);
        key[i] = (uint64_t)((int64_t)p - INT32_MIN) << 32 | (uint32_t)rows[i];
    }
    qsort(key, n, sizeof *key, by_key);
    for (size_t i = 0; i < n; i++) rows[i] = (int32_t)(uint32_t)key[i];
}

/* direction = that from the first vector to the second, both taken at length 1. */
static void between(const pymtp_clustering *c, double *first, double *second, int16_t *direction) {
    double *both[2] = {first, second};
    for (int i = 0; i < 2; i++) {
        const double length = normalize(both[i], c->stride, direction);
        for (size_t k = 0; k < c->stride && length > 0; k++) both[i][k] /= length;
    }
    for (size_t k = 0; k < c->stride; k++) second[k] -= first[k];
    normalize(second, c->stride, direction);
}

/* Orders n rows so that the first `left` of them are one side of a cut into two groups. The first cut is along the line from the
 * row that lies farthest from the middle to the row farthest from that one. */
static void bisect(pymtp_clustering *c, int32_t *rows, size_t n, size_t left, int16_t *direction, uint64_t *key, double *scratch) {
    double *first = scratch, *second = scratch + c->stride;
    add_up(c, rows, n, first);
    normalize(first, c->stride, direction);
    sort_along(c, rows, n, direction, key);
    memcpy(direction, c->row + (size_t)rows[0] * c->stride, c->stride * sizeof *direction);
    add_up(c, rows, 1, second);
    sort_along(c, rows, n, direction, key);
    add_up(c, rows, 1, first);
    between(c, first, second, direction);
    for (int i = 0; i < CUTS; i++) {
        sort_along(c, rows, n, direction, key);
        if (i + 1 == CUTS) break;
        add_up(c, rows, left, first);
        add_up(c, rows + left, n - left, second);
        between(c, first, second, direction);
    }
}

typedef struct level { pymtp_clustering *c; int depth; } level;

/* Items are parts of a level: 2^depth of them share the clusters as evenly as it goes. */
static void bisect_job(void *context, size_t begin, size_t end, int thread) {
    const level *l = context;
    pymtp_clustering *c = l->c;
    for (size_t i = begin; i < end; i++) {
        const size_t first = i * c->clusters >> l->depth, middle = (2 * i + 1) * c->clusters >> (l->depth + 1);
        const size_t last = (i + 1) * c->clusters >> l->depth, at = first * c->members;
        if (middle == first || middle == last) continue;
        bisect(c, c->order + at, (last - first) * c->members, (middle - first) * c->members, c->centre + first * c->stride, c->key + at,
               c->sum + (size_t)thread * 2 * c->stride);
    }
}

static void first_grouping(pymtp_clustering *c) {
    for (size_t r = 0; r < c->rows; r++) c->order[r] = (int32_t)r;
    for (level l = {c, 0}; (size_t)1 << l.depth < c->clusters; l.depth++) pm_pool_run(c->pool, (size_t)1 << l.depth, 1, bisect_job, &l);
}

/* ---- iterations ---- */

static int ascending(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Items are clusters: rows in ascending order, and the centre. */
static void centre_job(void *context, size_t begin, size_t end, int thread) {
    pymtp_clustering *c = context;
    double *sum = c->sum + (size_t)thread * 2 * c->stride;
    for (size_t i = begin; i < end; i++) {
        int32_t *rows = c->order + i * c->members;
        qsort(rows, c->members, sizeof *rows, ascending);
        add_up(c, rows, c->members, sum);
        c->sum_length[i] = normalize(sum, c->stride, c->centre + i * c->stride) / PM_CLUSTER_UNIT;
    }
}

pymtp_status pymtp_clustering_improve(pymtp_clustering *c, double *objective, pymtp_error *err) {
    pm_clear(err);
    if (!c || !objective) return pm_fail(err, PYMTP_E_ARG, "clustering: expected a clustering and a place for the objective, found NULL");
    if (c->added < c->rows) return pm_fail(err, PYMTP_E_STATE, "clustering: expected %zu rows, found %zu", c->rows, c->added);
    if (c->best_objective < 0) first_grouping(c);
    else pm_cluster_match(c);
    pm_pool_run(c->pool, c->clusters, 1, centre_job, c);
    double sum = 0;
    for (size_t i = 0; i < c->clusters; i++) sum += c->sum_length[i];
    *objective = sum / (double)c->rows;
    if (*objective > c->best_objective) {
        c->best_objective = *objective;
        memcpy(c->best, c->order, c->rows * sizeof *c->best);
    }
    return PYMTP_OK;
}

pymtp_status pymtp_clustering_result(const pymtp_clustering *c, int32_t *ordering, float *centroids, pymtp_error *err) {
    pm_clear(err);
    if (!c || !ordering || !centroids) return pm_fail(err, PYMTP_E_ARG, "clustering: expected a clustering and arrays, found NULL");
    if (c->best_objective < 0) return pm_fail(err, PYMTP_E_STATE, "clustering: there is no grouping yet");
    memcpy(ordering, c->best, c->rows * sizeof *ordering);
    for (size_t i = 0; i < c->clusters; i++) {
        memset(c->sum, 0, c->stride * sizeof *c->sum);
        for (size_t j = 0; j < c->members; j++) {
            const size_t r = (size_t)c->best[i * c->members + j];
            const double scale = c->length[r] / PM_CLUSTER_UNIT / (double)c->members;
            for (size_t k = 0; k < c->width; k++) c->sum[k] += scale * c->row[r * c->stride + k];
        }
        for (size_t k = 0; k < c->width; k++) centroids[i * c->width + k] = (float)c->sum[k];
    }
    return PYMTP_OK;
}

/* ---- rows ---- */

typedef struct addition {
    pymtp_clustering *c;
    const float *rows;
} addition;

static void add_job(void *context, size_t begin, size_t end, int thread) {
    const addition *a = context;
    pymtp_clustering *c = a->c;
    double *x = c->sum + (size_t)thread * 2 * c->stride;
    for (size_t i = begin; i < end; i++) {
        const size_t r = c->added + i;
        for (size_t k = 0; k < c->width; k++) x[k] = a->rows[i * c->width + k];
        for (size_t k = c->width; k < c->stride; k++) x[k] = 0;
        double squares = 0;
        for (size_t k = 0; k < c->width; k++) squares += x[k] * x[k];
        c->length[r] = sqrt(squares);
        if (c->length[r] <= FLT_MAX) normalize(x, c->stride, c->row + r * c->stride);
    }
}

pymtp_status pymtp_clustering_add(pymtp_clustering *c, const float *rows, int64_t n, pymtp_error *err) {
    pm_clear(err);
    if (!c || !rows || n < 0) return pm_fail(err, PYMTP_E_ARG, "clustering: expected a clustering and rows, found NULL");
    if ((uint64_t)n > c->rows - c->added)
        return pm_fail(err, PYMTP_E_ARG, "clustering: expected at most %zu rows more, found %lld", c->rows - c->added, (long long)n);
    addition a = {c, rows};
    pm_pool_run(c->pool, (size_t)n, 1, add_job, &a);
    for (size_t i = 0; i < (size_t)n; i++)
        if (!(c->length[c->added + i] <= FLT_MAX))
            return pm_fail(err, PYMTP_E_ARG, "clustering: row %zu: expected finite values and a length of %g at most, found %g", c->added + i,
                           (double)FLT_MAX, c->length[c->added + i]);
    c->added += (size_t)n;
    return PYMTP_OK;
}

/* ---- the handle ---- */

static pymtp_status allocate(pymtp_clustering *c, pymtp_error *err) {
    const size_t threads = (size_t)pm_pool_threads(c->pool), bytes = c->rows * c->stride * sizeof *c->row;
    PM_TRY(pm_region_reserve(&c->memory, bytes, "the rows to cluster", err));
    pm_region_prefer_huge(&c->memory);
    PM_TRY(pm_region_commit(&c->memory, bytes, "the rows to cluster", err));
    c->row = (int16_t *)(void *)c->memory.base;
    const char *what = "clustering";
    const int enough = (c->length = pm_new(c->rows, sizeof *c->length, what, err)) && (c->key = pm_new(c->rows, sizeof *c->key, what, err)) &&
                       (c->order = pm_new(c->rows, sizeof *c->order, what, err)) && (c->best = pm_new(c->rows, sizeof *c->best, what, err)) &&
                       (c->score = pm_new(c->rows, sizeof *c->score, what, err)) && (c->todo = pm_new(c->rows, sizeof *c->todo, what, err)) &&
                       (c->tried = pm_new(c->rows, sizeof *c->tried, what, err)) &&
                       (c->link = pm_new(c->rows, c->list * sizeof *c->link, what, err)) &&
                       (c->fill = pm_new(c->clusters, sizeof *c->fill, what, err)) &&
                       (c->open = pm_new(c->clusters, sizeof *c->open, what, err)) &&
                       (c->sum_length = pm_new(c->clusters, sizeof *c->sum_length, what, err)) &&
                       (c->centre = pm_new(c->clusters, c->stride * sizeof *c->centre, what, err)) &&
                       (c->sum = pm_new(threads, 2 * c->stride * sizeof *c->sum, what, err));
    return enough ? PYMTP_OK : PYMTP_E_NOMEM;
}

static pymtp_status check_shape(int64_t rows, int32_t width, int32_t clusters, int32_t threads, pymtp_error *err) {
    if (rows < 1 || rows > MAX_ROWS)
        return pm_fail(err, PYMTP_E_ARG, "rows: expected 1..%lld, found %lld", (long long)MAX_ROWS, (long long)rows);
    if (width < 1 || width > MAX_WIDTH) return pm_fail(err, PYMTP_E_ARG, "width: expected 1..%d, found %d", MAX_WIDTH, width);
    if (clusters < 1 || rows % clusters)
        return pm_fail(err, PYMTP_E_ARG, "clusters: expected a divisor of the %lld rows, found %d", (long long)rows, clusters);
    if (threads < 0 || threads > 256) return pm_fail(err, PYMTP_E_ARG, "threads: expected 0..256, found %d", threads);
    return PYMTP_OK;
}

pymtp_clustering *pymtp_clustering_new(int64_t rows, int32_t width, int32_t clusters, int32_t threads, pymtp_error *err) {
    pm_clear(err);
    if (check_shape(rows, width, clusters, threads, err) != PYMTP_OK) return NULL;
    pymtp_clustering *c = pm_new(1, sizeof *c, "clustering", err);
    if (!c) return NULL;
    c->rows = (size_t)rows, c->width = (size_t)width, c->clusters = (size_t)clusters, c->members = c->rows / c->clusters;
    c->stride = (c->width + LANES - 1) / LANES * LANES;
    c->list = c->clusters < PM_CLUSTER_LIST ? c->clusters : PM_CLUSTER_LIST;
    c->best_objective = -1;
    if (pm_pool_new(threads ? threads : pm_cpu_count(), &c->pool, err) != PYMTP_OK || allocate(c, err) != PYMTP_OK) {
        pymtp_clustering_free(c);
        return NULL;
    }
    return c;
}

void pymtp_clustering_free(pymtp_clustering *c) {
    if (!c) return;
    void *owned[] = {c->length, c->key, c->order, c->best, c->score, c->todo, c->tried, c->link, c->fill, c->open, c->sum_length, c->centre, c->sum};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) pm_free(owned[i]);
    pm_region_release(&c->memory);
    pm_pool_free(c->pool);
    pm_free(c);
}
