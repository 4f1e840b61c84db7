/* test_stop.c - stop strings against a brute-force reading of their definition, over random texts and random cuts. */
#include "check.h"
#include "engine/stop.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STOPS 5
#define MAX_TEXT 64

static uint32_t seed = 1;
static uint32_t below(uint32_t n) { /* 0..n-1 */
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(seed >> 8) * n >> 24);
}

static size_t random_text(char *out, size_t n, uint32_t letters) {
    for (size_t i = 0; i < n; i++) out[i] = (char)('a' + below(letters));
    return n;
}

/* Of text[0, n): is one of the stops its end? The longest such, else 0. *held: the longest end of the text that is a
 * proper prefix of a stop. */
static size_t ending(const char *const *stops, const size_t *bytes, size_t n_stops, const char *text, size_t n, size_t *held) {
    size_t complete = 0;
    *held = 0;
    for (size_t i = 0; i < n_stops; i++)
        for (size_t k = 1; k <= bytes[i] && k <= n; k++) {
            if (memcmp(text + n - k, stops[i], k)) continue;
            if (k == bytes[i] && k > complete) complete = k;
            if (k < bytes[i] && k > *held) *held = k;
        }
    return complete;
}

static void compare(const char *const *stops, const size_t *bytes, size_t n_stops, const char *text, size_t n) {
    pymtp_error err = {0};
    pm_stop *s = NULL;
    CHECK(pm_stop_new(stops, bytes, n_stops, &s, &err) == PYMTP_OK, "%s", err.text);
    if (!s) return;
    char *shown = malloc(n + 1);
    size_t n_shown = 0, at = 0, piece, held = 0, want = 0;
    int hit = 0, want_hit = 0;
    while (at < n && !want_hit) {
        const size_t step = 1 + below(4), end = at + step < n ? at + step : n;
        CHECK(pm_stop_push(s, text + at, end - at, &hit, &err) == PYMTP_OK, "%s", err.text);
        for (; at < end && !want_hit; at++) {
            const size_t complete = ending(stops, bytes, n_stops, text, at + 1, &held);
            want_hit = complete > 0;
            want = at + 1 - (complete ? complete : held);
        }
        CHECK(hit == want_hit, "hit %d, expected %d after %zu bytes", hit, want_hit, at);
        const char *released = pm_stop_text(s, &piece);
        CHECK(n_shown + piece == want, "%zu bytes released, expected %zu", n_shown + piece, want);
        if (n_shown + piece > n) break;
        memcpy(shown + n_shown, released, piece);
        if (below(2)) { /* else they stay and must still be there after the next push */
            n_shown += piece;
            pm_stop_take(s);
        }
    }
    if (!want_hit) want = n;
    CHECK(pm_stop_flush(s, &err) == PYMTP_OK, "%s", err.text);
    const char *rest = pm_stop_text(s, &piece);
    CHECK(n_shown + piece == want, "%zu bytes in all, expected %zu", n_shown + piece, want);
    if (n_shown + piece <= n) memcpy(shown + n_shown, rest, piece);
    CHECK(!memcmp(shown, text, want), "other text");
    pm_stop_take(s);
    CHECK(pm_stop_push(s, "abc", 3, &hit, &err) == PYMTP_OK && hit == want_hit, "after the end");
    pm_stop_text(s, &piece);
    CHECK(!piece, "text after the end");
    free(shown);
    pm_stop_free(s);
}

static void test_random(void) {
    for (int round = 0; round < 20000; round++) {
        char text[MAX_TEXT], strings[MAX_STOPS][8];
        const char *stops[MAX_STOPS];
        size_t bytes[MAX_STOPS];
        const uint32_t letters = 1 + below(3);
        const size_t n_stops = below(MAX_STOPS + 1);
        for (size_t i = 0; i < n_stops; i++) {
            bytes[i] = random_text(strings[i], 1 + below(8), letters);
            stops[i] = strings[i];
        }
        compare(stops, bytes, n_stops, text, random_text(text, below(MAX_TEXT), letters));
    }
}

/* A long partial match that fails late, again and again. */
static void test_long(void) {
    enum { N = 3000, STOP = 500 };
    char *text = malloc(N), *stop = malloc(STOP);
    memset(text, 'a', N);
    memset(stop, 'a', STOP);
    stop[STOP - 1] = 'b';
    const size_t bytes = STOP;
    compare((const char *const *)&stop, &bytes, 1, text, N);
    text[N - 2] = 'b';
    compare((const char *const *)&stop, &bytes, 1, text, N);
    free(text);
    free(stop);
}

static void test_edges(void) {
    pymtp_error err = {0};
    pm_stop *s = NULL;
    const char *strings[] = {"ok", ""};
    const size_t bytes[] = {2, 0};
    CHECK(pm_stop_new(strings, bytes, 2, &s, &err) == PYMTP_E_ARG && strstr(err.text, "stop[1]") && !s, "%s", err.text);
    const char *zero[] = {"\0x"}; /* a NUL is a byte like others */
    const size_t two[] = {2};
    compare(zero, two, 1, "ab\0\0xcd", 7);
    const char *both[] = {"bc", "abc", "abcd"}; /* several end together: the longest counts; what completes first wins */
    const size_t lengths[] = {2, 3, 4};
    compare(both, lengths, 3, "xxabcd", 6);
    pm_stop_free(NULL);
}

int main(void) {
    test_edges();
    test_random();
    test_long();
    return check_done();
}
