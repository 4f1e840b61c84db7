/* fuzz_tokenizer.c - the tokenizer: a vocabulary made of the input's first bytes is opened, or refused with one line; the rest of
 * the input is a text, and ids, that go there and back.
 *
 * Promises checked: never more ids than bytes but for the BOS, ids inside the vocabulary, a small buffer gets the same first ids,
 * text without special parsing gives no control token and, where it is short, the ids of the definition, merge-queue operations are linear, ids come back as the text (malformed
 * bytes as U+FFFD), streaming equals decoding in one go, output is valid UTF-8. */
#include "fuzz.h"
#include "pymtp.h"
#include "text/utf8.h"

enum { MAX_PIECES = 512, MAX_PIECE = 600, MAX_TEXT = 4096 };
enum { BYTES = 1, LETTERS = 2, TYPES = 4, LLAMA = 8, LONG = 16, RESULTS = 32, SUPPRESS = 64 }; /* bits of the first byte */

static const char *const letters[] = {"<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool_call>",
                                      "\xe2\x96\x81", "a", "b", "c", "\n", "<", "|", ">", "\xc3\xa9", "\xe6\xbc\xa2", "\xf0\x9f\x98\x80"};

/* ---- a vocabulary ---- */

static struct { char text[MAX_PIECE]; size_t n; uint8_t type; } piece[MAX_PIECES];
static size_t pieces;
static struct { size_t left, right; } merge[64];
static size_t merges;

static size_t find(const char *s, size_t n) {
    for (size_t i = 0; i < pieces; i++)
        if (piece[i].n == n && !memcmp(piece[i].text, s, n)) return i;
    return pieces;
}

static void add(const char *s, size_t n, uint8_t type) {
    if (pieces == MAX_PIECES || n > MAX_PIECE) return;
    memcpy(piece[pieces].text, s, n);
    piece[pieces].n = n;
    piece[pieces++].type = type;
}

static struct { uint8_t data[1 << 20]; size_t n; uint64_t keys; } file;

static void put(const void *data, size_t n) {
    fuzz_check(n <= sizeof file.data - file.n);
    memcpy(file.data + file.n, data, n);
    file.n += n;
}
static void put_u32(uint32_t v) { put(&v, 4); }
static void put_u64(uint64_t v) { put(&v, 8); }
static void put_string(const char *s, size_t n) {
    put_u64(n);
    put(s, n);
}
static void put_key(const char *key, uint32_t type) {
    put_string(key, strlen(key));
    put_u32(type);
    file.keys++;
}
static void put_array(const char *key, uint32_t type, uint64_t n) {
    put_key(key, 9);
    put_u32(type);
    put_u64(n);
}
static void put_text(const char *key, const char *s) {
    put_key(key, 8);
    put_string(s, strlen(s));
}

/* One byte of the input: no key, one of the first ids, or a number that is none. */
static void put_id(const char *key, uint8_t choice) {
    static const int64_t odd[] = {-1, INT32_MAX, INT64_MIN, (int64_t)1 << 32};
    if (choice == 255) return;
    put_key(key, 11);
    put_u64((uint64_t)(choice >= 251 ? odd[choice - 251] : choice == 250 ? (int64_t)pieces : choice));
}

static void make_pieces(fuzz_bytes *in, uint8_t flags) {
    char text[MAX_PIECE] = {0};
    pieces = 0;
    for (size_t i = 0; flags & LETTERS && i < sizeof letters / sizeof *letters; i++) add(letters[i], strlen(letters[i]), PYMTP_TOKEN_NORMAL);
    for (int i = 0; flags & BYTES && i < 256; i++) add(text, (size_t)snprintf(text, sizeof text, "<0x%02X>", (unsigned)i), PYMTP_TOKEN_BYTE);
    for (int left = fuzz_u8(in) % 32; left; left--) {
        const uint8_t type = fuzz_u8(in) & 7;
        size_t n = fuzz_u8(in) % 16;
        fuzz_take(in, text, n);
        if (flags & LONG && n) /* longer than any special token may be */
            for (; n < 300; n++) text[n] = text[n - 1];
        add(text, n, type);
    }
}

