/* test_tokenizer.c - the tokenizer on small vocabularies: encoding against a direct reading of the definition, special
 * tokens, malformed UTF-8, decoding, the bound on merge-queue operations, and metadata that is wrong. The real
 * vocabulary is in tests/test_tokenizer.py. */
#include "check.h"
#include "text/vocab.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t seed = 1;
static uint32_t below(uint32_t n) { /* 0..n-1 */
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(seed >> 8) * n >> 24);
}

/* ---- a vocabulary made here ---- */

enum { BYTES = 40, N_TOKENS = BYTES + 256 };
#define SP "\xe2\x96\x81"
static const char *const first_tokens[BYTES] = {
    "<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|tool_response>", "<|channel>", /* 0..7 */
    "\n", "\n\n", "\n\n\n\n", SP, SP SP, "a", "b", "c", "aa", "ab", "ba", "aba",                  /* 8..19 */
    "abab", SP "a", SP SP "a", "\xc3\xa9", "a\xc3\xa9", "cc", "ca", "b" SP, "\na", "<|turn>x",     /* 20..29 */
    "<", "<|", "", "<a><b>", "<b><c><d>", "<a", ">", "<b>", "|", "ac",                             /* 30..39 */
};
/* cc (25) is a control token, the pieces of markers are user-defined (33, 34), 35 too; what 4..7 are must go by piece. */
static const int32_t first_types[BYTES] = {3, 3, 3, 2, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                           1, 1, 1, 1, 1, 3, 1, 1, 1, 4, 1, 1, 0, 4, 4, 4, 1, 1, 1, 5};
static const char *const merges[] = {"b a", "a a", "a b", "ab a", "ab ab", "a ba", SP " a", SP " " SP, SP SP " a", "a \xc3\xa9",
                                     "\n \n", "\n\n \n\n", "c a", "b " SP, "b a", "\n a", "c c", "< |", "a c"};
enum { N_MERGES = sizeof merges / sizeof merges[0] };

typedef struct buffer { unsigned char *data; size_t n, cap; uint64_t keys; } buffer;

static void put(buffer *b, const void *data, size_t n) {
    if (b->n + n > b->cap) b->data = realloc(b->data, b->cap = 2 * (b->n + n) + 64);
    if (n) memcpy(b->data + b->n, data, n);
    b->n += n;
}
static void put_u32(buffer *b, uint32_t v) { put(b, &v, 4); }
static void put_u64(buffer *b, uint64_t v) { put(b, &v, 8); }
static void put_string(buffer *b, const char *s) {
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}
static void put_key(buffer *b, const char *key, uint32_t type) {
    char name[64];
    snprintf(name, sizeof name, "tokenizer.ggml.%s", key);
    put_string(b, name);
    put_u32(b, type);
    b->keys++;
}
static void kv_string(buffer *b, const char *key, const char *s) {
    put_key(b, key, PM_GGUF_STRING);
    put_string(b, s);
}
static void kv_u32(buffer *b, const char *key, uint32_t v) {
    put_key(b, key, PM_GGUF_U32);
    put_u32(b, v);
}
static void kv_array(buffer *b, const char *key, uint32_t type, uint64_t n) {
    put_key(b, key, PM_GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, n);
}
static void kv_ints(buffer *b, const char *key, const int32_t *v, uint64_t n) {
    kv_array(b, key, PM_GGUF_I32, n);
    put(b, v, (size_t)n * 4);
}
static void kv_strings(buffer *b, const char *key, const char *const *v, uint64_t n) {
    kv_array(b, key, PM_GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++) put_string(b, v[i]);
}

static const char *token_text(int32_t id) {
    static char text[8];
    if (id < BYTES) return first_tokens[id];
    snprintf(text, sizeof text, "<0x%02X>", (unsigned)(id - BYTES) & 255u);
    return text;
}

/* The metadata of the vocabulary above but for the keys in `skip` (space-separated, a space in front of each). */
static void base(buffer *b, const char *skip) {
    if (!strstr(skip, " model")) kv_string(b, "model", "gemma4");
    if (!strstr(skip, " tokens")) {
        kv_array(b, "tokens", PM_GGUF_STRING, N_TOKENS);
        for (int32_t i = 0; i < N_TOKENS; i++) put_string(b, token_text(i));
    }
    if (!strstr(skip, " types")) {
        int32_t types[N_TOKENS];
        for (int32_t i = 0; i < N_TOKENS; i++) types[i] = i < BYTES ? first_types[i] : PYMTP_TOKEN_BYTE;
        kv_ints(b, "token_type", types, N_TOKENS);
    }
    if (!strstr(skip, " merges")) kv_strings(b, "merges", merges, N_MERGES);
    if (!strstr(skip, " bos")) kv_u32(b, "bos_token_id", 2);
    if (!strstr(skip, " unk")) kv_u32(b, "unknown_token_id", 3);
}

