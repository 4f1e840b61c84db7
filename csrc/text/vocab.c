/* vocab.c - builds the tokenizer's tables from tokenizer.ggml.* metadata and answers questions about tokens.
 *
 * What always holds afterwards: pieces are unique (but for empty ones, which nothing looks up), every id in a table is
 * inside the vocabulary, every byte has a token or falls back to the unknown one, and each merge's result is its two
 * parts joined. Publishers disagree on the stored type of the Gemma 4 markers, so those go by their piece.
 * Leniently taken: no token_type (all normal, but for the markers and bytes), no special ids (found by piece), a repeated
 * merge (the first counts). Refused by key: wrong types, lengths that differ, ids outside the vocabulary, repeated
 * pieces, merges of or into something that is no token. */
#include "text/vocab.h"

#include "base/checked.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#define KEY "tokenizer.ggml."
#define MAX_SPECIAL_BYTES 256 /* keeps the search for special tokens linear; the longest in use has 17 */

/* ---- pieces ---- */

static const char *const control_pieces[] = {"<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|think|>",
                                             "<|turn>", "<turn|>", "<|image>", "<|image|>", "<image|>", "<|audio>", "<|audio|>",
                                             "<audio|>", "<|video|>"};
static const char *const marker_pieces[] = {"<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|\"|>",
                                            "<|channel>", "<channel|>"};
static const char *const eog_pieces[] = {"<eos>", "<turn|>", "<|tool_response>"};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int listed(const char *const *list, size_t n, const char *piece, size_t bytes) {
    for (size_t i = 0; i < n; i++)
        if (strlen(list[i]) == bytes && !memcmp(list[i], piece, bytes)) return 1;
    return 0;
}

