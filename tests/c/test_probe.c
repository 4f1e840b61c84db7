/* test_probe.c - the probe kernels multiply what they say they do, and pymtp_measure gives usable numbers. */
#include "check.h"
#include "cpu/kernels.h"
#include "pymtp.h"

#include <math.h>
#include <string.h>

#define N 2048
#define ROUNDS 5

/* Every value meets two factors, in the order of its address: bytes meet the first four values and the next four, floats
 * the first 16 values twice where the second 16 are equal. All sums are small integers: exact in any order. */
static void test_int8(const pm_kernels *k) {
    int8_t x[N];
    int64_t expected = 0;
    for (size_t i = 0; i < N; i++) x[i] = (int8_t)(i % 7 < 3 || i % 5 == 1);
    for (size_t i = 0; i < N; i++) expected += ROUNDS * x[i] * (x[i % 4] + x[4 + i % 4]);
    CHECK(k->probe_int8(x, N, ROUNDS) == expected, "%s: %d, expected %lld", k->name, k->probe_int8(x, N, ROUNDS), (long long)expected);
}

static void test_f32(const pm_kernels *k) {
    float x[N];
    double expected = 0;
    for (size_t i = 0; i < N; i++) x[i] = (float)(i % 16) / 4;
    for (size_t i = 0; i < N; i++) expected += 2.0 * ROUNDS * (double)x[i] * (double)x[i % 16];
    CHECK((double)k->probe_f32(x, N, ROUNDS) == expected, "%s: %g, expected %g", k->name, (double)k->probe_f32(x, N, ROUNDS), expected);
}

static void test_measure(void) {
    pymtp_machine m = {.size = sizeof m};
    pymtp_error e = {0};
    const pm_kernels *chosen = NULL;
    CHECK(pm_kernels_choose(&chosen, &e) == PYMTP_OK, "%s", e.text);
    CHECK(pymtp_measure(2, &m, &e) == PYMTP_OK, "%s", e.text);
    const double values[] = {m.read_bytes_per_second, m.read_bytes_per_second_best, m.int8_multiply_adds_per_second,
                             m.f32_multiply_adds_per_second};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) CHECK(isfinite(values[i]) && values[i] > 0, "number %zu is %g", i, values[i]);
    CHECK(m.read_bytes_per_second <= m.read_bytes_per_second_best, "a median above the largest");
    CHECK(m.threads == 2 && m.size == sizeof m && !strcmp(m.cpu, chosen->name), "%d threads of %s", m.threads, m.cpu);
    CHECK(pymtp_measure(257, &m, &e) == PYMTP_E_ARG && strstr(e.text, "257"), "%s", e.text);
    m.size = 1;
    CHECK(pymtp_measure(1, &m, &e) == PYMTP_E_ARG && strstr(e.text, "size"), "%s", e.text);
}

int main(void) {
    for (const pm_kernels *const *k = pm_kernels_available(); *k; k++) {
        test_int8(*k);
        test_f32(*k);
    }
    test_measure();
    return check_done();
}
