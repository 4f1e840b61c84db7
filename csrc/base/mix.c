/* mix.c - the key of the process: the system's random numbers, or addresses and the clock where it has none to give. */
#include "base/mix.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/random.h>
#endif

static uint64_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void draw(void) {
    struct timespec now = {0};
    if (!getentropy(&key, sizeof key)) return;
    clock_gettime(CLOCK_REALTIME, &now);
    key = pm_mix((uint64_t)now.tv_nsec ^ pm_mix((uint64_t)(uintptr_t)&now ^ pm_mix((uint64_t)(uintptr_t)&key)));
}

uint64_t pm_hash_key(void) {
    pthread_once(&once, draw);
    return key;
}
