/* keys.h - typed, range-checked access to the metadata of one architecture. Private to csrc/model.
 *
 * A key is prefix.name, or other.name where a dialect has a second place for it. Integers of any width are accepted,
 * and an array where all values are equal for a scalar. Errors name file, key, what was expected and what was found. */
#ifndef PM_MODEL_KEYS_H
#define PM_MODEL_KEYS_H

#include "gguf/gguf.h"

#define PM_MAX_SIZE (1 << 24) /* of any width, vocabulary or context: keeps sums and small multiples inside int32 */

typedef struct pm_keys {
    const pm_gguf *file;
    const char *prefix, *other; /* other may be NULL */
    pymtp_error *err;
    char full[128];             /* the key looked up last, for error texts */
} pm_keys;

typedef enum pm_need { PM_OPTIONAL, PM_REQUIRED } pm_need; /* optional and absent: *out stays as it is */

/* general.architecture as text; PYMTP_E_FORMAT when there is none. */
pymtp_status pm_keys_architecture(const pm_gguf *g, const char **out, pymtp_error *err);
const pm_gguf_value *pm_keys_find(pm_keys *k, const char *name);
/* PYMTP_E_FORMAT "file: key 'k': expected WHAT, found VALUE" about the key found last. */
pymtp_status pm_keys_bad(const pm_keys *k, const pm_gguf_value *v, const char *expected);
pymtp_status pm_keys_int(pm_keys *k, const char *name, pm_need need, int64_t low, int64_t high, int32_t *out);
/* The first of several names that is there; all are optional. */
pymtp_status pm_keys_int_of(pm_keys *k, const char *const *names, size_t n, int64_t low, int64_t high, int32_t *out);
pymtp_status pm_keys_float(pm_keys *k, const char *name, pm_need need, double low, double high, double *out);
/* One value for each of n layers: a scalar fills all, an array has n. out: (n) */
pymtp_status pm_keys_layers(pm_keys *k, const char *name, pm_need need, int32_t n, int64_t low, int64_t high, int32_t *out);
/* attention.sliding_window_pattern: (n) 1 = sliding. A scalar p says that every p-th layer is global; a single bool is for all. */
pymtp_status pm_keys_pattern(pm_keys *k, pm_need need, int32_t n, int32_t *out);
/* A rotary dimension other than the head's, or scaled positions: known to llama.cpp, used by no Gemma 4. */
pymtp_status pm_keys_rope(pm_keys *k, const char *dims_name, int32_t head_dim, int32_t *dims, const char *base_name, double *base);

#endif
