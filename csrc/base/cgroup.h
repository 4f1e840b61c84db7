/* cgroup.h - the control groups this process is in, v1 and v2, for the limits that they set. */
#ifndef PM_BASE_CGROUP_H
#define PM_BASE_CGROUP_H

/* Calls visit(context, folder, v2) for the process's group of a v1 controller ("memory", "cpu") and its v2 group, and for
 * each of their parents, the root last. Folders need not exist: a container may not see its parents. `root` comes before
 * /proc and /sys: "" outside of tests. Does nothing on systems without control groups. */
void pm_cgroup_walk(const char *root, const char *controller, void (*visit)(void *context, const char *folder, int v2), void *context);

#endif
