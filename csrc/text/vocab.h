/* vocab.h - the tokenizer's tables, private to csrc/text. Built once by vocab.c and read-only from then on, but for the
 * operation counter, so every function here may run in any number of threads. */
#ifndef PM_TEXT_VOCAB_H
#define PM_TEXT_VOCAB_H

#include "base/mix.h"
#include "text/tokenizer.h"

#include <stdatomic.h>

#define PM_SPACE "\xe2\x96\x81" /* U+2581, what the vocabulary has for a space */
#define PM_SPACE_BYTES 3
#define PM_NO_RANK UINT32_MAX

typedef struct pm_piece_slot { uint32_t hash; int32_t id; } pm_piece_slot; /* id -1: free */

/* left followed by right becomes result; the lowest rank goes first. result -1: free slot */
typedef struct pm_merge { int32_t left, right, result; uint32_t rank; } pm_merge;

struct pymtp_tokenizer {
    int32_t n;
    int32_t bos, unknown, space;  /* ids; unknown and space (of U+2581) -1 when there is none */
    char *arena;                  /* all pieces, a NUL behind each */
    size_t *at;                   /* (n + 1): piece i is the bytes [at[i], at[i + 1] - 1) of the arena */
    size_t longest;               /* bytes of the longest piece */
    uint8_t *type;                /* (n) PYMTP_TOKEN_*, after the corrections of vocab.c */
    uint8_t *eog;                 /* (n) ends a generation */
    uint64_t hash;                /* of the pieces in their order; equal vocabularies have equal ones */
    uint64_t key;                 /* of the tables' hashes: that of the process */
    pm_piece_slot *pieces;        /* (piece_mask + 1) open addressing; empty pieces are not in it */
    size_t piece_mask;
    pm_merge *merges;             /* (merge_mask + 1) open addressing by (left, right) */
    size_t merge_mask;
    int32_t byte_id[256];         /* token of a raw byte: <0xHH>, else unknown (vocab.c makes sure there is one) */
    int32_t *special;             /* (n_special) control and user-defined tokens, pieces in byte order */
    size_t n_special;
    size_t special_at[257];       /* those that start with byte b: [special_at[b], special_at[b + 1]) */
    int32_t *suppressed;          /* (n_suppressed) */
    size_t n_suppressed;
    _Atomic uint64_t merge_ops;
    _Atomic uint64_t *ops;        /* &merge_ops: counting is allowed through a const tokenizer */
};

static inline const char *pm_piece(const pymtp_tokenizer *t, int32_t id, size_t *bytes) {
    *bytes = t->at[id + 1] - t->at[id] - 1;
    return t->arena + t->at[id];
}

/* The id of the piece a followed by b, or -1. */
int32_t pm_vocab_find(const pymtp_tokenizer *t, const char *a, size_t a_bytes, const char *b, size_t b_bytes);

static inline size_t pm_merge_slot(const pymtp_tokenizer *t, int32_t left, int32_t right) {
    return (size_t)pm_hash_word(t->key, (uint64_t)(uint32_t)left << 32 | (uint32_t)right) & t->merge_mask;
}

/* The merge of two neighbours, or NULL. Inline: encoding looks up every adjacent pair. */
static inline const pm_merge *pm_merge_find(const pymtp_tokenizer *t, int32_t left, int32_t right) {
    for (size_t i = pm_merge_slot(t, left, right);; i = (i + 1) & t->merge_mask) {
        const pm_merge *m = &t->merges[i];
        if (m->result < 0) return NULL;
        if (m->left == left && m->right == right) return m;
    }
}

/* May text reach this token without special parsing? Merges and characters never give control or byte tokens, so
 * that untrusted text cannot spell them. */
static inline int pm_plain(const pymtp_tokenizer *t, int32_t id) {
    return t->type[id] != PYMTP_TOKEN_CONTROL && t->type[id] != PYMTP_TOKEN_BYTE && t->type[id] != PYMTP_TOKEN_UNKNOWN;
}

/* The byte that a piece of the form <0xHH> (upper case) stands for, or -1. */
int pm_piece_byte(const char *piece, size_t bytes);

#endif
