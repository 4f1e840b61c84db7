/* stop.h - stop strings over a stream of text: what may be shown, and where the text ends. */
#ifndef PM_ENGINE_STOP_H
#define PM_ENGINE_STOP_H

#include "base/status.h"

typedef struct pm_stop pm_stop;

/* Copies the strings; empty ones are refused (PYMTP_E_ARG). n may be 0. */
pymtp_status pm_stop_new(const char *const *strings, const size_t *bytes, size_t n, pm_stop **out, pymtp_error *err);
void pm_stop_free(pm_stop *s);
/* Appends text and releases into the buffer of pm_stop_text what can no longer be part of a stop string. *hit is set to 1
 * when one is complete: the earliest match wins, the text before it is released, nothing after it ever. */
pymtp_status pm_stop_push(pm_stop *s, const char *text, size_t bytes, int *hit, pymtp_error *err);
/* The stream ended otherwise: releases what was held back. */
pymtp_status pm_stop_flush(pm_stop *s, pymtp_error *err);
/* Released bytes since the last pm_stop_take; valid until the next push or flush. */
const char *pm_stop_text(const pm_stop *s, size_t *bytes);
void pm_stop_take(pm_stop *s); /* forgets the released bytes */

#endif
