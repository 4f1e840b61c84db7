/* cluster_match.c - the step of balanced k-means that gives rows to centres: candidate lists, then places. See cluster.h. */
#include "quant/cluster.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK 32   /* rows that stay in the second cache while all centres pass by */
#define TILE 4     /* rows that meet two centres at a time */
#define SEARCHES 8 /* for rows that found no place with any candidate; after that, free places are given out in order */

/* ---- candidates ---- */

/* out[j][i] = centre[j] row[i]. Eight sums stay in registers; compilers make multiply-and-add-pairs instructions of the loop. */
static void products(const int16_t *const centre[2], const int16_t *const row[TILE], size_t stride, int32_t out[2][TILE]) {
    const int16_t *a = centre[0], *b = centre[1], *r0 = row[0], *r1 = row[1], *r2 = row[2], *r3 = row[3];
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
    for (size_t k = 0; k < stride; k++) {
        a0 += a[k] * r0[k];
        a1 += a[k] * r1[k];
        a2 += a[k] * r2[k];
        a3 += a[k] * r3[k];
        b0 += b[k] * r0[k];
        b1 += b[k] * r1[k];
        b2 += b[k] * r2[k];
        b3 += b[k] * r3[k];
    }
    out[0][0] = a0, out[0][1] = a1, out[0][2] = a2, out[0][3] = a3;
    out[1][0] = b0, out[1][1] = b1, out[1][2] = b2, out[1][3] = b3;
}

/* Keeps list (n) in order: score descending, then cluster ascending. Clusters are offered in ascending order. */
static void offer(pm_cluster_link *list, size_t n, int32_t score, int32_t cluster) {
    if (score <= list[n - 1].score) return;
    size_t i = n - 1;
    for (; i && score > list[i - 1].score; i--) list[i] = list[i - 1];
    list[i] = (pm_cluster_link){score, cluster};
}

typedef struct search {
    pymtp_clustering *c;
    const int32_t *rows; /* NULL: all */
    size_t open;         /* clusters that take part: c->open, ascending */
} search;

/* Up to BLOCK rows against all open centres. The last tile and the last pair may hold one thing several times; it is offered once. */
static void search_block(const search *s, size_t begin, size_t end) {
    const pymtp_clustering *c = s->c;
    const int16_t *row[BLOCK];
    pm_cluster_link *links[BLOCK];
    const size_t n = end - begin;
    for (size_t i = 0; i < BLOCK; i++) {
        const size_t at = begin + (i < n ? i : n - 1), r = s->rows ? (size_t)s->rows[at] : at;
        row[i] = c->row + r * c->stride;
        links[i] = c->link + r * c->list;
        for (size_t j = 0; j < c->list; j++) links[i][j] = (pm_cluster_link){INT32_MIN, -1};
    }
    for (size_t o = 0; o < s->open; o += 2) {
        const size_t pair = s->open - o > 1 ? 2 : 1;
        const int16_t *centre[2] = {c->centre + (size_t)c->open[o] * c->stride, c->centre + (size_t)c->open[o + pair - 1] * c->stride};
        for (size_t i = 0; i < n; i += TILE) {
            int32_t out[2][TILE];
            products(centre, row + i, c->stride, out);
            for (size_t j = 0; j < pair; j++)
                for (size_t k = 0; k < TILE && i + k < n; k++) offer(links[i + k], c->list, out[j][k], c->open[o + j]);
        }
    }
}

/* Items are rows of the search. */
static void search_job(void *context, size_t begin, size_t end, int thread) {
    const search *s = context;
    for (size_t i = begin; i < end; i += BLOCK) search_block(s, i, end - i > BLOCK ? i + BLOCK : end);
}

/* ---- places ---- */

/* A cluster's members so far are a heap in its part of c->order, with their scores in the same part of c->score: the member that
 * fits worst is first. Among equal scores the higher row fits worse. */
static int fits_worse(int32_t score, int32_t row, int32_t than_score, int32_t than_row) {
    return score < than_score || (score == than_score && row > than_row);
}

typedef struct heap { int32_t *row, *score; size_t n; } heap;

static void heap_set(heap *h, size_t i, int32_t row, int32_t score) { h->row[i] = row, h->score[i] = score; }

static void heap_push(heap *h, int32_t row, int32_t score) {
    size_t i = h->n++;
    for (; i && fits_worse(score, row, h->score[(i - 1) / 2], h->row[(i - 1) / 2]); i = (i - 1) / 2)
        heap_set(h, i, h->row[(i - 1) / 2], h->score[(i - 1) / 2]);
    heap_set(h, i, row, score);
}

/* Puts a row in the place of the worst. */
static void heap_replace(heap *h, int32_t row, int32_t score) {
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && fits_worse(h->score[child + 1], h->row[child + 1], h->score[child], h->row[child])) child++;
        if (!fits_worse(h->score[child], h->row[child], score, row)) break;
        heap_set(h, i, h->row[child], h->score[child]);
    }
    heap_set(h, i, row, score);
}

/* `row` applies, and whoever is sent away applies elsewhere in turn. Returns the row that is left without candidates, or -1. */
static int32_t apply(pymtp_clustering *c, int32_t row) {
    for (;;) {
        const size_t tried = c->tried[row];
        const pm_cluster_link l = tried < c->list ? c->link[(size_t)row * c->list + tried] : (pm_cluster_link){0, -1};
        if (l.cluster < 0) return row;
        c->tried[row]++;
        const size_t first = (size_t)l.cluster * c->members;
        heap h = {c->order + first, c->score + first, (size_t)c->fill[l.cluster]};
        if (h.n < c->members) {
            heap_push(&h, row, l.score);
            c->fill[l.cluster]++;
            return -1;
        }
        if (!fits_worse(h.score[0], h.row[0], l.score, row)) continue;
        const int32_t sent_away = h.row[0];
        heap_replace(&h, row, l.score);
        row = sent_away;
    }
}

static size_t open_clusters(pymtp_clustering *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->clusters; i++)
        if ((size_t)c->fill[i] < c->members) c->open[n++] = (int32_t)i;
    return n;
}

static int ascending(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

void pm_cluster_match(pymtp_clustering *c) {
    memset(c->fill, 0, c->clusters * sizeof *c->fill);
    size_t todo = c->rows;
    for (size_t r = 0; r < c->rows; r++) c->todo[r] = (int32_t)r;
    for (int i = 0; i < SEARCHES && todo; i++) {
        search s = {c, c->todo, open_clusters(c)};
        pm_pool_run(c->pool, todo, BLOCK, search_job, &s);
        size_t left = 0;
        for (size_t k = 0; k < todo; k++) c->tried[c->todo[k]] = 0;
        for (size_t k = 0; k < todo; k++) {
            const int32_t row = apply(c, c->todo[k]);
            if (row >= 0) c->todo[left++] = row;
        }
        qsort(c->todo, left, sizeof *c->todo, ascending);
        todo = left;
    }
    for (size_t i = 0; i < c->clusters; i++)
        while ((size_t)c->fill[i] < c->members) c->order[i * c->members + (size_t)c->fill[i]++] = c->todo[--todo];
}
