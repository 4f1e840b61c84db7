/* status.h - the one error convention: a pymtp_status is returned, the text goes to a pymtp_error.
 * The first error of a call wins: pm_fail never overwrites one. Codes live in pymtp.h. */
#ifndef PM_BASE_STATUS_H
#define PM_BASE_STATUS_H

#include "pymtp.h"

/* Fills *err (may be NULL) unless it already holds an error, and returns code. Format as printf. */
pymtp_status pm_fail(pymtp_error *err, pymtp_status code, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4), cold))
#endif
    ;

/* Call at every public entry: forget an earlier error. */
static inline void pm_clear(pymtp_error *err) {
    if (err) { err->code = PYMTP_OK; err->text[0] = 0; }
}

/* Evaluates a call and returns its status from the enclosing function when it is not PYMTP_OK. */
#define PM_TRY(call)                                \
    do {                                            \
        pymtp_status pm_try_ = (call);              \
        if (pm_try_ != PYMTP_OK) return pm_try_;    \
    } while (0)

#endif
