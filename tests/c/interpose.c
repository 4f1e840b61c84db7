/* interpose.c - a library for LD_PRELOAD in whose process a chosen call on a file of a chosen folder fails, or finds that the file has
 * shrunk. One call in one run: which one, how and where is told by interpose_arm, and only calls on files whose name begins with the
 * prefix count. And the memory that the system has left is what a file in the format of /proc/meminfo says. Linux. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#pragma GCC visibility push(default) /* the build hides names */

enum { CALL_READ, CALL_WRITE, CALL_SYNC, CALL_RENAME };

void interpose_arm(const char *prefix, int call, long nth, int error, long shrink_to);
long interpose_seen(void);
void interpose_memory(const char *path);

static char folder[PATH_MAX], memory[PATH_MAX];
static int wanted = -1, failure;
static long nth_call, length;
static atomic_long seen;

/* The nth call of this kind on files below prefix fails with `error`; where that is 0, the file is cut to shrink_to bytes before it. */
void interpose_arm(const char *prefix, int call, long nth, int error, long shrink_to) {
    snprintf(folder, sizeof folder, "%s", prefix);
    wanted = call;
    nth_call = nth;
    failure = error;
    length = shrink_to;
    atomic_store(&seen, 0);
}

/* Calls that counted since interpose_arm. */
long interpose_seen(void) { return atomic_load(&seen); }

/* Whether this call is the one that fails. */
static int fails(int call, int fd, const char *path) {
    char link[64], name[PATH_MAX] = "";
    if (call != wanted) return 0;
    if (!path) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (readlink(link, name, sizeof name - 1) < 0) return 0;
        path = name;
    }
    if (strncmp(path, folder, strlen(folder)) || atomic_fetch_add(&seen, 1) + 1 != nth_call) return 0;
    if (!failure) {
        if (truncate(path, length)) perror(path);
        return 0;
    }
    errno = failure;
    return 1;
}

ssize_t write(int fd, const void *from, size_t n) { return fails(CALL_WRITE, fd, NULL) ? -1 : (ssize_t)syscall(SYS_write, fd, from, n); }

ssize_t pread(int fd, void *to, size_t n, off_t at) { return fails(CALL_READ, fd, NULL) ? -1 : (ssize_t)syscall(SYS_pread64, fd, to, n, at); }

ssize_t pread64(int fd, void *to, size_t n, off64_t at) { return pread(fd, to, n, (off_t)at); }

int fsync(int fd) { return fails(CALL_SYNC, fd, NULL) ? -1 : (int)syscall(SYS_fsync, fd); }

int rename(const char *from, const char *to) {
    return fails(CALL_RENAME, -1, from) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* From now on this file is read in the place of /proc/meminfo. */
void interpose_memory(const char *path) { snprintf(memory, sizeof memory, "%s", path); }

FILE *fopen(const char *path, const char *mode) {
    union { void *object; FILE *(*function)(const char *, const char *); } plain = {dlsym(RTLD_NEXT, "fopen")};
    return plain.function(*memory && !strcmp(path, "/proc/meminfo") ? memory : path, mode);
}
