/* controller.h - picks the number of drafts of a round, so that tokens come fastest. It never influences output, only speed.
 *
 * Sessions that share a pass are planned together. Draft j of a session is reached with probability a1 a2 .. aj, where ai is the
 * acceptance of draft i when those before it were accepted. Drafts are added to the pass in the order of that probability, and of
 * all the passes on this way the one with the best tokens / seconds is taken:
 *
 *     tokens  = sessions + sum of the probabilities of the drafts
 *     seconds = pass(sessions + drafts) + draft * (drafts of the deepest session)
 *
 * What these are made of is measured:
 *
 * - pass(rows): seconds of a target pass, sampling included, by its number of rows, whoever brings them: the median of the last
 *   samples, so that rounds disturbed by another process do not matter. A wider pass never counts as cheaper. Between two measured
 *   widths it is interpolated; beyond the widest, the line from the narrowest to the widest goes on, and at most twice the widest
 *   is tried. When a well-known width changes (longer context, busy machine), all others follow.
 * - ai: accepted / judged, counts that fade over a dozen rounds of a request. Draft i starts from what is known of draft i - 1; a
 *   request starts from what the model's requests before it have seen, and some hope. Rounds without drafts let the weight of old
 *   counts fade, not their mean.
 *
 * Exploring has a budget, in plain passes: it grows by 1/200 a round, and a pass that is not the best pays what it is expected to
 * lose. It is one draft more or less than the best, or none, to keep costs fresh, or one draft for a session that has had none for
 * long, to keep its acceptance fresh. So hopeless drafts are tried every 20 rounds or so where a row is cheap and every few
 * hundred where it is dear.
 *
 * Time enters as arguments only: tests/c/test_controller.c simulates machines and texts. */
#ifndef PM_ENGINE_CONTROLLER_H
#define PM_ENGINE_CONTROLLER_H

#include "pymtp.h"

#define PM_COST_ROWS 64     /* widest pass that is learned */
#define PM_COST_SAMPLES 16
#define PM_PASS_SESSIONS 16 /* most sessions that share one pass; more take several */

typedef struct pm_cost {
    double seconds;                 /* median of the samples */
    double sample[PM_COST_SAMPLES]; /* a ring */
    int32_t samples, next;
    uint64_t round;                 /* of the newest sample */
} pm_cost;

typedef struct pm_acceptance { /* by draft position: fading counts of rounds */
    double judged[PYMTP_MAX_DRAFT], accepted[PYMTP_MAX_DRAFT];
    int32_t idle; /* rounds since the last draft */
} pm_acceptance;

typedef struct pm_draft_wish { /* of one session for a pass */
    const pm_acceptance *acceptance;
    int32_t least, most; /* drafts that it must and may have */
    int32_t depth;       /* out: what it gets */
} pm_draft_wish;

typedef struct pm_controller { /* one a model */
    pm_cost pass[PM_COST_ROWS + 1]; /* by rows */
    pm_cost draft;                  /* one draft step */
    pm_acceptance acceptance;       /* of all requests */
    double budget;                  /* for exploring */
    uint64_t rounds;
} pm_controller;

void pm_controller_init(pm_controller *c);
/* Decides the depths of a pass; n <= PM_PASS_SESSIONS, 0 <= least <= most <= PYMTP_MAX_DRAFT. */
void pm_controller_depths(pm_controller *c, pm_draft_wish *wishes, int32_t n);
/* A pass without prompt rows took pass_seconds; the draft_steps steps of the drafter before it took draft_seconds together. */
void pm_controller_cost(pm_controller *c, int32_t rows, int32_t draft_steps, double draft_seconds, double pass_seconds);
/* A round of a request: of `judged` drafts the first `accepted` were right. Rounds without drafts are told too. */
void pm_controller_accepted(pm_controller *c, pm_acceptance *a, int32_t judged, int32_t accepted);

pm_acceptance pm_acceptance_start(const pm_controller *c); /* of a new request */

#endif
