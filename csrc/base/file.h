/* file.h - positioned reads. No tensor data is ever mapped: a file that shrinks is a short read, hence an error that
 * names the file, never a signal. So is a file whose size or time of modification is not what it was when it was opened: what
 * was read before and what is read now need not fit together. Safe from several threads. */
#ifndef PM_BASE_FILE_H
#define PM_BASE_FILE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef struct pm_file {
    int fd;
    uint64_t size;
    struct timespec modified;
    char *path;
} pm_file;

/* Refuses directories and whatever else is no regular file. Follows links. */
pymtp_status pm_file_open(pm_file *f, const char *path, pymtp_error *err);
void pm_file_close(pm_file *f);
/* Reads exactly n bytes at offset or fails (PYMTP_E_IO, naming the file and the offset, or that it changed). Retries EINTR. */
pymtp_status pm_file_read(const pm_file *f, uint64_t offset, void *dst, size_t n, pymtp_error *err);

#endif
