/* test_controller.c - automatic draft depth on simulated machines and texts. The controller sees disturbed times: +-10 %, and three
 * times as much in 2 % of the measurements; runs are judged by the undisturbed times, summed over many seeds, against plain decoding
 * and the best fixed depth on the same texts. All numbers are computed, none is a timing. */
#include "check.h"
#include "engine/controller.h"
#include "random.h"

#define MAX_SESSIONS 8
#define CURVE 8
#define AUTO -1

/* In units of a plain pass at the start of a text. A pass over more rows than the curve has goes on with its last slope. */
typedef struct machine {
    const char *name;
    double pass[CURVE];
    double draft;  /* one step */
    double growth; /* a row of a pass, for 1000 tokens of context: attention */
} machine;

static const machine
    DENSE = {"dense", {1.00, 1.02, 1.07, 1.12, 1.30, 1.35, 1.50, 1.65}, 0.08, 0},
    CHEAP = {"cheap rows", {1.00, 1.01, 1.02, 1.03, 1.05, 1.07, 1.10, 1.14}, 0.02, 0},
    MOE = {"mixture of experts", {1.00, 1.35, 1.60, 1.90, 2.15, 2.40, 2.60, 2.80}, 0.08, 0},
    HALF = {"half linear", {1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5}, 0.05, 0},
    LINEAR = {"linear", {1, 2, 3, 4, 5, 6, 7, 8}, 0.08, 0},
    LONG = {"long context", {1.00, 1.02, 1.07, 1.12, 1.30, 1.35, 1.50, 1.65}, 0.08, 0.1};
static const machine *const MACHINES[] = {&DENSE, &CHEAP, &MOE, &HALF, &LINEAR};
enum { N_MACHINES = sizeof MACHINES / sizeof *MACHINES };

typedef struct session {
    pm_acceptance state;
    double accept; /* of every draft after accepted ones */
    int32_t left, drafts, tokens;
} session;

static int out_of_bounds; /* depths that were not what may be */

static int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

static double unit(rng *r) { return (double)(rng_next(r) >> 11) * 0x1p-53; }

static double disturbed(double seconds, rng *r) {
    const double noisy = seconds * (1 + 0.1 * (double)rng_uniform(r));
    return unit(r) < 0.02 ? 3 * noisy : noisy;
}

static double pass_seconds(const machine *m, int32_t rows, double context) {
    const double curve = rows <= CURVE ? m->pass[rows - 1] : m->pass[CURVE - 1] + (rows - CURVE) * (m->pass[CURVE - 1] - m->pass[CURVE - 2]);
    return curve + rows * m->growth * context / 1000;
}

static int32_t right_drafts(const session *s, rng *r) {
    int32_t n = 0;
    while (n < s->drafts && unit(r) < s->accept) n++;
    return n;
}

/* Depths of the sessions that still run, as step.c asks for them. */
static void automatic_depths(pm_controller *c, session *s, int32_t n) {
    pm_draft_wish wishes[MAX_SESSIONS];
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++)
        if (s[i].left > 0) wishes[count++] = (pm_draft_wish){&s[i].state, 0, smaller(s[i].left - 1, PYMTP_MAX_DRAFT), 0};
    pm_controller_depths(c, wishes, count);
    for (int32_t i = n; i-- > 0;) {
        if (s[i].left <= 0) continue;
        s[i].drafts = wishes[--count].depth;
        out_of_bounds += s[i].drafts < 0 || s[i].drafts > wishes[count].most;
    }
}

/* One step of all sessions together; returns its seconds. depth: AUTO or fixed. busy: times as slow as usual. */
static double step(pm_controller *c, const machine *m, session *s, int32_t n, int32_t depth, double busy, rng *r) {
    int32_t rows = 0, steps = 0;
    if (depth == AUTO) automatic_depths(c, s, n);
    const double context = s->tokens;
    for (int32_t i = 0; i < n; i++) {
        if (s[i].left <= 0) continue;
        if (depth != AUTO) s[i].drafts = smaller(depth, s[i].left - 1);
        rows += 1 + s[i].drafts;
        if (s[i].drafts > steps) steps = s[i].drafts;
        const int32_t accepted = right_drafts(&s[i], r);
        s[i].left -= accepted + 1;
        s[i].tokens += accepted + 1;
        if (depth == AUTO) pm_controller_accepted(c, &s[i].state, s[i].drafts, accepted);
    }
    const double draft = steps * m->draft * busy, pass = pass_seconds(m, rows, context) * busy;
    if (depth == AUTO) pm_controller_cost(c, rows, steps, disturbed(draft, r), disturbed(pass, r));
    return draft + pass;
}