/* Writes the file, opens the tokenizer, removes the file. */
static pymtp_tokenizer *open_buffer(buffer *b, pymtp_error *err) {
    char path[] = "/tmp/pymtp-test-XXXXXX";
    const int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!f) return NULL;
    const uint32_t version = 3;
    const uint64_t tensors = 0;
    fwrite("GGUF", 1, 4, f);
    fwrite(&version, 4, 1, f);
    fwrite(&tensors, 8, 1, f);
    fwrite(&b->keys, 8, 1, f);
    fwrite(b->data, 1, b->n, f);
    fclose(f);
    pymtp_tokenizer *t = pymtp_tokenizer_open(path, err);
    remove(path);
    free(b->data);
    *b = (buffer){0};
    return t;
}

static pymtp_tokenizer *small(void) {
    pymtp_error err = {0};
    buffer b = {0};
    base(&b, "");
    pymtp_tokenizer *t = open_buffer(&b, &err);
    CHECK(t, "%s", err.text);
    return t;
}

static pymtp_tokenizer *golden(const char *name) {
    pymtp_error err = {0};
    char path[2048];
    const char *slash = strrchr(__FILE__, '/'); /* .../tests/c/test_tokenizer.c */
    snprintf(path, sizeof path, "%.*s/../data/%s", slash ? (int)(slash - __FILE__) : 1, slash ? __FILE__ : ".", name);
    pymtp_tokenizer *t = pymtp_tokenizer_open(path, &err);
    CHECK(t, "%s", err.text);
    return t;
}

/* ---- encoding ---- */

enum { MAX_IDS = 512 };

static void encodes(const pymtp_tokenizer *t, const char *text, size_t bytes, int32_t flags, const int32_t *want, size_t n) {
    int32_t ids[MAX_IDS];
    pymtp_error err = {0};
    const int64_t got = pymtp_tokenize(t, text, bytes, flags, ids, MAX_IDS, &err);
    CHECK(got == (int64_t)n && !memcmp(ids, want, n * sizeof *ids), "\"%s\" flags %d: %lld ids (%d %d %d ...), expected %zu (%d %d %d ...): %s",
          text, flags, (long long)got, ids[0], ids[1], ids[2], n, want[0], n > 1 ? want[1] : 0, n > 2 ? want[2] : 0, err.text);
}
#define ENCODES(t, text, flags, ...)                                                                  \
    do {                                                                                              \
        const int32_t want_[] = {__VA_ARGS__};                                                        \
        encodes(t, text, sizeof(text) - 1, flags, want_, sizeof want_ / sizeof want_[0]);             \
    } while (0)
#define BYTE(b) (BYTES + (b))

static int32_t token_id(const char *s, size_t n) {
    for (int32_t i = 0; i < BYTES; i++)
        if (n && strlen(first_tokens[i]) == n && !memcmp(first_tokens[i], s, n)) return i;
    return -1;
}

static int crosses(const char *s) { return strchr(s, '\n') && strspn(s, "\n") != strlen(s); }

/* The definition, word by word: the adjacent pair of lowest rank, leftmost, until there is none. Characters come as
 * pieces already; pairs of control tokens and pairs across a newline border do not count. */
static size_t slow_merge(char parts[][16], size_t n) {
    for (;;) {
        size_t best_at = n, best = N_MERGES;
        char joined[16] = "";
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t m = 0; m < best; m++) {
                char pair[32], both[31];
                snprintf(pair, sizeof pair, "%.15s %.15s", parts[i], parts[i + 1]);
                snprintf(both, sizeof both, "%.15s%.15s", parts[i], parts[i + 1]);
                if (strcmp(pair, merges[m]) || !strcmp(both, "cc") || crosses(both)) continue;
                best = m;
                best_at = i;
                memcpy(joined, both, sizeof joined);
            }
        if (best_at == n) return n;
        memcpy(parts[best_at], joined, sizeof joined);
        memmove(parts + best_at + 1, parts + best_at + 2, (n - best_at - 2) * sizeof *parts);
        n--;
    }
}

