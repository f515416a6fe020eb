/* A service that breathes: cycles of growing to 200 MB and shrinking to 5 MB, with work in between. Growing and shrinking are
 * timed, the work in between is bounded by time or operations and stays out of the figures. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { WORK_SLOTS = 400, SETTLE_MS = 100 };

static int64_t cycles = 5, seed = 1234567, grow_mb = 200, shrink_mb = 5, work_ops = 0;
static double work_ms = 500;

static const bench_option options[] = {
    {.name = "cycles", .help = "of growing and shrinking", .number = &cycles, .lo = 1, .hi = 20},
    {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
    {.name = "grow-mb", .help = "grow to so many MiB", .number = &grow_mb, .lo = 1, .hi = 65536},
    {.name = "shrink-mb", .help = "shrink to so many MiB", .number = &shrink_mb, .lo = 0, .hi = 65536},
    {.name = "work-ms", .help = "of random work after each shrinking, in ms", .real = &work_ms, .lo = 0, .hi = 3600000},
    {.name = "work-ops",
     .help = "work by operations instead of time, 0: by time",
     .number = &work_ops,
     .lo = 0,
     .hi = 1000000000000},
    {0}};
static const bench_spec spec = {"phases", "Cycles of growing and shrinking; how closely memory follows and what it costs.", options,
                                2};

typedef struct {
    char *block;
    size_t size;
} held;

static held *heap;
static size_t count, capacity, bytes;
static char *work_slots[WORK_SLOTS];
static uint64_t ops, work_done;

static void grow(uint32_t *state) {
    while (bytes < (size_t)grow_mb << 20 && count < capacity) {
        size_t size = bench_mixed_size(bench_random(state));
        char *p = bench_got(malloc(size));
        memset(p, (int)size, size);
        heap[count++] = (held){p, size};
        bytes += size;
        ops++;
    }
}

/* Frees random blocks, so that the survivors are spread over the whole heap. */
static void shrink(uint32_t *state) {
    while (bytes > (size_t)shrink_mb << 20 && count > 0) {
        held *victim = &heap[bench_random(state) % count];
        free(victim->block);
        bytes -= victim->size;
        *victim = heap[--count];
        ops++;
    }
}

static void work_burst(uint32_t *state, uint64_t burst) {
    for (; burst > 0; burst--, work_done++) {
        uint32_t r = bench_random(state);
        char **slot = &work_slots[r % WORK_SLOTS];
        free(*slot);
        *slot = bench_got(malloc(bench_mixed_size(r)));
        **slot = (char)r;
    }
}

static void work(uint32_t *state) {
    double until = bench_now() + work_ms / 1e3;
    if (work_ops) work_burst(state, (uint64_t)work_ops);
    else
        while (bench_now() < until) work_burst(state, 256);
}

/* Memory at the mark and 100 ms later, with a little activity in between: allocators act when they are called. */
static void mark(const char *name, int64_t cycle, uint32_t *state) {
    bench_phase("%s%d", name, (int)cycle);
    for (int i = 0; i < SETTLE_MS / 10; i++) {
        work_burst(state, 64);
        bench_sleep_ms(10);
    }
    bench_phase("%s%d+%dms", name, (int)cycle, SETTLE_MS);
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    if (shrink_mb >= grow_mb) bench_refuse("--shrink-mb=%d is not below --grow-mb=%d", (int)shrink_mb, (int)grow_mb);
    uint32_t state = bench_stream(seed, 0), work_state = bench_stream(seed, 1);
    bytes = ops = work_done = 0;
    memset(work_slots, 0, sizeof work_slots);
    double grow_s = 0, shrink_s = 0, taken_mb = 0, given_mb = 0;
    capacity = ((size_t)grow_mb << 20) / 500; /* a block has 527.5 bytes on average */
    heap = bench_got(calloc(capacity, sizeof *heap));
    for (int64_t cycle = 1; cycle <= cycles; cycle++) {
        double before_s = bench_timed_seconds();
        size_t before = bytes;
        bench_timed_begin();
        grow(&state);
        bench_timed_end();
        grow_s += bench_timed_seconds() - before_s;
        taken_mb += (double)(bytes - before) / 1048576;
        mark("grow", cycle, &work_state);
        before_s = bench_timed_seconds();
        before = bytes;
        bench_timed_begin();
        shrink(&state);
        bench_timed_end();
        shrink_s += bench_timed_seconds() - before_s;
        given_mb += (double)(before - bytes) / 1048576;
        mark("shrink", cycle, &work_state);
        work(&work_state);
    }
    bench_phase("end");
    bench_extra("live_kb", (double)(bytes + capacity * sizeof *heap) / 1024);
    bench_extra("grow_s", grow_s);
    bench_extra("shrink_s", shrink_s);
    bench_extra("grow_ms_per_mb", 1e3 * grow_s / taken_mb);
    bench_extra("shrink_ms_per_mb", 1e3 * shrink_s / given_mb);
    bench_extra("work_ops", (double)work_done);
    size_t live = count;
    while (count > 0) free(heap[--count].block);
    for (int i = 0; i < WORK_SLOTS; i++) free(work_slots[i]);
    free(heap);
    return bench_report(ops, (uint64_t)cycles, live);
}
