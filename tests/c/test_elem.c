/* test_elem.c - the elementwise kernels of every kernel set against double, and their edges.
 *
 * Bounds count roundings: u = 2^-24 is the relative error of one operation, and a sum in 16 lanes of n terms has at
 * most n / 16 + 1 roundings in a lane and 4 in the fold. exp as built here is within 4 u: its series adds terms of at
 * most 0.42 to 1 (1 u for the last addition, 0.42 * 3 u before), the reduction errs by 0.35 u and both scalings are
 * exact above the subnormals. */
#include "base/f16.h"
#include "check.h"
#include "cpu/kernels.h"
#include "random.h"

#include <math.h>
#include <string.h>

#define U 0x1p-24
#define MAX 600
#define GUARD 20

static const pm_kernels *k;

/* A wide range of magnitudes and both signs, then ordinary values. */
static void sample(rng *r, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float v = rng_uniform(r);
        x[i] = i % 3 == 0 ? ldexpf(v, (int)(rng_next(r) % 60) - 45) : i % 3 == 1 ? 12 * v : v;
    }
}

static void near_double(const char *what, float have, double want, double bound) {
    CHECK(fabs((double)have - want) <= bound, "%s %s: %.9g, expected %.9g, bound %.3g", k->name, what, (double)have, want, bound);
}

static double gelu(double x) { return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x))); }

/* ---- values ---- */

/* 2 x exact, m = e^2x - 1 within 4 u (smallest where n = -1: |m| >= 0.29 from terms of at most 0.5), + 2, division, x / cap, times
 * cap: 8 u more; tanh does not enlarge relative errors of its argument. */
static void test_softcap(void) {
    static const float caps[] = {30.0f, 1.0f, 0.7f};
    for (int c = 0; c < 3; c++) {
        for (int i = -4000; i <= 4000; i++) {
            float x = (float)i * 0.013f * caps[c], y = ldexpf(i < 0 ? -1.3f : 1.3f, i / 32), in = x, in_y = y;
            k->softcap(&x, 1, caps[c]);
            k->softcap(&y, 1, caps[c]);
            const double cap = (double)caps[c], want = cap * tanh((double)in / cap), want_y = cap * tanh((double)in_y / cap);
            near_double("softcap", x, want, 14 * U * fabs(want) + 0x1p-126);
            near_double("softcap", y, want_y, 14 * U * fabs(want_y) + 0x1p-125);
        }
        float edge[3] = {INFINITY, -INFINITY, NAN};
        k->softcap(edge, 3, caps[c]);
        CHECK(edge[0] == caps[c] && edge[1] == -caps[c] && isnan(edge[2]), "%s softcap edges %g %g %g", k->name, (double)edge[0],
              (double)edge[1], (double)edge[2]);
    }
}

/* Argument of exp: 6 roundings of its size, so 6 u |a| relative; exp, 1 +, division, times up: 8 u. e overflows at |a| > 88.7 where
 * the true value is below |x up| 2^-127. */
static void test_gelu(void) {
    for (int i = -6000; i <= 6000; i++) {
        const float up = i % 2 ? 1.0f : -2.5f;
        float x = (float)i * 0.003f, y = ldexpf(i < 0 ? -1.1f : 1.1f, i / 48), out, out_y;
        k->gelu_mul(&x, &up, 1, &out);
        k->gelu_mul(&y, &up, 1, &out_y);
        const double dx = (double)x, dy = (double)y, du = (double)up;
        /* tanh form loses all digits where 1 + tanh cancels: the same function as a logistic */
        const double ax = 2 * sqrt(2 / acos(-1.0)) * (dx + 0.044715 * dx * dx * dx), ay = 2 * sqrt(2 / acos(-1.0)) * (dy + 0.044715 * dy * dy * dy);
        const double want = dx / (1 + exp(-ax)) * du, want_y = dy / (1 + exp(-ay)) * du;
        near_double("gelu", out, want, (6 * fabs(ax) + 8) * U * fabs(want) + fabs(dx * du) * 0x1p-126 + 0x1p-126);
        if (isfinite(ay)) near_double("gelu", out_y, want_y, (6 * fabs(ay) + 8) * U * fabs(want_y) + fabs(dy * du) * 0x1p-126 + 0x1p-126);
        if (fabs(dx) < 4) CHECK(fabs(want - gelu(dx) * du) < 1e-12, "the two forms of gelu differ at %g", dx);
    }
    const float in[2] = {INFINITY, NAN}, up[2] = {1, 1};
    float out[2];
    k->gelu_mul(in, up, 2, out);
    CHECK(out[0] == INFINITY && isnan(out[1]), "%s gelu edges %g %g", k->name, (double)out[0], (double)out[1]);
}