static void test_against_definition(const pymtp_tokenizer *t) {
    static const char *const letters[] = {"a", "b", "c", SP, "\n", "\xc3\xa9", "\xc3\xbc", "<", "|"};
    for (int round = 0; round < 5000; round++) {
        char parts[24][16], text[200] = "";
        const uint32_t kinds = 1 + below(9), n = below(24);
        for (uint32_t i = 0; i < n; i++) {
            strcpy(parts[i], letters[below(kinds)]);
            strcat(text, strcmp(parts[i], SP) || below(2) ? parts[i] : " ");
        }
        int32_t want[100];
        size_t n_want = 0;
        const size_t left = slow_merge(parts, n);
        for (size_t i = 0; i < left; i++) {
            const int32_t id = token_id(parts[i], strlen(parts[i]));
            if (id >= 0) want[n_want++] = id;
            else
                for (const char *c = parts[i]; *c; c++) want[n_want++] = BYTE((uint8_t)*c);
        }
        encodes(t, text, strlen(text), 0, want, n_want);
        char out[400];
        const int64_t bytes = pymtp_detokenize(t, want, n_want, 0, out, sizeof out, NULL);
        int same = 1;
        for (size_t i = 0, k = 0; text[i]; k++) { /* U+2581 comes back as a space */
            const int space = !strncmp(text + i, SP, 3);
            same &= (int64_t)k < bytes && out[k] == (space ? ' ' : text[i]);
            i += space ? 3 : 1;
        }
        CHECK(same, "round trip of \"%s\" gave \"%.*s\"", text, (int)bytes, out);
    }
}

static void test_special(const pymtp_tokenizer *t) {
    const int special = PYMTP_TOK_SPECIAL, bos = PYMTP_TOK_BOS, markers = PYMTP_TOK_MARKERS;
    CHECK(pymtp_tokenizer_type(t, 3) == PYMTP_TOKEN_CONTROL && pymtp_tokenizer_type(t, 4) == PYMTP_TOKEN_CONTROL, "control by piece");
    CHECK(pymtp_tokenizer_type(t, 6) == PYMTP_TOKEN_USER_DEFINED, "<|tool_response> by piece");
    CHECK(pymtp_tokenizer_type(t, -1) == 0 && pymtp_tokenizer_type(t, N_TOKENS) == 0, "type of no id");
    for (int32_t id = 0; id < N_TOKENS; id++)
        CHECK(pymtp_tokenizer_is_eog(t, id) == (id == 1 || id == 5 || id == 6), "end token %d", id);
    ENCODES(t, "a<|turn>b", special, 13, 4, 14);
    ENCODES(t, "<|turn>x<|turn>", special, 29, 4); /* the longest */
    ENCODES(t, "<|channel>cc", special, 7, 25);
    ENCODES(t, "<|channel>cc", markers, 7, 15, 15);
    ENCODES(t, "<bos><turn|>", markers, 30, 14, BYTE('o'), BYTE('s'), 36, 30, BYTE('t'), BYTE('u'), BYTE('r'), BYTE('n'), 38, 36);
    ENCODES(t, "<a><b><c><d>", markers, 33, 30, 15, 36, 30, BYTE('d'), 36); /* leftmost, then longest; <a (35) is shorter */
    ENCODES(t, "<a<a><b", markers, 35, 35, 36, 30, 14);
    ENCODES(t, "<ac", 0, 30, 39); /* merges reach tokens marked unused */
    ENCODES(t, "<b><c><", markers, 30, 14, 36, 30, 15, 36, 30); /* <b> itself is a normal token, out of reach */
    ENCODES(t, "<|turn", special, 31, BYTE('t'), BYTE('u'), BYTE('r'), BYTE('n'));
    ENCODES(t, "", bos, 2);
    ENCODES(t, "a", bos, 2, 13);
    ENCODES(t, "<bos>a", bos | special, 2, 13);
    ENCODES(t, "<bos><bos>", bos | special, 2, 2);
    ENCODES(t, "a<bos>", bos | special, 2, 13, 2);
    ENCODES(t, "<bos>", bos, 2, 30, 14, BYTE('o'), BYTE('s'), 36);
    CHECK(pymtp_tokenize(t, "", 0, special, NULL, 0, NULL) == 0, "empty");
    int32_t two[3] = {-7, -7, -7};
    CHECK(pymtp_tokenize(t, "abcab", 5, bos, two, 2, NULL) == 4 && two[0] == 2 && two[1] == 17 && two[2] == -7, "cap");
    CHECK(pymtp_tokenize(t, "abcab", 5, bos, NULL, 0, NULL) == 4, "count only");
    CHECK(pymtp_tokenize(t, "a", 1, 8, two, 2, NULL) == PYMTP_E_ARG, "flags");
    CHECK(pymtp_tokenize(t, NULL, 1, 0, two, 2, NULL) == PYMTP_E_ARG && pymtp_tokenize(NULL, "", 0, 0, two, 2, NULL) == PYMTP_E_ARG, "NULL");
}

