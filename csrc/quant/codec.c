/* codec.c - pymtp_encode and pymtp_decode: rows of floats to blocks of a format and back, in parallel. The bytes do not depend
 * on threads or processor. */
#include "base/checked.h"
#include "base/cpucount.h"
#include "base/f16.h"
#include "base/memory.h"
#include "base/pool.h"
#include "quant/encode.h"

#include <float.h>
#include <string.h>

#define GRAIN ((size_t)1 << 14)       /* values of a chunk at least: a multiple of every batch */
#define LEAST_WEIGHT 0x1p-20f         /* of the largest: a column that was never seen still has to be stored */
#define LARGEST_HALF 65504.0f

/* ---- types ---- */

int32_t pymtp_types(int32_t *out, size_t cap) {
    for (size_t i = 0; i < cap && i < PM_FORMAT_COUNT; i++) out[i] = (int32_t)pm_format_get((pm_format_id)i)->type;
    return PM_FORMAT_COUNT;
}

static const pm_format *format_of(int32_t type) { return type >= 0 ? pm_format_by_type((uint32_t)type) : NULL; }

int32_t pymtp_type_find(const char *name) {
    for (int i = 0; name && i < PM_FORMAT_COUNT; i++) {
        const pm_format *f = pm_format_get((pm_format_id)i);
        if (!strcmp(f->name, name)) return (int32_t)f->type;
    }
    return -1;
}

const char *pymtp_type_name(int32_t type) {
    const pm_format *f = format_of(type);
    return f ? f->name : NULL;
}

int32_t pymtp_type_block_values(int32_t type) {
    const pm_format *f = format_of(type);
    return f ? (int32_t)f->block_values : 0;
}

int32_t pymtp_type_block_bytes(int32_t type) {
    const pm_format *f = format_of(type);
    return f ? (int32_t)f->block_bytes : 0;
}

/* ---- arguments ---- */

/* What encoding and decoding work on: rows x columns values, and as many blocks. */
typedef struct shape {
    const pm_format *format;
    size_t rows, columns, row_blocks, values, blocks, bytes;
} shape;

static pymtp_status shape_of(int32_t type, int64_t rows, int64_t columns, size_t bytes, shape *s, pymtp_error *err) {
    const pm_format *f = format_of(type);
    if (!f) return pm_fail(err, PYMTP_E_UNSUPPORTED, "type %d: not a tensor type pymtp computes with", type);
    if (rows < 0) return pm_fail(err, PYMTP_E_ARG, "rows: expected 0 or more, found %lld", (long long)rows);
    if (columns <= 0 || columns % f->block_values)
        return pm_fail(err, PYMTP_E_ARG, "columns: expected a multiple of %u for %s, found %lld", f->block_values, f->name, (long long)columns);
    *s = (shape){.format = f, .rows = (size_t)rows, .columns = (size_t)columns, .row_blocks = (size_t)columns / f->block_values};
    size_t value_bytes;
    if (pm_mul_size(s->rows, s->columns, &s->values) || pm_mul_size(s->values, sizeof(float), &value_bytes) ||
        pm_mul_size(s->rows * s->row_blocks, f->block_bytes, &s->bytes))
        return pm_fail(err, PYMTP_E_ARG, "%lld x %lld values do not fit in memory", (long long)rows, (long long)columns);
    s->blocks = s->rows * s->row_blocks;
    if (bytes != s->bytes)
        return pm_fail(err, PYMTP_E_ARG, "bytes: expected %zu for %lld x %lld of %s, found %zu", s->bytes, (long long)rows, (long long)columns, f->name, bytes);
    return PYMTP_OK;
}

/* A pool for a job on s->values values: no more threads than chunks. */
static pymtp_status pool_for(const shape *s, int32_t threads, pm_pool **pool, pymtp_error *err) {
    if (threads < 0 || threads > 256) return pm_fail(err, PYMTP_E_ARG, "threads: expected 0..256, found %d", threads);
    const size_t wanted = threads ? (size_t)threads : (size_t)pm_cpu_count(), chunks = s->values / GRAIN + 1;
    return pm_pool_new((int)(wanted < chunks ? wanted : chunks), pool, err);
}

/* ---- what can be encoded ---- */

float pm_encode_limit(pm_format_id id) {
    switch (id) {
    case PM_F32: return FLT_MAX;
    case PM_BF16: return pm_bits_f32(0x7f7f7fff); /* what is larger rounds to infinity, here as in the next line */
    case PM_F16: return pm_bits_f32(0x477fefff);
    default: return LARGEST_HALF; /* so that no scale or minimum is larger */
    }
}

typedef struct check_job {
    const float *x;
    float limit;
    size_t first[256]; /* (threads): the first value beyond the limit that the thread met, SIZE_MAX if none */
} check_job;

static void check_values(void *context, size_t begin, size_t end, int thread) {
    check_job *job = context;
    const size_t at = begin + pm_encoder_best()->first_beyond(job->x + begin, end - begin, job->limit);
    if (at < end && at < job->first[thread]) job->first[thread] = at;
}

