/* A live set of fixed size under heavy churn of mixed sizes: the program a memory target is held against. Each op frees one random
 * block and allocates others until the live set is full again; one in 64 blocks is large. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { MEAN_BYTES = 1050 }; /* 63 in 64 blocks of 16..1039, one of 1..64 KiB */

static int64_t cycles = 5000000, live_mb = 5, seed = 1234567;

static const bench_option options[] = {{.name = "cycles", .help = "operations", .number = &cycles, .lo = 1, .hi = 1000000000000},
                                       {.name = "live-mb", .help = "live set in MiB", .number = &live_mb, .lo = 1, .hi = 65536},
                                       {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
                                       {0}};
static const bench_spec spec = {"target", "Heavy churn over a live set of fixed size.", options, 2};

typedef struct {
    char *block;
    size_t size;
} held;

static held *heap;
static size_t count, capacity, bytes, limit, peak_bytes;

static size_t random_size(uint32_t *state) {
    uint32_t r = bench_random(state);
    return r >> 26 ? bench_mixed_size(r) : 1024 + (r & 0xFFFF);
}

/* Allocates until the next block would not fit into the live set. */
static void fill(uint32_t *state) {
    while (count < capacity) {
        size_t size = random_size(state);
        if (bytes + size > limit) return;
        char *p = bench_got(malloc(size));
        memset(p, (int)size, size);
        heap[count++] = (held){p, size};
        bytes += size;
        if (bytes > peak_bytes) peak_bytes = bytes;
    }
}

static void run(uint32_t state, int64_t ops) {
    for (; ops > 0; ops--) {
        if (count > 0) {
            held *victim = &heap[bench_random(&state) % count];
            free(victim->block);
            bytes -= victim->size;
            *victim = heap[--count];
        }
        fill(&state);
    }
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    bytes = peak_bytes = 0;
    limit = (size_t)live_mb << 20;
    capacity = 2 * limit / MEAN_BYTES;
    limit -= capacity * sizeof *heap; /* the table of blocks is live, too */
    heap = bench_got(calloc(capacity, sizeof *heap));
    memset(heap, 0, capacity * sizeof *heap);
    run(bench_stream(seed, 1), bench_warmup(cycles));
    bench_phase("warm");
    bench_timed_begin();
    run(bench_stream(seed, 0), cycles);
    bench_timed_end();
    bench_phase("done");
    bench_extra("live_kb", (double)(bytes + capacity * sizeof *heap) / 1024);
    bench_extra("live_peak_kb", (double)(peak_bytes + capacity * sizeof *heap) / 1024);
    size_t live = count;
    while (count > 0) free(heap[--count].block);
    free(heap);
    return bench_report((uint64_t)cycles, (uint64_t)cycles, live);
}
