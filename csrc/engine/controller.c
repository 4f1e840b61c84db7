/* controller.c - costs, acceptance, the choice of depth. The model is described in controller.h. */
#include "engine/controller.h"

/* costs */
#define STALE 64              /* rounds after which what is known of a cost counts as one sample */
#define SHARED (2.0 / 3)      /* of a change of a well-known width that all other costs follow */
#define DISTURBED 1.2         /* plain decoding that seems so much dearer than a wider pass is measured again */
/* acceptance */
#define PRIOR_ACCEPT 0.6      /* of a trained drafter on ordinary text */
#define PRIOR_JUDGED 1.0      /* rounds that it counts as when a request starts */
#define START_JUDGED 2.5      /* rounds that all earlier requests count as then, at most */
#define KEEP (1 - 1.0 / 12)   /* of the counts, from round to round */
#define LEAST_JUDGED 2.0      /* counts do not fade below this: drafts that are not made must not be forgotten to be bad */
#define POOL 2.0              /* rounds that position i - 1 counts as for position i */
/* exploring, in plain passes */
#define BUDGET_START 0.2
#define BUDGET_ROUND 0.005
#define BUDGET_MOST 1.0
#define LEAST_CHARGE 0.02     /* a probe is never free: estimates are not that exact */

static double least(double a, double b) { return a < b ? a : b; }
static double most(double a, double b) { return a > b ? a : b; }

void pm_controller_init(pm_controller *c) { *c = (pm_controller){.budget = BUDGET_START}; }

/* ---- costs ---- */

/* Narrowest measured width from `rows` up, and widest from `rows` down; 0: none. */
static int32_t measured_up(const pm_controller *c, int32_t rows) {
    for (; rows <= PM_COST_ROWS; rows++)
        if (c->pass[rows].samples) return rows;
    return 0;
}

static int32_t measured_down(const pm_controller *c, int32_t rows) {
    if (rows > PM_COST_ROWS) rows = PM_COST_ROWS;
    while (rows > 0 && !c->pass[rows].samples) rows--;
    return rows;
}

/* Of a measured width. A narrow pass that seems dearer than a wider one was disturbed. */
static double measured_cost(const pm_controller *c, int32_t rows) {
    double seconds = c->pass[rows].seconds;
    for (int32_t w = rows + 1; w <= PM_COST_ROWS; w++)
        if (c->pass[w].samples) seconds = least(seconds, c->pass[w].seconds);
    return seconds;
}

/* The line through two measured widths, at `rows`. */
static double line(const pm_controller *c, int32_t low, int32_t high, int32_t rows) {
    const double at_low = measured_cost(c, low), at_high = measured_cost(c, high);
    return low == high ? at_low : at_low + (at_high - at_low) * (rows - low) / (high - low);
}

/* Some width is measured. */
static double pass_cost(const pm_controller *c, int32_t rows) {
    const int32_t low = measured_down(c, rows), high = measured_up(c, rows);
    if (!low) return measured_cost(c, high);
    return high ? line(c, low, high, rows) : line(c, measured_up(c, 1), low, rows);
}

/* The lower of two in the middle: of two samples, the one that was less disturbed. */
static double median(const double *x, int32_t n) {
    double sorted[PM_COST_SAMPLES];
    for (int32_t i = 0; i < n; i++) {
        int32_t at = i;
        for (; at && sorted[at - 1] > x[i]; at--) sorted[at] = sorted[at - 1];
        sorted[at] = x[i];
    }
    return sorted[(n - 1) / 2];
}

static void measured(pm_cost *e, double seconds, uint64_t round) {
    if (e->samples && round - e->round > STALE) {
        e->sample[0] = e->seconds;
        e->samples = e->next = 1;
    }
    e->sample[e->next] = seconds;
    e->next = (e->next + 1) % PM_COST_SAMPLES;
    if (e->samples < PM_COST_SAMPLES) e->samples++;
    e->seconds = median(e->sample, e->samples);
    e->round = round;
}

static void scale(pm_cost *e, double factor) {
    e->seconds *= factor;
    for (int32_t i = 0; i < e->samples; i++) e->sample[i] *= factor;
}

static void pass_measured(pm_controller *c, int32_t rows, double seconds) {
    pm_cost *own = &c->pass[rows];
    const double before = own->seconds;
    const int32_t samples = own->samples, narrower = measured_down(c, rows - 1);
    /* rows in one pass cost at most what they cost in several: a first sample above that was disturbed */
    if (!samples && narrower) seconds = least(seconds, measured_cost(c, narrower) * rows / narrower);
    measured(own, seconds, c->rounds);
    if (samples < PM_COST_SAMPLES || own->samples < PM_COST_SAMPLES) return;
    const double factor = 1 + SHARED * (own->seconds / before - 1);
    for (int32_t w = 1; w <= PM_COST_ROWS; w++)
        if (w != rows) scale(&c->pass[w], factor);
    scale(&c->draft, factor);
}

