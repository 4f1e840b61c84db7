/* lib_fault_write.c - a library for LD_PRELOAD that makes the n-th change below a folder fail, for tests of what the Python side
 * writes. Changes are: creating a file, a folder or a link, write, fsync, ftruncate and rename. Armed by fault_write_arm() from inside
 * the process; harmless until then. Any thread may write. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[1024];
static atomic_long at, seen;
static atomic_int stays, number;

#define PUBLIC __attribute__((visibility("default")))

PUBLIC void fault_write_arm(const char *path, long n, int error, int on);
PUBLIC long fault_write_disarm(void);

/* The n-th change (from 1) below `path` fails with `error`, with `on` all after it too. */
void fault_write_arm(const char *path, long n, int error, int on) {
    snprintf(folder, sizeof folder, "%s/", path);
    atomic_store(&seen, 0);
    atomic_store(&number, error);
    atomic_store(&stays, on);
    atomic_store(&at, n);
}

/* Returns how many changes there were. */
long fault_write_disarm(void) {
    atomic_store(&at, 0);
    return atomic_load(&seen);
}

static int path_fails(const char *path) {
    const long n = atomic_load(&at);
    if (!n || strncmp(path, folder, strlen(folder))) return 0;
    const long i = atomic_fetch_add(&seen, 1) + 1;
    if (i < n || (i > n && !atomic_load(&stays))) return 0;
    errno = atomic_load(&number);
    return 1;
}

static int fd_fails(int fd) {
    char link[64], path[1024];
    if (!atomic_load(&at)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return path_fails(path);
}

/* The function that is hidden by ours of that name. */
static void find_real(const char *name, void *function) {
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found); /* ISO C has no cast from an object's pointer to a function's */
}

PUBLIC ssize_t write(int fd, const void *data, size_t n) {
    ssize_t (*real)(int, const void *, size_t);
    find_real("write", &real);
    return fd_fails(fd) ? -1 : real(fd, data, n);
}

PUBLIC int fsync(int fd) {
    int (*real)(int);
    find_real("fsync", &real);
    return fd_fails(fd) ? -1 : real(fd);
}

PUBLIC int ftruncate64(int fd, off64_t n) {
    int (*real)(int, off64_t);
    find_real("ftruncate64", &real);
    return fd_fails(fd) ? -1 : real(fd, n);
}

PUBLIC int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *);
    find_real("rename", &real);
    return path_fails(to) ? -1 : real(from, to);
}

PUBLIC int symlink(const char *target, const char *path) {
    int (*real)(const char *, const char *);
    find_real("symlink", &real);
    return path_fails(path) ? -1 : real(target, path);
}

PUBLIC int mkdir(const char *path, mode_t mode) {
    int (*real)(const char *, mode_t);
    find_real("mkdir", &real);
    return path_fails(path) ? -1 : real(path, mode);
}

PUBLIC int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    int (*real)(const char *, int, ...);
    find_real("open64", &real);
    return (flags & O_CREAT) && path_fails(path) ? -1 : real(path, flags, mode);
}