static session request(const pm_controller *c, double accept, int32_t tokens) {
    return (session){.state = pm_acceptance_start(c), .accept = accept, .left = tokens};
}

/* Seconds of one request alone. */
static double alone(pm_controller *c, const machine *m, double accept, int32_t tokens, int32_t depth, rng *r) {
    session s = request(c, accept, tokens);
    double seconds = 0;
    while (s.left > 0) seconds += step(c, m, &s, 1, depth, 1, r);
    return seconds;
}

/* Seconds of one request on a newly opened model, mean over seeds; *longest of them if not NULL. */
static double cold(const machine *m, double accept, int32_t tokens, int32_t depth, double *longest) {
    const uint64_t seeds = tokens < 1000 ? 60 : 8;
    double sum = 0;
    if (longest) *longest = 0;
    for (uint64_t seed = 0; seed < seeds; seed++) {
        rng r = {seed * 7919 + 1};
        pm_controller c;
        pm_controller_init(&c);
        const double seconds = alone(&c, m, accept, tokens, depth, &r);
        if (longest && seconds > *longest) *longest = seconds;
        sum += seconds;
    }
    return sum / (double)seeds;
}

static double best_fixed(const machine *m, double accept, int32_t tokens) {
    double best = cold(m, accept, tokens, 0, NULL);
    for (int32_t d = 1; d <= PYMTP_MAX_DRAFT; d++) {
        const double seconds = cold(m, accept, tokens, d, NULL);
        if (seconds < best) best = seconds;
    }
    return best;
}

/* ---- one request ---- */

static void test_never_below_plain(void) {
    const double accept[] = {0, 0.1, 0.2, 0.3, 0.5, 0.8, 0.95};
    for (int i = 0; i < N_MACHINES; i++)
        for (int k = 0; k < 7; k++) {
            double longest;
            const double seconds = cold(MACHINES[i], accept[k], 96, AUTO, &longest);
            CHECK(seconds <= 96 / (accept[k] > 0.1 ? 0.975 : 0.98), "%s, %g: %g of plain", MACHINES[i]->name, accept[k], 96 / seconds);
            CHECK(longest <= 96 / 0.85, "%s, %g: %g of plain in the worst run", MACHINES[i]->name, accept[k], 96 / longest);
            const double of_long = 2000 / cold(MACHINES[i], accept[k], 2000, AUTO, NULL);
            CHECK(of_long >= 0.99, "%s, %g: %g of plain, long", MACHINES[i]->name, accept[k], of_long);
        }
}

static void test_near_best_depth(void) {
    const double accept[] = {0.5, 0.8, 0.95};
    for (int i = 0; i < N_MACHINES; i++)
        for (int k = 0; k < 3; k++) {
            const double soon = best_fixed(MACHINES[i], accept[k], 96) / cold(MACHINES[i], accept[k], 96, AUTO, NULL);
            const double late = best_fixed(MACHINES[i], accept[k], 2000) / cold(MACHINES[i], accept[k], 2000, AUTO, NULL);
            CHECK(soon >= (accept[k] > 0.9 ? 0.80 : 0.88), "%s, %g: %g of the best depth", MACHINES[i]->name, accept[k], soon);
            CHECK(late >= 0.94, "%s, %g: %g of the best depth, long", MACHINES[i]->name, accept[k], late);
        }
    CHECK(best_fixed(&DENSE, 0.8, 96) / cold(&DENSE, 0.8, 96, AUTO, NULL) >= 0.92, "dense, 0.8");
    CHECK(best_fixed(&DENSE, 0.5, 96) / cold(&DENSE, 0.5, 96, AUTO, NULL) >= 0.95, "dense, 0.5");
}

