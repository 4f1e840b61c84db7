/* encode.c - text to ids: special tokens, then runs of newlines and of everything else, then BPE on characters.
 *
 * A run's characters are symbols in a linked list. A queue holds every adjacent pair that can merge, lowest rank first,
 * leftmost first among equals. Merging two symbols makes at most two new pairs, so a run of n symbols costs at most
 * 3 (n - 1) pushes and as many pops, each O(log n): that is what pymtp_tokenizer_merge_ops counts. Entries whose pair has
 * changed meanwhile are recognised when popped. The result does not depend on anything but the text and the flags. */
#include "base/memory.h"
#include "text/utf8.h"
#include "text/vocab.h"

#include <string.h>

/* One symbol of a run; prev and next are indices, -1 at the ends. rank and result are those of merging with next,
 * PM_NO_RANK when they do not merge or the symbol is gone. */
typedef struct symbol { int32_t id, prev, next, result; uint32_t rank; } symbol;

typedef struct encoder {
    const pymtp_tokenizer *t;
    int32_t flags;
    int32_t *ids;   /* (cap) */
    size_t cap, n;  /* n counts beyond cap */
    symbol *symbols; /* (room) */
    uint64_t *queue; /* (3 * room) binary heap of rank << 32 | symbol index */
    size_t room, queued;
    uint64_t ops;
} encoder;

static void emit(encoder *e, int32_t id) {
    if (e->n == 0 && (e->flags & PYMTP_TOK_BOS) && id != e->t->bos) {
        if (e->cap) e->ids[0] = e->t->bos;
        e->n = 1;
    }
    if (e->n < e->cap) e->ids[e->n] = id;
    e->n++;
}

/* ---- the merge queue ---- */

static void push(encoder *e, uint64_t entry) {
    size_t i = e->queued++;
    for (; i && e->queue[(i - 1) / 2] > entry; i = (i - 1) / 2) e->queue[i] = e->queue[(i - 1) / 2];
    e->queue[i] = entry;
    e->ops++;
}

static uint64_t pop(encoder *e) {
    const uint64_t top = e->queue[0], last = e->queue[--e->queued];
    const size_t n = e->queued;
    size_t i = 0;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        child += child + 1 < n && e->queue[child + 1] < e->queue[child];
        if (e->queue[child] >= last) break;
        e->queue[i] = e->queue[child];
        i = child;
    }
    if (n) e->queue[i] = last;
    e->ops++;
    return top;
}

/* Looks at symbol i and the one behind it afresh. */
static void pair(encoder *e, int32_t i) {
    symbol *s = &e->symbols[i];
    const pm_merge *m = s->next < 0 ? NULL : pm_merge_find(e->t, s->id, e->symbols[s->next].id);
    s->rank = m ? m->rank : PM_NO_RANK;
    if (!m) return;
    s->result = m->result;
    push(e, (uint64_t)m->rank << 32 | (uint32_t)i);
}

/* ---- one run ---- */

static pymtp_status make_room(encoder *e, size_t n, pymtp_error *err) {
    if (n <= e->room) return PYMTP_OK;
    pm_free(e->symbols);
    pm_free(e->queue);
    e->room = 0;
    e->symbols = pm_calloc(n, sizeof *e->symbols);
    e->queue = pm_calloc(n, 3 * sizeof *e->queue);
    if (!e->symbols || !e->queue) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: tokenizing %zu bytes", n);
    e->room = n;
    return PYMTP_OK;
}

/* Splits a run into at most n symbols, one per character; a character without a token and a byte that belongs to none
 * become byte tokens, which never merge. (So a space in a vocabulary without U+2581 is <0x20>, not three bytes: it
 * comes back as a space.) Returns the number of symbols. */
static int32_t split(encoder *e, const char *text, size_t n) {
    int32_t count = 0;
    for (size_t i = 0; i < n;) {
        const unsigned length = pm_utf8_char((const uint8_t *)text + i, n - i);
        const int32_t id = text[i] == ' ' ? e->t->space : length ? pm_vocab_find(e->t, text + i, length, "", 0) : -1;
        const size_t end = i + (length ? length : 1);
        if (id >= 0 && pm_plain(e->t, id)) {
            e->symbols[count++].id = id;
            i = end;
        }
        for (; i < end; i++) e->symbols[count++].id = e->t->byte_id[(uint8_t)text[i]];
    }
    return count;
}