int pm_piece_byte(const char *piece, size_t bytes) {
    int value = 0;
    if (bytes != 6 || memcmp(piece, "<0x", 3) || piece[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        const char c = piece[i];
        if (c >= '0' && c <= '9') value = value * 16 + (c - '0');
        else if (c >= 'A' && c <= 'F') value = value * 16 + (c - 'A' + 10);
        else return -1;
    }
    return value;
}

/* Where a piece goes in the table: 8 bytes at a time, from the key of the process on. A string joined from parts needs no copy. */
typedef struct hash_state { uint64_t h, word; size_t bytes; } hash_state;

static hash_state hash_more(hash_state s, uint64_t key, const char *text, size_t n) {
    size_t i = 0;
    for (; s.bytes % 8 == 0 && n - i >= 8; i += 8, s.bytes += 8) {
        uint64_t word;
        memcpy(&word, text + i, 8);
        s.h = pm_hash_word(key, s.h ^ word);
    }
    for (; i < n; i++) {
        s.word |= (uint64_t)(uint8_t)text[i] << s.bytes % 8 * 8;
        if (++s.bytes % 8) continue;
        s.h = pm_hash_word(key, s.h ^ s.word);
        s.word = 0;
    }
    return s;
}

static uint64_t hash_end(hash_state s, uint64_t key) { return pm_hash_word(key, pm_hash_word(key, s.h ^ s.word) + s.bytes); }

static uint64_t hash_text(uint64_t key, const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
    return hash_end(hash_more(hash_more((hash_state){0}, key, a, a_bytes), key, b, b_bytes), key);
}

/* What tells vocabularies apart, the same in every process: FNV-1a of each piece, mixed. */
#define FINGERPRINT_START 0xcbf29ce484222325u
static uint64_t fingerprint_end(uint64_t h) {
    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static uint64_t fingerprint_of(const char *s, size_t n) {
    uint64_t h = FINGERPRINT_START;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 0x100000001b3u;
    return fingerprint_end(h);
}

/* The slot of a followed by b: the one it is in, or the free one where it belongs. */
static pm_piece_slot *piece_slot(const pymtp_tokenizer *t, uint64_t hash, const char *a, size_t a_bytes, const char *b,
                                 size_t b_bytes) {
    for (size_t i = (size_t)hash & t->piece_mask;; i = (i + 1) & t->piece_mask) {
        pm_piece_slot *s = &t->pieces[i];
        if (s->id < 0) return s;
        if (s->hash != (uint32_t)(hash >> 32)) continue;
        size_t bytes;
        const char *piece = pm_piece(t, s->id, &bytes);
        if (bytes - a_bytes == b_bytes && bytes >= a_bytes && !memcmp(piece, a, a_bytes) &&
            !memcmp(piece + a_bytes, b, b_bytes))
            return s;
    }
}

int32_t pm_vocab_find(const pymtp_tokenizer *t, const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
    return piece_slot(t, hash_text(t->key, a, a_bytes, b, b_bytes), a, a_bytes, b, b_bytes)->id;
}

static int32_t find_text(const pymtp_tokenizer *t, const char *s) { return pm_vocab_find(t, s, strlen(s), "", 0); }

/* ---- reading metadata ---- */

static pymtp_status get_array(const pm_gguf *file, const char *key, const pm_gguf_value **out, pymtp_error *err) {
    const pm_gguf_value *v = pm_gguf_find(file, key);
    *out = v;
    if (!v) return pm_fail(err, PYMTP_E_FORMAT, "%s: missing", key);
    if (!pm_gguf_value_is_array(v)) return pm_fail(err, PYMTP_E_FORMAT, "%s: expected an array, found a single value", key);
    return PYMTP_OK;
}

static pymtp_status check_model(const pm_gguf *file, pymtp_error *err) {
    pm_string s;
    const pm_gguf_value *v = pm_gguf_find(file, KEY "model");
    if (!v) return pm_fail(err, PYMTP_E_FORMAT, KEY "model: missing");
    if (pm_gguf_value_is_array(v) || !pm_gguf_str(v, 0, &s)) return pm_fail(err, PYMTP_E_FORMAT, KEY "model: expected a string");
    if (!strcmp(s.data, "gemma4")) return PYMTP_OK;
    if (strcmp(s.data, "llama"))
        return pm_fail(err, PYMTP_E_UNSUPPORTED, KEY "model: expected \"gemma4\", found \"%.64s\"", s.data);
    v = pm_gguf_find(file, KEY "pre"); /* one converter writes model "llama", pre "gemma4" */
    if (!v || pm_gguf_value_is_array(v) || !pm_gguf_str(v, 0, &s)) s.data = "";
    if (strcmp(s.data, "gemma4"))
        return pm_fail(err, PYMTP_E_UNSUPPORTED, KEY "pre: expected \"gemma4\" with " KEY "model \"llama\", found \"%.64s\"", s.data);
    return PYMTP_OK;
}

/* Element i of v as a token id. */
static pymtp_status get_id(const pymtp_tokenizer *t, const pm_gguf_value *v, uint64_t i, const char *key, int32_t *out,
                           pymtp_error *err) {
    int64_t id;
    if (!pm_gguf_int(v, i, &id)) return pm_fail(err, PYMTP_E_FORMAT, "%s: expected an integer", key);
    if (id < 0 || id >= t->n)
        return pm_fail(err, PYMTP_E_FORMAT, "%s: expected an id in 0..%d, found %lld", key, t->n - 1, (long long)id);
    *out = (int32_t)id;
    return PYMTP_OK;
}

/* The id under key, or of the token `piece` when the key is absent; -1 when there is neither. */
static pymtp_status get_special_id(const pymtp_tokenizer *t, const pm_gguf *file, const char *key, const char *piece, int32_t *out,
                                   pymtp_error *err) {
    const pm_gguf_value *v = pm_gguf_find(file, key);
    *out = find_text(t, piece);
    if (!v) return PYMTP_OK;
    if (pm_gguf_value_is_array(v)) return pm_fail(err, PYMTP_E_FORMAT, "%s: expected an integer, found an array", key);
    return get_id(t, v, 0, key, out, err);
}

/* ---- tables ---- */

/* At least twice as many slots as entries (fewer than 2^32 - 1), a power of two. */
static size_t table_size(uint64_t entries) {
    size_t n = 16;
    while (n / 2 < entries) n *= 2;
    return n;
}

static pymtp_status copy_pieces(pymtp_tokenizer *t, const pm_gguf *file, pymtp_error *err) {
    const pm_gguf_value *v;
    PM_TRY(get_array(file, KEY "tokens", &v, err));
    const uint64_t n = pm_gguf_value_count(v);
    if (n < 1 || n >= INT32_MAX)
        return pm_fail(err, PYMTP_E_FORMAT, KEY "tokens: expected 1..%d tokens, found %llu", INT32_MAX - 1, (unsigned long long)n);
    t->n = (int32_t)n;
    if (!(t->at = pm_new(n + 1, sizeof *t->at, "vocabulary", err))) return PYMTP_E_NOMEM;
    size_t total = 0;
    pm_string s;
    for (uint64_t i = 0; i < n; i++) {
        if (!pm_gguf_str(v, i, &s)) return pm_fail(err, PYMTP_E_FORMAT, KEY "tokens: expected an array of strings");
        t->at[i] = total;
        if (s.bytes >= SIZE_MAX - 1 || pm_add_size(total, s.bytes + 1, &total))
            return pm_fail(err, PYMTP_E_NOMEM, "out of memory: vocabulary");
        if (s.bytes > t->longest) t->longest = s.bytes;
    }
    t->at[n] = total;
    if (!(t->arena = pm_new(total, 1, "vocabulary", err))) return PYMTP_E_NOMEM;
    for (uint64_t i = 0; i < n; i++)
        if (pm_gguf_str(v, i, &s)) memcpy(t->arena + t->at[i], s.data, s.bytes);
    return PYMTP_OK;
}

static pymtp_status index_pieces(pymtp_tokenizer *t, pymtp_error *err) {
    const size_t slots = table_size((uint64_t)t->n);
    if (!(t->pieces = pm_new(slots, sizeof *t->pieces, "token table", err))) return PYMTP_E_NOMEM;
    for (size_t i = 0; i < slots; i++) t->pieces[i].id = -1;
    t->piece_mask = slots - 1;
    t->key = pm_hash_key();
    t->hash = FINGERPRINT_START;
    for (int32_t id = 0; id < t->n; id++) {
        size_t bytes;
        const char *piece = pm_piece(t, id, &bytes);
        t->hash = fingerprint_end(t->hash * 0x100000001b3u ^ fingerprint_of(piece, bytes));
        if (!bytes) continue;
        const uint64_t hash = hash_text(t->key, piece, bytes, "", 0);
        pm_piece_slot *s = piece_slot(t, hash, piece, bytes, "", 0);
        if (s->id >= 0) return pm_fail(err, PYMTP_E_FORMAT, KEY "tokens: tokens %d and %d are the same", s->id, id);
        *s = (pm_piece_slot){(uint32_t)(hash >> 32), id};
    }
    return PYMTP_OK;
}

static pymtp_status set_types(pymtp_tokenizer *t, const pm_gguf *file, pymtp_error *err) {
    const pm_gguf_value *v = NULL;
    if (pm_gguf_find(file, KEY "token_type")) {
        PM_TRY(get_array(file, KEY "token_type", &v, err));
        if (pm_gguf_value_count(v) != (uint64_t)t->n)
            return pm_fail(err, PYMTP_E_FORMAT, KEY "token_type: expected %d elements, one per token, found %llu", t->n,
                           (unsigned long long)pm_gguf_value_count(v));
    }
    if (!(t->type = pm_new((size_t)t->n, 1, "token types", err))) return PYMTP_E_NOMEM;
    for (int i = 0; i < 256; i++) t->byte_id[i] = -1;
    for (int32_t id = 0; id < t->n; id++) {
        int64_t type = PYMTP_TOKEN_NORMAL;
        size_t bytes;
        const char *piece = pm_piece(t, id, &bytes);
        if (v && !pm_gguf_int(v, (uint64_t)id, &type)) return pm_fail(err, PYMTP_E_FORMAT, KEY "token_type: expected an array of integers");
        if (type < 0 || type > PYMTP_TOKEN_BYTE)
            return pm_fail(err, PYMTP_E_FORMAT, KEY "token_type: expected 1..6 for token %d, found %lld", id, (long long)type);
        const int byte = pm_piece_byte(piece, bytes);
        if (byte >= 0) {
            t->byte_id[byte] = id;
            type = PYMTP_TOKEN_BYTE;
        } else if (type == PYMTP_TOKEN_BYTE)
            return pm_fail(err, PYMTP_E_FORMAT, KEY "token_type: token %d is a byte, but its piece is not <0xHH>", id);
        else if (listed(control_pieces, COUNT(control_pieces), piece, bytes)) type = PYMTP_TOKEN_CONTROL;
        else if (listed(marker_pieces, COUNT(marker_pieces), piece, bytes)) type = PYMTP_TOKEN_USER_DEFINED;
        t->type[id] = type ? (uint8_t)type : PYMTP_TOKEN_NORMAL;
    }
    return PYMTP_OK;
}

static pymtp_status set_ids(pymtp_tokenizer *t, const pm_gguf *file, pymtp_error *err) {
    int32_t id;
    PM_TRY(get_special_id(t, file, KEY "bos_token_id", "<bos>", &t->bos, err));
    if (t->bos < 0) return pm_fail(err, PYMTP_E_FORMAT, KEY "bos_token_id: missing");
    PM_TRY(get_special_id(t, file, KEY "unknown_token_id", "<unk>", &t->unknown, err));
    t->space = find_text(t, PM_SPACE);
    for (int i = 0; i < 256; i++) {
        if (t->byte_id[i] >= 0) continue;
        if (t->unknown < 0)
            return pm_fail(err, PYMTP_E_FORMAT, KEY "unknown_token_id: missing, and there is no token <0x%02X>", (unsigned)i);
        t->byte_id[i] = t->unknown;
    }
    if (!(t->eog = pm_new((size_t)t->n, 1, "end tokens", err))) return PYMTP_E_NOMEM;
    for (size_t i = 0; i < COUNT(eog_pieces); i++)
        if ((id = find_text(t, eog_pieces[i])) >= 0) t->eog[id] = 1;
    static const char *const end_keys[] = {KEY "eos_token_id", KEY "eos_token_ids"}; /* each a scalar, or several */
    const pm_gguf_value *v;
    for (size_t k = 0; k < COUNT(end_keys); k++) {
        v = pm_gguf_find(file, end_keys[k]);
        for (uint64_t i = 0; v && i < pm_gguf_value_count(v); i++) {
            PM_TRY(get_id(t, v, i, end_keys[k], &id, err));
            t->eog[id] = 1;
        }
    }
    if (!pm_gguf_find(file, KEY "suppress_tokens")) return PYMTP_OK;
    PM_TRY(get_array(file, KEY "suppress_tokens", &v, err));
    const uint64_t n = pm_gguf_value_count(v);
    if (!(t->suppressed = pm_new(n, sizeof *t->suppressed, "suppressed tokens", err))) return PYMTP_E_NOMEM;
    for (; t->n_suppressed < n; t->n_suppressed++)
        PM_TRY(get_id(t, v, t->n_suppressed, KEY "suppress_tokens", &t->suppressed[t->n_suppressed], err));
    return PYMTP_OK;
}

/* Merges that would let plain text spell a control token, a byte or a marker are left out. */
static int merge_allowed(const pymtp_tokenizer *t, const pm_merge *m) {
    size_t bytes;
    const char *piece = pm_piece(t, m->result, &bytes);
    if (!pm_plain(t, m->left) || !pm_plain(t, m->right) || !pm_plain(t, m->result)) return 0;
    return t->type[m->result] != PYMTP_TOKEN_USER_DEFINED || !listed(marker_pieces, COUNT(marker_pieces), piece, bytes);
}

static void add_merge(pymtp_tokenizer *t, const pm_merge *m) {
    size_t i = pm_merge_slot(t, m->left, m->right);
    for (; t->merges[i].result >= 0; i = (i + 1) & t->merge_mask)
        if (t->merges[i].left == m->left && t->merges[i].right == m->right) return;
    t->merges[i] = *m;
}

/* A merge as read, with the hashes of its parts and result: the lookups of a batch are started before the first is
 * needed, for each is a walk through tables larger than the caches. (Building the real vocabulary took 0.21 s one merge
 * at a time, 0.09 s in batches, on one core of a cloud server with 2 MB of L2.) */
typedef struct parsed_merge {
    const char *left, *right;
    size_t left_bytes, right_bytes;
    uint64_t hash[3]; /* left, right, both */
} parsed_merge;
#define MERGE_BATCH 64

static pymtp_status parse_merge(const pymtp_tokenizer *t, const pm_gguf_value *v, uint64_t i, parsed_merge *m, pymtp_error *err) {
    pm_string s;
    if (!pm_gguf_str(v, i, &s)) return pm_fail(err, PYMTP_E_FORMAT, KEY "merges: expected an array of strings");
    const char *gap = s.bytes ? memchr(s.data, ' ', s.bytes) : NULL;
    if (!gap || gap == s.data || gap == s.data + s.bytes - 1)
        return pm_fail(err, PYMTP_E_FORMAT, KEY "merges: merge %llu: expected two parts with a space between", (unsigned long long)i);
    m->left = s.data;
    m->left_bytes = (size_t)(gap - s.data);
    m->right = gap + 1;
    m->right_bytes = s.bytes - m->left_bytes - 1;
    const hash_state left = hash_more((hash_state){0}, t->key, m->left, m->left_bytes);
    m->hash[0] = hash_end(left, t->key);
    m->hash[1] = hash_text(t->key, m->right, m->right_bytes, "", 0);
    m->hash[2] = hash_end(hash_more(left, t->key, m->right, m->right_bytes), t->key);
    for (int k = 0; k < 3; k++) __builtin_prefetch(&t->pieces[(size_t)m->hash[k] & t->piece_mask]);
    return PYMTP_OK;
}

static void fetch_pieces(const pymtp_tokenizer *t, const parsed_merge *m, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 3; k++) {
            const int32_t id = t->pieces[(size_t)m[i].hash[k] & t->piece_mask].id;
            if (id >= 0) __builtin_prefetch(&t->at[id]);
        }
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 3; k++) {
            const int32_t id = t->pieces[(size_t)m[i].hash[k] & t->piece_mask].id;
            if (id >= 0) __builtin_prefetch(t->arena + t->at[id]);
        }
}