void pm_controller_cost(pm_controller *c, int32_t rows, int32_t draft_steps, double draft_seconds, double pass_seconds) {
    c->rounds++;
    c->budget = least(c->budget + BUDGET_ROUND, BUDGET_MOST);
    if (rows <= PM_COST_ROWS) pass_measured(c, rows, most(pass_seconds, 1e-9)); /* a coarse clock may say 0 */
    if (draft_steps) measured(&c->draft, draft_seconds / draft_steps, c->rounds);
}

/* ---- acceptance ---- */

double pm_acceptance_tokens(const pm_acceptance *a, int32_t depth) {
    double tokens = 1, reach = 1, accept = a->accepted[0] / a->judged[0];
    for (int32_t i = 0; i < depth; i++) {
        if (i) accept = (a->accepted[i] + POOL * accept) / (a->judged[i] + POOL);
        reach *= accept;
        tokens += reach;
    }
    return tokens;
}

pm_acceptance pm_acceptance_start(const pm_controller *c) {
    pm_acceptance a = c->acceptance;
    for (int32_t i = 0; i < PYMTP_MAX_DRAFT; i++) {
        if (a.judged[i] <= START_JUDGED) continue;
        a.accepted[i] *= START_JUDGED / a.judged[i];
        a.judged[i] = START_JUDGED;
    }
    a.judged[0] += PRIOR_JUDGED;
    a.accepted[0] += PRIOR_JUDGED * PRIOR_ACCEPT;
    return a;
}

static void judge(pm_acceptance *a, int32_t judged, int32_t accepted) {
    for (int32_t i = 0; i < PYMTP_MAX_DRAFT; i++) {
        if (a->judged[i] > LEAST_JUDGED) {
            a->accepted[i] *= KEEP;
            a->judged[i] *= KEEP;
        }
        if (i >= judged || i > accepted) continue; /* a draft after a wrong one tells nothing */
        a->judged[i]++;
        if (i < accepted) a->accepted[i]++;
    }
}

void pm_controller_accepted(pm_controller *c, pm_acceptance *a, int32_t judged, int32_t accepted) {
    judge(&c->acceptance, judged, accepted);
    judge(a, judged, accepted);
}

/* ---- depth ---- */

typedef struct prospect {
    double tokens, seconds;
} prospect;

static prospect expect(const pm_controller *c, const pm_acceptance *a, const pm_mates *mates, int32_t depth) {
    const int32_t steps = depth > mates->draft_steps ? depth : mates->draft_steps;
    return (prospect){mates->tokens + pm_acceptance_tokens(a, depth), pass_cost(c, mates->rows + 1 + depth) + steps * c->draft.seconds};
}

static int32_t best_depth(const pm_controller *c, const pm_acceptance *a, const pm_mates *mates, int32_t limit) {
    int32_t best = 0;
    double best_speed = 0;
    for (int32_t d = 0; d <= limit; d++) {
        const prospect p = expect(c, a, mates, d);
        if (p.tokens / p.seconds <= best_speed) continue;
        best_speed = p.tokens / p.seconds;
        best = d;
    }
    return best;
}

/* Of one draft more, one less and none: the depth whose pass was measured longest ago, when the budget allows it; else the best. */
static int32_t explore(pm_controller *c, const pm_acceptance *a, const pm_mates *mates, int32_t best, int32_t limit) {
    const int32_t candidates[] = {best + 1, best - 1, 0}, base = mates->rows + 1;
    int32_t depth = best;
    for (int32_t i = 0; i < 3; i++) {
        const int32_t d = candidates[i];
        if (d < 0 || d > limit || d == best || base + d > PM_COST_ROWS) continue;
        if (depth == best || c->pass[base + d].round < c->pass[base + depth].round) depth = d;
    }
    if (depth == best) return best;
    const prospect at_best = expect(c, a, mates, best), there = expect(c, a, mates, depth);
    const double lost = there.seconds - there.tokens * at_best.seconds / at_best.tokens;
    const double charge = most(lost / pass_cost(c, base), LEAST_CHARGE);
    if (charge > c->budget) return best;
    c->budget -= charge;
    return depth;
}

int32_t pm_controller_depth(pm_controller *c, const pm_acceptance *a, const pm_mates *mates, int32_t limit) {
    const int32_t base = mates->rows + 1, reach = 2 * measured_down(c, PM_COST_ROWS) - base;
    if (limit > reach) limit = reach;
    if (limit <= 0 || !measured_down(c, base)) return 0; /* what the pass costs without drafts comes first */
    if (c->pass[base].samples && c->pass[base].seconds > DISTURBED * measured_cost(c, base)) return 0;
    return explore(c, a, mates, best_depth(c, a, mates, limit), limit);
}