/* x - max errs by u |x - max| absolutely, so exp by as much relatively; then exp 4 u, the sum n / 16 + 5, 1 / sum and the product 2. */
static void test_softmax(void) {
    rng r = {7};
    for (size_t n = 1; n < MAX; n += n < 40 ? 1 : 77) {
        float x[MAX], y[MAX];
        double max = -INFINITY, sum = 0;
        rng_fill(&r, x, n, n % 3 ? 6.0f : 80.0f);
        if (n > 3) x[1] = -INFINITY;
        memcpy(y, x, sizeof y);
        k->softmax(y, n);
        for (size_t i = 0; i < n; i++) max = (double)x[i] > max ? (double)x[i] : max;
        for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - max);
        for (size_t i = 0; i < n; i++) {
            const double want = exp((double)x[i] - max) / sum, away = isfinite(x[i]) ? max - (double)x[i] : 0;
            near_double("softmax", y[i], want, (2 * away + (double)n / 16 + 12) * U * want + 0x1p-126);
        }
    }
    float bad[40];
    for (int i = 0; i < 40; i++) bad[i] = (float)i;
    bad[5] = NAN;
    k->softmax(bad, 40);
    for (int i = 0; i < 40; i++) CHECK(isnan(bad[i]), "%s softmax hides a NaN", k->name);
}

static void test_sums(void) {
    rng r = {11};
    for (size_t n = 1; n < MAX; n += n < 40 ? 1 : 53) {
        float a[MAX], b[MAX], y[MAX];
        double sum = 0, size = 0, squares = 0;
        sample(&r, a, n);
        rng_fill(&r, b, n, 1.5f);
        for (size_t i = 0; i < n; i++) {
            sum += (double)a[i] * (double)b[i];
            size += fabs((double)a[i] * (double)b[i]);
            squares += (double)a[i] * (double)a[i];
        }
        const double terms = (double)n / 16 + 7;
        near_double("dot", k->dot(a, b, n), sum, terms * U * size + 0x1p-126);
        for (int weighted = 0; weighted < 2; weighted++) { /* the sum's error is halved by the root; + eps, root, 1 /, 2 products */
            k->rms_norm(a, weighted ? b : NULL, n, 1e-6f, y);
            for (size_t i = 0; i < n; i++) {
                const double want = (double)a[i] / sqrt(squares / (double)n + (double)1e-6f) * (weighted ? (double)b[i] : 1);
                near_double("rms_norm", y[i], want, (terms / 2 + 6) * U * fabs(want) + 0x1p-126);
            }
        }
    }
}

static void test_linear(void) {
    rng r = {13};
    for (size_t n = 1; n < 100; n++) {
        float x[MAX], y[MAX], z[MAX];
        sample(&r, x, n);
        sample(&r, y, n);
        memcpy(z, y, sizeof z);
        k->add(x, n, z);
        for (size_t i = 0; i < n; i++) CHECK(z[i] == x[i] + y[i], "%s add", k->name);
        memcpy(z, x, sizeof z);
        k->scale(z, n, 0.37f);
        for (size_t i = 0; i < n; i++) CHECK(z[i] == x[i] * 0.37f, "%s scale", k->name);
        memcpy(z, y, sizeof z);
        k->axpy(-1.7f, x, n, z);
        for (size_t i = 0; i < n; i++) {
            const double product = (double)-1.7f * (double)x[i];
            near_double("axpy", z[i], (double)y[i] + product, U * (fabs(product) + fabs((double)y[i] + product)) * 1.01 + 0x1p-149);
        }
        if (n % 2) continue;
        float c[MAX], s[MAX];
        for (size_t i = 0; i < n / 2; i++) {
            c[i] = cosf((float)i);
            s[i] = sinf((float)i);
        }
        memcpy(z, x, sizeof z);
        k->rope(z, n, c, s);
        for (size_t i = 0; i < n / 2; i++) {
            const double a = (double)x[i], b = (double)x[i + n / 2], dc = (double)c[i], ds = (double)s[i];
            near_double("rope", z[i], a * dc - b * ds, 2 * U * (fabs(a * dc) + fabs(b * ds)) + 0x1p-148);
            near_double("rope", z[i + n / 2], b * dc + a * ds, 2 * U * (fabs(b * dc) + fabs(a * ds)) + 0x1p-148);
        }
    }
}

/* ---- stored heads ---- */