static pymtp_status resolve_merge(const pymtp_tokenizer *t, const parsed_merge *p, uint32_t rank, pm_merge *out, pymtp_error *err) {
    const pm_merge m = {piece_slot(t, p->hash[0], p->left, p->left_bytes, "", 0)->id,
                        piece_slot(t, p->hash[1], p->right, p->right_bytes, "", 0)->id,
                        piece_slot(t, p->hash[2], p->left, p->left_bytes, p->right, p->right_bytes)->id, rank};
    if (m.left < 0 || m.right < 0 || m.result < 0)
        return pm_fail(err, PYMTP_E_FORMAT, KEY "merges: merge %u: %s is not a token", rank,
                       m.left < 0 ? "its first part" : m.right < 0 ? "its second part" : "its result");
    *out = m;
    __builtin_prefetch(&t->merges[pm_merge_slot(t, m.left, m.right)], 1);
    return PYMTP_OK;
}

static pymtp_status set_merges(pymtp_tokenizer *t, const pm_gguf *file, pymtp_error *err) {
    const pm_gguf_value *v;
    PM_TRY(get_array(file, KEY "merges", &v, err));
    const uint64_t n = pm_gguf_value_count(v);
    if (n >= PM_NO_RANK)
        return pm_fail(err, PYMTP_E_FORMAT, KEY "merges: expected fewer than 2^32 - 1, found %llu", (unsigned long long)n);
    const size_t slots = table_size(n);
    if (!(t->merges = pm_new(slots, sizeof *t->merges, "merges", err))) return PYMTP_E_NOMEM;
    for (size_t i = 0; i < slots; i++) t->merges[i].result = -1;
    t->merge_mask = slots - 1;
    parsed_merge batch[MERGE_BATCH];
    pm_merge found[MERGE_BATCH];
    for (uint64_t first = 0; first < n; first += MERGE_BATCH) {
        const size_t count = n - first < MERGE_BATCH ? (size_t)(n - first) : MERGE_BATCH;
        for (size_t i = 0; i < count; i++) PM_TRY(parse_merge(t, v, first + i, &batch[i], err));
        fetch_pieces(t, batch, count);
        for (size_t i = 0; i < count; i++) PM_TRY(resolve_merge(t, &batch[i], (uint32_t)(first + i), &found[i], err));
        for (size_t i = 0; i < count; i++)
            if (merge_allowed(t, &found[i])) add_merge(t, &found[i]);
    }
    return PYMTP_OK;
}

