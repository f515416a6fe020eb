/* What it costs to start: each round starts `processes` children of this program, one after the other, all of which then stay
 * alive at rest until the last one is there. A child measures the time from just before it was started to main(), and the first and
 * the second malloc of every class C0..C7, each with a write to the block. One process, ready with all its classes, is one op.
 *
 * Where memory runs short (under a quarter of the machine's is available) or no further process is granted, a round ends with
 * those there are, and `at_once` says how many. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CLASSES = 8, SAMPLES_KEPT = 1 << 16, ANSWER_MS = 60000, LOOK_EACH = 16 };

static int64_t rounds = 1, processes = 1;

static const bench_option options[] = {
    {.name = "rounds", .help = "of starting them all", .number = &rounds, .lo = 1, .hi = 1000000},
    {.name = "processes", .help = "alive at once", .number = &processes, .lo = 1, .hi = 100000},
    {0}};
static const bench_spec spec = {"start_up", "Processes that start, allocate once from every class, and rest.", options, 2};

/* What a child tells through the pipe that all share: less than PIPE_BUF, so it arrives whole. */
typedef struct {
    double to_main_us, ready_us, faults_at_main, faults_ready;
    double first_ns[CLASSES], second_ns[CLASSES];
} record;
enum { FIGURES = sizeof(record) / sizeof(double) };
_Static_assert(sizeof(record) <= 512, "POSIX grants PIPE_BUF no more");

extern char **environ;
static double kept[FIGURES][SAMPLES_KEPT]; /* of the processes of all rounds, or of the first so many */
static size_t kept_count;

/* ---- a child ---- */

static double faults(void) {
    struct rusage now;
    getrusage(RUSAGE_SELF, &now);
    return (double)now.ru_minflt;
}

static double malloc_ns(size_t size) {
    double before = bench_now();
    char *volatile p = bench_got(malloc(size)); /* stays allocated: the process is at rest, not empty */
    *p = 1;
    return 1e9 * (bench_now() - before);
}

/* argv: --child, when it was started, where to tell, what to wait for */
static int be_a_child(double at_main, char **argv) {
    double started = strtod(argv[2], NULL);
    record told = {.to_main_us = 1e6 * (at_main - started), .faults_at_main = faults()};
    for (int c = 0; c < CLASSES; c++) told.first_ns[c] = malloc_ns((size_t)16 << c);
    told.ready_us = 1e6 * (bench_now() - started);
    told.faults_ready = faults();
    for (int c = 0; c < CLASSES; c++) told.second_ns[c] = malloc_ns((size_t)16 << c);
    if (write(atoi(argv[3]), &told, sizeof told) != sizeof told) return 1;
    char byte;
    return read(atoi(argv[4]), &byte, 1) == 0 ? 0 : 1; /* ends when the parent lets go, or is gone */
}

/* ---- the parent ---- */

/* Two pipes: the children write to report[1] and wait at hold[0]; the other ends stay with the parent. */
static int report[2], hold[2];
static char program[4096]; /* not /proc/self/exe itself: under valgrind that is valgrind */

static void make_pipe(int pipe_of[2], int inherited) {
    if (pipe2(pipe_of, O_CLOEXEC) != 0 || fcntl(pipe_of[inherited], F_SETFD, 0) != 0) bench_die("pipe: %s", strerror(errno));
}

static pid_t start_one(void) {
    char child[] = "--child", started[40], tell[12], wait_at[12];
    char *argv[] = {program, child, started, tell, wait_at, NULL};
    pid_t pid;
    snprintf(tell, sizeof tell, "%d", report[1]);
    snprintf(wait_at, sizeof wait_at, "%d", hold[0]);
    snprintf(started, sizeof started, "%.9f", bench_now());
    int error = posix_spawn(&pid, program, NULL, NULL, argv, environ);
    if (error == EAGAIN || error == ENOMEM) return 0;
    if (error != 0) bench_die("cannot start a process: %s", strerror(error));
    return pid;
}

