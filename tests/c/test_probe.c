/* test_probe.c - the probe kernels multiply what they say they do, and pymtp_measure gives usable numbers. */
#include "check.h"
#include "cpu/kernels.h"
#include "pymtp.h"

#include <math.h>
#include <string.h>

#define N 2048
#define ROUNDS 5

/* Every product is 1, so the sum of all is their number: exact in any order. */
static void test_sums(const pm_kernels *k) {
    int8_t bytes[N];
    float floats[N];
    double sum = 0;
    for (size_t i = 0; i < N; i++) {
        bytes[i] = 1;
        floats[i] = 1;
    }
    const double int8 = k->probe_int8(bytes, N, ROUNDS, &sum);
    CHECK(int8 > N && sum == int8, "%s: %g int8 multiply-adds, their sum is %g", k->name, int8, sum);
    const double f32 = k->probe_f32(floats, N, ROUNDS, &sum);
    CHECK(f32 > N && sum == f32, "%s: %g f32 multiply-adds, their sum is %g", k->name, f32, sum);
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
    for (const pm_kernels *const *k = pm_kernels_available(); *k; k++) test_sums(*k);
    test_measure();
    return check_done();
}
