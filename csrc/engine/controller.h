/* controller.h - picks the number of drafts of a round, so that tokens come fastest. It never influences output, only speed.
 *
 * For a session whose pass is shared with `mates` (what the other sessions bring), depth d is expected to give
 *
 *     tokens(d)  = mates.tokens + 1 + a1 + a1 a2 + ... + a1..ad        ai: acceptance of draft i when those before it were accepted
 *     seconds(d) = pass(mates.rows + 1 + d) + draft * max(mates.draft_steps, d)
 *
 * and the depth with the best tokens(d) / seconds(d) is taken. What these are made of is measured:
 *
 * - pass(rows): seconds of a target pass, sampling included, by its number of rows, whoever brings them: the median of the last
 *   samples, so that rounds disturbed by another process do not matter. A wider pass never counts as cheaper. Between two measured
 *   widths it is interpolated; beyond the widest, the line from the narrowest to the widest goes on, and at most twice the widest
 *   is tried. When a well-known width changes (longer context, busy machine), all others follow.
 * - ai: accepted / judged, counts that fade over a dozen rounds of a request. Draft i starts from what is known of draft i - 1; a
 *   request starts from what the model's requests before it have seen, and some hope. Rounds without drafts let the weight of old
 *   counts fade, not their mean.
 *
 * Exploring has a budget, in plain passes: it grows by 1/200 a round, and a round at another depth than the best pays what it is
 * expected to lose. So hopeless drafts are tried every 20 rounds or so where a row is cheap and every few hundred where it is
 * dear. Time enters as arguments only: tests/c/test_controller.c simulates machines and texts. */
#ifndef PM_ENGINE_CONTROLLER_H
#define PM_ENGINE_CONTROLLER_H

#include "pymtp.h"

#define PM_COST_ROWS 64    /* widest pass that is learned */
#define PM_COST_SAMPLES 16

typedef struct pm_cost {
    double seconds;                 /* median of the samples */
    double sample[PM_COST_SAMPLES]; /* a ring */
    int32_t samples, next;
    uint64_t round;                 /* of the newest sample */
} pm_cost;

typedef struct pm_acceptance { /* by draft position: fading counts of rounds */
    double judged[PYMTP_MAX_DRAFT], accepted[PYMTP_MAX_DRAFT];
} pm_acceptance;

typedef struct pm_mates { /* what the other sessions bring to a pass; all 0 for a session alone */
    int32_t rows, draft_steps;
    double tokens; /* expected */
} pm_mates;

typedef struct pm_controller { /* one a model */
    pm_cost pass[PM_COST_ROWS + 1]; /* by rows */
    pm_cost draft;                  /* one draft step */
    pm_acceptance acceptance;       /* of all requests */
    double budget;                  /* for exploring */
    uint64_t rounds;
} pm_controller;

void pm_controller_init(pm_controller *c);
/* Drafts for the next round of a request, 0..limit. */
int32_t pm_controller_depth(pm_controller *c, const pm_acceptance *a, const pm_mates *mates, int32_t limit);
/* A pass without prompt rows took pass_seconds; the draft_steps steps of the drafter before it took draft_seconds together. */
void pm_controller_cost(pm_controller *c, int32_t rows, int32_t draft_steps, double draft_seconds, double pass_seconds);
/* A round of a request: of `judged` drafts the first `accepted` were right. Rounds without drafts are told too. */
void pm_controller_accepted(pm_controller *c, pm_acceptance *a, int32_t judged, int32_t accepted);

pm_acceptance pm_acceptance_start(const pm_controller *c);          /* of a new request */
double pm_acceptance_tokens(const pm_acceptance *a, int32_t depth); /* expected of a round, its own token included */

#endif