static pymtp_status encode_run(encoder *e, const char *text, size_t n, pymtp_error *err) {
    PM_TRY(make_room(e, n, err));
    const int32_t count = split(e, text, n);
    e->queued = 0;
    for (int32_t i = 0; i < count; i++) {
        e->symbols[i].prev = i - 1;
        e->symbols[i].next = i + 1 < count ? i + 1 : -1;
    }
    for (int32_t i = 0; i < count; i++) pair(e, i);
    while (e->queued) {
        const uint64_t entry = pop(e);
        const int32_t i = (int32_t)(uint32_t)entry;
        symbol *s = &e->symbols[i];
        if (s->rank != entry >> 32) continue; /* changed since; the same pair never comes back, pieces only grow */
        symbol *gone = &e->symbols[s->next];
        s->id = s->result;
        s->next = gone->next;
        gone->rank = PM_NO_RANK;
        if (s->next >= 0) e->symbols[s->next].prev = i;
        if (s->prev >= 0) pair(e, s->prev);
        pair(e, i);
    }
    for (int32_t i = 0; i >= 0 && i < count; i = e->symbols[i].next) emit(e, e->symbols[i].id);
    return PYMTP_OK;
}

/* Newlines never merge with anything else, so their runs are coded apart: long texts become short runs. */
static pymtp_status encode_plain(encoder *e, const char *text, size_t n, pymtp_error *err) {
    for (size_t begin = 0, end; begin < n; begin = end) {
        const int newline = text[begin] == '\n';
        for (end = begin + 1; end < n && (text[end] == '\n') == newline; end++) {}
        PM_TRY(encode_run(e, text + begin, end - begin, err));
    }
    return PYMTP_OK;
}

/* ---- special tokens ---- */

static int parsed(const encoder *e, int32_t id) {
    return (e->flags & PYMTP_TOK_SPECIAL) || e->t->type[id] == PYMTP_TOKEN_USER_DEFINED;
}

/* First of the special tokens [low, high), which agree on `depth` bytes, whose next byte is >= byte; those that end
 * there come first. */
static size_t narrow(const pymtp_tokenizer *t, size_t low, size_t high, size_t depth, unsigned byte) {
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        size_t bytes;
        const char *piece = pm_piece(t, t->special[middle], &bytes);
        if (bytes <= depth || (uint8_t)piece[depth] < byte) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The longest special token at the start of text (n >= 1 bytes), or -1. */
static int32_t special_at(const encoder *e, const char *text, size_t n, size_t *length) {
    const pymtp_tokenizer *t = e->t;
    size_t low = t->special_at[(uint8_t)text[0]], high = t->special_at[(uint8_t)text[0] + 1];
    int32_t found = -1;
    for (size_t depth = 1; low < high; depth++) {
        size_t bytes;
        pm_piece(t, t->special[low], &bytes);
        if (bytes == depth && parsed(e, t->special[low])) {
            found = t->special[low];
            *length = depth;
        }
        if (depth == n) break;
        const unsigned byte = (uint8_t)text[depth];
        low = narrow(t, low, high, depth, byte);
        high = narrow(t, low, high, depth, byte + 1);
    }
    return found;
}

static pymtp_status encode_text(encoder *e, const char *text, size_t n, pymtp_error *err) {
    size_t begin = 0;
    if (e->flags & (PYMTP_TOK_SPECIAL | PYMTP_TOK_MARKERS))
        for (size_t i = 0; i < n;) {
            size_t length = 0;
            const int32_t id = special_at(e, text + i, n - i, &length);
            if (id < 0) {
                i++;
                continue;
            }
            PM_TRY(encode_plain(e, text + begin, i - begin, err));
            emit(e, id);
            begin = i += length;
        }
    return encode_plain(e, text + begin, n - begin, err);
}

int64_t pymtp_tokenize(const pymtp_tokenizer *t, const char *text, size_t bytes, int32_t flags, int32_t *ids, size_t cap,
                       pymtp_error *err) {
    pm_clear(err);
    if (!t || (!text && bytes) || (!ids && cap)) return pm_fail(err, PYMTP_E_ARG, "pymtp_tokenize: a pointer is NULL");
    if (flags & ~(PYMTP_TOK_SPECIAL | PYMTP_TOK_BOS | PYMTP_TOK_MARKERS))
        return pm_fail(err, PYMTP_E_ARG, "flags: expected PYMTP_TOK_*, found %d", flags);
    if (bytes > INT32_MAX) return pm_fail(err, PYMTP_E_ARG, "text: expected at most %d bytes, found %zu", INT32_MAX, bytes);
    encoder e = {.t = t, .flags = flags, .ids = ids, .cap = cap};
    const pymtp_status status = encode_text(&e, text, bytes, err);
    pm_free(e.symbols);
    pm_free(e.queue);
    atomic_fetch_add(t->ops, e.ops);
    if (status != PYMTP_OK) return status;
    if (!e.n && (flags & PYMTP_TOK_BOS)) emit(&e, t->bos);
    return (int64_t)e.n;
}
