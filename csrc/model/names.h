/* names.h - what tells a drafter from a target, and the names its tensors go by in the dialects. Private to csrc/model.
 *
 *   dialect               architecture       tensors
 *   llama.cpp             gemma4-assistant   nextn.pre_projection, nextn.post_projection, masked_embd_*
 *   its pull request      gemma4_assistant   mtp.pre_projection, mtp.post_projection, mtp.centroids, mtp.token_ordering
 *   ik_llama.cpp          gemma4_mtp         mtp_pre_proj, mtp_post_proj, mtp_centroids, mtp_token_ordering
 *   a fork of llama.cpp   gemma4             assistant.pre_projection, assistant.post_projection; gemma4.assistant.type
 *
 * Converters mix them, so every prefix is looked for with every stem, with and without ".weight". */
#ifndef PM_MODEL_NAMES_H
#define PM_MODEL_NAMES_H

#include "gguf/gguf.h"

#define PM_ARCH "gemma4"

typedef enum pm_drafter_part { PM_PRE, PM_POST, PM_CENTROIDS, PM_ORDERING } pm_drafter_part;

/* The tensor under whatever name; NULL if absent. */
const pm_gguf_tensor *pm_drafter_tensor(const pm_gguf *g, pm_drafter_part part);
/* The name llama.cpp writes, for error texts. */
const char *pm_drafter_tensor_name(pm_drafter_part part);
/* 1 for an architecture that only drafters have. */
int pm_is_drafter_arch(const char *arch);

#endif