static void test_malformed(const pymtp_tokenizer *t) {
    ENCODES(t, "a\0b", 0, 13, BYTE(0), 14);
    ENCODES(t, "a\xff" "b", 0, 13, BYTE(0xff), 14);
    ENCODES(t, "\xc3", 0, BYTE(0xc3));
    ENCODES(t, "a\xc3" "b", 0, 13, BYTE(0xc3), 14);
    ENCODES(t, "a\xc3\xc3\xa9", 0, 13, BYTE(0xc3), 23); /* a does not merge over the bad byte */
    ENCODES(t, "\xa9\xc3\xa9", 0, BYTE(0xa9), 23);
    ENCODES(t, "\xe2\x96 ", 0, BYTE(0xe2), BYTE(0x96), 11);
    ENCODES(t, "\xc0\xaf", 0, BYTE(0xc0), BYTE(0xaf));             /* overlong */
    ENCODES(t, "\xed\xa0\x80", 0, BYTE(0xed), BYTE(0xa0), BYTE(0x80)); /* a surrogate */
    ENCODES(t, "\xf4\x90\x80\x80", 0, BYTE(0xf4), BYTE(0x90), BYTE(0x80), BYTE(0x80));
    ENCODES(t, "\xf0\x9f\x98\x80" "a", 0, BYTE(0xf0), BYTE(0x9f), BYTE(0x98), BYTE(0x80), 13);
}

/* ---- decoding ---- */

static void decodes(const pymtp_tokenizer *t, const int32_t *ids, size_t n, int32_t flags, const char *want, size_t bytes) {
    char out[600];
    const int64_t got = pymtp_detokenize(t, ids, n, flags, out, sizeof out, NULL);
    CHECK(got == (int64_t)bytes && !memcmp(out, want, bytes), "got \"%.*s\", expected \"%s\"", (int)got, out, want);
}
#define DECODES(t, flags, text, ...)                                                                \
    do {                                                                                            \
        const int32_t ids_[] = {__VA_ARGS__};                                                       \
        decodes(t, ids_, sizeof ids_ / sizeof ids_[0], flags, text, sizeof(text) - 1);              \
    } while (0)
#define BAD "\xef\xbf\xbd"

static void test_decode(const pymtp_tokenizer *t) {
    DECODES(t, 0, "a  a\n", 2, 13, 22, 8, 0, 5);
    DECODES(t, PYMTP_TOK_SPECIAL, "<bos>a<turn|>", 2, 13, 5);
    DECODES(t, 0, "<|channel>", 7);
    DECODES(t, 0, "\xf0\x9f\x98\x80", BYTE(0xf0), BYTE(0x9f), BYTE(0x98), BYTE(0x80));
    DECODES(t, 0, "\xc3\xa9", BYTE(0xc3), 2, BYTE(0xa9)); /* a hidden token does not interrupt */
    DECODES(t, PYMTP_TOK_SPECIAL, BAD "<bos>" BAD, BYTE(0xc3), 2, BYTE(0xa9));
    DECODES(t, 0, BAD "a", BYTE(0xf0), BYTE(0x9f), BYTE(0x98), 13); /* one for a maximal part */
    DECODES(t, 0, BAD BAD BAD, BYTE(0xed), BYTE(0xa0), BYTE(0x80)); /* no part of a surrogate is one */
    DECODES(t, 0, BAD BAD, BYTE(0xff), BYTE(0xc3));
    DECODES(t, 0, BAD "\xc3\xa9", BYTE(0xe2), BYTE(0xc3), BYTE(0xa9));
    DECODES(t, 0, SP, BYTE(0xe2), BYTE(0x96), BYTE(0x81)); /* from bytes it is itself */
    DECODES(t, 0, "x\0y", BYTE('x'), BYTE(0), BYTE('y'));
    char two[3] = "??";
    const int32_t ids[] = {13, 14, 15}, wrong[] = {13, N_TOKENS};
    CHECK(pymtp_detokenize(t, ids, 3, 0, two, 2, NULL) == 3 && !strcmp(two, "ab"), "cap");
    pymtp_error err = {0};
    CHECK(pymtp_detokenize(t, wrong, 2, 0, two, 2, &err) == PYMTP_E_ARG && strstr(err.text, "ids[1]"), "%s", err.text);
    pymtp_decoder *d = pymtp_decoder_new(t, 0, NULL);
    size_t bytes = 1;
    CHECK(!pymtp_decoder_push(d, -1, &bytes) && !bytes && !pymtp_decoder_push(d, N_TOKENS, &bytes), "no such id");
    pymtp_decoder_free(d);
    pymtp_decoder_free(NULL);
}