/* Metadata of the pieces, with merges of pairs of them; RESULTS adds what a merge gives to the vocabulary. */
static void make_file(fuzz_bytes *in, uint8_t flags) {
    merges = fuzz_u8(in) % 64;
    for (size_t i = 0; i < merges; i++) {
        char both[2 * MAX_PIECE];
        merge[i].left = pieces ? fuzz_u8(in) % pieces : 0;
        merge[i].right = pieces ? fuzz_u8(in) % pieces : 0;
        const size_t a = piece[merge[i].left].n, b = piece[merge[i].right].n;
        memcpy(both, piece[merge[i].left].text, a);
        memcpy(both + a, piece[merge[i].right].text, b);
        if (flags & RESULTS && pieces && find(both, a + b) == pieces) add(both, a + b, PYMTP_TOKEN_NORMAL);
    }
    file.n = file.keys = 0;
    put("GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
    put_text("tokenizer.ggml.model", flags & LLAMA ? "llama" : "gemma4");
    if (flags & LLAMA) put_text("tokenizer.ggml.pre", "gemma4");
    put_array("tokenizer.ggml.tokens", 8, pieces);
    for (size_t i = 0; i < pieces; i++) put_string(piece[i].text, piece[i].n);
    if (flags & TYPES) {
        put_array("tokenizer.ggml.token_type", 5, pieces);
        for (size_t i = 0; i < pieces; i++) put_u32(piece[i].type);
    }
    put_array("tokenizer.ggml.merges", 8, merges);
    for (size_t i = 0; i < merges; i++) {
        put_u64(piece[merge[i].left].n + 1 + piece[merge[i].right].n);
        put(piece[merge[i].left].text, piece[merge[i].left].n);
        put(" ", 1);
        put(piece[merge[i].right].text, piece[merge[i].right].n);
    }
    put_id("tokenizer.ggml.bos_token_id", fuzz_u8(in));
    put_id("tokenizer.ggml.eos_token_id", fuzz_u8(in));
    put_id("tokenizer.ggml.unknown_token_id", fuzz_u8(in));
    if (flags & SUPPRESS) {
        put_array("tokenizer.ggml.suppress_tokens", 4, 2);
        put_u32(fuzz_u8(in));
        put_u32(fuzz_u8(in));
    }
    memcpy(file.data + 16, &file.keys, 8);
}

/* ---- text ---- */

/* What decoding makes of bytes: a maximal part of a character, or a byte that starts none, is U+FFFD; spaces for U+2581 if asked. */
static size_t readable(const uint8_t *s, size_t n, int spaces, char *out) {
    size_t at = 0;
    for (size_t i = 0, part; i < n; i += part) {
        part = pm_utf8_char(s + i, n - i);
        if (spaces && part == 3 && !memcmp(s + i, "\xe2\x96\x81", 3)) {
            out[at++] = ' ';
            continue;
        }
        if (part) {
            memcpy(out + at, s + i, part);
            at += part;
            continue;
        }
        for (part = 1; pm_utf8_length(s[i]) && i + part < n && pm_utf8_continues(s[i], (unsigned)part, s[i + part]); part++) {}
        memcpy(out + at, "\xef\xbf\xbd", 3);
        at += 3;
    }
    return at;
}

static int plain(const pymtp_tokenizer *t, int32_t id) {
    const int type = pymtp_tokenizer_type(t, id);
    return type && type != PYMTP_TOKEN_CONTROL && type != PYMTP_TOKEN_BYTE && type != PYMTP_TOKEN_UNKNOWN;
}

/* What merge m makes of two neighbours, or -1. Text may spell no marker. */
static int32_t merged(const pymtp_tokenizer *t, size_t m, int32_t left, int32_t right) {
    static const char *const markers[] = {"<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|\"|>", "<|channel>", "<channel|>"};
    char both[2 * MAX_PIECE];
    if ((size_t)left != merge[m].left || (size_t)right != merge[m].right) return -1;
    const size_t a = piece[left].n, n = a + piece[right].n;
    memcpy(both, piece[left].text, a);
    memcpy(both + a, piece[right].text, n - a);
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++)
        if (strlen(markers[i]) == n && !memcmp(markers[i], both, n)) return -1;
    const int32_t id = (int32_t)find(both, n);
    return plain(t, left) && plain(t, right) && plain(t, id) ? id : -1;
}

/* The definition, word by word: characters that are tokens, bytes of others; then the adjacent pair of lowest rank, leftmost, until
 * there is none. No pair spans the end of a run of newlines. n is at most 64 bytes. */
static size_t by_definition(const pymtp_tokenizer *t, const uint8_t *s, size_t n, int32_t *ids) {
    size_t count = 0, left_of[64]; /* where in s a symbol begins */
    for (size_t i = 0, length; i < n; i += length) {
        length = pm_utf8_char(s + i, n - i);
        const int32_t id = s[i] == ' ' ? (int32_t)find("\xe2\x96\x81", 3) : (int32_t)find((const char *)s + i, length);
        if (length && plain(t, id)) {
            left_of[count] = i;
            ids[count++] = id;
            continue;
        }
        length = length ? length : 1;
        for (size_t j = i; j < i + length; j++) {
            char name[8];
            left_of[count] = j;
            ids[count++] = (int32_t)find(name, (size_t)snprintf(name, sizeof name, "<0x%02X>", s[j]));
        }
    }
    for (;;) {
        size_t best = merges, at = 0;
        for (size_t i = 0; i + 1 < count; i++)
            for (size_t m = 0; m < best; m++)
                if (merged(t, m, ids[i], ids[i + 1]) >= 0 && (s[left_of[i + 1] - 1] == '\n') == (s[left_of[i + 1]] == '\n')) best = m, at = i;
        if (best == merges) return count;
        ids[at] = merged(t, best, ids[at], ids[at + 1]);
        count--;
        memmove(ids + at + 1, ids + at + 2, (count - at - 1) * sizeof *ids);
        memmove(left_of + at + 1, left_of + at + 2, (count - at - 1) * sizeof *left_of);
    }
}

