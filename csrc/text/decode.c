/* decode.c - ids to text, in one go and streaming, through the same few functions.
 *
 * Every token gives bytes, and the bytes of all tokens form one stream that is checked as UTF-8 here: byte tokens may
 * build a character together, hidden tokens do not interrupt one. A maximal part of a character that cannot be
 * continued becomes one U+FFFD, as does any byte that starts nothing. So the output is valid UTF-8 for any ids. */
#include "base/memory.h"
#include "text/utf8.h"
#include "text/vocab.h"

#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"
#define REPLACEMENT_BYTES 3

typedef struct stream {
    const pymtp_tokenizer *t;
    int32_t flags;
    char *out;     /* (cap) */
    size_t cap, n; /* n counts beyond cap */
    uint8_t part[4]; /* the unfinished character */
    unsigned have;
} stream;

struct pymtp_decoder { stream s; };

static void write_bytes(stream *s, const void *bytes, size_t n) {
    if (s->n < s->cap) memcpy(s->out + s->n, bytes, n < s->cap - s->n ? n : s->cap - s->n);
    s->n += n;
}

static void finish(stream *s) {
    if (s->have) write_bytes(s, REPLACEMENT, REPLACEMENT_BYTES);
    s->have = 0;
}

static void put_byte(stream *s, uint8_t byte) {
    if (s->have && !pm_utf8_continues(s->part[0], s->have, byte)) finish(s);
    s->part[s->have++] = byte;
    const unsigned length = pm_utf8_length(s->part[0]);
    if (!length) finish(s);
    else if (s->have == length) {
        write_bytes(s, s->part, length);
        s->have = 0;
    }
}

static void put_token(stream *s, int32_t id) {
    const int type = s->t->type[id];
    size_t n;
    const char *piece = pm_piece(s->t, id, &n);
    if ((type == PYMTP_TOKEN_CONTROL || type == PYMTP_TOKEN_UNKNOWN) && !(s->flags & PYMTP_TOK_SPECIAL)) return;
    if (type == PYMTP_TOKEN_BYTE) {
        put_byte(s, (uint8_t)pm_piece_byte(piece, n));
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (n - i >= PM_SPACE_BYTES && !memcmp(piece + i, PM_SPACE, PM_SPACE_BYTES)) {
            put_byte(s, ' ');
            i += PM_SPACE_BYTES - 1;
        } else put_byte(s, (uint8_t)piece[i]);
}

int64_t pymtp_detokenize(const pymtp_tokenizer *t, const int32_t *ids, size_t n, int32_t flags, char *out, size_t cap,
                         pymtp_error *err) {
    pm_clear(err);
    if (!t || (!ids && n) || (!out && cap)) return pm_fail(err, PYMTP_E_ARG, "pymtp_detokenize: a pointer is NULL");
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->n)
            return pm_fail(err, PYMTP_E_ARG, "ids[%zu]: expected 0..%d, found %d", i, t->n - 1, ids[i]);
    stream s = {.t = t, .flags = flags, .out = out, .cap = cap};
    for (size_t i = 0; i < n; i++) put_token(&s, ids[i]);
    finish(&s);
    return (int64_t)s.n;
}

pymtp_decoder *pymtp_decoder_new(const pymtp_tokenizer *t, int32_t flags, pymtp_error *err) {
    pm_clear(err);
    if (!t) {
        pm_fail(err, PYMTP_E_ARG, "pymtp_decoder_new: the tokenizer is NULL");
        return NULL;
    }
    pymtp_decoder *d = pm_new(1, sizeof *d, "decoder", err);
    if (!d) return NULL;
    d->s.t = t;
    d->s.flags = flags;
    /* The worst push: an unfinished character and a piece with nothing valid in it. */
    d->s.out = pm_new(t->longest + 1, REPLACEMENT_BYTES, "decoder", err);
    d->s.cap = (t->longest + 1) * REPLACEMENT_BYTES;
    if (d->s.out) return d;
    pm_free(d);
    return NULL;
}

const char *pymtp_decoder_push(pymtp_decoder *d, int32_t id, size_t *bytes) {
    if (bytes) *bytes = 0;
    if (!d || id < 0 || id >= d->s.t->n) return NULL;
    d->s.n = 0;
    put_token(&d->s, id);
    if (bytes) *bytes = d->s.n;
    return d->s.out;
}

const char *pymtp_decoder_flush(pymtp_decoder *d, size_t *bytes) {
    if (bytes) *bytes = 0;
    if (!d) return NULL;
    d->s.n = 0;
    finish(&d->s);
    if (bytes) *bytes = d->s.n;
    return d->s.out;
}

void pymtp_decoder_free(pymtp_decoder *d) {
    if (!d) return;
    pm_free(d->s.out);
    pm_free(d);
}
