/* session.h - one timeline: its tokens, KV cache, last hidden row, snapshots, and the request that runs on it.
 *
 * Invariants between calls: the cache holds K/V of tokens[0..length); `h` is the hidden row of position length - 1 when
 * has_h is set; snapshots are of prefixes of tokens[0..length). All functions here expect the model's lock to be held. */
#ifndef PM_ENGINE_SESSION_H
#define PM_ENGINE_SESSION_H

#include "engine/model.h"
#include "engine/sampler.h"
#include "engine/stop.h"

#define PM_SNAPSHOTS 2

typedef struct pm_mark { /* a session's own snapshot at a turn boundary */
    int64_t length; /* 0: free */
    pm_kv_snapshot *rings;
    pm_buf *h;
} pm_mark;

typedef struct pm_request {
    int active;
    pymtp_params params;         /* its pointers are not used: what they held is copied */
    int32_t *prompt, *script;
    int64_t n_prompt, n_script, emitted;
    int32_t pending;             /* chosen and emitted, not fed yet; -1 while the prompt runs */
    pm_sampler *sampler;
    int32_t top;                 /* best logits of a row that the sampler needs, at most PM_HEAD_TOP; 0: all */
    pm_stop *stop;
    pymtp_decoder *decoder;
    int32_t drafts[PM_MAX_DRAFT];
    int32_t n_drafts;
    pm_acceptance acceptance;    /* of its drafts, for automatic depth */
    /* what the last step gave */
    int32_t out[PM_ROUND_ROWS];
    pymtp_logprob *logprobs;     /* (PM_ROUND_ROWS, 1 + params.logprobs) */
    size_t n_out;
    size_t n_accepted;           /* drafts of this step's round that were right; the first of out, but for an ending id */
    int32_t finish, stop_id;
    pymtp_error error;
} pm_request;

struct pymtp_session {
    pymtp_model *model;
    pm_kv *kv;
    int32_t *tokens; /* (capacity) */
    int64_t length, capacity;
    pm_buf *h;       /* (D) */
    int has_h;
    pm_mark marks[PM_SNAPSHOTS];
    atomic_int cancelled;
    pm_request request;
    pymtp_stats stats;
};

/* ---- timeline (session.c) ---- */
pymtp_status pm_session_reserve(pymtp_session *s, int64_t length, pymtp_error *err); /* room for tokens and K/V */
/* Appends n tokens in passes of the model's chunk. want: PYMTP_LOGITS_*; hidden may be NULL. As before on failure. */
pymtp_status pm_session_append(pymtp_session *s, const int32_t *ids, int64_t n, int32_t want, float *logits, float *hidden,
                               pymtp_error *err);
pymtp_status pm_session_rewind(pymtp_session *s, int64_t length, pymtp_error *err); /* length in 0..s->length */
/* The longest length <= limit to which the session can go back without computing; goes there. */
int64_t pm_session_fall_back(pymtp_session *s, int64_t limit);
/* Goes to a length <= the session's that needs no computing: the rings reach, or come from a snapshot of that length. h: its hidden
 * row, or NULL when it is not known. */
void pm_session_go_to(pymtp_session *s, int64_t length, const pm_kv_snapshot *rings, const pm_buf *h);
pymtp_status pm_session_mark(pymtp_session *s, pymtp_error *err); /* an own snapshot here, dropping the oldest */
int64_t pm_common_prefix(const int32_t *a, int64_t n, const int32_t *b, int64_t m);
pymtp_status pm_ids_check(const pymtp_model *m, const int32_t *ids, size_t n, const char *what, pymtp_error *err);

/* ---- request (request.c) ---- */
pymtp_status pm_request_start(pymtp_session *s, const int32_t *prompt, size_t n, const pymtp_params *params, pymtp_error *err);
void pm_request_free(pm_request *r); /* all of it; leaves an empty one */
void pm_request_drop(pymtp_session *s); /* ends and frees it; its output and statistics stay readable until the next */
void pm_request_begin_step(pymtp_session *s);
/* The token chosen for absolute position `position` from a row of logits ((vocab) when the request wants log-probabilities,
 * else not read): emits it and finds out whether that ends the request. request.finish tells. */
pymtp_status pm_request_emit(pymtp_session *s, int32_t id, int64_t position, const float *logits, pymtp_error *err);
void pm_request_finish(pymtp_session *s, int32_t finish);
void pm_request_fail(pymtp_session *s, const pymtp_error *why);

/* ---- step (step.c) ---- */
pymtp_status pm_step(pymtp_session *const *sessions, size_t n, pymtp_error *err);

#endif
