/* library.c - version and layout of the public structs: what a caller compares after loading the library. */
#include "base/cpucount.h"
#include "pymtp.h"

#include <string.h>

int32_t pymtp_abi_version(void) { return PYMTP_ABI_VERSION; }

const char *pymtp_version(void) { return PYMTP_VERSION_TEXT; }

#if defined(__clang__)
const char *pymtp_build(void) { return "clang " __clang_version__; }
#elif defined(__GNUC__)
const char *pymtp_build(void) { return "gcc " __VERSION__; }
#else
const char *pymtp_build(void) { return "unknown compiler"; }
#endif

int32_t pymtp_cpu_threads(void) { return pm_cpu_count(); }

size_t pymtp_struct_size(const char *name) {
    static const struct { const char *name; size_t size; } table[] = {
#define STRUCT(type) {#type, sizeof(type)}
        STRUCT(pymtp_error),  STRUCT(pymtp_tensor_info), STRUCT(pymtp_model_options), STRUCT(pymtp_model_info),
        STRUCT(pymtp_params), STRUCT(pymtp_logprob),     STRUCT(pymtp_output),        STRUCT(pymtp_stats),
        STRUCT(pymtp_counters), STRUCT(pymtp_machine),     STRUCT(pymtp_tap_sums),    STRUCT(pymtp_memory),
#undef STRUCT
    };
    for (size_t i = 0; name && i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, name)) return table[i].size;
    return 0;
}
