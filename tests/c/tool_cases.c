/* tool_cases.c - opens many files as models, each in a process of its own, and says what came of each and what it took.
 *   tool_cases [TARGET] < CASES     with TARGET, the cases are drafters for it
 * A case is its length (u32) and its bytes. A line each: peak resident KiB, then one of
 *   ok                   opened, and gave the tokens that were asked for, or as many as its context holds
 *   not finite: TEXT     opened, and said that its logits are not finite
 *   error CODE: TEXT     refused; the file's name in it is FILE
 *   signal N             crashed, or took longer than 30 s (14)
 *   wrong: TEXT          anything else */
#include "pymtp.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOKENS 2

/* TOKENS tokens after BOS, in the words of the head comment. */
static void generate(pymtp_model *m) {
    pymtp_error err;
    pymtp_params params;
    pymtp_output out = {.size = sizeof out};
    const int32_t bos = pymtp_tokenizer_bos(pymtp_model_tokenizer(m));
    size_t n = 0;
    pymtp_params_init(&params);
    params.max_tokens = TOKENS;
    params.ignore_eos = 1;
    pymtp_session *s = pymtp_session_new(m, &err);
    if (!s || pymtp_generate(s, &bos, 1, &params, &err) != PYMTP_OK) {
        printf("wrong: no request: %s\n", err.text);
        return;
    }
    while (out.finish == PYMTP_FINISH_NONE) {
        if (pymtp_step(&s, 1, &err) != PYMTP_OK || pymtp_session_output(s, &out) != PYMTP_OK) {
            printf("wrong: no step: %s\n", err.text);
            return;
        }
        n += out.n_tokens;
    }
    if ((out.finish == PYMTP_FINISH_LENGTH && n == TOKENS) || out.finish == PYMTP_FINISH_CONTEXT) puts("ok");
    else if (out.finish == PYMTP_FINISH_ERROR && out.status == PYMTP_E_NONFINITE) printf("not finite: %s\n", out.error);
    else printf("wrong: finish %d after %zu tokens: %s\n", out.finish, n, out.error);
    pymtp_session_free(s);
}

static void run(const char *path, const char *target) {
    const pymtp_model_options options = {.size = sizeof options, .threads = 1, .context = target ? 32 : 0, .chunk = 8, .drafter = target ? path : NULL};
    pymtp_error err;
    pymtp_model *m = pymtp_model_open(target ? target : path, &options, &err);
    if (m) {
        generate(m);
        if (pymtp_model_close(m, &err) != PYMTP_OK) printf("wrong: not closed: %s\n", err.text);
        return;
    }
    const size_t n = strlen(path);
    const char *at = strstr(err.text, path);
    if (strchr(err.text, '\n')) printf("wrong: several lines\n");
    else if (at) printf("error %d: %.*sFILE%s\n", err.code, (int)(at - err.text), err.text, at + n);
    else printf("error %d: %s\n", err.code, err.text);
}

/* The case in a child; its line is written by the child, but for the peak, which only the parent learns: it goes through a pipe. */
static void run_case(int fd, const char *target) {
    char path[64], text[2048] = "";
    int ends[2], status = 0;
    struct rusage used = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (pipe(ends)) exit(2);
    fflush(stdout);
    const pid_t child = fork();
    if (child < 0) exit(2);
    if (!child) {
        alarm(30);
        dup2(ends[1], 1);
        close(ends[0]);
        close(0); /* or exit() would move the place up to which the parent has read */
        run(path, target);
        exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && (got = read(ends[0], text + n, sizeof text - 1 - n)) > 0;) n += (size_t)got;
    close(ends[0]);
    if (wait4(child, &status, 0, &used) != child) exit(2);
    text[n] = 0;
    printf("%ld ", (long)used.ru_maxrss);
    if (WIFSIGNALED(status)) printf("signal %d\n", WTERMSIG(status));
    else if (WEXITSTATUS(status)) printf("wrong: exit code %d\n", WEXITSTATUS(status)); /* a sanitizer's report is on stderr */
    else fputs(text, stdout);
}

int main(int argc, char **argv) {
    uint32_t bytes;
    while (fread(&bytes, sizeof bytes, 1, stdin) == 1) {
        char *data = malloc((size_t)bytes + 1);
        const int fd = memfd_create("case", 0);
        if (!data || fd < 0 || fread(data, 1, bytes, stdin) != bytes || write(fd, data, bytes) != (ssize_t)bytes) return 2;
        free(data);
        run_case(fd, argc > 1 ? argv[1] : NULL);
        close(fd);
    }
    return 0;
}