static void hear(void) {
    double told[FIGURES];
    struct pollfd answer = {.fd = report[0], .events = POLLIN};
    if (poll(&answer, 1, ANSWER_MS) != 1 || read(report[0], told, sizeof told) != sizeof told)
        bench_die("a process that was started does not answer");
    if (kept_count == SAMPLES_KEPT) return;
    for (int i = 0; i < FIGURES; i++) kept[i][kept_count] = told[i];
    kept_count++;
}

static bool memory_is_short(void) {
    static char text[4096];
    bench_read_file("/proc/meminfo", text, sizeof text);
    return bench_kilobytes(text, "MemAvailable:") < bench_kilobytes(text, "MemTotal:") / 4;
}

/* Means over the processes at rest, in KiB: resident, their own, their share of what is resident, page tables. */
static void look_at(const pid_t *pids, int64_t count) {
    static const struct {
        const char *file, *key, *name;
    } figures[] = {{"smaps_rollup", "\nRss:", "rest_rss_kb"},
                   {"smaps_rollup", "\nAnonymous:", "rest_anon_kb"},
                   {"smaps_rollup", "\nPss:", "rest_pss_kb"},
                   {"status", "\nVmPTE:", "rest_tables_kb"}};
    for (size_t f = 0; f < sizeof figures / sizeof *figures; f++) {
        double sum = 0;
        for (int64_t i = 0; i < count; i++) {
            char path[64], text[4096];
            snprintf(path, sizeof path, "/proc/%d/%s", (int)pids[i], figures[f].file);
            if (!bench_read_file(path, text, sizeof text)) bench_die("cannot read %s", path);
            sum += (double)bench_kilobytes(text, figures[f].key);
        }
        bench_extra(figures[f].name, sum / (double)count);
    }
}

/* Returns how many there were. */
static int64_t run_round(pid_t *pids, bool last) {
    int64_t count = 0;
    make_pipe(hold, 0);
    bench_timed_begin();
    while (count < processes && !(count % LOOK_EACH == LOOK_EACH - 1 && memory_is_short()) && (pids[count] = start_one())) {
        hear();
        count++;
    }
    bench_timed_end();
    if (count == 0) bench_die("not one process could be started");
    if (last) look_at(pids, count);
    close(hold[1]);
    close(hold[0]);
    for (int64_t i = 0; i < count; i++) {
        int status;
        if (waitpid(pids[i], &status, 0) != pids[i] || status != 0) bench_die("a process that was started failed");
    }
    return count;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at_percent(size_t figure, int percent) {
    qsort(kept[figure], kept_count, sizeof(double), ascending);
    return kept[figure][(kept_count - 1) * (size_t)percent / 100];
}

static void tell_figures(void) {
    static const char *const names[] = {"to_main_us", "ready_us", "faults_at_main", "faults_ready"};
    static char numbered[2][CLASSES][16];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) bench_extra(names[i], at_percent(i, 50));
    bench_extra("to_main_p95_us", at_percent(0, 95));
    bench_extra("ready_p95_us", at_percent(1, 95));
    for (size_t c = 0; c < 2 * CLASSES; c++) {
        char *name = numbered[c / CLASSES][c % CLASSES];
        snprintf(name, sizeof numbered[0][0], "%s_c%zu_ns", c < CLASSES ? "first" : "second", c % CLASSES);
        bench_extra(name, at_percent(offsetof(record, first_ns) / sizeof(double) + c, 50));
    }
}

int bench_main(int argc, char **argv) {
    double at_main = bench_now();
    if (argc == 5 && strcmp(argv[1], "--child") == 0) return be_a_child(at_main, argv);
    bench_init(argc, argv, &spec);
    pid_t *pids = bench_got(calloc((size_t)processes, sizeof *pids));
    int64_t started = 0;
    make_pipe(report, 1);
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) bench_die("/proc/self/exe: %s", strerror(errno));
    bench_phase("start");
    for (int64_t i = 0; i < rounds; i++) {
        int64_t now = run_round(pids, i + 1 == rounds);
        started += now;
        if (i + 1 == rounds) bench_extra("at_once", (double)now);
    }
    bench_phase("done");
    tell_figures();
    free(pids);
    return bench_report((uint64_t)started, (uint64_t)rounds, (uint64_t)processes);
}