/* ---- change ---- */

/* Share of the best fixed depth of the text that follows 300 tokens of another; a new request for it, or the same. */
static double after_change(const machine *m, double before, double after, int32_t tokens, int new_request) {
    enum { SEEDS = 60 };
    double sum = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rng r = {seed * 104729 + 5};
        pm_controller c;
        pm_controller_init(&c);
        session s = request(&c, before, 300);
        while (s.left > 0) step(&c, m, &s, 1, AUTO, 1, &r);
        if (new_request) s = request(&c, after, tokens);
        s.accept = after;
        s.left = tokens;
        while (s.left > 0) sum += step(&c, m, &s, 1, AUTO, 1, &r);
    }
    return best_fixed(m, after, tokens) / (sum / SEEDS);
}

static void test_change(void) {
    for (int i = 0; i < N_MACHINES; i++)
        for (int new_request = 0; new_request < 2; new_request++) {
            const machine *m = MACHINES[i];
            const double worse = after_change(m, 0.8, 0.1, 300, new_request), much_worse = after_change(m, 0.95, 0, 300, new_request);
            const double better = after_change(m, 0.0, 0.8, 300, new_request), same = after_change(m, 0.8, 0.8, 96, new_request);
            CHECK(worse >= 0.96, "%s, new %d: %g", m->name, new_request, worse);
            CHECK(much_worse >= 0.90, "%s, new %d: %g", m->name, new_request, much_worse);
            CHECK(better >= 0.88, "%s, new %d: %g", m->name, new_request, better);
            CHECK(same >= 0.95, "%s, new %d: %g", m->name, new_request, same); /* the model remembers */
        }
}

/* Context grows until attention makes a row dear: the fixed depth that is best changes on the way. */
static void test_growing_context(void) {
    for (int k = 0; k < 2; k++) {
        const double accept = k ? 0.8 : 0.4, best = best_fixed(&LONG, accept, 8000), seconds = cold(&LONG, accept, 8000, AUTO, NULL);
        CHECK(best / seconds >= 0.98, "%g: %g of the best depth", accept, best / seconds);
    }
}

/* Everything takes three times as long for a while: the depth does not change with it, nor afterwards. */
static void test_busy_machine(void) {
    double sum = 0, undisturbed = 0;
    for (uint64_t seed = 0; seed < 60; seed++)
        for (int busy = 0; busy < 2; busy++) {
            rng r = {seed * 31 + 7};
            pm_controller c;
            pm_controller_init(&c);
            session s = request(&c, 0.8, 900);
            while (s.left > 0) {
                const double factor = busy && s.tokens >= 300 && s.tokens < 600 ? 3 : 1, seconds = step(&c, &DENSE, &s, 1, AUTO, factor, &r);
                *(busy ? &sum : &undisturbed) += seconds / factor;
            }
        }
    CHECK(undisturbed / sum >= 0.96, "%g", undisturbed / sum);
}

/* ---- several requests ---- */

/* Two texts, each alone in its passes, in turns: each has its own depth. */
static void test_turns(void) {
    for (int i = 0; i < N_MACHINES; i++) {
        double sum = 0;
        for (uint64_t seed = 0; seed < 60; seed++) {
            rng r = {seed * 13 + 3};
            pm_controller c;
            pm_controller_init(&c);
            session good = request(&c, 0.9, 400), bad = request(&c, 0, 400);
            while (good.left > 0 || bad.left > 0) {
                if (good.left > 0) sum += step(&c, MACHINES[i], &good, 1, AUTO, 1, &r);
                if (bad.left > 0) sum += step(&c, MACHINES[i], &bad, 1, AUTO, 1, &r);
            }
        }
        const double best = best_fixed(MACHINES[i], 0.9, 400) + best_fixed(MACHINES[i], 0, 400);
        CHECK(best / (sum / 60) >= 0.95, "%s: %g", MACHINES[i]->name, best / (sum / 60));
    }
}

