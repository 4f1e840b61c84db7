/* file.c - positioned reads of regular files. */
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_STEP ((size_t)1 << 28) /* some systems refuse single reads of 2 GiB and more */

static struct timespec modified(const struct stat *st) {
#ifdef __APPLE__
    return st->st_mtimespec;
#else
    return st->st_mtim;
#endif
}

pymtp_status pm_file_open(pm_file *f, const char *path, pymtp_error *err) {
    *f = (pm_file){.fd = -1};
    if (!path || !*path) return pm_fail(err, PYMTP_E_ARG, "no file name given");
    /* O_NONBLOCK: opening a FIFO must not hang; it is refused below */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return pm_fail(err, PYMTP_E_IO, "%s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st)) {
        const int e = errno;
        close(fd);
        return pm_fail(err, PYMTP_E_IO, "%s: %s", path, strerror(e));
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return pm_fail(err, PYMTP_E_IO, "%s: %s", path, S_ISDIR(st.st_mode) ? "is a directory, not a file" : "not a regular file");
    }
    const size_t n = strlen(path) + 1;
    f->path = pm_malloc(n);
    if (!f->path) {
        close(fd);
        return pm_fail(err, PYMTP_E_NOMEM, "out of memory: file name");
    }
    memcpy(f->path, path, n);
    f->fd = fd;
    f->size = (uint64_t)st.st_size;
    f->modified = modified(&st);
    return PYMTP_OK;
}

void pm_file_close(pm_file *f) {
    if (f->fd >= 0 && f->path) close(f->fd);
    pm_free(f->path);
    *f = (pm_file){.fd = -1};
}

static pymtp_status check_unchanged(const pm_file *f, pymtp_error *err) {
    struct stat st;
    if (fstat(f->fd, &st)) return pm_fail(err, PYMTP_E_IO, "%s: %s", f->path, strerror(errno));
    const struct timespec t = modified(&st);
    if ((uint64_t)st.st_size == f->size && t.tv_sec == f->modified.tv_sec && t.tv_nsec == f->modified.tv_nsec) return PYMTP_OK;
    return pm_fail(err, PYMTP_E_IO, "%s: changed since it was opened", f->path);
}

pymtp_status pm_file_read(const pm_file *f, uint64_t offset, void *dst, size_t n, pymtp_error *err) {
    unsigned char *p = dst;
    while (n) {
        const ssize_t got = pread(f->fd, p, n < READ_STEP ? n : READ_STEP, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return pm_fail(err, PYMTP_E_IO, "%s: read at offset %llu: %s", f->path, (unsigned long long)offset, strerror(errno));
        if (got == 0)
            return pm_fail(err, PYMTP_E_IO, "%s: truncated: %zu more bytes expected at offset %llu", f->path, n, (unsigned long long)offset);
        p += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return check_unchanged(f, err); /* after the read: a change during it counts too */
}