static pymtp_status check_source(pm_pool *pool, const float *x, const shape *s, pymtp_error *err) {
    check_job job = {.x = x, .limit = pm_encode_limit(s->format->id)};
    size_t first = SIZE_MAX;
    for (int i = 0; i < 256; i++) job.first[i] = SIZE_MAX;
    pm_pool_run(pool, s->values, GRAIN, check_values, &job);
    for (int i = 0; i < 256; i++) first = job.first[i] < first ? job.first[i] : first;
    if (first == SIZE_MAX) return PYMTP_OK;
    return pm_fail(err, PYMTP_E_ARG, "row %zu, column %zu: expected a number of magnitude %g at most for %s, found %g", first / s->columns,
                   first % s->columns, (double)job.limit, s->format->name, (double)x[first]);
}

/* Importance as encoders take it: the largest is 1, none is less than LEAST_WEIGHT; NULL where there is none or all are zero. */
static pymtp_status weights_of(const float *importance, const shape *s, float **out, pymtp_error *err) {
    float largest = 0;
    *out = NULL;
    if (!importance) return PYMTP_OK;
    for (size_t i = 0; i < s->columns; i++) {
        if (!(importance[i] >= 0 && importance[i] <= FLT_MAX))
            return pm_fail(err, PYMTP_E_ARG, "importance of column %zu: expected a finite number, 0 or more, found %g", i, (double)importance[i]);
        largest = importance[i] > largest ? importance[i] : largest;
    }
    if (!(largest > 0)) return PYMTP_OK;
    float *w = *out = pm_new(s->columns, sizeof *w, "importance", err);
    if (!w) return PYMTP_E_NOMEM;
    for (size_t i = 0; i < s->columns; i++) {
        const float part = importance[i] / largest;
        w[i] = part > LEAST_WEIGHT ? part : LEAST_WEIGHT;
    }
    return PYMTP_OK;
}

/* ---- encoding ---- */

const pm_encoder *pm_encoder_best(void) {
    const pm_encoder *all[] = {pm_encoder_avx512(), pm_encoder_avx2()};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] && all[i]->supported()) return all[i];
    return pm_encoder_base();
}

typedef struct encode_job {
    const pm_encoder *encoder;
    const shape *shape;
    const float *x, *weight;
    uint8_t *dst;
} encode_job;

static void encode_blocks(void *context, size_t begin, size_t end, int thread) {
    const encode_job *job = context;
    const pm_format *f = job->shape->format;
    const pm_encode_run run = {
        .x = job->x + begin * f->block_values,
        .weight = job->weight,
        .first = begin % job->shape->row_blocks,
        .row_blocks = job->shape->row_blocks,
        .n = end - begin,
        .dst = job->dst + begin * f->block_bytes,
    };
    job->encoder->encode[f->id](&run);
}

pymtp_status pymtp_encode(int32_t type, const float *src, int64_t rows, int64_t columns, const float *importance, void *dst,
                          size_t dst_bytes, int32_t threads, pymtp_error *err) {
    pm_clear(err);
    shape s = {0};
    pm_pool *pool = NULL;
    float *weight = NULL;
    PM_TRY(shape_of(type, rows, columns, dst_bytes, &s, err));
    if (!s.values) return PYMTP_OK;
    if (!src || !dst) return pm_fail(err, PYMTP_E_ARG, "src and dst: expected arrays, found NULL");
    PM_TRY(pool_for(&s, threads, &pool, err));
    pymtp_status status = check_source(pool, src, &s, err);
    if (status == PYMTP_OK) status = weights_of(importance, &s, &weight, err);
    if (status == PYMTP_OK) {
        encode_job job = {pm_encoder_best(), &s, src, weight, dst};
        pm_pool_run(pool, s.blocks, GRAIN / s.format->block_values, encode_blocks, &job);
    }
    pm_free(weight);
    pm_pool_free(pool);
    return status;
}

/* ---- decoding ---- */

typedef struct decode_job {
    const pm_format *format;
    const uint8_t *src;
    float *dst;
} decode_job;

static void decode_blocks(void *context, size_t begin, size_t end, int thread) {
    const decode_job *job = context;
    const pm_format *f = job->format;
    f->dequantize(job->src + begin * f->block_bytes, job->dst + begin * f->block_values, (end - begin) * f->block_values);
}

pymtp_status pymtp_decode(int32_t type, const void *src, size_t src_bytes, int64_t rows, int64_t columns, float *dst, int32_t threads,
                          pymtp_error *err) {
    pm_clear(err);
    shape s = {0};
    pm_pool *pool = NULL;
    PM_TRY(shape_of(type, rows, columns, src_bytes, &s, err));
    if (!s.values) return PYMTP_OK;
    if (!src || !dst) return pm_fail(err, PYMTP_E_ARG, "src and dst: expected arrays, found NULL");
    PM_TRY(pool_for(&s, threads, &pool, err));
    decode_job job = {s.format, src, dst};
    pm_pool_run(pool, s.blocks, GRAIN / s.format->block_values, decode_blocks, &job);
    pm_pool_free(pool);
    return PYMTP_OK;
}
