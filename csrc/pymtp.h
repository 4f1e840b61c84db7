/* pymtp.h - the one public header of pymtp, a runtime for Gemma 4 GGUF models and their MTP drafters.
 *
 * The Python bindings read this very file (cffi), so it holds plain declarations, integer defines and one
 * export macro. It includes nothing of pymtp and may be included from anywhere, C or C++.
 *
 * Conventions
 *  - Functions that can fail return pymtp_status (0 = ok, negative = error) or a NULL handle, and describe the
 *    failure in *err (which may be NULL). No function prints, exits or aborts.
 *  - Handles are opaque. Who gets a handle from *_open/_new/_snapshot frees it with the matching function; freeing
 *    NULL is allowed. A model must outlive its sessions and snapshots: closing earlier is refused
 *    (PYMTP_E_STATE) and changes nothing.
 *  - Arrays are row-major. Strings are UTF-8. Counts are elements, not bytes, unless the name says bytes.
 *  - Structs with a `size` member grow at the end: set size = sizeof(struct) before use.
 *  - Threads: every call on a model, its sessions and its tokenizer is safe from any thread; calls that compute on
 *    one model take turns. Only pymtp_cancel() acts while another call on the same session runs.
 */
#ifndef PYMTP_H
#define PYMTP_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define PYMTP_API __attribute__((visibility("default")))
#else
#define PYMTP_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define PYMTP_ABI_VERSION 3

/* ---- errors ------------------------------------------------------------------------------------------------- */

#define PYMTP_OK 0
#define PYMTP_E_ARG -1         /* an argument is out of range or inconsistent */
#define PYMTP_E_IO -2          /* the system refused to open or read a file, or the file was too short */
#define PYMTP_E_FORMAT -3      /* the file is not what it claims to be: malformed or inconsistent */
#define PYMTP_E_UNSUPPORTED -4 /* well-formed, but not of the Gemma 4 family or with an unknown tensor type */
#define PYMTP_E_MISMATCH -5    /* target and drafter (or sessions of two models) do not belong together */
#define PYMTP_E_NOMEM -6       /* memory could not be reserved or committed */
#define PYMTP_E_CONTEXT -7     /* the rows do not fit in the context */
#define PYMTP_E_CANCELLED -8   /* pymtp_cancel() was called; state as before the call */
#define PYMTP_E_NONFINITE -9   /* the network produced a NaN or an infinity; the text names the position */
#define PYMTP_E_STATE -10      /* the call is not valid in this state */
#define PYMTP_E_SYSTEM -11     /* a thread or lock could not be created */

typedef int32_t pymtp_status;

/* First failure of a call: code (PYMTP_E_*) and one line of text, always terminated. */
typedef struct pymtp_error {
    int32_t code;
    char text[1020];
} pymtp_error;

/* ---- library ------------------------------------------------------------------------------------------------ */

PYMTP_API int32_t pymtp_abi_version(void);     /* PYMTP_ABI_VERSION of the library; compare after loading it */
PYMTP_API const char *pymtp_version(void);     /* "0.1.0" */
PYMTP_API const char *pymtp_build(void);       /* the compiler: "gcc 13.2.0" */
/* sizeof of the public struct called `name` ("pymtp_params", ...) in the library, 0 if unknown: the load handshake. */
PYMTP_API size_t pymtp_struct_size(const char *name);
/* Kernel sets this machine can run, best first, comma-separated ("avx512vnni,avx512,avx2,scalar"). PYMTP_CPU=name forces one. */
PYMTP_API const char *pymtp_cpu_names(void);
PYMTP_API int32_t pymtp_cpu_threads(void);     /* one per physical performance core: what threads = 0 means */

/* What a machine can do, measured. The largest is what counts as its limit: whatever else runs only takes away. */
typedef struct pymtp_machine {
    uint32_t size;
    int32_t threads;
    double read_bytes_per_second;       /* streaming through memory far larger than the caches: median of the rounds */
    double read_bytes_per_second_best;  /* largest of the rounds */
    double int8_multiply_adds_per_second; /* the kernel set's dot instruction on cached values: largest of the rounds */
    double f32_multiply_adds_per_second;  /* its FMA, likewise */
    const char *cpu;                    /* kernel set measured; static */
} pymtp_machine;

