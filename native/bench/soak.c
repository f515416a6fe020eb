/* random_mixed for minutes or hours in one process: every epoch's throughput, memory and longest stall becomes a line of the CSV.
 * SIGINT and SIGTERM end the run early with a full report. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 256 };

static int64_t cycles = 0, ws = 400, seed = 1234567;
static double seconds = 300, epoch_seconds = 5;
static const char *csv_path;

static const bench_option options[] = {
    {.name = "cycles",
     .help = "end after so many operations, 0: by time alone",
     .number = &cycles,
     .lo = 0,
     .hi = 1000000000000000},
    {.name = "ws", .help = "slots", .number = &ws, .lo = 1, .hi = 100000000},
    {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
    {.name = "seconds", .help = "end after so long", .real = &seconds, .lo = 0, .hi = 31536000},
    {.name = "epoch-seconds", .help = "length of an epoch", .real = &epoch_seconds, .lo = 0, .hi = 86400},
    {.name = "csv", .help = "file for one line an epoch", .text = &csv_path},
    {0}};
static const bench_spec spec = {"soak", "random_mixed in epochs: is it stable over time?", options, 3};

typedef struct {
    char **slots;
    uint32_t state;
    uint64_t ops;
    double stall_s; /* the longest batch of the current epoch */
} soak;

static volatile sig_atomic_t stopping;
static int csv = -1;

static void stop(int signal_number) {
    (void)signal_number;
    stopping = 1;
}

static void batch(soak *run, int64_t count) {
    uint32_t state = run->state;
    for (int64_t i = 0; i < count; i++) {
        uint32_t r = bench_random(&state);
        char **slot = &run->slots[r % (uint32_t)ws];
        if (*slot) {
            free(*slot);
            *slot = NULL;
        } else {
            *slot = bench_got(malloc(bench_mixed_size(r)));
            **slot = (char)r;
        }
    }
    run->state = state;
    run->ops += (uint64_t)count;
}

/* Until the time is over, the operations are done, or somebody says stop. Returns the time at its end. */
static double epoch(soak *run, double until, uint64_t limit) {
    double now = bench_now();
    run->stall_s = 0;
    while (now < until && run->ops < limit && !stopping) {
        uint64_t left = limit - run->ops;
        double before = now;
        batch(run, left < BATCH ? (int64_t)left : BATCH);
        now = bench_now();
        if (now - before > run->stall_s) run->stall_s = now - before;
    }
    return now;
}

static void write_csv(const char *text, int length) {
    if (csv >= 0 && write(csv, text, (size_t)length) != length) bench_die("cannot write to '%s': %s", csv_path, strerror(errno));
}

static void open_csv(void) {
    static const char header[] = "epoch,t_s,ops,ops_per_s,rss_mb,lazyfree_mb,peak_rss_mb,stall_max_us\n";
    if (!csv_path) return;
    csv = open(csv_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (csv < 0) bench_refuse("cannot open --csv='%s': %s", csv_path, strerror(errno));
    write_csv(header, sizeof header - 1);
}

static void write_epoch(int number, double t_s, uint64_t ops, double took_s, double stall_s) {
    char line[256];
    bench_memory memory = bench_read_memory();
    write_csv(line, snprintf(line, sizeof line, "%d,%.3f,%llu,%.1f,%.4f,%.4f,%.4f,%.2f\n", number, t_s, (unsigned long long)ops,
                             took_s > 0 ? (double)ops / took_s : 0, (double)memory.rss_kb / 1024, (double)memory.lazyfree_kb / 1024,
                             (double)memory.peak_rss_kb / 1024, 1e6 * stall_s));
}

/* A tenth of the run, whichever of time and operations bounds it, or as many iterations as the gate says. */
static void warm_up(soak *run) {
    bool by_gate = bench_prefault_gate() >= 0;
    int64_t iterations = bench_warmup(cycles);
    if (by_gate || cycles) epoch(run, by_gate ? 1e300 : bench_now() + seconds / 10, (uint64_t)iterations);
    else epoch(run, bench_now() + seconds / 10, UINT64_MAX);
    run->ops = 0;
    run->state = bench_stream(seed, 0);
}

int main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    if (!(epoch_seconds > 0)) bench_refuse("--epoch-seconds must be above 0");
    open_csv();
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    soak run = {.slots = bench_got(calloc((size_t)ws, sizeof(char *))), .state = bench_stream(seed, 1)};
    uint64_t limit = cycles ? (uint64_t)cycles : UINT64_MAX;
    double worst_stall_s = 0;
    int epochs = 0;
    warm_up(&run);
    bench_phase("warm");
    double begin = bench_now(), now = begin;
    while (now - begin < seconds && run.ops < limit && !stopping) {
        uint64_t ops_before = run.ops;
        double until = begin + (epochs + 1) * epoch_seconds;
        bench_timed_begin();
        double from = bench_now(), to = epoch(&run, until < begin + seconds ? until : begin + seconds, limit);
        bench_timed_end();
        if (run.stall_s > worst_stall_s) worst_stall_s = run.stall_s;
        if (run.ops > ops_before) write_epoch(epochs, to - begin, run.ops - ops_before, to - from, run.stall_s);
        epochs++;
        now = bench_now();
    }
    bench_phase("done");
    for (int64_t i = 0; i < ws; i++) free(run.slots[i]);
    free(run.slots);
    if (csv >= 0 && close(csv) != 0) bench_die("cannot write to '%s': %s", csv_path, strerror(errno));
    bench_extra("epochs", epochs);
    bench_extra("stall_max_us", 1e6 * worst_stall_s);
    bench_extra("stopped_early", stopping);
    return bench_report(run.ops, run.ops, (uint64_t)ws);
}
