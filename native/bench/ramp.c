/* A peak and what stays of it: fill, free all but every 100th block, then the light churn of a quiet service, paced by the clock. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { CHURN_SLOTS = 400, CHURN_BURST = 100 };

static int64_t blocks = 300000, keep_each = 100, churn_ops = 0, seed = 1234567;
static double churn_seconds = 3;

static const bench_option options[] = {
    {.name = "blocks", .help = "of 16..1039 bytes, written fully", .number = &blocks, .lo = 1, .hi = 100000000},
    {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
    {.name = "keep-each", .help = "every so-manieth block survives", .number = &keep_each, .lo = 1, .hi = 100000000},
    {.name = "churn-seconds",
     .help = "of light churn, a burst of 100 operations every ms",
     .real = &churn_seconds,
     .lo = 0,
     .hi = 86400},
    {.name = "churn-ops",
     .help = "churn operations instead of seconds, 0: by time",
     .number = &churn_ops,
     .lo = 0,
     .hi = 1000000000000},
    {0}};
static const bench_spec spec = {"ramp", "Fills the heap, frees nearly all of it, and looks at what stays resident.", options, 2};

/* Returns the operations done; sleeps are part of the pace, only bursts are timed. */
static uint64_t churn(uint32_t state) {
    char *slots[CHURN_SLOTS] = {0};
    uint64_t done = 0;
    double until = bench_now() + churn_seconds;
    while (churn_ops ? done < (uint64_t)churn_ops : bench_now() < until) {
        bench_timed_begin();
        for (int i = 0; i < CHURN_BURST && !(churn_ops && done == (uint64_t)churn_ops); i++, done++) {
            uint32_t r = bench_random(&state);
            char **slot = &slots[r % CHURN_SLOTS];
            if (*slot) {
                free(*slot);
                *slot = NULL;
            } else {
                *slot = bench_got(malloc(bench_mixed_size(r)));
                **slot = (char)r;
            }
        }
        bench_timed_end();
        bench_sleep_ms(1);
    }
    bench_phase("churned");
    for (int i = 0; i < CHURN_SLOTS; i++) free(slots[i]);
    return done;
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    uint32_t state = bench_stream(seed, 0);
    double total_bytes = 0, live_bytes = (double)blocks * (double)sizeof(char *);
    int64_t kept = 0;
    bench_timed_begin();
    char **pointers = bench_got(calloc((size_t)blocks, sizeof *pointers));
    for (int64_t i = 0; i < blocks; i++) {
        size_t size = bench_mixed_size(bench_random(&state));
        pointers[i] = bench_got(malloc(size));
        memset(pointers[i], (int)i, size);
        total_bytes += (double)size;
        if (i % keep_each == 0) live_bytes += (double)size;
    }
    bench_timed_end();
    double fill_s = bench_timed_seconds();
    bench_phase("full");
    bench_timed_begin();
    for (int64_t i = 0; i < blocks; i++) {
        if (i % keep_each == 0) {
            kept++;
            continue;
        }
        free(pointers[i]);
        pointers[i] = NULL;
    }
    bench_timed_end();
    double free_s = bench_timed_seconds() - fill_s;
    bench_phase("freed");
    uint64_t churned = churn(bench_stream(seed, 1));
    for (int64_t i = 0; i < blocks; i++) free(pointers[i]);
    free(pointers);

    double mb = total_bytes / 1048576;
    bench_extra("live_kb", live_bytes / 1024);
    bench_extra("filled_mb", mb);
    bench_extra("fill_s", fill_s);
    bench_extra("free_s", free_s);
    bench_extra("fill_ms_per_mb", 1e3 * fill_s / mb);
    bench_extra("free_ms_per_mb", 1e3 * free_s / mb);
    bench_extra("churn_ops", (double)churned);
    bench_extra("churn_busy_s", bench_timed_seconds() - fill_s - free_s);
    return bench_report((uint64_t)(2 * blocks - kept) + churned, (uint64_t)blocks, (uint64_t)kept);
}