/* Measures with `threads` threads (0: one per physical performance core) for about a second. Takes 512 MiB of memory for a moment (64 MiB a
 * thread where that is more), less where little is available. */
PYMTP_API pymtp_status pymtp_measure(int32_t threads, pymtp_machine *out, pymtp_error *err);

/* ---- any GGUF file, for inspection --------------------------------------------------------------------------- */

typedef struct pymtp_file pymtp_file;

typedef struct pymtp_tensor_info {
    const char *name;      /* owned by the file */
    const char *type;      /* "Q4_K", ...; "type 19" when pymtp does not know it */
    uint32_t n_dims;
    uint64_t dims[4];      /* dims[0] is the row length (ggml's ne0); unused ones are 1 */
    uint64_t bytes;
} pymtp_tensor_info;

/* Opens a GGUF v2/v3 file; of a split set, any part opens the whole set. Reads header, metadata and tensor directory. */
PYMTP_API pymtp_file *pymtp_file_open(const char *path, pymtp_error *err);
PYMTP_API void pymtp_file_close(pymtp_file *f);
PYMTP_API size_t pymtp_file_n_keys(const pymtp_file *f);
PYMTP_API const char *pymtp_file_key(const pymtp_file *f, size_t i);
/* The value of a key as JSON text; of arrays at most max_items items, then "...". Returns the byte length needed
 * (without the terminator) and writes at most cap bytes, terminated; -1 when there is no such key. */
PYMTP_API int64_t pymtp_file_value_json(const pymtp_file *f, const char *key, size_t max_items, char *out, size_t cap);
/* The value of a key as a GGUF file holds it (type number, then payload), to be copied into another. Returns how many bytes
 * that takes and writes them when cap suffices; -1 when there is no such key. */
PYMTP_API int64_t pymtp_file_value_bytes(const pymtp_file *f, const char *key, void *out, size_t cap);
/* The raw bytes of a string value (which may hold NULs); NULL when there is no such key or it is no string. */
PYMTP_API const char *pymtp_file_string(const pymtp_file *f, const char *key, size_t *bytes);
PYMTP_API size_t pymtp_file_n_tensors(const pymtp_file *f);
PYMTP_API pymtp_status pymtp_file_tensor(const pymtp_file *f, size_t i, pymtp_tensor_info *out);
/* Reads `bytes` bytes of tensor i's data from `offset` within it, whichever part of a split set holds them. */
PYMTP_API pymtp_status pymtp_file_read(const pymtp_file *f, size_t i, uint64_t offset, void *dst, size_t bytes, pymtp_error *err);

/* ---- tensor types: rows of floats to blocks and back ------------------------------------------------------------ */

/* The types pymtp computes with, by their numbers in GGUF files: writes the first min(cap, count), returns the count. */
PYMTP_API int32_t pymtp_types(int32_t *out, size_t cap);
PYMTP_API int32_t pymtp_type_find(const char *name);         /* "Q4_K" -> 12; -1: no such type */
PYMTP_API const char *pymtp_type_name(int32_t type);         /* static; NULL: no such type */
PYMTP_API int32_t pymtp_type_block_values(int32_t type);     /* columns are a multiple of it; 0: no such type */
PYMTP_API int32_t pymtp_type_block_bytes(int32_t type);      /* a row takes columns / block_values of these; 0: no such type */
/* src (rows, columns) to rows * columns / block_values blocks in dst, whose dst_bytes must be their size. importance: (columns)
 * weights, 0 and up, of the squared errors in a column, or NULL: all alike. threads as in pymtp_measure. A value that is not finite,
 * or too large for the type's halves, is PYMTP_E_ARG with row and column (of the first); dst is then not to be used, but every other
 * error is found before anything is written. The blocks are the same bytes for any number of threads, and a row's do not depend
 * on the other rows. */
PYMTP_API pymtp_status pymtp_encode(int32_t type, const float *src, int64_t rows, int64_t columns, const float *importance,
                                    void *dst, size_t dst_bytes, int32_t threads, pymtp_error *err);
/* The blocks' values: dst (rows, columns). */
PYMTP_API pymtp_status pymtp_decode(int32_t type, const void *src, size_t src_bytes, int64_t rows, int64_t columns, float *dst,
                                    int32_t threads, pymtp_error *err);