/* Text of ids, in one go and streamed; returns its bytes. */
static size_t decode(const pymtp_tokenizer *t, const int32_t *ids, size_t n, int32_t flags, char **out) {
    const int64_t total = pymtp_detokenize(t, ids, n, flags, NULL, 0, NULL);
    fuzz_check(total >= 0);
    char *text = *out = malloc((size_t)total + 1);
    fuzz_check(text && pymtp_detokenize(t, ids, n, flags, text, (size_t)total, NULL) == total);
    pymtp_decoder *d = pymtp_decoder_new(t, flags, NULL);
    size_t at = 0, bytes;
    fuzz_check(d);
    for (size_t i = 0; i <= n; i++) {
        const char *s = i < n ? pymtp_decoder_push(d, ids[i], &bytes) : pymtp_decoder_flush(d, &bytes);
        fuzz_check(s && at + bytes <= (size_t)total && !memcmp(text + at, s, bytes));
        at += bytes;
    }
    pymtp_decoder_free(d);
    fuzz_check(at == (size_t)total);
    for (size_t i = 0, step; i < at; i += step) fuzz_check((step = pm_utf8_char((const uint8_t *)text + i, at - i)));
    return at;
}

static int ascii(const uint8_t *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s[i] >= 0x80) return 0;
    return 1;
}

static void there_and_back(const pymtp_tokenizer *t, const uint8_t *s, size_t n, int32_t flags, int bytes_known) {
    static int32_t ids[MAX_TEXT + 1], few[3];
    static char want[3 * MAX_TEXT];
    const uint64_t ops = pymtp_tokenizer_merge_ops(t);
    const int64_t count = pymtp_tokenize(t, (const char *)s, n, flags, ids, MAX_TEXT + 1, NULL);
    const int bos = (flags & PYMTP_TOK_BOS) != 0, special = flags & PYMTP_TOK_SPECIAL;
    fuzz_check(count >= bos && (size_t)count <= n + (size_t)bos);
    fuzz_check(pymtp_tokenizer_merge_ops(t) - ops <= 6 * n);
    fuzz_check(pymtp_tokenize(t, (const char *)s, n, flags, few, 3, NULL) == count);
    fuzz_check(!memcmp(few, ids, (size_t)(count < 3 ? count : 3) * sizeof *few));
    fuzz_check(!bos || ids[0] == pymtp_tokenizer_bos(t));
    for (int64_t i = 0; i < count; i++) {
        fuzz_check(ids[i] >= 0 && ids[i] < pymtp_tokenizer_size(t));
        fuzz_check(special || !bytes_known || (bos && !i) || pymtp_tokenizer_type(t, ids[i]) != PYMTP_TOKEN_CONTROL);
        fuzz_check(flags & ~PYMTP_TOK_BOS || !bytes_known || (bos && !i) || pymtp_tokenizer_type(t, ids[i]) != PYMTP_TOKEN_UNKNOWN);
    }
    if (!flags && bytes_known && n <= 64) {
        int32_t defined[64];
        fuzz_check(by_definition(t, s, n, defined) == (size_t)count && !memcmp(defined, ids, (size_t)count * sizeof *ids));
    }
    char *text;
    const size_t have = decode(t, ids, (size_t)count, special, &text);
    /* A marker's bytes can cut a character in two, so with these only ASCII is known to come back. */
    if (bytes_known && !bos && (!flags || (special && ascii(s, n)))) {
        const int32_t space = pymtp_tokenizer_find(t, "\xe2\x96\x81", 3);
        const int type = pymtp_tokenizer_type(t, space);
        const int spaces = space >= 0 && type != PYMTP_TOKEN_CONTROL && type != PYMTP_TOKEN_UNKNOWN;
        const size_t bytes = readable(s, n, spaces, want);
        fuzz_check(have == bytes && !memcmp(text, want, bytes));
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    fuzz_bytes in = {data, n};
    const uint8_t flags = fuzz_u8(&in);
    make_pieces(&in, flags);
    make_file(&in, flags);
    char path[64];
    pymtp_error err = {0};
    const int fd = fuzz_file(file.data, file.n, path);
    pymtp_tokenizer *t = pymtp_tokenizer_open(path, &err);
    close(fd);
    fuzz_check(!t == (err.code != PYMTP_OK) && (t || (err.text[0] && !strchr(err.text, '\n'))));
    if (!t) return 0;
    const size_t bytes = in.left < MAX_TEXT ? in.left : MAX_TEXT;
    for (int32_t f = 0; f < 8; f++) there_and_back(t, in.at, bytes, f, (flags & BYTES) != 0);
    static int32_t ids[MAX_TEXT];
    for (size_t i = 0; i < bytes; i++) ids[i] = in.at[i] % pymtp_tokenizer_size(t);
    for (int32_t f = 0; f < 2; f++) {
        char *text;
        decode(t, ids, bytes, f, &text);
        free(text);
    }
    ids[0] = pymtp_tokenizer_size(t);
    fuzz_check(pymtp_detokenize(t, ids, 1, 0, NULL, 0, &err) == PYMTP_E_ARG && err.text[0]);
    pymtp_tokenizer_close(t);
    return 0;
}
