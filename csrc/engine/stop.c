/* stop.c - stop strings over a stream, a byte at a time, so that the pieces in which the text arrives do not matter.
 *
 * The first stop string to become complete ends the text; of several that end on the same byte the longest, for it began
 * first. Each string knows how many of its bytes the text ends with (Knuth-Morris-Pratt); the largest such number is
 * what is held back. Work is amortised O(bytes * strings). */
#include "engine/stop.h"

#include "base/checked.h"
#include "base/memory.h"

#include <string.h>

typedef struct pattern {
    char *text;     /* (n) */
    size_t *border; /* (n) border[i]: longest proper prefix of text[0..i] that is also its suffix */
    size_t n;
    size_t matched; /* bytes of it that the stream ends with, < n */
} pattern;

struct pm_stop {
    pattern *patterns; /* (n) */
    size_t n;
    char *buffer;      /* (cap): taken [0, begin), released [begin, released), held back [released, end) */
    size_t cap, begin, released, end;
    int hit, ended;
};

static size_t advance(const pattern *p, size_t matched, char c) {
    while (matched && p->text[matched] != c) matched = p->border[matched - 1];
    return matched + (p->text[matched] == c);
}

static pymtp_status pattern_init(pattern *p, const char *text, size_t n, pymtp_error *err) {
    p->text = pm_new(n, 1, "stop string", err);
    p->border = pm_new(n, sizeof *p->border, "stop string", err);
    if (!p->text || !p->border) return PYMTP_E_NOMEM;
    memcpy(p->text, text, n);
    p->n = n;
    for (size_t i = 1; i < n; i++) p->border[i] = advance(p, p->border[i - 1], text[i]);
    return PYMTP_OK;
}

pymtp_status pm_stop_new(const char *const *strings, const size_t *bytes, size_t n, pm_stop **out, pymtp_error *err) {
    *out = NULL;
    for (size_t i = 0; i < n; i++)
        if (!strings[i] || !bytes[i]) return pm_fail(err, PYMTP_E_ARG, "stop[%zu]: expected a non-empty string", i);
    pm_stop *s = pm_new(1, sizeof *s, "stop strings", err);
    if (!s) return PYMTP_E_NOMEM;
    pymtp_status status = PYMTP_OK;
    if (!(s->patterns = pm_new(n, sizeof *s->patterns, "stop strings", err))) status = PYMTP_E_NOMEM;
    else s->n = n;
    for (size_t i = 0; i < n && status == PYMTP_OK; i++) status = pattern_init(&s->patterns[i], strings[i], bytes[i], err);
    if (status != PYMTP_OK) pm_stop_free(s);
    else *out = s;
    return status;
}

void pm_stop_free(pm_stop *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) {
        pm_free(s->patterns[i].text);
        pm_free(s->patterns[i].border);
    }
    pm_free(s->patterns);
    pm_free(s->buffer);
    pm_free(s);
}

/* Drops what was taken, once that is more than half, and makes room for `bytes` more. */
static pymtp_status reserve(pm_stop *s, size_t bytes, pymtp_error *err) {
    if (s->begin > s->end - s->begin) {
        memmove(s->buffer, s->buffer + s->begin, s->end - s->begin);
        s->released -= s->begin;
        s->end -= s->begin;
        s->begin = 0;
    }
    size_t need;
    if (pm_add_size(s->end, bytes, &need) || need > SIZE_MAX / 2)
        return pm_fail(err, PYMTP_E_NOMEM, "out of memory: text held for stop strings");
    if (need <= s->cap) return PYMTP_OK;
    const size_t cap = need < 256 ? 256 : need * 2;
    char *p = pm_realloc(s->buffer, cap, 1);
    if (!p) return pm_fail(err, PYMTP_E_NOMEM, "out of memory: text held for stop strings (%zu bytes)", cap);
    s->buffer = p;
    s->cap = cap;
    return PYMTP_OK;
}

/* Appends one byte. Returns the length of the stop string it completes, else 0; *held: bytes to hold back. */
static size_t append(pm_stop *s, char c, size_t *held) {
    size_t complete = 0;
    *held = 0;
    s->buffer[s->end++] = c;
    for (size_t i = 0; i < s->n; i++) {
        pattern *p = &s->patterns[i];
        p->matched = advance(p, p->matched, c);
        if (p->matched == p->n) {
            if (p->n > complete) complete = p->n;
            p->matched = 0; /* the stream ends here, whatever else was under way */
        } else if (p->matched > *held) *held = p->matched;
    }
    return complete;
}

pymtp_status pm_stop_push(pm_stop *s, const char *text, size_t bytes, int *hit, pymtp_error *err) {
    *hit = s->hit;
    if (s->ended || !bytes) return PYMTP_OK;
    PM_TRY(reserve(s, bytes, err));
    size_t held = s->end - s->released;
    for (size_t i = 0; i < bytes; i++) {
        const size_t complete = append(s, text[i], &held);
        if (!complete) continue;
        s->end -= complete;
        s->released = s->end;
        *hit = s->hit = s->ended = 1;
        return PYMTP_OK;
    }
    s->released = s->end - held;
    return PYMTP_OK;
}

pymtp_status pm_stop_flush(pm_stop *s, pymtp_error *err) {
    s->released = s->end;
    s->ended = 1;
    return PYMTP_OK;
}

const char *pm_stop_text(const pm_stop *s, size_t *bytes) {
    *bytes = s->released - s->begin;
    return s->buffer ? s->buffer + s->begin : "";
}

void pm_stop_take(pm_stop *s) { s->begin = s->released; }