/* ---- tokenizer ---------------------------------------------------------------------------------------------- */

typedef struct pymtp_tokenizer pymtp_tokenizer;
typedef struct pymtp_decoder pymtp_decoder;

#define PYMTP_TOK_SPECIAL 1 /* parse control tokens (<|turn>, ...) and user-defined markers in the text */
#define PYMTP_TOK_BOS 2     /* put one BOS in front, unless the text already starts with it (after special parsing) */
#define PYMTP_TOK_MARKERS 4 /* parse user-defined markers (<|channel>, <|tool_call>, ...) but not control tokens */

#define PYMTP_TOKEN_NORMAL 1
#define PYMTP_TOKEN_UNKNOWN 2
#define PYMTP_TOKEN_CONTROL 3
#define PYMTP_TOKEN_USER_DEFINED 4
#define PYMTP_TOKEN_UNUSED 5
#define PYMTP_TOKEN_BYTE 6

/* Opens the tokenizer of any Gemma 4 GGUF, also one without tensors. */
PYMTP_API pymtp_tokenizer *pymtp_tokenizer_open(const char *path, pymtp_error *err);
PYMTP_API void pymtp_tokenizer_close(pymtp_tokenizer *t);
PYMTP_API int32_t pymtp_tokenizer_size(const pymtp_tokenizer *t);
PYMTP_API int32_t pymtp_tokenizer_bos(const pymtp_tokenizer *t);
PYMTP_API int32_t pymtp_tokenizer_is_eog(const pymtp_tokenizer *t, int32_t id); /* ends a generation: 1, 50, 106, eos */
PYMTP_API int32_t pymtp_tokenizer_type(const pymtp_tokenizer *t, int32_t id);   /* PYMTP_TOKEN_*, 0 if no such id */
/* The id whose piece is exactly `piece`, or -1. */
PYMTP_API int32_t pymtp_tokenizer_find(const pymtp_tokenizer *t, const char *piece, size_t bytes);
/* The stored piece of an id (U+2581 for spaces, <0xHH> for bytes), owned by the tokenizer; NULL if no such id. */
PYMTP_API const char *pymtp_tokenizer_piece(const pymtp_tokenizer *t, int32_t id, size_t *bytes);
/* Returns the number of ids of the text and writes the first min(cap, that) of them; negative status on error.
 * Malformed UTF-8 is defined: each byte that starts no valid sequence becomes its byte token. There are never more
 * ids than bytes of text, but for the BOS. */
PYMTP_API int64_t pymtp_tokenize(const pymtp_tokenizer *t, const char *text, size_t bytes, int32_t flags, int32_t *ids,
                                 size_t cap, pymtp_error *err);
/* Text of ids in one go: byte count, writing at most cap. Control tokens are left out unless flags has
 * PYMTP_TOK_SPECIAL; invalid UTF-8 built from byte tokens becomes U+FFFD. */
PYMTP_API int64_t pymtp_detokenize(const pymtp_tokenizer *t, const int32_t *ids, size_t n, int32_t flags, char *out,
                                   size_t cap, pymtp_error *err);
/* Streaming: push one id, get the bytes of the characters that are complete now (possibly none). Owned by the
 * decoder until the next call; NULL if there is no such id. flush gives what is left (an incomplete sequence as
 * U+FFFD). The concatenation equals pymtp_detokenize of all ids. */
PYMTP_API pymtp_decoder *pymtp_decoder_new(const pymtp_tokenizer *t, int32_t flags, pymtp_error *err);
PYMTP_API const char *pymtp_decoder_push(pymtp_decoder *d, int32_t id, size_t *bytes);
PYMTP_API const char *pymtp_decoder_flush(pymtp_decoder *d, size_t *bytes);
PYMTP_API void pymtp_decoder_free(pymtp_decoder *d);
/* Operations on the merge queue by all pymtp_tokenize calls so far: lets tests bound the work, not the time. */
PYMTP_API uint64_t pymtp_tokenizer_merge_ops(const pymtp_tokenizer *t);

/* ---- model -------------------------------------------------------------------------------------------------- */

typedef struct pymtp_model pymtp_model;

#define PYMTP_KV_F16 0
#define PYMTP_KV_F32 1
#define PYMTP_KV_Q8_0 2