typedef struct special { const char *piece; size_t bytes; int32_t id; } special;

static int compare_special(const void *a, const void *b) {
    const special *x = a, *y = b;
    const int order = memcmp(x->piece, y->piece, x->bytes < y->bytes ? x->bytes : y->bytes);
    return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static pymtp_status set_specials(pymtp_tokenizer *t, pymtp_error *err) {
    size_t n = 0;
    for (int32_t id = 0; id < t->n; id++) {
        if (t->type[id] != PYMTP_TOKEN_CONTROL && t->type[id] != PYMTP_TOKEN_USER_DEFINED) continue;
        const size_t bytes = t->at[id + 1] - t->at[id] - 1;
        if (bytes > MAX_SPECIAL_BYTES)
            return pm_fail(err, PYMTP_E_FORMAT, KEY "tokens: special token %d: expected at most %d bytes, found %zu", id,
                           MAX_SPECIAL_BYTES, bytes);
        n += bytes > 0;
    }
    special *list = pm_new(n, sizeof *list, "special tokens", err);
    t->special = pm_new(n, sizeof *t->special, "special tokens", err);
    if (!list || !t->special) {
        pm_free(list);
        return PYMTP_E_NOMEM;
    }
    for (int32_t id = 0; id < t->n; id++) {
        if (t->type[id] != PYMTP_TOKEN_CONTROL && t->type[id] != PYMTP_TOKEN_USER_DEFINED) continue;
        special *s = &list[t->n_special];
        s->piece = pm_piece(t, id, &s->bytes);
        s->id = id;
        t->n_special += s->bytes > 0;
        if (t->n_special == n) break; /* an empty one must not be written behind the list */
    }
    qsort(list, n, sizeof *list, compare_special);
    size_t i = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        t->special_at[byte] = i;
        for (; i < n && (uint8_t)list[i].piece[0] == byte; i++) t->special[i] = list[i].id;
    }
    t->special_at[256] = n;
    pm_free(list);
    return PYMTP_OK;
}

