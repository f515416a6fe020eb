/* One of a thousand processes of a host: a burst of memory, all of it freed, then silence (or a rare request). */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static int64_t burst_mb = 50, seed = 1234567;
static double idle_ms = 1000, tick_ms = 0;

static const bench_option options[] = {
    {.name = "burst-mb", .help = "allocated, written and freed, in MiB", .number = &burst_mb, .lo = 1, .hi = 65536},
    {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
    {.name = "idle-ms", .help = "of idling after the burst", .real = &idle_ms, .lo = 0, .hi = 86400000},
    {.name = "tick-ms",
     .help = "one malloc and free every so often while idle, 0: never",
     .real = &tick_ms,
     .lo = 0,
     .hi = 86400000},
    {0}};
static const bench_spec spec = {"idle", "A burst of memory, then an idle process.", options, 1};

static void idle(uint32_t *state) {
    double until = bench_now() + idle_ms / 1e3;
    if (!(tick_ms > 0)) bench_sleep_ms(idle_ms);
    while (tick_ms > 0 && bench_now() < until) {
        free(bench_got(malloc(bench_mixed_size(bench_random(state)))));
        bench_sleep_ms(tick_ms);
    }
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    uint32_t state = bench_stream(seed, 0);
    size_t limit = (size_t)burst_mb << 20, bytes = 0, count = 0, capacity = limit / 500;
    bench_phase("start");
    bench_timed_begin();
    char **pointers = bench_got(calloc(capacity, sizeof *pointers));
    while (bytes < limit && count < capacity) {
        size_t size = bench_mixed_size(bench_random(&state));
        pointers[count] = bench_got(malloc(size));
        memset(pointers[count++], (int)size, size);
        bytes += size;
    }
    bench_timed_end();
    bench_phase("burst");
    bench_timed_begin();
    for (size_t i = 0; i < count; i++) free(pointers[i]);
    free(pointers);
    bench_timed_end();
    bench_phase("freed");
    idle(&state);
    bench_phase("idle");
    bench_extra("burst_kb", (double)bytes / 1024);
    return bench_report(2 * (uint64_t)count, (uint64_t)count, (uint64_t)count);
}