#define PYMTP_MAX_DRAFT 16

typedef struct pymtp_model_options {
    uint32_t size;
    int32_t threads;       /* worker threads; 0: one per physical performance core (docs/DESIGN.md) */
    int64_t context;       /* positions per session; 0: the model's maximum (reserved, not committed) */
    int32_t kv;            /* PYMTP_KV_* */
    int32_t chunk;         /* prompt rows per pass, 1..512; 0: 128. Never changes the output. */
    const char *drafter;   /* path of the drafter GGUF, or NULL */
} pymtp_model_options;

typedef struct pymtp_model_info {
    uint32_t size;
    int32_t vocab, width, layers, heads, window, context, shared_kv_layers, ple_width, experts, experts_used;
    int32_t head_dim, head_dim_global; /* sliding and global layers */
    int32_t threads, kv, chunk;
    int32_t drafter_layers;            /* 0: no drafter */
    int32_t drafter_width, drafter_centroids, drafter_centroid_top_k;
    uint64_t weight_bytes;             /* what a pass over all weights holds in memory, drafter included */
    uint64_t kv_bytes_per_position;    /* of the layers stored in full */
    uint64_t kv_bytes_fixed;           /* of the rings, once they are full */
    uint64_t snapshot_bytes;           /* of one snapshot, 0 where sliding layers are stored in full */
    const char *name;                  /* general.name, "" if absent; owned by the model, as the next ones */
    const char *cpu;                   /* kernel set in use */
    const char *drafter_name;
} pymtp_model_info;

/* What the passes over a model have computed since it was opened, drafter included: differences tell what a call cost. Bytes are
 * those of the rows as the file stores them. A matrix counts once per pass, however many rows of activations it meets. */
typedef struct pymtp_counters {
    uint32_t size;
    int32_t reserved;
    uint64_t weight_bytes;             /* of the weights multiplied */
    uint64_t kv_bytes;                 /* of the cached keys and values that rows of the passes could see */
    uint64_t multiply_adds_int8;       /* in products of weights with 8-bit activations */
    uint64_t multiply_adds_f32;        /* in products of weights with float activations; attention is not counted */
    uint64_t experts;                  /* experts whose weights were read: distinct ones of a layer and pass */
} pymtp_counters;

/* What a model would hold, in bytes, and what there is. Weights are counted as they lie in memory. Address space for a whole context is
 * reserved when a session is made, memory is taken as positions fill: so a session of n positions holds n * kv_bytes_per_position +
 * kv_bytes_fixed, and up to two snapshots. */
typedef struct pymtp_memory {
    uint32_t size;
    int32_t context;                   /* positions a session can have */
    uint64_t weight_bytes;             /* that passes multiply, drafter included */
    uint64_t activation_bytes;         /* scratch and activations of a pass */
    uint64_t kv_bytes_per_position, kv_bytes_fixed, snapshot_bytes; /* as in pymtp_model_info */
    uint64_t available_bytes;          /* on the machine and within its control groups; UINT64_MAX where unknown */
} pymtp_memory;

/* Estimates from configuration and shapes, reading no weights. Takes what pymtp_model_open takes and refuses the same files. */
PYMTP_API pymtp_status pymtp_memory_estimate(const char *path, const pymtp_model_options *options, pymtp_memory *out, pymtp_error *err);
/* Whether a target, and a drafter with it (or NULL), would open: everything that pymtp_model_open checks in the files but the values
 * of tensors, reading no weights and without regard to memory. A drafter as target, or a pair that does not belong together:
 * PYMTP_E_MISMATCH. */
PYMTP_API pymtp_status pymtp_pair_check(const char *target, const char *drafter, pymtp_error *err);
/* Opens a target and, when options->drafter is given, its drafter. options may be NULL. The pair is checked here. */
PYMTP_API pymtp_model *pymtp_model_open(const char *path, const pymtp_model_options *options, pymtp_error *err);
/* PYMTP_E_STATE while sessions or snapshots of the model are alive. */
PYMTP_API pymtp_status pymtp_model_close(pymtp_model *m, pymtp_error *err);
PYMTP_API pymtp_status pymtp_model_get_info(const pymtp_model *m, pymtp_model_info *out);
PYMTP_API pymtp_status pymtp_model_get_counters(pymtp_model *m, pymtp_counters *out);
PYMTP_API const pymtp_tokenizer *pymtp_model_tokenizer(const pymtp_model *m); /* owned by the model */

