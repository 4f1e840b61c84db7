/* gguf.h - reader of GGUF files: header, metadata, tensor directory, positioned reads of tensor data.
 *
 * Knows nothing of models. Versions 2 and 3, little-endian, split sets (any part opens all parts). Every count,
 * length, offset and alignment from the file is checked against the file's size before it is used; memory taken is
 * bounded by a small multiple of the bytes read. After pm_gguf_open, every string is UTF-8-agnostic bytes with a NUL
 * behind it, names are unique, and every tensor's bytes lie inside its file and overlap no other's. */
#ifndef PM_GGUF_H
#define PM_GGUF_H

#include "base/status.h"

typedef struct pm_gguf pm_gguf;

typedef enum pm_gguf_type { /* the file's numbers */
    PM_GGUF_U8 = 0, PM_GGUF_I8, PM_GGUF_U16, PM_GGUF_I16, PM_GGUF_U32, PM_GGUF_I32, PM_GGUF_F32, PM_GGUF_BOOL,
    PM_GGUF_STRING, PM_GGUF_ARRAY, PM_GGUF_U64, PM_GGUF_I64, PM_GGUF_F64
} pm_gguf_type;

typedef struct pm_string { const char *data; size_t bytes; } pm_string; /* data[bytes] == 0 */

/* One metadata value. Scalars: n == 1. Arrays: type is the element type, is_array set, n elements. Arrays of arrays
 * are kept as opaque (nested set, no accessor but JSON text). */
typedef struct pm_gguf_value pm_gguf_value;

typedef struct pm_gguf_tensor {
    const char *name;
    uint32_t type;          /* ggml type number, known or not */
    uint32_t n_dims;        /* 1..4 */
    uint64_t dims[4];       /* dims[0] = row length (ne0); unused = 1; none is 0 */
    uint64_t rows;          /* dims[1] * dims[2] * dims[3] */
    uint64_t bytes;         /* of the data; 0 when the type is unknown */
    uint64_t offset;        /* in its file, absolute */
    uint32_t file;          /* index of the split part */
} pm_gguf_tensor;

pymtp_status pm_gguf_open(const char *path, pm_gguf **out, pymtp_error *err);
void pm_gguf_close(pm_gguf *g);
const char *pm_gguf_path(const pm_gguf *g);
uint64_t pm_gguf_bytes(const pm_gguf *g); /* all parts */

/* metadata (of a split set: of its first part) */
size_t pm_gguf_n_keys(const pm_gguf *g);
const char *pm_gguf_key(const pm_gguf *g, size_t i);
const pm_gguf_value *pm_gguf_value_at(const pm_gguf *g, size_t i);
const pm_gguf_value *pm_gguf_find(const pm_gguf *g, const char *key); /* NULL if absent; O(log n) or better */

pm_gguf_type pm_gguf_value_type(const pm_gguf_value *v); /* element type for arrays */
int pm_gguf_value_is_array(const pm_gguf_value *v);
uint64_t pm_gguf_value_count(const pm_gguf_value *v);
/* Lenient element access: any integer width (and bool) that fits; return 1 on success, 0 when the type does not fit. */
int pm_gguf_int(const pm_gguf_value *v, uint64_t i, int64_t *out);
int pm_gguf_float(const pm_gguf_value *v, uint64_t i, double *out); /* floats and integers */
int pm_gguf_str(const pm_gguf_value *v, uint64_t i, pm_string *out);
/* JSON text, as pymtp_file_value_json. */
int64_t pm_gguf_json(const pm_gguf_value *v, size_t max_items, char *out, size_t cap);
/* The value as in a file: type number, then payload. Returns how many bytes that takes, and writes them when cap suffices. */
int64_t pm_gguf_value_bytes(const pm_gguf_value *v, void *out, size_t cap);

/* tensors (of all parts) */
size_t pm_gguf_n_tensors(const pm_gguf *g);
const pm_gguf_tensor *pm_gguf_tensor_at(const pm_gguf *g, size_t i);
const pm_gguf_tensor *pm_gguf_tensor_find(const pm_gguf *g, const char *name); /* NULL if absent */
const char *pm_ggml_type_name(uint32_t type); /* every type ggml ever had, also those pymtp refuses; else NULL */
/* Reads n bytes of the tensor's data from `offset` within it. */
pymtp_status pm_gguf_read(const pm_gguf *g, const pm_gguf_tensor *t, uint64_t offset, void *dst, size_t n,
                          pymtp_error *err);

#endif