/* Random ids, many of them bytes: the pushes and the flush join to the whole, and none ends inside a character. */
static void test_streaming(const pymtp_tokenizer *t) {
    const int32_t n_tokens = pymtp_tokenizer_size(t), first_byte = pymtp_tokenizer_find(t, "<0x00>", 6);
    static const uint8_t leads[] = {0xc3, 0xe2, 0xed, 0xf0, 0xf4, 0x9f, 0x80, 0xa9, 0xbf, 0x20};
    for (int32_t flags = 0; flags < 2; flags++)
        for (int round = 0; round < 2000; round++) {
            int32_t ids[24];
            char whole[24 * 512], joined[24 * 512 + 4];
            size_t at = 0, bytes;
            const size_t n = below(24);
            for (size_t i = 0; i < n; i++)
                ids[i] = below(3) ? first_byte + leads[below(sizeof leads)] : (int32_t)below((uint32_t)n_tokens);
            const int64_t total = pymtp_detokenize(t, ids, n, flags, whole, sizeof whole, NULL);
            pymtp_decoder *d = pymtp_decoder_new(t, flags, NULL);
            for (size_t i = 0; i <= n; i++) {
                const char *s = i < n ? pymtp_decoder_push(d, ids[i], &bytes) : pymtp_decoder_flush(d, &bytes);
                CHECK(!bytes || (s[0] & 0xc0) != 0x80, "a push starts inside a character");
                memcpy(joined + at, s, bytes);
                at += bytes;
            }
            CHECK((int64_t)at == total && !memcmp(joined, whole, at), "%zu bytes streamed, %lld in one go", at, (long long)total);
            pymtp_decoder_free(d);
        }
}

/* ---- work ---- */

/* A run of n characters has n - 1 pairs at first; each of at most n - 1 merges makes at most two new ones; nothing is
 * popped that was not pushed. So no more than 3 (n - 1) pushes and as many pops, each of O(log n) steps. */
static void test_work(void) {
    enum { N = 1 << 20 };
    pymtp_tokenizer *t = golden("trained-py.gguf");
    char *text = malloc(N);
    int32_t *ids = malloc(N * sizeof *ids);
    for (int kind = 0; t && text && ids && kind < 3; kind++) {
        static const char word[] = "selfreturndefinition";
        for (size_t i = 0; i < N; i++) text[i] = kind == 0 ? 'e' : kind == 1 ? word[i % 20] : (char)('a' + below(26));
        const uint64_t before = pymtp_tokenizer_merge_ops(t);
        const int64_t n = pymtp_tokenize(t, text, N, 0, ids, N, NULL);
        const uint64_t ops = pymtp_tokenizer_merge_ops(t) - before;
        CHECK(n > 0 && n <= N && ops <= 6 * (uint64_t)(N - 1), "%lld ids, %llu operations", (long long)n, (unsigned long long)ops);
        CHECK(kind == 0 || ops >= N / 4, "operations are not counted: %llu", (unsigned long long)ops);
        char *out = malloc(N);
        CHECK(pymtp_detokenize(t, ids, (size_t)n, 0, out, N, NULL) == N && !memcmp(out, text, N), "round trip");
        free(out);
    }
    free(text);
    free(ids);
    pymtp_tokenizer_close(t);
}

static void test_goldens(void) {
    static const char *const names[] = {"tiny-e2b.gguf", "tiny-26b.gguf", "tiny-31b-drafter.gguf", "trained-py.gguf"};
    for (size_t i = 0; i < 4; i++) {
        pymtp_tokenizer *t = golden(names[i]);
        if (!t) continue;
        const int32_t size = pymtp_tokenizer_size(t), turn = pymtp_tokenizer_find(t, "<turn|>", 7);
        CHECK(size == (i < 3 ? 1280 : 4096), "%d tokens", size);
        CHECK(turn > 0 && pymtp_tokenizer_is_eog(t, turn) && pymtp_tokenizer_type(t, turn) == PYMTP_TOKEN_CONTROL,
              "<turn|> is stored as normal, and must be a control token all the same");
        CHECK(pymtp_tokenizer_bos(t) == 2 && !pymtp_tokenizer_is_eog(t, 106), "bos, and 106 is nothing special here");
        size_t bytes;
        for (int32_t id = 0; id < size; id++) {
            const char *piece = pymtp_tokenizer_piece(t, id, &bytes);
            CHECK(pymtp_tokenizer_find(t, piece, bytes) == id && !piece[bytes], "token %d", id);
        }
        CHECK(!pymtp_tokenizer_piece(t, size, &bytes) && !bytes, "piece of no id");
        test_streaming(t);
        pymtp_tokenizer_close(t);
    }
    pymtp_tokenizer *a = golden("tiny-e2b.gguf"), *b = golden("tiny-e2b-drafter.gguf"), *c = golden("trained-py.gguf");
    if (a && b && c) {
        CHECK(pm_tokenizer_hash(a) == pm_tokenizer_hash(b), "equal vocabularies, different hashes");
        CHECK(pm_tokenizer_hash(a) != pm_tokenizer_hash(c), "different vocabularies, equal hashes");
    }
    pymtp_tokenizer_close(a);
    pymtp_tokenizer_close(b);
    pymtp_tokenizer_close(c);
}

