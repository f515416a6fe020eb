/* Blocks of 5-25 MiB, a random one replaced each time: what page faults and zeroed pages cost. One replacement is one op. */
#include "bench.h"

#include <stdlib.h>

static int64_t cycles = 1000, slots_count = 8, min_kb = 5120, max_kb = 25600, seed = 1234567;
static const char *touch_name = "page";

static const bench_option options[] = {
    {.name = "cycles", .help = "replacements", .number = &cycles, .lo = 1, .hi = 1000000000},
    {.name = "ws", .help = "blocks held", .number = &slots_count, .lo = 1, .hi = 10000},
    {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
    {.name = "min-kb", .help = "smallest block in KiB", .number = &min_kb, .lo = 1, .hi = 1 << 22},
    {.name = "max-kb", .help = "largest block in KiB", .number = &max_kb, .lo = 1, .hi = 1 << 22},
    {.name = "touch", .help = "what of a new block is written", .text = &touch_name, .choices = BENCH_TOUCH_CHOICES},
    {0}};
static const bench_spec spec = {"big", "Random replacement of blocks of many MiB.", options, 3};

static void run(char **slots, uint32_t state, int64_t count) {
    enum bench_touch touch = bench_touch_named(touch_name);
    for (int64_t i = 0; i < count; i++) {
        char **slot = &slots[bench_random(&state) % (uint32_t)slots_count];
        size_t size = ((size_t)min_kb + bench_random(&state) % (uint32_t)(max_kb - min_kb + 1)) << 10;
        free(*slot);
        *slot = bench_got(malloc(size));
        bench_touch(*slot, 0, size, touch);
    }
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    if (min_kb > max_kb) bench_refuse("--min-kb=%d is above --max-kb=%d", (int)min_kb, (int)max_kb);
    char **slots = bench_got(calloc((size_t)slots_count, sizeof *slots));
    run(slots, bench_stream(seed, 1), bench_warmup(cycles));
    bench_phase("warm");
    bench_timed_begin();
    run(slots, bench_stream(seed, 0), cycles);
    bench_timed_end();
    bench_phase("done");
    for (int64_t i = 0; i < slots_count; i++) free(slots[i]);
    free(slots);
    return bench_report((uint64_t)cycles, (uint64_t)cycles, (uint64_t)slots_count);
}
