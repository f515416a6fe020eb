/* Runs one program and reports what the kernel says of it alone.
 *
 *   launch --report=FD [--preload=LIBRARY] [--seconds=S] -- PROGRAM [ARGUMENT...]
 *
 * A big parent's own peak shows in the maximum RSS of the children it forks; this one is small and forks nothing else, so the figure is
 * the program's. LD_PRELOAD reaches the program only. After S seconds the program is asked to end (SIGTERM), which then counts as its
 * end. The result line of a driver goes to FD; the exit status or the deadly signal is the program's own. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked_to_end;
static volatile pid_t child;

static void die(int status, const char *what, const char *why) {
    fprintf(stderr, "launch: %s: %s\n", what, why);
    _exit(status);
}

static void ask_to_end(int signal_number) {
    asked_to_end = signal_number;
    if (child > 0) kill(child, SIGTERM);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static const char *option(const char *argument, const char *name) {
    size_t length = strlen(name);
    return strncmp(argument, name, length) == 0 ? argument + length : NULL;
}

static void run(char **argv, const char *preload, pid_t launcher) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher) _exit(127); /* it died before the line above */
    if (preload && setenv("LD_PRELOAD", preload, 1) != 0) die(127, "LD_PRELOAD", strerror(errno));
    execvp(argv[0], argv);
    die(errno == ENOENT ? 127 : 126, argv[0], strerror(errno));
}

static void report(int fd, double seconds, const struct rusage *used) {
    dprintf(
        fd,
        "{\"hakmem_bench\":1,\"driver\":\"program\",\"args\":{},\"ops\":%d,\"seconds\":%.9f,\"ops_per_s\":%.9f,\"peak_rss_kb\":%ld,"
        "\"start_rss_kb\":null,\"phases\":[],\"timed\":{\"user_s\":%.6f,\"sys_s\":%.6f,\"minflt\":%ld,\"majflt\":%ld,\"nvcsw\":%ld,"
        "\"nivcsw\":%ld},\"extra\":{\"asked_to_end\":%d},\"allocator\":null}\n",
        asked_to_end ? 0 : 1, seconds, asked_to_end ? 0.0 : 1 / seconds, used->ru_maxrss,
        (double)used->ru_utime.tv_sec + 1e-6 * (double)used->ru_utime.tv_usec,
        (double)used->ru_stime.tv_sec + 1e-6 * (double)used->ru_stime.tv_usec, used->ru_minflt, used->ru_majflt, used->ru_nvcsw,
        used->ru_nivcsw, (int)asked_to_end);
}

int main(int argc, char **argv) {
    int fd = -1, at = 1, status;
    double limit_s = 0;
    const char *preload = NULL, *value;
    struct rusage used;
    for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
        if ((value = option(argv[at], "--report="))) fd = atoi(value);
        else if ((value = option(argv[at], "--preload="))) preload = value;
        else if ((value = option(argv[at], "--seconds="))) limit_s = atof(value);
        else die(2, argv[at], "unknown; it takes --report=FD --preload=LIBRARY --seconds=S -- PROGRAM");
    }
    if (at + 1 >= argc) die(2, "no program", "launch --report=FD -- PROGRAM");
    if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) die(2, "--report", strerror(errno));
    struct sigaction action = {.sa_handler = ask_to_end};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGINT, &action, NULL);

    pid_t launcher = getpid();
    double begin = now();
    child = fork();
    if (child < 0) die(126, "fork", strerror(errno));
    if (child == 0) run(argv + at + 1, preload, launcher);
    if (limit_s > 0) {
        struct itimerval timer = {
            .it_value = {.tv_sec = (time_t)limit_s, .tv_usec = (suseconds_t)(1e6 * (limit_s - (double)(time_t)limit_s))}};
        setitimer(ITIMER_REAL, &timer, NULL);
    }
    while (wait4(child, &status, 0, &used) < 0)
        if (errno != EINTR) die(126, "wait4", strerror(errno));
    report(fd, now() - begin, &used);
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    if (asked_to_end && WTERMSIG(status) == SIGTERM) return 0;
    signal(WTERMSIG(status), SIG_DFL);
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    raise(WTERMSIG(status));
    return 128 + WTERMSIG(status);
}
