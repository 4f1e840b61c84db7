/* tokenizer.h - the Gemma 4 tokenizer: vocabulary and merges from GGUF metadata, BPE on characters, streaming decoder.
 * The public functions of pymtp.h (pymtp_tokenize, pymtp_decoder_*, ...) are implemented in this folder on the same
 * struct pymtp_tokenizer. Immutable after opening but for the operation counter (atomic): safe from any thread. */
#ifndef PM_TEXT_TOKENIZER_H
#define PM_TEXT_TOKENIZER_H

#include "base/status.h"
#include "gguf/gguf.h"

/* Copies what it needs: the file may be closed afterwards. */
pymtp_status pm_tokenizer_new(const pm_gguf *file, pymtp_tokenizer **out, pymtp_error *err);
void pm_tokenizer_free(pymtp_tokenizer *t);
/* tokenizer.ggml.suppress_tokens: ids never to be sampled; (*n) of them */
const int32_t *pm_tokenizer_suppressed(const pymtp_tokenizer *t, size_t *n);
/* A hash over all pieces in order: equal for equal vocabularies. */
uint64_t pm_tokenizer_hash(const pymtp_tokenizer *t);

#endif