/* ---- session: one timeline ----------------------------------------------------------------------------------- */

typedef struct pymtp_session pymtp_session;
typedef struct pymtp_snapshot pymtp_snapshot;

#define PYMTP_LOGITS_NONE 0
#define PYMTP_LOGITS_LAST 1
#define PYMTP_LOGITS_ALL 2

PYMTP_API pymtp_session *pymtp_session_new(pymtp_model *m, pymtp_error *err);
PYMTP_API void pymtp_session_free(pymtp_session *s);
/* Tokens whose K/V are in the cache. The next row gets this position. */
PYMTP_API int64_t pymtp_session_length(const pymtp_session *s);
/* Writes the first min(cap, length) tokens, returns the length. */
PYMTP_API int64_t pymtp_session_tokens(const pymtp_session *s, int32_t *out, size_t cap);
/* Appends n tokens. logits: (rows, vocab) with rows = 0, 1 or n by `want` (PYMTP_LOGITS_*), after softcapping;
 * hidden: (n, width) after the output norm, or NULL. On failure the session is as before. A request that runs on the session is over
 * with this call, as with rewind, sync and restore; not when its arguments are refused. */
PYMTP_API pymtp_status pymtp_session_forward(pymtp_session *s, const int32_t *ids, size_t n, int32_t want, float *logits,
                                             float *hidden, pymtp_error *err);
/* n chained greedy drafts, at most the context, after the pending token `pending` (chosen, not in the cache). out_ids: (n); logits:
 * (n, vocab) or NULL, ids outside the chosen clusters at min(chosen) - 1; hidden: (n, drafter_width) or NULL, the rows
 * that the drafter's head multiplies. Changes nothing in the session. Needs a drafter and the hidden row of position
 * length - 1 (kept by the last forward; PYMTP_E_STATE after a rewind). */
PYMTP_API pymtp_status pymtp_session_draft(pymtp_session *s, size_t n, int32_t pending, int32_t *out_ids, float *logits,
                                           float *hidden, pymtp_error *err);
/* The hidden row of position length - 1: (width). PYMTP_E_STATE where there is none. */
PYMTP_API pymtp_status pymtp_session_hidden(const pymtp_session *s, float *out, pymtp_error *err);
/* Back to an earlier length. Where the rings no longer reach, the session replays its own tokens from the nearest
 * snapshot (stats: replayed). */
PYMTP_API pymtp_status pymtp_session_rewind(pymtp_session *s, int64_t length, pymtp_error *err);
/* Keeps the longest common prefix of the session's tokens and ids; *kept is its length. */
PYMTP_API pymtp_status pymtp_session_sync(pymtp_session *s, const int32_t *ids, size_t n, int64_t *kept, pymtp_error *err);
PYMTP_API pymtp_snapshot *pymtp_session_snapshot(pymtp_session *s, pymtp_error *err);
/* Brings the session to the snapshot's tokens, from the session's own cache where its prefix still agrees, else by
 * recomputing (stats: replayed); when that fails, the session keeps a prefix that both share. The snapshot stays valid and
 * may be restored into any session of the same model. */
PYMTP_API pymtp_status pymtp_session_restore(pymtp_session *s, const pymtp_snapshot *snap, pymtp_error *err);
PYMTP_API void pymtp_snapshot_free(pymtp_snapshot *snap);
/* The stored bytes of one position in one layer, keys then values: returns their count (0: the layer owns no K/V;
 * negative: not readable) and writes them when cap suffices. Of sliding layers the last window - 1 positions are readable.
 * For tests of equality. */
PYMTP_API int64_t pymtp_session_kv_bytes(const pymtp_session *s, int32_t layer, int64_t position, uint8_t *out, size_t cap);

/* ---- generation: a pull loop --------------------------------------------------------------------------------- */

#define PYMTP_DRAFT_AUTO -1

