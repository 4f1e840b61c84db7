/* layout.h - how weights and activations lie in memory for the tiles: constants and addresses, no code that computes.
 *
 * WEIGHTS. `group` output rows are packed together, so that one vector holds the same four columns of many rows and meets one
 * broadcast piece of the activations. A group is a sequence of records, one for each quantised block of the format (32 or
 * 256 columns):
 *
 *   pieces:   block of 32 columns after block, its pieces of 4 bytes: piece v of row 0, of row 1, ... of row group - 1
 *   d, m:     the halves d, then m or dmin, of all rows
 *   bytes:    8-bit scales (K formats: unpacked from 6 bits), then mins: byte i of all rows, i = 0, 1, ...
 *
 * padded to 2 bytes a row, which only MXFP4 needs; records of 256 columns begin with their scales. So memory is read once and from
 * low to high addresses, which is what processors fetch ahead. With "part j" for the columns 4 j .. 4 j + 3 of a block of 32, a
 * byte each, its pieces are
 *
 *   fifth     Q5_*, and as third bits Q3_K: bit j of byte i is that of column i of part j                            1 piece
 *   tops      Q6_K: bits 2 j, 2 j + 1 of byte i are the upper bits of column i of part j, of part 4 + j              2 pieces
 *   pairs     Q2_K, Q3_K: the same with the lower two bits                                                           2 pieces
 *   nibbles   of 4 bits and more: low nibble of byte i: column i of part j, high nibble: of part 4 + j               4 pieces
 *   bytes     Q8_0                                                                                                   8 pieces
 *
 * in this order. The memory taken is the file's plus at most a few per cent. Float formats: column after column, `group` values
 * each, padded to 32 columns. Rows beyond the matrix's last are zero.
 *
 * ACTIVATIONS. Rows of one call (a batch of n) are cut into tiles of at most `tile` rows, of sizes that differ by one at most.
 * Within a tile, blocks of 32 columns of its rows lie side by side: block 0 of row 0, 1, ..., block 1 of row 0, 1, ... A tile is
 * one stream at constant offsets. Where a row lies never changes what is computed for it. */
#ifndef PM_CPU_LAYOUT_H
#define PM_CPU_LAYOUT_H

#include "quant/formats.h"

/* For what must see its arguments as constants. */
#define ALWAYS static inline __attribute__((always_inline))

/* 32 activations as the quantised formats meet them: q = round to nearest even(x * (127 / max|x|)), d = max|x| / 127 (0 for a
 * block of zeros; NaN when some x is not finite), and what the tiles would otherwise compute again and again from the sums
 * of q over the block (s), its first half (s0) and its second (s1). */
typedef struct pm_act_block {
    int8_t q[32];
    float d;
    float ds, ds_half[2];   /* d * s, d * s0, d * s1, rounded once */
    int32_t seed;           /* -8 s: what unsigned weights with a zero point of 8 add too much */
    int32_t seed_half[2];   /* -4 s0, -4 s1 */
    int32_t unused;
} pm_act_block;

_Static_assert(sizeof(pm_act_block) == 64, "a cache line each");

/* Activations of a batch of n rows, padded with zeros to whole blocks of 32 columns. */
typedef struct pm_act {
    size_t cols, blocks;  /* values and blocks of 32 per row */
    size_t n, tile;       /* rows of a batch, most rows of a tile */
    pm_act_block *q8;     /* (rows, blocks), for quantised partners */
    float *x;             /* (rows, blocks, 32), for float partners */
} pm_act;

/* Tile i of a batch: its first row and its number of rows. */
typedef struct pm_tile { size_t first, rows; } pm_tile;

static inline size_t pm_tiles(size_t n, size_t tile) { return (n + tile - 1) / tile; }

static inline pm_tile pm_tile_at(size_t n, size_t tile, size_t i) {
    const size_t tiles = pm_tiles(n, tile), small = n / tiles, large = n % tiles; /* the first `large` have one row more */
    return i < large ? (pm_tile){i * (small + 1), small + 1} : (pm_tile){i * small + large, small};
}

/* Index of block 0 of row r among the blocks of its batch; its other blocks follow in steps of *step. */
static inline size_t pm_act_index(const pm_act *a, size_t r, size_t *step) {
    const size_t tiles = pm_tiles(a->n, a->tile), small = a->n / tiles, large = a->n % tiles, edge = large * (small + 1);
    const size_t i = r < edge ? r / (small + 1) : large + (r - edge) / small;
    const pm_tile t = pm_tile_at(a->n, a->tile, i);
    *step = t.rows;
    return t.first * a->blocks + (r - t.first);
}

/* Per record of a quantised format. */
typedef struct pm_layout {
    uint8_t blocks;   /* of 32 columns */
    uint8_t pieces;   /* per block of 32 columns */
    uint8_t halves;   /* d, m */
    uint8_t bytes;    /* scales and mins */
    uint8_t subs;     /* scales per block of 32: 1 or 2 */
    uint8_t zero;     /* what unpacked weights are too large by; 0: nothing; PM_WIDE: eight signed bits */
    uint8_t mins;     /* 1: d s q - m */
} pm_layout;

#define PM_WIDE 128
#define PM_MAX_GROUP 32

static const pm_layout pm_layouts[PM_FORMAT_COUNT] = {
    [PM_Q4_0] = {1, 4, 1, 0, 1, 8, 0},         [PM_Q4_1] = {1, 4, 2, 0, 1, 0, 1},
    [PM_Q5_0] = {1, 5, 1, 0, 1, 16, 0},        [PM_Q5_1] = {1, 5, 2, 0, 1, 0, 1},
    [PM_Q8_0] = {1, 8, 1, 0, 1, PM_WIDE, 0},   [PM_IQ4_NL] = {1, 4, 1, 0, 1, PM_WIDE, 0},
    [PM_MXFP4] = {1, 4, 0, 1, 1, 16, 0},       [PM_Q2_K] = {8, 2, 2, 16, 2, 0, 1},
    [PM_Q3_K] = {8, 3, 1, 16, 2, 4, 0},       [PM_Q4_K] = {8, 4, 2, 16, 1, 0, 1},
    [PM_Q5_K] = {8, 5, 2, 16, 1, 0, 1},       [PM_Q6_K] = {8, 6, 1, 16, 2, 32, 0},
    [PM_IQ4_XS] = {8, 4, 1, 8, 1, PM_WIDE, 0},
};

/* Offsets in a record, for groups of `group` rows. */
static inline size_t pm_record_pieces(const pm_layout *l, size_t group) {
    return l->blocks == 1 ? 0 : (2 * (size_t)l->halves + l->bytes) * group;
}
static inline size_t pm_record_d(const pm_layout *l, size_t group) { return l->blocks == 1 ? (size_t)l->pieces * 4 * group : 0; }
static inline size_t pm_record_scales(const pm_layout *l, size_t group) { return pm_record_d(l, group) + (size_t)l->halves * 2 * group; }
static inline size_t pm_record_bytes(const pm_layout *l, size_t group) {
    const size_t end = l->blocks == 1 ? pm_record_scales(l, group) + l->bytes * group
                                      : pm_record_pieces(l, group) + (size_t)l->pieces * l->blocks * 4 * group;
    return (end + 2 * group - 1) / (2 * group) * (2 * group);
}

/* Bytes of a packed group of rows of `cols` values. */
static inline size_t pm_group_bytes(const pm_format *f, size_t cols, size_t group) {
    if (f->act == PM_ACT_F32) return (cols + 31) / 32 * 32 * group * f->block_bytes;
    return cols / f->block_values * pm_record_bytes(&pm_layouts[f->id], group);
}

#endif