/* Seconds a token of n sessions that share their passes, over the first 300 * n tokens. */
static double together(const machine *m, double accept, int32_t n, int32_t depth) {
    enum { SEEDS = 20 };
    double seconds = 0, tokens = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rng r = {seed * 17 + 11};
        pm_controller c;
        pm_controller_init(&c);
        session s[MAX_SESSIONS];
        for (int32_t i = 0; i < n; i++) s[i] = request(&c, accept, 1 << 20);
        for (int32_t sum = 0; sum < 300 * n;) {
            seconds += step(&c, m, s, n, depth, 1, &r);
            sum = 0;
            for (int32_t i = 0; i < n; i++) sum += s[i].tokens;
            if (sum >= 300 * n) tokens += sum;
        }
    }
    return seconds / tokens;
}

static void test_shared_passes(void) {
    const double accept[] = {0, 0.5, 0.8};
    for (int i = 0; i < N_MACHINES; i++)
        for (int k = 0; k < 3; k++)
            for (int32_t n = 2; n <= MAX_SESSIONS; n *= 2) {
                const double seconds = together(MACHINES[i], accept[k], n, AUTO), plain = together(MACHINES[i], accept[k], n, 0);
                double best = plain;
                for (int32_t d = 1; d <= 8; d++) {
                    const double fixed = together(MACHINES[i], accept[k], n, d);
                    if (fixed < best) best = fixed;
                }
                CHECK(plain / seconds >= 0.97, "%s, %g, %d sessions: %g of plain", MACHINES[i]->name, accept[k], n, plain / seconds);
                CHECK(best / seconds >= 0.91, "%s, %g, %d sessions: %g of the best depth", MACHINES[i]->name, accept[k], n, best / seconds);
            }
}

/* ---- single decisions ---- */

static int32_t decide(pm_controller *c, const pm_acceptance *a, int32_t limit) {
    pm_draft_wish w = {a, 0, limit, 0};
    pm_controller_depths(c, &w, 1);
    return w.depth;
}

static void test_first_rounds(void) {
    pm_controller c;
    pm_controller_init(&c);
    const pm_acceptance a = pm_acceptance_start(&c);
    CHECK(decide(&c, &a, 16) == 0, "nothing is known: plain first");
    pm_controller_cost(&c, 1, 0, 0, 1);
    CHECK(decide(&c, &a, 16) == 1, "at most twice the widest pass");
    CHECK(decide(&c, &a, 0) == 0, "limit");
    pm_controller_cost(&c, 2, 1, 0, 0); /* a clock too coarse */
    CHECK(decide(&c, &a, 16) <= 3, "finite");
    pm_controller_cost(&c, 200, 16, 1, 30); /* wider than what is learned */
    CHECK(decide(&c, &a, 16) <= 3, "not learned");
}

/* Of sessions that share a pass, the better text gets the drafts; fixed depths are kept. */
static void test_shares(void) {
    pm_controller c;
    pm_controller_init(&c);
    pm_acceptance good = pm_acceptance_start(&c), bad = good;
    for (int i = 0; i < 50; i++) {
        pm_controller_accepted(&c, &good, 4, 4);
        pm_controller_accepted(&c, &bad, 1, 0);
        for (int32_t rows = 1; rows <= 20; rows++) pm_controller_cost(&c, rows, 1, 0.05, 1 + 0.1 * rows);
    }
    c.budget = 0;
    pm_draft_wish w[3] = {{&bad, 0, 8, 0}, {&good, 0, 8, 0}, {&bad, 3, 3, 0}};
    pm_controller_depths(&c, w, 3);
    CHECK(w[0].depth == 0 && w[1].depth >= 4 && w[2].depth == 3, "%d %d %d", w[0].depth, w[1].depth, w[2].depth);
}

int main(void) {
    test_first_rounds();
    test_shares();
    test_never_below_plain();
    test_near_best_depth();
    test_change();
    test_growing_context();
    test_busy_machine();
    test_turns();
    test_shared_passes();
    CHECK(!out_of_bounds, "%d depths", out_of_bounds);
    return check_done();
}