/* ---- metadata that is wrong, or lenient ---- */

/* Opening must fail with the code and name `want`, in one line. */
static void refused(buffer *b, pymtp_status code, const char *want) {
    pymtp_error err = {0};
    pymtp_tokenizer *t = open_buffer(b, &err);
    CHECK(!t && err.code == code && strstr(err.text, want) && !strchr(err.text, '\n'), "wanted %d %s, got %d: %s", code, want, err.code, err.text);
    pymtp_tokenizer_close(t);
}

static void refused_strings(const char *skip, const char *key, const char *const *v, uint64_t n, const char *want) {
    buffer b = {0};
    base(&b, skip);
    kv_strings(&b, key, v, n);
    refused(&b, PYMTP_E_FORMAT, want);
}

static void refused_ints(const char *skip, const char *key, const int32_t *v, uint64_t n, const char *want) {
    buffer b = {0};
    base(&b, skip);
    kv_ints(&b, key, v, n);
    refused(&b, PYMTP_E_FORMAT, want);
}

static void refused_u32(const char *skip, const char *key, uint32_t v, const char *want) {
    buffer b = {0};
    base(&b, skip);
    kv_u32(&b, key, v);
    refused(&b, PYMTP_E_FORMAT, want);
}

static void test_refusals(void) {
    static const char *const needed[] = {" model", " tokens", " merges"};
    for (size_t i = 0; i < 3; i++) {
        buffer b = {0};
        char want[64];
        base(&b, needed[i]);
        snprintf(want, sizeof want, "tokenizer.ggml.%s: missing", needed[i] + 1);
        refused(&b, PYMTP_E_FORMAT, want);
    }
    buffer b = {0};
    base(&b, " model");
    kv_string(&b, "model", "gpt2\n");
    refused(&b, PYMTP_E_UNSUPPORTED, "tokenizer.ggml.model: expected \"gemma4\", found \"gpt2");
    base(&b, " model");
    kv_string(&b, "model", "llama");
    refused(&b, PYMTP_E_UNSUPPORTED, "tokenizer.ggml.pre");
    base(&b, " model");
    kv_string(&b, "model", "llama");
    kv_string(&b, "pre", "default");
    refused(&b, PYMTP_E_UNSUPPORTED, "found \"default\"");
    refused_u32(" model", "model", 4, "tokenizer.ggml.model: expected a string");
    refused_u32(" tokens", "tokens", 4, "tokenizer.ggml.tokens: expected an array");
    refused_u32(" types", "token_type", 4, "tokenizer.ggml.token_type: expected an array");
    refused_u32(" merges", "merges", 4, "tokenizer.ggml.merges: expected an array");
    refused_u32(" bos", "bos_token_id", N_TOKENS, "tokenizer.ggml.bos_token_id: expected an id in 0..295, found 296");
    refused_u32("", "eos_token_id", UINT32_MAX, "tokenizer.ggml.eos_token_id: expected an id");
    refused_u32(" unk", "unknown_token_id", 1000, "tokenizer.ggml.unknown_token_id: expected an id");
    refused_u32("", "suppress_tokens", 1, "tokenizer.ggml.suppress_tokens: expected an array");
    const int32_t outside[] = {1, -1}, numbers[] = {1, 2, 3};
    refused_ints("", "suppress_tokens", outside, 2, "tokenizer.ggml.suppress_tokens: expected an id in 0..295, found -1");
    refused_ints(" bos", "bos_token_id", numbers, 1, "tokenizer.ggml.bos_token_id: expected an integer");
    refused_ints(" tokens", "tokens", numbers, 3, "tokenizer.ggml.tokens: expected an array of strings");
    refused_ints(" tokens", "tokens", numbers, 0, "tokenizer.ggml.tokens: expected 1..");
    refused_ints(" merges", "merges", numbers, 3, "tokenizer.ggml.merges: expected an array of strings");
    refused_ints(" types", "token_type", numbers, 3, "tokenizer.ggml.token_type: expected 296 elements, one per token, found 3");
    const char *const text[] = {"1"};
    refused_strings("", "eos_token_id", text, 1, "tokenizer.ggml.eos_token_id: expected an integer");
    static const char *const bad_merges[][2] = {{"a b", "ab"}, {"a b", " b"}, {"a b", "a "}, {"a b", ""}, {"a b", "x b"}, {"a b", "a x"},
                                                {"a b", "b c"}, {"a b", "a  b"}};
    for (size_t i = 0; i < 8; i++) refused_strings(" merges", "merges", bad_merges[i], 2, "tokenizer.ggml.merges: merge 1: ");
    const char *const twice[] = {"<bos>", "<unk>", "a", "b", "a"};
    refused_strings(" tokens types", "tokens", twice, 5, "tokenizer.ggml.tokens: tokens 2 and 4 are the same");
    const char *const no_bytes[] = {"<bos>", "a", "b"}, *const no_bos[] = {"a", "b"};
    refused_strings(" tokens types bos unk merges", "tokens", no_bos, 2, "tokenizer.ggml.bos_token_id: missing");
    refused_strings(" tokens types bos unk merges", "tokens", no_bytes, 3, "tokenizer.ggml.unknown_token_id: missing");
    char *huge = malloc(301);
    memset(huge, 'x', 300);
    huge[300] = 0;
    int32_t types[N_TOKENS] = {0};
    const char *tokens[N_TOKENS];
    char names[N_TOKENS][16];
    for (int32_t i = 0; i < N_TOKENS; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        tokens[i] = names[i];
    }
    tokens[5] = huge;
    types[5] = 3;
    base(&b, " tokens types merges");
    kv_strings(&b, "merges", NULL, 0);
    kv_strings(&b, "tokens", tokens, N_TOKENS);
    kv_ints(&b, "token_type", types, N_TOKENS);
    refused(&b, PYMTP_E_FORMAT, "special token 5: expected at most 256 bytes, found 300");
    types[5] = 7;
    refused_ints(" types", "token_type", types, N_TOKENS, "tokenizer.ggml.token_type: expected 1..6 for token 5, found 7");
    types[5] = PYMTP_TOKEN_BYTE;
    refused_ints(" types", "token_type", types, N_TOKENS, "tokenizer.ggml.token_type: token 5 is a byte");
    free(huge);
    pymtp_error err = {0};
    CHECK(!pymtp_tokenizer_open(NULL, &err) && err.code == PYMTP_E_ARG, "%s", err.text);
    CHECK(!pymtp_tokenizer_open("/nonexistent", &err) && err.code == PYMTP_E_IO, "%s", err.text);
}

