/* controller.c - costs, acceptance, the choice of depth. The model is described in controller.h. */
#include "engine/controller.h"

/* costs */
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
#define IDLE 16               /* rounds without drafts after which a session's acceptance is asked for */
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
    if (samples < PM_COST_SAMPLES) return;
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

/* Of draft i when those before it were accepted; `before`: of draft i - 1. */
static double accept_share(const pm_acceptance *a, int32_t i, double before) {
    return i ? (a->accepted[i] + POOL * before) / (a->judged[i] + POOL) : a->accepted[0] / a->judged[0];
}

pm_acceptance pm_acceptance_start(const pm_controller *c) {
    pm_acceptance a = c->acceptance;
    a.idle = 0;
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
    a->idle = judged ? 0 : a->idle + 1;
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

/* A pass that grows draft by draft, always by the one likeliest to be accepted. The depths stand in the wishes. */
typedef struct plan {
    pm_draft_wish *wishes;
    int32_t n;
    double share[PM_PASS_SESSIONS];         /* acceptance of the newest draft of each */
    double reach[PM_PASS_SESSIONS];         /* probability that all of its drafts are accepted */
    int32_t rows, draft_steps;
    double tokens;
} plan;

static double next_reach(const plan *p, int32_t i) {
    const pm_draft_wish *w = &p->wishes[i];
    return p->reach[i] * accept_share(w->acceptance, w->depth, p->share[i]);
}

static void add_draft(plan *p, int32_t i) {
    pm_draft_wish *w = &p->wishes[i];
    p->share[i] = accept_share(w->acceptance, w->depth, p->share[i]);
    p->reach[i] *= p->share[i];
    p->tokens += p->reach[i];
    p->rows++;
    if (++w->depth > p->draft_steps) p->draft_steps = w->depth;
}

static int add_likeliest(plan *p) {
    int32_t at = -1;
    for (int32_t i = 0; i < p->n; i++)
        if (p->wishes[i].depth < p->wishes[i].most && (at < 0 || next_reach(p, i) > next_reach(p, at))) at = i;
    if (at >= 0) add_draft(p, at);
    return at >= 0;
}

/* The drafts that must be. */
static plan plan_least(pm_draft_wish *wishes, int32_t n) {
    plan p = {.wishes = wishes, .n = n, .rows = n, .tokens = n};
    for (int32_t i = 0; i < n; i++) {
        p.reach[i] = 1;
        for (wishes[i].depth = 0; wishes[i].depth < wishes[i].least;) add_draft(&p, i);
    }
    return p;
}

/* And so many more. */
static plan plan_with(pm_draft_wish *wishes, int32_t n, int32_t drafts) {
    plan p = plan_least(wishes, n);
    for (int32_t i = 0; i < drafts; i++) add_likeliest(&p);
    return p;
}

typedef struct prospect {
    double tokens, seconds;
} prospect;

static prospect expect(const pm_controller *c, const plan *p) {
    return (prospect){.tokens = p->tokens, .seconds = pass_cost(c, p->rows) + p->draft_steps * c->draft.seconds};
}

/* May a pass be tried that is not the best? Then the budget pays. */
static int affordable(pm_controller *c, prospect tried, prospect best, prospect without) {
    const double lost = tried.seconds - tried.tokens * best.seconds / best.tokens;
    const double charge = most(lost / without.seconds, LEAST_CHARGE);
    if (charge > c->budget) return 0;
    c->budget -= charge;
    return 1;
}

/* Of the drafts beyond the least, one more than the best, one less or none: those whose pass was measured longest ago. base: rows
 * without them; limit: how many there may be. */
static int32_t least_known(const pm_controller *c, int32_t base, int32_t best, int32_t limit) {
    const int32_t candidates[] = {best + 1, best - 1, 0};
    int32_t drafts = best;
    for (int32_t i = 0; i < 3; i++) {
        const int32_t d = candidates[i];
        if (d < 0 || d > limit || d == best || base + d > PM_COST_ROWS) continue;
        if (drafts == best || c->pass[base + d].round < c->pass[base + drafts].round) drafts = d;
    }
    return drafts;
}

/* The session that has been without drafts for longest, and for long; -1: none. */
static int32_t forgotten(const plan *p) {
    int32_t at = -1, idle = IDLE - 1;
    for (int32_t i = 0; i < p->n; i++) {
        const pm_draft_wish *w = &p->wishes[i];
        if (w->depth || !w->most || w->acceptance->idle <= idle) continue;
        at = i;
        idle = w->acceptance->idle;
    }
    return at;
}

/* What a pass over so many rows costs is not known, or cannot be what is known. */
static int unknown(const pm_controller *c, int32_t rows) {
    if (!measured_down(c, rows)) return 1;
    return rows <= PM_COST_ROWS && c->pass[rows].samples && c->pass[rows].seconds > DISTURBED * measured_cost(c, rows);
}

void pm_controller_depths(pm_controller *c, pm_draft_wish *wishes, int32_t n) {
    prospect prospects[PM_PASS_SESSIONS * PYMTP_MAX_DRAFT + 1]; /* by drafts beyond the least */
    const int32_t widest = 2 * measured_down(c, PM_COST_ROWS);
    plan p = plan_least(wishes, n);
    const int32_t base = p.rows;
    int32_t best = 0, count = 0;
    if (unknown(c, base)) return; /* what the pass costs without drafts comes first */
    do {
        const prospect now = prospects[count] = expect(c, &p);
        if (now.tokens / now.seconds > prospects[best].tokens / prospects[best].seconds) best = count;
        count++;
    } while (p.rows < widest && add_likeliest(&p));
    p = plan_with(wishes, n, best);
    const int32_t idle = forgotten(&p), other = least_known(c, base, best, count - 1);
    if (idle >= 0 && p.rows < widest) {
        add_draft(&p, idle);
        if (!affordable(c, expect(c, &p), prospects[best], prospects[0])) wishes[idle].depth = 0;
    } else if (other != best && affordable(c, prospects[other], prospects[best], prospects[0])) plan_with(wishes, n, other);
}