#define PYMTP_FINISH_NONE 0 /* still running */
#define PYMTP_FINISH_STOP 1 /* an end token or a stop string */
#define PYMTP_FINISH_LENGTH 2
#define PYMTP_FINISH_CONTEXT 3
#define PYMTP_FINISH_CANCELLED 4
#define PYMTP_FINISH_ERROR 5

/* How tokens are chosen (docs/DESIGN.md, sampling). The chain: suppressed ids and bias; repetition, presence and
 * frequency penalties over the tokens emitted by this request; top-k; top-p and min-p on the untempered softmax;
 * division by the temperature; Gumbel noise from (seed, absolute position, id); argmax, ties to the lowest id.
 * Temperature 0: argmax after bias and penalties. Use pymtp_params_init() for the defaults. */
typedef struct pymtp_params {
    uint32_t size;
    int32_t max_tokens;          /* new tokens at most; -1: until the context is full */
    double temperature;          /* 0 and up; default 1.0 */
    int32_t top_k;               /* 0: off; default 64 */
    int32_t ignore_eos;          /* 1: end tokens are emitted like others */
    double top_p;                /* 1: off; default 0.95 */
    double min_p;                /* 0: off; default 0 */
    double repetition_penalty;   /* 1: off */
    double presence_penalty;     /* 0: off */
    double frequency_penalty;    /* 0: off */
    uint64_t seed;
    const int32_t *bias_ids;     /* logit bias: (n_bias) ids and values added to the logits; copied */
    const float *bias_values;
    size_t n_bias;
    const char *const *stop;     /* (n_stop) stop strings; copied */
    const size_t *stop_bytes;    /* (n_stop) their lengths */
    size_t n_stop;
    int32_t logprobs;            /* -1: off; 0..20: log-probability of each token and of that many best ones */
    int32_t draft;               /* PYMTP_DRAFT_AUTO or 0..PYMTP_MAX_DRAFT drafts a round */
    const int32_t *script;       /* tests: drafts come from here, script[i] for the i-th new token; copied */
    size_t n_script;             /* no drafts beyond its end */
    int64_t snapshot_at;         /* prompt length at which to keep a snapshot; -1: at its end; -2: none */
} pymtp_params;

/* One id with its log-probability under the softmax of the softcapped logits (before bias, penalties, temperature). */
typedef struct pymtp_logprob {
    int32_t id;
    float logprob;
} pymtp_logprob;

/* What one step gave. Pointers belong to the session and hold until its next call. */
typedef struct pymtp_output {
    uint32_t size;
    int32_t finish;              /* PYMTP_FINISH_* */
    int32_t status;              /* PYMTP_OK, or why finish is PYMTP_FINISH_ERROR */
    int32_t stop_id;             /* the end token that stopped it, else -1 */
    const int32_t *tokens;       /* (n_tokens) new ids, without an ending id */
    size_t n_tokens;
    const char *text;            /* (n_text) bytes that are safe to show: whole characters, no part of a stop string */
    size_t n_text;
    const pymtp_logprob *logprobs; /* (n_tokens, 1 + params.logprobs): the token itself, then the best; else NULL */
    const char *error;           /* text for status, "" if none */
    size_t n_drafted;            /* the first n_drafted of tokens were drafts, the others the target's own */
} pymtp_output;

/* Counters of the current or last request of a session. Seconds are wall time of the passes it took part in. */
typedef struct pymtp_stats {
    uint32_t size;
    int32_t reserved;
    uint64_t tokens;             /* new tokens */
    uint64_t passes;             /* target passes after the prompt */
    uint64_t prompt_tokens;
    uint64_t prompt_reused;      /* prompt tokens found in the cache */
    uint64_t replayed;           /* tokens recomputed because a ring no longer reached */
    uint64_t drafted, accepted;
    uint64_t drafted_by_position[16], accepted_by_position[16];
    double seconds_prompt, seconds_draft, seconds_target, seconds_sample;
} pymtp_stats;

PYMTP_API void pymtp_params_init(pymtp_params *p);
/* Starts a request: keeps the common prefix with the session, queues the rest of the prompt (at least one token). */
PYMTP_API pymtp_status pymtp_generate(pymtp_session *s, const int32_t *prompt, size_t n, const pymtp_params *params,
                                      pymtp_error *err);
