/* controller.c - expected tokens of depth d: 1 + a1 + a1 a2 + ... + a1..ad; cost: d draft steps and a pass over d + 1 rows. All
 * inputs are moving averages; now and then a neighbouring depth is tried, so that what is known stays fresh. */
#include "engine/controller.h"

#define AUTO_MAX 8          /* deepest automatic depth: acceptance beyond it is rarely worth a row */
#define PRIOR_ACCEPT 0.6    /* of a trained drafter on ordinary text, until measured */
#define COST_WEIGHT 0.2     /* of a new measurement in the moving average */
#define ACCEPT_WEIGHT 0.05
#define PROBE_EVERY 24      /* rounds between looks at a neighbouring depth */

void pm_controller_init(pm_controller *c) {
    *c = (pm_controller){0};
    for (int i = 0; i < PYMTP_MAX_DRAFT; i++) c->accept[i] = PRIOR_ACCEPT;
}

/* Measured, or scaled from the nearest narrower measured width as if half of a pass grew with its rows. */
static double pass_cost(const pm_controller *c, int32_t rows) {
    if (c->pass[rows] > 0) return c->pass[rows];
    for (int32_t w = rows - 1; w >= 1; w--)
        if (c->pass[w] > 0) return c->pass[w] * (0.5 + 0.5 * (double)rows / (double)w);
    return 1;
}

static int32_t best_depth(const pm_controller *c, int32_t limit) {
    double tokens = 1, reach = 1, best = 1 / pass_cost(c, 1);
    int32_t depth = 0;
    for (int32_t d = 1; d <= limit; d++) {
        reach *= c->accept[d - 1];
        tokens += reach;
        const double speed = tokens / (d * c->draft + pass_cost(c, d + 1));
        if (speed > best) {
            best = speed;
            depth = d;
        }
    }
    return depth;
}

int32_t pm_controller_depth(pm_controller *c, int32_t limit) {
    if (limit > AUTO_MAX) limit = AUTO_MAX;
    if (limit <= 0) return 0;
    c->rounds++;
    if (c->pass[1] <= 0) return 0; /* what plain decoding costs comes first */
    if (c->draft <= 0) return limit < 2 ? limit : 2;
    int32_t depth = best_depth(c, limit);
    if (c->rounds % PROBE_EVERY == 0) depth += c->rounds / PROBE_EVERY % 2 ? 1 : -1;
    return depth < 0 ? 0 : depth > limit ? limit : depth;
}

static void average(double *value, double sample, double weight) { *value = *value > 0 ? *value + weight * (sample - *value) : sample; }

void pm_controller_cost(pm_controller *c, int32_t drafted, double draft_seconds, double pass_seconds) {
    average(&c->pass[drafted + 1], pass_seconds, COST_WEIGHT);
    if (drafted) average(&c->draft, draft_seconds / drafted, COST_WEIGHT);
}

void pm_controller_accepted(pm_controller *c, int32_t drafted, int32_t accepted) {
    for (int32_t i = 0; i < drafted && i <= accepted; i++) c->accept[i] += ACCEPT_WEIGHT * ((i < accepted ? 1.0 : 0.0) - c->accept[i]);
}
