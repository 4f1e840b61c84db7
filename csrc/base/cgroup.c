/* cgroup.c - reads /proc/self/cgroup: lines "number:controllers:path", with no controllers for v2. */
#include "base/cgroup.h"

#include <stdio.h>
#include <string.h>

#define PATH_BYTES 4096

/* Is `name` one of a list with commas? ("cpu" is not in "cpuset,cpuacct".) */
static int listed(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (;;) {
        if (!strncmp(list, name, n) && (!list[n] || list[n] == ',')) return 1;
        if (!(list = strchr(list, ','))) return 0;
        list++;
    }
}

void pm_cgroup_walk(const char *root, const char *controller, void (*visit)(void *context, const char *folder, int v2), void *context) {
    char line[PATH_BYTES], folder[2 * PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/proc/self/cgroup", root);
    FILE *f = fopen(folder, "r");
    while (f && fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        controllers++;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        const int v2 = !*controllers;
        if (!v2 && !listed(controllers, controller)) continue;
        for (;;) { /* the group itself, then each parent, the root last */
            snprintf(folder, sizeof folder, "%s/sys/fs/cgroup%s%s%s", root, v2 ? "" : "/", v2 ? "" : controller, path);
            visit(context, folder, v2);
            char *slash = strrchr(path, '/');
            if (!slash) break;
            *slash = 0;
        }
    }
    if (f) fclose(f);
}
