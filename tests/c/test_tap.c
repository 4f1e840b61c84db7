/* test_tap.c - the list of sums behind a tap. That the engine feeds it rightly is tests/test_imatrix.py's. */
#include "base/tap.h"
#include "check.h"

#include <stdio.h>
#include <string.h>

#define TENSORS 600 /* more than the list holds at first */

int main(void) {
    static char names[TENSORS][16];
    pymtp_error err = {0};
    pm_tap *t = pm_tap_new(&err);
    CHECK(t && pm_tap_count(t) == 0 && !pm_tap_at(t, 0) && pm_tap_status(t, &err) == PYMTP_OK, "a new tap");
    const float x[3] = {1, -2, 3e20f}, y[3] = {0.5f, 0, 1};
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < TENSORS; i++) {
            snprintf(names[i], sizeof names[i], "t%d", i);
            pm_tap_sums *s = pm_tap_of(t, names[i], 2, 3);
            CHECK(s && s->matrices == 2 && s->cols == 3 && !strcmp(s->name, names[i]), "tensor %d", i);
            if (!s) continue;
            pm_tap_row(s, 1, x);
            if (i == 7) pm_tap_row(s, 0, y);
        }
    }
    CHECK(pm_tap_count(t) == TENSORS && pm_tap_of(t, "t599", 2, 3) == pm_tap_at(t, 599) && pm_tap_of(t, "t3", 2, 3) == pm_tap_at(t, 3), "found again");
    for (size_t i = 0; i < TENSORS; i++) {
        const pm_tap_sums *s = pm_tap_at(t, i);
        const double big = 2.0 * (double)3e20f * (double)3e20f; /* beyond float */
        CHECK(!strcmp(s->name, names[i]) && s->sums[3] == 2 && s->sums[4] == 8 && s->sums[5] == big && s->rows[1] == 2, "sums of %zu", i);
        CHECK(s->rows[0] == (i == 7 ? 2 : 0) && s->sums[0] == (i == 7 ? 0.5 : 0) && s->sums[1] == 0, "the other matrix of %zu", i);
    }
    CHECK(!pm_tap_of(t, "huge", SIZE_MAX / 2, 3) && pm_tap_status(t, &err) == PYMTP_E_NOMEM && strstr(err.text, "memory"), "%s", err.text);
    CHECK(!pm_tap_of(t, "t3", 2, 3) && pm_tap_count(t) == TENSORS, "stops counting");
    pm_tap_free(t);
    pm_tap_free(NULL);
    return check_done();
}