static pymtp_status build(pymtp_tokenizer *t, const pm_gguf *file, pymtp_error *err) {
    PM_TRY(check_model(file, err));
    PM_TRY(copy_pieces(t, file, err));
    PM_TRY(index_pieces(t, err));
    PM_TRY(set_types(t, file, err));
    PM_TRY(set_ids(t, file, err));
    PM_TRY(set_merges(t, file, err));
    return set_specials(t, err);
}

/* ---- handles ---- */

pymtp_status pm_tokenizer_new(const pm_gguf *file, pymtp_tokenizer **out, pymtp_error *err) {
    *out = NULL;
    pymtp_tokenizer *t = pm_new(1, sizeof *t, "tokenizer", err);
    if (!t) return PYMTP_E_NOMEM;
    atomic_init(&t->merge_ops, 0);
    t->ops = &t->merge_ops;
    pymtp_error inner = {0}; /* names keys */
    const pymtp_status status = build(t, file, &inner);
    if (status != PYMTP_OK) {
        pm_tokenizer_free(t);
        return pm_fail(err, status, "%.300s: %s", pm_gguf_path(file), inner.text);
    }
    *out = t;
    return PYMTP_OK;
}

void pm_tokenizer_free(pymtp_tokenizer *t) {
    if (!t) return;
    pm_free(t->arena);
    pm_free(t->at);
    pm_free(t->type);
    pm_free(t->eog);
    pm_free(t->pieces);
    pm_free(t->merges);
    pm_free(t->special);
    pm_free(t->suppressed);
    pm_free(t);
}

