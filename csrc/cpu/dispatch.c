/* dispatch.c - which kernel set runs: the best one this machine supports, or the one PYMTP_CPU names. */
#include "cpu/kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX__)
#error "dispatch.c must be compiled for the baseline"
#endif

static const pm_kernels *available[9]; /* written once, NULL-terminated: room for all of `detect` */
static char names[128];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void detect(void) {
    const pm_kernels *all[] = {
        pm_kernels_avx512vnni(), pm_kernels_avx512(), pm_kernels_avxvnni(), pm_kernels_avx512vnni256(), pm_kernels_avx2(),
        pm_kernels_i8mm(), pm_kernels_neon(), pm_kernels_scalar(),
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] && all[i]->supported()) available[n++] = all[i];
    for (size_t i = 0, at = 0; i < n; i++) at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? "," : "", available[i]->name);
}

const pm_kernels *const *pm_kernels_available(void) {
    pthread_once(&once, detect);
    return available;
}

const char *pymtp_cpu_names(void) {
    pm_kernels_available();
    return names;
}

pymtp_status pm_kernels_choose(const pm_kernels **out, pymtp_error *err) {
    const pm_kernels *const *sets = pm_kernels_available();
    const char *wanted = getenv("PYMTP_CPU");
    *out = sets[0];
    if (!wanted || !*wanted) return PYMTP_OK;
    for (; *sets; sets++)
        if (!strcmp((*sets)->name, wanted)) {
            *out = *sets;
            return PYMTP_OK;
        }
    return pm_fail(err, PYMTP_E_ARG, "PYMTP_CPU: expected one of %s, found '%.40s'", names, wanted);
}
