/* tap.h - sums of squares of what meets each weight matrix, column by column: the raw material of importance matrices.
 *
 * Activations are counted as floats, before a back end rounds them, in double and row after row: the sums depend on the rows and
 * their order only, not on threads or on how rows were cut into calls. A tap never fails where it is fed; once memory is
 * short it stops counting and says so when it is read. One thread feeds it at a time. */
#ifndef PM_BASE_TAP_H
#define PM_BASE_TAP_H

#include "base/status.h"

typedef struct pm_tap pm_tap;

/* The sums of one tensor, which is `matrices` matrices (experts, or 1) of `cols` columns. */
typedef struct pm_tap_sums {
    const char *name;  /* the caller's, outlives the tap */
    size_t matrices, cols;
    double *sums;      /* (matrices, cols) */
    uint64_t *rows;    /* (matrices): activation rows that met it */
} pm_tap_sums;

pm_tap *pm_tap_new(pymtp_error *err);
void pm_tap_free(pm_tap *t);
/* The sums of the tensor called `name`, zero when they are new; NULL when memory is short. Tensors come in order of first use. */
pm_tap_sums *pm_tap_of(pm_tap *t, const char *name, size_t matrices, size_t cols);
/* One row x (cols) meets a matrix. */
void pm_tap_row(pm_tap_sums *s, size_t matrix, const float *x);
size_t pm_tap_count(const pm_tap *t);
const pm_tap_sums *pm_tap_at(const pm_tap *t, size_t i);
pymtp_status pm_tap_status(const pm_tap *t, pymtp_error *err);

#endif
