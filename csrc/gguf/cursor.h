/* cursor.h - a bounds-checked, buffered reader of the metadata region of one file.
 *
 * Every read is checked against the end of the file before it happens, and no metadata beyond PM_METADATA_LIMIT is
 * ever read: a sparse file that claims terabytes of strings costs no more than that. Errors name the file, what was
 * being read (set with pm_cursor_at) and the offset. */
#ifndef PM_GGUF_CURSOR_H
#define PM_GGUF_CURSOR_H

#include "base/file.h"

#define PM_METADATA_LIMIT ((uint64_t)1 << 30) /* real files have some 20 MB; keeps offsets within 32 bits */

typedef struct pm_cursor {
    const pm_file *file;
    uint64_t pos;           /* of the next byte, in the file */
    unsigned char *window;  /* bytes [start, start + filled) of the file */
    uint64_t start;
    size_t filled;
    const char *kind, *name; /* what is being read: "key", "general.name"; name may be NULL */
    pymtp_error *err;
} pm_cursor;

pymtp_status pm_cursor_init(pm_cursor *c, const pm_file *file, pymtp_error *err);
void pm_cursor_free(pm_cursor *c);
static inline void pm_cursor_at(pm_cursor *c, const char *kind, const char *name) { c->kind = kind; c->name = name; }
/* Bytes that may still be read. */
uint64_t pm_cursor_left(const pm_cursor *c);
/* PYMTP_E_IO unless n more bytes can be read. */
pymtp_status pm_cursor_need(const pm_cursor *c, uint64_t n);
/* n bytes into dst, or an error. */
pymtp_status pm_cursor_read(pm_cursor *c, void *dst, uint64_t n);
pymtp_status pm_cursor_u32(pm_cursor *c, uint32_t *out);
pymtp_status pm_cursor_u64(pm_cursor *c, uint64_t *out);
/* A count of things of at least min_bytes each: refused when the rest of the file has no room for them. */
pymtp_status pm_cursor_count(pm_cursor *c, uint64_t min_bytes, const char *what, uint64_t *out);
/* PYMTP_E_FORMAT "path: kind name: text". */
pymtp_status pm_cursor_fail(const pm_cursor *c, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3), cold))
#endif
    ;

#endif
