/* fault.h - makes the n-th call into the system fail, and counts what is held: memory, mappings, threads.
 *
 * The linker puts the functions below in the place of the library's calls (cmake/tests.cmake, --wrap); what libc calls inside itself
 * stays as it is. Armed and disarmed while no call of the library runs. */
#ifndef PM_TESTS_FAULT_H
#define PM_TESTS_FAULT_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>

typedef enum fault_kind {
    FAULT_NONE,
    FAULT_MEMORY,      /* malloc, calloc, realloc, posix_memalign, mmap, mprotect: there is none */
    FAULT_READ,        /* pread: EIO */
    FAULT_END,         /* pread: the file ends here */
    FAULT_SHORT,       /* pread: half of what was asked for */
    FAULT_INTERRUPTED, /* pread: EINTR */
    FAULT_THREAD       /* pthread_create: EAGAIN */
} fault_kind;

static fault_kind fault_armed;
static long fault_at;         /* the call of that kind that fails, from 1 */
static int fault_stays;       /* and all calls after it; of interrupted ones every second, since they are made again */
static atomic_long fault_seen;
static atomic_long fault_held; /* allocations, mappings and threads that are not given back */

static int fault_changes;      /* bytes that were read once are 0xff when they are read again: the file changes behind its reader */
static off_t fault_read_to;    /* how far it was read */
static void (*_Atomic fault_at_unlock)(void); /* called once, before the next mutex is unlocked: what another thread might do there */

static void fault_arm(fault_kind kind, long at, int stays) {
    fault_armed = kind;
    fault_at = at;
    fault_stays = stays;
    atomic_store(&fault_seen, 0);
}

/* Returns whether a call failed. */
static int fault_disarm(void) {
    const int failed = fault_armed != FAULT_NONE && atomic_load(&fault_seen) >= fault_at;
    fault_armed = FAULT_NONE;
    return failed;
}

static int fault_now(fault_kind kind) {
    if (fault_armed != kind) return 0;
    const long n = atomic_fetch_add(&fault_seen, 1) + 1;
    return n == fault_at || (fault_stays && n > fault_at && (kind != FAULT_INTERRUPTED || (n - fault_at) % 2 == 0));
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *p, size_t bytes);
int __real_posix_memalign(void **p, size_t alignment, size_t bytes);
void __real_free(void *p);
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t bytes);
int __real_mprotect(void *at, size_t bytes, int protection);
ssize_t __real_pread(int fd, void *dst, size_t n, off_t offset);
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int __real_pthread_join(pthread_t thread, void **result);

static void *fault_keep(void *p) {
    if (p) atomic_fetch_add(&fault_held, 1);
    return p;
}

static void *fault_no_memory(void) {
    errno = ENOMEM;
    return NULL;
}

void *__wrap_malloc(size_t bytes) { return fault_now(FAULT_MEMORY) ? fault_no_memory() : fault_keep(__real_malloc(bytes)); }

void *__wrap_calloc(size_t n, size_t bytes) { return fault_now(FAULT_MEMORY) ? fault_no_memory() : fault_keep(__real_calloc(n, bytes)); }

void *__wrap_realloc(void *p, size_t bytes) {
    if (fault_now(FAULT_MEMORY)) return fault_no_memory();
    return p ? __real_realloc(p, bytes) : fault_keep(__real_realloc(p, bytes));
}

int __wrap_posix_memalign(void **p, size_t alignment, size_t bytes) {
    if (fault_now(FAULT_MEMORY)) return ENOMEM;
    const int e = __real_posix_memalign(p, alignment, bytes);
    if (!e) fault_keep(*p);
    return e;
}

void __wrap_free(void *p) {
    if (p) atomic_fetch_sub(&fault_held, 1);
    __real_free(p);
}

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (fault_now(FAULT_MEMORY)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *p = __real_mmap(at, bytes, protection, flags, fd, offset);
    if (p != MAP_FAILED) fault_keep(p);
    return p;
}

int __wrap_munmap(void *at, size_t bytes) {
    atomic_fetch_sub(&fault_held, 1);
    return __real_munmap(at, bytes);
}

int __wrap_mprotect(void *at, size_t bytes, int protection) {
    if (!fault_now(FAULT_MEMORY)) return __real_mprotect(at, bytes, protection);
    errno = ENOMEM;
    return -1;
}

ssize_t __wrap_pread(int fd, void *dst, size_t n, off_t offset) {
    if (fault_now(FAULT_END)) return 0;
    if (fault_now(FAULT_SHORT)) return __real_pread(fd, dst, n > 1 ? n / 2 : n, offset);
    if (fault_now(FAULT_READ)) {
        errno = EIO;
        return -1;
    }
    if (fault_now(FAULT_INTERRUPTED)) {
        errno = EINTR;
        return -1;
    }
    const ssize_t got = __real_pread(fd, dst, n, offset);
    if (!fault_changes || got <= 0) return got;
    if (offset < fault_read_to) memset(dst, 0xff, (size_t)(fault_read_to - offset < got ? fault_read_to - offset : got));
    if (offset + got > fault_read_to) fault_read_to = offset + got;
    return got;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex) {
    void (*const call)(void) = atomic_exchange(&fault_at_unlock, NULL);
    if (call) call();
    return __real_pthread_mutex_unlock(mutex);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    if (fault_now(FAULT_THREAD)) return EAGAIN;
    const int e = __real_pthread_create(thread, attributes, start, argument);
    if (!e) atomic_fetch_add(&fault_held, 1);
    return e;
}

int __wrap_pthread_join(pthread_t thread, void **result) {
    atomic_fetch_sub(&fault_held, 1);
    return __real_pthread_join(thread, result);
}

#endif