static void test_lenient(void) {
    buffer b = {0};
    pymtp_error err = {0};
    base(&b, " model types bos unk"); /* what can go by piece does */
    kv_string(&b, "model", "llama");
    kv_string(&b, "pre", "gemma4");
    kv_u32(&b, "eos_token_id", 13);
    const int32_t suppressed[] = {7, 8};
    kv_ints(&b, "suppress_tokens", suppressed, 2);
    pymtp_tokenizer *t = open_buffer(&b, &err);
    CHECK(t, "%s", err.text);
    if (t) {
        size_t n;
        const int32_t *s = pm_tokenizer_suppressed(t, &n);
        CHECK(n == 2 && s[0] == 7 && s[1] == 8, "suppressed");
        CHECK(pymtp_tokenizer_bos(t) == 2 && pymtp_tokenizer_is_eog(t, 13) && pymtp_tokenizer_is_eog(t, 1), "ids by piece and key");
        CHECK(pymtp_tokenizer_type(t, BYTE(7)) == PYMTP_TOKEN_BYTE && pymtp_tokenizer_type(t, 7) == PYMTP_TOKEN_USER_DEFINED, "types by piece");
        ENCODES(t, "<|turn>cc\x07", PYMTP_TOK_SPECIAL, 4, 25, BYTE(7)); /* cc is normal now, its merge counts */
    }
    pymtp_tokenizer_close(t);
    const char *const tokens[] = {"<bos>", "<unk>", "a", "b", "ab", "<0x20>", "<0xA9>"}, *const one[] = {"a b"};
    base(&b, " tokens types merges bos unk");
    kv_strings(&b, "tokens", tokens, 7);
    kv_strings(&b, "merges", one, 1);
    t = open_buffer(&b, &err);
    CHECK(t, "%s", err.text);
    if (t) ENCODES(t, "ab \xc3\xa9", 0, 4, 5, 1, 6); /* no U+2581: a space is a byte; bytes without a token are unknown */
    pymtp_tokenizer_close(t);
}

/* ---- floods ---- */

enum { FLOOD = 16384, FLOOD_SLOTS = 2 * FLOOD, FLOOD_CHARS = 1024 };
#define RUN_LIMIT 512 /* of neighbours in a table that is half full at most: a few dozen by chance */

