/* status.c - formats error texts. Owns no state. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

pymtp_status pm_fail(pymtp_error *err, pymtp_status code, const char *format, ...) {
    if (err && err->code == PYMTP_OK) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        err->code = code;
        for (char *p = err->text; *p; p++) /* names from hostile files must not break the one-line promise */
            if ((unsigned char)*p < 32 || *p == 127) *p = '?';
    }
    return code;
}
