/* private.h - what the files of csrc/gguf share: the parsed form of a file and the arena that holds it.
 *
 * Names, strings and arrays live in the arena of their part until pm_gguf_close; scalars lie in the value itself.
 * That keeps memory below about four times the metadata read, whatever the file claims. */
#ifndef PM_GGUF_PRIVATE_H
#define PM_GGUF_PRIVATE_H

#include "base/file.h"
#include "gguf/cursor.h"
#include "gguf/gguf.h"

typedef struct pm_arena { struct pm_arena_chunk *first; } pm_arena;

/* 8-byte aligned, not zeroed; fills err. */
void *pm_arena_take(pm_arena *a, uint64_t bytes, pymtp_error *err);
void pm_arena_free(pm_arena *a);

struct pm_gguf_value {
    uint8_t type;           /* pm_gguf_type; of arrays, of their elements */
    uint8_t is_array;
    uint8_t nested;         /* array of arrays: data is the elements as in the file */
    uint64_t n;
    union {
        unsigned char bytes[8]; /* a scalar number */
        const unsigned char *data; /* numbers: packed; strings: one blob, a NUL behind each */
    } u;
    const uint32_t *starts; /* strings: (n + 1) offsets into data; string i ends one (its NUL) before starts[i + 1] */
};

typedef struct pm_gguf_entry { const char *key; pm_gguf_value value; } pm_gguf_entry;

/* One file of a set. */
typedef struct pm_gguf_part {
    pm_file file;
    pm_arena arena;
    uint64_t n_keys, n_tensors;
    pm_gguf_entry *entries;       /* (n_keys) in file order */
    const pm_gguf_entry **by_key; /* (n_keys) sorted */
    pm_gguf_tensor *tensors;      /* (n_tensors), moved to pm_gguf once all parts are read */
} pm_gguf_part;

struct pm_gguf {
    uint32_t n_parts;
    pm_gguf_part *parts;          /* (n_parts) in the set's order */
    char *path;                   /* as opened */
    size_t n_tensors;
    pm_gguf_tensor *tensors;      /* (n_tensors) in file order, part after part */
    const pm_gguf_tensor **by_name;
};

/* parse.c: header, metadata and directory of one part, whose file is open. Tensors are checked one by one here and
 * against each other in pm_gguf_index_tensors. */
pymtp_status pm_gguf_parse(pm_gguf_part *p, pymtp_error *err);
const pm_gguf_value *pm_gguf_part_find(const pm_gguf_part *p, const char *key);
/* Bytes of one number, 0 for strings, arrays and unknown types. */
size_t pm_gguf_number_bytes(uint32_t type);
/* A name: not empty, no NUL inside, at most 65535 bytes. Owned by the arena. */
pymtp_status pm_gguf_read_name(pm_cursor *c, pm_arena *a, const char *kind, const char **out);
#define PM_GGUF_MAX_NEST 8

/* directory.c */
pymtp_status pm_gguf_parse_tensors(pm_gguf_part *p, pm_cursor *c);
/* Fills by_name; refuses names that occur twice and data that overlaps. */
pymtp_status pm_gguf_index_tensors(pm_gguf *g, pymtp_error *err);

#endif
