/* random_mixed for minutes or hours in one process: every epoch's throughput, memory and longest stall becomes a line of the CSV.
 * SIGINT and SIGTERM end the run early with a full report. */
#include "bench.h"
#include "epochs.h"

#include <malloc.h>
#include <signal.h>
#include <stdlib.h>

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

/* Bytes in live blocks as the allocator counts them: its rounding is in, what it holds beside them is not. */
static double live_kb(const soak *run) {
    size_t bytes = 0;
    for (int64_t i = 0; i < ws; i++) bytes += malloc_usable_size(run->slots[i]);
    return (double)bytes / 1024;
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

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    if (!(epoch_seconds > 0)) bench_refuse("--epoch-seconds must be above 0");
    bench_epochs_open(csv_path);
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
        if (run.ops > ops_before)
            bench_epochs_write(&(bench_epoch){.number = epochs,
                                              .t_s = to - begin,
                                              .ops = run.ops - ops_before,
                                              .took_s = to - from,
                                              .memory = bench_read_memory(),
                                              .stall_s = run.stall_s,
                                              .live_kb = live_kb(&run)});
        epochs++;
        now = bench_now();
    }
    bench_phase("done");
    for (int64_t i = 0; i < ws; i++) free(run.slots[i]);
    free(run.slots);
    bench_epochs_close();
    bench_extra("epochs", epochs);
    bench_extra("stall_max_us", 1e6 * worst_stall_s);
    bench_extra("stopped_early", stopping);
    return bench_report(run.ops, run.ops, (uint64_t)ws);
}