/* One step for n sessions of one model, sharing passes over the weights: a chunk of prompt, or draft, verify and
 * commit. Sessions without a running request are refused. A failure that concerns one session is in its output;
 * the returned status tells of failures that concern all. */
PYMTP_API pymtp_status pymtp_step(pymtp_session *const *sessions, size_t n, pymtp_error *err);
PYMTP_API pymtp_status pymtp_session_output(const pymtp_session *s, pymtp_output *out);
PYMTP_API pymtp_status pymtp_session_stats(const pymtp_session *s, pymtp_stats *out);
/* From any thread: the running or next step of this session ends with PYMTP_FINISH_CANCELLED. */
PYMTP_API void pymtp_cancel(pymtp_session *s);

/* ---- tap: what meets the weights -------------------------------------------------------------------------------- */

/* Sums of one tensor that passes have multiplied: `matrices` matrices (experts, or 1) of `cols` columns. Pointers belong to the model
 * and hold until the tap is started again or stopped. */
typedef struct pymtp_tap_sums {
    uint32_t size;
    int32_t reserved;
    const char *name;            /* of the tensor */
    uint64_t matrices, cols;
    const double *sums;          /* (matrices, cols): squares of the activations that met a column, before they are rounded */
    const uint64_t *rows;        /* (matrices): how many rows of activations that were */
} pymtp_tap_sums;

/* From now on every pass adds to sums that start at zero. Outputs stay as they are, and the sums depend on the tokens alone, not on
 * threads or chunks; a pass that failed or was cancelled may be counted in some layers. Where layers share keys and values, later
 * layers see only rows whose logits or hidden rows are wanted. PYMTP_E_STATE when the model has a drafter. */
PYMTP_API pymtp_status pymtp_tap_start(pymtp_model *m, pymtp_error *err);
PYMTP_API void pymtp_tap_stop(pymtp_model *m);
/* Tensors seen so far, in order of first use. Negative status when there is no tap or it ran out of memory. */
PYMTP_API int64_t pymtp_tap_count(pymtp_model *m, pymtp_error *err);
PYMTP_API pymtp_status pymtp_tap_get(pymtp_model *m, size_t i, pymtp_tap_sums *out);

/* ---- pieces of the sampler, for tests and tools ---------------------------------------------------------------- */

/* The token that `params` choose at absolute position `position` from n candidates: logits (n) and ids (n; NULL:
 * 0..n-1 ascending). history: (n_history) ids the penalties count. Negative status on error. */
PYMTP_API int64_t pymtp_sample(const pymtp_params *params, const float *logits, const int32_t *ids, size_t n,
                               const int32_t *history, size_t n_history, int64_t position, pymtp_error *err);

/* ---- clusters of head rows: for tools that give a drafter a centroid head ---------------------------------------- */

/* Balanced spherical k-means: every cluster gets rows / clusters rows. The result depends on the rows and the counts alone, not on
 * threads or the machine. Takes rows * (2 * width + 170) bytes, about, beside 2 * width per cluster. One thread calls at a time. */
typedef struct pymtp_clustering pymtp_clustering;

/* rows: a multiple of clusters, at most 2^26; width: 1..65536; threads 0: one per physical performance core. */
PYMTP_API pymtp_clustering *pymtp_clustering_new(int64_t rows, int32_t width, int32_t clusters, int32_t threads, pymtp_error *err);
PYMTP_API void pymtp_clustering_free(pymtp_clustering *c);
/* The next n rows: (n, width), finite, of a length that a float holds. */
PYMTP_API pymtp_status pymtp_clustering_add(pymtp_clustering *c, const float *rows, int64_t n, pymtp_error *err);
/* Once all rows are there: the first call bisects them recursively, each further one is an iteration of k-means, which may be a little
 * worse than the one before; the best is kept. *objective, of this call: the mean cosine between rows and their cluster's sum. */
PYMTP_API pymtp_status pymtp_clustering_improve(pymtp_clustering *c, double *objective, pymtp_error *err);
/* The best grouping so far: ordering (clusters, rows / clusters) row numbers, ascending in each cluster; centroids (clusters, width)
 * the means of the rows as given. */
PYMTP_API pymtp_status pymtp_clustering_result(const pymtp_clustering *c, int32_t *ordering, float *centroids, pymtp_error *err);

#ifdef __cplusplus
}
#endif
#endif
