/* check.h - the smallest test harness: CHECK counts, prints what failed, and check_done() is main's return value. */
#ifndef PM_TESTS_CHECK_H
#define PM_TESTS_CHECK_H

#include <stdio.h>
#include <string.h>

static int check_failures, check_count;

#define CHECK(condition, ...)                                                    \
    do {                                                                         \
        check_count++;                                                           \
        if (!(condition)) {                                                      \
            if (check_failures++ < 20) {                                         \
                printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);           \
                printf(__VA_ARGS__);                                             \
                printf("\n");                                                    \
            }                                                                    \
        }                                                                        \
    } while (0)

/* Whether to run a part of a test, a kernel set or a model: all, or those that the command line names, for an emulator. */
static inline int check_wanted(int argc, char **argv, const char *name) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], name)) return 1;
    return argc == 1;
}

static inline int check_done(void) {
    printf("%d checks, %d failed\n", check_count, check_failures);
    return check_failures || !check_count;
}

#endif