static void test_kv(void) {
    rng r = {17};
    for (size_t n = 1; n <= 100; n++) {
        float x[100], y[100 + GUARD];
        _Alignas(16) unsigned char stored[4 * 100 + GUARD];
        sample(&r, x, n);
        for (int32_t type = 0; type <= 2; type++) {
            const size_t bytes = type == PYMTP_KV_F32 ? 4 * n : type == PYMTP_KV_F16 ? 2 * n : 34 * ((n + 31) / 32);
            memset(stored, 0xa5, sizeof stored);
            for (size_t i = 0; i < 100 + GUARD; i++) y[i] = 123;
            k->kv_store(x, n, type, stored);
            k->kv_load(stored, n, type, y);
            for (size_t i = bytes; i < sizeof stored; i++) CHECK(stored[i] == 0xa5, "%s kv_store type %d wrote beyond", k->name, type);
            for (size_t i = n; i < n + GUARD; i++) CHECK(y[i] == 123, "%s kv_load type %d wrote beyond", k->name, type);
            if (type == PYMTP_KV_Q8_0 && n % 32)
                for (size_t i = n % 32; i < 32; i++) CHECK(!stored[bytes - 32 + i], "%s last block is not zero-filled", k->name);
            for (size_t i = 0; i < n; i++) {
                double most = 0;
                for (size_t j = i / 32 * 32; j < n && j < i / 32 * 32 + 32; j++) most = fmax(most, fabs((double)x[j]));
                if (type == PYMTP_KV_F32) CHECK(y[i] == x[i], "f32");
                if (type == PYMTP_KV_F16) CHECK(y[i] == pm_f16_to_f32(pm_f32_to_f16(x[i])), "f16 %g %g", (double)x[i], (double)y[i]);
                /* half a step, 127 steps of a scale rounded to f16 (2^-11, or 2^-25 where it is subnormal), float roundings */
                if (type == PYMTP_KV_Q8_0)
                    near_double("q8_0", y[i], (double)x[i], most * (0.5 / 127 + 0x1p-11 + 4 * U) + 127 * 0x1p-25);
            }
        }
    }
    float bad[40] = {1, 2, NAN}, back[40];
    unsigned char stored[160];
    for (int32_t type = 0; type <= 2; type++) {
        k->kv_store(bad, 40, type, stored);
        k->kv_load(stored, 40, type, back);
        CHECK(isnan(back[2]) && !isnan(back[33]), "%s: a NaN stored as type %d is lost or spreads", k->name, type);
    }
}

/* ---- edges: nothing is read that matters or written beyond n, and an element does not depend on n ---- */

static void test_edges(void) {
    rng r = {19};
    float x[MAX], w[MAX], one[MAX], out[MAX];
    sample(&r, x, MAX);
    sample(&r, w, MAX);
    for (size_t i = 0; i < MAX; i++) k->gelu_mul(&x[i], &w[i], 1, &one[i]);
    for (size_t n = 1; n < 70; n++) {
        for (size_t shift = 0; shift < 3; shift++) {
            float in[MAX], weight[MAX], alone[70], norm[70];
            for (size_t i = 0; i < MAX; i++) in[i] = weight[i] = out[i] = NAN;
            memcpy(in + shift, x, n * sizeof(float));
            memcpy(weight + shift, w, n * sizeof(float));
            k->gelu_mul(in + shift, weight + shift, n, out + shift);
            CHECK(!memcmp(out + shift, one, n * sizeof(float)), "%s gelu_mul depends on n = %zu", k->name, n);
            CHECK(isnan(out[shift + n]) && (!shift || isnan(out[shift - 1])), "%s gelu_mul wrote beyond n = %zu", k->name, n);
            k->rms_norm(x, w, n, 1e-6f, norm);
            k->rms_norm(in + shift, weight + shift, n, 1e-6f, out + shift);
            CHECK(!memcmp(out + shift, norm, n * sizeof(float)), "%s rms_norm reads beyond n = %zu", k->name, n);
            k->rms_norm(in + shift, weight + shift, n, 1e-6f, in + shift);
            CHECK(!memcmp(in + shift, norm, n * sizeof(float)) && isnan(in[shift + n]), "%s rms_norm in place, n = %zu", k->name, n);
            memcpy(alone, x, sizeof alone);
            k->softmax(alone, n);
            memcpy(in + shift, x, n * sizeof(float));
            k->softmax(in + shift, n);
            CHECK(!memcmp(in + shift, alone, n * sizeof(float)) && isnan(in[shift + n]), "%s softmax reads or writes beyond n = %zu", k->name, n);
        }
    }
}

static void test_peak(void) {
    static const float bad[3] = {NAN, INFINITY, -INFINITY};
    rng r = {23};
    float x[MAX];
    sample(&r, x, MAX);
    for (size_t n = 1; n < 70; n++) {
        const float after = x[n];
        float largest = x[0];
        for (size_t i = 1; i < n; i++) largest = x[i] > largest ? x[i] : largest;
        x[n] = n % 2 ? NAN : 1e30f; /* not read */
        CHECK(k->peak(x, n) == largest, "%s peak of %zu", k->name, n);
        for (size_t i = 0; i < n; i++) {
            const float kept = x[i];
            x[i] = bad[(i + n) % 3];
            CHECK(isnan(k->peak(x, n)), "%s peak of %zu: %g at %zu is not seen", k->name, n, (double)x[i], i);
            x[i] = kept;
        }
        x[n] = after;
    }
}

int main(void) {
    for (const pm_kernels *const *set = pm_kernels_available(); *set; set++) {
        k = *set;
        test_softcap();
        test_gelu();
        test_softmax();
        test_sums();
        test_linear();
        test_kv();
        test_edges();
        test_peak();
    }
    return check_done();
}
