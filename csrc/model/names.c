/* names.c - the dialects of drafters: see names.h. */
#include "model/names.h"
#include "model/config.h"
#include "model/keys.h"

#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const char *const stems[][3] = { /* by pm_drafter_part */
    {"pre_projection", "pre_proj", NULL},
    {"post_projection", "post_proj", NULL},
    {"masked_embd_centroids", "centroids", "masked_embedding.centroids"},
    {"masked_embd_ordering", "token_ordering", "masked_embedding.token_ordering"},
};

const pm_gguf_tensor *pm_drafter_tensor(const pm_gguf *g, pm_drafter_part part) {
    static const char *const prefixes[] = {"nextn.", "", "mtp.", "mtp_", "assistant."}, *const suffixes[] = {".weight", ""};
    char name[80];
    for (size_t p = 0; p < COUNT(prefixes); p++)
        for (size_t s = 0; s < COUNT(stems[part]) && stems[part][s]; s++)
            for (size_t e = 0; e < COUNT(suffixes); e++) {
                snprintf(name, sizeof name, "%s%s%s", prefixes[p], stems[part][s], suffixes[e]);
                const pm_gguf_tensor *t = pm_gguf_tensor_find(g, name);
                if (t) return t;
            }
    return NULL;
}

const char *pm_drafter_tensor_name(pm_drafter_part part) {
    static const char *const names[] = {"nextn.pre_projection.weight", "nextn.post_projection.weight", "masked_embd_centroids.weight",
                                        "masked_embd_ordering"};
    return names[part];
}

int pm_is_drafter_arch(const char *arch) {
    static const char *const names[] = {"gemma4-assistant", "gemma4_assistant", "gemma4_mtp"};
    for (size_t i = 0; i < COUNT(names); i++)
        if (!strcmp(arch, names[i])) return 1;
    return 0;
}

int pm_file_is_drafter(const pm_gguf *g) {
    const char *arch;
    pm_string type;
    if (pm_keys_architecture(g, &arch, NULL) != PYMTP_OK) return 0;
    if (pm_is_drafter_arch(arch)) return 1;
    if (strcmp(arch, PM_ARCH)) return 0;
    const pm_gguf_value *v = pm_gguf_find(g, PM_ARCH ".assistant.type");
    return pm_drafter_tensor(g, PM_PRE) || (v && pm_gguf_str(v, 0, &type) && !strcmp(type.data, "mtp"));
}