/* Hashes without a key, as anybody can compute them: FNV-1a, and a fixed mix of two ids. */
static uint64_t open_hash(const char *s, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 0x100000001b3u;
    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}
static size_t open_pair_hash(uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return (size_t)(h >> 32);
}

static size_t longest_run(const int32_t *first, size_t stride, size_t slots) {
    size_t run = 0, longest = 0;
    for (size_t i = 0; i < slots; i++) {
        run = first[i * stride / sizeof *first] < 0 ? 0 : run + 1;
        if (run > longest) longest = run;
    }
    return longest;
}

static void put_char(char *out, uint32_t i) {
    const uint32_t u = 0x4e00 + i;
    out[0] = (char)(0xe0 | u >> 12);
    out[1] = (char)(0x80 | (u >> 6 & 63));
    out[2] = (char)(0x80 | (u & 63));
}

/* Pieces that an open hash would put beside each other: opening and every lookup would walk over all of them. */
static void test_flood_of_pieces(void) {
    buffer b = {0};
    pymtp_error err = {0};
    char piece[32];
    kv_string(&b, "model", "gemma4");
    kv_u32(&b, "bos_token_id", 0);
    kv_u32(&b, "unknown_token_id", 0);
    kv_array(&b, "merges", PM_GGUF_STRING, 0);
    kv_array(&b, "tokens", PM_GGUF_STRING, FLOOD);
    for (uint64_t i = 0, n = 0; n < FLOOD; i++) {
        snprintf(piece, sizeof piece, "%llx", (unsigned long long)i);
        if ((open_hash(piece, strlen(piece)) & (FLOOD_SLOTS - 1)) >= FLOOD / 64) continue;
        put_string(&b, piece);
        n++;
    }
    pymtp_tokenizer *t = open_buffer(&b, &err);
    CHECK(t, "%s", err.text);
    if (!t) return;
    const size_t run = longest_run(&t->pieces[0].id, sizeof *t->pieces, t->piece_mask + 1);
    CHECK(t->piece_mask + 1 == FLOOD_SLOTS && run < RUN_LIMIT, "%zu pieces beside each other in %zu slots", run, t->piece_mask + 1);
    pymtp_tokenizer_close(t);
}

static void test_flood_of_merges(void) {
    static uint32_t pair[FLOOD][2];
    buffer b = {0};
    pymtp_error err = {0};
    char text[8] = {0};
    size_t n = 0;
    for (uint32_t left = 0; left < FLOOD_CHARS; left++)
        for (uint32_t right = 0; right < FLOOD_CHARS && n < FLOOD; right++)
            if ((open_pair_hash(left + 1, right + 1) & (FLOOD_SLOTS - 1)) < FLOOD_SLOTS / 48) pair[n][0] = left, pair[n++][1] = right;
    CHECK(n == FLOOD, "%zu merges", n);
    kv_string(&b, "model", "gemma4");
    kv_u32(&b, "bos_token_id", 0);
    kv_u32(&b, "unknown_token_id", 0);
    kv_array(&b, "tokens", PM_GGUF_STRING, 1 + FLOOD_CHARS + FLOOD);
    put_string(&b, "<unk>");
    for (uint32_t i = 0; i < FLOOD_CHARS; i++) put_char(text, i), put_string(&b, text);
    for (size_t i = 0; i < FLOOD; i++) put_char(text, pair[i][0]), put_char(text + 3, pair[i][1]), put_string(&b, text);
    kv_array(&b, "merges", PM_GGUF_STRING, FLOOD);
    for (size_t i = 0; i < FLOOD; i++) put_char(text, pair[i][0]), text[3] = ' ', put_char(text + 4, pair[i][1]), put_string(&b, text);
    pymtp_tokenizer *t = open_buffer(&b, &err);
    CHECK(t, "%s", err.text);
    if (!t) return;
    const size_t run = longest_run(&t->merges[0].result, sizeof *t->merges, t->merge_mask + 1);
    CHECK(t->merge_mask + 1 == FLOOD_SLOTS && run < RUN_LIMIT, "%zu merges beside each other in %zu slots", run, t->merge_mask + 1);
    pymtp_tokenizer_close(t);
}

int main(void) {
    pymtp_tokenizer *t = small();
    if (t) {
        test_special(t);
        test_malformed(t);
        test_against_definition(t);
        test_decode(t);
        test_streaming(t);
    }
    pymtp_tokenizer_close(t);
    test_goldens();
    test_work();
    test_refusals();
    test_lenient();
    test_flood_of_pieces();
    test_flood_of_merges();
    return check_done();
}
