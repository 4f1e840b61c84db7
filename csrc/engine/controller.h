/* controller.h - picks the number of drafts of a round. It learns what passes and draft steps cost and how often drafts are
 * accepted, and never influences output, only speed. */
#ifndef PM_ENGINE_CONTROLLER_H
#define PM_ENGINE_CONTROLLER_H

#include "pymtp.h"

typedef struct pm_controller {
    double pass[PYMTP_MAX_DRAFT + 2]; /* seconds of a target pass by its rows; 0: not measured yet */
    double draft;                     /* seconds of one draft step; 0: not measured yet */
    double accept[PYMTP_MAX_DRAFT];   /* share of accepted drafts by position, given that those before were accepted */
    uint64_t rounds;
} pm_controller;

void pm_controller_init(pm_controller *c);
/* Drafts for the next round, 0..limit: the depth with the best expected tokens per second. */
int32_t pm_controller_depth(pm_controller *c, int32_t limit);
/* One session's round alone in its passes: `drafted` drafts took draft_seconds, the pass over 1 + drafted rows pass_seconds. */
void pm_controller_cost(pm_controller *c, int32_t drafted, double draft_seconds, double pass_seconds);
void pm_controller_accepted(pm_controller *c, int32_t drafted, int32_t accepted);

#endif