pymtp_tokenizer *pymtp_tokenizer_open(const char *path, pymtp_error *err) {
    pm_clear(err);
    pm_gguf *file = NULL;
    pymtp_tokenizer *t = NULL;
    if (!path) {
        pm_fail(err, PYMTP_E_ARG, "path: NULL");
        return NULL;
    }
    if (pm_gguf_open(path, &file, err) != PYMTP_OK) return NULL;
    pm_tokenizer_new(file, &t, err);
    pm_gguf_close(file);
    return t;
}

void pymtp_tokenizer_close(pymtp_tokenizer *t) { pm_tokenizer_free(t); }

/* ---- questions ---- */

static int known(const pymtp_tokenizer *t, int32_t id) { return t && id >= 0 && id < t->n; }

int32_t pymtp_tokenizer_size(const pymtp_tokenizer *t) { return t ? t->n : 0; }
int32_t pymtp_tokenizer_bos(const pymtp_tokenizer *t) { return t ? t->bos : -1; }
int32_t pymtp_tokenizer_is_eog(const pymtp_tokenizer *t, int32_t id) { return known(t, id) && t->eog[id]; }
int32_t pymtp_tokenizer_type(const pymtp_tokenizer *t, int32_t id) { return known(t, id) ? t->type[id] : 0; }
uint64_t pymtp_tokenizer_merge_ops(const pymtp_tokenizer *t) { return t ? atomic_load(t->ops) : 0; }
uint64_t pm_tokenizer_hash(const pymtp_tokenizer *t) { return t->hash; }

int32_t pymtp_tokenizer_find(const pymtp_tokenizer *t, const char *piece, size_t bytes) {
    return t && piece && bytes ? pm_vocab_find(t, piece, bytes, "", 0) : -1;
}

const char *pymtp_tokenizer_piece(const pymtp_tokenizer *t, int32_t id, size_t *bytes) {
    size_t n = 0;
    const char *piece = known(t, id) ? pm_piece(t, id, &n) : NULL;
    if (bytes) *bytes = n;
    return piece;
}

const int32_t *pm_tokenizer_suppressed(const pymtp_tokenizer *t, size_t *n) {
    *n = t->n_suppressed;
    return t->suppressed;
}
