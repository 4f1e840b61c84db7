/* cursor.c - the window slides forward over the file in large positioned reads; longer reads go straight to their
 * destination. Little-endian hosts only, as everything in pymtp. */
#include "gguf/cursor.h"
#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WINDOW ((size_t)1 << 18)

pymtp_status pm_cursor_init(pm_cursor *c, const pm_file *file, pymtp_error *err) {
    *c = (pm_cursor){.file = file, .kind = "header", .err = err};
    c->window = pm_new(1, WINDOW, "read buffer", err);
    return c->window ? PYMTP_OK : PYMTP_E_NOMEM;
}

void pm_cursor_free(pm_cursor *c) {
    pm_free(c->window);
    c->window = NULL;
}

uint64_t pm_cursor_left(const pm_cursor *c) {
    const uint64_t end = c->file->size < PM_METADATA_LIMIT ? c->file->size : PM_METADATA_LIMIT;
    return c->pos < end ? end - c->pos : 0;
}

/* "key 'general.name'" or "header"; hostile names are cut. */
static void place(const pm_cursor *c, char *out, size_t cap) {
    if (c->name) snprintf(out, cap, "%s '%.120s'", c->kind, c->name);
    else snprintf(out, cap, "%s", c->kind);
}

pymtp_status pm_cursor_fail(const pm_cursor *c, const char *format, ...) {
    char where[160], text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    place(c, where, sizeof where);
    return pm_fail(c->err, PYMTP_E_FORMAT, "%s: %s: %s", c->file->path, where, text);
}

pymtp_status pm_cursor_need(const pm_cursor *c, uint64_t n) {
    char where[160];
    if (n <= pm_cursor_left(c)) return PYMTP_OK;
    if (c->file->size > PM_METADATA_LIMIT && n <= c->file->size - c->pos)
        return pm_cursor_fail(c, "expected at most %llu MiB of metadata, found more", (unsigned long long)(PM_METADATA_LIMIT >> 20));
    place(c, where, sizeof where);
    return pm_fail(c->err, PYMTP_E_IO, "%s: truncated: %s: expected %llu bytes at offset %llu, found %llu", c->file->path, where,
                   (unsigned long long)n, (unsigned long long)c->pos, (unsigned long long)(c->file->size - c->pos));
}

static pymtp_status refill(pm_cursor *c) {
    const uint64_t left = pm_cursor_left(c);
    const size_t n = left < WINDOW ? (size_t)left : WINDOW;
    c->filled = 0;
    PM_TRY(pm_file_read(c->file, c->pos, c->window, n, c->err));
    c->start = c->pos;
    c->filled = n;
    return PYMTP_OK;
}

pymtp_status pm_cursor_read(pm_cursor *c, void *dst, uint64_t n) {
    PM_TRY(pm_cursor_need(c, n));
    if (c->pos < c->start || c->pos + n > c->start + c->filled) {
        if (n > WINDOW) {
            PM_TRY(pm_file_read(c->file, c->pos, dst, (size_t)n, c->err));
            c->pos += n;
            return PYMTP_OK;
        }
        PM_TRY(refill(c));
    }
    memcpy(dst, c->window + (c->pos - c->start), (size_t)n);
    c->pos += n;
    return PYMTP_OK;
}

pymtp_status pm_cursor_u32(pm_cursor *c, uint32_t *out) { return pm_cursor_read(c, out, 4); }

pymtp_status pm_cursor_u64(pm_cursor *c, uint64_t *out) { return pm_cursor_read(c, out, 8); }

pymtp_status pm_cursor_count(pm_cursor *c, uint64_t min_bytes, const char *what, uint64_t *out) {
    PM_TRY(pm_cursor_u64(c, out));
    const uint64_t room = pm_cursor_left(c) / min_bytes;
    if (*out > room)
        return pm_cursor_fail(c, "%s: expected at most %llu, what the rest of the file has room for, found %llu", what,
                              (unsigned long long)room, (unsigned long long)*out);
    return PYMTP_OK;
}
